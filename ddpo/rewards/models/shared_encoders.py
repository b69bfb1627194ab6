"""Encoders that several rewards share: loaded once per process and device, and run once per image.

A reward whose card names a `backbone` gets its encoder from `shared_encoder`. Rewards that name the
same one hold the same object, which remembers the embeddings of the latest images by their content:
the pass of the second reward costs a hash.
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

from ddpo.devices import processors
from ddpo.errors import ConfigError
from ddpo.rewards.cache import image_digests
from ddpo.types import ImageBatch

__all__ = ["SharedEncoder", "encoder_dtype", "forget_embeddings", "shared_encoder", "side_by_side"]

T = TypeVar("T")
R = TypeVar("R")
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
THREADS: Final = 16  # greatest number of preprocessing threads
REMEMBERED: Final = 1024  # images, of 768 floats each for CLIP ViT-L/14: 3 MB

_encoders: weakref.WeakValueDictionary[tuple[str, str], SharedEncoder] = (
    weakref.WeakValueDictionary()
)
_door = threading.Lock()


class SharedEncoder:
    """An encoder and its latest embeddings. One thread runs it at a time.

    Args:
        embed: function from images to embeddings `[batch, width]`, each independent of the others.
        remembered: number of images whose embeddings are kept.
    """

    def __init__(self, embed: Callable[[ImageBatch], Tensor], remembered: int = REMEMBERED) -> None:
        self._embed = embed
        self._remembered = remembered
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()
        self._turn = threading.Lock()
        self.passes = 0  # number of images encoded so far

    def embed(self, batch: ImageBatch) -> Tensor:
        """Embeddings `[batch, width]` of at least one image, on the encoder's device.

        Images are rounded to bytes; there is no gradient.
        """
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
    """`function` of each thing, in order, in one thread per processor.

    The function should release the interpreter's lock.
    """
    threads = min(len(things), processors(), THREADS)
    if threads < 2:
        return [function(thing) for thing in things]
    # a new pool each time: threads do not survive a fork
    with ThreadPoolExecutor(threads, thread_name_prefix="ddpo-images") as pool:
        return list(pool.map(function, things))


def encoder_dtype(reward: str, name: str) -> torch.dtype:
    """The precision that a reward's option `dtype` names.

    Raises:
        ConfigError: The encoders do not run in it.
    """
    if name not in DTYPES:
        raise ConfigError(f"reward {reward!r}: dtype is {name!r}, not one of {', '.join(DTYPES)}")
    return DTYPES[name]


def forget_embeddings() -> None:
    """Drops the remembered embeddings of every encoder."""
    for encoder in list(_encoders.values()):
        encoder.forget()


def shared_encoder(
    name: str, device: str, load: Callable[[], Callable[[ImageBatch], Tensor]]
) -> SharedEncoder:
    """The encoder of that name on that device, loaded unless a reward holds it.

    It is freed with the last reward that holds it.

    Args:
        name: name that fixes weights and preprocessing, the `backbone` of the cards.
        device: torch device.
        load: loader of the weights; returns the function from images to embeddings
            `[batch, width]`.

    Raises:
        MissingResourceError: As `load`.
    """
    key = (name, str(torch.device(device)))
    with _door:
        encoder = _encoders.get(key)
        if encoder is None:
            encoder = _encoders[key] = SharedEncoder(load())
        return encoder
