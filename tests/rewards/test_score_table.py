"""Tables of scores in three formats, and the journal that lets a stopped scoring resume."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ddpo.errors import ConfigError
from ddpo.inputs.input_image import InputImage
from ddpo.io import tables as table_module
from ddpo.rewards.image_files import ScoreRow, TableJournal, check_table_path, write_table
from ddpo.types import Prompt

ROWS = [
    ScoreRow("a.png", "ä, “b”", "one", "scored", 1.5, None, {"part": 0.25}),
    ScoreRow("a.png", "ä, “b”", "two", "unscorable", None, "why, not"),
]
SIGNATURES = {"one": "the|first", "two": "the|second"}


def test_tables_of_every_format_hold_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "ROWS_AT_ONCE", 1)
    for suffix in ("parquet", "csv", "jsonl"):
        write_table(lambda: iter(ROWS), tmp_path / "new" / f"t.{suffix}", SIGNATURES)
    names = ["file", "prompt", "reward", "status", "score", "error", "part_part", "signature"]
    values = [("a.png", "ä, “b”", "one", "scored", 1.5, None, 0.25, "the|first")]
    values.append(("a.png", "ä, “b”", "two", "unscorable", None, "why, not", None, "the|second"))
    expected = [dict(zip(names, line, strict=True)) for line in values]
    folder = tmp_path / "new"
    assert pq.read_table(folder / "t.parquet").to_pylist() == expected
    assert [
        json.loads(line) for line in (folder / "t.jsonl").read_text(encoding="utf-8").splitlines()
    ] == expected
    with (folder / "t.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {k: "" if v is None else str(v) for k, v in record.items()} for record in expected
        ]
    assert sorted(path.name for path in folder.iterdir()) == ["t.csv", "t.jsonl", "t.parquet"]


def test_a_table_of_nothing_has_its_columns(tmp_path: Path) -> None:
    write_table(lambda: iter(()), tmp_path / "t.parquet", {})
    assert pq.read_table(tmp_path / "t.parquet").column_names == [
        "file",
        "prompt",
        "reward",
        "status",
        "score",
        "error",
        "signature",
    ]


def test_a_failed_write_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(lambda: iter(ROWS), path, SIGNATURES)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write_table(lambda: iter(ROWS), path, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_bad_table_paths_are_refused_before_scoring(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    for path, message in [
        (tmp_path / "t.parqet", "did you mean '.parquet'"),
        (tmp_path / "t.xlsx", "known: .parquet, .csv, .jsonl"),
        (tmp_path / "file" / "t.csv", "cannot be written"),
        (tmp_path / "folder.csv", "is a folder"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check_table_path(path)


def images(folder: Path, count: int = 4) -> list[InputImage]:
    for i in range(count):
        (folder / f"{i}.png").write_bytes(bytes([i]) * (i + 1))
    return [InputImage(str(folder / f"{i}.png"), Prompt(f"p{i}")) for i in range(count)]


def rows_of(image: InputImage, status: str = "scored") -> tuple[ScoreRow, ...]:
    text = image.prompt.text if image.prompt else None
    return (
        ScoreRow(
            image.file,
            text,
            "one",
            status,
            1.0 if status == "scored" else None,
            None if status == "scored" else "x",
            {},
        ),
    )  # type: ignore[arg-type]


def written(path: Path, found: list[InputImage], signatures: list[str] | None = None) -> None:
    with TableJournal(path, signatures or ["s"]) as journal:
        for image in found:
            journal.append(rows_of(image))


def left(
    path: Path, found: list[InputImage], signatures: list[str] | None = None
) -> tuple[int, list[str]]:
    """How many are done, and the names of those that are left."""
    with TableJournal(path, signatures or ["s"]) as journal:
        done, rest = journal.resume(found)
        count = sum(1 for _ in done)
        names = []
        for image in rest:
            names.append(Path(image.file).name)
            journal.append(rows_of(image))
    with TableJournal(path, signatures or ["s"]) as journal:
        assert [row.file for row in journal.rows()] == [image.file for image in found]
    return count, names


def test_the_journal_resumes_where_it_stopped(tmp_path: Path) -> None:
    found = images(tmp_path)
    written(tmp_path / "j", found[:2])
    assert left(tmp_path / "j", found) == (2, ["2.png", "3.png"])
    assert left(tmp_path / "j", found) == (4, [])


@pytest.mark.parametrize(
    "change", ["content", "prompt", "signature", "order", "cut", "garbage", "fewer"]
)
def test_what_changed_is_scored_again(tmp_path: Path, change: str) -> None:
    found = images(tmp_path)
    path = tmp_path / "j"
    written(path, found[:3])
    signatures = ["s"]
    expected = (1, ["1.png", "2.png", "3.png"])
    if change == "content":
        (tmp_path / "1.png").write_bytes(b"other")
    elif change == "prompt":
        found[1] = InputImage(found[1].file, Prompt("another"))
    elif change == "signature":
        signatures = ["t"]
        expected = (0, ["0.png", "1.png", "2.png", "3.png"])
    elif change == "order":
        found[1], found[2] = found[2], found[1]
        expected = (1, ["2.png", "1.png", "3.png"])
    elif change == "cut":  # a kill in the middle of a line
        path.write_bytes(path.read_bytes()[:-10])
        expected = (2, ["2.png", "3.png"])
    elif change == "garbage":
        path.write_bytes(b"\x00\xff" * 100)
        expected = (0, ["0.png", "1.png", "2.png", "3.png"])
    else:
        found = found[:2]
        expected = (2, [])
    assert left(path, found, signatures) == expected


def test_an_image_in_an_archive_is_known_by_its_bytes(tmp_path: Path) -> None:
    found = [InputImage(f"x.tar/{i}.png", Prompt(f"p{i}"), data=bytes([i]) * 9) for i in range(4)]
    path = tmp_path / "j"
    with TableJournal(path, ["s"]) as journal:
        for image in journal.watched(found[:3]):
            journal.append(rows_of(image))
    assert left(path, found) == (3, ["3.png"])
    found[1] = InputImage(found[1].file, found[1].prompt, data=b"another!!")  # of the same length
    assert left(path, found) == (1, ["1.png", "2.png", "3.png"])


def test_a_touched_file_counts_as_changed_even_if_its_size_is_the_same(tmp_path: Path) -> None:
    found = images(tmp_path)
    written(tmp_path / "j", found)
    os.utime(found[0].file, ns=(1, 1))
    assert left(tmp_path / "j", found)[0] == 0


def test_failed_images_are_tried_again(tmp_path: Path) -> None:
    found = images(tmp_path)
    path = tmp_path / "j"
    with TableJournal(path, ["s"]) as journal:
        journal.append(rows_of(found[0]))
        journal.append(rows_of(found[1], "unscorable"))
        journal.append(rows_of(found[2], "failed"))
    assert left(path, found) == (2, ["2.png", "3.png"])


def test_parts_keep_their_order(tmp_path: Path) -> None:
    """The columns of a table are in the order in which the reward gave its parts."""
    (found,) = images(tmp_path, 1)
    row = ScoreRow(found.file, "p0", "one", "scored", 1.0, None, {"n": 2.0, "gain": 3.0})
    with TableJournal(tmp_path / "j", ["s"]) as journal:
        journal.append((row,))
        assert [list(one.parts) for one in journal.rows()] == [["n", "gain"]]


def test_rows_are_on_disk_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    found = images(tmp_path)

    def stopped() -> Iterator[None]:
        with TableJournal(tmp_path / "j", ["s"]) as journal:
            journal.append(rows_of(found[0]))
            yield

    running = stopped()
    next(running)
    assert (
        '"file": ' in (tmp_path / "j").read_text()
    )  # read while the writer still has it open, as after a kill
