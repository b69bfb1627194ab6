"""Numbers and names in words: every rendering writes them the same way."""

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
    "role_text",
    "share_text",
    "shortened",
    "split_title",
    "unit_text",
]

METHOD: Final = (
    "Base and tuned model draw the same pictures: same prompt, same seed, same noise at every step. Each pair gives one difference, "
    "tuned minus base; the gain is their mean.",
    "The 95 % interval treats the prompt as the unit: pictures of one prompt may resemble each other in any way. Its standard error sums "
    "the differences within each prompt first, corrects for the number of prompts C by C/(C−1), and takes Student's t with C−1 degrees of "
    "freedom. It says how the gain would vary over other prompts of the same kind; it does not say how it would vary over other training "
    "runs.",
    "Gains in standard deviations (z) are divided by the spread of the base model's scores within a prompt, so that rewards can be "
    "compared. The noise floor of a reward is the largest median change of its score under edits that no viewer minds, such as a shift "
    "by one pixel; a gain within it is no evidence.",
    "Win rate: share of pairs in which the tuned picture scores higher, ties counted half, with Wilson's interval (pairs taken as "
    "independent). d_z: mean of the prompts' mean differences over their standard deviation. p: t-test on the clustered error, adjusted by "
    "Holm over all lines of the table.",
    "The share carried over is the mean gain on a held-out list over the mean gain on the training prompts, with an interval from 2000 "
    "bootstrap draws of prompts, then of seeds within prompts. It is not given where the interval of the seen gain covers 0.",
    "The reading grades evidence; it is not a verdict. A reward is gamed when it rises while what it stands for does not: held-out rewards "
    "fall, pixel statistics move far, pictures lose their variety or stop depending on the prompt. Look at the pictures before you "
    "believe either side.",
    "Best of n: of n pictures of the base model, the one that the trained reward likes best. It costs n reward queries a prompt and no "
    "training, so it is what a run has to beat. Its divergence from the base model is at most log n − (n−1)/n nats.",
    "Pictures that a reward could not score are left out in pairs and counted; they are never taken as 0. Scores are of the pictures "
    "rounded to 8 bits.",
)
ROLE_WORDS: Final = {
    "trained": "trained on",
    "heldout": "held out",
    "artefact": "pixel statistic",
    "asked": "asked for",
}


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
    return formatting.percent(share, space="\N{NO-BREAK SPACE}")


def interval_text(estimate: Estimate) -> str:
    """The 95 % interval, or why there is none."""
    if math.isnan(estimate.low):
        return "no interval: fewer than two prompts" if estimate.n else "nothing scored"
    return f"{number(estimate.low, signed=True)} to {number(estimate.high, signed=True)}"


def estimate_text(estimate: Estimate) -> str:
    """Mean and interval."""
    return f"{number(estimate.mean, signed=True)} ({interval_text(estimate)})"


def share_text(share: TransferRatio) -> str:
    """A transfer ratio with its interval, or why there is none."""
    return (
        share.reason
        or f"{percent(share.ratio)} ({share.low * 100:.0f} to {share.high * 100:.0f})".replace(
            "-", "−"
        )
    )


def split_title(name: str) -> str:
    """A split's name for readers."""
    return name.replace("_", " ")


def role_text(role: str) -> str:
    """What a reward is here for."""
    return ROLE_WORDS.get(role, role)


def unit_text(unit: str) -> str:
    """A card's unit in brief, as it stands on the axis of a difference."""
    return unit.partition(";")[0].removesuffix(", negative").strip()


def p_text(p: float) -> str:
    """An adjusted p-value in words."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of a text on one line; what is left out is told."""
    length = len(formatting.single_line(text))
    return formatting.shortened(text, limit) + (f" ({length} characters)" if length > limit else "")
