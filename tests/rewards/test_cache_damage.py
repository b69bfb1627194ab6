"""Damage to the cache's file is never trusted, never fatal, and reported once."""

from __future__ import annotations

import random
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpo.errors import ConfigError
from ddpo.rewards.cache import CachedScore, CacheWarning, ScoreCache, database, store

ITEMS = [
    (bytes([number]) * 32, CachedScore(number + 0.5, {"part": -0.25 * number}))
    for number in range(200)
]
KEYS = [key for key, _ in ITEMS]
EXPECTED = dict(ITEMS)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(store, "_warned", set())


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A cache of 200 scores, closed, in one file."""
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        assert cache.put("r", "i", ITEMS) == len(ITEMS)
    return tmp_path / "scores.sqlite"


def check_set_aside(path: Path, damaged: bytes, cause: str) -> None:
    """A get of a damaged file misses with one warning; the old file is kept, a new one works."""
    cache = ScoreCache(path)
    with pytest.warns(CacheWarning, match=cause) as said:
        assert cache.get(KEYS) == {}
    # a second warning would be an error here, see pyproject.toml
    assert cache.put("r", "i", ITEMS[:5]) == 5
    assert cache.get(KEYS) == dict(ITEMS[:5])
    assert len(said) == 1
    assert "set aside as scores.sqlite.damaged-" in str(said[0].message)
    (aside,) = cache.stats().damaged
    assert aside.read_bytes() == damaged
    cache.close()
    assert ScoreCache(path).get(KEYS) == dict(ITEMS[:5])
    cache.clear()
    assert not aside.exists()


@pytest.mark.parametrize(
    "garbage",
    [b"no database at all " * 500, bytes(8192), b"SQLite format 3\0" + bytes(range(256)) * 40],
)
def test_garbage_is_set_aside(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "scores.sqlite"
    path.write_bytes(garbage)
    check_set_aside(path, garbage, "is damaged")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_set_aside(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    check_set_aside(path, whole[: int(share * len(whole))], "is damaged")


@pytest.mark.parametrize("content", [b"", b"x"])
def test_an_empty_file_is_filled_without_a_warning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scores.sqlite").write_bytes(content)  # one byte is as empty as none to SQLite
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        assert cache.get(KEYS) == {}
        assert cache.put("r", "i", ITEMS) == len(ITEMS)


def test_another_schema_or_program(path: Path, tmp_path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=0")
    connection.close()
    check_set_aside(path, path.read_bytes(), "it has an old schema, 0")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE notes(text)")
    connection.close()
    with pytest.warns(CacheWarning, match="not a score cache"):
        assert ScoreCache(other).get(KEYS) == {}
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE scores")
    connection.close()
    with pytest.warns(CacheWarning, match="no such table"):
        assert ScoreCache(path).get(KEYS) == {}


def test_a_newer_schema_is_left_to_the_newer_ddpo(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    before = path.read_bytes()
    cache = ScoreCache(path)
    with pytest.warns(CacheWarning, match="schema 99, this ddpo knows 1: upgrade ddpo") as said:
        assert cache.get(KEYS) == {}
    assert cache.put("r", "i", ITEMS) == 0
    assert len(said) == 1
    with pytest.raises(ConfigError, match="schema 99"):
        cache.stats()
    cache.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("column", ["value", "parts", "checksum", "key"])
def test_a_flipped_bit_in_a_row_is_a_miss(path: Path, column: str) -> None:
    with sqlite3.connect(path) as connection:
        select = f"SELECT {column} FROM scores WHERE key = ?"
        (old,) = connection.execute(select, (KEYS[7],)).fetchone()
        for place in range(len(old)):
            flipped = bytearray(old)
            flipped[place] ^= 1 << place % 8
            update = f"UPDATE scores SET {column} = ? WHERE {column} = ?"
            connection.execute(update, (bytes(flipped), old))
            connection.commit()
            cache = ScoreCache(path)
            wanted = [KEYS[7], KEYS[8], bytes(flipped)] if column == "key" else [KEYS[7], KEYS[8]]
            assert cache.get(wanted) == {KEYS[8]: EXPECTED[KEYS[8]]}
            assert cache.stats().scores == 199 + (column == "key" and bytes(flipped) not in wanted)
            cache.put("r", "i", [(KEYS[7], EXPECTED[KEYS[7]])])
            assert cache.get([KEYS[7]]) == {KEYS[7]: EXPECTED[KEYS[7]]}
            cache.close()
    connection.close()


def test_flipped_bits_anywhere_never_give_a_wrong_score(path: Path) -> None:
    whole = path.read_bytes()
    chance = random.Random(0)
    served = 0
    for trial in range(50):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 4, 64))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            with ScoreCache(path) as cache:
                found = cache.get(KEYS)
                assert all(EXPECTED[key] == score for key, score in found.items()), trial
                cache.put("r", "i", [item for item in ITEMS if item[0] not in found])
                again = cache.get(KEYS)
                assert all(EXPECTED[key] == score for key, score in again.items()), trial
        served += len(found)
        for leftover in path.parent.iterdir():
            leftover.unlink()
    assert served > 50 * 200 * 0.3  # most bits belong to one row, whose loss leaves the others


def test_a_folder_in_its_place_or_a_file_in_its_folders_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "scores.sqlite", tmp_path / "folder"):
        cache = ScoreCache(path)
        with pytest.warns(CacheWarning, match="cannot be used .*; continuing without it") as said:
            assert cache.put("r", "i", ITEMS) == 0
        assert cache.get(KEYS) == {}
        assert ScoreCache(path).put("r", "i", ITEMS) == 0
        assert len(said) == 1
    with pytest.raises(ConfigError, match="cannot be used"):
        ScoreCache(tmp_path / "folder").stats()


def test_a_locked_cache_is_done_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAUSE", 0.0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache = ScoreCache(path)
    with pytest.warns(CacheWarning, match="database is locked") as said:
        assert cache.put("r", "i", ITEMS[:1]) == 0
    assert cache.put("r", "i", ITEMS[:1]) == 0
    assert len(said) == 1
    assert cache.get(KEYS) == EXPECTED  # readers do not wait for writers
    other.execute("ROLLBACK")
    other.close()
    assert cache.put("r", "i", ITEMS[:1]) == 1


def test_after_trouble_there_is_a_pause(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(store.time, "monotonic", lambda: now)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache = ScoreCache(path)
    with pytest.warns(CacheWarning):
        assert cache.put("r", "i", ITEMS) == 0
    other.execute("ROLLBACK")
    other.close()
    assert cache.get(KEYS) == {}
    now += store.PAUSE
    assert cache.get(KEYS) == EXPECTED


def test_a_full_disk_is_done_without(path: Path) -> None:
    cache = ScoreCache(path)
    cache.get(KEYS)
    pages = cache._connected().execute("PRAGMA page_count").fetchone()[0]
    # SQLite's own way to be out of space
    cache._connected().execute(f"PRAGMA max_page_count={pages}")
    more = [(bytes([number, 1]) * 16, CachedScore(0.0, {})) for number in range(200)]
    with pytest.warns(CacheWarning, match="full"):
        assert cache.put("r", "i", more) == 0
    cache.close()
    assert ScoreCache(path).get([key for key, _ in more] + KEYS) == EXPECTED


def test_a_cache_that_is_removed_or_replaced_meanwhile_is_created_again(path: Path) -> None:
    cache = ScoreCache(path)
    other = ScoreCache(path)
    assert len(cache.get(KEYS)) == len(other.get(KEYS)) == 200
    path.unlink()
    assert cache.put("r", "i", ITEMS[:3]) == 3
    assert other.get(KEYS) == dict(ITEMS[:3])
    assert other.put("r", "i", ITEMS[3:5]) == 2
    assert cache.get(KEYS) == dict(ITEMS[:5])
    cache.close()
    other.close()
    assert ScoreCache(path).get(KEYS) == dict(ITEMS[:5])
