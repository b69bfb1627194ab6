"""The folder of `ddpo sample`, stopped at moments that a command rarely hits."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from PIL import Image

from ddpo.policies.sample_folder import check_free, sample_folder

ROWS = [{"file_name": f"{name}.png", "prompt": name} for name in ("a", "b")]
IMAGE = Image.new("RGB", (4, 4))


def stopped(out: Path, *images: Image.Image) -> None:
    """A sampling that Ctrl-C stops after some images."""
    with suppress(KeyboardInterrupt), sample_folder(out, ROWS, {}) as folder:
        if images:
            folder.add(0, images)
        raise KeyboardInterrupt


def test_an_image_without_its_row_does_not_make_the_folder_a_strangers(tmp_path: Path) -> None:
    """A run was killed after its first image; the next one is stopped before its first."""
    out = tmp_path / "out"
    stopped(out, IMAGE)
    (out / "metadata.jsonl").unlink()  # the row was not on the disk
    stopped(out)
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
    stopped(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
