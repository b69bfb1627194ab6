"""Checks of the card, of what listing it imports, and of what is said without its weights."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import EntryPoint
from typing import Any, Final

from ddpo.errors import MissingResourceError, one_line
from ddpo.registry import explain_load_failure, load_attribute
from ddpo.rewards.card import PLACEMENT, RewardCard, WeightFile
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.reward_under_test import RewardUnderTest
from ddpo.rewards.fixtures import FIXTURES
from ddpo.rewards.signature import identity
from ddpo.rewards.zoo import rewards

__all__ = ["CHECKS"]


@check("card")
def card_valid(subject: RewardUnderTest) -> str | None:
    """Summary, flaws and unit are stated; percentiles and goldens are sound and have sources."""
    card = subject.card
    stated = (
        ("summary", "flaws", "version")
        if card.family == "user"
        else ("summary", "flaws", "version", "unit")
    )  # "user": of a function
    problems = [f"{name} is empty" for name in stated if not getattr(card, name).strip()]
    problems += [
        f"{name} has more than one line"
        for name in ("summary", "unit", "version")
        if "\n" in getattr(card, name)
    ]
    low, high = (
        float("-inf") if card.range[0] is None else card.range[0],
        float("inf") if card.range[1] is None else card.range[1],
    )
    if not low < high:
        problems.append(f"range {card.range} is empty")
    if card.typical is not None:
        problems += (
            []
            if list(card.typical) == sorted(card.typical)
            else [f"typical {card.typical} does not rise from 5th to 95th percentile"]
        )
        problems += (
            []
            if low <= min(card.typical) and max(card.typical) <= high
            else [f"typical {card.typical} leaves the range {card.range}"]
        )
        problems += [] if card.typical_source else ["typical has no typical_source"]
    for golden in card.golden:
        problems += (
            []
            if golden.fixture in FIXTURES
            else [f"golden of {golden.fixture!r}, which is no fixture ({', '.join(FIXTURES)})"]
        )
        problems += [] if golden.source.strip() else [f"golden of {golden.fixture!r} has no source"]
        problems += (
            []
            if low <= golden.score <= high
            else [f"golden {golden.score:g} of {golden.fixture!r} leaves the range {card.range}"]
        )
        problems += (
            []
            if golden.tolerance >= 0
            else [f"golden of {golden.fixture!r} has a negative tolerance"]
        )
    if problems:
        raise CheckFailed("; ".join(problems))
    return None


@check("card")
def card_round_trip(subject: RewardUnderTest) -> str | None:
    """The card survives a trip through JSON, and has the same fingerprint afterwards."""
    try:
        again = RewardCard.from_dict(
            json.loads(json.dumps(subject.card.to_dict(), allow_nan=False))
        )
    except (TypeError, ValueError) as error:
        raise CheckFailed(f"it holds something that JSON does not: {one_line(error)}") from error
    fields = [field.name for field in dataclasses.fields(RewardCard)]
    changed = [name for name in fields if getattr(again, name) != getattr(subject.card, name)]
    if changed:
        raise CheckFailed(f"changed on the way through JSON: {', '.join(changed)}")
    if again.fingerprint(subject.found.options) != subject.card.fingerprint(subject.found.options):
        raise CheckFailed("the fingerprint changed on the way through JSON")
    return None


@check("card")
def card_options(subject: RewardUnderTest) -> str | None:
    """The options on the card are the keywords of the constructor, with the same defaults."""
    if subject.found.parts or not subject.remake:
        raise CheckSkipped(
            "it is an object that was already made"
            if not subject.remake
            else "a combination has the options of its parts"
        )
    try:
        target = subject.found.factory or load_attribute(subject.card.load)
    except Exception as error:
        module = subject.card.load.partition(":")[0]
        raise CheckFailed(
            f"{subject.card.load}: {explain_load_failure(error, module, 'install it')}"
        ) from error
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return "takes any keyword"
    taken = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind is not parameter.VAR_POSITIONAL
    }
    listed = {option.name: option.default for option in subject.card.options}
    problems = [
        f"parameter {name!r} is not on the card"
        for name in taken
        if name not in listed and not name.startswith("_")
    ]
    problems += [
        f"option {name!r} is not taken by the constructor" for name in listed if name not in taken
    ]
    problems += [
        f"option {name!r} is {listed[name]!r} on the card "
        f"and {taken[name].default!r} in the constructor"
        for name in listed
        if name in taken and taken[name].default not in (inspect.Parameter.empty, listed[name])
    ]
    if problems:
        raise CheckFailed("; ".join(problems))
    return None


@check("card")
def cache_key(subject: RewardUnderTest) -> str | None:
    """The key of a cached score changes with version, weights, preprocessing, dtype and options."""
    card, options, origin = subject.card, dict(subject.found.options), subject.found.origin
    key = identity(card, options, origin)
    variants: dict[str, tuple[RewardCard, dict[str, Any]]] = {
        "version": (dataclasses.replace(card, version=f"{card.version}.1"), options),
        "preprocessing": (
            dataclasses.replace(card, preprocessing=f"{card.preprocessing}, other"),
            options,
        ),
        "dtype": (dataclasses.replace(card, dtype=f"{card.dtype} or another"), options),
        "a weight file": (
            dataclasses.replace(
                card, weights=(*card.weights, WeightFile("a", "b", None, 1.0, "c"))
            ),
            options,
        ),
    }
    for place, weight in enumerate(card.weights):
        other = (
            dataclasses.replace(weight, sha256="0" * 64)
            if weight.sha256
            else dataclasses.replace(weight, revision="another")
        )
        changed = (*card.weights[:place], other, *card.weights[place + 1 :])
        variants[f"the weights {weight.source}"] = (
            dataclasses.replace(card, weights=changed),
            options,
        )
    for option in card.options:
        if option.name in PLACEMENT:  # where it runs changes no score
            continue
        variants[f"option {option.name}"] = (
            card,
            {**options, option.name: _another(options.get(option.name, option.default))},
        )
    blind = [
        name
        for name, (other_card, chosen) in variants.items()
        if identity(other_card, chosen, origin) == key
    ]
    if blind:
        raise CheckFailed(f"does not change with {', '.join(blind)}")
    if key != identity(card, options, origin):
        raise CheckFailed("it is not the same from one call to the next")
    return f"{len(variants)} changes"


def _another(value: object) -> object:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, (int, float)) else f"{value}-other"


HEAVY: Final = (
    "torch",
    "transformers",
    "diffusers",
    "PIL",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "cv2",
    "tensorflow",
    "jax",
)
SECONDS: Final = 300

LIST = """
import importlib, json, sys
module, heavy = json.loads(sys.argv[1])
before = set(sys.modules)
importlib.import_module(module)
print("\\n" + json.dumps([name for name in heavy if name in sys.modules and name not in before]))
"""

MAKE = """
import json, sys
try:
    from ddpo.rewards.zoo import resolve
    import numpy
    from ddpo.types import ImageBatch, Prompt
    reward = resolve(json.loads(sys.argv[1])).make()
    reward(ImageBatch.of_uint8(numpy.zeros((1, 64, 64, 3), numpy.uint8), (Prompt("a"),)))
    found = None
