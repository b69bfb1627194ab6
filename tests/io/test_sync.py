"""What was written is there after a power cut, in every state that POSIX allows."""

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from crash_states import PowerCut, SyncLog, state_after_cut

from ddpo.images import save_png
from ddpo.io.atomic import atomic_folder, atomic_path, write_json, write_text
from ddpo.io.journal import Journal
from ddpo.io.tensors import load_tensors, save_tensors

SEEDS = range(12)


def states(log: SyncLog, to: Path) -> list[Path]:
    """States after a cut now, one for each seed."""
    for seed in SEEDS:
        state_after_cut(log, to / str(seed), seed)
    log.close()
    return [to / str(seed) for seed in SEEDS]


def write_image(path: Path) -> None:
    from PIL import Image

    save_png(Image.new("RGB", (8, 8), (10, 200, 30)), path)


def write_tensors(path: Path) -> None:
    save_tensors(path, {"weight": torch.arange(1000.0)})  # one: several have no fixed order


def write_table(path: Path) -> None:
    from ddpo.rewards.image_files.table import write_records

    write_records([{"file": "a.png", "score": 0.5}], ["file", "score"], path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "new/deep/a.txt": lambda path: write_text(path, "text\n" * 1000),
    "a.json": lambda path: write_json(path, {"value": list(range(1000))}),
    "new/a.png": write_image,
    "new/a.safetensors": write_tensors,
    "a.parquet": write_table,
    "a.csv": write_table,
    "new/a.jsonl": write_table,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_writer_returned_from_is_on_the_disk(name: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with SyncLog(root) as log:
        WRITERS[name](root / name)
    written = (root / name).read_bytes()
    for state in states(log, tmp_path):
        assert (state / name).read_bytes() == written


@pytest.mark.parametrize("name", WRITERS)
def test_a_cut_within_a_writer_leaves_the_old_file_or_the_new_one(
    name: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    with SyncLog(tmp_path) as log:
        WRITERS[name](root / name)
    new = (root / name).read_bytes()
    for cut in range(log.calls):
        here = tmp_path / f"cut{cut}"
        here.mkdir()
        root = here / "root"
        root.mkdir()
        with SyncLog(root, cut) as log:
            log.cut_after = None
            write_text(root / name, "old")
            log.calls = 0
            log.cut_after = cut
            with suppress(PowerCut):  # fewer calls than on a new place, at the end
                WRITERS[name](root / name)
        for state in states(log, here):
            assert (state / name).read_bytes() in (b"old", new)


def test_the_model_of_a_cut_finds_a_writer_that_does_not_sync(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with SyncLog(root) as log:
        (root / "temporary").write_text("text" * 1000)
        os.replace(root / "temporary", root / "a.txt")
    kept = [
        (state / "a.txt").read_text() if (state / "a.txt").exists() else None
        for state in states(log, tmp_path)
    ]
    assert None in kept, "the name was lost"
    assert "" in kept, "the name was kept, the bytes were not"
    assert any(text and text != "text" * 1000 for text in kept), "torn"


def test_a_folder_is_there_as_a_whole_after_a_cut(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with SyncLog(root) as log, atomic_folder(root / "checkpoints" / "one") as folder:
        (folder / "unet").mkdir()
        (folder / "unet" / "weights").write_bytes(b"w" * 10_000)
        (folder / "facts").write_text("facts")
    for state in states(log, tmp_path):
        place = state / "checkpoints" / "one"
        assert (place / "unet" / "weights").read_bytes() == b"w" * 10_000
        assert (place / "facts").read_text() == "facts"


@pytest.mark.parametrize("cut", range(24))
def test_a_cut_within_a_folder_never_leaves_a_part_of_it(cut: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    place = root / "checkpoints" / "one"
    with SyncLog(root) as log:
        with atomic_folder(place) as folder:
            (folder / "facts").write_text("old")
        log.calls = 0
        log.cut_after = cut
        with suppress(PowerCut), atomic_folder(place) as folder:
            (folder / "weights").write_bytes(b"w" * 10_000)
            (folder / "facts").write_text("new")
    for state in states(log, tmp_path):
        found = state / "checkpoints" / "one"
        if found.exists():  # between two renames, under the name of an older folder
            text = (found / "facts").read_text()
            assert text in ("old", "new")
            assert (text == "old") != (found / "weights").exists()
        if (found / "weights").exists():
            assert (found / "weights").read_bytes() == b"w" * 10_000
        older = state / "checkpoints" / ".one.older.tmp"
        temporary = state / "checkpoints" / ".one.tmp"
        assert found.exists() or older.exists() or temporary.exists()


def test_records_of_a_closed_journal_are_on_the_disk(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with SyncLog(root) as log, Journal(root / "scores", "scores") as journal:
        for number in range(50):
            journal.append([{"number": number}])
    for state in states(log, tmp_path):
        found = [record["number"] for record in Journal(state / "scores", "scores").records()]
        assert found == list(range(50))


def test_a_cut_before_a_journal_is_closed_loses_records_of_its_end_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with SyncLog(root) as log:
        journal = Journal(root / "scores", "scores")
        for number in range(50):
            journal.append([{"number": number, "text": "x" * 100}])
    for state in states(log, tmp_path):
        found = [record["number"] for record in Journal(state / "scores", "scores").records()]
        assert found == list(range(len(found)))
    journal.close()


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_files_have_the_permissions_of_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        for name, writer in WRITERS.items():
            writer(tmp_path / name)
        with atomic_folder(tmp_path / "folder") as folder:
            save_tensors(folder / "inside" / "weights.safetensors", {"a": torch.zeros(2)})
            (folder / "private").write_text("")
            (folder / "private").chmod(0o600)
    finally:
        os.umask(before)
    names = [*WRITERS, "folder/inside/weights.safetensors", "folder/private"]
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names}
    assert set(modes.values()) == {0o666 & ~umask}, modes


def test_a_failed_block_leaves_the_old_file_and_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text("old")
    with suppress(ZeroDivisionError), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    with suppress(ZeroDivisionError), atomic_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == (tmp_path / "folder" / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]


def test_tensors_are_read_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors")
    tensors, metadata = load_tensors(tmp_path / "a.safetensors")
    assert torch.equal(tensors["weight"], torch.arange(1000.0))
    assert metadata == {}


def test_a_json_file_is_indented_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "ü"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "name": "ü"\n}\n'
    assert json.loads((tmp_path / "a.json").read_text()) == {"name": "ü"}
