"""The size of a model's images in pixels: the model's own, or the one that a user gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.policies.model_place import EMBEDDED
from ddpo.ranges import Range, value_text

__all__ = [
    "OWN_SIZE",
    "Size",
    "check_multiple",
    "checked_size",
    "latent_side",
    "set_size",
]

Size = tuple[int, ...]
"""Height and width in pixels; empty for the model's own size."""
OWN_SIZE: Final[Size] = ()
SIDE: Final = Range(low=1, high=16_384, whole=True)
TEXT: Final = re.compile(r"(\d{1,6})(?:x(\d{1,6}))?", re.ASCII)


def checked_size(value: Any, name: str) -> Size:
    """A size from a number, a text such as "512x768", a list of height and width, or an empty one.

    Args:
        value: Value of a user.
        name: Name of the setting, for messages.

    Raises:
        ConfigError: The value is none of these, or a side is out of range.
    """
    if isinstance(value, str):
        return _parsed(value, name)
    sides = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(sides) not in (0, 2):
        raise ConfigError(
            f"{name} must be one number or [height, width], in pixels, got {value_text(value)}"
        )
    return tuple(int(SIDE.checked(name, side)) for side in sides)


def _parsed(text: str, name: str) -> Size:
    """A size from a text such as "512" or "512x768", height first.

    Raises:
        ConfigError: The text is no size.
    """
    found = TEXT.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"{name} must be a number or HEIGHTxWIDTH, such as 512 or 512x768, "
            f"got {value_text(text)}"
        )
    height, width = found.groups()
    return checked_size([int(height), int(width or height)], name)


def set_size(policy: Any, size: Size) -> None:
    """Gives the images of a freshly loaded policy a size, through its method of the same name.

    Args:
        policy: A policy.
        size: Height and width; empty for the model's own, which changes nothing.

    Raises:
        ConfigError: The model has images of one size, or none of this size.
    """
    if not size:
        return
    own = getattr(policy, "image_size", None)
    if own == size:
        return
    method = getattr(policy, "set_size", None)
    if policy.model in EMBEDDED or own is None or method is None:
        only = f", {_text(own)} pixels" if own else ""
        raise ConfigError(
            f"the images of the model {policy.model!r} have one size{only}: leave out the size "
            f"{_text(size)}"
        )
    method(*size)


def latent_side(vae: Mapping[str, Any]) -> int:
    """Pixels along a side of one latent of an autoencoder, by its config."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def check_multiple(model: str, size: Size, multiple: int) -> None:
    """Raises unless both sides are multiples of a number of pixels.

    Raises:
        ConfigError: A side is none; names the nearest size.
    """
    if all(side % multiple == 0 for side in size):
        return
    near = tuple(max(multiple, round(side / multiple) * multiple) for side in size)
    raise ConfigError(
        f"the model {model!r} has no images of {_text(size)} pixels: both sides must be multiples "
        f"of {multiple}, such as {_text(near)}"
    )


def _text(size: Size) -> str:
    return "×".join(map(str, size))
