"""Devices: a message that lists what is here, and no float64 where the accelerator has none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_mps import NO_FLOAT64, PretendedMps, mark, on_mps

from ddpo.devices import available_devices, check_device, in_float64
from ddpo.errors import ConfigError
from ddpo.policies import load_policy
from ddpo.policies.kl import trajectory_kl
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_trajectory
from ddpo.rewards.models.aesthetic import head_scores
from ddpo.rewards.models.clip_pair import cosines
from ddpo.rewards.models.diversity import cosine_distances
from ddpo.rewards.models.lpips import lpips_distances
from ddpo.rewards.models.vendi import cosine_kernel, vendi_score
from ddpo.rewards.zoo import make_reward
from ddpo.trainer import config_for, train
from ddpo.types import ImageBatch, Prompt

Run = Callable[..., tuple[int, str, str]]
NOT_HERE = (
    "banana",
    "CPU",
    "cuda:",
    "cuda:99",
    "cuda:-1",
    "",
    "meta",
    "hpu",
    "mps:7",
    "cpu cpu",
    "xpu:99",
    "🙂",
)
DIFFERENTIABLE = (
    "darkness",
    "contrast",
    "saturation",
    "sharpness",
    "edge_density",
    "high_frequency",
    "symmetry",
    "rotation_symmetry",
)


@pytest.mark.parametrize("device", NOT_HERE)
def test_a_device_that_is_not_here_is_one_short_line_with_those_that_are(device: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_device(device)
    assert (
        str(caught.value)
        == f"device {device!r} cannot be used; this machine has: {', '.join(available_devices())}"
    )
    assert available_devices()[0] == "cpu"


@pytest.mark.parametrize(
    "command",
    [
        ("sample", "a cat"),
        ("train", "--reward", "darkness", "--iterations", 1),
        ("train", "--reward", "darkness", "--dry-run"),
        ("rewards", "bench", "darkness"),
        ("rewards", "score", "darkness", "A"),
        ("rewards", "compare", "darkness", "contrast", "A"),
        ("rewards", "calibrate", "darkness", "A", "--out", "z.json"),
        ("rewards", "validate", "darkness", "--preferences", "pairs.jsonl"),
        ("rewards", "check", "darkness"),
        ("rewards", "serve", "darkness", "--port", 0),
        (
            "eval",
            "--images",
            "base=A",
            "--images",
            "tuned=A",
            "--prompts",
            "p.txt",
            "--reward",
            "darkness",
        ),
    ],
)
def test_every_command_with_a_device_says_so(
    ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[Any, ...]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "A").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "A" / "0.png")
    (tmp_path / "A" / "0.txt").write_text("a cat")
    (tmp_path / "p.txt").write_text("a cat\n")
    (tmp_path / "pairs.jsonl").write_text(
        '{"image_a": "A/0.png", "image_b": "A/0.png", "label": 1}\n'
    )
    out = () if command[0] == "rewards" else ("--out", "out")
    code, _, errors = ddpo(*command, *out, "--device", "cuda:99")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert "device 'cuda:99' cannot be used; this machine has: cpu" in errors
    assert len(errors) < 200
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_the_option_of_a_reward_is_a_device_too(device: str) -> None:
    for name in ("aesthetic", "pickscore", "vendi", "nsfw"):
        with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
            make_reward(name, device=device)


def test_the_stand_in_finds_planted_faults() -> None:
    with PretendedMps() as watched:
        here = torch.ones(3).to("mps")
        assert on_mps(here + 1)
        assert str((here * 2).device) == "mps:0"
        assert not on_mps(here.cpu())
        assert on_mps(here)  # still
        assert on_mps(torch.nn.Linear(3, 2).to("mps")(here))
        for wrong in (
            here.double,
            lambda: here.to(torch.float64),
            lambda: torch.zeros(2, dtype=torch.float64, device="mps"),
            lambda: torch.zeros(2, dtype=torch.float64).to("mps"),
            lambda: here.sum(dtype=torch.float64),
            lambda: torch.tensor([1.0], dtype=torch.float64, device=here.device),
            lambda: torch.from_numpy(here.cpu().double().numpy()).to("mps"),
        ):
            with pytest.raises(TypeError, match="float64"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            here.numpy()
        with pytest.raises(RuntimeError, match="same device"):
            here + torch.ones(3)
        assert in_float64(here).dtype == torch.float64
    assert watched.calls > 10
    assert "mps" not in available_devices() or torch.backends.mps.is_available()


def tiny_settings(model: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "reward": "darkness",
        "iterations": 1,
        "device": "mps",
        "checkpoint_every": 1,
        "sample": {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 4},
        "optim": {"timesteps": 1, "updates": 1, "kl": 0.01},
    } | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": "rwr", "optim": {"updates": 2}},
        {"algorithm": "ddpo_sf", "reward": "darkness + contrast:2"},
    ],
)
def test_training_makes_no_float64_on_the_device(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Sampling, scoring, updates with KL, the check before the run, grids and checkpoints."""
    with PretendedMps() as watched:
        for _ in train(config_for(tiny_settings(tiny_model, **changes)), tmp_path / "run"):
            pass
    assert watched.calls > 1000
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_sum_in_float64_on_the_device_would_be_found(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpo.trainer import update

    add = update._Sums.add

    def wrong(self: Any, losses: torch.Tensor, *others: Any, **more: Any) -> None:
        self.loss = self.loss + losses.detach().double().sum()
        add(self, losses, *others, **more)

    monkeypatch.setattr(update._Sums, "add", wrong)
    with PretendedMps(), pytest.raises(TypeError, match=NO_FLOAT64[:30]):
        for _ in train(config_for(tiny_settings(tiny_model)), tmp_path / "run"):
            pass


def test_an_evaluation_draws_and_measures_without_float64(tiny_model: Path) -> None:
    settings = SamplerSettings(steps=2, guidance=2.0, eta=1.0, batch=2)
    keys = [SampleKey(Prompt(text), 0) for text in ("a cat", "a dog")]
    with PretendedMps():
        policy = load_policy(str(tiny_model), device="mps")
        trajectory = sample_trajectory(policy, keys, settings, 0)
        images = policy.decode(trajectory.latents[:, -1])
        divergence = trajectory_kl(policy, [key.prompt.text for key in keys], trajectory, settings)
        assert on_mps(images)
    assert divergence.tolist() == [0.0, 0.0]  # of a model to itself


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_rewards_of_pixels_on_the_device_are_those_on_the_cpu(name: str) -> None:
    pixels = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    prompts = [Prompt("a"), Prompt("b")]
    expected = pixels.clone().requires_grad_()
    reward = make_reward(name)
    values = reward(ImageBatch(expected, prompts)).values
    values.sum().backward()
    with PretendedMps():
        moved = mark(pixels.clone().requires_grad_())
        found = reward(ImageBatch(moved, prompts)).values
        assert torch.equal(found.cpu(), values)
        found.sum().backward()
    assert torch.equal(moved.grad, expected.grad)


def test_heads_of_rewards_with_models_are_those_on_the_cpu() -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(4, 768, generator=random)
    weight = torch.randn(768, generator=random)
    bias = torch.randn((), generator=random)
    functions: list[Callable[..., Any]] = [
        lambda rows, weight, bias: head_scores(rows, weight, bias),
        lambda rows, weight, bias: cosines(rows, rows.flip(0)),
        lambda rows, weight, bias: cosine_distances(rows),
        lambda rows, weight, bias: lpips_distances(rows),
        lambda rows, weight, bias: torch.tensor(vendi_score(cosine_kernel(rows))),
    ]
    for function in functions:
        expected = function(rows, weight, bias)
        with PretendedMps():
            found = function(*(mark(value.clone()) for value in (rows, weight, bias))).cpu()
        assert torch.equal(found, expected)


def test_looking_for_devices_needs_no_torch_before_it_is_asked() -> None:
    script = "import sys, ddpo.devices, ddpo.distributed; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )
