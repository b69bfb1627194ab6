"""Scoring files: odd modes, several sizes, broken files, prompts, tables."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ddpo.errors import ConfigError, PromptError
from ddpo.rewards.card import RewardCard
from ddpo.rewards.score_table import check_table_path, read_image_prompts, write_table
from ddpo.rewards.scored_files import ScoreRow, score_files, summarize
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt, RewardOutput


class PromptLength:
    """Needs prompts."""

    card = RewardCard(id="length", version="1", summary="", load="here:PromptLength", family="test", flaws="", inputs=("image", "prompt"))

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        lengths = torch.tensor([float(len(prompt.text)) for prompt in batch.prompts])
        return RewardOutput(lengths, {"half": lengths / 2})


def grey(folder: Path, name: str, level: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Path:
    Image.new("L", size, level).convert(mode).save(folder / name)
    return folder / name


def test_modes_and_sizes_are_scored_in_order(tmp_path: Path) -> None:
    paths = [
        grey(tmp_path, "a.png", 0), grey(tmp_path, "b.png", 255, (5, 5), "L"), grey(tmp_path, "c.png", 51, mode="RGBA"),
        grey(tmp_path, "d.png", 102, (5, 5), "P"), grey(tmp_path, "e.png", 153), grey(tmp_path, "f.bmp", 255, (1, 1)),
    ]  # fmt: skip
    Image.fromarray(np.full((4, 6), 51 * 257, np.uint16)).save(tmp_path / "g.png")
    Image.new("RGBA", (6, 4), (0, 0, 0, 0)).save(tmp_path / "h.png")  # nothing over white
    paths += [tmp_path / "g.png", tmp_path / "h.png"]
    done: list[int] = []
    rows = score_files(make_reward("darkness"), paths, batch_size=2, progress=done.append)
    assert [row.file for row in rows] == [str(path) for path in paths]
    assert [row.score for row in rows] == pytest.approx([0, -1, -0.2, -0.4, -0.6, -1, -0.2, -1], abs=1e-6)
    assert sum(done) == len(paths)


def test_unreadable_files_are_rows_and_the_others_are_scored(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("not a picture")
    paths = [grey(tmp_path, "a.png", 0), tmp_path / "bad.png", grey(tmp_path, "c.png", 255), tmp_path / "absent.png"]
    rows = score_files(make_reward("darkness"), paths)
    assert [row.score for row in rows] == [0, None, pytest.approx(-1), None]
    assert "not a picture" in str(rows[1].error)
    assert "no such file" in str(rows[3].error)
    summary = summarize(rows)
    assert (summary.scored, summary.unscorable, summary.mean) == (2, 2, pytest.approx(-0.5))


def test_many_sizes_are_all_scored(tmp_path: Path) -> None:
    paths = [grey(tmp_path, f"{i}.png", 255 if i % 2 else 0, (1 + i, 3)) for i in range(12)]
    rows = score_files(make_reward("darkness"), paths, batch_size=2)
    assert [row.score for row in rows] == pytest.approx([-(i % 2) for i in range(12)])


def test_prompts_go_with_their_files(tmp_path: Path) -> None:
    paths = [grey(tmp_path, "a.png", 0, (2, 2)), grey(tmp_path, "b.png", 0, (3, 3)), grey(tmp_path, "c.png", 0, (2, 2))]
    prompts = [Prompt("x" * n) for n in (1, 2, 3)]
    rows = score_files(PromptLength(), paths, prompts, batch_size=4)
    assert [(row.prompt, row.score, row.parts) for row in rows] == [("x" * n, n, {"half": n / 2}) for n in (1, 2, 3)]
    with pytest.raises(ConfigError, match="--prompts FILE or --prompt TEXT"):
        score_files(PromptLength(), paths)
    with pytest.raises(ConfigError, match="3 images came with 2 prompts"):
        score_files(PromptLength(), paths, prompts[:2])


def test_summary_by_hand() -> None:
    rows = [ScoreRow(str(i), None, float(i), None) for i in range(1, 6)]
    summary = summarize(rows)
    assert (summary.mean, summary.p5, summary.p50, summary.p95) == pytest.approx((3, 1.2, 3, 4.8))
    assert summary.sd == pytest.approx(math.sqrt(2.5))
    assert math.isnan(summarize(rows[:1]).sd)
    assert math.isnan(summarize([ScoreRow("x", None, None, "why")]).mean)


ROWS = [ScoreRow("a.png", "ä, “b”", 1.5, None, {"part": 0.25}), ScoreRow("b.png", None, None, "why, not")]


def test_tables_of_every_format_hold_the_same(tmp_path: Path) -> None:
    for suffix in ("parquet", "csv", "jsonl"):
        write_table(ROWS, tmp_path / "new" / f"t.{suffix}", "the|signature")
    expected = [
        {"file": "a.png", "prompt": "ä, “b”", "score": 1.5, "error": None, "part_part": 0.25, "signature": "the|signature"},
        {"file": "b.png", "prompt": None, "score": None, "error": "why, not", "part_part": None, "signature": "the|signature"},
    ]
    folder = tmp_path / "new"
    assert pq.read_table(folder / "t.parquet").to_pylist() == expected
    assert [json.loads(line) for line in (folder / "t.jsonl").read_text(encoding="utf-8").splitlines()] == expected
    with (folder / "t.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{k: "" if v is None else str(v) for k, v in row.items()} for row in expected]
    assert sorted(path.name for path in folder.iterdir()) == ["t.csv", "t.jsonl", "t.parquet"]


def test_a_failed_write_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(ROWS, path, "s")
    before = path.read_bytes()
    with pytest.raises(Exception, match="double"):
        write_table([ScoreRow("a", None, "text", None)], path, "s")  # type: ignore[arg-type]
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


def test_prompt_files_of_images(tmp_path: Path) -> None:
    images = [Path("x/a.png"), Path("x/b.png")]
    (tmp_path / "p.txt").write_text("a cat\n\na cat\n", encoding="utf-8")
    assert [p.text for p in read_image_prompts(tmp_path / "p.txt", images)] == ["a cat", "a cat"]
    lines = [{"file": "b.png", "prompt": "bee", "metadata": {"n": 1}}, {"file": "x/a.png", "prompt": "ant"}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read_image_prompts(tmp_path / "p.jsonl", images)
    assert [(p.text, dict(p.metadata)) for p in found] == [("ant", {}), ("bee", {"n": 1})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"one\n", "1 prompts for 2 images"),
        ("p.txt", b"\xff\xfe", "not UTF-8"),
        ("p.jsonl", b"{}\n", "p.jsonl:1: expected"),
        ("p.jsonl", b"[1]\n", "p.jsonl:1: expected"),
        ("p.jsonl", b'{"file": "a.png", "prompt": "x"}\n', "no prompt for b.png"),
    ],
)
def test_bad_prompt_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptError, match=message):
        read_image_prompts(tmp_path / name, [Path("a.png"), Path("b.png")])
    with pytest.raises(PromptError, match="cannot be read"):
        read_image_prompts(tmp_path / "absent.txt", [])
