"""Training that begins from a LoRA: its weights, reference policy, resume and export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ddpo.errors import CheckpointError, ConfigError
from ddpo.io.tensors import load_tensors
from ddpo.policies.checkpoints.folder import LORA_FILE
from ddpo.trainer import TrainConfig, resume, train
from ddpo.trainer.monitoring.events import IterationDone
from ddpo.trainer.run.export import export
from tests.trainer.support_matrix import TinyModel, tensors_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def style(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration, whose LoRA other runs begin from."""
    out = tmp_path_factory.mktemp("style") / "run"
    list(train(settings(tiny_model, iterations=1), out))
    return out


def settings(model: Path, start: Path | str = "", iterations: int = 2, **optim: Any) -> TrainConfig:
    config = TinyModel(model).config("ddpo_is")
    return replace(
        config,
        iterations=iterations,
        adapt=replace(config.adapt, start=str(start)),
        optim=replace(config.optim, **optim),
    )


def lora_of(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(sorted((run / "checkpoints").iterdir())[-1] / LORA_FILE)[0]


@pytest.mark.parametrize("form", ["run", "file"])
def test_training_begins_with_the_weights_and_the_export_contains_them(
    tiny_model: Path, style: Path, tmp_path: Path, form: str
) -> None:
    """A learning rate of almost 0 leaves them as they are, and another one moves them."""
    start = style
    if form == "file":
        export(style, tmp_path / "style")
        start = tmp_path / "style" / LORA_FILE
    list(train(settings(tiny_model, start, 1, lr=1e-30), tmp_path / "still"))
    given = lora_of(style)
    still = lora_of(tmp_path / "still")
    assert still.keys() == given.keys()
    assert all(torch.equal(still[name], one) for name, one in given.items())
    assert any(bool(one.any()) for name, one in given.items() if ".lora_B." in name)
    list(train(settings(tiny_model, start, 1), tmp_path / "moved"))
    moved = lora_of(tmp_path / "moved")
    assert any(not torch.equal(moved[name], one) for name, one in given.items())
    TinyModel(tiny_model).check_export(tmp_path / "moved", tmp_path / "out")


@pytest.mark.parametrize("reference", ["base", "start"])
def test_the_kl_of_the_first_step_is_zero_to_the_start_alone(
    tiny_model: Path, style: Path, tmp_path: Path, reference: str
) -> None:
    config = settings(tiny_model, style, 2, kl=0.1, kl_reference=reference)
    list(train(config, tmp_path / "run"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    first, second = (json.loads(line)["reference_kl"] for line in lines)
    assert (first == 0) == (reference == "start")
    assert first >= 0
    assert second > 0


def test_a_run_from_a_lora_is_resumed_exactly_without_its_file(
    tiny_model: Path, style: Path, tmp_path: Path
) -> None:
    start = shutil.copytree(style, tmp_path / "start")
    config = settings(tiny_model, start, 2, kl=0.1, kl_reference="start")
    for event in train(config, tmp_path / "whole"):
        if isinstance(event, IterationDone) and event.metrics.iteration == 1:
            shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(start)
    list(resume(tmp_path / "resumed"))
    expected = tensors_of(tmp_path / "whole")
    found = tensors_of(tmp_path / "resumed")
    assert expected.keys() == found.keys()
    assert any(name.startswith("start.") for _, name in expected)
    assert [name for name, one in expected.items() if not one.equal(found[name])] == []


def test_a_run_is_not_resumed_from_another_lora(
    tiny_model: Path, style: Path, tmp_path: Path
) -> None:
    list(train(settings(tiny_model, style, 1), tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"adapt\.start is '' and was '/"):
        list(resume(tmp_path / "run", 2, {"adapt": {"start": ""}}))


def write_lora(to: Path, layer: str, rank: int = 2, width: int = 16) -> Path:
    tensors = {
        f"{layer}.lora_A.weight": torch.ones(rank, width),
        f"{layer}.lora_B.weight": torch.ones(width, rank),
    }
    save_file(tensors, to)
    return to


REAL_LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("layer", "rank", "message"),
    [
        ("transformer.transformer_blocks.0.attn.to_q", 2, "is a LoRA of a transformer"),
        ("unet.nowhere.attn1.to_q", 2, "the model has no layer nowhere.attn1.to_q"),
        (REAL_LAYER, 3, r"has rank 3: set adapt\.rank=3 \(it is 2\)"),
        (REAL_LAYER, 2, r"has alpha 2: set adapt\.alpha=2 \(it is 4\)"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused_in_one_line(
    tiny_model: Path, tmp_path: Path, layer: str, rank: int, message: str
) -> None:
    file = write_lora(tmp_path / "style.safetensors", layer, rank)
    with pytest.raises(CheckpointError, match=message) as refused:
        list(train(settings(tiny_model, file), tmp_path / "run"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_lora_of_other_layers_names_the_targets_to_set(tiny_model: Path, tmp_path: Path) -> None:
    file = write_lora(tmp_path / "style.safetensors", REAL_LAYER)
    config = settings(tiny_model, file)
    config = replace(config, adapt=replace(config.adapt, alpha=2))
    with pytest.raises(CheckpointError, match=r"other layers than adapt\.targets.* end in to_q$"):
        list(train(config, tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.safetensors", None, "no such checkpoint"),
        ("style.safetensors", b"no tensors", "style.safetensors"),
        ("style.bin", b"", "is a pickle, which ddpo never reads"),
    ],
)
def test_what_is_no_lora_is_refused_in_one_line(
    ddpo: Run, tiny_model: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, error = ddpo(
        *("train", "--model", tiny_model, "--out", tmp_path / "run", "--reward", "darkness"),
        *("--set", f"adapt.start={tmp_path / name}", "--set", "sample.samples=8", "--dry-run"),
    )
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_full_finetuning_does_not_begin_from_a_lora(ddpo: Run, tmp_path: Path) -> None:
    code, _, error = ddpo(
        *("train", "--out", tmp_path / "run", "--reward", "darkness"),
        *("--set", "adapt.start=style.safetensors", "--set", "adapt.kind=full"),
    )
    assert code == 2
    assert "set adapt.kind=lora" in error


def test_a_model_of_a_plug_in_without_the_method_is_refused_in_one_line() -> None:
    from ddpo.policies.checkpoints.folder import CheckpointInfo
    from ddpo.policies.policy import LoraSettings
    from ddpo.trainer.adapted import begin_from, keep_start

    class Plain:
        model = "mine"

    plain: Any = Plain()
    info = CheckpointInfo(Path(), "mine", "lora", 0, None, {}, Path())
    with pytest.raises(ConfigError, match=r"cannot begin from a LoRA: leave out adapt\.start"):
        begin_from(plain, info, LoraSettings())
    with pytest.raises(ConfigError, match=r"leave out optim\.kl_reference"):
        keep_start(plain)
