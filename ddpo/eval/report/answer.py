"""The answer in three sentences: the gain on training prompts, on held-out prompts, and hacking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.data import Report
from ddpo.eval.report.findings import change_of
from ddpo.eval.report.selection import (
    assessment_of,
    gains_of,
    primary_reward,
    share_of,
    strongest,
)
from ddpo.eval.report.wording import (
    capital,
    count,
    estimate_text,
    listed,
    percent,
    range_text,
    reward_title,
    rounded,
    score_text,
    share_text,
    split_title,
)
from ddpo.stats.paired import Estimate

__all__ = ["answer"]

ROSE: Final = "rose"
SAME: Final = "did not change measurably"
FELL: Final = "fell"
UNKNOWN: Final = "cannot be judged"
UNSCORED: Final = "could not be scored"
WORDS: Final = {
    "rose": ROSE,
    "same": SAME,
    "fell": FELL,
    "unknown": UNKNOWN,
    "unscored": UNSCORED,
}
VERDICTS: Final = (ROSE, SAME, FELL, UNKNOWN, UNSCORED)
NOT_ASSESSED: Final = "Signs of reward hacking were not measured."


def answer(report: Report, model: str) -> tuple[str, str, str]:
    """The model's change of reward on training prompts, on held-out prompts, and its assessment."""
    reward = primary_reward(report, model)
    gains = gains_of(report, model=model, reward=reward)
    training = [gain for gain in gains if gain.role == "seen"]
    held_out = [gain for gain in gains if gain.role != "seen"]
    name = reward_title(reward)
    return (
        _training_sentence(name, training),
        _held_out_sentence(report, name, training, held_out),
        _hacking_sentence(report, model),
    )


def _verdict(estimate: Estimate) -> str:
    return WORDS[change_of(estimate)]


def _training_sentence(reward: str, gains: Sequence[Gain]) -> str:
    if not gains:
        return f"No training prompts were evaluated, so the change of {reward} on them is unknown."
    return " ".join(_training_part(reward, gain) for gain in gains)


def _training_part(reward: str, gain: Gain) -> str:
    paired = gain.paired
    verdict = _verdict(paired.gain)
    prompts = count(paired.gain.clusters, "training prompt")
    if paired.gain.clusters < 2:
        prompts = "only training prompt" if paired.gain.clusters else "training prompts"
    change = f"On the {prompts} of {split_title(gain.split)}, {reward} {verdict}"
    if verdict == UNSCORED:
        return f"{change}."
    if verdict in (ROSE, FELL):
        change += f" by {_size(paired.gain)}"
    else:
        change += f", {estimate_text(paired.gain)}"
    return (
        f"{change}, from {score_text(paired.base_mean, paired.gain)} "
        f"to {score_text(paired.tuned_mean, paired.gain)}. "
        f"The tuned image scored higher in {percent(paired.wins.rate)} of {paired.wins.n} pairs."
    )


def _held_out_sentence(
    report: Report, reward: str, training: Sequence[Gain], held_out: Sequence[Gain]
) -> str:
    if not held_out:
        return "No held-out prompts were evaluated, so it is unknown if the gain carries over."
    has_risen = bool(training) and all(_verdict(g.paired.gain) == ROSE for g in training)
    risen = [gain for gain in held_out if _verdict(gain.paired.gain) == ROSE]
    has_shares = has_risen and bool(risen) and all(share_of(report, gain) for gain in risen)
    findings = _by_verdict(report, held_out, as_shares=has_shares)
    if has_shares:
        others = [
            f"{reward} {verdict} {findings[verdict]}" for verdict in findings if verdict != ROSE
        ]
        shares = "; ".join([findings[ROSE], *others])
        return f"These shares of the gain carried over to held-out prompts: {shares}."
    changes = "; it ".join(f"{verdict} {places}" for verdict, places in findings.items())
    if has_risen and not risen:
        return f"The gain was not seen to carry over to held-out prompts: {reward} {changes}."
    is_scored = any(gain.paired.gain.n for gain in (*training, *held_out))
    reasons = _reasons(report, held_out[0]) if is_scored else []
    return " ".join([f"On held-out prompts, {reward} {changes}.", *reasons])


def _by_verdict(report: Report, gains: Sequence[Gain], as_shares: bool) -> dict[str, str]:
    """The prompt lists of each verdict in words, with the change on each."""
    found: dict[str, list[str]] = {}
    for gain in gains:
        verdict = _verdict(gain.paired.gain)
        found.setdefault(verdict, []).append(_held_out_part(report, gain, verdict, as_shares))
    return {verdict: listed(found[verdict]) for verdict in VERDICTS if verdict in found}


def _reasons(report: Report, gain: Gain) -> list[str]:
    """The reasons why no share of the gain by this model and reward can be given, as sentences."""
    place = (gain.model, gain.reward)
    shares = [t.share for t in report.transfers if (t.model, t.reward) == place]
    return [f"{capital(reason)}." for reason in sorted({s.reason for s in shares if s.reason})]


def _held_out_part(report: Report, gain: Gain, verdict: str, as_shares: bool) -> str:
    """The change on one held-out list: a share of the training gain, or on the reward's scale."""
    title = _title_with_leaks(report, gain.split)
    estimate = gain.paired.gain
    share = share_of(report, gain) if as_shares and verdict == ROSE else None
    if share is not None:
        return f"{share_text(share)} on {title}"
    if verdict in (ROSE, FELL):
        return f"on {title} by {_size(estimate)}"
    return f"on {title}, {estimate_text(estimate)}" if estimate.n else f"on {title}"


def _hacking_sentence(report: Report, model: str) -> str:
    assessment = assessment_of(report, model)
    if assessment is None:
        return NOT_ASSESSED
    evidence = strongest(assessment.evidence)
    if evidence is None or assessment.grade not in ("strong signs", "watch"):
        return assessment.text
    return f"{assessment.text} Strongest evidence ({evidence.kind}): {evidence.text}"


def _size(estimate: Estimate) -> str:
    """The size of a rise or fall with its interval, both without sign."""
    low, high = sorted((abs(estimate.low), abs(estimate.high)))
    size = rounded(abs(estimate.mean), low, high)
    return f"{size} ({range_text(low, high, signed=False)})"


def _title_with_leaks(report: Report, split: str) -> str:
    """The name of a prompt list with its number of leaked prompts, those left out not counted."""
    facts = next(facts for facts in report.splits if facts.name == split)
    leaked = len({leak.heldout for leak in facts.leaks}) - facts.dropped
    title = split_title(split)
    return f"{title} ({leaked} of {facts.prompts} prompts leaked)" if leaked > 0 else title
