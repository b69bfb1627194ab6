"""The folders of the embedded judges, whose files are compared with their manifest."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ddpo.errors import MissingResourceError
from ddpo.rewards.cards.embedded import JUDGES, judge_files
from ddpo.weights import sha256_of

__all__ = ["judge_folder"]


@cache
def judge_folder(judge: str) -> Path:
    """The folder of an embedded judge, once every file has had the hash in the manifest.

    Args:
        judge: Name of a folder of judges, such as "captioner".

    Raises:
        MissingResourceError: The installation lacks a file, or has another one.
    """
    folder = JUDGES / judge
    files = judge_files(judge)
    name = "manifest.json"
    try:
        for name, facts in files.items():
            if sha256_of(folder / name) != facts["sha256"]:
                raise MissingResourceError(
                    f"the embedded judge {judge!r} is damaged in this installation: "
                    f"{name} has another SHA-256; reinstall ddpo"
                )
    except OSError as error:
        raise MissingResourceError(
            f"the embedded judge {judge!r} cannot be read in this installation: "
            f"{folder / name} ({error.strerror}); reinstall ddpo"
        ) from error
    if not files:
        raise MissingResourceError(
            f"the embedded judge {judge!r} is not in this installation: reinstall ddpo"
        )
    return folder
