"""Settings: near-miss errors, types, ranges, and the way from a recipe to a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpo.errors import ConfigError
from ddpo.trainer.algorithms import algorithms
from ddpo.trainer.config import TrainConfig, config_from_dict, merged, read_recipe, set_value


def test_a_configuration_round_trips_through_json() -> None:
    config = config_from_dict({"reward": "darkness", "optim": {"lr": 1e-4}, "sample": {"samples": 64}})
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.optim.lr == 1e-4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rewards": "x"}, "unknown setting 'rewards'; did you mean 'reward'"),
        ({"optim": {"learning_rate": 1}}, "unknown setting 'optim.learning_rate'"),
        ({"optim": {"updtes": 1}}, "did you mean 'optim.updates'"),
        ({"optim": 3}, "'optim' must be a table"),
        ({"iterations": "many"}, "'iterations' must be int"),
        ({"iterations": True}, "'iterations' must be int"),
        ({"iterations": 0}, "iterations must be above 0"),
        ({"sample": {"samples": 10, "per_prompt": 3}}, "not a multiple"),
        ({"sample": {"samples": 9, "per_prompt": 3}, "optim": {"updates": 2}}, "cannot be cut"),
        ({"sample": {"eta": 0.0}}, r"sample.eta in \(0, 1\]"),
        ({"optim": {"timesteps": 10}}, "leaves 9 steps to train, fewer than optim.timesteps=10"),
        ({"optim": {"skip_last": 10, "timesteps": 0}}, "leaves 0 steps"),
        ({"dtype": "float8"}, "dtype must be"),
        ({"adapt": {"kind": "dora"}}, "must be lora or full"),
    ],
)
def test_bad_settings_are_told_in_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config_from_dict(values)
    assert "\n" not in str(caught.value)


def test_assignments_are_read_as_toml_or_text() -> None:
    values: dict[str, object] = {"optim": {"lr": 1.0}}
    for assignment in ("optim.lr=2e-4", "sample.steps=7", "reward=./mine.py:Mine", 'model="emoji"'):
        set_value(values, assignment)
    assert values == {"optim": {"lr": 2e-4}, "sample": {"steps": 7}, "reward": "./mine.py:Mine", "model": "emoji"}
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


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        read_recipe(tmp_path / "bad.toml")


def test_every_recipe_of_the_project_is_valid() -> None:
    recipes = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
    assert recipes
    for recipe in recipes:
        config_from_dict(read_recipe(recipe))


def test_the_embedded_models_recipe_is_the_default() -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "emoji.toml"
    assert config_from_dict(read_recipe(recipe)) == TrainConfig()
