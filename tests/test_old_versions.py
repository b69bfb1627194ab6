"""Runs, score caches, tables, evaluations and packages of commit d399994 still work.

`fixtures_of_old_versions/make.py` made them with that commit. The tests expect the results with
which that commit resumed its own runs.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from ddpo.eval import load_report
from ddpo.policies import policies
from ddpo.rewards.zoo import resolve, rewards
from ddpo.trainer.algorithms import algorithms

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[1]
OLD = Path(__file__).parent / "fixtures_of_old_versions" / "d399994"
VERSIONS: dict[str, str] = json.loads((OLD / "versions.json").read_text())
RESUMED: dict[str, dict[str, Any]] = json.loads((OLD / "resumed_runs.json").read_text())
IMAGE_TIME = 1_700_000_000_000_000_000
TRUST = ("--trust", "./redness.py:redness")  # code that a run names is named again
EVALUATION = (
    *("eval", *TRUST, "--checkpoint", "resumed/user_file", "--per-prompt", 2, "--steps", 3),
    *("--prompts", "two_prompts.txt", "--trained-prompts", "animals"),
    *("--history", 0, "--best-of", 0, "--no-held-out", "--out"),
)


def same_arithmetic() -> bool:
    """True if this machine rounds as the one of the fixtures did, as far as versions can tell."""
    cpu = (
        VERSIONS["cpu"] == torch.backends.cpu.get_cpu_capability()
        and platform.machine() == "x86_64"
    )
    return cpu and all(
        version(name) == number for name, number in VERSIONS.items() if name != "cpu"
    )


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all files of the commit, as the current directory, with its score cache in use."""
    folder = tmp_path / "work"
    shutil.copytree(OLD, folder)
    for image in (folder / "images").iterdir():
        os.utime(image, ns=(IMAGE_TIME, IMAGE_TIME))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DDPO_CACHE", str(folder / "cache"))
    monkeypatch.setenv("REDNESS_CALLS", str(tmp_path / "calls"))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where pip installed the packages that follow the patterns of the commit."""
    folder = tmp_path_factory.mktemp("old")
    sources = [OLD / "plugin_package", *sorted((OLD / "scaffolds").iterdir())]
    for source in sources:
        shutil.copytree(source, folder / source.name)  # building leaves files in the source folder
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    command += [
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        "--target",
        str(folder / "site"),
    ]
    done = subprocess.run(
        [*command, *(str(folder / source.name) for source in sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The packages can be imported, and the registries look for entry points anew."""
    monkeypatch.syspath_prepend(str(site))
    for registry in (rewards, algorithms, policies):
        monkeypatch.setattr(registry, "_entries", None)
    yield
    for name in [name for name in sys.modules if name.startswith(("ddpo_test_plugin", "mylab_"))]:
        del sys.modules[name]


def scored_images(work: Path) -> int:
    """How many images the user's reward was called with."""
    calls = work.parent / "calls"
    return len(calls.read_text()) if calls.exists() else 0


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same(found: Any, due: Any, rel: float = 0.02, abs: float = 2e-3) -> bool:
    """True if two values of JSON are the same, or close where this machine may round otherwise."""
    if isinstance(due, dict):
        return isinstance(found, dict) and all(
            name in found and same(found[name], due[name], rel, abs) for name in due
        )
    if isinstance(due, list):
        return len(found) == len(due) and all(
            same(*pair, rel, abs) for pair in zip(found, due, strict=True)
        )
    if isinstance(due, float) and not same_arithmetic():
        return bool(found == pytest.approx(due, rel=rel, abs=abs))
    return bool(found == due)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", sorted(RESUMED))
