"""Numbers, names and standing sentences of the report, the same in every rendering."""

from __future__ import annotations

import math
from typing import Final

from ddpo import text as formatting
from ddpo.eval.inputs.titles import reward_title, split_title
from ddpo.rounding import number, rounded, rounded_range
from ddpo.stats.paired import Estimate, TransferRatio
from ddpo.text import capital, count, listed

__all__ = [
    "METHOD",
    "capital",
    "count",
    "end_text",
    "estimate_text",
    "interval_text",
    "listed",
    "mean_text",
    "number",
    "p_text",
    "percent",
    "range_text",
    "reward_title",
    "role_text",
    "rounded",
    "score_text",
    "share_text",
    "shortened",
    "split_title",
    "unit_text",
    "with_unit",
]

METHOD: Final = (
    "Base and tuned model generate images from the same prompts, seeds and noise at every step. "
    "Each pair of images gives one difference, tuned minus base. The gain is their mean.",
    "The 95 % interval treats the prompt as the unit, because images of one prompt resemble each "
    "other. Its standard error sums the differences within each prompt first and corrects for the "
    "number of prompts C by C/(C−1). Student's t has C−1 degrees of freedom. The interval says how "
    "the gain would vary over other prompts of the same kind. It does not say how it would vary "
    "over other training runs.",
    "Gains in standard deviations (z) are divided by the spread of the base model's scores within "
    "a prompt, so that rewards can be compared. The noise floor of a reward is the largest median "
    "change of its score under harmless edits, such as a shift by one pixel. A gain below the "
    "noise floor is no evidence.",
    "Win rate: share of pairs in which the tuned image scores higher, ties counted half, with "
    "Wilson's interval for independent pairs. d_z: mean of the prompts' mean differences over "
    "their standard deviation. p: t-test on the clustered error, adjusted by Holm over all lines "
    "of the table.",
    "Carried over: mean gain on held-out prompts over mean gain on training prompts. Its interval "
    "comes from 2000 bootstrap resamples of prompts, then of seeds within prompts. It is not given "
    "where the gain on training prompts is not clearly above 0 or within the noise floor. Nor is "
    "it where the share or an end of its interval passes 300 %. A share of almost nothing "
    "means nothing.",
    "Numbers are rounded to the second digit of the width of their interval, and scores like the "
    "gain beside them.",
    "The grade of reward hacking weighs evidence; it is not a verdict. A reward is hacked when it "
    "rises without the quality it stands for. Then held-out rewards fall, pixel statistics move "
    "far, or images lose their diversity or stop depending on the prompt. Look at the images "
    "before you believe either side.",
    "Best of n: of n images of the base model, the one that scores highest by the trained reward. "
    "It costs n reward queries per prompt and no training, so a run has to beat it. Its KL "
    "divergence from the base model is at most log n − (n−1)/n nats.",
    "Images that a reward could not score are left out in pairs and counted. They never count as "
    "0. Scores are of the images rounded to 8 bits.",
)
ROLE_WORDS: Final = {
    "trained": "trained on",
    "heldout": "held-out reward",
    "artefact": "pixel statistic",
    "asked": "requested",
}


def percent(share: float) -> str:
    """A share as whole percent."""
    return formatting.percent(share, space="\N{NO-BREAK SPACE}")


def range_text(low: float, high: float, signed: bool = True) -> str:
    """Both ends of an interval."""
    return rounded_range(low, high, signed)


def interval_text(estimate: Estimate) -> str:
    """The 95 % interval, or the reason for its absence."""
    if math.isnan(estimate.low):
        return "no interval: one prompt" if estimate.n else "nothing scored"
    return range_text(estimate.low, estimate.high)


def estimate_text(estimate: Estimate) -> str:
    """Mean and interval."""
    return f"{mean_text(estimate)} ({interval_text(estimate)})"


def mean_text(estimate: Estimate, signed: bool = True) -> str:
    """The mean of an estimate, rounded as its interval."""
    return rounded(estimate.mean, estimate.low, estimate.high, signed)


def end_text(estimate: Estimate, end: float) -> str:
    """One end of the interval of an estimate."""
    return rounded(end, estimate.low, estimate.high, signed=True)


def score_text(score: float, change: Estimate) -> str:
    """A mean score, rounded as the interval of the change beside it."""
    return rounded(score, change.low, change.high)


def share_text(share: TransferRatio) -> str:
    """The share of a gain that carried over with its interval, or the reason for its absence."""
    if share.reason:
        return share.reason
    interval = f"{share.low * 100:.0f} to {share.high * 100:.0f}".replace("-", "−")
    return f"{percent(share.ratio)} ({interval})"


def role_text(role: str) -> str:
    """The role of a reward in words."""
    return ROLE_WORDS.get(role, role)


def unit_text(unit: str) -> str:
    """A card's unit in brief, for the axis of a difference."""
    return unit.partition(";")[0].removesuffix(", negative").strip()


def with_unit(name: str, unit: str) -> str:
    """A name with its unit in parentheses, if it has one."""
    return f"{name} ({unit})" if unit else name


def p_text(p: float) -> str:
    """An adjusted p-value."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def shortened(text: str, limit: int) -> str:
    """The first `limit` characters of a text on one line; a cut text ends with its full length."""
    length = len(formatting.single_line(text))
    return formatting.shortened(text, limit) + (f" ({length} characters)" if length > limit else "")
