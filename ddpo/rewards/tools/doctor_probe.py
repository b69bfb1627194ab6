"""`python -m ddpo.rewards.tools.doctor_probe NAME…`: loads rewards, one line of JSON for each."""

from __future__ import annotations

import json
import os
import re
import sys
from importlib.metadata import EntryPoint
from typing import Any, Final

from ddpo.errors import INTERRUPTS, ConfigError, NewerApiError, RewardLoadError, one_line
from ddpo.registry import explain_load_failure, load_attribute
from ddpo.rewards.card import RewardCard
from ddpo.rewards.tools.availability import availability, install_line
from ddpo.rewards.tools.doctor import Status
from ddpo.rewards.zoo import rewards

__all__ = ["examine"]

UNKNOWN_FIELD: Final = re.compile(
    r"RewardCard\.__init__\(\) got an unexpected keyword argument ('\w+')"
)


def examine(name: str) -> tuple[Status, str]:
    """State of a registered reward by its card and its module; weights are not loaded."""
    try:
        card = rewards.get(name)
    except RewardLoadError as error:
        return _card_failure(name, error.__cause__ or error)
    origin = rewards.origin(name)
    try:
        found = load_attribute(card.load)
    except INTERRUPTS:
        raise
    except BaseException as error:  # noqa: BLE001  # plug-ins may raise anything
        return _load_failure(card, origin, error)
    if not callable(found):
        return (
            "bad card",
            f"its load={card.load!r} is a {type(found).__name__}, which makes no reward",
        )
    return "ok", _needs(card, origin)


def _card_failure(name: str, error: BaseException) -> tuple[Status, str]:
    text = one_line(error)
    if isinstance(error, NewerApiError):
        return "newer API", text
    if found := UNKNOWN_FIELD.search(text):
        return (
            "bad card",
            f"ddpo knows no field {found[1]} on a card: it is misspelt, or from a newer ddpo",
        )
    if isinstance(error, ConfigError):
        return "bad card", text
    source = rewards.entries()[name][0].source
    module = source.value.partition(":")[0] if isinstance(source, EntryPoint) else ""
    if module not in sys.modules:  # a failed import removes it again
        return "import error", explain_load_failure(
            error, module, f"install it, or reinstall {rewards.origin(name)}"
        )
    return "bad card", text


def _load_failure(card: RewardCard, origin: str, error: BaseException) -> tuple[Status, str]:
    module = card.load.partition(":")[0]
    install = install_line(card, origin)
    text = explain_load_failure(
        error, module, install or f"install it, or reinstall {origin.split()[0]}"
    )
    if isinstance(error, AttributeError) and module in sys.modules:
        return "bad card", f"its load={card.load!r} names nothing: {text}"
    if isinstance(error, ModuleNotFoundError) and install and text.endswith(install):
        return "extra missing", text
    return "import error", text


def _needs(card: RewardCard, origin: str) -> str:
    """Missing libraries and weights in words; "" if all is here."""
    found = availability(card, origin)
    notes = []
    if found.missing_libraries:
        missing = ", ".join(found.missing_libraries)
        notes.append(f"of its extra {missing} is missing: {found.install}")
    absent = sum(state.weight.megabytes for state in found.weights if state.path is None)
    if absent:
        notes.append(f"weights of {absent:,.1f} MB are not here: ddpo rewards download {card.id}")
    return "; ".join(notes)


def main(names: list[str]) -> None:
    """Prints a line for each of `names` as soon as it is known; plug-ins print to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for name in names:
            status, detail = examine(name)
            answer: dict[str, Any] = {"reward": name, "status": status, "detail": detail}
            print(json.dumps(answer), file=answers, flush=True)  # a line of its protocol


if __name__ == "__main__":
    main(sys.argv[1:])
