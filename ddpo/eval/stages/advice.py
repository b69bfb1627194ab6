"""Advice on further evidence, from the plan of an evaluation and this machine."""

from __future__ import annotations

from collections.abc import Sequence

from ddpo.eval.analysis.hacking import HackingAssessment
from ddpo.eval.analysis.people import People
from ddpo.eval.inputs.held_out import choose_held_out
from ddpo.eval.plan import Plan
from ddpo.eval.report.advice import Advice, Circumstances, advise
from ddpo.policies.checkpoints.folder import checkpoint_folders
from ddpo.rewards.card import RewardCard
from ddpo.rewards.tools.availability import availability
from ddpo.rewards.zoo import rewards

__all__ = ["plan_advice"]


def plan_advice(
    plan: Plan, assessments: Sequence[HackingAssessment], people: People | None
) -> tuple[Advice, ...]:
    """The advice on every compared model.

    Args:
        plan: plan of the evaluation.
        assessments: graded evidence about each compared model.
        people: people's choices; None if nobody judged the images.
    """
    facts = Circumstances(
        config=plan.config,
        earlier=_earlier(plan),
        offers=_offers(plan),
        has_training_prompts=bool(plan.seen),
        prompts=max((len(split.prompts) for split in plan.splits), default=0),
        judged=frozenset(one.model for one in people.wins) if people else frozenset(),
    )
    models = {model.name: model for model in plan.models}
    return tuple(advice for one in assessments for advice in advise(models[one.model], one, facts))


def _earlier(plan: Plan) -> dict[str, int]:
    """Model → number of earlier checkpoints in its run folder."""
    found = {}
    for one in plan.checkpoints:
        if not one.facts.history and one.info.run is not None:
            folders = checkpoint_folders(one.info.run / "checkpoints")
            found[one.facts.name] = sum(folder.name < one.info.folder.name for folder in folders)
    return found


def _offers(plan: Plan) -> list[str]:
    """Independent rewards of which only the weights are missing here, the smallest first."""
    cards = [one.resolved.card for one in plan.rewards]
    chosen = choose_held_out(cards, available=_lacks_weights_alone, most=len(cards) + 100)
    known = rewards.available()[0]
    return sorted((one.id for one in chosen), key=lambda id: _megabytes(known[id]))


def _lacks_weights_alone(card: RewardCard) -> bool:
    found = availability(card, rewards.origin(card.id))
    return not found.missing_libraries and not found.complete


def _megabytes(card: RewardCard) -> float:
    return sum(weight.megabytes for weight in card.weights)
