"""Pairs of a run: base model against checkpoints, from an evaluation's images or sampled now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ddpo.devices import AUTO, resolve_device
from ddpo.errors import ConfigError
from ddpo.eval.config import EvalConfig
from ddpo.eval.generate.image_store import ImageStore, image_path
from ddpo.eval.generate.samples import read_samples
from ddpo.eval.generate.sampling import ImageRequest, Source, sample_images
from ddpo.eval.inputs.checkpoints import EvalCheckpoint, NamedCheckpoint, find_eval_checkpoints
from ddpo.eval.inputs.models import BASE
from ddpo.eval.inputs.splits import load_splits
from ddpo.eval.plan import default_out, planned_sampler, training_prompts
from ddpo.eval.report.data import load_report
from ddpo.io.lock import LOCK_FILE, owned
from ddpo.io.reading import reading
from ddpo.labelling.design import seeded
from ddpo.labelling.folders import place_of
from ddpo.labelling.pair import LabelPair
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import POLICY_FILE
from ddpo.policies.family import default_dtype
from ddpo.types import Prompt

__all__ = ["checkpoints_of", "run_pairs"]

SEEDS: Final = 4  # images per prompt, before prompts are repeated; as many as an evaluation has

Observe = Callable[[str, int, int], None]
"""Model, images sampled and their number."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A pair of stored images."""

    prompt: str
    split: str
    index: int
    base: str  # SHA-256 of the pixels
    tuned: str


def checkpoints_of(
    config: EvalConfig, named: Sequence[NamedCheckpoint]
) -> tuple[EvalCheckpoint, ...]:
    """The checkpoints of `config`, each named NAME@ITERATION by its run.

    Args:
        config: settings of the sampling.
        named: its checkpoints, as `find_named` found them.
    """
    return find_eval_checkpoints(
        named,
        seeds=SEEDS,
        history=0,
        history_seeds=SEEDS,
        trust=config.trust,
    )


def run_pairs(
    config: EvalConfig,
    checkpoint: EvalCheckpoint,
    count: int,
    seed: int,
    out: Path,
    observe: Observe,
) -> list[LabelPair]:
    """`count` pairs of the base model and a checkpoint, from the same prompts and noise.

    Pairs of an evaluation in the run folder come first; the rest is sampled into its folder.

    Args:
        config: prompts, seed of the noise, sampler settings and device.
        checkpoint: the tuned model.
        count: number of pairs.
        seed: seed of the choice.
        out: preference file, which image paths are relative to.
        observe: receiver of progress.

    Raises:
        UserError: a setting cannot be used, or a file cannot be written.
    """
    folder = default_out([checkpoint])
    stored = _spread(list(_evaluated(folder, checkpoint, config)), seed)[:count]
    if len(stored) < count:
        known = {(one.prompt, one.index) for one in stored}
        stored += _sampled(config, checkpoint, count - len(stored), known, seed, observe)
    facts = checkpoint.facts
    name = f"{facts.run or facts.name}@{facts.iteration}" if facts.iteration >= 0 else facts.name
    return [
        LabelPair(
            prompt=one.prompt,
            split=one.split,
            index=one.index,
            model_a=BASE,
            model_b=name,
            identity_a="",
            identity_b=facts.identity,
            image_a=place_of(folder / image_path(one.base), out.parent),
            image_b=place_of(folder / image_path(one.tuned), out.parent),
            sha256_a=one.base,
            sha256_b=one.tuned,
        )
        for one in stored
    ]


