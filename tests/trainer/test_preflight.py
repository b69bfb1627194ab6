"""The checks before a run: right numbers, warnings, nothing changed or left behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ddpo.errors import ConfigError, TrainingDiverged
from ddpo.policies.stable_diffusion import StableDiffusionPolicy
from ddpo.trainer import TrainConfig, config_from_dict
from ddpo.trainer.loop import dry_run, train
from ddpo.trainer.monitoring.events import Checked, Finding, Progress, Started


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
