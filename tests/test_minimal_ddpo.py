"""The example in one file is the library's DDPO-IS: equal rewards, first gradient and weights."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ddpo.io.tensors import load_tensors
from ddpo.trainer import config_for, train

FILE = Path(__file__).parents[1] / "examples" / "minimal_ddpo.py"
SMALL = {
    "samples": 16,
    "per_prompt": 8,
    "steps": 4,
    "batch": 8,
    "updates": 2,
    "timesteps": 3,
    "lr": 3e-3,
    "seed": 5,
}


@pytest.fixture(scope="module")
def minimal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minimal_ddpo", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["minimal_ddpo"] = module
    spec.loader.exec_module(module)
    return module


class Recording(torch.optim.AdamW):
    """AdamW that keeps the gradients of its first step."""

    first: list[torch.Tensor] | None = None

    def step(self, closure: Any = None) -> Any:
        if Recording.first is None:
            Recording.first = [
                parameter.grad.clone() for parameter in self.param_groups[0]["params"]
            ]
        return super().step(closure)


def test_one_iteration_is_the_librarys(
    minimal: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    monkeypatch.setattr(Recording, "first", None)
    state = torch.get_rng_state()
    model = minimal.train(minimal.Settings(iterations=1, **SMALL))
    torch.set_rng_state(state)
    mine = Recording.first
    Recording.first = None
    values = {
        "iterations": 1,
        "seed": SMALL["seed"],
        "sample": {key: SMALL[key] for key in ("samples", "per_prompt", "steps", "batch")},
        "optim": {key: SMALL[key] for key in ("updates", "timesteps", "lr")},
    }
    list(train(config_for(values), tmp_path / "run"))
    theirs = Recording.first
    assert mine is not None
    assert theirs is not None
    assert len(mine) == len(theirs) > 0
    assert max(float(gradient.abs().max()) for gradient in theirs) > 1e-4
    for one, two in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    tensors, _ = load_tensors(tmp_path / "run" / "state" / "state.safetensors")
    names = [name for name, parameter in model.unet.named_parameters() if parameter.requires_grad]
    for name, parameter in zip(names, model.parameters, strict=True):
        torch.testing.assert_close(parameter.detach(), tensors[f"policy.{name}"], rtol=0, atol=1e-6)
    (line,) = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert capsys.readouterr().out == f"iteration 1: reward {line['reward_mean']:.3f} kB\n"
    assert line["updates"] == 2


def test_its_settings_are_the_defaults_of_the_library(minimal: ModuleType) -> None:
    config = config_for({})
    settings = minimal.Settings()
    for name in vars(settings):
        (home,) = [
            part
            for part in (config, config.sample, config.optim, config.advantage)
            if hasattr(part, name)
        ]
        assert getattr(home, name) == getattr(settings, name), name


def test_it_is_short_and_does_without_the_trainer() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert "ddpo.trainer" not in text
    assert len(text.splitlines()) <= 200
