"""Encoders that several rewards share: loaded once per process and device, and run once per image.

A reward whose card names a `backbone` gets its encoder from `shared_encoder`. Rewards that name the same one hold the same object, whose
embeddings of the latest images are remembered by the images' content: the second reward's pass costs a hash.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.rewards.cache import image_digests
from ddpo.rewards.scoring.scorer import processors
from ddpo.types import ImageBatch

__all__ = ["SharedEncoder", "forget_embeddings", "shared_encoder", "side_by_side", "encoder_dtype"]

T = TypeVar("T")
R = TypeVar("R")
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
THREADS: Final = 16  # at most, for the work on images before the encoder
REMEMBERED: Final = 1024  # images, of 768 floats each for CLIP ViT-L/14: 3 MB

_encoders: weakref.WeakValueDictionary[tuple[str, str], SharedEncoder] = weakref.WeakValueDictionary()
_door = threading.Lock()


class SharedEncoder:
    """An encoder and its latest embeddings. One thread runs it at a time.

    Args:
        embed: images → embeddings `[batch, width]`; must not depend on batch mates.
        remembered: of how many images embeddings are kept.
    """

    def __init__(self, embed: Callable[[ImageBatch], Tensor], remembered: int = REMEMBERED) -> None:
        self._embed, self._remembered = embed, remembered
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()
        self._turn = threading.Lock()
        self.passes = 0  # images that went through the encoder so far

    def embed(self, batch: ImageBatch) -> Tensor:
        """Embeddings `[batch, width]` of the bytes of one image or more, on the encoder's device, without gradient."""
        digests = _digests(batch)
        with self._turn, torch.no_grad():
            places = {
                digest: place for place, digest in enumerate(digests) if digest not in self._known
            }
            found = {digest: self._known[digest] for digest in digests if digest in self._known}
            if places:
                made = self._embed(batch.take(list(places.values())))
                self.passes += len(places)
                found |= dict(zip(places, made, strict=True))
            for digest in digests:
                self._known[digest] = found[digest]
                self._known.move_to_end(digest)
            while len(self._known) > self._remembered:
                self._known.popitem(last=False)
            return torch.stack([found[digest] for digest in digests])

    def forget(self) -> None:
        """Drops the remembered embeddings, so that the next pass is a real one."""
        with self._turn:
            self._known.clear()


def _digests(batch: ImageBatch) -> list[bytes]:
    if not batch.from_bytes:
        _ = batch.uint8  # made once, and not in every part again
    parts = [batch[place : place + 1] for place in range(len(batch))]
    return side_by_side(lambda part: image_digests(part, exact=False)[0], parts)


def side_by_side(function: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """`function` of each, in order, by as many threads as there are processors. It should release the interpreter."""
    threads = min(len(things), processors(), THREADS)
    if threads < 2:
        return [function(thing) for thing in things]
    with ThreadPoolExecutor(
        threads, thread_name_prefix="ddpo-images"
    ) as pool:  # not kept: threads do not survive a fork
        return list(pool.map(function, things))


def encoder_dtype(reward: str, name: str) -> torch.dtype:
    """The type in which an encoder computes, of a reward's option `dtype`.

    Raises:
        ConfigError: it is none of those in which encoders run.
    """
    if name not in DTYPES:
        raise ConfigError(f"reward {reward!r}: dtype is {name!r}, not one of {', '.join(DTYPES)}")
    return DTYPES[name]


def forget_embeddings() -> None:
    """Makes every encoder forget."""
    for encoder in list(_encoders.values()):
        encoder.forget()


def shared_encoder(
    name: str, device: str, load: Callable[[], Callable[[ImageBatch], Tensor]]
) -> SharedEncoder:
    """The encoder of that name on that device; loaded if no reward holds it. It goes when the last reward that holds it does.

    Args:
        name: what fixes its weights and preprocessing; the `backbone` of the cards.
        device: torch device.
        load: loads the weights and gives the function images → embeddings `[batch, width]`.

    Raises:
        MissingResourceError: as `load`.
    """
    key = (name, str(torch.device(device)))
    with _door:
        encoder = _encoders.get(key)
        if encoder is None:
            encoder = _encoders[key] = SharedEncoder(load())
        return encoder
