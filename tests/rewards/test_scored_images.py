"""Scoring image files: odd modes, sizes, rewards, broken files, prompts, memory and summaries."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo import images as picture_module
from ddpo.errors import ConfigError, RewardFailure
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.card import RewardCard
from ddpo.rewards.image_files import RunningSummary, ScoreRow, score_files
from ddpo.rewards.image_files import stream as stream_module
from ddpo.rewards.image_files.sheet import CAPTION, CELL, extremes_sheet
from ddpo.rewards.image_files.stream import decode_ahead
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt, RewardOutput


class PromptLength:
    """Needs prompts."""

    card = RewardCard(
        id="length",
        version="1",
        summary="",
        load="here:PromptLength",
        family="test",
        flaws="",
        inputs=("image", "prompt"),
    )

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        lengths = torch.tensor([float(len(prompt.text)) for prompt in batch.prompts])
        return RewardOutput(lengths, {"half": lengths / 2})


def grey(
    folder: Path, name: str, level: int, size: tuple[int, int] = (6, 4), mode: str = "RGB"
) -> Path:
    Image.new("L", size, level).convert(mode).save(folder / name)
    return folder / name


def score(names: list[str], paths: list[Path], **settings: int) -> list[tuple[ScoreRow, ...]]:
    return list(
        score_files(
            [Scorer(make_reward(name)) for name in names],
            [InputImage(str(path)) for path in paths],
            **settings,
        )
    )


def darkness(paths: list[Path], **settings: int) -> list[ScoreRow]:
    return [rows[0] for rows in score(["darkness"], paths, **settings)]


def test_modes_and_sizes_are_scored_in_order(tmp_path: Path) -> None:
    paths = [
        grey(tmp_path, "a.png", 0),
        grey(tmp_path, "b.png", 255, (5, 5), "L"),
        grey(tmp_path, "c.png", 51, mode="RGBA"),
        grey(tmp_path, "d.png", 102, (5, 5), "P"),
        grey(tmp_path, "e.png", 153),
        grey(tmp_path, "f.bmp", 255, (1, 1)),
    ]
    Image.fromarray(np.full((4, 6), 51 * 257, np.uint16)).save(tmp_path / "g.png")
    Image.new("RGBA", (6, 4), (0, 0, 0, 0)).save(tmp_path / "h.png")  # nothing over white
    paths += [tmp_path / "g.png", tmp_path / "h.png"]
    rows = darkness(paths, batch_size=2)
    assert [row.file for row in rows] == [str(path) for path in paths]
    assert [row.score for row in rows] == pytest.approx(
        [0, -1, -0.2, -0.4, -0.6, -1, -0.2, -1], abs=1e-6
    )
    assert {row.status for row in rows} == {"scored"}


def test_unreadable_files_are_rows_and_the_others_are_scored(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    whole = grey(tmp_path, "whole.png", 77, (64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) * 2 // 3])
    grey(tmp_path, "right.png", 51).rename(tmp_path / "mislabelled.jpg")
    names = ["a.png", "bad.png", "empty.png", "cut.png", "mislabelled.jpg", "absent.png", "c.png"]
    grey(tmp_path, "a.png", 0), grey(tmp_path, "c.png", 255)
    rows = darkness([tmp_path / name for name in names])
    assert [row.score for row in rows] == [
        0,
        None,
        None,
        None,
        pytest.approx(-0.2),
        None,
        pytest.approx(-1),
    ]
    assert [row.status for row in rows] == [
        "scored",
        *["unscorable"] * 3,
        "scored",
        "unscorable",
        "scored",
    ]
    assert all(row.error and row.file in row.error for row in rows if row.score is None)
    assert "not an image" in str(rows[1].error)
    assert "no such file" in str(rows[5].error)


def test_a_bomb_is_reported_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    rows = darkness(
        [
            grey(tmp_path, "a.png", 0),
            grey(tmp_path, "big.png", 0, (40, 40)),
            grey(tmp_path, "huge.png", 0, (400, 400)),
        ]
    )
    assert rows[0].score == 0
    assert "40×40 pixels; so large an image may be a decompression bomb" in str(rows[1].error)
    assert "decompression bomb" in str(rows[2].error)


def test_many_sizes_are_all_scored(tmp_path: Path) -> None:
    paths = [grey(tmp_path, f"{i}.png", 255 if i % 2 else 0, (1 + i, 3)) for i in range(12)]
    assert [row.score for row in darkness(paths, batch_size=2)] == pytest.approx(
        [-(i % 2) for i in range(12)]
    )


def test_rows_come_before_the_last_file_is_read(tmp_path: Path) -> None:
    """An image of a rare size must not hold the others back for ever."""
    rare = grey(tmp_path, "rare.png", 255, (3, 3))
    common = [grey(tmp_path, f"{i}.png", 0) for i in range(100)]
    read: list[str] = []

    def images() -> Iterator[InputImage]:
        for path in [rare, *common]:
            read.append(path.name)
            yield InputImage(str(path))

    rows = score_files([Scorer(make_reward("darkness"))], images(), batch_size=4)
    assert next(rows)[0].score == pytest.approx(-1)
    assert len(read) < 40


def test_images_are_decoded_ahead_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [grey(tmp_path, f"{i}.png", i, (10, 10)) for i in range(20)]
    read: list[int] = []

    def images() -> Iterator[InputImage]:
        for index, path in enumerate(paths):
            read.append(index)
            yield InputImage(str(path))

    decoded = decode_ahead(images(), threads=2, ahead=5)
    first = next(decoded)
    assert first.image is not None
    assert first.image.size == (10, 10)
    assert len(read) == 5
    read.clear()
    monkeypatch.setattr(stream_module, "MEMORY", 1200)  # three images
    decoded = decode_ahead(images(), threads=2, ahead=5)
    for _ in range(10):
        next(decoded)
    assert len(read) <= 10 + 3
    assert sum(1 for _ in decoded) == 10


def test_several_rewards_decode_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [grey(tmp_path, f"{i}.png", 51 * i) for i in range(5)]
    loaded: list[str] = []
    load = picture_module.load_image
    monkeypatch.setattr(
        picture_module, "load_image", lambda path: (loaded.append(path.name), load(path))[1]
    )
    rows = score(["darkness", "symmetry", "compressibility"], paths)
    assert sorted(loaded) == [path.name for path in paths]
    assert [row.reward for row in rows[0]] == ["darkness", "symmetry", "compressibility"]
    assert [row[0].score for row in rows] == pytest.approx([-0.2 * i for i in range(5)], abs=1e-6)
    assert [row[1].score for row in rows] == [0] * 5


def test_prompts_go_with_their_files_and_a_missing_one_is_a_row(tmp_path: Path) -> None:
    paths = [
        grey(tmp_path, "a.png", 0, (2, 2)),
        grey(tmp_path, "b.png", 0, (3, 3)),
        grey(tmp_path, "c.png", 0, (2, 2)),
        grey(tmp_path, "d.png", 0, (2, 2)),
    ]
    prompts = [Prompt("x"), Prompt("xx"), None, Prompt("xxxx")]
    images = [InputImage(str(path), prompt) for path, prompt in zip(paths, prompts, strict=True)]
    rows = list(
        score_files([Scorer(PromptLength()), Scorer(make_reward("darkness"))], images, batch_size=4)
    )
    assert [(row.prompt, row.score) for row, _ in rows] == [
        ("x", 1),
        ("xx", 2),
        (None, None),
        ("xxxx", 4),
    ]
    assert rows[3][0].parts == {"half": 2}
    assert rows[2][0].status == "unscorable"
    assert "c.png: it has no prompt" in str(rows[2][0].error)
    assert [row.score for _, row in rows] == [0, 0, 0, 0]


class Moody:
    """Breaks on white images, and finds grey ones unscorable."""

    card = RewardCard(
        id="moody", version="1", summary="", load="here:Moody", family="test", flaws=""
    )

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        levels = batch.pixels[:, 0, 0, 0]
        if bool((levels == 1).any()):
            raise ArithmeticError("too bright")
        grey = [float(level) > 0.3 for level in levels]
        values = torch.tensor(
            [math.nan if g else float(level) for g, level in zip(grey, levels, strict=True)]
        )
        return RewardOutput(values, errors=tuple("too grey" if g else None for g in grey))


def test_unscorable_and_failed_are_distinguished(tmp_path: Path) -> None:
    paths = [grey(tmp_path, f"{i}.png", level) for i, level in enumerate((0, 255, 51, 102, 255))]
    rows = [
        row for (row,) in score_files([Scorer(Moody())], [InputImage(str(path)) for path in paths])
    ]
    assert [row.status for row in rows] == ["scored", "failed", "scored", "unscorable", "failed"]
    assert rows[1].error == f"{paths[1]}: reward 'moody' failed: ArithmeticError: too bright"
    assert rows[3].error == f"{paths[3]}: too grey"
    assert [row.score for row in rows] == [0, None, pytest.approx(0.2), None, None]


def test_a_broken_reward_stops_and_what_came_before_stands(tmp_path: Path) -> None:
    paths = [grey(tmp_path, f"{i:02}.png", 0 if i < 6 else 255) for i in range(40)]
    rows = score_files(
        [Scorer(Moody(), 2)], [InputImage(str(path)) for path in paths], batch_size=2
    )
    seen: list[ScoreRow] = []
    with pytest.raises(RewardFailure, match="taken for broken"):
        seen.extend(row for (row,) in rows)
    assert [row.score for row in seen[:6]] == [0] * 6


def test_a_group_reward_has_no_score_for_a_file() -> None:
    class Rank(Moody):
        card = RewardCard(
            id="rank",
            version="1",
            summary="",
            load="a:B",
            family="test",
            flaws="",
            inputs=("image", "group"),
        )

    with pytest.raises(ConfigError, match="ranks images within a batch"):
        next(score_files([Scorer(Rank())], []))


def row(file: str, score: float | None, status: str = "scored", **parts: float) -> ScoreRow:
    error = None if score is not None else "why"
    return ScoreRow(file, None, "r", status, score, error, parts)  # type: ignore[arg-type]


def test_summary_by_hand() -> None:
    tally = RunningSummary(extremes=2)
    for i in range(1, 6):
        tally.add(row(str(i), float(i), truncated=float(i == 3)))
    tally.add(row("u", None, "unscorable"))
    tally.add(row("f", None, "failed"))
    summary = tally.summary()
    assert (summary.scored, summary.unscorable, summary.failed, summary.truncated) == (5, 1, 1, 1)
    assert (summary.mean, summary.p5, summary.p50, summary.p95) == pytest.approx((3, 1.2, 3, 4.8))
    assert summary.sd == pytest.approx(math.sqrt(2.5))
    assert (tally.best(), tally.worst()) == ([("5", 5.0), ("4", 4.0)], [("1", 1.0), ("2", 2.0)])
    single = RunningSummary()
    single.add(row("1", 1.0))
    assert math.isnan(single.summary().sd)
    assert math.isnan(RunningSummary().summary().mean)


def test_of_equal_scores_the_first_files_stay() -> None:
    tally = RunningSummary(extremes=2)
    for name in "abcd":
        tally.add(row(name, 1.0))
    assert [file for file, _ in tally.best()] == ["a", "b"]
    assert [file for file, _ in tally.worst()] == ["a", "b"]


def test_the_sheet_shows_best_and_worst(tmp_path: Path) -> None:
    tally = RunningSummary()
    for path, level in (
        (grey(tmp_path, "black.png", 0, (8, 8)), 0.0),
        (grey(tmp_path, "white.png", 255, (8, 8)), 1.0),
    ):
        tally.add(row(str(path), level))
    sheet = extremes_sheet({"level": tally})
    assert sheet.size == (2 * CELL + 2, 2 * (CELL + CAPTION) + 2)
    centre = CELL + 2 + CELL // 2
    assert sheet.getpixel((centre, CELL // 2)) == (255, 255, 255)
    assert sheet.getpixel((centre, CELL + CAPTION + 2 + CELL // 2)) == (0, 0, 0)
