"""Sampling the images of one model that the store lacks, in the order of the plan.

The denoiser and the decoder are always called with one batch size. With another one, a matrix
product may add up in another order, and some pixels come out one level lighter or darker. So the
bits of an image depend on its key alone: not on its batch, on interruptions, or on the number of
processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Final

import torch

from ddpo.distributed import ALONE, World
from ddpo.errors import ImageError
from ddpo.eval.generate.image_store import ImageKey, ImageStore
from ddpo.images import to_uint8
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_trajectory
from ddpo.policies.transitions import AUTO
from ddpo.types import Prompt, Trajectory

__all__ = [
    "CALL",
    "ImageProbe",
    "ImageRequest",
    "SamplingProgress",
    "Source",
    "missing",
    "sample_images",
]

CALL: Final = 8  # images per call of the denoiser

ImageProbe = Callable[
    [Policy, Sequence[SampleKey], Trajectory, Sequence[str] | None], Sequence[Mapping[str, Any]]
]
"""JSON facts about each image of a call.

Arguments: the policy in the state that sampled them, keys, trajectories, and texts if swapped.
"""


@dataclass(frozen=True, slots=True)
class Source:
    """The settings that fix the pixels of a model's images, apart from prompt and index."""

    base: str  # id or folder of the base model
    weights: str  # SHA-256 over the checkpoint's weights; "" for the base model itself
    dtype: str
    sampler: SamplerSettings  # its `batch` changes nothing here
    seed: int  # of the noise
    call: int = CALL

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits."""
        return _digest(self)


@cache
def _digest(source: Source) -> str:
    values = asdict(source)
    sampler = values["sampler"]
    del sampler["batch"]
    for name in ("transition", "grid"):  # unknown to older versions, whose images are still served
        if sampler[name] in (AUTO, "ddim"):
            del sampler[name]
    if not sampler["size"]:
        del sampler["size"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image of the plan."""

    prompt: Prompt  # the prompt whose noise it has
    index: int
    text: Prompt | None = None  # swap test: the prompt sampled instead, on the same noise

    def key(self, source: Source) -> ImageKey:
        """Its key in the store."""
        return ImageKey(
            source.digest, self.prompt.id, self.index, "" if self.text is None else self.text.id
        )


@dataclass(frozen=True, slots=True)
class SamplingProgress:
    """The state after a call of the denoiser, or after the search for stored images."""

    done: int  # images of this process's shard, including those that were found
    total: int
    found: int


def missing(
    store: ImageStore, source: Source, requests: Sequence[ImageRequest], facts: Collection[str] = ()
) -> list[ImageRequest]:
    """The images to sample, in order: not stored, damaged, or without one of `facts`."""
    known = [(one, store.get(one.key(source))) for one in requests]
    damaged = store.damaged({image.sha256 for _, image in known if image is not None})
    return [
        one
        for one, found in known
        if found is None or found.sha256 in damaged or not set(facts) <= found.facts.keys()
    ]


def sample_images(
    policy: Policy,
    store: ImageStore,
    source: Source,
    requests: Sequence[ImageRequest],
    *,
    reference: bool,
    probe: ImageProbe | None = None,
    facts: Collection[str] = (),
    world: World = ALONE,
) -> Iterator[SamplingProgress]:
    """Samples the images of `requests` that the store lacks, call by call.

    After the last progress all processes have sampled their shards and know the images of all.

    Args:
        policy: base model, with the checkpoint of `source` if that has one.
        store: store of the images.
        source: settings that fix their pixels.
        requests: images of the plan, the same on every process; duplicates are sampled once.
        reference: whether to sample from the base model, that is `policy` under `reference()`.
        probe: function that gives facts about the images of a call.
        facts: names of required facts; an image without one of them is sampled again.
        world: processes of the evaluation.

    Raises:
        ImageError: the model returns pixels that are not finite.
        StorageFailure: a file cannot be written. Images sampled before are kept.
    """
    blocks = world.shard(_distinct(requests, source), source.call)
    mine = [one for block in blocks for one in block]
    left = missing(store, source, mine, facts)
    found = len(mine) - len(left)
    yield SamplingProgress(found, len(mine), found)
    for start in range(0, len(left), source.call):
        part = left[start : start + source.call]
        with policy.reference() if reference else nullcontext():
            _sample_call(policy, store, source, part, probe)
        yield SamplingProgress(found + start + len(part), len(mine), found)
    if world.world_size > 1:
        world.barrier()
        store.reload()


@torch.no_grad()
def _sample_call(
    policy: Policy,
    store: ImageStore,
    source: Source,
    part: Sequence[ImageRequest],
    probe: ImageProbe | None,
) -> None:
    """One call, filled up with copies of its last image, of which only `part` is kept."""
    full = [*part, *[part[-1]] * (source.call - len(part))]
    keys = [SampleKey(one.prompt, one.index) for one in full]
    texts: list[str] | None = None
    if any(one.text for one in full):
        texts = [(one.text or one.prompt).text for one in full]
    settings = replace(source.sampler, batch=source.call)
    trajectory = sample_trajectory(policy, keys, settings, source.seed, texts)
    pixels = to_uint8(_finite(policy.decode(trajectory.latents[:, -1]), part))
    facts: Sequence[Mapping[str, Any]] = [{}] * len(full)
    if probe is not None:
        facts = probe(policy, keys, trajectory, texts)
    store.add((one.key(source), pixels[place], facts[place]) for place, one in enumerate(part))


def _finite(pixels: torch.Tensor, part: Sequence[ImageRequest]) -> torch.Tensor:
    """The pixels, checked to be finite, since clamping and rounding would hide NaN."""
    finite = torch.isfinite(pixels).flatten(1).all(1).tolist()
    for one, whole in zip(part, finite[: len(part)], strict=True):
        if not whole:
            raise ImageError(
                f"the model returned pixels that are NaN or infinite for {one.prompt.text!r}, "
                f"index {one.index}"
            )
    return pixels


def _distinct(requests: Sequence[ImageRequest], source: Source) -> list[ImageRequest]:
    """The requests without duplicates, by key, since prompts with metadata cannot be hashed."""
    found: dict[ImageKey, ImageRequest] = {}
    for one in requests:
        found.setdefault(one.key(source), one)
    return list(found.values())
