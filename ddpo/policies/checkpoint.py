"""The checkpoint folder: what `ddpo train` writes and what `ddpo sample`, `ddpo eval` and plain diffusers read.

policy.json                          schema, model, kind ("lora" or "full"), iteration, LoRA settings
pytorch_lora_weights.safetensors     kind "lora": diffusers' own format, for `pipeline.load_lora_weights(folder)`
unet/                                kind "full": a diffusers folder, for `UNet2DConditionModel.from_pretrained(folder, subfolder="unet")`
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError

__all__ = ["LORA_FILE", "POLICY_FILE", "CheckpointInfo", "find_checkpoint"]

POLICY_FILE: Final = "policy.json"
LORA_FILE: Final = "pytorch_lora_weights.safetensors"
SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a checkpoint folder says of itself."""

    folder: Path
    model: str  # id or folder of the base model
    kind: str  # "lora" or "full"
    iteration: int
    run: Path | None  # the run folder that it lies in
    adapter: dict[str, Any]  # LoRA rank, alpha and targets


def find_checkpoint(path: Path) -> CheckpointInfo:
    """The checkpoint at `path`: that folder itself, or the latest one of the run folder `path`.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint or run folder")
    if (path / POLICY_FILE).is_file():
        return _read(path)
    inside = sorted(folder for folder in (path / "checkpoints").glob("iteration-*") if (folder / POLICY_FILE).is_file())
    if not inside:
        raise CheckpointError(f"{path} is neither a checkpoint (no {POLICY_FILE}) nor a run with finished checkpoints")
    return _read(inside[-1])


def _read(folder: Path) -> CheckpointInfo:
    file = folder / POLICY_FILE
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        schema, model, kind, iteration = record["schema"], str(record["model"]), str(record["kind"]), int(record["iteration"])
        adapter = dict(record.get("adapter", {}))
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if schema != SCHEMA:
        raise CheckpointError(f"{file} has schema {schema}, this ddpo reads {SCHEMA}")
    weights = folder / LORA_FILE if kind == "lora" else folder / "unet"
    if not weights.exists():
        raise CheckpointError(f"{folder} lacks {weights.name}")
    if kind not in ("lora", "full") or (kind == "lora" and not {"rank", "alpha", "targets"} <= set(adapter)):
        raise CheckpointError(f"{file} is damaged: kind {kind!r} with adapter settings {adapter}")
    run = folder.parent.parent
    return CheckpointInfo(folder, model, kind, iteration, run if (run / "config.json").is_file() else None, adapter)
