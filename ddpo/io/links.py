"""Links in folders that other people made: none may lead out, where they would be followed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ddpo.errors import CheckpointError

__all__ = ["check_links"]


def check_links(folder: Path, depth: int = 2, allowed: Iterable[Path] = ()) -> None:
    """Checks that nothing in a folder leads out of it, or is a device or a pipe.

    Args:
        folder: The folder, which may itself be a link.
        depth: Number of levels below the folder that are searched.
        allowed: Further folders to which a link may lead.

    Raises:
        CheckpointError: Something does; it could be any file of this machine.
    """
    places = [folder.resolve(), *allowed]
    level = [folder]
    for _ in range(depth):
        entries = [path for place in level if place.is_dir() for path in place.iterdir()]
        for path in sorted(entries):
            target = path.resolve()
            if not any(target.is_relative_to(place) for place in places):
                raise CheckpointError(
                    f"{path} is a link out of its folder, to {target}: "
                    "if it is yours, put that in its place"
                )
            if target.exists() and not (target.is_file() or target.is_dir()):
                raise CheckpointError(f"{path} is a device or a pipe, not a file")
        level = [path for path in entries if not path.is_symlink()]
