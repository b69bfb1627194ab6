"""States in which a power cut may leave a folder, by the rules of POSIX and not of one file system.

What a cut keeps for certain is what was synced: the bytes of a file at its last `fsync`, and the
names in a folder at the folder's last `fsync`. Bytes that came later may be there, or not, or in
part. Names that came later are those after any of the later calls: a folder keeps their order, so
that a rename is never half done, but two folders, or a name and its file's bytes, keep none.
`SyncLog` records the syncs of this process; `state_after_cut` makes one of the possible states.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

Inode = tuple[int, int]


class PowerCut(BaseException):
    """The machine lost power: nothing after this call runs."""


class SyncLog:
    """Records, while it is entered, what this process syncs below a folder.

    Args:
        root: the folder. What is in it when the log is entered counts as synced.
        cut_after: number of calls that change or sync something, after which `PowerCut` is raised;
            None for a run without a cut.
        before_call: called before each of them, with its number.
    """

    def __init__(
        self,
        root: Path,
        cut_after: int | None = None,
        before_call: Callable[[int], None] | None = None,
    ) -> None:
        self.root = root
        self.cut_after = cut_after
        self.before_call = before_call
        self._inside = False
        self.calls = 0
        self.syncs = 0
        self.bytes_of: dict[Inode, bytes] = {}
        self.names_of: dict[Inode, list[dict[str, Inode]]] = {}  # since the last sync
        self._held: list[int] = []  # descriptors, so that no inode number is used again
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        for place in (self.root, *self.root.rglob("*")):
            inode = _inode(place.stat())
            if place.is_dir():
                self.names_of[inode] = [_names(place)]
            else:
                self._hold(os.open(place, os.O_RDONLY))
                self.bytes_of[inode] = place.read_bytes()
        for name in ("fsync", "fdatasync"):
            self._patch.setattr(os, name, self._recorded_sync(getattr(os, name)))
        for name in ("replace", "rename", "mkdir", "unlink", "rmdir"):
            self._patch.setattr(os, name, self._counted(getattr(os, name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patch.undo()

    def close(self) -> None:
        """Lets go of the files, once the states are made."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def _recorded_sync(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            if self._inside:
                call(descriptor)
                return
            self._count()
            call(descriptor)
            place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if place.is_relative_to(self.root):
                self.syncs += 1
                self._hold(os.dup(descriptor))
                inode = _inode(os.fstat(descriptor))
                if place.is_dir():
                    self.names_of[inode] = [_names(place)]
                else:
                    self.bytes_of[inode] = _content(descriptor)

        return sync

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **named: Any) -> Any:
            if self._inside:
                return call(*args, **named)
            self._count()
            done = call(*args, **named)
            paths = [Path(os.path.abspath(one)) for one in args if isinstance(one, (str, Path))]
            for folder in dict.fromkeys(path.parent for path in paths):
                if folder.is_relative_to(self.root) and folder.is_dir():
                    self.names_of.setdefault(_inode(folder.stat()), [{}]).append(_names(folder))
            return done

        return counted

    def _hold(self, descriptor: int) -> None:
        self._held.append(descriptor)

    def _count(self) -> None:
        if self.cut_after is not None and self.calls >= self.cut_after:
            raise PowerCut
        if self.before_call is not None:
            self._inside = True
            try:
                self.before_call(self.calls)
            finally:
                self._inside = False
        self.calls += 1


def state_after_cut(log: SyncLog, to: Path, seed: int) -> None:
    """Writes one state that a power cut may leave now, as the folder `to`.

    Args:
        log: what was synced below its folder until now.
        to: a folder that is not there yet.
        seed: of what is kept among the names and bytes that were not synced.
    """
    chance = random.Random(seed)
    places: dict[Inode, Path] = {_inode(log.root.stat()): log.root}
    places |= {_inode(each.lstat()): each for each in sorted(log.root.rglob("*"))}
    to.mkdir()
    _restore(log, log.root, _inode(log.root.stat()), places, to, chance)


def _restore(
    log: SyncLog,
    folder: Path | None,
    inode: Inode,
    places: dict[Inode, Path],
    to: Path,
    chance: random.Random,
) -> None:
    options = list(log.names_of.get(inode, [{}]))
    if folder is not None and folder.is_dir() and _names(folder) != options[-1]:
        options.append(_names(folder))
    for name, chosen in sorted(chance.choice(options).items()):
        place = places.get(chosen)
        target = to / name
        if (place is not None and place.is_dir()) or chosen in log.names_of:
            target.mkdir()
            _restore(log, place, chosen, places, target, chance)
        else:
            target.write_bytes(_bytes_after_cut(log, chosen, place, chance))


def _bytes_after_cut(
    log: SyncLog, inode: Inode, place: Path | None, chance: random.Random
) -> bytes:
    """The synced bytes, the current ones, or a file in between: empty, cut short, with zeros."""
    synced = log.bytes_of.get(inode)
    current = place.read_bytes() if place is not None else synced or b""
    if synced == current:
        return current
    kept = len(synced) if synced is not None and current.startswith(synced) else 0
    end = chance.randint(kept, len(current))
    torn = current[:end]
    zeros = torn + bytes(len(current) - end)
    options = [current, torn, zeros]
    options.append(synced if synced is not None else b"")
    return chance.choice(options)


def _content(descriptor: int) -> bytes:
    with open(f"/proc/self/fd/{descriptor}", "rb") as file:
        return file.read()


def _names(folder: Path) -> dict[str, Inode]:
    return {each.name: _inode(each.lstat()) for each in folder.iterdir()}


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino
