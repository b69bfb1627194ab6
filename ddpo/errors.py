"""The errors of `ddpo`. Each also inherits the standard error that it replaces, and has a message of one line.

DdpoError
├── UserError                      the caller can mend it: exit code 2, no traceback
│   ├── UnknownNameError           (LookupError) a name that is not registered; names the nearest
│   ├── ConfigError                (ValueError) a setting that cannot be
│   │   └── NewerApiError          a card that was made for a newer ddpo
│   ├── PromptError                (ValueError) a prompt list that cannot be read or is not fit
│   ├── ImageError                 (ValueError) a picture that cannot be read or is not in the canonical form
│   ├── CheckpointError            (ValueError) a folder that is not a checkpoint, or not of this model
│   ├── RunExistsError             (FileExistsError) the output folder already holds a run
│   ├── MissingResourceError       (FileNotFoundError) weights, a font or a file that has to be fetched first
│   ├── RewardLoadError            (ImportError) a reward or plug-in that cannot be loaded
│   ├── StorageFailure             (OSError) a file of a run that cannot be written: a full disk, for one
│   └── MemoryExhausted            (MemoryError) a run that needs more memory than there is
├── RewardFailure                  (RuntimeError) a reward that broke its contract or its back end while scoring
│   ├── ContractBroken             an answer that is not one float32 score per picture, whatever the pictures
│   └── RewardUnavailable          (ConnectionError) a back end that does not answer, or not now: worth another try
└── TrainingDiverged               (ArithmeticError) a loss or gradient that is not finite, or a ratio that is not 1 when it must be
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ContractBroken",
    "DdpoError",
    "ImageError",
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
    "UserError",
    "nearest",
    "one_line",
]


class DdpoError(Exception):
    """Base of all errors that this package raises on purpose."""


class UserError(DdpoError):
    """Something that the caller can mend; the command line prints it as one line and exits with 2."""


class UnknownNameError(UserError, LookupError):
    """A name that no registry, list or table knows."""


class ConfigError(UserError, ValueError):
    """A setting that is unknown, of the wrong type, or out of range."""


class NewerApiError(ConfigError):
    """A reward's card that was made for a newer ddpo than this one."""


class PromptError(UserError, ValueError):
    """A prompt list that is missing, empty, not UTF-8, or not fit for its role."""


class ImageError(UserError, ValueError):
    """A picture that cannot be decoded, or pixels that are not in the canonical form."""


class CheckpointError(UserError, ValueError):
    """A folder that is not a checkpoint, is damaged, or belongs to another model."""


class RunExistsError(UserError, FileExistsError):
    """The output folder already holds something that would be overwritten."""


class MissingResourceError(UserError, FileNotFoundError):
    """Weights, a font or another file that is not here; the message says how to get it."""


class RewardLoadError(UserError, ImportError):
    """A reward or plug-in that cannot be imported, constructed or recognised as one."""


class StorageFailure(UserError, OSError):
    """A file of a run that cannot be written; what was whole before is whole still."""


class MemoryExhausted(UserError, MemoryError):
    """A run that needs more memory than there is; nothing of the iteration under way is kept."""


class RewardFailure(DdpoError, RuntimeError):
    """A reward that raised, or returned something else than one score per image."""


class ContractBroken(RewardFailure):
    """A reward that answered with something else than one float32 score per picture: its own fault, whatever the pictures."""


class RewardUnavailable(RewardFailure, ConnectionError):
    """A reward's back end that does not answer, or not now; a reward raises it to ask for another try.

    Attributes:
        retry_after_s: for how long the back end asks to be left alone; None: it does not say.
    """

    retry_after_s: float | None = None


class TrainingDiverged(DdpoError, ArithmeticError):
    """A loss or gradient that is not finite, or an importance ratio that is not 1 before the first update."""


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; with its class unless it is one of ours, whose messages stand for themselves."""
    text = " ".join(str(error).split())
    if isinstance(error, DdpoError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to `name`; None if none is similar."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
