"""`--low-memory`: which steps are on, which were left out, and that a run stays the run that it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from test_resume import config_of, metrics

from ddpo.io.tensors import optimizer_tensors, restore_optimizer
from ddpo.trainer import low_memory
from ddpo.trainer.adapted import adapted_policy
from ddpo.trainer.config import OptimConfig, TrainConfig
from ddpo.trainer.loop import train
from ddpo.trainer.low_memory import low_memory_finding, small_moments
from ddpo.trainer.monitoring.events import Checked
from ddpo.trainer.optimizer import make_optimizer

Run = Callable[..., tuple[int, str, str]]
AGAIN = "activations are computed again in the backward pass"


class WholeSteps(torch.optim.Optimizer):
    """Stands for AdamW with 8-bit moments, which needs a GPU: its `step` is an int, its state has other shapes than the parameter."""

    def __init__(self, parameters: Any, **numbers: Any) -> None:
        super().__init__(parameters, numbers)

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["step"] = state.get("step", 0) + 1
                state["state1"] = torch.full(
                    parameter.shape, 100 + state["step"], dtype=torch.uint8
                )
                state["absmax1"] = torch.tensor([0.5 * state["step"]])


@pytest.fixture
def bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed bitsandbytes."""
    package, optim = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    optim.AdamW8bit = WholeSteps  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
    monkeypatch.setattr(
        low_memory, "find_spec", lambda name: object() if name == "bitsandbytes" else None
    )


@pytest.mark.parametrize(
    ("device", "asked", "small"),
    [
        ("cuda", True, True),
        ("cuda:1", True, True),
        ("cuda", False, False),
        ("cpu", True, False),
        ("mps", True, False),
    ],
)
def test_moments_have_8_bits_where_it_was_asked_for_on_cuda(
    bitsandbytes: None, device: str, asked: bool, small: bool
) -> None:
    config = TrainConfig(low_memory=asked, optim=OptimConfig(lr=0.5))
    assert small_moments(config, torch.device(device)) == small
    if small:
        optimizer = make_optimizer(
            [torch.nn.Parameter(torch.zeros(3))], config, torch.device(device)
        )
        assert type(optimizer) is WholeSteps
        assert optimizer.defaults["lr"] == 0.5


def test_without_the_package_they_have_32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_memory, "find_spec", lambda name: None)
    assert not small_moments(TrainConfig(low_memory=True), torch.device("cuda"))


@pytest.mark.parametrize(
    ("device", "checkpointing", "text"),
    [
        (
            "cuda",
            True,
            f"{AGAIN}; left out: AdamW's moments have 32 bits (pip install 'ddpo[low-memory]' for 8)",
        ),
        ("cpu", True, f"{AGAIN}; left out: AdamW's moments have 32 bits (8 need CUDA)"),
        (
            "mps",
            False,
            "left out: this model keeps all activations, AdamW's moments have 32 bits (8 need CUDA)",
        ),
    ],
)
def test_the_plan_names_what_is_on_and_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch, device: str, checkpointing: bool, text: str
) -> None:
    monkeypatch.setattr(low_memory, "find_spec", lambda name: None)
    policy: Any = SimpleNamespace(device=torch.device(device))
    if checkpointing:
        policy.save_memory = None
    found = low_memory_finding(TrainConfig(low_memory=True), policy)
    assert found is not None
    assert found.text == text
    assert low_memory_finding(TrainConfig(), policy) is None


def test_with_the_package_nothing_is_left_out(bitsandbytes: None) -> None:
    policy: Any = SimpleNamespace(device=torch.device("cuda"), save_memory=None)
    found = low_memory_finding(TrainConfig(low_memory=True), policy)
    assert found is not None
    assert found.text == f"{AGAIN}; AdamW's moments have 8 bits"


def test_the_state_of_8_bit_moments_is_written_and_read() -> None:
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    one, other = (WholeSteps(parameters, lr=0.1) for _ in range(2))
    for _ in range(3):
        one.step()
    restore_optimizer(other, optimizer_tensors(one))
    for parameter in parameters:
        state = other.state[parameter]
        assert type(state["step"]) is int
        assert state["step"] == 3
        assert state["absmax1"].tolist() == [1.5]
        assert state["state1"].shape == parameter.shape
        assert state["state1"].unique().tolist() == [103]


def test_on_the_cpu_a_run_is_the_same_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    events = {}
    for asked in (False, True):
        config = config_of(tiny_model, low_memory=asked)
        assert adapted_policy(config, "cpu").unet.is_gradient_checkpointing == asked  # type: ignore[attr-defined]
        events[asked] = list(train(config, tmp_path / str(asked)))
    assert metrics(tmp_path / "True") == metrics(tmp_path / "False")
    checked = [event for event in events[True] if isinstance(event, Checked)]
    assert [finding.text for finding in checked[0].findings if finding.topic == "low-memory"] == [
        f"{AGAIN}; left out: AdamW's moments have 32 bits (8 need CUDA)"
    ]


def test_the_option_is_kept_and_cannot_be_changed_afterwards(
    ddpo: Run, tiny_model: Path, tmp_path: Path
) -> None:
    list(train(config_of(tiny_model), tmp_path / "plain"))
    code, _, errors = ddpo(
        "train", "--resume", tmp_path / "plain", "--iterations", 2, "--low-memory"
    )
    assert code == 2
    assert "low_memory is True and was False" in errors
    list(train(config_of(tiny_model, low_memory=True), tmp_path / "small"))
    assert json.loads((tmp_path / "small" / "config.json").read_text())["low_memory"] is True
    code, output, errors = ddpo("train", "--resume", tmp_path / "small", "--iterations", 2)
    assert code == 0, errors
    assert AGAIN in " ".join(output.split())