except BaseException as error:
    found = [[kind.__name__ for kind in type(error).__mro__], str(error)]
print("\\n" + json.dumps(found))
"""


@check("card")
def light_listing(subject: RewardUnderTest) -> str | None:
    """The module of the card imports nothing heavy (torch, NumPy, …), so that listing is fast."""
    entry = rewards.entries().get(subject.card.id, [None])[0]
    if entry is None or subject.text != subject.card.id:
        raise CheckSkipped("it has no entry point, so no listing imports it")
    module = entry.source.module if isinstance(entry.source, EntryPoint) else "ddpo.rewards.cards"
    loaded = _last_line(LIST, [module, HEAVY], {})
    if loaded:
        raise CheckFailed(
            f"importing {module} loads {', '.join(loaded)}: put the card into a module of its own"
        )
    return f"{module} is light"


@check("card")
def missing_weights(subject: RewardUnderTest) -> str | None:
    """Without weights and network, a one-line `MissingResourceError` says what is missing."""
    if not subject.card.weights:
        raise CheckSkipped("it needs no weights")
    if all(weight.source.startswith("package:") for weight in subject.card.weights):
        raise CheckSkipped("its weights are inside an installed package")
    with tempfile.TemporaryDirectory() as empty:
        places = dict.fromkeys(("DDPO_CACHE", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"), empty)
        environment = {
            **places,
            "DDPO_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        found = _last_line(MAKE, subject.text or subject.card.load, environment)
    if found is None:
        raise CheckFailed(
            "it is made and scores without its weights: the card lists files that it does not load"
        )
    kinds, message = found
    if MissingResourceError.__name__ not in kinds:
        raise CheckFailed(
            f"raises {kinds[0]} instead of MissingResourceError: {' '.join(message.split())[:200]}"
        )
    if not message.strip() or "\n" in message.strip():
        raise CheckFailed(
            f"the message has {len(message.splitlines())} lines instead of one: "
            f"{' '.join(message.split())[:200]}"
        )
    return str(message)


def _last_line(script: str, argument: object, environment: dict[str, str]) -> Any:
    """The JSON value that `script` prints last, in a new Python with the same module paths."""
    path = os.pathsep.join([os.getcwd() if place == "" else place for place in sys.path])
    done = subprocess.run(  # noqa: S603  # this Python, with a script of this file
        [sys.executable, "-c", script, json.dumps(argument)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **environment},
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise CheckFailed(
            f"a fresh Python process ended with {done.returncode}: "
            f"{lines[-1] if lines else 'no message'}"
        )
    return json.loads(done.stdout.splitlines()[-1])


CHECKS = (card_valid, card_round_trip, card_options, cache_key, light_listing, missing_weights)
