"""Drawing the pictures of one model: only what the store lacks, in the order of the plan.

The denoiser and the decoder are always called in one shape, whatever is asked for: in another shape a matrix product adds up in another
order, and some pixels come out one level lighter or darker. So the bits of a picture depend on its key alone: not on what is drawn with
it, on where an earlier evaluation stopped, or on the number of processes.
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
from ddpo.types import Prompt, Trajectory

__all__ = ["CALL", "Describer", "DrawProgress", "ImageRequest", "Source", "draw", "missing"]

CALL: Final = 8  # pictures per call of the denoiser

Describer = Callable[
    [Policy, Sequence[SampleKey], Trajectory, Sequence[str] | None], Sequence[Mapping[str, Any]]
]
"""Gives JSON facts about each picture of a call: policy in the state that drew them, keys, paths, and the texts if they were swapped."""


@dataclass(frozen=True, slots=True)
class Source:
    """All that fixes the pixels of a model's pictures, but for prompt and index."""

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
    del values["sampler"]["batch"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A picture of the plan."""

    prompt: Prompt  # whose noise it has
    index: int
    text: Prompt | None = (
        None  # the prompt that is asked for instead, on the same noise: the swap test
    )

    def key(self, source: Source) -> ImageKey:
        """Its key in the store."""
        return ImageKey(
            source.digest, self.prompt.id, self.index, self.text.id if self.text else ""
        )


@dataclass(frozen=True, slots=True)
class DrawProgress:
    """One call is done, or what was found has been looked at."""

    done: int  # pictures of this process's share, with those that were found
    total: int
    found: int


def missing(
    store: ImageStore, source: Source, wanted: Sequence[ImageRequest], facts: Collection[str] = ()
) -> list[ImageRequest]:
    """What has to be drawn, in order: pictures that are not stored whole, or about which not all of `facts` are known."""
    known = [(one, store.get(one.key(source))) for one in wanted]
    damaged = store.damaged({picture.sha256 for _, picture in known if picture is not None})
    return [
        one
        for one, found in known
        if found is None or found.sha256 in damaged or not set(facts) <= found.facts.keys()
    ]


def draw(
    policy: Policy,
    store: ImageStore,
    source: Source,
    wanted: Sequence[ImageRequest],
    *,
    reference: bool,
    describe: Describer | None = None,
    facts: Collection[str] = (),
    together: World = ALONE,
) -> Iterator[DrawProgress]:
    """Draws what the store lacks of `wanted`, one call after the other.

    After the last progress all processes have drawn their shares, and the store knows the pictures of all.

    Args:
        policy: the base model, with the checkpoint of `source` if that has one.
        store: where the pictures are kept.
        source: what fixes their pixels.
        wanted: the plan, the same on every process; doubles are drawn once.
        reference: whether the base model is to draw, that is `policy` under `reference()`.
        describe: gives facts about the pictures of a call.
        facts: names of the facts that a picture must have; one without them is drawn again.
        together: the processes of the evaluation.

    Raises:
        ImageError: the model draws something that is no picture, such as NaN.
        StorageFailure: a file cannot be written. What was drawn before is kept.
    """
    mine = [
        one for block in together.shard(_distinct(wanted, source), source.call) for one in block
    ]
    left = missing(store, source, mine, facts)
    found = len(mine) - len(left)
    yield DrawProgress(found, len(mine), found)
    for start in range(0, len(left), source.call):
        part = left[start : start + source.call]
        with policy.reference() if reference else nullcontext():
            _draw_call(policy, store, source, part, describe)
        yield DrawProgress(found + start + len(part), len(mine), found)
    if together.world_size > 1:
        together.barrier()
        store.reload()


@torch.no_grad()
def _draw_call(
    policy: Policy,
    store: ImageStore,
    source: Source,
    part: Sequence[ImageRequest],
    describe: Describer | None,
) -> None:
    """One call, filled up with its last picture, of which only `part` is kept."""
    full = [*part, *[part[-1]] * (source.call - len(part))]
    keys = [SampleKey(one.prompt, one.index) for one in full]
    texts = (
        [(one.text or one.prompt).text for one in full] if any(one.text for one in full) else None
    )
    trajectory = sample_trajectory(
        policy, keys, replace(source.sampler, batch=source.call), source.seed, texts
    )
    pixels = to_uint8(_finite(policy.decode(trajectory.latents[:, -1]), part))
    facts = describe(policy, keys, trajectory, texts) if describe is not None else [{}] * len(full)
    store.add((one.key(source), pixels[place], facts[place]) for place, one in enumerate(part))


def _finite(pixels: torch.Tensor, part: Sequence[ImageRequest]) -> torch.Tensor:
    """The pixels, if they are numbers: `clamp` and rounding would make something of NaN."""
    finite = torch.isfinite(pixels).flatten(1).all(1).tolist()
    for one, whole in zip(part, finite[: len(part)], strict=True):
        if not whole:
            raise ImageError(
                f"the model drew something that is no picture (NaN or infinite) for {one.prompt.text!r}, index {one.index}"
            )
    return pixels


def _distinct(wanted: Sequence[ImageRequest], source: Source) -> list[ImageRequest]:
    """Without doubles. (Prompts with metadata cannot be hashed; keys can.)"""
    found: dict[ImageKey, ImageRequest] = {}
    for one in wanted:
        found.setdefault(one.key(source), one)
    return list(found.values())
