"""A run works from any directory, under any spelling of its path, and after a move.

Its files are compared by content.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]

SMALL = (
    "--set",
    "sample.samples=4",
    "--set",
    "sample.per_prompt=2",
    "--set",
    "sample.steps=2",
    "--set",
    "sample.batch=4",
    "--set",
    "optim.timesteps=1",
    "--set",
    "optim.updates=1",
    "--set",
    "optim.skip_last=0",
)
QUICK = (
    "--per-prompt",
    "1",
    "--history",
    "0",
    "--best-of",
    "0",
    "--no-held-out",
    "--prompts",
    "unseen.txt",
)
REWARD = """
from pathlib import Path
import helper

class Red:
    from ddpo.rewards.card import RewardCard
    card = RewardCard(id="red", version="1", summary="s", load="r:Red", family="test", flaws="none")
    def __call__(self, batch):
        from ddpo.types import RewardOutput
        bias = float((Path(__file__).parent / "data" / "bias.txt").read_text())
        return RewardOutput(batch.pixels[:, 0].mean((1, 2)) * helper.SCALE + bias)
"""


@pytest.fixture
def project(ddpo: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a reward, its helper and data, prompts and a run, all under relative paths."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "r.py").write_text(REWARD)
    (folder / "helper.py").write_text("SCALE = 2.0\n")
    (folder / "data" / "bias.txt").write_text("0.5")
    (folder / "p.txt").write_text("a cat\na dog\n")
    (tmp_path / "elsewhere" / "unseen.txt").write_text("a fox\n")
    shutil.copytree(tiny_model, folder / "model")
    monkeypatch.chdir(folder)
    options = (
        "--reward",
        "r.py:Red",
        "--reward",
        "darkness:0.5",
        "--prompts",
        "p.txt",
        "--model",
        "model",
    )
    code, _, errors = ddpo("train", *options, "--iterations", "1", "--out", "runs/x", *SMALL)
    assert code == 0, errors
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def config(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "config.json").read_text())
    return values


def test_resume_evaluation_export_and_sample_from_another_directory(
    ddpo: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "linked").symlink_to(project / "runs" / "x")
    said_again = (
        "--reward",
        "../project/./r.py:Red",
        "--reward",
        "darkness:0.5",
        "--prompts",
        str(project / "p.txt"),
    )
    assert ddpo("train", "--resume", "../project/runs/x/", "--iterations", "2", *said_again)[0] == 0
    trust = ("--trust", f"{project}/r.py:Red")
    assert ddpo("train", "--resume", tmp_path / "linked", "--iterations", "3", *trust)[0] == 0
    words = ("--checkpoint", "../project/runs/../runs/x", *QUICK, *trust)
    assert ddpo("eval", *words, "--out", "e")[0] == 0
    assert ddpo("export", "../project/runs/x", "--out", "exported")[0] == 0
    assert (
        ddpo("sample", "--checkpoint", "../linked", "a cat", "--per-prompt", "1", "--out", "drawn")[
            0
        ]
        == 0
    )
    monkeypatch.chdir(project / "runs" / "x" / "checkpoints" / "iteration-000003")
    (Path.cwd() / "unseen.txt").write_text("a fox\n")
    code, output, errors = ddpo(
        "eval", "--checkpoint", ".", *QUICK, *trust, "--out", tmp_path / "e2"
    )
    assert code == 0, errors
    assert (
        "iteration 3, trained on" in output
    )  # the facts of the run are found from inside a checkpoint


def test_a_project_that_moved_as_a_whole_is_whole(ddpo: Run, project: Path, tmp_path: Path) -> None:
    project.rename(tmp_path / "moved")
    trust = ("--trust", "../moved/r.py:Red")
    code, _, errors = ddpo("train", "--resume", "../moved/runs/x", "--iterations", "2", *trust)
    assert code == 0, errors
    assert config(tmp_path / "moved" / "runs" / "x")["prompts"] == str(tmp_path / "moved" / "p.txt")
    code, _, errors = ddpo("eval", "--checkpoint", "../moved/runs/x", *QUICK, *trust, "--out", "e")
    assert code == 0, errors


@pytest.mark.parametrize(
    ("file", "option"),
    [
        ("r.py", ("--reward", "../kept/r.py:Red", "--reward", "darkness:0.5")),
        ("p.txt", ("--prompts", "../kept/p.txt")),
    ],
)
def test_a_file_that_moved_alone_is_named_and_its_new_place_is_taken(
    ddpo: Run, project: Path, tmp_path: Path, file: str, option: tuple[str, ...]
) -> None:
    shutil.copytree(project, tmp_path / "kept", ignore=shutil.ignore_patterns("runs", "model"))
    (project / file).unlink()
    code, _, errors = ddpo("train", "--resume", project / "runs" / "x", "--iterations", "2")
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    assert f"{project / file} of its setting" in errors
    assert f"with {option[0]} PATH" in errors
    trust = ("--trust", f"{project}/r.py:Red")
    code, _, errors = ddpo(
        "train", "--resume", project / "runs" / "x", "--iterations", "2", *option, *trust
    )
    assert code == 0, errors
    assert str(tmp_path / "kept" / file) in json.dumps(config(project / "runs" / "x"))


@pytest.mark.parametrize("file", ["r.py", "helper.py", "data/bias.txt"])
def test_a_changed_file_of_the_reward_is_named(ddpo: Run, project: Path, file: str) -> None:
    path = project / file
    path.write_text(
        path.read_text().replace("0.5", "0.75").replace("2.0", "2.5").replace("[:, 0]", "[:, 1]")
    )
    words = (
        "--resume",
        project / "runs" / "x",
        "--iterations",
        "2",
        "--trust",
        f"{project}/r.py:Red",
    )
    code, _, errors = ddpo("train", *words)
    assert code == 2
    assert f"is not the one that it was started with: {Path(file)} has changed" in errors


@pytest.mark.parametrize(
    "option",
    [
        ("--reward", "../other/r.py:Red", "--reward", "darkness:0.5"),
        ("--prompts", "../other/p.txt"),
        ("--reward", "darkness"),
    ],
)
def test_another_content_under_a_new_path_is_refused(
    ddpo: Run, project: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    shutil.copytree(project, tmp_path / "other", ignore=shutil.ignore_patterns("runs", "model"))
    (tmp_path / "other" / "helper.py").write_text("SCALE = 3.0\n")
    (tmp_path / "other" / "p.txt").write_text("a cat\na cow\n")
    trust = ("--trust", f"{project}/r.py:Red")
    code, _, errors = ddpo(
        "train", "--resume", project / "runs" / "x", "--iterations", "2", *option, *trust
    )
    assert code == 2
    assert "started with" in errors
    assert config(project / "runs" / "x")["iterations"] == 1


def test_a_run_of_an_earlier_version_resumes_where_it_was_made(
    ddpo: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kept paths as they were typed, and no hashes of the files beside the reward."""
    run = project / "runs" / "x"
    manifest = json.loads((run / "manifest.json").read_text())
    relative = config(run) | {
        "reward": "r.py:Red + darkness:0.5",
        "prompts": "p.txt",
        "model": "model",
    }
    del manifest["folder"], manifest["reward"]["files"]
    (run / "config.json").write_text(json.dumps(relative))
    (run / "manifest.json").write_text(json.dumps(manifest | {"config": relative}))
    code, _, errors = ddpo("train", "--resume", run, "--iterations", "2")
    assert code == 2
    assert "r.py of its setting reward is not there" in errors
    monkeypatch.chdir(project)
    trust = ("--trust", "./r.py:Red")
    code, _, errors = ddpo("train", "--resume", "runs/x", "--iterations", "2", *trust)
    assert code == 0, errors
    assert config(run)["reward"] == f"{project}/r.py:Red + darkness:0.5"
