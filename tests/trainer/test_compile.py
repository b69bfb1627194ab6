"""A compiled denoiser: exact ratios, unchanged files, a reference that stays the base model.

The back ends of these tests run the graphs uncompiled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import config_of, metrics
from torch._dynamo.backends.debugging import aot_eager, eager

from ddpo.errors import ConfigError
from ddpo.io.tensors import load_tensors
from ddpo.policies import load_policy
from ddpo.policies import policy as policy_module
from ddpo.policies.policy import LoraSettings, check_compiler, compile_denoiser, save_memory
from ddpo.policies.sampler import SampleKey, SamplerSettings, guided, sample_trajectory
from ddpo.policies.transition import ddim_mean, gaussian_log_prob
from ddpo.trainer.loop import resume, train
from ddpo.types import Prompt

COMPILER = "ddpo.policies.latent_policy.COMPILER"
pytestmark = pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
Run = Callable[..., tuple[int, str, str]]
KEYS = [SampleKey(Prompt("a cat"), 0), SampleKey(Prompt("a dog"), 0), SampleKey(Prompt("a cat"), 1)]


Graphs = list[int]


def counted(run: Callable[..., Any], found: Graphs) -> Callable[..., Any]:
    """The back end `run` of torch.compile, which adds an entry per graph."""

    def backend(graph: Any, inputs: Any, **more: Any) -> Any:
        found.append(len(inputs))
        return run(graph, inputs, **more)

    return backend


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    """The graphs of torch.compile, run operator by operator."""
    found: Graphs = []
    monkeypatch.setattr(COMPILER, counted(eager, found))
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


def policy_of(folder: Path, kind: Any, dtype: str) -> Any:
    """A policy that has moved."""
    policy: Any = load_policy(str(folder), device="cpu", dtype=dtype)
    policy.adapt(kind, LoraSettings(rank=4, alpha=4))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in policy.trainable_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize(
    ("model", "kind", "dtype", "guidance", "checkpointing", "run"),
    [
        ("tiny_model", "lora", "float32", 1.0, False, eager),
        ("tiny_model", "full", "bfloat16", 3.0, True, aot_eager),
        ("tiny_xl", "lora", "bfloat16", 3.0, False, aot_eager),
    ],
)
def test_sampling_and_training_share_a_graph_and_its_bits(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    graphs: Graphs,
    model: str,
    kind: str,
    dtype: str,
    guidance: float,
    checkpointing: bool,
    run: Callable[..., Any],
) -> None:
    """`aot_eager` also traces the graph of the gradient."""
    monkeypatch.setattr(COMPILER, counted(run, graphs))
    policy = policy_of(request.getfixturevalue(model), kind, dtype)
    settings = SamplerSettings(steps=3, guidance=guidance, batch=4)
    plain = sample_trajectory(policy, KEYS, settings, seed=3)
    if checkpointing:
        save_memory(policy)
    compile_denoiser(policy)
    path = sample_trajectory(policy, KEYS, settings, seed=3)
    assert not path.latents.requires_grad
    torch.testing.assert_close(path.latents, plain.latents)
    made = len(graphs)
    assert made > 0
    coefficients = policy.schedule.coefficients(3, 1.0)
    images = torch.tensor([2, 0, 2, 1])
    steps = torch.tensor([2, 0, 1, 2])
    conditioning = policy.encode([KEYS[i].prompt.text for i in images])
    x_t = path.latents[images, steps]
    x_prev = path.latents[images, steps + 1]
    output = guided(
        policy, x_t, coefficients.timesteps[steps], conditioning, policy.encode([""]), guidance
    )
    found = gaussian_log_prob(
        x_prev,
        ddim_mean(output, x_t, steps, coefficients, policy.schedule.prediction),
        coefficients.std[steps],
    )
    assert torch.equal(found, path.log_probs[images, steps])
    assert len(graphs) == made  # training needed none of its own
    found.sum().backward()
    assert all(parameter.grad is not None for _, parameter in policy.trainable_parameters())


def test_a_compiled_run_is_written_and_read_as_any_other(
    tiny_model: Path, tmp_path: Path, graphs: Graphs
) -> None:
    """KL to the reference is 0 before the first step, and names in the files are the plain ones."""
    settings = {
        "checkpoint_every": 1,
        "adapt": {"kind": "full"},
        "optim": {"updates": 1, "timesteps": 2, "kl": 0.1},
    }
    list(train(config_of(tiny_model, **settings), tmp_path / "plain"))
    assert not graphs
    list(train(config_of(tiny_model, **settings, compile=True), tmp_path / "compiled"))
    assert graphs
    plain, compiled = (metrics(tmp_path / name) for name in ("plain", "compiled"))
    for (line,) in (plain, compiled):
        assert line["ratio_first_deviation"] == 0.0
        assert line["reference_kl"] == 0.0
    assert_close_weights(tmp_path / "compiled", tmp_path / "plain")
    load_policy(str(tiny_model), checkpoint=tmp_path / "compiled")


def test_a_run_may_be_resumed_compiled_and_says_that_sums_are_rounded_otherwise(
    ddpo: Run, tiny_model: Path, tmp_path: Path, graphs: Graphs
) -> None:
    config = config_of(tiny_model, checkpoint_every=1)
    for name in ("plain", "compiled"):
        list(train(config, tmp_path / name))
    list(resume(tmp_path / "plain", 2))
    assert not graphs
    code, output, errors = ddpo(
        "train", "--resume", tmp_path / "compiled", "--iterations", 2, "--set", "compile=true"
    )
    assert code == 0, errors
    assert graphs
    assert "compile" in output
    config_file = tmp_path / "compiled" / "config.json"
    assert json.loads(config_file.read_text())["compile"] is True
    assert metrics(tmp_path / "compiled")[1]["ratio_first_deviation"] == 0.0
    assert_close_weights(tmp_path / "compiled", tmp_path / "plain")


def assert_close_weights(run: Path, other: Path) -> None:
    """The last checkpoints have tensors of the same names, and equal but for rounding."""
    found, due = (
        load_tensors(max((folder / "checkpoints").rglob("*.safetensors")))[0]
        for folder in (run, other)
    )
    assert found.keys() == due.keys()
    for name, value in due.items():
        torch.testing.assert_close(found[name], value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("value", ["1", "yes", "'inductor'", "0.5"])
def test_compile_is_true_or_false(ddpo: Run, tmp_path: Path, value: str) -> None:
    code, _, errors = ddpo("train", "--set", f"compile={value}", "--out", tmp_path / "run")
    assert code == 2
    assert "setting 'compile' must be bool" in errors


def test_a_model_that_cannot_be_compiled_says_so() -> None:
    class Plain:
        model = "mine"
        device = torch.device("mps")

    with pytest.raises(ConfigError, match="'mine' cannot be compiled"):
        compile_denoiser(Plain())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "missing"),
    [("cpu", "C++ compiler"), ("cuda", "Triton"), ("cuda:1", "Triton"), ("mps", "")],
)
def test_what_compiles_has_to_be_there(
    monkeypatch: pytest.MonkeyPatch, device: str, missing: str
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(policy_module.shutil, "which", lambda name: None)
    monkeypatch.setattr(policy_module, "find_spec", lambda name: None)
    if not missing:
        check_compiler(torch.device(device))
        return
    with pytest.raises(ConfigError, match=f"needs (a )?{re.escape(missing)}"):
        check_compiler(torch.device(device))
    monkeypatch.setenv("CXX", "/opt/bin/c++")
    monkeypatch.setattr(policy_module, "find_spec", lambda name: object())
    check_compiler(torch.device(device))
