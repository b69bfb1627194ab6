"""File systems on loop devices, which can lose power.

The device is shut down by ioctl without writing its log: what was not synced is lost, as after a
power cut. It is then mounted anew, which replays the log. Needs root, mkfs of the file system, and
a kernel that mounts it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["Disk", "missing_for", "new_disk"]

SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, _IOR('X', 125, __u32)
WITHOUT_LOG: Final = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
BYTES: Final = {"ext4": 128 << 20, "xfs": 384 << 20}


def missing_for(kind: str) -> str | None:
    """The thing that this machine lacks for a file system, in words; None if nothing."""
    if os.geteuid():
        return "it needs root"
    if not shutil.which(f"mkfs.{kind}"):
        return f"there is no mkfs.{kind}"
    return None


class Disk:
    """A file system in a file, which can lose power.

    Args:
        folder: where the file and the mount point go.
        kind: "ext4" or "xfs".
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.image = folder / "image"
        self.place = folder / "mounted"
        self.mounted = False
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(BYTES[kind])
        subprocess.run([f"mkfs.{kind}", "-q", self.image], check=True)
        self.mount()

    def mount(self) -> None:
        """Mounts it; what its log holds is replayed."""
        subprocess.run(["mount", "-o", "loop", self.image, self.place], check=True)
        self.mounted = True

    def unmount(self) -> None:
        """Unmounts it, if it is mounted."""
        if self.mounted:
            subprocess.run(["umount", self.place], check=True)
            self.mounted = False

    def cut_power(self) -> None:
        """Loses all that was not synced; nothing can be written until it is mounted again."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_LOG))
        finally:
            os.close(descriptor)


@contextmanager
def new_disk(kind: str, place: Path) -> Iterator[Disk]:
    """A disk in a folder of its own below `place`, which is gone at the end."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        disk = Disk(Path(folder), kind)
        try:
            yield disk
        finally:
            disk.unmount()
