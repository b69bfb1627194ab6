"""`python -m ddpo.rewards.tools.doctor_probe NAME…`: loads the cards and modules of rewards, and says on a line of JSON each how that went."""

from __future__ import annotations

import json
import os
import re
import sys
from importlib.metadata import EntryPoint
from typing import Any, Final

from ddpo.errors import ConfigError, NewerApiError, RewardLoadError, one_line
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
    """How a registered reward is: its card, then the module that the card names. Its weights are looked for, not loaded."""
    try:
        card = rewards.get(name)
    except RewardLoadError as error:
        return _card_failure(name, error.__cause__ or error)
    origin = rewards.origin(name)
    try:
        found = load_attribute(card.load)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a plug-in may raise anything at import
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
            f"ddpo knows no field {found[1]} on a card: it is misspelt, or of a newer ddpo",
        )
    if isinstance(error, ConfigError):
        return "bad card", text
    source = rewards.entries()[name][0].source
    module = source.value.partition(":")[0] if isinstance(source, EntryPoint) else ""
    if module not in sys.modules:  # it was taken out again when its import failed
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
        return "missing extra", text
    return "import error", text


def _needs(card: RewardCard, origin: str) -> str:
    found = availability(card, origin)
    notes = (
        [f"of its extra {', '.join(found.missing_libraries)} is missing: {found.install}"]
        if found.missing_libraries
        else []
    )
    absent = sum(state.weight.megabytes for state in found.weights if state.path is None)
    notes += (
        [f"weights of {absent:,.1f} MB are not here: ddpo rewards download {card.id}"]
        if absent
        else []
    )
    return "; ".join(notes)


def main(names: list[str]) -> None:
    """Examines `names` in order, each on a line as soon as it is known; what plug-ins print goes elsewhere."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for name in names:
            status, detail = examine(name)
            answer: dict[str, Any] = {"reward": name, "status": status, "detail": detail}
            print(json.dumps(answer), file=answers, flush=True)  # a line of its protocol


if __name__ == "__main__":
    main(sys.argv[1:])
