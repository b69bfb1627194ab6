"""Somebody else's run folder is data: what it names is neither run nor called, read or written."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile_folders import TRICKS, Bait, edit_settings

from ddpo.errors import UntrustedError
from ddpo.eval import evaluate
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.trainer import resume

Run = Callable[..., tuple[int, str, str]]

SIZES = ("samples=4", "per_prompt=2", "steps=2", "batch=4")
SMALL = tuple(word for size in SIZES for word in ("--set", f"sample.{size}"))
SMALL += ("--set", "optim.timesteps=1", "--set", "optim.updates=1", "--set", "optim.skip_last=0")
SMALL += ("--set", "checkpoint_every=1", "--iterations", "1", "--prompts", "p.txt")
QUICK = ("--per-prompt", "1", "--best-of", "0", "--no-held-out", "--prompts", "unseen.txt")
REWARD = """
def brightness(images):
    return [float(image.mean()) for image in images]
"""
TOKENS = {"DDPO_REWARD_TOKEN": "token-of-the-user", "OPENAI_API_KEY": "key-of-the-user"}


@pytest.fixture(scope="module")
def honest(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prompts and an honest run of two checkpoints."""
    from ddpo.trainer import config_for, train

    folder = tmp_path_factory.mktemp("honest")
    (folder / "p.txt").write_text("a cat\na dog\n")
    (folder / "unseen.txt").write_text("a fox\n")
    sample = {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 4}
    values = {
        "reward": "darkness",
        "model": str(tiny_model),
        "prompts": str(folder / "p.txt"),
        "iterations": 2,
        "checkpoint_every": 1,
        "sample": sample,
        "optim": {"updates": 1, "timesteps": 1, "skip_last": 0},
    }
    for _ in train(config_for(values), folder / "run"):
        pass
    return folder


@pytest.fixture
def bait(tmp_path: Path) -> Iterator[Bait]:
    found = Bait(tmp_path / "bait")
    yield found
    found.close()


