"""Which part of a report a rendering shows: the reward of a model, the lines of a table, the rewards of a role."""

from __future__ import annotations

from collections.abc import Sequence

from ddpo.eval.analysis.hacking import Evidence, HackingAssessment
from ddpo.eval.analysis.tables import Gain
from ddpo.eval.report.data import Report, RewardFacts
from ddpo.eval.report.wording import listed, role_text, unit_text

__all__ = [
    "gains_of",
    "model_class",
    "primary_reward",
    "reading_of",
    "reward_role",
    "reward_unit",
    "rewards_of",
    "strongest",
    "within_noise",
]

SEVERITY = ("strong signs", "watch", "no sign", "too little measured", "not measured")


def primary_reward(report: Report, model: str) -> str:
    """The reward that the model was trained on if pictures were scored with it, else the first trained one, else the first."""
    ids = [reward.id for reward in report.rewards]
    own = next((facts.trained_on for facts in report.models if facts.name == model), "")
    trained = [reward.id for reward in report.rewards if reward.role == "trained"]
    return own if own in ids else (trained or ids)[0]


def gains_of(
    report: Report, *, model: str | None = None, reward: str | None = None, split: str | None = None
) -> list[Gain]:
    """The lines of the table of gains that fit, in their order."""
    return [
        g
        for g in report.gains
        if model in (None, g.model) and reward in (None, g.reward) and split in (None, g.split)
    ]


def rewards_of(report: Report, *roles: str) -> list[RewardFacts]:
    """The rewards of these roles, role by role."""
    return [reward for role in roles for reward in report.rewards if reward.role == role]


def reward_unit(report: Report, reward: str) -> str:
    """The unit of a reward as it stands on an axis; "" if it has none."""
    return next(
        (
            unit_text(str(facts.card.get("unit", "")))
            for facts in report.rewards
            if facts.id == reward
        ),
        "",
    )


def reading_of(report: Report, model: str) -> HackingAssessment | None:
    """The reading of a model."""
    return next((reading for reading in report.readings if reading.model == model), None)


def strongest(evidence: Sequence[Evidence]) -> Evidence | None:
    """The first evidence of the gravest grade that was measured."""
    measured = [item for item in evidence if item.grade != "not measured"]
    return min(measured, key=lambda item: SEVERITY.index(item.grade), default=None)


def reward_role(report: Report, reward: RewardFacts, model: str | None = None) -> str:
    """What a reward is here for, in words; for one `model`, or told for all of them."""
    owners = [facts.name for facts in report.compared if facts.trained_on == reward.id]
    if (
        reward.role != "trained"
        or not owners
        or len(owners) == len(report.compared)
        or model in owners
    ):
        return role_text(reward.role)
    return f"trained on by {listed(owners)}"


def within_noise(report: Report, gain: Gain) -> bool:
    """Whether a gain is smaller than the noise floor of its reward; False where that is unknown."""
    return any(
        facts.id == gain.reward and abs(gain.paired.gain.mean) < facts.noise_floor
        for facts in report.rewards
    )


def model_class(report: Report, model: str) -> str:
    """The CSS classes by which the page shows or hides what belongs to one model."""
    names = [facts.name for facts in report.compared]
    return f"m m{names.index(model)}" if model in names else "m"
