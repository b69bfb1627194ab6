"""Settings of accelerators only: memory layout and fused steps. Files and resumed runs stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import assert_same_run, config_of
from torch._subclasses.fake_tensor import FakeTensorMode

from ddpo.policies import load_policy
from ddpo.policies.stable_diffusion import lay_out
from ddpo.trainer.config import OptimConfig, TrainConfig
from ddpo.trainer.loop import resume, train
from ddpo.trainer.optimizer import make_optimizer


@pytest.mark.parametrize(("device", "fused"), [("cpu", None), ("cuda", True), ("cuda:0", True)])
def test_steps_are_fused_on_an_accelerator_alone(device: str, fused: bool | None) -> None:
    with FakeTensorMode():
        parameters = [torch.nn.Parameter(torch.zeros(3, device=device))]
        optimizer = make_optimizer(
            parameters, TrainConfig(optim=OptimConfig(lr=0.5, beta1=0.8)), torch.device(device)
        )
    assert optimizer.defaults["fused"] is fused
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (0.5, (0.8, 0.999))


@pytest.mark.parametrize(
    ("device", "changed"),
    [("cpu", False), ("mps", False), ("xpu", False), ("cuda", True), ("cuda:1", True)],
)
def test_convolutions_are_channels_last_on_cuda_alone(device: str, changed: bool) -> None:
    convolution = lay_out(torch.nn.Conv2d(4, 8, 3), torch.device(device))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last) == changed
    assert convolution.weight.is_contiguous() != changed


def channels_last(module: Any, device: torch.device) -> Any:
    return module.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_run_in_channels_last_is_written_read_and_resumed(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Files keep their layout, and a resumed run's moments have that of their parameters."""
    monkeypatch.setattr("ddpo.policies.latent_policy.lay_out", channels_last)
    config = config_of(
        tiny_model, iterations=2, checkpoint_every=1, grid_every=1, adapt={"kind": kind}
    )
    list(train(config, tmp_path / "straight"))
    list(train(replace(config, iterations=1), tmp_path / "resumed"))
    layouts: list[bool] = []
    step = torch.optim.AdamW.step

    def spy(self: Any, *arguments: Any) -> Any:
        layouts.extend(
            state["exp_avg"].stride() == parameter.stride()
            for parameter, state in self.state.items()
        )
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    list(resume(tmp_path / "resumed", iterations=2))
    assert layouts
    assert all(layouts)
    monkeypatch.undo()
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")
    policy = load_policy(str(tiny_model), checkpoint=tmp_path / "resumed")
    assert all(parameter.is_contiguous() for _, parameter in policy.trainable_parameters())
