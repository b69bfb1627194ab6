"""The folder of `ddpo sample`, stopped at moments that a command rarely hits."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ddpo.policies.sample_folder import check_free, sample_folder

ROWS = [{"file_name": f"{name}.png", "prompt": name} for name in ("a", "b")]
IMAGE = Image.new("RGB", (4, 4))


def test_an_image_without_its_row_does_not_make_the_folder_a_strangers(tmp_path: Path) -> None:
    """A run was killed after its first image; the next one is stopped before its first."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), sample_folder(out, ROWS, {}) as folder:
        folder.add(0, [IMAGE])
        raise KeyboardInterrupt
    (out / "metadata.jsonl").unlink()  # the row was not on the disk
    with pytest.raises(KeyboardInterrupt), sample_folder(out, ROWS, {}):
        raise KeyboardInterrupt
    check_free(out)
    with sample_folder(out, ROWS, {}) as folder:
        assert folder.keep_finished(1) == 0
        folder.add(0, [IMAGE, IMAGE])
        folder.finish(2)
    assert sorted(path.name for path in out.iterdir()) == [
        "a.png",
        "b.png",
        "metadata.jsonl",
        "sheet.png",
    ]


def test_a_sampling_without_an_image_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), sample_folder(tmp_path / "out", ROWS, {}):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
