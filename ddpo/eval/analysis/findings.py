"""From pictures and scores to the report: every number is a pure function of what was drawn and scored."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ddpo.eval.analysis.diversity import (
    DiversityChange,
    ImageFeatures,
    diversity_changes,
    group_rewards_here,
    small_pixels,
)
from ddpo.eval.analysis.group_diversity import group_changes
from ddpo.eval.analysis.hacking import read_evidence
from ddpo.eval.analysis.history import CheckpointAssessment, RunHistory, course
from ddpo.eval.analysis.prompt_dependence import (
    Dependence,
    explained_change,
    swap_change,
    swap_partners,
)
from ddpo.eval.analysis.tables import Pair, gain_table, matched_pairs, runs_table, transfer_table
from ddpo.eval.generate.image_store import ImageStore, image_path
from ddpo.eval.generate.images import EvalImages
from ddpo.eval.generate.probe import FACT_OF_CARD, features_of
from ddpo.eval.generate.rows import Row
from ddpo.eval.generate.samples import Sample, SignedReward, make_rows
from ddpo.eval.generate.scoring import ScoreJournal
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.splits import Split
from ddpo.eval.plan import Plan
from ddpo.eval.report.data import SCHEMA_VERSION, Curve, Report, RewardFacts
from ddpo.rewards.signature import signature

__all__ = ["Findings", "analyse"]

SIZES: Final = (2, 4, 8, 16, 32, 64, 128)  # of best-of-n

Groups = dict[str, NDArray[Any]]


class Findings:
    """The report, and the rows and pairs that it was made from."""

    def __init__(self, report: Report, rows: tuple[Row, ...], pairs: list[Pair]) -> None:
        self.report, self.rows, self.pairs = report, rows, pairs


def analyse(
    work: Plan,
    pictures: EvalImages,
    store: ImageStore,
    journal: ScoreJournal,
    floors: Mapping[str, float],
) -> Findings:
    """Judges what was drawn and scored.

    Args:
        work: the plan that was carried out.
        pictures: of all models.
        store: where they are.
        journal: their scores.
        floors: reward id → noise floor, NaN if not measured.
    """
    rows = _rows(work, pictures, journal)
    pairs, rewards = matched_pairs(rows), _reward_facts(work, floors)
    compared = [model for model in work.models if not model.history]
    ids = [reward.id for reward in rewards]
    gains = gain_table(pairs, work.models, work.splits, ids)
    diversity, dependence = _changes(work, compared, pictures, store)
    diversity += group_changes(group_rewards_here(), compared, work.splits, pictures, store)
    signs = _signs(work, pairs, pictures, store, rewards)
    courses = tuple(
        replace(one, signs=signs.get(one.run, ()))
        for one in _courses(work, pairs, pictures, journal, rewards)
    )
    roles = {model.name: roles_for(model, rewards) for model in compared}
    readings = tuple(
        read_evidence(
            model.name, gains, roles[model.name], diversity, dependence, _course_of(model, courses)
        )
        for model in compared
    )
    report = Report(
        schema_version=SCHEMA_VERSION,
        ddpo_version=_own_version(),
        base=work.base,
        models=work.models,
        seeds=work.seeds,
        seed=work.seed,
        sampler={}
        if work.folders
        else {
            "steps": work.sampler.steps,
            "guidance": work.sampler.guidance,
            "eta": work.sampler.eta,
        },
        rewards=rewards,
        splits=work.split_facts,
        gains=gains,
        transfers=transfer_table(pairs, work.models, work.splits, ids),
        runs=runs_table(pairs, work.models, work.splits, ids),
        diversity=diversity,
        dependence=dependence,
        courses=courses,
        readings=readings,
        curves=tuple(
            Curve(c.facts.name, c.run.curve)
            for c in work.candidates
            if not c.facts.history and c.run.curve
        ),
        manifests=work.manifests,
        notes=work.notes,
    )
    return Findings(report, rows, pairs)


def roles_for(model: ModelFacts, rewards: Sequence[RewardFacts]) -> dict[str, str]:
    """The role of each reward for one model: what another run was trained on is no more than asked for here."""
    return {
        r.id: "asked" if r.role == "trained" and model.trained_on not in ("", r.id) else r.role
        for r in rewards
    }


def _reward_facts(work: Plan, floors: Mapping[str, float]) -> tuple[RewardFacts, ...]:
    found = [
        RewardFacts(
            one.id,
            one.resolved.signature,
            one.resolved.card.to_dict(),
            one.role,
            floors.get(one.id, math.nan),
        )
        for one in work.rewards
    ]
    found += [
        RewardFacts(card.id, signature(card), card.to_dict(), "heldout", math.nan)
        for card in work.views
    ]
    return tuple(found)


def _rows(work: Plan, pictures: EvalImages, journal: ScoreJournal) -> tuple[Row, ...]:
    """The rows of the rewards that scorers gave, and of those that the base model's view gives."""
    signed = [
        SignedReward(one.resolved.card, one.resolved.signature, one.resolved.identity)
        for one in work.rewards
    ]
    rows = make_rows(pictures.compared, signed, journal)
    return rows + tuple(
        _view_row(sample, pictures, card.id, signature(card))
        for sample in pictures.compared
        for card in work.views
    )


