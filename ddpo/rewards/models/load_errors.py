"""Errors of the libraries that read weight files, as one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Final

from safetensors import SafetensorError

from ddpo.errors import MissingResourceError, one_line

__all__ = ["LOAD_ERRORS", "first_sentence", "load_errors_as", "short_cause"]

LOAD_ERRORS: Final = (
    SafetensorError,
    RuntimeError,
    UnpicklingError,
    LookupError,
    TypeError,
    ValueError,
    AssertionError,
    AttributeError,
    EOFError,
    OSError,
    StopIteration,
)
"""All exceptions of torch, safetensors, timm and OpenCLIP for a file that is not the model's."""
LONGEST: Final = 200  # characters of a library's message


def first_sentence(error: BaseException) -> str:
    """The first sentence of an error's message, on one line."""
    return one_line(error).split(". ")[0]


def short_cause(error: BaseException) -> str:
    """The start of that sentence; libraries may list all tensors of a file in it."""
    return first_sentence(error)[:LONGEST]


@contextmanager
def load_errors_as(what: str) -> Iterator[None]:
    """A block that reads a weight file, whose errors name the file.

    Args:
        what: The file and what it is not, as the start of the message.

    Raises:
        MissingResourceError: The block raised one of `LOAD_ERRORS`.
    """
    try:
        yield
    except MissingResourceError:
        raise
    except LOAD_ERRORS as error:
        cause = f"{type(error).__name__}: {short_cause(error)}"
        raise MissingResourceError(f"{what} ({cause})") from error
