"""`sample.batch = "auto"` against a device that is full above a known size."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpo.errors import ConfigError, MemoryExhausted
from ddpo.policies.stable_diffusion import StableDiffusionPolicy
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.zoo import resolve
from ddpo.trainer import batch_size, config_for
from ddpo.trainer.batch_size import even_calls, largest_batch, largest_fitting
from ddpo.trainer.settings import resolve_config

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("room", "most", "found"),
    [
        (0, 8, 0),
        (1, 8, 1),
        (2, 8, 2),
        (5, 8, 4),
        (8, 8, 8),
        (100, 8, 8),
        (100, 12, 8),
        (7, 1, 1),
        (3, 0, 0),
    ],
)
def test_sizes_are_doubled_from_1_to_the_last_that_fits(room: int, most: int, found: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= room

    assert largest_fitting(fits, most) == found
    assert tried == [1, 2, 4, 8, 16][: len(tried)]
    assert all(size <= most for size in tried)


@pytest.mark.parametrize(
    ("total", "most", "calls"),
    [
        (256, 64, 64),
        (96, 64, 48),
        (100, 64, 50),
        (7, 4, 4),
        (8, 8, 8),
        (9, 8, 5),
        (1, 1, 1),
        (128, 1, 1),
    ],
)
def test_calls_are_as_few_and_as_equal_as_can_be(total: int, most: int, calls: int) -> None:
    assert even_calls(total, most) == calls


class Full:
    """A device on which the denoiser runs out of memory above so many latents per call."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        sampling: int,
        training: int,
        error: type[Exception] = torch.OutOfMemoryError,
    ) -> None:
        self.tried: list[tuple[int, bool]] = []
        output = StableDiffusionPolicy._output

        def limited(policy: Any, latents: Any, timesteps: Any, conditioning: Any) -> Any:
            graded = torch.is_grad_enabled()
            self.tried.append((len(latents), graded))
            if len(latents) > (training if graded else sampling):
                raise error("out of memory")
            return output(policy, latents, timesteps, conditioning)

        monkeypatch.setattr(StableDiffusionPolicy, "_output", limited)


def settings(model: Path, **sample: Any) -> dict[str, Any]:
    sizes = {"samples": 24, "per_prompt": 4, "steps": 2} | sample
    return {
        "model": str(model),
        "reward": "darkness",
        "sample": sizes,
        "optim": {"updates": 1, "timesteps": 1, "skip_last": 0},
    }


@pytest.mark.parametrize(
    ("sampling", "training", "guidance", "found"),
    [
        (100, 100, 1.0, 12),
        (100, 9, 1.0, 8),
        (6, 100, 1.0, 4),
        (100, 9, 5.0, 4),
        (2, 2, 5.0, 1),
        (100, 3, 1.0, 2),
    ],
)
def test_the_size_is_the_largest_with_which_sampling_and_training_fit(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    sampling: int,
    training: int,
    guidance: float,
    found: int,
) -> None:
    """Guidance doubles the latents of a call; 24 images in calls of at most 16 are two of 12."""
    Full(monkeypatch, sampling, training)
    assert largest_batch(config_for(settings(tiny_model, guidance=guidance))) == found


@pytest.mark.parametrize(("algorithm", "found"), [("ddpo_is", 3), ("rwr", 12)])
def test_a_call_is_no_larger_than_an_update_whose_images_have_places(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, found: int
) -> None:
    """4 of 6 images fit, in two calls of 3. Noised images have no place: 16 of 24, in two of 12."""
    Full(monkeypatch, 100, 100)
    values = settings(tiny_model, guidance=1.0) | {"algorithm": algorithm}
    values["optim"] = {"updates": 4, "timesteps": 1, "skip_last": 0}
    assert largest_batch(config_for(values)) == found


@pytest.mark.parametrize(("room", "found"), [(100, 12), (16, 12), (11, 8), (7, 4)])
def test_a_reward_that_ranks_a_prompts_images_gets_whole_prompts(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, room: int, found: int
) -> None:
    """4, 4, 2 and 1 prompts of 4 images fit; 6 prompts in calls of 4 are two of 3."""

    def ranking(expression: str) -> ResolvedReward:
        reward = resolve(expression)
        return replace(reward, card=replace(reward.card, inputs=("image", "group")))

    monkeypatch.setattr(batch_size, "resolve_reward", ranking)
    Full(monkeypatch, 100, room)
    assert largest_batch(config_for(settings(tiny_model, guidance=1.0))) == found


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_a_device_that_is_too_small_for_one_says_so(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    Full(monkeypatch, 0, 0, error)
    with pytest.raises(MemoryExhausted, match="not even calls of 1 fit on cpu"):
        largest_batch(config_for(settings(tiny_model)))


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Full(monkeypatch, 0, 0, ValueError)
    with pytest.raises(ValueError, match="out of memory"):
        largest_batch(config_for(settings(tiny_model)))


def test_several_processes_need_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="give a number"):
        largest_batch(config_for({}))


@pytest.mark.parametrize(
    ("layers", "batch"),
    [
        ([{}], 32),
        ([{"algorithm": "rwr"}], 32),
        ([{"sample": {"batch": 7}}], 7),
        ([{"sample": {"batch": 7}}, {"sample": {"batch": 5}}], 5),
        ([{"sample": {"batch": "auto"}}, {"sample": {"steps": 7}}], 32),
    ],
)
def test_on_the_cpu_it_is_the_number_of_the_layers_below(
    layers: list[dict[str, Any]], batch: int
) -> None:
    named = [("recipe", layer) for layer in layers]
    config = resolve_config([*named, ("--set", {"device": "cpu", "sample": {"batch": "auto"}})])
    assert config.sample.batch == batch
    assert config.sources["sample.batch"] == "auto"


def test_on_an_accelerator_it_is_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpo.trainer.settings.resolve_device", lambda device: "cuda")
    monkeypatch.setattr(batch_size, "largest_batch", lambda config: 6)
    config = config_for({"sample": {"batch": "auto"}})
    assert (config.sample.batch, config.sources["sample.batch"]) == (6, "auto")
    assert config_for({"sample": {"batch": 3}}).sample.batch == 3


@pytest.mark.parametrize("value", ["all", "AUTO", "true", "1.5", "[4]"])
def test_other_words_are_refused(ddpo: Run, tmp_path: Path, value: str) -> None:
    code, _, errors = ddpo("train", "--set", f"sample.batch={value}", "--out", tmp_path / "run")
    assert code == 2
    assert "setting 'sample.batch' must be int" in errors


def test_a_run_keeps_the_number_when_it_is_resumed(ddpo: Run, tmp_path: Path) -> None:
    changes = (
        "sample.samples=8",
        "sample.steps=2",
        "optim.timesteps=1",
        "device=cpu",
        "reward=darkness",
    )
    small = [part for change in changes for part in ("--set", change)]
    code, _, errors = ddpo(
        "train", *small, "--set", "sample.batch=auto", "--iterations", 1, "--out", tmp_path / "run"
    )
    assert code == 0, errors
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["sample"]["batch"], config["sources"]["sample.batch"]) == (32, "auto")
    code, output, errors = ddpo(
        "train", "--resume", tmp_path / "run", "--iterations", 2, "--set", "sample.batch=auto"
    )
    assert code == 0, errors
    assert "rounded" not in output
