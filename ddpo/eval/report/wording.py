"""Numbers, names and standing sentences of the report, the same in every rendering."""

from __future__ import annotations

import math
from typing import Final

from ddpo import text as formatting
from ddpo.stats.paired import Estimate, TransferRatio
from ddpo.text import capital, count, listed

__all__ = [
    "METHOD",
    "capital",
    "count",
    "estimate_text",
    "interval_text",
    "listed",
    "number",
    "p_text",
    "percent",
    "range_text",
    "reward_title",
    "role_text",
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
    "where the interval of the gain on training prompts covers 0.",
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
REWARD_TITLES: Final = {
    "base_fit": "plausibility to the base model",
    "prompt_evidence": "prompt recognisability",
}


def number(value: float, digits: int = 3, signed: bool = False) -> str:
    """`value` with `digits` significant digits and a true minus sign; "–" for NaN."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size >= 10 ** (digits + 3) or 0 < size < 1e-4:
        text = f"{size:.{digits - 1}e}"
    else:
        magnitude = math.floor(math.log10(size)) if size else 0
        text = f"{size:.{max(0, digits - 1 - magnitude)}f}"
    if float(text) == 0:
        return text
    if value < 0:
        return f"−{text}"
    return f"+{text}" if signed else text


def percent(share: float) -> str:
    """A share as whole percent."""
    return formatting.percent(share, space="\N{NO-BREAK SPACE}")


def range_text(low: float, high: float, digits: int = 3, signed: bool = True) -> str:
    """Both ends of an interval."""
    return f"{number(low, digits, signed)} to {number(high, digits, signed)}"


def interval_text(estimate: Estimate) -> str:
    """The 95 % interval, or the reason for its absence."""
    if math.isnan(estimate.low):
        return "no interval: fewer than two prompts" if estimate.n else "nothing scored"
    return range_text(estimate.low, estimate.high)


def estimate_text(estimate: Estimate) -> str:
    """Mean and interval."""
    return f"{number(estimate.mean, signed=True)} ({interval_text(estimate)})"


def share_text(share: TransferRatio) -> str:
    """The share of a gain that carried over with its interval, or the reason for its absence."""
    if share.reason:
        return share.reason
    interval = f"{share.low * 100:.0f} to {share.high * 100:.0f}".replace("-", "−")
    return f"{percent(share.ratio)} ({interval})"


def split_title(name: str) -> str:
    """The name of a prompt list for readers."""
    return name.replace("_", " ")


def reward_title(id: str) -> str:
    """The name of a reward for readers: its id, or words for the base model's own scores."""
    return REWARD_TITLES.get(id, id)


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