def _evaluated(folder: Path, checkpoint: EvalCheckpoint, config: EvalConfig) -> Iterator[_Stored]:
    """The whole pairs of a finished evaluation of the checkpoint, unless prompts are requested."""
    report_file = folder / "report.json"
    table = folder / "samples.parquet"
    if config.prompts or not report_file.is_file() or not table.is_file():
        return
    report = load_report(report_file)
    identity = checkpoint.facts.identity
    name = next((one.name for one in report.models if one.identity == identity), None)
    images: dict[tuple[str, int], dict[str, str]] = {}
    facts: dict[tuple[str, int], tuple[str, str]] = {}
    for row in read_samples(table):
        if row.model in (BASE, name) and row.image_sha256:
            key = (row.prompt_id, row.index)
            images.setdefault(key, {})[row.model] = row.image_sha256
            facts.setdefault(key, (row.prompt, row.split))
    pairs = [
        _Stored(*facts[key], key[1], found[BASE], found[name])
        for key, found in images.items()
        if name is not None and found.keys() == {BASE, name}
    ]
    with ImageStore(folder) as store:
        damaged = store.damaged({sha256 for one in pairs for sha256 in (one.base, one.tuned)})
    yield from (one for one in pairs if not {one.base, one.tuned} & damaged)


def _spread(stored: Sequence[_Stored], seed: int) -> list[_Stored]:
    """All pairs in random order, those of low index first."""
    ordered = sorted(stored, key=lambda one: (one.prompt, one.index))
    shuffled = [ordered[place] for place in seeded(seed, "choice").permutation(len(ordered))]
    return sorted(shuffled, key=lambda one: one.index)


def _sampled(
    config: EvalConfig,
    checkpoint: EvalCheckpoint,
    count: int,
    known: set[tuple[str, int]],
    seed: int,
    observe: Observe,
) -> list[_Stored]:
    """Pairs that are sampled into the folder of the run's evaluation, as `ddpo eval` samples."""
    requests = _requests(config, checkpoint, count, known, seed)
    settings = checkpoint.run.config
    model = checkpoint.info.model
    device = resolve_device(config.device or str(settings.get("device", AUTO)))
    dtype = str(settings.get("dtype") or default_dtype(model, device))
    sampler = planned_sampler(config, checkpoint)
    folder = default_out([checkpoint])
    asked = [one for one, _ in requests]
    hashes: list[list[str]] = []
    with ExitStack() as stack:
        stack.enter_context(reading(checkpoint.info.folder / POLICY_FILE))
        advice = "wait for it to end, or choose a finished run"
        stack.enter_context(owned(folder / LOCK_FILE, folder, "ddpo label", advice))
        store = stack.enter_context(ImageStore(folder))
        policy = load_policy(model, checkpoint.info, device=device, dtype=dtype, size=sampler.size)
        for weights in ("", checkpoint.facts.identity):
            source = Source(model, weights, dtype, sampler, config.seed)
            name = checkpoint.facts.name if weights else BASE
            for event in sample_images(policy, store, source, asked, reference=not weights):
                observe(name, event.done, event.total)
            found = [store.get(one.key(source)) for one in asked]
            hashes.append([image.sha256 for image in found if image is not None])
        store.sync()
    return [
        _Stored(one.prompt.text, split, one.index, base, tuned)
        for (one, split), base, tuned in zip(requests, *hashes, strict=True)
    ]


def _requests(
    config: EvalConfig,
    checkpoint: EvalCheckpoint,
    count: int,
    known: set[tuple[str, int]],
    seed: int,
) -> list[tuple[ImageRequest, str]]:
    """The images to sample with their prompt list, prompts in random order, index by index."""
    trained = training_prompts(config, [checkpoint])
    splits = load_splits(config.prompts, trained, model=checkpoint.info.model, leaks=config.leaks)
    names: dict[str, tuple[Prompt, str]] = {}
    for split, _ in splits:
        for prompt in split.prompts:
            names.setdefault(prompt.id, (prompt, split.name))
    if not names:
        raise ConfigError("there is no prompt to sample: give --prompts")
    prompts = [names[id] for id in sorted(names)]
    shuffled = [prompts[place] for place in seeded(seed, "prompts").permutation(len(prompts))]
    found: list[tuple[ImageRequest, str]] = []
    index = 0
    while len(found) < count:
        for prompt, split in shuffled:
            if (prompt.text, index) not in known and len(found) < count:
                found.append((ImageRequest(prompt, index), split))
        index += 1
    return found
