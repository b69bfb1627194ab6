"""The checks before a run: right numbers, warnings, nothing changed or left behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ddpo.errors import ConfigError, TrainingDiverged
from ddpo.policies import load_policy
from ddpo.policies.flow_schedule import FlowSchedule
from ddpo.policies.stable_diffusion import StableDiffusionPolicy
from ddpo.text import byte_size
from ddpo.trainer import TrainConfig, config_from_dict
from ddpo.trainer.loop import dry_run, train
from ddpo.trainer.monitoring.events import Checked, Finding, Progress, Started
from ddpo.trainer.monitoring.step_findings import step_findings


def config_of(model: Path, reward: str, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": str(model),
        "reward": reward,
        "iterations": 6,
        "checkpoint_every": 2,
        "grid_every": 9,
        "sample": {"samples": 12, "per_prompt": 2, "steps": 3, "batch": 4},
        "optim": {"updates": 2, "timesteps": 2},
    }
    return config_from_dict(values | changes)


def looked_at(config: TrainConfig, out: Path) -> dict[str, Finding]:
    started, progress, checked = dry_run(config, out)
    assert isinstance(started, Started)
    assert isinstance(progress, Progress)
    assert isinstance(checked, Checked)
    return {finding.topic: finding for finding in checked.findings}


def test_a_dry_run_reports_the_numbers_and_leaves_nothing_behind(
    tiny_model: Path, tmp_path: Path
) -> None:
    found = looked_at(
        config_of(tiny_model, "darkness", adapt={"kind": "lora", "rank": 4}), tmp_path / "run"
    )
    assert found["batch"].text == (
        "6 prompts × 2 = 12 images, sampled in 3 batches of 4; "
        "2 updates of 6 images × 2 steps = 12 items"
    )
    assert found["ratio"].text == "1 before the first update (largest deviation 0)"
    assert "over 4 images; spread within a prompt 0.0" in found["reward"].text
    assert found["unscorable"].text == "0 of 4 images"
    assert "for 6, 72 reward queries; an estimate" in found["time"].text
    assert " for 3 checkpoints and the state; " in found["disk"].text
    assert all(finding.good for finding in found.values())
    assert list(tmp_path.iterdir()) == []


def test_a_method_without_ratios_says_so(tiny_model: Path, tmp_path: Path) -> None:
    assert (
        looked_at(config_of(tiny_model, "darkness", algorithm="rwr"), tmp_path / "run")[
            "ratio"
        ].text
        == "this method has none"
    )


def test_of_a_sparse_round_only_what_is_kept_is_counted(tiny_model: Path, tmp_path: Path) -> None:
    """The best of four images: 3 of 12, each fitted at one noise level, five times."""
    sample = {"samples": 12, "per_prompt": 4, "steps": 3, "batch": 4}
    optim = {"updates": 1, "epochs": 5, "timesteps": 1}
    config = config_of(tiny_model, "darkness", algorithm="rwr_sparse", sample=sample, optim=optim)
    text = looked_at(config, tmp_path / "run")["batch"].text
    assert text.endswith(
        "in 3 batches of 4; 3 are kept; "
        "1 update of 3 images × 1 noise level = 3 items, 5 times over"
    )


def test_a_reward_from_which_nothing_is_learned_is_reported(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "flat.py").write_text(
        "def flat(images):\n    return [1.0] + [None] * 1 + [1.0] * (len(images) - 2)\n"
    )
    found = looked_at(config_of(tiny_model, f"{tmp_path / 'flat.py'}:flat"), tmp_path / "run")
    assert "1 of 1 prompts have equal rewards" in found["reward"].text
    assert not found["reward"].good
    assert found["unscorable"].text.startswith("1 of 4 images; the first: ")
    (tmp_path / "none.py").write_text("def none(images):\n    return [None] * len(images)\n")
    found = looked_at(config_of(tiny_model, f"{tmp_path / 'none.py'}:none"), tmp_path / "run")
    assert "reward" not in found
    assert not found["unscorable"].good


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    "values",
    [
        {"advantage": {"kind": "group"}},
        {"advantage": {"kind": "leave_one_out"}},
        {"algorithm": "rwr"},
    ],
)
def test_images_that_are_compared_with_nothing_are_reported(
    tiny_model: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    sample = {"samples": 4, "per_prompt": 1, "steps": 3, "batch": 4}
    found = looked_at(config_of(tiny_model, "darkness", sample=sample, **values), tmp_path / "run")[
        "comparison"
    ]
    assert not found.good
    assert "with sample.per_prompt = 1 and advantage.kind = " in found.text
    (tmp_path / "one.txt").write_text("a cat\n")  # the four images are of one prompt
    assert "comparison" not in looked_at(
        config_of(
            tiny_model, "darkness", sample=sample, prompts=str(tmp_path / "one.txt"), **values
        ),
        tmp_path / "run",
    )
    remembered = config_of(tiny_model, "darkness", sample=sample, advantage={"kind": "per_prompt"})
    assert "comparison" not in looked_at(remembered, tmp_path / "run")


def test_a_full_disk_is_refused_before_anything_is_sampled(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needed(config: TrainConfig) -> str:
        return looked_at(config, tmp_path / "run")["disk"].text

    assert "3 checkpoints" in needed(config_of(tiny_model, "darkness"))
    assert "2 checkpoints" in needed(config_of(tiny_model, "darkness", checkpoint_keep=1))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(
        ConfigError, match=r"too little room: about .* are free\. Set checkpoint_keep"
    ):
        list(dry_run(config_of(tiny_model, "darkness"), tmp_path / "run"))


def test_a_denoiser_that_is_not_the_same_twice_is_found_out(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout left on is the usual cause."""
    adapt = StableDiffusionPolicy.adapt

    def with_dropout(self: StableDiffusionPolicy, *arguments: Any) -> None:
        adapt(self, *arguments)
        self.unet.train()
        for module in self.unet.modules():
            if type(module).__name__ == "Dropout":
                module.p = 0.5

    monkeypatch.setattr(StableDiffusionPolicy, "adapt", with_dropout)
    with pytest.raises(TrainingDiverged, match="before the first update; it must be 0"):
        list(train(config_of(tiny_model, "darkness"), tmp_path / "run"))


