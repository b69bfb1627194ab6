"""Checks of the scores themselves against what the card promises."""

from __future__ import annotations

import math

from ddpo.rewards.check.definition import Fault, NotApplicable, check
from ddpo.rewards.check.subject import PROBE_NAMES, Subject, tolerance_of

__all__ = ["CHECKS"]


def _fixture_scores(subject: Subject, names: list[str]) -> dict[str, float]:
    """The scores of 512×512 fixtures, each in a batch of its own, as the goldens are meant."""
    return {name: subject.values(subject.batch([subject.fixtures[name]]))[0] for name in names}


def _fault(subject: Subject, text: str) -> Exception:
    """A fault, unless options were changed: what the card promises, it promises for their defaults."""
    return (
        Fault(text)
        if subject.default_options
        else NotApplicable(f"options were changed, and the card speaks of the defaults: {text}")
    )


@check("scores")
def golden_scores(subject: Subject) -> str | None:
    """The fixtures get the scores that the card promises, within its tolerances."""
    goldens = subject.card.golden
    if not goldens:
        raise NotApplicable("the card has no golden scores")
    found = _fixture_scores(subject, [golden.fixture for golden in goldens])
    for golden in goldens:
        score = found[golden.fixture]
        if not abs(score - golden.score) <= golden.tolerance:
            raise _fault(
                subject,
                f"{golden.fixture} scores {score:.9g} instead of {golden.score:.9g} ± {golden.tolerance:g}",
            )
    return f"{len(goldens)} scores"


@check("scores")
def direction(subject: Subject) -> str | None:
    """Of the two fixtures that the card puts furthest apart, the same one is ahead."""
    goldens = sorted(subject.card.golden, key=lambda golden: golden.score)
    if (
        not goldens
        or goldens[0].score + goldens[0].tolerance >= goldens[-1].score - goldens[-1].tolerance
    ):
        raise NotApplicable("the card has no two golden scores that differ")
    low, high = goldens[0].fixture, goldens[-1].fixture
    found = _fixture_scores(subject, [low, high])
    if not found[low] < found[high]:
        raise _fault(
            subject, f"{high} ({found[high]:.7g}) should score above {low} ({found[low]:.7g})"
        )
    return f"{high} above {low}"


@check("scores")
def score_range(subject: Subject) -> str | None:
    """No fixture and no probe picture scores outside the range on the card."""
    low, high = subject.card.range
    if low is None and high is None:
        raise NotApplicable("the card states no range")
    scores = dict(
        zip((f"{name} at 64×64" for name in PROBE_NAMES), subject.scores, strict=True)
    ) | _fixture_scores(subject, list(PROBE_NAMES))
    share = tolerance_of(subject.card.dtype)
    for name, score in scores.items():
        below = low is not None and score < low - share * abs(low)
        if below or (high is not None and score > high + share * abs(high)):
            raise _fault(subject, f"{name} scores {score:.7g}, outside the range {low} … {high}")
    finite = [score for score in scores.values() if math.isfinite(score)]
    return f"{min(finite):.5g} … {max(finite):.5g}" if finite else None


CHECKS = (golden_scores, direction, score_range)
