"""Algorithms and models of an installed package, a file or a module, and errors of bad ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpo.errors import ConfigError, RewardLoadError, UnknownNameError
from ddpo.policies import find_policy, load_policy, policies
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.policy import TrainablePolicy
from ddpo.trainer import config_for, resume, train
from ddpo.trainer.algorithms import algorithms, load_algorithm

ROOT = Path(__file__).parents[2]
SMALL = {"sample": {"samples": 8, "per_prompt": 4, "steps": 4, "batch": 8}}
FILE = """
class Mine:
    summary, defaults, likelihood = "test", {"iterations": 2}, "transition"
    def check(self, config): pass
    def weigh(self, rewards, prompt_ids, statistics, config):
        from ddpo.trainer.advantages import advantages
        return advantages(rewards, prompt_ids, statistics, config.advantage)
    def loss(self, now, old, weights, config):
        return -weights * now

class Incomplete:
    summary = "no loss"

class Other(Mine):
    likelihood = "latent"

class Needy(Mine):
    def __init__(self, temperature): pass

number = 3

def broken(device, dtype):
    raise ValueError("no such chip")

def not_a_model(device, dtype):
    return {}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the test package, installed by pip, offline."""
    folder = tmp_path_factory.mktemp("plugins")
    shutil.copytree(
        ROOT / "tests" / "plugin_package", folder / "source"
    )  # building leaves files in the source folder
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
        str(folder / "source"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package can be imported, and the registries look for entry points anew."""
    monkeypatch.syspath_prepend(str(site))
    for registry in (algorithms, policies):
        monkeypatch.setattr(registry, "_entries", None)
    yield
    for name in [name for name in sys.modules if name.startswith("ddpo_test_plugin")]:
        del sys.modules[name]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if not key.startswith("seconds")}
        for line in lines
    ]


@pytest.mark.usefixtures("installed")
def test_an_algorithm_and_a_model_of_a_package_train_by_their_names(
    tmp_path: Path, ddpo: Run
) -> None:
    settings = [f"sample.{key}={value}" for key, value in SMALL["sample"].items()] + [
        "adapt.kind=full"
    ]
    arguments = [part for setting in settings for part in ("--set", setting)]
    code, output, error = ddpo(
        "train",
        "--algorithm",
        "test/raft",
        "--model",
        "test/tiny",
        "--reward",
        "darkness",
        "--iterations",
        2,
        "--out",
        tmp_path / "run",
        *arguments,
    )
    assert code == 0, error
    assert "test/raft on test/tiny, full (111 parameters)" in " ".join(output.split())
    assert json.loads((tmp_path / "run" / "config.json").read_text())["optim"]["timesteps"] == 3, (
        "the algorithm's own default"
    )
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["origins"] == dict.fromkeys(
        ("algorithm", "model"), "ddpo-test-plugin 1.2.3"
    )
    assert [line["updates"] for line in metrics(tmp_path / "run")] == [2, 2]
    tuned = load_policy(find_checkpoint(tmp_path / "run").model, tmp_path / "run")
    assert not torch.equal(
        *(next(policy.trainable_parameters())[1] for policy in (tuned, _adapted("test/tiny")))
    )
    code, _, error = ddpo(
        "sample",
        "--checkpoint",
        tmp_path / "run",
        "a cat",
        "--per-prompt",
        2,
        "--steps",
        4,
        "--out",
        tmp_path / "drawn",
    )
    assert code == 0, error
    assert len(list((tmp_path / "drawn").glob("*-*.png"))) == 2
    code, _, error = ddpo("export", tmp_path / "run", "--out", tmp_path / "exported")
    assert (code, error.count("\n")) == (2, 1)
    assert "is of the model 'test/tiny', which diffusers cannot load" in error


@pytest.mark.usefixtures("installed")
def test_a_model_of_a_package_has_exact_ratios_and_resumes_to_the_bit(tmp_path: Path) -> None:
    config = config_for(
        {
            "model": "test/tiny",
            "reward": "darkness",
            "iterations": 3,
            "adapt": {"kind": "full"},
            "optim": {"timesteps": 2},
            **SMALL,
        }
    )
    list(train(config, tmp_path / "straight"))
    list(train(config_for({**config.to_dict(), "iterations": 1}), tmp_path / "broken"))
    list(resume(tmp_path / "broken", 3))
    assert [line["ratio_first_deviation"] for line in metrics(tmp_path / "straight")] == [0.0] * 3
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "broken")


