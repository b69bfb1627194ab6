"""The bench: rates and shares of rewards whose speed is known, because they sleep."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.cli.main import main
from ddpo.errors import ConfigError, ImageError
from ddpo.rewards.card import RewardCard
from ddpo.rewards.models.shared_encoders import shared_encoder
from ddpo.rewards.tools.bench import bench, bench_images, busy_seconds, fitted_images, make_on
from ddpo.rewards.zoo import resolve
from ddpo.types import ImageBatch, RewardOutput

CARD = RewardCard(
    id="sleepy",
    version="1",
    summary="sleeps",
    load="a:b",
    family="test",
    flaws="",
    unit="s",
    cache=False,
)


class Sleepy:
    """Takes `call` seconds per call and `each` per image."""

    card = CARD

    def __init__(self, call: float, each: float, hoard: int = 0) -> None:
        self.call = call
        self.each = each
        self.hoard = hoard
        self.sizes = list[int]()

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        self.sizes.append(len(batch))
        room = np.ones(self.hoard, np.uint8)  # of this call only
        time.sleep(self.call + self.each * len(batch))
        return RewardOutput(torch.full((len(batch),), float(len(room))))


def test_rates_follow_from_the_time_that_a_call_takes() -> None:
    reward = Sleepy(call=0.02, each=0.002)
    one, four = bench(reward, bench_images(8, 16), (1, 4), repeats=3)
    assert (one.batch_size, four.batch_size, one.images, one.side, one.repeats) == (1, 4, 8, 16, 3)
    assert one.rate <= 8 / (8 * 0.022)  # sleeping takes at least the given time
    assert one.rate_high > 0.6 * 8 / (8 * 0.022)  # and on a machine that is busy otherwise, longer
    assert four.rate <= 8 / (2 * 0.028)
    assert four.rate_high > 0.6 * 8 / (2 * 0.028)
    assert one.rate_low <= one.rate <= one.rate_high
    assert (
        0 <= one.outside < 0.3
    )  # there is nothing outside but the scorer's own few microseconds per call
    assert one.peak_gpu_mb is None


def test_rounds_take_turns_after_a_warm_up() -> None:
    reward = Sleepy(0, 0)
    assert len(list(bench(reward, bench_images(4, 8), (2, 4, 2), repeats=2))) == 2
    assert reward.sizes == [2, 4, *[2, 2, 4], *[2, 2, 4]]


@pytest.mark.parametrize(("count", "repeats"), [(4, 1), (4, 3), (6, 2)])
def test_every_round_computes_the_embeddings_of_a_shared_tower(count: int, repeats: int) -> None:
    """A tower remembers its latest images, and all rounds score the same ones."""
    tower = shared_encoder(
        f"test tower {count} {repeats}", "cpu", lambda: lambda batch: torch.zeros(len(batch), 2)
    )

    class Embedding(Sleepy):
        def __call__(self, batch: ImageBatch) -> RewardOutput:
            return RewardOutput(tower.embed(batch)[:, 0])

    list(bench(Embedding(0, 0), bench_images(count, 8), (2,), repeats=repeats))
    assert tower.passes == 2 + count * repeats  # a warm-up of one batch


def test_peak_memory_is_that_of_the_run() -> None:
    small, large = (
        next(bench(Sleepy(0, 0, hoard), bench_images(1, 8), (1,), repeats=2))
        for hoard in (0, 300_000_000)
    )
    assert large.peak_memory_mb - small.peak_memory_mb == pytest.approx(300, rel=0.1)
    if sys.platform == "linux":  # where the peak can be forgotten
        again = next(bench(Sleepy(0, 0), bench_images(1, 8), (1,), repeats=2))
        assert again.peak_memory_mb < large.peak_memory_mb - 250


@pytest.mark.parametrize(
    ("calls", "seconds"),
    [
        ([], 0),
        ([(0, 1), (2, 4)], 3),
        ([(0, 3), (1, 2)], 3),
        ([(1, 4), (0, 2), (6, 7)], 5),
        ([(0, 1), (1, 2)], 2),
    ],
)
def test_busy_seconds(calls: list[tuple[float, float]], seconds: float) -> None:
    assert busy_seconds(calls) == seconds


def test_drawn_images_are_all_different_and_the_same_every_time() -> None:
    images = bench_images(50, 24)
    assert (images.shape, images.dtype) == ((50, 24, 24, 3), np.uint8)
    assert len({image.tobytes() for image in images}) == 50
    assert np.array_equal(images, bench_images(50, 24))


def test_images_of_files_come_by_turns(tmp_path: Path) -> None:
    for level in (0, 200):
        Image.new("RGB", (40, 20), (level, level, level)).save(tmp_path / f"{level}.png")
    images = fitted_images([tmp_path / "0.png", tmp_path / "200.png"], 3, 16)
    assert images[:, 8, 8, 0].tolist() == [0, 200, 0]
    with pytest.raises(ImageError, match="no such file"):
        fitted_images([tmp_path / "absent.png"], 1, 16)


def test_what_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="batch size 9 must be from 1 to the number of images, 4"):
        list(bench(Sleepy(0, 0), bench_images(4, 8), (1, 9)))
    with pytest.raises(ConfigError, match="repeats must be at least 1"):
        list(bench(Sleepy(0, 0), bench_images(4, 8), (1,), repeats=0))
    with pytest.raises(ConfigError, match="device 'nonsense' cannot be used"):
        make_on(resolve("darkness"), "nonsense")
    monkeypatch.setattr("ddpo.rewards.tools.bench.check_device", lambda device: None)
    with pytest.raises(ConfigError, match="runs on the CPU only"):
        make_on(resolve("compressibility"), "cuda")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["darkness", "--images", "8", "--size", "16", "--repeats", "2"]
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "argv", ["ddpo", "rewards", "bench", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    out = capsys.readouterr().out
    assert not caught.value.code
    rows = [line.split() for line in out.splitlines() if line.split()[:1] in (["1"], ["4"], ["16"])]
    assert [row[0] for row in rows] == ["1", "4"]  # the default sizes that eight images allow
    assert all(float(row[1].replace(",", "")) > 0 for row in rows)
    assert "reward:darkness|" in out
    monkeypatch.setattr(
        sys, "argv", ["ddpo", "rewards", "bench", *arguments, "--batch-sizes", "2", "--json"]
    )
    with pytest.raises(SystemExit):
        main()
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["reward"], record["batch_size"], record["device"], record["repeats"]) == (
        "darkness",
        2,
        "cpu",
        2,
    )


def test_a_reward_that_scores_nothing_is_no_measurement(
    tmp_path: Path, ddpo: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = "def f(images):\n    return "
    (tmp_path / "none.py").write_text(head + "[None for _ in images]\n")
    (tmp_path / "some.py").write_text(head + "[None, *(1.0 for _ in images[1:])]\n")
    options = ("--per-round", "4", "--size", "8", "--repeats", "2", "--batch-sizes", "4")
    code, output, errors = ddpo("rewards", "bench", "./none.py:f", *options)
    assert (code, output) == (1, "")
    assert errors.startswith("failed: reward 'f' could score no image: ")
    assert len(errors.splitlines()) == 1
    code, output, errors = ddpo("rewards", "bench", "./none.py:f", *options, "--json")
    assert (code, output) == (1, "")
    assert ddpo("rewards", "bench", "./some.py:f", *options)[0] == 0
