"""The run histories of a report, with an assessment of each checkpoint."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ddpo.eval.analysis.hacking import assess_hacking
from ddpo.eval.analysis.history import CheckpointAssessment, RunHistory, run_history
from ddpo.eval.analysis.tables import Pair, gain_table
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.probe import FACT_OF_CARD
from ddpo.eval.generate.samples import EvalImages
from ddpo.eval.generate.scoring import ScoreJournal
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.plan import Plan
from ddpo.eval.report.data import RewardFacts
from ddpo.eval.stages.changes import image_changes

__all__ = ["roles_for", "run_histories"]

SIZES: Final = (2, 4, 8, 16, 32, 64, 128)  # of best-of-n

Assessments = dict[str, tuple[CheckpointAssessment, ...]]
"""Run → assessments of its checkpoints, in order."""


def roles_for(model: ModelFacts, rewards: Sequence[RewardFacts]) -> dict[str, str]:
    """The role of each reward for one model; another run's trained reward is only "asked"."""
    roles = {one.id: one.role for one in rewards}
    for id, role in roles.items():
        if role == "trained" and model.trained_on not in ("", id):
            roles[id] = "asked"
    return roles


def run_histories(
    plan: Plan,
    pairs: Sequence[Pair],
    images: EvalImages,
    store: ImageStore,
    journal: ScoreJournal,
    rewards: Sequence[RewardFacts],
) -> tuple[RunHistory, ...]:
    """The history of every run with earlier checkpoints, on its seen prompts.

    Args:
        plan: plan of the evaluation.
        pairs: pairs of all models and splits.
        images: images of all models.
        store: store of the images.
        journal: scores of the images.
        rewards: rewards of the report.
    """
    split = next((split.name for split in plan.splits if split.role == "seen"), None)
    runs = dict.fromkeys(model.run for model in plan.models if model.history)
    if split is None or not runs:
        return ()
    assessments = _assessments(plan, pairs, images, store, rewards)
    lower = [reward.id for reward in rewards if reward.card.get("direction") == "lower"]
    base = _best_of_scores(plan, images, journal)
    found = []
    for run in runs:
        models = [model for model in plan.models if model.run == run]
        last = next(model for model in models if not model.history)
        history = run_history(
            models,
            pairs,
            split=split,
            roles=roles_for(last, rewards),
            kl=_divergences(images, {model.name for model in models}),
            lower=lower,
            base=base,
            ns=sorted({*SIZES, plan.best_of.n}) if plan.best_of else (),
            training_prompts=plan.best_of.training_prompts if plan.best_of else 0,
        )
        found.append(replace(history, signs=assessments.get(run, ())))
    return tuple(found)


def _divergences(images: EvalImages, models: set[str]) -> dict[str, list[tuple[str, float]]]:
    """Model → (prompt id, trajectory KL in nats) of its images with a KL."""
    found: dict[str, list[tuple[str, float]]] = {}
    for (name, prompt, _), facts in images.facts.items():
        if name in models and facts.get("kl") is not None:
            found.setdefault(name, []).append((prompt, float(facts["kl"])))
    return found


def _assessments(
    plan: Plan,
    pairs: Sequence[Pair],
    images: EvalImages,
    store: ImageStore,
    rewards: Sequence[RewardFacts],
) -> Assessments:
    """The assessment of each checkpoint on the seen prompts and the indices that all have."""
    runs = {model.run for model in plan.models if model.history}
    models = [replace(model, history=False) for model in plan.models if model.run in runs]
    seen = [split for split in plan.splits if split.role == "seen"][:1]
    fewest = min(model.seeds for model in models)
    shared = [pair for pair in pairs if pair.split == seen[0].name and pair.index < fewest]
    gains = gain_table(shared, models, seen, [reward.id for reward in rewards])
    few = tuple(one for one in images.compared if one.index < fewest)
    shared_images = replace(images, compared=few, swapped={})
    diversity, dependence = image_changes(seen, models, shared_images, store)
    found: Assessments = {}
    for model in models:
        roles = roles_for(model, rewards)
        given = assess_hacking(model.name, gains, roles, diversity, dependence, None)
        strongest = next((one.text for one in given.evidence if one.grade == given.grade), "")
        assessment = CheckpointAssessment(model.name, model.iteration, given.grade, strongest)
        found[model.run] = (*found.get(model.run, ()), assessment)
    return found


def _best_of_scores(
    plan: Plan, images: EvalImages, journal: ScoreJournal
) -> dict[str, dict[str, list[float]]] | None:
    """Prompt id → reward → scores of the base model's images for best-of-n; None without them."""
    if not images.choice:
        return None
    found: dict[str, dict[str, list[float]]] = {}
    for sample in images.choice:
        by_reward = found.setdefault(sample.prompt.id, defaultdict(list))
        item = (sample.sha256, sample.prompt)
        for one in plan.rewards:
            score = journal.get(one.resolved.identity, one.resolved.card, item)
            by_reward[one.id].append(math.nan if score is None else score.value)
        facts = images.facts.get((BASE, sample.prompt.id, sample.index), {})
        for card, name in FACT_OF_CARD.items():
            value = facts.get(name)
            by_reward[card].append(math.nan if value is None else float(value))
    return found