@pytest.mark.usefixtures("installed")
def test_a_model_of_a_module_keeps_the_name_that_it_is_found_by(tmp_path: Path) -> None:
    name = "ddpo_test_plugin.tiny:TinyPolicy"
    policy = _adapted(name)
    assert policy.model == name
    assert find_policy(name)[1].startswith("ddpo_test_plugin.tiny sha256:")
    with torch.no_grad():
        next(policy.trainable_parameters())[1].add_(1.0)
    policy.save(tmp_path, 7)
    info = find_checkpoint(tmp_path, trust=[name])
    assert (info.model, info.iteration, info.weights.name) == (name, 7, "tiny.safetensors")
    again = load_policy(info.model, tmp_path)
    assert torch.equal(*(next(one.trainable_parameters())[1] for one in (policy, again)))


def _adapted(model: str) -> TrainablePolicy:
    policy = load_policy(model)
    policy.adapt("full")
    return policy


def test_a_file_trains_and_a_run_is_not_resumed_when_it_was_changed(
    tiny_model: Path, tmp_path: Path, mine: Path
) -> None:
    values = {
        "model": str(tiny_model),
        "reward": "darkness",
        "algorithm": f"{mine}:Mine",
        "optim": {"updates": 1, "timesteps": 2},
        **SMALL,
    }
    config = config_for(values)
    assert config.iterations == 2
    list(train(config, tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["origins"][
        "algorithm"
    ].startswith("mine.py sha256:")
    list(resume(tmp_path / "run", 3, trust=[f"{mine}:Mine"]))
    mine.write_text(FILE + "\n# changed\n")
    with pytest.raises(
        ConfigError,
        match=r"the algorithm '.*mine.py:Mine' was that of mine.py sha256:\w+ "
        r"when it was started, and is now",
    ):
        list(resume(tmp_path / "run", 4, trust=[f"{mine}:Mine"]))


def test_a_module_and_an_object_will_do() -> None:
    found, origin = load_algorithm("ddpo.trainer.algorithms.ddpo_is:DDPO_IS")
    assert found is algorithms.get("ddpo_is")
    assert origin.startswith("ddpo.trainer.algorithms.ddpo_is sha256:")
    assert load_algorithm("ddpo_is") == (found, "ddpo")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("{file}", RewardLoadError, "algorithm file .*: say which object, such as .*mine.py:Mine"),
        ("{file}:Mein", RewardLoadError, "did you mean 'Mine'"),
        ("{file}:number", RewardLoadError, "is a int without summary, defaults"),
        (
            "{file}:Incomplete",
            RewardLoadError,
            "is a Incomplete without defaults, likelihood, check, weigh, loss",
        ),
        (
            "{file}:Other",
            RewardLoadError,
            "likelihood must be one of transition, denoising, got 'latent'",
        ),
        ("{file}:Needy", RewardLoadError, "cannot be made without arguments: TypeError"),
        ("nowhere.py:Mine", RewardLoadError, "algorithm file nowhere.py: No such file"),
        (
            "nowhere.at_all:Mine",
            RewardLoadError,
            "algorithm nowhere.at_all:Mine: no module 'nowhere'",
        ),
        ("ddpo_si", UnknownNameError, "unknown algorithm 'ddpo_si'; did you mean 'ddpo_i?s"),
    ],
)
def test_bad_algorithms_are_reported_in_one_line(
    mine: Path, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        load_algorithm(name.format(file=mine))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("{file}:number", RewardLoadError, "is a int, not a factory"),
        ("{file}:broken", RewardLoadError, "made: .*mine.py:23: ValueError: no such chip"),
        ("{file}:not_a_model", RewardLoadError, "is a dict without model, latent_shape"),
        ("emojy", UnknownNameError, "unknown model 'emojy'; did you mean 'emoji'"),
    ],
)
def test_bad_models_are_reported_in_one_line(
    mine: Path, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        load_policy(name.format(file=mine))
    assert "\n" not in str(caught.value)


def test_the_embedded_model_is_a_trainable_policy() -> None:
    assert isinstance(load_policy("emoji"), TrainablePolicy)
