"""Settings: near-miss errors, types, ranges, and the way from a recipe to a configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ddpo.errors import ConfigError
from ddpo.prompts import load_prompts
from ddpo.rewards.zoo import resolve_card
from ddpo.trainer import config_for
from ddpo.trainer.advantages import PromptStatistics
from ddpo.trainer.algorithms import algorithms
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.minibatches import plan_updates
from ddpo.trainer.monitoring.events import Event
from ddpo.trainer.recipe import config_from_dict, merged, read_recipe, set_value

Run = Callable[..., tuple[int, str, str]]


def test_a_configuration_round_trips_through_json() -> None:
    config = config_from_dict(
        {
            "reward": "darkness",
            "optim": {"lr": 1e-4},
            "sample": {"samples": 64},
            "adapt": {"targets": ["to_q"]},
        }
    )
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.optim.lr == 1e-4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rewards": "x"}, "unknown setting 'rewards'; did you mean 'reward'"),
        (
            {"sample": {"true_cfg_scale": 4.0}},
            "'sample.true_cfg_scale': ddpo has no true CFG of FLUX",
        ),
        ({"sample": {"negative_prompt": "x"}}, "'sample.negative_prompt': ddpo has no negative"),
        ({"optim": {"learning_rate": 1}}, "unknown setting 'optim.learning_rate'"),
        ({"optim": {"updtes": 1}}, "did you mean 'optim.updates'"),
        ({"optim": 3}, "'optim' must be a table"),
        ({"iterations": "many"}, "'iterations' must be int"),
        ({"iterations": True}, "'iterations' must be int"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"sample": {"samples": 10, "per_prompt": 3}}, "not a multiple"),
        ({"sample": {"samples": 9, "per_prompt": 3}, "optim": {"updates": 2}}, "cannot be split"),
        ({"sample": {"eta": 0.0}}, "sample.eta must be above 0 and at most 1, got 0.0"),
        ({"optim": {"timesteps": 10}}, "leaves 9 steps to train, fewer than optim.timesteps=10"),
        ({"optim": {"skip_last": 10, "timesteps": 0}}, "leaves 0 steps"),
        ({"dtype": "float8"}, "dtype must be"),
        ({"adapt": {"kind": "dora"}}, "must be lora or full"),
        ({"adapt": {"targets": "to_q"}}, "'adapt.targets' must be a list of names"),
        ({"adapt": {"targets": []}}, "'adapt.targets' must be a list of names"),
    ],
)
def test_bad_settings_are_reported_in_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config_from_dict(values)
    assert "\n" not in str(caught.value)


def test_assignments_are_read_as_toml_or_text() -> None:
    values: dict[str, object] = {"optim": {"lr": 1.0}}
    for assignment in ("optim.lr=2e-4", "sample.steps=7", "reward=./mine.py:Mine", 'model="emoji"'):
        set_value(values, assignment)
    assert values == {
        "optim": {"lr": 2e-4},
        "sample": {"steps": 7},
        "reward": "./mine.py:Mine",
        "model": "emoji",
    }
    with pytest.raises(ConfigError, match="key=value"):
        set_value(values, "optim.lr")
    with pytest.raises(ConfigError, match="'reward' is not a table"):
        set_value(values, "reward.x=1")


def test_every_algorithm_runs_with_its_own_defaults_and_a_user_may_override_them() -> None:
    for name in algorithms.names():
        algorithm = algorithms.get(name)
        algorithm.check(config_from_dict(merged(algorithm.defaults, {"algorithm": name})))
    values = merged(algorithms.get("ddpo_sf").defaults, {"optim": {"updates": 2, "lr": 1.0}})
    assert values == {"optim": {"updates": 2, "lr": 1.0}}
    assert algorithms.get("ddpo_sf").defaults == {"optim": {"updates": 1}}


def test_python_and_the_command_line_start_the_same_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ddpo: Run
) -> None:
    started: list[TrainConfig] = []

    def note(config: TrainConfig, out: Path) -> Iterator[Event]:
        started.append(config)
        yield from ()

    monkeypatch.setattr("ddpo.trainer.loop.train", note)
    recipe = tmp_path / "mine.toml"
    recipe.write_text('algorithm = "rwr_sparse"\n[optim]\nlr = 2e-3\n')
    for name in algorithms.names():
        assert (
            ddpo("train", "--algorithm", name, "--reward", "darkness", "--out", tmp_path / "run")[0]
            == 0
        )
        assert started.pop() == config_for({"algorithm": name, "reward": "darkness"})
    assert (
        ddpo("train", "--recipe", recipe, "--set", "optim.updates=2", "--out", tmp_path / "run")[0]
        == 0
    )
    (config,) = started
    assert config == config_for(merged(read_recipe(recipe), {"optim": {"updates": 2}}))
    defaults = algorithms.get("rwr_sparse").defaults
    assert (config.iterations, config.optim.lr, config.optim.updates) == (
        defaults["iterations"],
        2e-3,
        2,
    )
    assert config != TrainConfig(algorithm="rwr_sparse")


def test_the_python_of_the_documents_starts_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[TrainConfig] = []
    monkeypatch.setattr("ddpo.trainer.loop.train", lambda config, out: started.append(config) or [])
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    (block,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if "ddpo.trainer" in block
    ]
    exec(block, {})
    assert started == [config_for({"algorithm": "rwr", "optim": {"lr": 1e-3}})]


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        read_recipe(tmp_path / "bad.toml")


def test_every_recipe_of_the_project_is_valid() -> None:
    recipes = sorted((Path(__file__).parents[2] / "ddpo" / "recipes").glob("*.toml"))
    assert recipes
    for recipe in recipes:
        config = config_for(read_recipe(recipe))
        algorithms.get(config.algorithm).check(config)
        assert load_prompts(config.prompts)
        assert resolve_card(config.reward)


def test_the_papers_recipes_have_the_budgets_of_the_paper() -> None:
    """Numbers of the paper: 256 images, 4 updates of 64, 50,000 queries.

    Those of its authors' code for RWR: 400 updates of 128 a round.
    """
    folder = Path(__file__).parents[2] / "ddpo" / "recipes"
    for task in ("compressibility", "incompressibility", "aesthetic", "alignment"):
        config = config_for(read_recipe(folder / f"paper_{task}.toml"))
        assert (
            config.sample.samples,
            config.sample.samples // config.optim.updates,
            config.steps_per_image,
        ) == (256, 64, 50)
        assert 50_000 <= config.iterations * config.sample.samples <= 52_000
        config_for(
            merged(
                read_recipe(folder / f"paper_{task}.toml"),
                {"algorithm": "ddpo_sf", "optim": {"updates": 1}},
            )
        )
    for name in ("rwr", "rwr_sparse"):
        config = config_for(read_recipe(folder / f"paper_{name}.toml"))
        random = np.random.default_rng(0)
        ids = [
            str(place // config.sample.per_prompt % 398) for place in range(config.sample.samples)
        ]
        weights = algorithms.get(name).weigh(
            random.normal(size=len(ids)), ids, PromptStatistics(1, 1), config
        )
        plan = plan_updates(weights, config, 1, noise_levels=1000)
        assert len(plan) == 400
        assert {items.total for items in plan} == {128}


def test_the_embedded_models_recipe_is_the_default() -> None:
    recipe = Path(__file__).parents[2] / "ddpo" / "recipes" / "emoji.toml"
    values = read_recipe(recipe)
    del values["algorithms"]
    assert config_from_dict(values) == TrainConfig()
