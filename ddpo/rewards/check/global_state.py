"""Global state that a reward must not change: random generators and settings of libraries."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from PIL import Image, ImageFile

__all__ = ["RandomStates", "preserved", "random_states", "restore_random_states", "settings"]

RandomStates = dict[str, Any]
"""Generator → its state in a form that can be compared."""

_SETTINGS: Final[dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]] = {
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, torch.set_default_device),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic algorithms": (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    "torch's matmul precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch.backends.cudnn.benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda value: setattr(torch.backends.cudnn, "benchmark", value),
    ),
    "torch.backends.cudnn.deterministic": (
        lambda: torch.backends.cudnn.deterministic,
        lambda value: setattr(torch.backends.cudnn, "deterministic", value),
    ),
    "NumPy's floating-point error handling": (
        lambda: tuple(sorted(np.geterr().items())),
        lambda value: np.seterr(**dict(value)),
    ),
    "PIL.Image.MAX_IMAGE_PIXELS": (
        lambda: Image.MAX_IMAGE_PIXELS,
        lambda value: setattr(Image, "MAX_IMAGE_PIXELS", value),
    ),
    "PIL.ImageFile.LOAD_TRUNCATED_IMAGES": (
        lambda: ImageFile.LOAD_TRUNCATED_IMAGES,
        lambda value: setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", value),
    ),
    "Python's thread switch interval": (sys.getswitchinterval, sys.setswitchinterval),
}


def settings() -> dict[str, Any]:
    """Name of a global setting → its present value."""
    return {name: read() for name, (read, _) in _SETTINGS.items()}


def random_states() -> RandomStates:
    """The states of the global generators of Python, NumPy and torch (CPU)."""
    legacy: Any = np.random.get_state()  # noqa: NPY002  # the global generator is the old one
    kind, keys, position, has_gauss, gauss = legacy
    return {
        "random": random.getstate(),
        "numpy.random": (kind, keys.tobytes(), position, has_gauss, gauss),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


def restore_random_states(states: RandomStates) -> None:
    """Restores the global generators to the states of `random_states`."""
    random.setstate(states["random"])
    kind, keys, *rest = states["numpy.random"]
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(torch.frombuffer(bytearray(states["torch"]), dtype=torch.uint8))


@contextmanager
def preserved() -> Iterator[None]:
    """Restores global settings and generators at the end."""
    found = settings()
    states = random_states()
    try:
        yield
    finally:
        for name, (read, write) in _SETTINGS.items():
            if read() != found[name]:
                write(found[name])
        restore_random_states(states)
