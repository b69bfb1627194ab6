"""Selections from a report that the renderings share, and the roles and units of its rewards."""

from __future__ import annotations

from collections.abc import Sequence

from ddpo.eval.analysis.hacking import Evidence, HackingAssessment
from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.data import Report, RewardFacts
from ddpo.eval.report.wording import listed, role_text, unit_text
from ddpo.stats.paired import TransferRatio

__all__ = [
    "assessment_of",
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
    """The share of the training gain that this gain is; None if it cannot be given."""
    place = (gain.model, gain.split, gain.reward)
    shares = [t.share for t in report.transfers if (t.model, t.split, t.reward) == place]
    return next((share for share in shares if not share.reason), None)


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
