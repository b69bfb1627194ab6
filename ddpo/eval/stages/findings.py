"""Third stage: the report, whose every number is a pure function of images and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ddpo.eval.analysis.group_diversity import group_changes, group_rewards_here
from ddpo.eval.analysis.hacking import assess_hacking
from ddpo.eval.analysis.history import RunHistory
from ddpo.eval.analysis.people import MatchedChoices, People, people_of
from ddpo.eval.analysis.tables import Pair, gain_table, matched_pairs, runs_table, transfer_table
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.probe import FACT_OF_CARD
from ddpo.eval.generate.samples import EvalImages, Row, Sample, SignedReward, make_row, make_rows
from ddpo.eval.generate.scoring import ScoreJournal
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.plan import Plan
from ddpo.eval.report.data import SCHEMA_VERSION, Curve, Report, RewardFacts
from ddpo.eval.stages.advice import plan_advice
from ddpo.eval.stages.changes import image_changes
from ddpo.eval.stages.histories import roles_for, run_histories
from ddpo.policies.transitions import AUTO
from ddpo.rewards.card import RewardCard
from ddpo.rewards.signature import signature

__all__ = ["Findings", "analyse"]


@dataclass(frozen=True, slots=True)
class Findings:
    """The report, and the rows and pairs behind it."""

    report: Report
    rows: tuple[Row, ...]
    pairs: list[Pair]


def analyse(
    plan: Plan,
    images: EvalImages,
    store: ImageStore,
    journal: ScoreJournal,
    floors: Mapping[str, float],
    people: MatchedChoices,
) -> Findings:
    """Analyses images and scores.

    Args:
        plan: plan of the evaluation.
        images: images of all models.
        store: store of the images.
        journal: scores of the images.
        floors: reward id → noise floor; NaN if not measured.
        people: people's choices between the images.
    """
    rows = _rows(plan, images, journal)
    pairs = matched_pairs(rows)
    rewards = _reward_facts(plan, floors)
    ids = [reward.id for reward in rewards]
    compared = [model for model in plan.models if not model.history]
    gains = gain_table(pairs, plan.models, plan.splits, ids)
    diversity, dependence = image_changes(plan.splits, compared, images, store)
    diversity += group_changes(group_rewards_here(), compared, plan.splits, images, store)
    histories = run_histories(plan, pairs, images, store, journal, rewards)
    judged = _people(plan, people, rows, rewards)
    assessments = tuple(
        assess_hacking(
            model.name,
            gains,
            roles_for(model, rewards),
            diversity,
            dependence,
            _history_of(model, histories),
            judged.share_of(model.name) if judged else None,
        )
        for model in compared
    )
    report = Report(
        schema_version=SCHEMA_VERSION,
        ddpo_version=_own_version(),
        base=plan.base,
        models=plan.models,
        seeds=plan.seeds,
        seed=plan.seed,
        sampler=_sampler(plan),
        rewards=rewards,
        splits=plan.split_facts,
        gains=gains,
        transfers=transfer_table(pairs, plan.models, plan.splits, ids),
        runs=runs_table(pairs, plan.models, plan.splits, ids),
        diversity=diversity,
        dependence=dependence,
        courses=histories,
        readings=assessments,
        curves=_curves(plan),
        manifests=plan.manifests,
        notes=(*plan.notes, *people.notes),
        advice=plan_advice(plan, assessments, judged),
        folder=plan.out,
        command=plan.command,
        people=judged,
    )
    return Findings(report, rows, pairs)


def _rows(plan: Plan, images: EvalImages, journal: ScoreJournal) -> tuple[Row, ...]:
    """The rows of all rewards: those of scorers, then those of the denoising probe."""
    signed = [
        SignedReward(one.resolved.card, one.resolved.signature, one.resolved.identity)
        for one in plan.rewards
    ]
    return make_rows(images.compared, signed, journal) + tuple(
        _probe_row(sample, images, card) for sample in images.compared for card in plan.probe_cards
    )


def _probe_row(sample: Sample, images: EvalImages, card: RewardCard) -> Row:
    facts = images.facts.get((sample.model, sample.prompt.id, sample.index), {})
    value = facts.get(FACT_OF_CARD[card.id])
    if value is None:
        error = sample.error or "the base model did not probe it"
        return make_row(sample, card.id, signature(card), math.nan, error=error)
    return make_row(sample, card.id, signature(card), float(value))


def _reward_facts(plan: Plan, floors: Mapping[str, float]) -> tuple[RewardFacts, ...]:
    scored = [
        RewardFacts(
            one.id,
            one.resolved.signature,
            one.resolved.card.to_dict(),
            one.role,
            floors.get(one.id, math.nan),
        )
        for one in plan.rewards
    ]
    probed = [
        RewardFacts(card.id, signature(card), card.to_dict(), "heldout", math.nan)
        for card in plan.probe_cards
    ]
    return (*scored, *probed)


def _people(
    plan: Plan, people: MatchedChoices, rows: Sequence[Row], rewards: Sequence[RewardFacts]
) -> People | None:
    """People's choices against the models, and against the rewards that have a better and a worse.

    More of a trained reward is better, whatever its card says: training maximises it.
    """
    directions = {
        one.id: -1 if one.card.get("direction") == "lower" and one.role != "trained" else 1
        for one in rewards
        if one.role != "artefact"
    }
    splits = [split.name for split in plan.splits]
    return people_of(people, rows, plan.models, splits, directions)


def _sampler(plan: Plan) -> dict[str, Any]:
    if plan.folders:
        return {}
    sampler = plan.sampler
    numbers = {"steps": sampler.steps, "guidance": sampler.guidance, "eta": sampler.eta}
    words = {"transition": sampler.transition, "grid": sampler.grid}
    size = {"size": "×".join(map(str, sampler.size))} if sampler.size else {}
    return numbers | {name: word for name, word in words.items() if word != AUTO} | size


def _curves(plan: Plan) -> tuple[Curve, ...]:
    return tuple(
        Curve(one.facts.name, one.run.curve)
        for one in plan.checkpoints
        if not one.facts.history and one.run.curve
    )


def _history_of(model: ModelFacts, histories: Sequence[RunHistory]) -> RunHistory | None:
    """The history that ends with this model."""
    for one in histories:
        if model.run and one.run == model.run and one.points[-1].model == model.name:
            return one
    return None


def _own_version() -> str:
    try:
        return version("ddpo")
    except PackageNotFoundError:
        return "not installed"
