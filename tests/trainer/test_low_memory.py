"""`--low-memory`: steps that are on, steps that were left out, and an unchanged run."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from pretended_mps import PretendedMps, on_mps
from test_resume import config_of, metrics
from torch import nn

from ddpo.doctor.random_clip import TINY, write_small_vocabulary_clip
from ddpo.io.tensors import optimizer_tensors, restore_optimizer
from ddpo.rewards.card import RewardCard
from ddpo.rewards.offload import place
from ddpo.trainer import low_memory, training_setup
from ddpo.trainer.adapted import adapted_policy
from ddpo.trainer.config import OptimConfig, TrainConfig
from ddpo.trainer.loop import train
from ddpo.trainer.low_memory import low_memory_finding, small_moments
from ddpo.trainer.monitoring.events import Checked, Finding
from ddpo.trainer.optimizer import make_optimizer
from ddpo.types import ImageBatch, RewardOutput

Run = Callable[..., tuple[int, str, str]]
AGAIN = "activations are computed again in the backward pass"
LEAVE = "rewards leave the device during an update"


class WholeSteps(torch.optim.Optimizer):
    """Stands for AdamW with 8-bit moments, which needs a GPU.

    Its `step` is an int, and its state has other shapes than the parameter.
    """

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
    package = ModuleType("bitsandbytes")
    optim = ModuleType("bitsandbytes.optim")
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
def test_moments_have_8_bits_where_the_settings_say_on_cuda(
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
            f"{AGAIN}; {LEAVE}; left out: AdamW's moments have 32 bits "
            "(pip install 'ddpo[low-memory]' for 8)",
        ),
        ("cpu", True, f"{AGAIN}; left out: AdamW's moments have 32 bits (8 need CUDA)"),
        (
            "mps",
            False,
            f"{LEAVE}; left out: this model keeps all activations, "
            "AdamW's moments have 32 bits (8 need CUDA)",
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
    assert found.text == f"{AGAIN}; AdamW's moments have 8 bits; {LEAVE}"


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
        policy: Any = adapted_policy(config, "cpu")
        assert policy.unet.is_gradient_checkpointing == asked
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


def networks_on_the_device(policy: Any) -> list[str]:
    """Networks of this process that lie on the pretended device, those of the policy left out."""
    own = {
        id(each)
        for held in vars(policy).values()
        if isinstance(held, nn.Module)
        for each in held.modules()
    }
    alive = [
        each
        for each in gc.get_objects()
        if issubclass(type(each), nn.Module) and id(each) not in own
    ]
    return [
        type(each).__name__
        for each in alive
        if any(on_mps(tensor) for tensor in each._parameters.values())
    ]


def watched_run(
    config: TrainConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[list[str]], list[Finding]]:
    """Networks on the device at each training call, and the findings before the run."""
    seen: list[list[str]] = []
    findings: list[Finding] = []

    def watched(likelihood: Any) -> type:
        class Watched(likelihood):
            def of(self, items: Any) -> Any:
                seen.append(networks_on_the_device(self.policy))
                return super().of(items)

        return Watched

    with PretendedMps(), monkeypatch.context() as patch:
        patch.setattr(
            training_setup, "TransitionLikelihood", watched(training_setup.TransitionLikelihood)
        )
        for event in train(config, out):
            if isinstance(event, Checked):
                findings += event.findings
    return seen, findings


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights."""
    folder = tmp_path_factory.mktemp("clip")
    write_small_vocabulary_clip(folder, "ViT-B/32", TINY)
    return folder


def test_no_network_of_a_reward_is_on_the_device_during_an_update(
    tiny_model: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, losses and gradients are those of a run whose reward stays."""
    reward = f"pickscore:clip={tiny_clip},processor={tiny_clip}"
    settings: dict[str, Any] = {
        "reward": reward,
        "device": "mps",
        "dtype": "float32",
        "iterations": 2,
        "held_out": "darkness",
    }
    away, reported = watched_run(
        config_of(tiny_model, low_memory=True, **settings), tmp_path / "away", monkeypatch
    )
    stay, _ = watched_run(config_of(tiny_model, **settings), tmp_path / "stay", monkeypatch)
    assert len(away) == len(stay) > 4
    assert all("Linear" in names for names in stay), "the test sees networks that stay"
    assert away == [[]] * len(away)
    assert metrics(tmp_path / "away") == metrics(tmp_path / "stay")
    texts = {finding.topic: finding.text for finding in reported}
    assert LEAVE in texts["low-memory"]
    assert "stays there" not in texts["low-memory"]
    assert texts["memory"].endswith("(not during an update)")


def test_a_reward_of_a_user_that_does_not_place_its_network_is_named_once(tmp_path: Path) -> None:
    class Held:
        card = RewardCard(
            id="held",
            version="1",
            summary="s",
            load="m:a",
            family="pixels",
            flaws="f",
            device="any",
        )

        def __init__(self, placed: bool) -> None:
            network = nn.Linear(2, 1)
            self.network = place(network, "mps") if placed else network.to("mps")

        def __call__(self, batch: ImageBatch) -> RewardOutput:
            return RewardOutput(torch.zeros(len(batch)))

    policy: Any = SimpleNamespace(device=torch.device("mps"))
    config = TrainConfig(low_memory=True)
    with PretendedMps():
        found = low_memory_finding(
            config, policy, [Held(placed=False), Held(placed=True), Held(placed=False)]
        )
        assert found is not None
        assert (
            found.text.count("held stays there (move its network with ddpo.rewards.offload.place)")
            == 1
        )
        found = low_memory_finding(config, policy, [Held(placed=True)])
        assert found is not None
        assert "stays there" not in found.text
