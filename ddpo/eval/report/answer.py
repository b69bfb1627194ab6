"""The answer in three sentences: did the reward rise on seen prompts, did that carry over to others, and does it look like gaming."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.choice import gains_of, primary_reward, reading_of, strongest
from ddpo.eval.report.data import Report
from ddpo.eval.report.wording import (
    capital,
    count,
    estimate_text,
    listed,
    number,
    percent,
    share_text,
    split_title,
)
from ddpo.stats.paired import Estimate

__all__ = ["answer"]

ROSE, SAME, FELL, UNKNOWN, UNSCORED = (
    "rose",
    "did not change measurably",
    "fell",
    "cannot be judged",
    "could not be scored",
)
UNREAD: Final = "Signs of gaming were not measured."


def answer(report: Report, model: str) -> tuple[str, str, str]:
    """What happened to the model's reward on training prompts, on other prompts, and the reading with its strongest evidence."""
    reward = primary_reward(report, model)
    gains = gains_of(report, model=model, reward=reward)
    seen, heldout = (
        [gain for gain in gains if gain.role == "seen"],
        [gain for gain in gains if gain.role != "seen"],
    )
    return (
        _seen_sentence(reward, seen),
        _heldout_sentence(report, reward, seen, heldout),
        _gaming_sentence(report, model),
    )


def _verdict(estimate: Estimate) -> str:
    if estimate.n == 0:
        return UNSCORED
    if math.isnan(estimate.low):
        return UNKNOWN
    return SAME if estimate.covers_zero else ROSE if estimate.mean > 0 else FELL


def _seen_sentence(reward: str, seen: Sequence[Gain]) -> str:
    if not seen:
        return f"None of these lists is of training prompts, so nothing is said about {reward} on them."
    parts = []
    for gain in seen:
        paired, verdict = gain.paired, _verdict(gain.paired.gain)
        prompts = count(paired.gain.clusters, "prompt")
        where = f"On the {prompts} of {split_title(gain.split)}, which it was trained on, {reward} {verdict}"
        if verdict == UNSCORED:
            parts.append(f"{where}.")
            continue
        amount = (
            f" by {_amount(paired.gain)}"
            if verdict in (ROSE, FELL)
            else f", {estimate_text(paired.gain)}"
        )
        change = f"from {number(paired.base_mean)} to {number(paired.tuned_mean)}"
        parts.append(
            f"{where}{amount}, {change}; the tuned picture scored higher in {percent(paired.wins.rate)} of {paired.wins.n} pairs."
        )
    return " ".join(parts)


def _heldout_sentence(
    report: Report, reward: str, seen: Sequence[Gain], heldout: Sequence[Gain]
) -> str:
    if not heldout:
        return "No held-out prompts were evaluated, so nothing is known about other prompts."
    risen = bool(seen) and all(_verdict(gain.paired.gain) == ROSE for gain in seen)
    told: dict[str, list[str]] = {}
    for gain in heldout:
        verdict = _verdict(gain.paired.gain)
        told.setdefault(verdict, []).append(_heldout_part(report, gain, verdict, risen))
    parts = [
        f"{verdict} {listed(told[verdict])}"
        for verdict in (ROSE, SAME, FELL, UNKNOWN, UNSCORED)
        if verdict in told
    ]
    findings = f"{reward} {'; it '.join(parts)}."
    if risen:
        if ROSE not in told:
            return f"The gain was not seen to carry over to other prompts: {findings}"
        rest = [
            f"{reward} {verdict} {listed(told[verdict])}"
            for verdict in (SAME, FELL, UNKNOWN, UNSCORED)
            if verdict in told
        ]
        return f"Of that gain, these shares carried over: {'; '.join([listed(told[ROSE]), *rest])}."
    model = heldout[0].model
    reasons = sorted(
        {
            t.share.reason
            for t in report.transfers
            if (t.model, t.reward) == (model, reward) and t.share.reason
        }
    )
    return " ".join(
        [f"On other prompts, {findings}", *(f"{capital(reason)}." for reason in reasons)]
    )


def _heldout_part(report: Report, gain: Gain, verdict: str, shared: bool) -> str:
    """What happened on one held-out list: as a share of the seen gain where `shared`, else on the reward's own scale."""
    title, estimate = _title_with_leaks(report, gain.split), gain.paired.gain
    same = (gain.model, gain.split, gain.reward)
    share = next(
        (
            t.share
            for t in report.transfers
            if (t.model, t.split, t.reward) == same and not t.share.reason
        ),
        None,
    )
    if shared and verdict == ROSE:
        return f"{share_text(share) if share is not None else _amount(estimate)} on {title}"
    if verdict in (ROSE, FELL):
        return f"on {title} by {_amount(estimate)}"
    return f"on {title}" + (f", {estimate_text(estimate)}" if estimate.n else "")


def _gaming_sentence(report: Report, model: str) -> str:
    reading = reading_of(report, model)
    if reading is None:
        return UNREAD
    found = strongest(reading.evidence)
    told = (
        f" Strongest evidence, {found.kind}: {found.text}"
        if found is not None and reading.grade in ("strong signs", "watch")
        else ""
    )
    return f"{reading.text}{told}"


def _amount(estimate: Estimate) -> str:
    """The size of a rise or fall with its interval, both without sign."""
    low, high = sorted((abs(estimate.low), abs(estimate.high)))
    return f"{number(abs(estimate.mean))} ({number(low)} to {number(high)})"


def _title_with_leaks(report: Report, split: str) -> str:
    """The split's name, and how many of its prompts training gave away; those that were left out do not count."""
    facts = next(facts for facts in report.splits if facts.name == split)
    leaked = len({leak.heldout for leak in facts.leaks}) - facts.dropped
    return split_title(split) + (
        f" ({leaked} of {facts.prompts} prompts leaked)" if leaked > 0 else ""
    )