def test_a_killed_run_resumes_to_the_end_with_the_numbers_of_its_own_version(
    name: str, work: Path, ddpo: Run
) -> None:
    run = work / "runs" / name
    due = RESUMED[name]
    assert [row["iteration"] for row in metrics(run)] == [1]
    code, _, error = ddpo("train", "--resume", run.relative_to(work), *TRUST)
    assert code == 0, error
    rows = metrics(run)
    assert rows[:1] == metrics(OLD / "runs" / name)
    assert same(rows, due["metrics"])
    (file,) = (run / "checkpoints" / "iteration-000002").glob("*.safetensors")
    tensors = {
        tensor: value.astype(np.float64) for tensor, value in sorted(load_file(file).items())
    }
    sizes = {
        tensor: [float(np.abs(value).mean()), float(value.mean())]
        for tensor, value in tensors.items()
    }
    assert same(sizes, due["tensors"])
    digest = hashlib.sha256(
        b"".join(tensor.encode() + value.tobytes() for tensor, value in tensors.items())
    ).hexdigest()
    assert digest == due["sha256"] or not same_arithmetic()


def test_a_finished_run_resumes(work: Path, ddpo: Run) -> None:
    run = work / "resumed" / "user_file"
    code, _, error = ddpo("train", "--resume", run, "--iterations", 3, *TRUST)
    assert code == 0, error
    rows = metrics(run)
    assert rows[:2] == metrics(OLD / "resumed" / "user_file")
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert scored_images(work) >= 8


def change_card(run: Path, **fields: Any) -> None:
    """Writes a run's manifest as if its reward's card had other fields when the run was started."""
    manifest = json.loads((run / "manifest.json").read_text())
    assert set(fields) <= set(manifest["reward"]["card"])
    manifest["reward"]["card"] |= fields
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["catalogue", "composed"])
def test_the_module_of_a_reward_may_have_moved(name: str, work: Path, ddpo: Run) -> None:
    run = work / "runs" / name
    change_card(run, load="ddpo.another_place:AnotherName")
    code, _, error = ddpo("train", "--resume", run)
    assert code == 0, error
    assert [row["iteration"] for row in metrics(run)] == [1, 2]


@pytest.mark.parametrize(
    "field",
    [
        {"version": "0"},
        {"preprocessing": "another"},
        {"pixels": "float"},
        {"dtype": "float16"},
        {"direction": "lower"},
        {"unit": "stones"},
    ],
    ids=lambda field: next(iter(field)),
)
def test_a_reward_that_scores_otherwise_refuses_the_run(
    field: dict[str, str], work: Path, ddpo: Run
) -> None:
    change_card(work / "runs" / "catalogue", **field)
    code, _, error = ddpo("train", "--resume", "runs/catalogue")
    assert (code, error.count("\n")) == (2, 1)
    assert "the reward 'compressibility' is not the one that it was started with" in error


def test_a_changed_file_of_a_user_refuses_the_run(work: Path, ddpo: Run) -> None:
    (work / "redness.py").write_text((work / "redness.py").read_text() + "\nEDITED = True\n")
    code, _, error = ddpo("train", "--resume", "runs/user_file", *TRUST)
    assert code == 2
    assert "is not the one that it was started with" in error


def scores_of(table: Path) -> dict[tuple[str, str], float]:
    """File and reward → score of a table."""
    if table.suffix == ".parquet":
        rows = pd.read_parquet(table).to_dict("records")
    elif table.suffix == ".csv":
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert {row["status"] for row in rows} == {"scored"}
    return {(row["file"], row["reward"]): float(row["score"]) for row in rows}


