"""An evaluation from end to end: draw what is missing, score what is missing, judge, report.

`planning.plan` decides; `run_evaluation` does. Interrupted, it goes on when called again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ddpo.distributed import World
from ddpo.eval.analysis.findings import Findings, analyse
from ddpo.eval.analysis.noise_floors import NoiseFloors
from ddpo.eval.analysis.prompt_dependence import swap_partners
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.images import EvalImages
from ddpo.eval.generate.probe import FACT_OF_CARD, describe
from ddpo.eval.generate.samples import Sample, write_samples
from ddpo.eval.generate.sampling import CALL, Describer, ImageRequest, Source, draw, missing
from ddpo.eval.generate.scoring import ScoreJournal, score, unscored
from ddpo.eval.inputs.checkpoints import EvalCheckpoint
from ddpo.eval.inputs.image_folders import store_images
from ddpo.eval.inputs.models import BASE
from ddpo.eval.plan import Plan
from ddpo.eval.report.data import Report, save_report
from ddpo.eval.report.html import render_html
from ddpo.eval.report.markdown import render_markdown
from ddpo.io.atomic import write_text
from ddpo.policies import load_policy
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.tools.availability import availability
from ddpo.types import Prompt, Trajectory

__all__ = ["EvalProgress", "Observer", "Outcome", "run_evaluation"]

VIEW: Final = tuple(FACT_OF_CARD.values())
KL_INDEX: Final = 0  # of which picture of each seen prompt the KL is taken


@dataclass(frozen=True, slots=True)
class EvalProgress:
    """Some pictures are drawn or scored."""

    stage: str  # "drawing", "scoring", "judging"
    what: str  # the model or the reward
    done: int
    total: int
    found: int  # of `done`, left by an earlier evaluation


Observer = Callable[[EvalProgress], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report and its files; other processes than the first have no report."""

    report: Report | None
    html: Path
    json: Path
    samples: Path


def run_evaluation(work: Plan, observe: Observer = lambda event: None) -> Outcome:
    """Draws, scores and writes `report.html`, `.md` and `.json`, `samples.parquet` and `images/`.

    Under `accelerate launch` the processes share drawing and scoring, and the first one writes.

    Raises:
        MissingResourceError: the base model, or a reward's weights, are not here.
        RewardFailure: a reward broke while scoring; what was drawn and scored is kept.
        StorageFailure: something cannot be written; the same holds.
    """
    together = World.join(work.device)
    for reward in work.rewards:
        if not availability(reward.resolved.card, reward.resolved.origin).complete:
            make_scorer(
                reward.resolved.on(together.device)
            ).close()  # what is missing is fetched, or told, before hours of drawing
    with (
        ImageStore(work.out, together.rank) as store,
        ScoreJournal(work.out, together.rank) as journal,
    ):
        if work.folders:
            pictures = _given(work, store, together)
        else:
            for candidate in (None, *work.candidates):
                _draw_all(work, candidate, store, together, observe)
            pictures = _drawn(work, store)
        floors = _score_all(work, pictures, store, journal, together, observe)
        outcome = Outcome(
            None, work.out / "report.html", work.out / "report.json", work.out / "samples.parquet"
        )
        if together.is_main:
            observe(EvalProgress("judging", "", 0, 1, 0))
            outcome = _written(work, analyse(work, pictures, store, journal, floors), outcome)
    together.barrier()
    return outcome


def source_of(work: Plan, candidate: EvalCheckpoint | None) -> Source:
    """What fixes the pixels of a model's pictures; None for the base model."""
    weights = candidate.facts.identity if candidate else ""
    return Source(work.base, weights, work.dtype, work.sampler, work.seed)


def wanted_of(work: Plan, candidate: EvalCheckpoint | None) -> list[ImageRequest]:
    """The pictures of a model that are compared, each once; of an earlier checkpoint those of the seen prompts."""
    seeds = candidate.facts.seeds if candidate else work.seeds
    prompts = work.seen if candidate and candidate.facts.history else work.prompts
    return [ImageRequest(prompt, index) for prompt in prompts for index in range(seeds)]


def swapped_of(work: Plan) -> list[ImageRequest]:
    """The pictures of the swap test: the noise of each prompt's first picture, the text of another prompt of its split."""
    wanted = []
    for split in work.splits:
        by_id = {prompt.id: prompt for prompt in split.prompts}
        partners = swap_partners(list(by_id)) if len(by_id) > 1 else {}
        wanted += [ImageRequest(by_id[own], 0, by_id[other]) for own, other in partners.items()]
    return wanted


def best_of_wanted(work: Plan) -> list[ImageRequest]:
    """The pictures of the base model among which the best is chosen, those of the comparison included."""
    if work.best_of is None:
        return []
    return [
        ImageRequest(prompt, index)
        for prompt in work.best_of.prompts
        for index in range(max(work.seeds, work.best_of.n))
    ]


