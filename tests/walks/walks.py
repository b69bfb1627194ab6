"""The three walks by name, and one of them taken with a fresh environment."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Final

from tests.installed import install
from tests.walks import data_scientist, reward_author, student
from tests.walks.walk import Walk

__all__ = ["WALKS", "take"]

WALKS: Final[dict[str, ModuleType]] = {
    "student": student,
    "reward_author": reward_author,
    "data_scientist": data_scientist,
}


def take(name: str, wheel: Path, folder: Path) -> None:
    """Takes a walk.

    Args:
        name: name of the newcomer.
        wheel: wheel of ddpo.
        folder: folder for the environment, the home folder and the working folder.

    Raises:
        AssertionError: a page promises what does not hold.
    """
    script = WALKS[name]
    environment = install(wheel, folder)
    work = folder / "work"
    work.mkdir()
    script.walk(Walk(environment, work, script.SIZES, script.WORDS))