@pytest.fixture
def place(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the honest folder, which is the current one, with the user's tokens set."""
    shutil.copytree(honest, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "place"


COMMANDS = {
    "sample": ("sample", "a cat", "--per-prompt", "1", "--checkpoint", "RUN", "--out", "OUT"),
    "export": ("export", "RUN", "--out", "OUT"),
    "export best": ("export", "RUN/best", "--out", "OUT"),
    "eval": ("eval", "--checkpoint", "RUN", *QUICK, "--history", "1", "--out", "OUT"),
    "resume": ("train", "--resume", "RUN", "--iterations", "3"),
}
ENDS = {
    "reward": {"sample": 0, "export": 0, "eval": 2, "resume": 2},
    "trained parts": {"sample": 0, "export": 0, "eval": 0, "resume": 2},
    "checkpoint": {"sample": 2, "export": 2, "eval": 2, "resume": 0},
    "metrics": {"resume": 2},
    "all": {"sample": 2, "export": 2, "eval": 2, "resume": 2},
}
DUE = {
    **{name: "reward" for name in TRICKS if name.startswith("reward of")},
    "part of a sum": "reward",
    "served reward": "reward",
    "server in an option": "reward",
    "held-out reward": "trained parts",
    "algorithm": "trained parts",
    "model of a file": "all",
    "model of a module": "all",
    "weights outside": "checkpoint",
    "linked weights": "checkpoint",
    "linked metrics": "metrics",
    "pickles": "all",
}
"""Trick → the exit codes of the commands: work that does not need the code is done."""


@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_of_a_strangers_folder_runs_or_is_called(
    trick: str, place: Path, bait: Bait, ddpo: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = place / "run"
    TRICKS[trick](run, bait)
    shutil.copyfile("unseen.txt", run / "unseen.txt")
    monkeypatch.chdir(run)
    for name, words in COMMANDS.items():
        out = tmp_path / f"out of {name}"
        given = [word.replace("RUN", str(run)).replace("OUT", str(out)) for word in words]
        code, output, error = ddpo(*given)
        assert bait.taken == "", name
        assert code in (0, 1, 2), (name, error)
        assert "Traceback" not in error, name
        if code == 2:
            lines = [line for line in error.splitlines() if line.startswith("error:")]
            assert len(lines) == 1, error
        assert not any(token in output + error for token in TOKENS.values())
        due = ENDS.get(DUE.get(trick, ""), {}).get(name)
        assert due is None or code == due, (name, output, error)
        for file in out.rglob("*") if code == 2 else ():
            assert not file.is_file() or b"a secret outside" not in file.read_bytes()


def test_the_error_names_the_file_the_code_and_the_option_and_the_option_works(
    place: Path, bait: Bait, ddpo: Run
) -> None:
    word = f"{bait.plant(place / 'run' / 'x.py')}:P"
    edit_settings(place / "run", algorithm=word)
    code, _, error = ddpo("train", "--resume", "run", "--iterations", "3")
    assert code == 2
    assert "run/config.json names" in error
    assert f"--trust {word}" in error
    assert not bait.file.exists()
    ddpo("train", "--resume", "run", "--iterations", "3", "--trust", "run/x.py:P")
    assert bait.file.exists()  # the user named that file, with another spelling of its path


@pytest.mark.parametrize("other", ["run/y.py:P", "run/x.py:Q", "x:P", "run/x.py"])
def test_another_word_is_not_that_word(other: str, place: Path, bait: Bait, ddpo: Run) -> None:
    edit_settings(place / "run", algorithm=f"{bait.plant(place / 'run' / 'x.py')}:P")
    code, _, error = ddpo("train", "--resume", "run", "--trust", other)
    assert code == 2
    assert "neither run nor called" in error
    assert bait.taken == ""


def test_a_run_of_ones_own_reward_resumes_by_the_printed_command(
    place: Path, tiny_model: Path, ddpo: Run
) -> None:
    Path("mine.py").write_text(REWARD)
    words = ("--reward", "./mine.py:brightness", "--model", tiny_model, "--out", "my run")
    code, output, error = ddpo("train", *words, *SMALL)
    assert code == 0, error
    command = next(line for line in output.splitlines() if line.startswith("Next: "))
    code, _, error = ddpo("train", "--reward", "darkness", "--out", "my run", *SMALL)
    printed = error[error.index("--resume") :].replace("\n", " ")
    assert code == 2
    assert f"--trust {place / 'mine.py'}:brightness" in printed
    assert ddpo("train", "--resume", "my run", "--iterations", "2")[0] == 2
    code, _, error = ddpo("train", *shlex.split(printed), "--iterations", "2")
    assert code == 0, error
    code, _, error = ddpo(*shlex.split(command.removeprefix("Next: ddpo ")), *QUICK)
    assert code == 0, error
    given = ("--reward", "./mine.py:brightness")
    code, _, error = ddpo("train", "--resume", "my run", "--iterations", "3", *given)
    assert code == 0, error


def test_an_evaluation_on_other_rewards_needs_no_strangers_reward(
    place: Path, bait: Bait, ddpo: Run
) -> None:
    edit_settings(place / "run", reward=f"{bait.plant(place / 'run' / 'x.py')}:P")
    words = ("--checkpoint", "run", "--reward", "colorfulness", *QUICK, "--history", "0")
    code, _, error = ddpo("eval", *words, "--out", "e")
    assert code == 0, error
    report = json.loads(Path("e/report.json").read_text())
    assert [reward["id"] for reward in report["rewards"]] == ["colorfulness"]
    assert any("neither run nor called" in note for note in report["notes"])
    assert bait.taken == ""


def test_python_refuses_as_the_command_line_does(place: Path, bait: Bait) -> None:
    run = place / "run"
    word = f"{bait.plant(run / 'x.py')}:P"
    edit_settings(run, reward=word)
    with pytest.raises(UntrustedError, match="neither run nor called"):
        next(resume(run, 3))
    with pytest.raises(UntrustedError, match="neither run nor called"):
        evaluate(checkpoints=(str(run),), out=place / "e")
    TRICKS["model of a file"](run, bait)
    with pytest.raises(UntrustedError, match=r"policy\.json names"):
        find_checkpoint(run)
    assert find_checkpoint(run, trust=[word]).model == word
    assert bait.taken == ""


def test_modules_of_the_current_folder_do_not_hide_libraries(place: Path, bait: Bait) -> None:
    TRICKS["modules in the folder"](place / "run", bait)
    command = [
        sys.executable,
        "-m",
        "ddpo",
        "sample",
        "a cat",
        "--checkpoint",
        ".",
        "--per-prompt",
        "1",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [*command, "--out", str(place / "images")],
        cwd=place / "run",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert bait.taken == ""


MARKUP = "<script>alert(1)</script> ![x](http://evil.example/x.png) | `code`\n# title"


def test_markup_of_a_strangers_run_reaches_no_page(place: Path, ddpo: Run) -> None:
    manifest = json.loads((place / "run" / "manifest.json").read_text())
    manifest["reward"]["card"] |= {"summary": MARKUP, "flaws": MARKUP}
    manifest["reward"]["signature"] = MARKUP
    manifest["prompts"]["list"] = [MARKUP, "a dog"]
    (place / "run" / "manifest.json").write_text(json.dumps(manifest))
    assert ddpo("export", "run", "--out", "exported")[0] == 0
    card = Path("exported/README.md").read_text()
    prose = [part for number, part in enumerate(card.split("```")) if number % 2 == 0]
    for line in "".join(prose).splitlines():
        outside_code = "".join(line.split("`")[::2])
        assert "<script" not in outside_code
        assert "![x]" not in outside_code
        assert not line.startswith("# title")
    words = ("eval", "--checkpoint", "run", "--per-prompt", "1", "--best-of", "0", "--history", "0")
    code, _, error = ddpo(*words, "--no-held-out", "--out", "e")
    assert code == 0, error
    page = Path("e/report.html").read_text()
    assert "<script>alert(1)" not in page
    assert 'src="http://evil.example' not in page
    assert "<script" not in Path("e/report.md").read_text()