def _draw_all(
    work: Plan,
    candidate: EvalCheckpoint | None,
    store: ImageStore,
    together: World,
    observe: Observer,
) -> None:
    """Everything of one model; it is not loaded if nothing is missing."""
    source, name = source_of(work, candidate), candidate.facts.name if candidate else BASE
    plain = wanted_of(work, candidate)
    told = {prompt.id for prompt in work.seen} if candidate and work.sampler.eta > 0 else set()
    paths = [one for one in plain if one.index == KL_INDEX and one.prompt.id in told]
    rest = [one for one in plain if one.index != KL_INDEX or one.prompt.id not in told]
    jobs: list[tuple[list[ImageRequest], tuple[str, ...], Describer | None]] = [
        (paths, (*VIEW, "kl"), _describer(work, kl=True)),
        (rest, VIEW, _describer(work, kl=False)),
    ]
    if candidate is None:
        jobs.append((best_of_wanted(work), (), None))  # chosen by scores alone
    if not (candidate and candidate.facts.history):
        jobs.append((swapped_of(work), VIEW, _describer(work, kl=False)))
    if not any(missing(store, source, wanted, facts) for wanted, facts, _ in jobs):
        together.barrier()  # else a process could find what another is about to draw, and not take part
        return
    together.barrier()
    policy = load_policy(
        work.base, candidate.info if candidate else None, device=together.device, dtype=work.dtype
    )
    total, before = sum(len(wanted) for wanted, _, _ in jobs), 0
    for wanted, facts, describer in jobs:
        last = 0
        for event in draw(
            policy,
            store,
            source,
            wanted,
            reference=candidate is None,
            describe=describer,
            facts=facts,
            together=together,
        ):
            observe(EvalProgress("drawing", name, before + event.done, total, event.found))
            last = event.total
        before += last


def _describer(work: Plan, *, kl: bool) -> Describer:
    """What is written down of each picture as it is drawn."""
    settings = replace(work.sampler, batch=CALL)

    def described(
        policy: Policy,
        keys: Sequence[SampleKey],
        trajectory: Trajectory,
        texts: Sequence[str] | None,
    ) -> Sequence[Mapping[str, Any]]:
        facts = describe(policy, keys, trajectory, settings, kl=kl, texts=texts)
        return (
            facts
            if kl
            else [{name: value for name, value in one.items() if name != "kl"} for one in facts]
        )

    return described


def _drawn(work: Plan, store: ImageStore) -> EvalImages:
    """The pictures of all models, with their facts."""
    compared, facts, swapped = [], {}, {}
    for candidate in (None, *work.candidates):
        source, name = source_of(work, candidate), candidate.facts.name if candidate else BASE
        seeds = candidate.facts.seeds if candidate else work.seeds
        for one in [
            *wanted_of(work, candidate),
            *(best_of_wanted(work) if candidate is None else ()),
        ]:
            if (picture := store.get(one.key(source))) is not None:
                facts[name, one.prompt.id, one.index] = picture.facts
        for one in swapped_of(work):
            if one.text is not None and (picture := store.get(one.key(source))) is not None:
                swapped[name, one.prompt.id, one.text.id] = picture
        compared += [
            _sample(store, source, name, split.name, prompt, index)
            for split in work.splits
            if split.role == "seen" or not (candidate and candidate.facts.history)
            for prompt in split.prompts
            for index in range(seeds)
        ]
    base = source_of(work, None)
    choice = tuple(
        _sample(store, base, BASE, "", one.prompt, one.index) for one in best_of_wanted(work)
    )
    return EvalImages(tuple(compared), facts, swapped, choice)


def _sample(
    store: ImageStore, source: Source, model: str, split: str, prompt: Prompt, index: int
) -> Sample:
    picture = store.get(ImageRequest(prompt, index).key(source))
    return Sample(
        model,
        split,
        prompt,
        index,
        picture.sha256 if picture else "",
        None if picture else "the picture was not drawn",
    )


def _given(work: Plan, store: ImageStore, together: World) -> EvalImages:
    """The pictures of the folders, for every prompt and index that any folder has; one that a folder lacks has an error."""
    kept = {folder.name: store_images(store, folder, together=together) for folder in work.folders}
    indices: dict[str, set[int]] = {}
    for of in kept.values():
        for id, index in of:
            indices.setdefault(id, set()).add(index)
    samples = []
    for folder in work.folders:
        of = kept[folder.name]
        for split in work.splits:
            for prompt in split.prompts:
                for index in sorted(indices.get(prompt.id, ())):
                    found = of.get((prompt.id, index))
                    error = (found.error if found else "the folder has no such picture") or None
                    samples.append(
                        Sample(
                            folder.name,
                            split.name,
                            prompt,
                            index,
                            found.sha256 if found else "",
                            error,
                        )
                    )
    return EvalImages(tuple(samples))


def _score_all(
    work: Plan,
    pictures: EvalImages,
    store: ImageStore,
    journal: ScoreJournal,
    together: World,
    observe: Observer,
) -> dict[str, float]:
    """Scores what the journal lacks, reward by reward, so that one heavy model is in memory at a time; gives their noise floors."""
    items = [
        (sample.sha256, sample.prompt)
        for sample in (*pictures.compared, *pictures.choice)
        if sample.sha256
    ]
    floors = NoiseFloors(
        work.out,
        [(one.sha256, one.prompt) for one in pictures.compared if one.model == BASE and one.sha256],
    )
    for reward in work.rewards:
        card, identity = reward.resolved.card, reward.resolved.identity
        if not unscored(identity, card, journal, items) and floors.known(identity):
            continue
        # no cache but the journal: what is found elsewhere would change the shape of a call
        scorer = make_scorer(reward.resolved.on(together.device))
        with closing(scorer):
            for event in score(scorer, identity, store, journal, items, together=together):
                observe(EvalProgress("scoring", reward.id, event.done, event.total, event.found))
            if together.is_main:
                floors.measure(identity, scorer, store)
        del scorer
    return {reward.id: floors.value(reward.resolved.identity) for reward in work.rewards}


def _written(work: Plan, findings: Findings, outcome: Outcome) -> Outcome:
    report = findings.report
    models = {model.name: (model.run, model.checkpoint) for model in report.models} | {
        BASE: ("", report.base)
    }
    write_samples(outcome.samples, findings.rows, models)
    save_report(outcome.json, report)
    write_text(work.out / "report.md", render_markdown(report))
    write_text(outcome.html, render_html(report, findings.pairs, work.out))
    return replace(outcome, report=report)
