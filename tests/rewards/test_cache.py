"""The score cache in one process: exact values, refused values, eviction, speed."""

from __future__ import annotations

import csv
import json
import math
import os
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ddpo.errors import ConfigError, UnknownNameError
from ddpo.rewards.cache import CachedScore, ScoreCache, image_digests, queries, score_key
from ddpo.rewards.card import RewardCard
from ddpo.rewards.tools.servable import servable
from ddpo.rewards.zoo import resolve
from ddpo.types import NO_CONTEXT, ImageBatch, Prompt

CARD = RewardCard(id="r", version="1", summary="s", load="m:a", family="test", flaws="none")


def key_of(number: int) -> bytes:
    return np.random.default_rng(number).bytes(32)


def scores(start: int, stop: int) -> list[tuple[bytes, CachedScore]]:
    return [(key_of(number), CachedScore(float(number), {})) for number in range(start, stop)]


@pytest.fixture
def cache(tmp_path: Path) -> ScoreCache:
    return ScoreCache(tmp_path / "scores.sqlite")


def test_float32_comes_back_to_the_bit(cache: ScoreCache) -> None:
    # -0, 0, denormals, the largest number, …
    bits = [0x80000000, 0x00000000, 0x00000001, 0x807FFFFF]
    bits += [0x7F7FFFFF, 0x3DCCCCCD, 0xC2C80001, 0x00800000]
    bits += np.random.default_rng(0).integers(0, 0x7F800000, 200).tolist()
    values = [struct.unpack("<f", struct.pack("<I", number))[0] for number in bits]
    items = [
        (key_of(place), CachedScore(value, {"ä[b": -value, "": values[0]}))
        for place, value in enumerate(values)
    ]
    assert cache.put("r", "i", items) == len(items)
    cache.close()
    found = ScoreCache(cache.path).get([key for key, _ in items])
    for (key, _), number in zip(items, bits, strict=True):
        assert list(found[key].parts) == ["ä[b", ""]
        floats = (found[key].value, *found[key].parts.values())
        expected = (number, number ^ 0x80000000, 0x80000000)
        assert [struct.pack("<f", part) for part in floats] == [
            struct.pack("<I", part) for part in expected
        ]


def test_a_key_that_is_not_there_is_not_found(cache: ScoreCache) -> None:
    assert cache.get([key_of(1)]) == {}
    assert not cache.path.exists()  # only `put` makes the file
    cache.put("r", "i", scores(0, 3))
    assert cache.get([key_of(2), key_of(3), key_of(2)]) == {key_of(2): CachedScore(2.0, {})}
    assert cache.get([]) == {}
    many = [key_of(number) for number in range(2000)]  # SQLite takes fewer in one statement
    assert len(cache.get(many)) == 3


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e39])
def test_what_is_no_finite_float32_is_refused(cache: ScoreCache, number: float) -> None:
    items = [
        (key_of(0), CachedScore(number, {})),
        (key_of(1), CachedScore(1.0, {"part": number})),
        (key_of(2), CachedScore(2.0, {})),
    ]
    assert cache.put("r", "i", items) == 1
    assert cache.get([key for key, _ in items]) == {key_of(2): CachedScore(2.0, {})}
    assert cache.put("r", "i", items[:2]) == 0


def test_the_place_and_the_limit_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "there"))
    monkeypatch.setenv("DDPO_CACHE_LIMIT_MB", "3")
    with ScoreCache() as cache:
        cache.put("r", "i", scores(0, 1))
    assert (tmp_path / "there" / "scores.sqlite").is_file()
    assert cache.limit_bytes == 3 * 2**20
    assert ScoreCache(limit_mb=0.5).limit_bytes == 2**19
    messages = {"much": "'much' is not a number"}
    messages |= dict.fromkeys(("-1", "nan", "inf"), "positive")
    for wrong, message in messages.items():
        monkeypatch.setenv("DDPO_CACHE_LIMIT_MB", wrong)
        with pytest.raises(ConfigError, match=message):
            ScoreCache()


