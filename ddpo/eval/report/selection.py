"""Selections from a report that the renderings share, and the roles and units of its rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ddpo.eval.analysis.hacking import Evidence, HackingAssessment
from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.wording import listed, role_text, unit_text
from ddpo.stats.paired import TransferRatio

if TYPE_CHECKING:
    from ddpo.eval.report.advice import Advice
    from ddpo.eval.report.data import Report, RewardFacts

__all__ = [
    "advice_on",
    "assessment_of",
    "better_sign",
    "gains_of",
    "is_within_noise",
    "model_class",
    "primary_reward",
    "reward_role",
    "reward_unit",
    "rewards_of",
    "share_of",
    "strongest",
]

LARGEST_SHARE: Final = 3.0  # a larger share is that of a training gain close to 0
SEVERITY = ("strong signs", "watch", "no sign", "too little measured", "not measured")


def primary_reward(report: Report, model: str) -> str:
    """The reward that the model was trained on; else the first trained reward, or the first one.

    The model's own reward counts only if images were scored with it.
    """
    ids = [reward.id for reward in report.rewards]
    own = next((facts.trained_on for facts in report.models if facts.name == model), "")
    trained = [reward.id for reward in report.rewards if reward.role == "trained"]
    return own if own in ids else (trained or ids)[0]


def gains_of(
    report: Report, *, model: str | None = None, reward: str | None = None, split: str | None = None
) -> list[Gain]:
    """The gains of a model, a reward and a prompt list, in their order; None stands for all."""
    return [
        g
        for g in report.gains
        if model in (None, g.model) and reward in (None, g.reward) and split in (None, g.split)
    ]


def share_of(report: Report, gain: Gain) -> TransferRatio | None:
    """The share of the training gain that this gain is; None where it means nothing.

    It means something where the training gain is clearly better than 0 and above the noise floor,
    and where neither the share nor an end of its interval is beyond `LARGEST_SHARE`.
    """
    place = (gain.model, gain.split, gain.reward)
    shares = [t.share for t in report.transfers if (t.model, t.split, t.reward) == place]
    share = next((one for one in shares if not one.reason), None)
    if share is None or not _is_plausible(share):
        return None
    training = [
        one
        for one in gains_of(report, model=gain.model, reward=gain.reward)
        if one.role == "seen" and not math.isnan(one.paired.gain.mean)
    ]
    sign = better_sign(report, gain)
    has_gain = all(
        one.paired.gain.mean * sign > 0 and not is_within_noise(report, one) for one in training
    )
    return share if has_gain else None


def advice_on(report: Report, model: str) -> list[Advice]:
    """The sources of further evidence about a model."""
    return [one for one in report.advice if one.model == model]


def better_sign(report: Report, gain: Gain) -> int:
    """1 where more of the reward is better, also for every trained reward; else −1."""
    trained_on = next((facts.trained_on for facts in report.models if facts.name == gain.model), "")
    lower = any(
        facts.id == gain.reward and facts.card.get("direction") == "lower"
        for facts in report.rewards
    )
    return -1 if lower and gain.reward != trained_on else 1


def _is_plausible(share: TransferRatio) -> bool:
    """False for a share that a gain close to 0 blows up."""
    ends = [abs(one) for one in (share.ratio, share.low, share.high) if not math.isnan(one)]
    return bool(ends) and max(ends) <= LARGEST_SHARE


def rewards_of(report: Report, *roles: str) -> list[RewardFacts]:
    """The rewards of these roles, role by role."""
    return [reward for role in roles for reward in report.rewards if reward.role == role]


def reward_unit(report: Report, reward: str) -> str:
    """The unit of a reward for the label of an axis; "" if it has none."""
    units = [str(r.card.get("unit", "")) for r in report.rewards if r.id == reward]
    return unit_text(units[0]) if units else ""


def assessment_of(report: Report, model: str) -> HackingAssessment | None:
    """The graded evidence about a model."""
    return next((one for one in report.readings if one.model == model), None)


def strongest(evidence: Sequence[Evidence]) -> Evidence | None:
    """The first evidence of the gravest grade that was measured."""
    measured = [item for item in evidence if item.grade != "not measured"]
    return min(measured, key=lambda item: SEVERITY.index(item.grade), default=None)


def reward_role(report: Report, reward: RewardFacts, model: str | None = None) -> str:
    """The role of a reward in words.

    Args:
        report: the report.
        reward: a reward of the report.
        model: the model that the words are about; None for all models.
    """
    owners = [facts.name for facts in report.compared if facts.trained_on == reward.id]
    is_everyones = not owners or len(owners) == len(report.compared)
    if reward.role != "trained" or is_everyones or model in owners:
        return role_text(reward.role)
    return f"trained on by {listed(owners)}"


def is_within_noise(report: Report, gain: Gain) -> bool:
    """True if a gain is smaller than the noise floor of its reward; False if that is unknown."""
    return any(
        facts.id == gain.reward and abs(gain.paired.gain.mean) < facts.noise_floor
        for facts in report.rewards
    )


def model_class(report: Report, model: str) -> str:
    """The CSS classes by which the page shows or hides the parts about one model."""
    names = [facts.name for facts in report.compared]
    return f"m m{names.index(model)}" if model in names else "m"