def _view_row(sample: Sample, pictures: EvalImages, reward: str, line: str) -> Row:
    value = pictures.facts.get((sample.model, sample.prompt.id, sample.index), {}).get(
        FACT_OF_CARD[reward]
    )
    score = math.nan if value is None else float(value)
    error = None if value is not None else sample.error or "the model gives no view of it"
    return Row(
        sample.model,
        sample.split,
        sample.prompt.id,
        sample.prompt.text,
        sample.index,
        sample.sha256,
        image_path(sample.sha256) if sample.sha256 else "",
        reward,
        line,
        score,
        {},
        error,
    )


def _changes(
    work: Plan, compared: Sequence[ModelFacts], pictures: EvalImages, store: ImageStore
) -> tuple[tuple[DiversityChange, ...], tuple[Dependence, ...]]:
    """Diversity and dependence on the prompt of every model on every split."""
    views = _views(pictures, store, {BASE, *(model.name for model in compared)})
    diversity: list[DiversityChange] = []
    dependence: list[Dependence] = []
    for split in work.splits:
        base = views.get((BASE, split.name), ImageFeatures({}))
        for model in compared:
            tuned = views.get((model.name, split.name), ImageFeatures({}))
            diversity += diversity_changes(model.name, split.name, base, tuned)
            rows = [of.features or of.pixels for of in (base, tuned)]
            dependence.append(explained_change(model.name, split.name, rows[0], rows[1]))
            if pictures.swapped:
                pair = [_swap_rows(name, split, pictures, store) for name in (BASE, model.name)]
                dependence.append(swap_change(model.name, split.name, pair[0], pair[1]))
    return tuple(diversity), tuple(dependence)


