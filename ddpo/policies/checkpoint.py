"""The checkpoint folder: what `ddpo train` writes and what `ddpo sample`, `ddpo eval` and plain diffusers read.

policy.json                          schema, model, kind ("lora" or "full"), iteration, LoRA settings, file of other weights
pytorch_lora_weights.safetensors     kind "lora": diffusers' own format, for `pipeline.load_lora_weights(folder)`
unet/                                kind "full": a diffusers folder, for `UNet2DConditionModel.from_pretrained(folder, subfolder="unet")`
or another file or folder, of a model that is not Stable Diffusion

Checkpoints of other trainers have no policy.json (`ddpo.policies.foreign`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError
from ddpo.files import named_path
from ddpo.policies.foreign import fetch, needs_base, recognise
from ddpo.policies.lora_file import LORA_FILE
from ddpo.policies.unet_folder import UNET

__all__ = ["BEST_FILE", "LORA_FILE", "POLICY_FILE", "UNET", "CheckpointInfo", "find_checkpoint", "write_facts"]

POLICY_FILE: Final = "policy.json"
BEST_FILE: Final = "best.json"  # in the folder of a run's checkpoints: names the best by a reward that was not trained on
SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a checkpoint folder says of itself."""

    folder: Path  # where it lies; of another trainer's, perhaps the file
    model: str  # id or folder of the base model
    kind: str  # "lora" or "full"
    iteration: int
    run: Path | None  # the run folder that it lies in
    adapter: dict[str, Any]  # LoRA rank, alpha and targets
    weights: Path  # file or folder; LORA_FILE or UNET, but for models that are not Stable Diffusion and other trainers' files

    @property
    def foreign(self) -> bool:
        """Whether another trainer made it: diffusers' formats, and nothing is known but the weights."""
        return not (self.folder / POLICY_FILE).is_file()


def write_facts(
    folder: Path, model: str, kind: str, iteration: int, adapter: Mapping[str, Any] | None = None, weights: str | None = None
) -> None:
    """Writes `policy.json`.

    Args:
        folder: the checkpoint, with its weights.
        model: what `load_policy` is to be given.
        kind: "lora" or "full".
        iteration: after which it is written.
        adapter: LoRA rank, alpha and targets.
        weights: file or folder of the weights, if it is neither LORA_FILE nor UNET.
    """
    record: dict[str, Any] = {"schema": SCHEMA, "model": model, "kind": kind, "iteration": iteration, "adapter": dict(adapter or {})}
    if weights is not None:
        record["weights"] = weights
    (folder / POLICY_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def find_checkpoint(path: Path | str, base: str | None = None) -> CheckpointInfo:
    """The checkpoint at `path`.

    That folder itself, or the latest one of the run folder `path`; `RUN/best` is the best by `held_out`. Or what another trainer made:
    a folder with a UNet or a LoRA, a LoRA's file, a hub id "owner/name" or "owner/name/lora.safetensors" (iteration 0, no run).

    Args:
        path: a path or hub id.
        base: the base model; needed for what ddpo did not make, refused if it contradicts what ddpo made.

    Raises:
        CheckpointError: there is none, it is damaged, `base` is missing or wrong.
        MissingResourceError: a hub id that cannot be fetched.
    """
    name, path = str(path), named_path(path)
    if path.name == "best" and not path.exists() and path.parent.is_dir():
        return _of(_read(_best(path.parent)), base)
    if not path.exists():
        found = fetch(name, base)
        if found is None:
            raise CheckpointError(f"{path}: no such checkpoint or run folder")
        path = found
    if (path / POLICY_FILE).is_file():
        return _of(_read(path), base)
    inside = sorted(folder for folder in (path / "checkpoints").glob("iteration-*") if (folder / POLICY_FILE).is_file())
    if inside:
        return _of(_read(inside[-1]), base)
    foreign = recognise(path)
    if foreign is None:
        raise CheckpointError(
            f"{name} is neither a checkpoint (no {POLICY_FILE}, no UNet or LoRA as safetensors) nor a run with finished checkpoints"
        )
    if base is None:
        raise needs_base(name)
    return CheckpointInfo(path, base, foreign.kind, 0, None, foreign.adapter, foreign.weights)


def _of(info: CheckpointInfo, base: str | None) -> CheckpointInfo:
    if base is not None and base != info.model:
        raise CheckpointError(f"{info.folder} was trained from {info.model!r}, not from {base!r}")
    return info


def _best(run: Path) -> Path:
    """The folder that the run's `best.json` names."""
    file = (run if run.name == "checkpoints" else run / "checkpoints") / BEST_FILE
    try:
        folder = file.with_name(str(json.loads(file.read_text(encoding="utf-8"))["folder"]))
    except FileNotFoundError as error:
        raise CheckpointError(f"{run} has no best checkpoint: only runs with the setting held_out choose one") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if not (folder / POLICY_FILE).is_file():
        raise CheckpointError(f"{file} names {folder.name}, which is not there")
    return folder


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
    own = record.get("weights")
    weights = folder / str(own or (LORA_FILE if kind == "lora" else UNET))
    if not weights.exists():
        raise CheckpointError(f"{folder} lacks {weights.name}")
    if kind not in ("lora", "full") or (kind == "lora" and not own and not {"rank", "alpha", "targets"} <= set(adapter)):
        raise CheckpointError(f"{file} is damaged: kind {kind!r} with adapter settings {adapter}")
    around = (folder.parent.parent, folder.resolve().parent.parent)  # the second for ".", "../name" and links
    run = next((place for place in around if (place / "config.json").is_file()), None)
    return CheckpointInfo(folder, model, kind, iteration, run, adapter, weights)
