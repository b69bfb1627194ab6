"""Lines that are appended one by one: synced, read without damaged ones, replaced in one step."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest

from ddpo.errors import StorageFailure
from ddpo.io import synced_lines
from ddpo.io.synced_lines import SyncedLines


@pytest.fixture
def lines(tmp_path: Path) -> SyncedLines:
    return SyncedLines(tmp_path / "a.jsonl", {"n": int}, "it is gone")


def test_what_is_appended_is_read(lines: SyncedLines) -> None:
    assert lines.read() == []
    for n in (1, 2):
        lines.append({"n": n, "text": "Füchslein"})
    assert [one["n"] for one in lines.read()] == [1, 2]
    assert lines.path.read_bytes().count(b"\n") == 2


def test_damaged_lines_are_left_out_and_named(
    lines: SyncedLines, caplog: pytest.LogCaptureFixture
) -> None:
    lines.path.write_text('{"n": 1}\n{"m": 2}\n{"n": 3}\n{"n": 4')
    with caplog.at_level(logging.WARNING):
        assert [one["n"] for one in lines.read()] == [1, 3]
    assert "line 2" in caplog.text
    assert "it is gone" in caplog.text
    assert "line 4" not in caplog.text, "a kill cut it short"


def test_replacing_never_makes_a_file(lines: SyncedLines) -> None:
    lines.replace([{"n": 1}])
    assert not lines.path.exists()
    lines.append({"n": 1})
    lines.replace([{"n": 2}, {"n": 3}])
    assert lines.path.read_text() == '{"n": 2}\n{"n": 3}\n'


def test_no_line_holds_what_json_has_not(lines: SyncedLines) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        lines.append({"n": math.nan})
    assert not lines.path.exists()


def test_file_and_new_folder_are_synced(
    lines: SyncedLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[int] = []
    folders: list[Path] = []
    monkeypatch.setattr(synced_lines, "sync_descriptor", files.append)
    monkeypatch.setattr(synced_lines, "sync_folder", folders.append)
    lines.append({"n": 1})
    lines.append({"n": 2})
    assert len(files) == 2
    assert folders == [lines.path.parent]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure, match=r"a\.jsonl"):
        SyncedLines(tmp_path / "no" / "a.jsonl", {}, "").append({"n": 1})
