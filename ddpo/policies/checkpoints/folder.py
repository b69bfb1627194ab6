"""The checkpoint folder, written by `ddpo train` and read by ddpo and plain diffusers.

policy.json                         schema, model, base (place and fingerprint of a local model),
                                    kind ("lora" or "full"), iteration, LoRA settings, other weights
                                    digests of files (sha256) and of settings (facts_sha256)
pytorch_lora_weights.safetensors    kind "lora", for `pipeline.load_lora_weights(folder)`
unet/ or transformer/               kind "full", for `from_pretrained` of the denoiser's class

Models of plug-ins may have another file or folder of weights. Checkpoints of other
trainers have no policy.json (`ddpo.policies.checkpoints.external`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from ddpo.errors import CheckpointError
from ddpo.io.atomic import named_path
from ddpo.io.fields import COUNT, NAME, Fields, Real
from ddpo.io.json_files import read_json
from ddpo.policies.checkpoints.external import fetch, needs_base, recognise
from ddpo.policies.checkpoints.info import POLICY_FILE, BaseFacts, CheckpointInfo
from ddpo.policies.checkpoints.lora import LORA_FILE
from ddpo.policies.checkpoints.policy_file import (
    check_files,
    check_present,
    read_facts,
    write_facts,
)
from ddpo.policies.pipelines import UNET
from ddpo.user_code import names_code, refuse_unnamed

__all__ = [
    "BEST_FIELDS",
    "BEST_FILE",
    "LORA_FILE",
    "POLICY_FILE",
    "UNET",
    "BaseFacts",
    "CheckpointInfo",
    "check_base",
    "check_files",
    "check_present",
    "checkpoint_folders",
    "find_checkpoint",
    "write_facts",
]

BEST_FILE: Final = "best.json"
"""File beside a run's checkpoints that names the best one by a held-out reward."""
FOLDER_NAME: Final = re.compile(r"iteration-([0-9]{6,20})")
BEST_FIELDS: Final[Fields] = {"folder": NAME, "iteration": COUNT, "reward": str, "value": Real()}


def find_checkpoint(
    path: Path | str, base: str | None = None, trust: Iterable[str] = ()
) -> CheckpointInfo:
    """The checkpoint at `path`, of ddpo or of another trainer.

    For a run folder it is the latest checkpoint; `RUN/best` is the best one by `held_out`. Other
    trainers' checkpoints are a folder with a UNet or a LoRA, a LoRA file, or a hub id "owner/name"
    or "owner/name/lora.safetensors". They have iteration 0 and no run.

    Args:
        path: Path or hub id.
        base: Base model; required for other trainers' checkpoints, else it must match.
        trust: Code that the checkpoint may name as its base model.

    Raises:
        UntrustedError: The checkpoint names code as its base model, which the caller does not.
        CheckpointError: There is no checkpoint, it is damaged, or `base` is missing or wrong.
        MissingResourceError: The hub id cannot be fetched.
    """
    name = str(path)
    path = named_path(path)
    if path.name == "best" and not path.exists() and path.parent.is_dir():
        return _with_base(read_facts(_best(path.parent)), base, trust)
    if not path.exists():
        found = fetch(name, base)
        if found is None:
            raise CheckpointError(f"{path}: no such checkpoint or run folder")
        path = found
    if (path / POLICY_FILE).is_file():
        return _with_base(read_facts(path), base, trust)
    folders = checkpoint_folders(path / "checkpoints")
    inside = [folder for folder in folders if (folder / POLICY_FILE).is_file()]
    if inside:
        return _with_base(read_facts(inside[-1]), base, trust)
    external = recognise(path)
    if external is None:
        raise CheckpointError(
            f"{name} is neither a checkpoint (no {POLICY_FILE}, no denoiser or LoRA as "
            "safetensors) nor a run with finished checkpoints"
        )
    if base is None:
        raise needs_base(name)
    return CheckpointInfo(path, base, external.kind, 0, None, external.adapter, external.weights)


def checkpoint_folders(checkpoints: Path) -> list[Path]:
    """The folders of a run's checkpoints by iteration, whatever their times; copies do not count.

    Args:
        checkpoints: folder of the checkpoints, which may be absent.
    """
    found = [
        (int(match[1]), folder)
        for folder in checkpoints.glob("iteration-*")
        if (match := FOLDER_NAME.fullmatch(folder.name))
    ]
    return [folder for _, folder in sorted(found)]


def check_base(info: CheckpointInfo, model: str) -> None:
    """Raises unless a word names the base model of a checkpoint.

    Raises:
        CheckpointError: The word names another model.
    """
    base = info.base or BaseFacts(info.model)
    if base.is_model(model):
        return
    if base.is_at(model):
        raise CheckpointError(
            f"{info.folder} was trained from {base.place}, whose denoiser has changed since: "
            "give a copy of the old one with --model"
        )
    place = f" ({base.place})" if base.place and base.place != base.word else ""
    raise CheckpointError(
        f"{info.folder} was trained from {base.word!r}{place}, not from {model!r}"
    )


def _with_base(info: CheckpointInfo, base: str | None, trust: Iterable[str]) -> CheckpointInfo:
    if base is None:
        words = [info.model] if names_code(info.model) else []
        refuse_unnamed(info.folder / POLICY_FILE, words, trust)
        return info
    check_base(info, base)
    return replace(info, model=base)


def _best(run: Path) -> Path:
    """The folder named in the run's `best.json`."""
    file = (run if run.name == "checkpoints" else run / "checkpoints") / BEST_FILE
    if not file.exists():
        raise CheckpointError(
            f"{run} has no best checkpoint: only runs with the setting held_out choose one"
        )
    folder = file.with_name(read_json(file, {"folder": NAME})["folder"])
    if not (folder / POLICY_FILE).is_file():
        raise CheckpointError(f"{file} names {folder.name}, which is not there")
    return folder
