"""The store: what a kill, a full disk or a damaged file leaves behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpo.errors import ImageError, StorageFailure
from ddpo.eval.generate.image_store import ImageKey, ImageStore, image_path
from ddpo.images import pixels_sha256
from ddpo.io.journal import Journal

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
KEYS = [
    ImageKey("source", f"prompt{number}", number, "other" if number == 3 else "")
    for number in range(4)
]


def filled(out: Path) -> ImageStore:
    store = ImageStore(out)
    for place in (0, 2):
        store.add(
            (KEYS[i], PIXELS[i], {"kl": 1.5 * i, "features": "aa=="}) for i in (place, place + 1)
        )
    return store


def test_images_lie_under_the_hash_of_their_pixels_once(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        store.add([(ImageKey("another model", "prompt0", 0), PIXELS[0], {})])
    stored = sorted(tmp_path.rglob("*.png"))
    assert len(stored) == 4
    for path in stored:
        assert hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest() == path.stem
        assert path == tmp_path / image_path(path.stem)
    with ImageStore(tmp_path) as again:
        for place, key in enumerate(KEYS):
            found = again.get(key)
            assert found is not None
            assert dict(found.facts) == {"kl": 1.5 * place, "features": "aa=="}
            assert np.array_equal(again.pixels(found.sha256), PIXELS[place])
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_journal_that_is_cut_anywhere_keeps_its_whole_lines_and_grows(tmp_path: Path) -> None:
    filled(tmp_path).close()
    file = tmp_path / "images" / "journal-0.jsonl"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    for length in range(len(whole) + 1):
        file.write_bytes(whole[:length])
        survivors = sum(len(b"".join(lines[: n + 1])) <= length for n in range(4))
        with ImageStore(tmp_path) as store:
            assert sum(store.get(key) is not None for key in KEYS) == survivors
            if length % 97 == 0:
                store.add([(KEYS[3], PIXELS[3], {})])
                for line in file.read_bytes().splitlines():
                    json.loads(line)  # nothing torn is left
    file.write_bytes(b'\xff\n[1]\n{"image": 3}\n' + whole)
    with ImageStore(tmp_path) as store:
        assert all(store.get(key) is not None for key in KEYS)


def test_the_journals_of_all_processes_are_read(tmp_path: Path) -> None:
    first = ImageStore(tmp_path, 0)
    second = ImageStore(tmp_path, 1)
    first.add([(KEYS[0], PIXELS[0], {"kl": 1.0})])
    second.add([(KEYS[1], PIXELS[1], {})])
    assert first.get(KEYS[1]) is None
    first.reload()
    assert first.get(KEYS[1]) is not None
    second.add([(KEYS[0], PIXELS[0], {"fit": 2.0})])  # facts of one image add up
    first.reload()
    found = first.get(KEYS[0])
    assert found is not None
    assert dict(found.facts) == {"kl": 1.0, "fit": 2.0}


@pytest.mark.parametrize("damage", ["gone", "cut", "another image", "one bit"])
def test_a_damaged_image_is_noticed_and_mended(tmp_path: Path, damage: str) -> None:
    filled(tmp_path).close()
    sha256 = pixels_sha256(PIXELS[1])
    path = tmp_path / image_path(sha256)
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "another image":
        path.write_bytes((tmp_path / image_path(pixels_sha256(PIXELS[2]))).read_bytes())
    else:
        content[60] ^= 4
        path.write_bytes(bytes(content if damage == "one bit" else content[:60]))
    with ImageStore(tmp_path) as store:
        assert store.damaged([pixels_sha256(PIXELS[0]), sha256]) == {sha256}
        with pytest.raises(ImageError, match=sha256):
            store.pixels(sha256)
        store.add([(KEYS[1], PIXELS[1], {})])
        assert store.damaged([sha256]) == set()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path) as store:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        real = os.write
        room = [40]

        def short(file: int, data: bytes) -> int:
            """As Linux on a disk that is almost full: part of one write, none of the next."""
            if room:
                return real(file, data[: room.pop()])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def full(path: Path, data: bytes) -> int:
            with path.open("wb") as file:
                file.write(data[:7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        for target, name, broken in ((Path, "write_bytes", full), (os, "write", short)):
            with monkeypatch.context() as patch:
                patch.setattr(target, name, broken)
                with pytest.raises(
                    StorageFailure, match="cannot be written: No space left on device"
                ):
                    store.add([(ImageKey("s", "new", 0), PIXELS[0, ::-1].copy(), {})])
            after = {
                path: path.read_bytes()
                for path in tmp_path.rglob("*")
                if path.is_file() and path.suffix != ".png"
            }
            assert after == {
                path: content for path, content in before.items() if path.suffix != ".png"
            }
        assert not list(tmp_path.rglob("*.tmp"))
        store.add([(ImageKey("s", "new", 0), PIXELS[0, ::-1].copy(), {})])  # there is room again
    assert ImageStore(tmp_path).get(ImageKey("s", "new", 0)) is not None


def test_reading_makes_nothing_and_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path,
) -> None:
    ImageStore(tmp_path / "out").close()
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailure, match="cannot be written: Not a directory"):
        ImageStore(tmp_path / "file").add([(KEYS[0], PIXELS[0], {})])
    with pytest.raises(StorageFailure, match="cannot be written: File exists"):
        Journal(tmp_path / "file", "scores").append([{}])


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path: Path) -> None:
    filled(tmp_path).close()
    left = tmp_path / "images" / ".0-99999.tmp"
    left.write_bytes(b"half")
    with ImageStore(tmp_path) as store:
        store.add([(ImageKey("s", "new", 0), PIXELS[0, ::-1].copy(), {})])
    assert not left.exists()
