"""Checks of the card, of the imports of its module, and of the error without its weights."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any, Final

from ddpo.author_errors import author_error_as
from ddpo.errors import MissingResourceError, one_line
from ddpo.registry import explain_load_failure, load_attribute
from ddpo.rewards.card import PLACEMENT, RewardCard, WeightFile
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.reward_under_test import RewardUnderTest, score_bounds
from ddpo.rewards.fixtures import FIXTURES
from ddpo.rewards.signature import identity
from ddpo.rewards.zoo import rewards

__all__ = ["CHECKS"]


@check("card")
def card_valid(tested: RewardUnderTest) -> str | None:
    """Summary, flaws, version and unit are stated; all but the flaws take one line.

    Percentiles rise, lie within the range and have a source. Golden scores name a fixture and a
    source, and lie within the range.
    """
    card = tested.card
    required = ["summary", "flaws", "version"]
    if card.family != "user":  # the card of a user's function has no unit
        required.append("unit")
    problems = [f"{name} is empty" for name in required if not getattr(card, name).strip()]
    single_lines = ("summary", "unit", "version")
    problems += [
        f"{name} has more than one line" for name in single_lines if "\n" in getattr(card, name)
    ]
    low, high = score_bounds(card)
    if not low < high:
        problems.append(f"range {card.range} is empty")
    problems += [*_typical_problems(card), *_golden_problems(card)]
    if problems:
        raise CheckFailed("; ".join(problems))
    return None


def _typical_problems(card: RewardCard) -> Iterator[str]:
    if card.typical is None:
        return
    low, high = score_bounds(card)
    if list(card.typical) != sorted(card.typical):
        yield f"typical {card.typical} does not rise from 5th to 95th percentile"
    if not (low <= min(card.typical) and max(card.typical) <= high):
        yield f"typical {card.typical} leaves the range {card.range}"
    if not card.typical_source:
        yield "typical has no typical_source"


def _golden_problems(card: RewardCard) -> Iterator[str]:
    low, high = score_bounds(card)
    for golden in card.golden:
        label = f"golden of {golden.fixture!r}"
        if golden.fixture not in FIXTURES:
            yield f"{label}, which is no fixture ({', '.join(FIXTURES)})"
        if not golden.source.strip():
            yield f"{label} has no source"
        if not low <= golden.score <= high:
            yield f"golden {golden.score:g} of {golden.fixture!r} leaves the range {card.range}"
        if not golden.tolerance >= 0:
            yield f"{label} has a negative tolerance"


@check("card")
def card_round_trip(tested: RewardUnderTest) -> str | None:
    """The card is the same after a round trip through JSON, and so is its fingerprint."""
    try:
        text = json.dumps(tested.card.to_dict(), allow_nan=False)
        again = RewardCard.from_dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise CheckFailed(f"it holds something that JSON does not: {one_line(error)}") from error
    fields = [field.name for field in dataclasses.fields(RewardCard)]
    changed = [name for name in fields if getattr(again, name) != getattr(tested.card, name)]
    if changed:
        raise CheckFailed(f"changed on the way through JSON: {', '.join(changed)}")
    options = tested.resolved.options
    if again.fingerprint(options) != tested.card.fingerprint(options):
        raise CheckFailed("the fingerprint changed on the way through JSON")
    return None


@check("card")
def card_options(tested: RewardUnderTest) -> str | None:
    """The options on the card are the keywords of the constructor, with the same defaults."""
    if not tested.remakable:
        raise CheckSkipped("it is an object that was already made")
    if tested.resolved.parts:
        raise CheckSkipped("a combination has the options of its parts")
    parameters = inspect.signature(_constructor(tested)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return "takes any keyword"
    taken = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is not parameter.VAR_POSITIONAL
    }
    problems = list(_option_problems(tested.card, taken))
    if problems:
        raise CheckFailed("; ".join(problems))
    return None


def _constructor(tested: RewardUnderTest) -> Any:
    card = tested.card

    def failure(error: BaseException) -> CheckFailed:
        cause = explain_load_failure(error, card.load.partition(":")[0], "install it")
        return CheckFailed(f"{card.load}: {cause}")

    with author_error_as(failure):
        return tested.resolved.factory or load_attribute(card.load)


def _option_problems(card: RewardCard, taken: Mapping[str, object]) -> Iterator[str]:
    """The differences between the card's options and the constructor's keywords and defaults."""
    listed = {option.name: option.default for option in card.options}
    for name in taken:
        if name not in listed and not name.startswith("_"):
            yield f"parameter {name!r} is not on the card"
    for name, default in listed.items():
        if name not in taken:
            yield f"option {name!r} is not taken by the constructor"
        elif taken[name] not in (inspect.Parameter.empty, default):
            on_card = f"option {name!r} is {default!r} on the card"
            yield f"{on_card} and {taken[name]!r} in the constructor"


@check("card")
def cache_key(tested: RewardUnderTest) -> str | None:
    """The key of a cached score changes with version, weights, preprocessing, dtype and options.

    The option `device` is exempt, since no score depends on it.
    """
    card = tested.card
    options = dict(tested.resolved.options)
    origin = tested.resolved.origin
    key = identity(card, options, origin)
    cards = _changed_cards(card)
    changed_options = {
        f"option {option.name}": {
            **options,
            option.name: _another(options.get(option.name, option.default)),
        }
        for option in card.options
        if option.name not in PLACEMENT
    }
    keys = {name: identity(other, options, origin) for name, other in cards.items()}
    keys |= {name: identity(card, other, origin) for name, other in changed_options.items()}
    blind = [name for name, other in keys.items() if other == key]
    if blind:
        raise CheckFailed(f"does not change with {', '.join(blind)}")
    if key != identity(card, options, origin):
        raise CheckFailed("it is not the same from one call to the next")
    return f"{len(keys)} changes"


def _changed_cards(card: RewardCard) -> dict[str, RewardCard]:
    """Name of a field → the card with that field changed."""
    one_more = (*card.weights, WeightFile("a", "b", None, 1.0, "c"))
    changed = {
        "version": dataclasses.replace(card, version=f"{card.version}.1"),
        "preprocessing": dataclasses.replace(card, preprocessing=f"{card.preprocessing}, other"),
        "dtype": dataclasses.replace(card, dtype=f"{card.dtype} or another"),
        "a weight file": dataclasses.replace(card, weights=one_more),
    }
    for place, weight in enumerate(card.weights):
        weights = list(card.weights)
        if weight.sha256:
            weights[place] = dataclasses.replace(weight, sha256="0" * 64)
        else:
            weights[place] = dataclasses.replace(weight, revision="another")
        name = f"the weights {weight.source}"
        changed[name] = dataclasses.replace(card, weights=tuple(weights))
    return changed


def _another(value: object) -> object:
    """A value of the same type that differs."""
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
def light_listing(tested: RewardUnderTest) -> str | None:
    """The module of the card imports nothing heavy, so that `ddpo rewards list` stays fast.

    Heavy are torch, transformers, diffusers, Pillow, NumPy, pandas, SciPy and their like.
    """
    entry = rewards.entries().get(tested.card.id, [None])[0]
    if entry is None or tested.name != tested.card.id:
        raise CheckSkipped("it has no entry point, so no listing imports it")
    module = entry.source.module if isinstance(entry.source, EntryPoint) else "ddpo.rewards.cards"
    loaded = _last_line(LIST, [module, HEAVY], {})
    if loaded:
        remedy = "put the card into a module of its own"
        raise CheckFailed(f"importing {module} loads {', '.join(loaded)}: {remedy}")
    return f"{module} is light"


@check("card")
def missing_weights(tested: RewardUnderTest) -> str | None:
    """Without weights and network, a `MissingResourceError` names on one line what is missing."""
    if not tested.card.weights:
        raise CheckSkipped("it needs no weights")
    if all(weight.source.startswith("package:") for weight in tested.card.weights):
        raise CheckSkipped("its weights are inside an installed package")
    offline = dict.fromkeys(("DDPO_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    with tempfile.TemporaryDirectory() as empty:
        places = dict.fromkeys(("DDPO_CACHE", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"), empty)
        raised = _last_line(MAKE, tested.name or tested.card.load, {**places, **offline})
    if raised is None:
        cause = "the card lists files that it does not load"
        raise CheckFailed(f"it is made and scores without its weights: {cause}")
    kinds, message = raised
    text = " ".join(message.split())[:200]
    if MissingResourceError.__name__ not in kinds:
        raise CheckFailed(f"raises {kinds[0]} instead of MissingResourceError: {text}")
    if not message.strip() or "\n" in message.strip():
        count = len(message.splitlines())
        raise CheckFailed(f"the message has {count} lines instead of one: {text}")
    return str(message)


def _last_line(script: str, argument: object, environment: dict[str, str]) -> Any:
    """The JSON value on the last line of a script's output, in a new Python with the same paths."""
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
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckFailed(f"a fresh Python process ended with {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


CHECKS = (card_valid, card_round_trip, card_options, cache_key, light_listing, missing_weights)