def test_the_least_recently_used_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite", limit_mb=0.5)
    now = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    cache.put("r", "i", scores(0, 1000))
    now += queries.TOUCH_AFTER + 1
    cache.get([key_of(number) for number in range(500)])  # the older half is used again
    cache.close()
    stop = 1000
    while cache.stats().scores == stop:
        cache.put("r", "i", scores(stop, stop + 200))
        stop += 200
    order = [*range(500, 1000), *range(500), *range(1000, stop)]
    left = [int(row.score.value) for row in queries.rows(cache._connected())]
    assert left == order[-len(left) :]
    # a tenth of the pages is more than a tenth of the scores: pages of the index are shared
    assert len(left) >= 0.7 * stop


def test_what_is_read_is_kept_though_its_use_is_not_written_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite", limit_mb=0.25)
    now = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    cache.put("r", "i", scores(0, 200))
    for start in range(200, 5000, 200):
        now += queries.TOUCH_AFTER + 1
        assert len(cache.get([key_of(number) for number in range(100)])) == 100
        cache.put("r", "i", scores(start, start + 200))
    assert cache.get([key_of(number) for number in range(100, 200)]) == {}


def test_the_file_stays_within_its_limit(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite", limit_mb=0.25)
    most = 0
    for start in range(0, 12_000, 400):
        cache.put("r", "i", scores(start, start + 400))
        most = max(most, cache.stats().bytes)
    left = cache.stats()
    assert most <= cache.limit_bytes
    assert left.scores >= 800  # some 130 bytes each: a removal takes a tenth, not all
    assert len(cache.get([key_of(number) for number in range(12_000 - 400, 12_000)])) == 400
    cache.close()
    assert cache.path.stat().st_size <= 1.1 * cache.limit_bytes


def test_clear_removes_one_reward_or_all(cache: ScoreCache) -> None:
    assert cache.clear() == 0
    with pytest.raises(UnknownNameError, match="known: none"):
        cache.clear("sharpness")
    cache.put("sharpness", "sharpness 1", scores(0, 10))
    cache.put("sharpness", "sharpness 2", scores(10, 30))
    cache.put("vendor/other", "other", scores(30, 37))
    with pytest.raises(UnknownNameError, match="did you mean 'sharpness'"):
        cache.clear("sharpnes")
    assert cache.clear("sharpness") == 30
    assert [(entry.reward, entry.scores) for entry in cache.stats().entries] == [
        ("vendor/other", 7)
    ]
    assert cache.clear() == 7
    assert cache.stats().scores == 0
    cache.put("sharpness", "sharpness 1", scores(0, 1))
    assert cache.get([key_of(0)]) == {key_of(0): CachedScore(0.0, {})}


def test_stats_count_by_reward_and_identity(
    cache: ScoreCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.stats().entries == ()
    for now, identity, start in ((1000.0, "b 1", 0), (2000.0, "b 2", 5), (3000.0, "b 1", 7)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        cache.put("b", identity, scores(start, start + 2))
    stats = cache.stats()
    assert stats.scores == 6
    found = [(entry.identity, entry.scores, entry.oldest, entry.newest) for entry in stats.entries]
    rows = [
        (identity, count, old and old.timestamp(), new and new.timestamp())
        for identity, count, old, new in found
    ]
    assert rows == [("b 1", 4, 1000.0, 3000.0), ("b 2", 2, 2000.0, 2000.0)]
    assert stats.bytes > 4096


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_export_writes_every_score(
    cache: ScoreCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    with pytest.raises(ConfigError, match="there is no score cache"):
        cache.export(tmp_path / f"out{suffix}")
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.25)
    items = [(key_of(0), CachedScore(0.1, {"clip": 0.5})), (key_of(1), CachedScore(-2.0, {}))]
    cache.put("r", "the identity", items)
    path = tmp_path / f"out{suffix}"
    assert cache.export(path) == 2
    if suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif suffix == ".csv":
        rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["key"] for row in rows] == [key_of(0).hex(), key_of(1).hex()]
    values = [struct.unpack("<f", struct.pack("<f", 0.1))[0], -2.0]
    assert [float(row["value"]) for row in rows] == values
    assert [row["parts"] for row in rows] == ['{"clip": 0.5}', "{}"]
    time_stamp = "2023-11-14T22:13:20+00:00"
    expected = {"reward": "r", "identity": "the identity"}
    expected |= {"created": time_stamp, "last_used": time_stamp}
    for row in rows:
        assert {name: row[name] for name in expected} == expected
    with pytest.raises(ConfigError, match="unknown table format"):
        cache.export(tmp_path / "out.txt")


def test_entries_know_whether_they_can_be_served(cache: ScoreCache) -> None:
    for spec in ("aesthetic", "aesthetic:head=mine.pth"):
        cache.put("aesthetic", resolve(spec).identity, scores(0, 1))
    present = resolve("aesthetic").identity
    older = present.replace("version:1", "version:0")
    unknown_option = present.replace("options:default", "options:tail=2")
    cache.put("aesthetic", older, scores(1, 2))
    cache.put("aesthetic", unknown_option, scores(2, 3))
    cache.put("mine", "reward:mine|version:1|options:default", scores(3, 4))
    cache.put("aesthetic", present, scores(4, 5))
    states = {entry.identity.replace("|", " "): servable(entry) for entry in cache.stats().entries}
    assert sorted(states.values(), key=str) == [False, False, None, True, True]
    assert [
        state for identity, state in states.items() if "version:0" in identity or "tail" in identity
    ] == [False, False]


def test_threads_share_a_cache(cache: ScoreCache) -> None:
    wrong: list[int] = []

    def work(part: int) -> None:
        for start in range(part * 400, (part + 1) * 400, 16):
            items = scores(start, start + 16)
            cache.put("r", "i", items)
            if cache.get([key for key, _ in items]) != dict(items):
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.stats().scores == 1600


def test_a_second_look_is_fast(cache: ScoreCache) -> None:
    """Digest, key and look-up of decoded 512×512 pixels take a millisecond per image.

    A loaded machine gets four times as long.
    """
    card = replace(CARD, inputs=("image", "prompt"))
    array = np.random.default_rng(0).integers(0, 256, (16, 512, 512, 3), dtype=np.uint8)
    batch = ImageBatch.of_uint8(array, [Prompt(f"image {number}") for number in range(16)])
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        digests = image_digests(batch, exact=False)
        keys = [
            score_key("i", digest, prompt, card, NO_CONTEXT)
            for digest, prompt in zip(digests, batch.prompts, strict=True)
        ]
        known = [key for key in keys if key is not None]
        found = cache.get(known)
        best = min(best, time.perf_counter() - started)
        if not found:
            best = math.inf
            cache.put("r", "i", [(key, CachedScore(0.5, {"part": 0.25})) for key in known])
    assert len(found) == 16
    assert 16 / best >= 250


def test_a_fork_may_use_the_cache_of_its_parent(cache: ScoreCache) -> None:
    cache.put("r", "i", scores(0, 10))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ok = cache.get([key_of(3)]) == {key_of(3): CachedScore(3.0, {})}
            ok = ok and cache.put("r", "i", scores(10, 20)) == 10
            time.sleep(0.2)  # the parent closes its side meanwhile
            code = 0 if ok and cache.put("r", "i", scores(20, 30)) == 10 else 1
            cache.close()
        finally:
            os._exit(code)
    assert len(cache.get([key_of(number) for number in range(10)])) == 10
    time.sleep(0.05)
    cache.close()
    assert os.waitpid(child, 0)[1] == 0
    assert len(cache.get([key_of(number) for number in range(30)])) == 30
