"""Weights of checkpoints without digests: damage is found before they are used or shipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddpo.errors import CheckpointError
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import LORA_FILE, POLICY_FILE
from ddpo.policies.policy import LoraSettings
from ddpo.trainer.run.export import export

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def old_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint as versions without digests wrote it."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    policy = load_policy("emoji", device="cpu")
    policy.adapt("lora", LoraSettings(rank=2, alpha=2))
    policy.save(folder, 3)
    record = json.loads((folder / POLICY_FILE).read_text())
    del record["sha256"]
    del record["facts_sha256"]
    (folder / POLICY_FILE).write_text(json.dumps(record))
    return folder


def tensors_changed(change: Callable[[Tensors], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / LORA_FILE)
        change(tensors)
        save_file(tensors, folder / LORA_FILE)

    return damage


def truncated(folder: Path) -> None:
    data = (folder / LORA_FILE).read_bytes()
    (folder / LORA_FILE).write_bytes(data[: len(data) * 2 // 3])


def another_rank(folder: Path) -> None:
    record = json.loads((folder / POLICY_FILE).read_text())
    record["adapter"]["rank"] = 4
    (folder / POLICY_FILE).write_text(json.dumps(record))


def nan(tensors: Tensors) -> None:
    next(iter(tensors.values()))[0, 0] = torch.nan


def one_lost(tensors: Tensors) -> None:
    del tensors[min(tensors)]


def other_width(tensors: Tensors) -> None:
    name = min(name for name in tensors if "lora_A" in name)
    tensors[name] = torch.ones(tensors[name].shape[0], tensors[name].shape[1] + 1)


def other_layer(tensors: Tensors) -> None:
    for name in [name for name in tensors if "down_blocks" in name]:
        tensors[name.replace("down_blocks.0", "down_blocks.9")] = tensors.pop(name)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "cannot be read as safetensors"),
    "nan": (tensors_changed(nan), "NaN or infinite"),
    "one lost": (tensors_changed(one_lost), "is no plain LoRA: .* is "),
    "another rank": (another_rank, "has rank 2, and policy.json says 4"),
    "another width": (tensors_changed(other_width), "in the model and"),
    "another layer": (tensors_changed(other_layer), "the model has no layer"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_lora_is_neither_loaded_nor_exported(
    case: str, old_checkpoint: Path, tmp_path: Path
) -> None:
    damage, message = DAMAGE[case]
    load_policy("emoji", old_checkpoint, "cpu")
    damage(old_checkpoint)
    with pytest.raises(CheckpointError, match=message) as error:
        load_policy("emoji", old_checkpoint, "cpu")
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match=message):
        export(old_checkpoint, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_whole_weights_that_are_nan_are_neither_loaded_nor_exported(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    policy = load_policy("emoji", device="cpu")
    policy.adapt("full")
    policy.save(folder, 3)
    record = json.loads((folder / POLICY_FILE).read_text())
    del record["sha256"]
    del record["facts_sha256"]
    (folder / POLICY_FILE).write_text(json.dumps(record))
    load_policy("emoji", folder, "cpu")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.bias"][0] = torch.inf
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"conv_in\.bias has weights that are NaN"):
        load_policy("emoji", folder, "cpu")
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        export(folder, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iteration": 10**15 * 10**4}, "its iteration cannot be"),
        ({"iteration": -1}, "its iteration cannot be -1"),
        ({"adapter": {"rank": 10**9, "alpha": 1, "targets": ["to_q"]}}, "its adapter.rank cannot"),
        ({"adapter": {"rank": 2, "alpha": 1, "targets": []}}, "its adapter.targets cannot"),
        ({"weights": "../../secret.safetensors"}, "its weights cannot be"),
        ({"weights": "/etc/passwd"}, "its weights cannot be"),
        ({"kind": "LoRA"}, "its kind cannot be"),
        ({"model": "x" * 1_000_000}, "its model cannot be"),
        ({"base": []}, "its base cannot be"),
        ({"schema": 7}, "has schema 7"),
    ],
)
def test_absurd_facts_are_refused_in_one_line(
    change: dict[str, object], message: str, old_checkpoint: Path
) -> None:
    from ddpo.policies.checkpoints.folder import find_checkpoint

    record = json.loads((old_checkpoint / POLICY_FILE).read_text())
    (old_checkpoint / POLICY_FILE).write_text(json.dumps(record | change))
    with pytest.raises(CheckpointError, match=message) as error:
        find_checkpoint(old_checkpoint)
    assert len(str(error.value)) < 400
