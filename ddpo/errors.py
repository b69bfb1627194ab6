"""The errors of `ddpo`: each has a message of one line and inherits the standard error it replaces.

DdpoError
├── UserError               the caller can correct it: exit code 2, no traceback
│   ├── UnknownNameError    (LookupError) a name that is not registered
│   ├── ConfigError         (ValueError) an invalid setting
│   │   └── NewerApiError   a card made for a newer ddpo
│   ├── PromptError         (ValueError) a prompt list that cannot be read or used
│   ├── ImageError          (ValueError) an image that cannot be read or is not canonical
│   ├── CheckpointError     (ValueError) not a checkpoint, or one of another model
│   ├── RunExistsError      (FileExistsError) the output folder already holds a run
│   ├── MissingResourceError (FileNotFoundError) weights or files that must be fetched first
│   ├── RewardLoadError     (ImportError) a reward or plug-in that cannot be loaded
│   ├── StorageFailure      (OSError) a file of a run that cannot be written
│   └── MemoryExhausted     (MemoryError) a run that needs more memory than there is
├── RewardFailure           (RuntimeError) a reward that failed while scoring
│   ├── ContractBroken      a result other than one float32 score per image
│   └── RewardUnavailable   (ConnectionError) a back end that does not answer now
├── UserCodeFailure         (RuntimeError) an algorithm, model or package that failed in a run
└── TrainingDiverged        (ArithmeticError) a non-finite loss, or a wrong first ratio
"""

import difflib
import errno
import os
from collections.abc import Iterable
from typing import Final

from ddpo.text import shortened_middle, single_line, without_controls, without_secrets

__all__ = [
    "INTERRUPTS",
    "CheckpointError",
    "ConfigError",
    "ContractBroken",
    "DdpoError",
    "ImageError",
    "Interrupt",
    "MemoryExhausted",
    "MissingResourceError",
    "NewerApiError",
    "PromptError",
    "RewardFailure",
    "RewardLoadError",
    "RewardUnavailable",
    "RunExistsError",
    "StorageFailure",
    "TrainingDiverged",
    "UnknownNameError",
    "UntrustedError",
    "UserCodeFailure",
    "UserError",
    "nearest",
    "one_line",
    "refusal",
]


MESSAGE_START: Final = 1500
"""Longest start of a message that is shown, in characters."""
MESSAGE_END: Final = 500
REMEDIES: Final = {
    errno.ENOSPC: ": make room, then repeat the command",
    errno.EDQUOT: ": make room in your quota, then repeat the command",
    errno.EFBIG: ": raise the limit of file sizes (ulimit -f), or choose another disk",
    errno.EMFILE: ": raise the limit of open files (ulimit -n)",
    errno.ENFILE: ": too many files are open on this machine",
    errno.ENOMEM: ": out of memory",
    errno.EAGAIN: ": the limit of processes may be too low (ulimit -u)",
}
"""Error number → what the user can do."""


class Interrupt(BaseException):
    """Base of exceptions by which a caller stops work; no handler of failures may swallow them."""


INTERRUPTS: Final = (KeyboardInterrupt, GeneratorExit, Interrupt)
"""Exceptions that stop work from outside, whereas code of an author may raise any other."""


class DdpoError(Exception):
    """Base of all errors that this package raises on purpose."""

    def __str__(self) -> str:
        """The message on one line without control characters, which names in files may have."""
        return without_controls(" ".join(super().__str__().splitlines()))


class UserError(DdpoError):
    """An error the caller can correct: the command line prints one line and exits with 2."""


class UnknownNameError(UserError, LookupError):
    """A name that no registry, list or table knows."""


class ConfigError(UserError, ValueError):
    """A setting that is unknown, of the wrong type, or out of range."""


class NewerApiError(ConfigError):
    """A reward card made for a newer ddpo than this one."""


class PromptError(UserError, ValueError):
    """A prompt list that is missing, empty, not UTF-8, or unsuitable for its role."""


class ImageError(UserError, ValueError):
    """An image that cannot be decoded, or pixels that are not in the canonical form."""


class CheckpointError(UserError, ValueError):
    """A folder that is not a checkpoint, is damaged, or belongs to another model."""


class RunExistsError(UserError, FileExistsError):
    """The output folder already holds something that would be overwritten."""


class MissingResourceError(UserError, FileNotFoundError):
    """A missing file, such as weights or a font; the message says how to get it."""


class RewardLoadError(UserError, ImportError):
    """A reward or plug-in that cannot be imported, constructed or recognised as one."""


class StorageFailure(UserError, OSError):
    """A file of a run that cannot be written; files written before stay intact."""


class MemoryExhausted(UserError, MemoryError):
    """A run that needs more memory than there is; the current iteration is lost."""


class UntrustedError(UserError):
    """Code or a server that a file names and the user did not; nothing of it was run or called."""


class RewardFailure(DdpoError, RuntimeError):
    """A reward that raised, or returned anything other than one score per image."""


class ContractBroken(RewardFailure):
    """A reward that returned anything other than one float32 score per image.

    The fault lies with the reward, whatever the images.
    """


class RewardUnavailable(RewardFailure, ConnectionError):
    """A reward's back end that does not answer now; a reward raises this to request a retry.

    Attributes:
        retry_after_s: Seconds to wait before the next attempt; None if the back end names no time.
    """

    retry_after_s: float | None = None


class UserCodeFailure(DdpoError, RuntimeError):
    """An algorithm, model or package that raised, or returned what its contract forbids."""


class TrainingDiverged(DdpoError, ArithmeticError):
    """A non-finite loss or gradient, or an importance ratio that should be 1 and is not."""


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, preceded by its class unless it is a `DdpoError`.

    Control characters are escaped, so that it may be printed to a terminal. Secrets are left out,
    and the middle of a message of more than 2,000 characters.
    """
    text = without_secrets(_message(error))
    text = without_controls(shortened_middle(text, MESSAGE_START, MESSAGE_END))
    if isinstance(error, DdpoError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _message(error: BaseException) -> str:
    """The message of an exception, whose own method may fail."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001  # an author's method may raise anything
        return f"(its __str__ raised {type(failure).__name__})"


def refusal(error: OSError | MemoryError | ImportError) -> str | None:
    """The refusal of the machine on one line; None for an error that is none of the system.

    The line names the file or the library, the system's reason, and the remedy if there is one.
    """
    if isinstance(error, MemoryError):
        return (
            f"out of memory ({one_line(error)}): use fewer or smaller images, or a larger machine"
        )
    if isinstance(error, ImportError):
        library = (error.name or "").partition(".")[0]
        remedy = f": reinstall {library}" if library else ""
        return f"a library cannot be imported ({one_line(error)}){remedy}"
    if error.errno is None:
        return None
    reason = error.strerror or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_path(name)]
    place = f"{names[0]}: " if names else ""
    return without_controls(single_line(f"{place}{reason}{REMEDIES.get(error.errno, '')}"))


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to `name`; None if none is similar."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
