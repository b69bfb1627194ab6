"""`ddpo rewards list`, `show` and `score`, through the program's own entry."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpo.cli.main import main
from ddpo.rewards.card import RewardCard
from ddpo.rewards.catalog import CARDS

Run = Callable[..., tuple[int, str, str]]

HEAVY = ["torch", "numpy", "PIL", "pandas", "transformers", "diffusers", "pyarrow"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ddpo", "rewards", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for index, level in enumerate((0, 51, 255)):
        Image.new("L", (8, 8 + index), level).save(tmp_path / "pictures" / f"{index}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["show", "compressibility"], ["show", "aesthetic", "--json"]])
def test_listing_and_showing_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, typer\nfrom ddpo.cli.rewards import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "compressibility" in done.stdout or "aesthetic" in done.stdout


def test_list_shows_every_builtin(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert [name for name in CARDS if name not in out] == []
    code, out, _ = run("list", "--json")
    records = {record.pop("id"): record for record in json.loads(out)}
    assert {name: records[name]["origin"] for name in CARDS} == dict.fromkeys(CARDS, "ddpo")


def test_show_tells_the_facts(run: Run) -> None:
    code, out, _ = run("show", "aesthetic")
    assert code == 0
    for fact in ("known flaws", "Apache-2.0", "MIT", "21dd590f3ccdc646", "head=None", "reward:aesthetic|version:1|"):
        assert fact in out
    _, out, _ = run("show", "aesthetic", "--json")
    record = json.loads(out)
    assert record.pop("origin") == "ddpo"
    assert record.pop("signature").startswith("reward:aesthetic|")
    assert RewardCard.from_dict(record) == CARDS["aesthetic"]


def test_score_prints_scores_summary_and_signature(run: Run, folder: Path) -> None:
    code, out, _ = run("score", "darkness", folder)
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["0.0000", "-0.2000", "-1.0000"]
    for part in ("-0.4 ", "0.52915", "reward:darkness|version:1|"):  # mean and standard deviation of 0, -0.2, -1 by hand
        assert part in out


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_score_writes_a_table(run: Run, folder: Path, tmp_path: Path, suffix: str) -> None:
    (folder / "1b.png").write_text("broken")
    out = tmp_path / "out" / f"scores.{suffix}"
    code, printed, _ = run("score", "darkness", folder, "--out", out)
    assert code == 0
    assert "unscorable" in printed
    assert "1b.png" in printed
    assert out.read_bytes()
    if suffix == "parquet":
        rows = pq.read_table(out).to_pylist()
        assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "1b.png", "2.png"]
        assert [row["score"] for row in rows] == pytest.approx([0, -0.2, None, -1], abs=1e-6)
        assert all(row["signature"].startswith("reward:darkness|") for row in rows)


def test_score_with_a_reward_of_a_file_and_prompts(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def words(images, prompts):\n    return [len(p.split()) for p in prompts]\n")
    (tmp_path / "prompts.txt").write_text("a\na b\na b c\n")
    spec = f"{tmp_path}/mine.py:words"
    code, out, _ = run("score", spec, folder, "--prompts", tmp_path / "prompts.txt")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["1.0000", "2.0000", "3.0000"]
    code, out, _ = run("score", spec, folder / "0.png", "--prompt", "two words")
    assert (code, out.split()[0]) == (0, "2.0000")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "compresibility"], 2, "did you mean 'compressibility'?"),
        (["score", "darknes", "{folder}"], 2, "did you mean 'darkness'?"),
        (["score", "aesthetic:haed=1", "{folder}"], 2, "did you mean 'head'?"),
        (["score", "darkness", "{folder}/absent"], 2, "no such file or folder"),
        (["score", "darkness", "{folder}", "--out", "x.xlsx"], 2, "unknown table format '.xlsx'"),
        (["score", "darkness", "{folder}", "--out", "{folder}/0.png/x.csv"], 2, "cannot be written"),
        (["score", "darkness", "{folder}", "--prompts", "absent.txt"], 2, "absent.txt cannot be read"),
        (["score", "darkness", "{folder}", "--prompt", "a", "--prompts", "b"], 2, "not both"),
        (["score", "darkness", "{folder}", "--batch-size", "0"], 2, "batch size must be at least 1"),
        (["score", "alignment", "{folder}", "--prompt", "a cat"], 2, "hf download"),
        (["score", "{folder}/r.py:broken", "{folder}"], 1, "reward 'broken' failed: ValueError: no"),
    ],
)
def test_mistakes_are_one_line(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    (folder / "r.py").write_text("def broken(images):\n    raise ValueError('no')\n")
    found, out, err = run(*[argument.format(folder=folder) for argument in arguments])
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