class Sampled:
    """A policy as far as the findings about its steps read it."""

    def __init__(self, schedule: Any, **facts: Any) -> None:
        self.schedule = schedule
        vars(self).update(facts)


def steps_of(schedule: Any, eta: float, facts: Any = None, **changes: Any) -> dict[str, Finding]:
    values = {"sample": {"steps": 10, "eta": min(eta, 1.0)}, "optim": {"timesteps": 0}} | changes
    config = config_from_dict(values)
    policy: Any = Sampled(schedule, **(facts or {}))
    found = step_findings(policy, config, schedule.coefficients(10, eta))
    return {finding.topic: finding for finding in found}


def test_the_weight_of_each_step_is_that_of_its_schedule() -> None:
    """The numbers of Flow-SDE at 0.7 on the grid of Stable Diffusion 3, computed elsewhere."""
    found = steps_of(FlowSchedule(3.0, "diffusers", "flow_sde"), 0.7)
    assert "0.0032 0.0061 0.017 0.035 0.07 0.14 0.29 0.68 2.2 3.1;" in found["steps"].text
    assert found["steps"].text.endswith("the trained steps 0 to 8 differ 681-fold")
    assert found["clip"].text == (
        "range 0.002; 10 % to 30 % of the items beyond it work in practice "
        "(yifan123/flow_grpo issue 204)"
    )
    assert {*found} == {"steps", "clip"}


def test_of_many_steps_ten_are_shown() -> None:
    config = config_from_dict({"sample": {"steps": 50}, "optim": {"timesteps": 0}})
    schedule = FlowSchedule(3.0, "linspace", "flow_sde")
    policy: Any = Sampled(schedule)
    text = step_findings(policy, config, schedule.coefficients(50, 0.7))[0].text
    assert "b²/k² at steps 0, 5, 11, 16, 22, 27, 33, 38, 44, 49, the weight" in text


@pytest.mark.parametrize(
    ("step", "eta", "distilled", "warned"),
    [
        ("flow_sde", 0.7, True, True),
        ("dance_sde", 0.31, True, True),
        ("flow_sde", 0.3, True, False),
        ("flow_sde", 0.7, False, False),
        ("cps", 0.8, True, False),
    ],
)
def test_much_noise_is_a_warning_for_a_guidance_distilled_model(
    step: Any, eta: float, distilled: bool, warned: bool
) -> None:
    found = steps_of(FlowSchedule(3.0, "linspace", step), eta, {"guidance_distilled": distilled})
    assert ("noise" in found) == warned
    if warned:
        assert not found["noise"].good
        assert f"sample.eta={eta:g} is much noise for a guidance-distilled" in found["noise"].text


def test_a_diffusion_model_and_one_update_have_neither_warning_nor_clip_range() -> None:
    schedule = load_policy("emoji").schedule
    optim = {"timesteps": 0, "updates": 1}
    found = steps_of(schedule, 1.0, {"guidance_distilled": True}, optim=optim)
    assert {*found} == {"steps"}


def test_a_window_is_described() -> None:
    window = {"steps": 2, "kind": "progressive", "every": 25}
    found = steps_of(FlowSchedule(3.0), 0.7, window=window)
    assert found["window"].text == (
        "2 steps of 0 to 8 with noise and training, consecutive, moving by 1 every "
        "25 iterations, the same for all images of a prompt; the other steps are deterministic "
        "(eta 0)"
    )


def test_old_outputs_count_in_the_memory(tiny_model: Path, tmp_path: Path) -> None:
    config = config_of(tiny_model, "darkness", algorithm="flow_dppo")
    shape = load_policy(str(tiny_model)).latent_shape
    text = looked_at(config, tmp_path / "run")["memory"].text
    size = byte_size(4 * 12 * 2 * shape[0] * shape[1] * shape[2])
    assert text.endswith(f", old outputs {size}")
