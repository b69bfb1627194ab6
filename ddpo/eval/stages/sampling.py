"""First stage: the images of all models, sampled from checkpoints or copied from folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ddpo.distributed import World
from ddpo.errors import StorageFailure
from ddpo.eval.generate.given_images import store_images
from ddpo.eval.generate.image_store import ImageStore, StoredImage
from ddpo.eval.generate.probe import PROBE_FACTS, probe_images
from ddpo.eval.generate.samples import EvalImages, Sample
from ddpo.eval.generate.sampling import CALL, ImageProbe, ImageRequest, missing, sample_images
from ddpo.eval.inputs.checkpoints import EvalCheckpoint
from ddpo.eval.plan import Plan
from ddpo.eval.stages.progress import EvalProgress, Observer
from ddpo.eval.stages.requests import (
    best_of_requests,
    compared_requests,
    model_name,
    model_seeds,
    source_of,
    swap_requests,
)
from ddpo.policies import load_policy
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey
from ddpo.types import Prompt, Trajectory

__all__ = ["provide_images"]

KL_INDEX: Final = 0  # index of the image of each seen prompt whose KL is computed


@dataclass(frozen=True, slots=True)
class _Batch:
    """Images of one model with the facts that they need."""

    requests: list[ImageRequest]
    facts: tuple[str, ...] = ()
    probe: ImageProbe | None = None


def provide_images(plan: Plan, store: ImageStore, world: World, observe: Observer) -> EvalImages:
    """The images of all models, after sampling or copying those that the store lacks.

    Args:
        plan: plan of the evaluation.
        store: store of the images.
        world: processes of the evaluation.
        observe: receiver of progress.

    Raises:
        MissingResourceError: the base model is missing.
        ImageError, StorageFailure: as for `sample_images`.
    """
    if plan.folders:
        return _given_images(plan, store, world)
    for checkpoint in (None, *plan.checkpoints):
        _sample_model(plan, checkpoint, store, world, observe)
    return _sampled_images(plan, store)


def _sample_model(
    plan: Plan,
    checkpoint: EvalCheckpoint | None,
    store: ImageStore,
    world: World,
    observe: Observer,
) -> None:
    """Samples the missing images of one model, which is not loaded if nothing is missing."""
    source = source_of(plan, checkpoint)
    batches = _batches(plan, checkpoint)
    incomplete = any(missing(store, source, one.requests, one.facts) for one in batches)
    world.barrier()  # otherwise a process could find what another samples next, and not take part
    if not incomplete:
        return
    info = checkpoint.info if checkpoint else None
    policy = load_policy(
        plan.base, info, device=world.device, dtype=plan.dtype, size=plan.sampler.size
    )
    name = model_name(checkpoint)
    total = sum(len(one.requests) for one in batches)
    before = 0
    for batch in batches:
        last = 0
        for event in sample_images(
            policy,
            store,
            source,
            batch.requests,
            reference=checkpoint is None,
            probe=batch.probe,
            facts=batch.facts,
            world=world,
        ):
            observe(EvalProgress("sampling", name, before + event.done, total, event.found))
            last = event.total
        before += last


def _batches(plan: Plan, checkpoint: EvalCheckpoint | None) -> list[_Batch]:
    """The images of one model: with KL, without KL, for best-of-n, and for the swap test."""
    compared = compared_requests(plan, checkpoint)
    seen = {prompt.id for prompt in plan.seen}
    has_kl = checkpoint is not None and plan.sampler.eta > 0
    with_kl: list[ImageRequest] = []
    rest: list[ImageRequest] = []
    for one in compared:
        measured = has_kl and one.index == KL_INDEX and one.prompt.id in seen
        (with_kl if measured else rest).append(one)
    probe = _probe(plan, kl=False)
    batches = [
        _Batch(with_kl, (*PROBE_FACTS, "kl"), _probe(plan, kl=True)),
        _Batch(rest, PROBE_FACTS, probe),
    ]
    if checkpoint is None:
        batches.append(_Batch(best_of_requests(plan)))  # chosen by scores alone
    if checkpoint is None or not checkpoint.facts.history:
        batches.append(_Batch(swap_requests(plan), PROBE_FACTS, probe))
    return batches


def _probe(plan: Plan, *, kl: bool) -> ImageProbe:
    """The function that records facts about each image of a call."""
    settings = replace(plan.sampler, batch=CALL)

    def probe(
        policy: Policy,
        keys: Sequence[SampleKey],
        trajectory: Trajectory,
        texts: Sequence[str] | None,
    ) -> Sequence[Mapping[str, Any]]:
        return probe_images(policy, keys, trajectory, settings, kl=kl, texts=texts)

    return probe


def _sampled_images(plan: Plan, store: ImageStore) -> EvalImages:
    """The sampled images of all models, with their facts."""
    compared: list[Sample] = []
    facts: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    swapped: dict[tuple[str, str, str], StoredImage] = {}
    for checkpoint in (None, *plan.checkpoints):
        source = source_of(plan, checkpoint)
        name = model_name(checkpoint)
        requests = compared_requests(plan, checkpoint)
        if checkpoint is None:
            requests += best_of_requests(plan)
        for one in requests:
            if (image := store.get(one.key(source))) is not None:
                facts[name, one.prompt.id, one.index] = image.facts
        for one in swap_requests(plan):
            image = store.get(one.key(source))
            if one.text is not None and image is not None:
                swapped[name, one.prompt.id, one.text.id] = image
        compared += _compared_samples(plan, checkpoint, store)
    choice = [
        _sample(plan, None, store, "", one.prompt, one.index) for one in best_of_requests(plan)
    ]
    return EvalImages(tuple(compared), facts, swapped, tuple(choice))


def _compared_samples(
    plan: Plan, checkpoint: EvalCheckpoint | None, store: ImageStore
) -> list[Sample]:
    """The compared images of one model, split by split."""
    only_seen = checkpoint is not None and checkpoint.facts.history
    return [
        _sample(plan, checkpoint, store, split.name, prompt, index)
        for split in plan.splits
        if split.role == "seen" or not only_seen
        for prompt in split.prompts
        for index in range(model_seeds(plan, checkpoint))
    ]


def _sample(
    plan: Plan,
    checkpoint: EvalCheckpoint | None,
    store: ImageStore,
    split: str,
    prompt: Prompt,
    index: int,
) -> Sample:
    image = store.get(ImageRequest(prompt, index).key(source_of(plan, checkpoint)))
    name = model_name(checkpoint)
    if image is None:
        raise StorageFailure(
            f"{plan.out} lacks image {index} of {prompt.text!r} by {name}, which was sampled; "
            "repeat the command, which samples only what is missing"
        )
    return Sample(name, split, prompt, index, image.sha256)


def _given_images(plan: Plan, store: ImageStore, world: World) -> EvalImages:
    """The images of all folders, for each prompt and index that any folder has.

    An image that a folder lacks has an error.
    """
    stored = {folder.name: store_images(store, folder, world=world) for folder in plan.folders}
    indices: dict[str, set[int]] = {}
    for of_folder in stored.values():
        for prompt_id, index in of_folder:
            indices.setdefault(prompt_id, set()).add(index)
    samples = []
    for name, of_folder in stored.items():
        for split in plan.splits:
            for prompt in split.prompts:
                for index in sorted(indices.get(prompt.id, ())):
                    found = of_folder.get((prompt.id, index))
                    sha256 = found.sha256 if found else ""
                    error = found.error if found else "the folder has no such image"
                    samples.append(Sample(name, split.name, prompt, index, sha256, error))
    return EvalImages(tuple(samples))