def _views(
    pictures: EvalImages, store: ImageStore, names: set[str]
) -> dict[tuple[str, str], ImageFeatures]:
    """Small pixels and features by model, split and prompt; pictures of a prompt that differ in size have no pixels to compare."""
    pixels: dict[tuple[str, str], dict[str, list[NDArray[Any]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    features: dict[tuple[str, str], dict[str, list[NDArray[Any]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for sample in pictures.compared:
        if sample.model in names and sample.sha256:
            key, id = (sample.model, sample.split), sample.prompt.id
            pixels[key][id].append(_small(store, sample.sha256))
            row = features_of(pictures.facts.get((sample.model, id, sample.index), {}))
            if row is not None:
                features[key][id].append(row)
    return {key: ImageFeatures(_stacked(pixels[key]), _stacked(features[key])) for key in pixels}


def _small(store: ImageStore, sha256: str) -> NDArray[Any]:
    row: NDArray[Any] = small_pixels(store.pixels(sha256)[None])[0]
    return row


def _stacked(groups: Mapping[str, Sequence[NDArray[Any]]]) -> Groups:
    return {
        id: np.stack(rows) for id, rows in groups.items() if len({row.shape for row in rows}) == 1
    }


def _swap_rows(
    name: str, split: Split, pictures: EvalImages, store: ImageStore
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """By prompt: the first picture, and that of the same noise and another prompt; as features where there are any."""
    own = {
        (sample.model, sample.prompt.id): sample.sha256
        for sample in pictures.compared
        if sample.index == 0
    }
    rows: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for id, other in swap_partners([prompt.id for prompt in split.prompts]).items():
        swapped, sha256 = pictures.swapped.get((name, id, other)), own.get((name, id))
        if swapped is None or not sha256:
            continue
        features = features_of(pictures.facts.get((name, id, 0), {})), features_of(swapped.facts)
        if features[0] is not None and features[1] is not None:
            rows[id] = (features[0][None], features[1][None])
        else:
            rows[id] = (_small(store, sha256)[None], _small(store, swapped.sha256)[None])
    return rows


def _courses(
    work: Plan,
    pairs: Sequence[Pair],
    pictures: EvalImages,
    journal: ScoreJournal,
    rewards: Sequence[RewardFacts],
) -> tuple[RunHistory, ...]:
    """The course of every run of which earlier checkpoints are here, on its seen prompts."""
    split = next((split.name for split in work.splits if split.role == "seen"), None)
    runs = [model.run for model in work.models if model.history]
    found = []
    for run in dict.fromkeys(runs) if split else ():
        models = [model for model in work.models if model.run == run]
        last = next(model for model in models if not model.history)
        names = {model.name for model in models}
        kl: dict[str, list[tuple[str, float]]] = {}
        for (name, prompt, _), facts in pictures.facts.items():
            if name in names and facts.get("kl") is not None:
                kl.setdefault(name, []).append((prompt, float(facts["kl"])))
        found.append(
            course(
                models,
                pairs,
                split=str(split),
                roles=roles_for(last, rewards),
                kl=kl,
                base=_choice_scores(work, pictures, journal),
                lower=[reward.id for reward in rewards if reward.card.get("direction") == "lower"],
                ns=sorted({*SIZES, work.best_of.n}) if work.best_of else (),
                training_prompts=work.best_of.training_prompts if work.best_of else 0,
            )
        )
    return tuple(found)


def _signs(
    work: Plan,
    pairs: Sequence[Pair],
    pictures: EvalImages,
    store: ImageStore,
    rewards: Sequence[RewardFacts],
) -> dict[str, tuple[CheckpointAssessment, ...]]:
    """Run → the evidence about each of its checkpoints, on the seen prompts and the pictures that all of them have."""
    runs = {model.run for model in work.models if model.history}
    models = [replace(model, history=False) for model in work.models if model.run in runs]
    seen = [split for split in work.splits if split.role == "seen"][:1]
    if not models or not seen:
        return {}
    fewest = min(model.seeds for model in models)
    shared = [pair for pair in pairs if pair.split == seen[0].name and pair.index < fewest]
    gains = gain_table(shared, models, seen, [reward.id for reward in rewards])
    few = replace(
        pictures, compared=tuple(one for one in pictures.compared if one.index < fewest), swapped={}
    )
    diversity, dependence = _changes(replace(work, splits=tuple(seen)), models, few, store)
    found: dict[str, tuple[CheckpointAssessment, ...]] = {}
    for model in models:
        reading = read_evidence(
            model.name, gains, roles_for(model, rewards), diversity, dependence, None
        )
        strongest = next((one.text for one in reading.evidence if one.grade == reading.grade), "")
        found[model.run] = (
            *found.get(model.run, ()),
            CheckpointAssessment(model.name, model.iteration, reading.grade, strongest),
        )
    return found


def _choice_scores(
    work: Plan, pictures: EvalImages, journal: ScoreJournal
) -> dict[str, dict[str, list[float]]] | None:
    """Prompt id → reward → scores of the base model's pictures among which the best is chosen; None if there are none."""
    if not pictures.choice:
        return None
    found: dict[str, dict[str, list[float]]] = {}
    for sample in pictures.choice:
        by_reward = found.setdefault(sample.prompt.id, defaultdict(list))
        for one in work.rewards:
            score = journal.get(
                one.resolved.identity, one.resolved.card, (sample.sha256, sample.prompt)
            )
            by_reward[one.id].append(math.nan if score is None else score.value)
        facts = pictures.facts.get((BASE, sample.prompt.id, sample.index), {})
        for card, name in FACT_OF_CARD.items():
            value = facts.get(name)
            by_reward[card].append(math.nan if value is None else float(value))
    return found


def _course_of(model: ModelFacts, courses: Sequence[RunHistory]) -> RunHistory | None:
    return next(
        (
            one
            for one in courses
            if model.run and one.run == model.run and one.points[-1].model == model.name
        ),
        None,
    )


def _own_version() -> str:
    try:
        return version("ddpo")
    except PackageNotFoundError:
        return "not installed"
