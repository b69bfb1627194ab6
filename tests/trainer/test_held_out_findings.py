"""Faults of a run's held-out reward: relatives, trained prompts, a stop that cannot come."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from ddpo.errors import ConfigError
from ddpo.prompts import load_prompts
from ddpo.rewards.zoo import resolve
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.loop import train
from ddpo.trainer.monitoring.findings import average_finding
from ddpo.trainer.monitoring.held_out_findings import held_out_findings
from ddpo.trainer.settings import config_for
from ddpo.types import Prompt

CATS = [Prompt("a cat"), Prompt("a dog")]
OWLS = [Prompt("an owl"), Prompt("a fox")]


def texts(
    held_out: str, reward: str, prompts: Any = OWLS, trained: Any = CATS, **settings: Any
) -> list[str]:
    config = TrainConfig(reward=reward, held_out=held_out, **settings)
    found = held_out_findings(config, resolve(held_out), resolve(reward), prompts, trained)
    assert all(one.topic == "held-out" and not one.good for one in found)
    return [one.text for one in found]


@pytest.mark.parametrize(
    ("held_out", "reward", "shared"),
    [
        ("alignment:model=emoji", "emoji_geneval", "emoji/captioner"),
        ("emoji_geneval", "alignment:model=emoji", "emoji/captioner"),
        ("clip_score:model=emoji", "aesthetic:model=emoji", "emoji/dual_encoder"),
        ("sharpness + aesthetic:model=emoji", "clip_score:model=emoji", "emoji/dual_encoder"),
        ("incompressibility", "compressibility", "pixel detail"),
    ],
)
def test_a_relative_of_the_trained_reward_is_named_with_what_they_share(
    held_out: str, reward: str, shared: str
) -> None:
    (text,) = texts(held_out, reward)
    assert f"shares {shared} with {reward.partition(':')[0]}" in text


@pytest.mark.parametrize(
    ("held_out", "reward"),
    [
        ("clip_score:model=emoji", "alignment:model=emoji"),
        ("emoji_detector", "emoji_geneval"),
        ("colorfulness", "compressibility"),
        ("alignment", "alignment:model=emoji"),  # LLaVA is another model
    ],
)
def test_independent_rewards_give_no_finding(held_out: str, reward: str) -> None:
    assert texts(held_out, reward) == []


def test_held_out_prompts_that_are_trained_on_are_counted() -> None:
    (text,) = texts("sharpness", "emoji_geneval", [*OWLS, Prompt("A cat.")], CATS)
    assert text.startswith("1 of 3 held-out prompts are trained on, such as 'A cat.'")
    animals = load_prompts("animals").prompts
    (text,) = texts("sharpness", "emoji_geneval", animals, animals)
    assert text.startswith("45 of 45 held-out prompts")


@pytest.mark.parametrize(
    ("iterations", "every", "patience", "before"),
    [(12, 4, 2, 2), (10, 20, 1, 0), (6, 2, 2, 2), (4, 4, 1, 0)],
)
def test_a_stop_that_can_only_come_at_the_end_is_reported(
    iterations: int, every: int, patience: int, before: int
) -> None:
    """A fall needs the best checkpoint and `patience` later ones, all before the last iteration."""
    settings = {"iterations": iterations, "checkpoint_every": every, "stop_patience": patience}
    (text,) = texts("sharpness", "emoji_geneval", stop_when="held-out-falls", **settings)
    assert f"compares {patience + 1} checkpoints, and there are {before} before" in text
    assert texts("sharpness", "emoji_geneval", **settings) == []
    enough = settings | {"iterations": every * (patience + 1) + 1}
    assert texts("sharpness", "emoji_geneval", stop_when="held-out-falls", **enough) == []


def test_early_stopping_of_the_recipe_of_scenes_can_end_a_run() -> None:
    """README's command adds --stop-when to this recipe."""
    config = config_for({"model": "emoji-scenes", "stop_when": "held-out-falls"})
    found = held_out_findings(config, resolve("sharpness"), resolve("darkness"), OWLS, CATS)
    assert found == []


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        ("alignment:model=emoji", "clip_score:model=emoji"),
        ("compressibility", "clip_score:model=emoji"),
        ("clip_score:model=emoji", "alignment:model=emoji"),
        ("aesthetic:model=emoji", "alignment:model=emoji"),
        ("alignment:model=emoji + clip_score:model=emoji", ""),
    ],
)
def test_a_recipes_held_out_reward_gives_way_to_an_independent_one(
    reward: str, expected: str
) -> None:
    assert config_for({"model": "emoji-scenes", "reward": reward}).held_out == expected


def test_a_held_out_reward_of_the_users_choice_stays() -> None:
    values = {"model": "emoji-scenes", "reward": "aesthetic:model=emoji"}
    chosen = config_for(values | {"held_out": "clip_score:model=emoji"})
    assert chosen.held_out == "clip_score:model=emoji"
    assert config_for(values | {"held_out": "none"}).held_out == ""


@pytest.mark.parametrize(
    ("model", "reward", "example"),
    [
        ("emoji-flow", "emoji_geneval", "clip_score:model=emoji"),
        ("emoji-scenes", "clip_score:model=emoji", "alignment:model=emoji"),
    ],
)
def test_the_rule_names_a_judge_that_the_reward_allows(
    model: str, reward: str, example: str
) -> None:
    with pytest.raises(ConfigError, match=f"--held-out, such as {example}$"):
        TrainConfig(model=model, reward=reward, stop_when="held-out-falls")


@pytest.mark.parametrize(
    ("ema", "iterations", "epochs", "never"),
    [(0.9, 1, 1, True), (0.9, 2, 1, True), (0.9, 2, 2, False), (0.0, 1, 1, False)],
)
def test_an_average_that_is_never_updated_is_reported(
    ema: float, iterations: int, epochs: int, never: bool
) -> None:
    """Two updates an iteration; the average is updated after every eighth."""
    optim = {"ema": ema, "ema_every": 8, "updates": 2, "epochs": epochs}
    found = average_finding(config_for({"iterations": iterations, "optim": optim}))
    assert (found is not None) == never


@pytest.mark.parametrize(("scored", "warned"), [(0, True), (1, True), (2, False), (4, False)])
def test_a_held_out_reward_that_scores_less_than_half_of_its_images_warns(
    tiny_model: Path, tmp_path: Path, scored: int, warned: bool
) -> None:
    """Two prompts, two images of each, in one batch."""
    (tmp_path / "picky.py").write_text(
        f"def picky(images):\n    return [1.0] * {scored} + [None] * (len(images) - {scored})\n"
    )
    (tmp_path / "two.txt").write_text("a toaster\na lamp\n")
    values = {
        "model": str(tiny_model),
        "reward": "darkness",
        "held_out": f"{tmp_path / 'picky.py'}:picky",
        "held_out_prompts": str(tmp_path / "two.txt"),
        "iterations": 1,
        "sample": {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 4},
        "optim": {"updates": 1, "timesteps": 1},
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(train(config_for(values), tmp_path / "run"))
    texts = [str(one.message) for one in caught if "held-out images" in str(one.message)]
    assert len(texts) == warned
    assert all(f"iteration 1: {4 - scored} of 4 held-out images" in text for text in texts)
