"""`ddpo rewards score`, through the program's own entry."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.warm_start import run_ddpo, start_ddpo

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(ddpo: Run) -> Run:
    return partial(ddpo, "rewards")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for index, level in enumerate((0, 51, 255)):
        Image.new("L", (8, 8 + index), level).save(tmp_path / "images" / f"{index}.png")
    return tmp_path / "images"


def script(folder: Path, text: str) -> str:
    """The specification of a function `mine` in a file."""
    (folder / "mine.py").write_text(text)
    return f"{folder}/mine.py:mine"


def test_prints_scores_summary_and_signature(run: Run, folder: Path) -> None:
    code, out, _ = run("score", "darkness", folder)
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["0.0000", "-0.2000", "-1.0000"]
    for part in (
        "-0.4 ",
        "0.5292",
        "best  darkness: 0.png 0",
        "worst darkness: 2.png -1",
        "reward:darkness|version:1|",
    ):
        assert part in out  # mean and standard deviation of 0, -0.2, -1 by hand


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_writes_a_table(run: Run, folder: Path, tmp_path: Path, suffix: str) -> None:
    (folder / "1b.png").write_text("broken")
    out = tmp_path / "out" / f"scores.{suffix}"
    code, printed, _ = run("score", "darkness", folder, "--out", out)
    assert code == 0
    assert "unscorable" in printed
    assert "1b.png" in printed
    assert [path.name for path in out.parent.iterdir()] == [out.name]  # the journal is gone
    if suffix == "parquet":
        rows = pq.read_table(out).to_pylist()
        assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "1b.png", "2.png"]
        assert [row["score"] for row in rows] == pytest.approx([0, -0.2, None, -1], abs=1e-6)
        assert all(row["signature"].startswith("reward:darkness|") for row in rows)


def test_several_rewards_at_once_with_options_and_weights(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    spec = script(
        tmp_path,
        "def mine(images, power=1.0):\n    return [(i.mean() / 255) ** power for i in images]\n",
    )
    out = tmp_path / "s.jsonl"
    sheet = tmp_path / "sheet.png"
    code, printed, _ = run(
        "score",
        "darkness",
        f"{spec}:power=2.0",
        spec,
        "darkness:0.5",
        folder,
        "--out",
        out,
        "--contact-sheet",
        sheet,
    )
    assert code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3 * 4
    by_reward = {
        name: [row["score"] for row in rows if row["reward"] == name]
        for name in dict.fromkeys(row["reward"] for row in rows)
    }
    assert list(by_reward.values()) == [
        pytest.approx(scores, abs=1e-6)
        for scores in ([0, -0.2, -1], [0, 0.04, 1], [0, 0.2, 1], [0, -0.1, -0.5])
    ]
    assert printed.count("|version:") == 4
    with Image.open(sheet) as image:
        assert image.size[1] == 8 * 180 - 2  # two rows for each reward


def test_a_reward_of_a_file_and_prompts(run: Run, folder: Path, tmp_path: Path) -> None:
    spec = script(
        tmp_path, "def mine(images, prompts):\n    return [len(p.split()) for p in prompts]\n"
    )
    (tmp_path / "prompts.txt").write_text("a\na b\na b c\n")
    code, out, _ = run("score", spec, folder, "--prompts", tmp_path / "prompts.txt")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["1.0000", "2.0000", "3.0000"]
    code, out, _ = run("score", spec, folder / "0.png", "--prompt", "two words")
    assert (code, out.split()[0]) == (0, "2.0000")
    (folder / "0.txt").write_text("beside the image")
    code, out, _ = run("score", spec, folder)
    assert code == 0
    assert next(line.split()[0] for line in out.splitlines() if ".png" in line) == "3.0000"
    assert out.count("it has no prompt") == 2


def test_the_second_time_an_expensive_reward_is_not_called(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    text = f"def mine(images):\n    with open({str(tmp_path / 'calls')!r}, 'a') as file:\n"
    text += "        file.write('x' * len(images))\n"
    spec = script(tmp_path, text + "    return images.mean((1, 2, 3))\n")
    outs = [run("score", spec, folder, "--cache")[1] for _ in range(2)]
    assert len((tmp_path / "calls").read_text()) == 3
    assert outs[0].splitlines()[:3] == outs[1].splitlines()[:3]
    assert "cached" in outs[1]
    (folder / "0.png").rename(folder / "9.png")  # another name, the same pixels
    run("score", spec, folder, "--cache")
    assert len((tmp_path / "calls").read_text()) == 3
    run("score", spec, folder, "--no-cache")
    assert len((tmp_path / "calls").read_text()) == 6
    run(
        "score", spec, folder
    )  # code of a user's own may read anything: it is not looked up unless asked
    assert len((tmp_path / "calls").read_text()) == 9


@pytest.mark.parametrize("changed", ["weights/w.json", "helper.py", "pkg/sub.py", "link.txt"])
@pytest.mark.parametrize("cache", [("--cache",), ()])
def test_a_file_beside_the_reward_that_changed_is_never_passed_over(
    run: Run, folder: Path, tmp_path: Path, changed: str, cache: tuple[str, ...]
) -> None:
    """The score is the sum of four ones from two modules and two data files; then one is 5."""
    for name in ("weights", "pkg"):
        (tmp_path / name).mkdir()
    for name in ("weights/w.json", "real.txt"):
        (tmp_path / name).write_text("1")
    (tmp_path / "link.txt").symlink_to("real.txt")
    (tmp_path / "helper.py").write_text("from pkg.sub import J\nK = 1\n")
    (tmp_path / "pkg" / "sub.py").write_text("J = 1\n")
    spec = script(
        tmp_path,
        "from pathlib import Path\nHERE = Path(__file__).parent\n"
        "def mine(images):\n    import helper\n"
        "    read = (HERE / 'weights' / 'w.json').read_text(), (HERE / 'link.txt').read_text()\n"
        "    return [helper.J + helper.K + sum(map(int, read))] * len(images)\n",
    )
    assert {line.split()[0] for line in run("score", spec, folder, *cache)[1].splitlines()[:3]} == {
        "4.0000"
    }
    path = tmp_path / changed
    path.write_text(path.read_text().replace("1", "5"))
    assert {line.split()[0] for line in run("score", spec, folder, *cache)[1].splitlines()[:3]} == {
        "8.0000"
    }


def test_an_edited_function_is_called_again(run: Run, folder: Path, tmp_path: Path) -> None:
    first = run(
        "score", script(tmp_path, "def mine(images):\n    return images.mean((1, 2, 3))\n"), folder
    )[1]
    second = run(
        "score",
        script(tmp_path, "def mine(images):\n    return images.mean((1, 2, 3)) + 1\n"),
        folder,
    )[1]
    assert [
        float(b.split()[0]) - float(a.split()[0])
        for a, b in zip(first.splitlines()[:3], second.splitlines()[:3], strict=True)
    ] == [
        1,
        1,
        1,
    ]


def test_an_image_that_breaks_the_reward_is_named_and_the_others_are_scored(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    spec = script(
        tmp_path,
        "def mine(images):\n    if images.max() == 255:\n"
        "        raise ValueError('too bright')\n    return images.mean((1, 2, 3))\n",
    )
    code, out, err = run("score", spec, folder, "--out", tmp_path / "s.csv")
    assert code == 1
    assert f"failed  {folder}/2.png: reward 'mine' failed: mine.py:" in out
    assert ": ValueError: too bright" in out
    assert "1 score could not be computed because a reward failed; the others stand" in err
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1.0] * (len(images) + 1)", "the function returned"),
        ("return [float('nan')] * len(images)", "the score of image 0 is nan"),
        ("import time; time.sleep(60)", "no answer within 0.2 s"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_what_a_reward_does_wrong_is_reported_for_each_image(
    run: Run, folder: Path, tmp_path: Path, body: str, message: str
) -> None:
    started = time.perf_counter()
    code, out, _ = run(
        "score", script(tmp_path, f"def mine(images):\n    {body}\n"), folder, "--timeout", "0.2"
    )
    assert time.perf_counter() - started < 20
    assert code == 1
    assert [message in line for line in out.splitlines() if line.startswith("failed")] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["darknes", "{folder}"], "did you mean 'darkness'?"),
        (["aesthetic:haed=1", "{folder}"], "did you mean 'head'?"),
        (["darkness", "{folder}/absent"], "no such file or folder"),
        (["darkness"], "name a reward and images, as in: ddpo rewards score"),
        (["darkness", "darkness", "{folder}"], "is given twice"),
        (["darkness", "{folder}", "--out", "x.xlsx"], "unknown table format '.xlsx'"),
        (["darkness", "{folder}", "--out", "{folder}/0.png/x.csv"], "cannot be written"),
        (["darkness", "{folder}", "--contact-sheet", "x.jpg"], "must end in .png"),
        (["darkness", "{folder}", "--prompts", "absent.txt"], "absent.txt: no such file"),
        (["darkness", "{folder}", "--prompt", "a", "--prompts", "b"], "not both"),
        (
            ["darkness", "{folder}", "--batch-size", "0"],
            "--batch-size must be at least 1 and at most 65,536, got 0",
        ),
        (["darkness", "{folder}", "--timeout", "0"], "--timeout must be above 0"),
        (
            ["alignment", "{folder}"],
            "judges an image by its prompt: give --prompts FILE or --prompt TEXT",
        ),
        (["alignment", "{folder}", "--prompt", "a cat"], "ddpo rewards download alignment"),
    ],
)
def test_mistakes_are_one_line(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = run("score", *[argument.format(folder=folder) for argument in arguments])
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_killed_scoring_resumes_where_it_was(tmp_path: Path) -> None:
    """After a SIGKILL the second run scores only the rest; the table is that of a whole run."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(60):
        Image.new("L", (8, 8), index).save(images / f"{index:02}.png")
    calls = tmp_path / "calls"
    text = "def mine(images):\n    import time\n    time.sleep(0.02 * len(images))\n"
    text += f"    with open({str(calls)!r}, 'a') as file:\n        file.write('x' * len(images))\n"
    text += "    return images.mean((1, 2, 3))\n"
    words = ["rewards", "score", script(tmp_path, text), images, "--batch-size", "4"]
    words += ["--no-cache", "--out", tmp_path / "scores.jsonl"]
    first = start_ddpo(*words)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (calls.exists() and len(calls.read_text()) >= 20):
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = len(calls.read_text())
    assert 20 <= before < 60
    done = run_ddpo(*words)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [row["score"] for row in rows] == list(range(60))
    assert (
        len(calls.read_text()) - 60 <= 8
    )  # at most what was under way when it was killed was scored twice