@pytest.mark.usefixtures("installed")
def test_cached_scores_are_served_without_a_call(
    work: Path, ddpo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("ddpo_test_plugin.sharpness")
    called: list[Any] = []
    own = module.sharpness
    monkeypatch.setattr(module, "sharpness", lambda image: called.append(image) or own(image))
    command = (
        "rewards",
        "score",
        "./redness.py:redness",
        "test/sharpness",
        "images",
        "--cache",
        "--out",
    )
    code, _, error = ddpo(*command, "served.jsonl")
    assert code == 0, error
    assert scores_of(work / "served.jsonl") == scores_of(OLD / "scores.jsonl")
    assert (scored_images(work), len(called)) == (0, 0)
    monkeypatch.setenv("DDPO_CACHE", str(work / "empty"))
    code, _, error = ddpo(*command, "computed.jsonl")
    assert code == 0, error
    assert scores_of(work / "computed.jsonl") == pytest.approx(
        scores_of(OLD / "scores.jsonl"), rel=1e-6
    )
    assert (scored_images(work), len(called)) == (6, 6)


def test_a_cache_is_listed(work: Path, ddpo: Run) -> None:
    code, output, error = ddpo("cache", "stats")
    assert code == 0, error
    assert "redness" in output
    assert "test/sharpness" in output


@pytest.mark.parametrize("name", ["imagereward", "nsfw", "pickscore"])
def test_scores_of_the_zoo_are_kept_under_the_same_identity(name: str) -> None:
    """The rewards with weights whose scores have not changed; library versions may differ."""
    card = rewards.get(name)
    due = dict(
        part.split(":", 1)
        for part in json.loads((OLD / "identities.json").read_text())[name].split("|")
    )
    found = dict(part.split(":", 1) for part in resolve(name).identity.split("|"))
    assert set(found) == set(due)
    assert {part: text for part, text in found.items() if part not in card.libraries} == {
        part: text for part, text in due.items() if part not in card.libraries
    }


def test_a_killed_scoring_resumes_where_it_stopped(work: Path, ddpo: Run) -> None:
    assert not (work / "stopped.jsonl").exists()
    code, _, error = ddpo(
        "rewards",
        "score",
        "./redness.py:redness",
        "images",
        "--out",
        "stopped.jsonl",
        "--no-cache",
        "--batch-size",
        1,
    )
    assert code == 0, error
    assert scored_images(work) == 3, "three of six were scored before"
    due = {
        key: score for key, score in scores_of(OLD / "scores.jsonl").items() if key[1] == "redness"
    }
    assert scores_of(work / "stopped.jsonl") == pytest.approx(due, rel=1e-6)


@pytest.mark.parametrize(
    ("table", "command"),
    [
        ("scores.parquet", ("compressibility", "images")),
        ("group_scores.csv", ("vendi:features=pixels", "images", "--prompt", "a cat")),
    ],
)
def test_tables_have_the_same_columns_and_scores(
    table: str, command: tuple[str, ...], work: Path, ddpo: Run
) -> None:
    code, _, error = ddpo("rewards", "score", *command, "--out", f"new_{table}")
    assert code == 0, error
    found = scores_of(work / f"new_{table}")
    due = scores_of(OLD / table)
    assert found == (due if same_arithmetic() else pytest.approx(due, rel=0.02))
    read = pd.read_parquet if table.endswith("parquet") else pd.read_csv
    assert list(read(work / f"new_{table}").columns) == list(read(OLD / table).columns)


def test_a_validation_has_the_same_figures(work: Path, ddpo: Run) -> None:
    command = (
        "rewards",
        "validate",
        "compressibility",
        "--preferences",
        "choices.jsonl",
        "--images",
        "images",
        "--out",
        "new.json",
    )
    code, _, error = ddpo(*command)
    assert code == 0, error
    due = json.loads((OLD / "validation.json").read_text())
    due = {name: value for name, value in due.items() if name != "signature"}
    assert same(json.loads((work / "new.json").read_text()), due)


def test_a_stored_reference_standardises_as_before(work: Path, ddpo: Run) -> None:
    code, _, error = ddpo(
        "rewards",
        "score",
        "compressibility:z=reference.json",
        "images",
        "--out",
        "standardised.jsonl",
    )
    assert code == 0, error
    values = np.array(list(scores_of(work / "standardised.jsonl").values()))
    assert (values.mean(), values.std()) == (pytest.approx(0, abs=1e-4), pytest.approx(1, abs=0.1))


def images_of(evaluation: Path) -> dict[str, int]:
    """Name of each stored image → when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in (evaluation / "images").rglob("*.png")}


def gains(evaluation: Path) -> list[list[Any]]:
    """Model, split, reward and the means of base and tuned model of each gain in a report."""
    found = load_report(evaluation / "report.json").gains
    return [
        [one.model, one.split, one.reward, one.paired.base_mean, one.paired.tuned_mean]
        for one in found
    ]


def test_a_finished_evaluation_is_served(work: Path, ddpo: Run) -> None:
    due = gains(work / "evaluation")
    sampled = images_of(work / "evaluation")
    assert due
    code, _, error = ddpo(*EVALUATION, "evaluation")
    assert code == 0, error
    assert scored_images(work) == 0
    assert images_of(work / "evaluation") == sampled
    assert gains(work / "evaluation") == due


def test_an_evaluation_killed_while_sampling_resumes_where_it_stopped(
    work: Path, ddpo: Run
) -> None:
    stopped = work / "stopped_sampling"
    finished = work / "evaluation"
    sampled = images_of(stopped)
    assert 0 < len(sampled) < len(images_of(finished))
    code, _, error = ddpo(*EVALUATION, stopped.name)
    assert code == 0, error
    after = images_of(stopped)
    assert {name: after[name] for name in sampled} == sampled, "no image is made again"
    assert len(after) == len(images_of(finished))
    assert set(after) == set(images_of(finished)) or not same_arithmetic()
    assert same(gains(stopped), gains(OLD / "evaluation"))


def test_an_evaluation_killed_while_scoring_resumes_where_it_stopped(work: Path, ddpo: Run) -> None:
    stopped = work / "stopped_scoring"
    sampled = images_of(stopped)
    journal = (stopped / "scores-0.jsonl").read_bytes()
    assert not (stopped / "report.json").exists()
    code, _, error = ddpo(*EVALUATION, stopped.name)
    assert code == 0, error
    assert images_of(stopped) == sampled, "no image is made again"
    assert (stopped / "scores-0.jsonl").read_bytes() == journal, "no image is scored again"
    assert scored_images(work) > 0, "the edited images that give the noise floor"
    assert gains(stopped) == gains(OLD / "evaluation")


@pytest.mark.parametrize("path", json.loads((OLD / "import_paths.json").read_text()))
def test_every_import_path_that_users_were_given_is_there(path: str, installed: None) -> None:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(
        "ddpo_test_plugin" if module.startswith("ddpo_test_plugin") else "ddpo"
    )
    for part in [*module.split(".")[1:], *([name] if name else [])]:
        if not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)


@pytest.mark.usefixtures("installed")
def test_rewards_of_packages_and_files_score_as_they_did(work: Path, ddpo: Run) -> None:
    names = [
        "mylab/function",
        "mylab/class",
        "mylab/model",
        "./my_reward.py:redness",
        "./my_reward.py:MyReward",
    ]
    code, _, error = ddpo("rewards", "score", *names, "images", "--out", "own.jsonl", "--no-cache")
    assert code == 0, error
    found = scores_of(work / "own.jsonl")
    assert len(found) == 30
    from PIL import Image

    for file in sorted((work / "images").iterdir()):
        pixels = np.asarray(Image.open(file)).astype(float) / 255
        due = {
            "mylab/function": pixels.mean(),
            "mylab/class": pixels.mean(2).var(),
            "redness": (255 * (pixels[..., 0] - pixels[..., 1:].max(2)) > 32).mean(),
            "my_contrast": pixels.mean(2).std(),
        }
        own = {reward: found[f"images/{file.name}", reward] for reward in due}
        assert own == pytest.approx(due, rel=1e-4)


@pytest.mark.slow
def test_the_tests_that_new_packages_came_with_pass(site: Path, work: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *map(str, sorted((work / "scaffolds").glob("*/tests/*.py"))),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        cwd=work / "scaffolds",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
