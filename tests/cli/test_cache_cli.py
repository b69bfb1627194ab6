"""`ddpo cache stats`, `clear` and `export`, through the program's own entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ddpo.rewards.cache import CachedScore, ScoreCache
from ddpo.rewards.zoo import resolve

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(ddpo: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`ddpo cache` with a cache in `tmp_path`."""
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path))
    monkeypatch.delenv("DDPO_CACHE_LIMIT_MB", raising=False)
    return partial(ddpo, "cache", columns=160)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    now = resolve("aesthetic").identity
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        cache.put(
            "aesthetic", now, [(bytes([number]) * 32, CachedScore(5.5, {})) for number in range(30)]
        )
        cache.put(
            "aesthetic",
            now.replace("version:1|", "version:0|"),
            [(bytes([number]) * 32, CachedScore(5.0, {})) for number in (90, 91)],
        )
        cache.put(
            "mine",
            "reward:mine|version:7|options:gain=[2]",
            [(bytes([99]) * 32, CachedScore(-1.0, {"part": 0.5}))],
        )
    return tmp_path / "scores.sqlite"


def test_stats_without_a_cache_make_none(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("stats")
    assert code == 0
    assert str(tmp_path / "scores.sqlite") in out.replace("\n", "")
    assert "1,024.0 MB" in out
    assert list(tmp_path.iterdir()) == []


def test_stats_report_rewards_versions_and_options(run: Run, filled: Path) -> None:
    code, out, _ = run("stats")
    assert code == 0
    assert "33, of which 30 match the installed rewards" in out
    rows = [
        line.split() for line in out.splitlines() if line.strip().startswith(("aesthetic", "mine"))
    ]
    assert sorted(row[:3] for row in rows) == [
        ["aesthetic", "2", "other"],
        ["aesthetic", "30", "yes"],
        ["mine", "1", "?"],
    ]
    assert "options:gain=[2]" in out
    code, out, _ = run("stats", "--json")
    record = json.loads(out)
    assert (record["path"], record["limit_bytes"], record["scores"], record["damaged"]) == (
        str(filled),
        2**30,
        33,
        [],
    )
    entries = {(entry["reward"], entry["scores"]): entry for entry in record["entries"]}
    assert {name: entry["installed_now"] for name, entry in entries.items()} == {
        ("aesthetic", 30): True,
        ("aesthetic", 2): False,
        ("mine", 1): None,
    }
    assert entries["aesthetic", 30]["identity"] == resolve("aesthetic").identity


def test_clear_takes_one_reward_or_all(run: Run, filled: Path) -> None:
    code, out, err = run("clear", "--reward", "asthetic")
    assert (code, out) == (2, "")
    assert "did you mean 'aesthetic'?" in err
    assert len(err.splitlines()) == 1
    code, out, _ = run("clear", "--reward", "aesthetic")
    assert (code, out.startswith("removed 32 scores of aesthetic; 1 are left")) == (0, True)
    code, out, _ = run("clear")
    assert (code, out.startswith("removed 1 scores; 0 are left")) == (0, True)
    assert ScoreCache(filled).stats().scores == 0


def test_export_writes_a_table(run: Run, filled: Path, tmp_path: Path) -> None:
    code, out, _ = run("export", tmp_path / "out.parquet")
    assert (code, out) == (0, f"wrote 33 scores to {tmp_path / 'out.parquet'}\n")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert sum(row["value"] for row in rows) == 30 * 5.5 + 2 * 5.0 - 1.0
    assert rows[-1]["parts"] == '{"part": 0.5}'


def test_mistakes_are_reported_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, message in (
        (["export", "--out", tmp_path / "out.parquet"], "there is no score cache at"),
        (
            ["clear", "--reward", "aesthetic"],
            "unknown reward in the cache 'aesthetic'; known: none",
        ),
    ):
        code, out, err = run(*arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert message in err
    ScoreCache(tmp_path / "scores.sqlite").put("r", "i", [(bytes(32), CachedScore(0.0, {}))])
    code, _, err = run("export", "--out", tmp_path / "out.parket")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "did you mean '.parquet'?" in err
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("DDPO_CACHE_LIMIT_MB", "lots")
    code, _, err = run("stats")
    assert (code, err) == (2, "error: DDPO_CACHE_LIMIT_MB='lots' is not a number of megabytes\n")


def test_a_damaged_cache_is_reported_in_one_line_and_removed_by_clear(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "scores.sqlite").write_bytes(b"garbage" * 1000)
    code, out, err = run("stats")
    assert code == 0
    assert err.startswith("warning: the score cache")
    assert len(err.splitlines()) == 1
    assert "damaged files set aside: 1 (7 kB)" in out
    code, _, err = run("clear")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir() if "lock" not in path.name) == [
        "scores.sqlite"
    ]
