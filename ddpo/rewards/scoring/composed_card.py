"""The card of a combination of rewards, computed from the cards of its parts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from ddpo.errors import ConfigError
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scoring.resolve import ResolvedReward, bounds_text
from ddpo.rewards.spec import Bounds, Combination
from ddpo.text import shortest_number

__all__ = ["composed_card"]

T = TypeVar("T")

INPUTS: Final = ("image", "prompt", "metadata", "context", "group")
FLAWS: Final[dict[Combination, str]] = {
    "sum": "one part can make up for the loss of another, at the rate of the weights",
    "min": "blind to every part but the worst of an image",
    "pareto": "a rank among images of one prompt: says nothing about how good they are, "
    "and few images leave most ranks equal",
}


def composed_card(combination: Combination, parts: Sequence[ResolvedReward]) -> RewardCard:
    """The card of a combination, whose version changes with any part, weight or reference.

    Args:
        combination: Rule that combines the scores.
        parts: Parts in their final order.

    Raises:
        ConfigError: The combination is min, and the scales of the parts cannot be compared.
    """
    cards = [part.card for part in parts]
    if combination == "min":
        _check_comparable(parts)
    steps = f"{combination} of " + ", ".join(part.steps for part in parts)
    group = combination == "pareto"
    inputs = {name for card in cards for name in card.inputs} | ({"group"} if group else set())
    extras = _union(card.extra for card in cards if card.extra)
    flaws = "; ".join(_union(f"{card.id}: {card.flaws}" for card in cards))
    return RewardCard(
        id=_id(combination, parts),
        version=_version(steps, parts),
        summary=steps,
        load="ddpo.rewards.scoring.compose:ComposedReward",
        family="composed",
        flaws=f"{FLAWS[combination]}; and {flaws}",
        unit="minus the index of the Pareto front, 0 is best" if group else "combined, no unit",
        range=_range(combination, parts),
        inputs=tuple(name for name in INPUTS if name in inputs),
        optional=tuple(
            name
            for name in INPUTS
            if name in inputs
            and all(name in card.optional for card in cards if name in card.inputs)
        ),
        metadata=_union(key for card in cards for key in card.metadata),
        pixels="float" if any(card.pixels == "float" for card in cards) else "uint8",
        preprocessing=steps,
        dtype=" and ".join(_union(card.dtype for card in cards)),
        differentiable=not group and all(card.differentiable for card in cards),
        deterministic=all(card.deterministic for card in cards),
        batch_invariant=not group and all(card.batch_invariant for card in cards),
        cache=False,  # its parts are cached
        device="any" if any(card.device == "any" for card in cards) else "cpu",
        memory_mb=sum({part.name: part.card.memory_mb for part in parts}.values()),
        extra=extras[0] if len(extras) == 1 else None,
        libraries=_union(name for card in cards for name in card.libraries),
        weights=_union(weight for card in cards for weight in card.weights),
        code_licence=" and ".join(_union(card.code_licence for card in cards)),
        lineage=_union(name for card in cards for name in card.lineage),
    )


def _id(combination: Combination, parts: Sequence[ResolvedReward]) -> str:
    """Such as `darkness+0.2compressibility.z` or `min.darkness+symmetry`."""
    start = "" if combination == "sum" else f"{combination}."
    return start + "+".join(map(_part_id, parts)).replace("+-", "-")


def _part_id(part: ResolvedReward) -> str:
    """The steps in the letters of an id, such as `0.2compressibility.z.clamp-3..3`."""
    if part.weight in (None, 1):
        weight = ""
    elif part.weight == -1:
        weight = "-"
    else:
        weight = shortest_number(part.weight)
    standardised = "" if part.reference is None else ".z"
    clamped = "" if part.bounds is None else f".clamp{bounds_text(part.bounds)}"
    return f"{weight}{part.name}{standardised}{clamped}"


def _range(combination: Combination, parts: Sequence[ResolvedReward]) -> Bounds:
    """The range that the ranges of the parts allow."""
    if combination == "pareto":
        return None, 0.0
    lows, highs = zip(*map(_part_range, parts), strict=True)
    together = sum if combination == "sum" else min
    low = float(together(lows))
    high = float(together(highs))
    return low if math.isfinite(low) else None, high if math.isfinite(high) else None


def _part_range(part: ResolvedReward) -> tuple[float, float]:
    """The range of a part after its steps, which are monotone and so keep bounds as bounds."""
    low, high = _finite_or_infinite(part.card.range)
    floor, ceiling = _finite_or_infinite(part.bounds or (None, None))
    ends = []
    for bound in (low, high):
        if part.reference is not None:
            bound = (bound - part.reference.mean) / part.reference.sd
        weight = 1.0 if part.weight is None else part.weight
        ends.append(min(max(bound, floor), ceiling) * weight if weight else 0.0)
    return min(ends), max(ends)


def _finite_or_infinite(bounds: Bounds) -> tuple[float, float]:
    low, high = bounds
    return -math.inf if low is None else low, math.inf if high is None else high


def _version(steps: str, parts: Sequence[ResolvedReward]) -> str:
    facts = [steps, *(f"{part.card.fingerprint(part.options)} {part.origin}" for part in parts)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _union(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


def _check_comparable(parts: Sequence[ResolvedReward]) -> None:
    """Raises unless the parts of a minimum share a scale, or a user's weight sets each rate."""
    scales = {
        "sd" if part.reference is not None else part.card.unit or f"the scale of {part.name}"
        for part in parts
    }
    if len(scales) == 1:
        return
    if all(part.reference is not None or part.weight is not None for part in parts):
        return
    units = ", ".join(f"{part.name} in {_unit(part)}" for part in parts)
    raise ConfigError(
        f"min needs scores on one scale, and these are not ({units}): "
        "standardise each with z=FILE, or weigh each"
    )


def _unit(part: ResolvedReward) -> str:
    if part.reference is not None:
        return "sd"
    return part.card.unit.partition(";")[0] or "a unit not stated"
