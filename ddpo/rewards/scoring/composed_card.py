"""The card of a combination of rewards, from the cards of its parts. Pure data, as every card."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from ddpo.errors import ConfigError
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scoring.resolve import WeightedReward
from ddpo.rewards.spec import Bounds, Combination

__all__ = ["composed_card"]

T = TypeVar("T")

INPUTS: Final = ("image", "prompt", "metadata", "context", "group")
FLAWS: Final[dict[Combination, str]] = {
    "sum": "what one part loses another can buy back, at the rate of the weights",
    "min": "blind to every part but the worst of a picture",
    "pareto": "a rank among pictures of one prompt: says nothing about how good they are, and few pictures leave most ranks equal",
}


def composed_card(combination: Combination, parts: Sequence[WeightedReward]) -> RewardCard:
    """The card of the combination of `parts`, whose order must be settled.

    The version is a hash over the parts' fingerprints and steps, so that a changed weight, reference or part is another version.

    Raises:
        ConfigError: min over parts whose scales cannot be compared.
    """
    cards = [part.reward.card for part in parts]
    if combination == "min":
        _check_comparable(parts)
    steps = f"{combination} of " + ", ".join(part.steps for part in parts)
    group = combination == "pareto"
    inputs = {name for card in cards for name in card.inputs} | ({"group"} if group else set())
    extras = _union(card.extra for card in cards if card.extra)
    return RewardCard(
        id=("" if combination == "sum" else f"{combination}.")
        + "+".join(part.id for part in parts).replace("+-", "-"),
        version=_version(steps, parts),
        summary=steps,
        load="ddpo.rewards.scoring.compose:ComposedReward",
        family="composed",
        flaws=f"{FLAWS[combination]}; and "
        + "; ".join(_union(f"{card.id}: {card.flaws}" for card in cards)),
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
        memory_mb=sum({part.name: part.reward.card.memory_mb for part in parts}.values()),
        extra=extras[0] if len(extras) == 1 else None,
        libraries=_union(name for card in cards for name in card.libraries),
        weights=_union(weight for card in cards for weight in card.weights),
        code_licence=" and ".join(_union(card.code_licence for card in cards)),
        lineage=_union(name for card in cards for name in card.lineage),
    )


def _range(combination: Combination, parts: Sequence[WeightedReward]) -> Bounds:
    """What the ranges on the parts' cards leave possible."""
    if combination == "pareto":
        return None, 0.0
    lows, highs = zip(*map(_part_range, parts), strict=True)
    together = sum if combination == "sum" else min
    low, high = float(together(lows)), float(together(highs))
    return low if math.isfinite(low) else None, high if math.isfinite(high) else None


def _part_range(part: WeightedReward) -> tuple[float, float]:
    """The range of a part after its steps, which are monotone: so are the bounds taken through them."""
    native, bounds = part.reward.card.range, part.bounds or (None, None)
    low, high = (
        -math.inf if native[0] is None else native[0],
        math.inf if native[1] is None else native[1],
    )
    if part.reference is not None:
        low, high = ((bound - part.reference.mean) / part.reference.sd for bound in (low, high))
    floor, ceiling = (
        -math.inf if bounds[0] is None else bounds[0],
        math.inf if bounds[1] is None else bounds[1],
    )
    low, high = (
        min(max(bound, floor), ceiling) * part.weight if part.weight else 0.0
        for bound in (low, high)
    )
    return min(low, high), max(low, high)


def _version(steps: str, parts: Sequence[WeightedReward]) -> str:
    facts = [
        steps,
        *(
            f"{part.reward.card.fingerprint(part.reward.options)} {part.reward.origin}"
            for part in parts
        ),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _union(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


def _check_comparable(parts: Sequence[WeightedReward]) -> None:
    """A minimum needs one scale: standardised parts, parts of one unit, or a weight on each, by which the user sets the rates."""
    scales = {
        "sd" if part.reference is not None else part.reward.card.unit or f"the scale of {part.name}"
        for part in parts
    }
    if len(scales) == 1 or all(part.reference is not None or part.weighted for part in parts):
        return
    told = ", ".join(f"{part.name} in {_unit(part)}" for part in parts)
    raise ConfigError(
        f"min needs scores on one scale, and these are not ({told}): standardise each with z=FILE, or weigh each"
    )


def _unit(part: WeightedReward) -> str:
    return (
        "sd"
        if part.reference is not None
        else part.reward.card.unit.partition(";")[0] or "a unit not stated"
    )
