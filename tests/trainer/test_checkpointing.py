"""`adapt.checkpointing` as a setting of a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from test_loop import metrics, run, tiny_config

from ddpo.errors import ConfigError
from ddpo.io.tensors import load_tensors
from ddpo.policies.policy import save_memory


def test_a_run_with_checkpointing_is_the_run_without(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DConditionModel

    (tmp_path / "bright.py").write_text("def bright(images):\n    return images.mean((1, 2, 3))\n")
    asked: list[Any] = []
    enable = UNet2DConditionModel.enable_gradient_checkpointing
    monkeypatch.setattr(
        UNet2DConditionModel,
        "enable_gradient_checkpointing",
        lambda unet: asked.append(unet) or enable(unet),
    )
    for checkpointing in (False, True):
        config = tiny_config(
            tiny_model,
            f"{tmp_path / 'bright.py'}:bright",
            iterations=1,
            adapt={"kind": "full", "checkpointing": checkpointing},
        )
        run(config, tmp_path / str(checkpointing))
        assert len(asked) == checkpointing
    assert metrics(tmp_path / "True") == metrics(tmp_path / "False")
    one, two = (
        load_tensors(tmp_path / name / "state" / "state.safetensors")[0]
        for name in ("True", "False")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_model_that_cannot_says_so() -> None:
    with pytest.raises(ConfigError, match="'mine' keeps all activations"):
        save_memory(cast(Any, SimpleNamespace(model="mine")))
