"""Numbers and findings in words: every rendering says the same sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ddpo.eval.report import Report
from ddpo.eval.stats import Estimate, TransferRatio
from ddpo.eval.tables import Gain

__all__ = [
    "METHOD",
    "answer",
    "estimate_text",
    "interval_text",
    "number",
    "p_text",
    "percent",
    "primary_reward",
    "share_text",
    "split_title",
    "unit_text",
]

METHOD = (
    "Base and tuned model draw the same pictures: same prompt, same seed, same noise at every step. Each pair gives one difference, "
    "tuned minus base; the gain is their mean.",
    "The 95 % interval treats the prompt as the unit: pictures of one prompt may resemble each other in any way. Its standard error sums "
    "the differences within each prompt first, corrects for the number of prompts C by C/(C−1), and takes Student's t with C−1 degrees of "
    "freedom. It says how the gain would vary over other prompts of the same kind; it does not say how it would vary over other training "
    "runs.",
    "Win rate: share of pairs in which the tuned picture scores higher, ties counted half, with Wilson's interval (pairs taken as "
    "independent). d_z: mean of the prompts' mean differences over their standard deviation. p: t-test on the clustered error, adjusted by "
    "Holm over all lines of the table.",
    "The share carried over is the mean gain on a held-out list over the mean gain on the training prompts, with an interval from 2000 "
    "bootstrap draws of prompts, then of seeds within prompts. It is not given where the interval of the seen gain covers 0.",
    "Pictures that a reward could not score are left out in pairs and counted; they are never taken as 0. Scores are of the pictures "
    "rounded to 8 bits.",
)


def number(value: float, digits: int = 3, signed: bool = False) -> str:
    """`value` with `digits` significant digits and a true minus sign; "–" where there is none."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size >= 10 ** (digits + 3) or 0 < size < 1e-4:
        text = f"{size:.{digits - 1}e}"
    else:
        decimals = max(0, digits - 1 - (math.floor(math.log10(size)) if size else 0))
        text = f"{size:.{decimals}f}"
    negative = value < 0 and float(text) != 0
    return ("−" if negative else "+" if signed and float(text) != 0 else "") + text


def percent(share: float) -> str:
    """A share as whole percent."""
    return "–" if math.isnan(share) else f"{share * 100:.0f}\N{NO-BREAK SPACE}%".replace("-", "−")


def interval_text(estimate: Estimate) -> str:
    """The 95 % interval, or why there is none."""
    if math.isnan(estimate.low):
        return "no interval: fewer than two prompts"
    return f"{number(estimate.low, signed=True)} to {number(estimate.high, signed=True)}"


def estimate_text(estimate: Estimate) -> str:
    """Mean and interval."""
    return f"{number(estimate.mean, signed=True)} ({interval_text(estimate)})"


def share_text(share: TransferRatio) -> str:
    """A transfer ratio with its interval, or why there is none."""
    return share.reason or f"{percent(share.ratio)} ({share.low * 100:.0f} to {share.high * 100:.0f})".replace("-", "−")


def split_title(name: str) -> str:
    """A split's name for readers."""
    return name.replace("_", " ")


def unit_text(unit: str) -> str:
    """A card's unit in brief, as it stands on the axis of a difference."""
    return unit.partition(";")[0].removesuffix(", negative").strip()


def p_text(p: float) -> str:
    """An adjusted p-value in words."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def primary_reward(report: Report) -> str:
    """The reward that the run was trained on if pictures were scored with it, else the first."""
    ids = [reward.id for reward in report.rewards]
    return report.trained_on if report.trained_on in ids else ids[0]


def answer(report: Report) -> tuple[str, str, str]:
    """Three sentences: did the reward rise on prompts of the training, did it carry over, and what share of it."""
    reward = primary_reward(report)
    gains = [gain for gain in report.gains if gain.reward == reward]
    seen, heldout = [gain for gain in gains if gain.role == "seen"], [gain for gain in gains if gain.role != "seen"]
    return _seen_sentence(reward, seen), _heldout_sentence(report, reward, seen, heldout), _share_sentence(report, reward)


ROSE, SAME, FELL, UNKNOWN, UNSCORED = "rose", "did not change measurably", "fell", "cannot be judged", "could not be scored"


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
        prompts = f"{paired.gain.clusters} prompt{'' if paired.gain.clusters == 1 else 's'}"
        where = f"On the {prompts} of {split_title(gain.split)}, which it was trained on, {reward} {verdict}"
        if verdict == UNSCORED:
            parts.append(f"{where}.")
            continue
        amount = f" by {_amount(paired.gain)}" if verdict in (ROSE, FELL) else f", {estimate_text(paired.gain)}"
        change = f"from {number(paired.base_mean)} to {number(paired.tuned_mean)}"
        parts.append(f"{where}{amount}, {change}; the tuned picture scored higher in {percent(paired.wins.rate)} of {paired.wins.n} pairs.")
    return " ".join(parts)


def _heldout_sentence(report: Report, reward: str, seen: Sequence[Gain], heldout: Sequence[Gain]) -> str:
    if not heldout:
        return "No held-out prompts were evaluated, so nothing is known about other prompts."
    told: dict[str, list[str]] = {}
    for gain in heldout:
        verdict, title = _verdict(gain.paired.gain), _title_with_leaks(report, gain.split)
        amount = (
            f"by {_amount(gain.paired.gain)} on {title}" if verdict in (ROSE, FELL) else f"on {title}, {estimate_text(gain.paired.gain)}"
        )
        told.setdefault(verdict, []).append(amount)
    parts = [f"{verdict} {_listed(told[verdict])}" for verdict in (ROSE, SAME, FELL, UNKNOWN, UNSCORED) if verdict in told]
    findings = f"{reward} {'; it '.join(parts)}."
    if seen and all(_verdict(gain.paired.gain) == ROSE for gain in seen):
        if set(told) == {ROSE}:
            return f"The gain carried over to other prompts: {findings}"
        if ROSE not in told:
            return f"The gain was not seen to carry over to other prompts: {findings}"
    return f"On other prompts, {findings}"


def _share_sentence(report: Report, reward: str) -> str:
    shares = [transfer for transfer in report.transfers if transfer.reward == reward]
    if not shares:
        return "No share is given: it needs both training prompts and held-out prompts."
    given = [f"{share_text(t.share)} on {split_title(t.split)}" for t in shares if not t.share.reason]
    refused = sorted({t.share.reason for t in shares if t.share.reason})
    told = f"As a share of the gain on training prompts (95\N{NO-BREAK SPACE}% interval): {_listed(given)}." if given else ""
    reasons = " ".join(f"{reason[0].upper()}{reason[1:]}." for reason in refused)
    return " ".join(part for part in (told, reasons) if part)


def _amount(estimate: Estimate) -> str:
    """The size of a rise or fall with its interval, both without sign."""
    low, high = sorted((abs(estimate.low), abs(estimate.high)))
    return f"{number(abs(estimate.mean))} ({number(low)} to {number(high)})"


def _title_with_leaks(report: Report, split: str) -> str:
    """The split's name, and how many of its prompts training gave away."""
    facts = next(facts for facts in report.splits if facts.name == split)
    return split_title(split) + (f" ({len(facts.leaks)} of {facts.prompts} prompts leaked)" if facts.leaks else "")


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1] if items else ""
