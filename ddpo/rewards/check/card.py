"""Checks of the card alone: no reward is made."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

from ddpo.errors import one_line
from ddpo.registry import explain_load_failure, load_attribute
from ddpo.rewards.card import PLACEMENT, RewardCard, WeightFile
from ddpo.rewards.check.definition import Fault, NotApplicable, check
from ddpo.rewards.check.subject import Subject
from ddpo.rewards.fixtures import FIXTURES
from ddpo.rewards.signature import identity

__all__ = ["CHECKS"]


@check("card")
def card_valid(subject: Subject) -> str | None:
    """Summary, flaws and unit are stated; percentiles rise, lie within the range and have a source; goldens name fixtures and sources."""
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
        raise Fault("; ".join(problems))
    return None


@check("card")
def card_round_trip(subject: Subject) -> str | None:
    """The card survives a trip through JSON, and has the same fingerprint afterwards."""
    try:
        again = RewardCard.from_dict(
            json.loads(json.dumps(subject.card.to_dict(), allow_nan=False))
        )
    except (TypeError, ValueError) as error:
        raise Fault(f"it holds something that JSON does not: {one_line(error)}") from error
    fields = [field.name for field in dataclasses.fields(RewardCard)]
    changed = [name for name in fields if getattr(again, name) != getattr(subject.card, name)]
    if changed:
        raise Fault(f"changed on the way through JSON: {', '.join(changed)}")
    if again.fingerprint(subject.found.options) != subject.card.fingerprint(subject.found.options):
        raise Fault("the fingerprint changed on the way through JSON")
    return None


@check("card")
def card_options(subject: Subject) -> str | None:
    """The options on the card are the keywords of the constructor, with the same defaults."""
    if subject.found.parts or not subject.remake:
        raise NotApplicable(
            "it is an object that was already made"
            if not subject.remake
            else "a combination has the options of its parts"
        )
    try:
        target = subject.found.factory or load_attribute(subject.card.load)
    except Exception as error:
        module = subject.card.load.partition(":")[0]
        raise Fault(
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
        f"option {name!r} is {listed[name]!r} on the card and {taken[name].default!r} in the constructor"
        for name in listed
        if name in taken and taken[name].default not in (inspect.Parameter.empty, listed[name])
    ]
    if problems:
        raise Fault("; ".join(problems))
    return None


@check("card")
def cache_key(subject: Subject) -> str | None:
    """The key of a cached score changes with the version, the weights, the preprocessing, the dtype and every option but the device."""
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
        raise Fault(f"does not change with {', '.join(blind)}")
    if key != identity(card, options, origin):
        raise Fault("it is not the same from one call to the next")
    return f"{len(variants)} changes"


def _another(value: object) -> object:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, (int, float)) else f"{value}-other"


CHECKS = (card_valid, card_round_trip, card_options, cache_key)
