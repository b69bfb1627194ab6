"""Checkpoints of other trainers: a denoiser or a LoRA in a format of diffusers.

They come from a folder, a file or the hub. A checkpoint with parts that ddpo cannot load is an
error, since its images would not be those of that model. `ddpo.policies.checkpoints.lora` and
`ddpo.policies.checkpoints.denoiser` load the weights.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError
from ddpo.io.json_files import read_foreign_json
from ddpo.policies.checkpoints.denoiser import CONFIG, WEIGHTS, variant_of
from ddpo.policies.checkpoints.lora import LORA_FILE, read_lora
from ddpo.policies.checkpoints.peft_settings import PEFT_CONFIG, PEFT_FILE
from ddpo.policies.pipelines import DENOISERS, PIPELINES
from ddpo.weights import fetch_hub_file, fetch_hub_repository

__all__ = ["ExternalCheckpoint", "fetch", "needs_base", "recognise"]

CLASSES: Final = tuple(
    dict.fromkeys(
        name
        for kind in PIPELINES.values()
        for part in DENOISERS
        for name in kind.classes.get(part, ())
    )
)
"""Classes of denoisers."""
MODEL_INDEX: Final = "model_index.json"
POLICY_FILE: Final = "policy.json"  # of ddpo's own checkpoints
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")
HUB_ID: Final = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(.+\.safetensors))?")
SMALL: Final = (
    POLICY_FILE,
    LORA_FILE,
    PEFT_FILE,
    PEFT_CONFIG,
    MODEL_INDEX,
    CONFIG,
    *(f"{part}/{CONFIG}" for part in DENOISERS),
    "scheduler/*.json",
)
BESIDE: Final = (
    "text_encoder/config.json",
    "text_encoder/model{}.safetensors",
    "vae/config.json",
    f"vae/{WEIGHTS}{{}}.safetensors",
)
"""Files to compare with the base model, besides the denoiser; `{}` is the variant."""


@dataclass(frozen=True, slots=True)
class ExternalCheckpoint:
    """A checkpoint of another trainer."""

    kind: str  # "lora" or "full"
    weights: Path  # the LoRA's file, or the denoiser's folder
    adapter: dict[str, Any]  # LoRA rank and alpha (those of most layers), and targets


def fetch(name: str, base: str | None) -> Path | None:
    """The local folder or file of a hub id, with only the necessary files; None if no hub id.

    Args:
        name: "owner/name", or "owner/name/path/to/lora.safetensors".
        base: Base model, if given; without it only a repository with a policy.json is fetched.

    Raises:
        MissingResourceError: The repository does not exist or is unreachable, or fetching is off.
        CheckpointError: `base` is required.
    """
    match = HUB_ID.fullmatch(name)
    if match is None or Path(name.split("/")[0]).exists():  # "runs/my-rnu" is a misspelt folder
        return None
    repository, file = match.groups()
    what = f"the checkpoint {name!r} (no folder here, so a hub id)"
    if file:
        return fetch_hub_file(repository, file, "main", None, what)
    folder = fetch_hub_repository(repository, "main", what, SMALL)
    if (folder / POLICY_FILE).is_file():
        return fetch_hub_repository(repository, "main", what)
    if base is None:
        raise needs_base(name)
    if (folder / LORA_FILE).is_file() or (folder / PEFT_FILE).is_file():
        return folder
    prefixes = (f"{part}/" for part in DENOISERS if (folder / part / CONFIG).is_file())
    prefix = next(prefixes, "")
    for variant in ("", ".fp16"):
        names = (
            f"{prefix}{WEIGHTS}{variant}.safetensors",
            f"{prefix}{WEIGHTS}{variant}-*.safetensors",
            f"{prefix}*.index*.json",
        )
        beside = [file.format(variant) for file in BESIDE]
        folder = fetch_hub_repository(repository, "main", what, (*names, *beside))
        if any((folder / prefix).glob(f"{WEIGHTS}*.safetensors")):
            break
    return folder


def needs_base(path: Path | str) -> CheckpointError:
    """The error for a checkpoint that does not name its base model."""
    return CheckpointError(
        f"{path} was not made by ddpo and does not name its base model: give --model MODEL"
    )


def recognise(path: Path) -> ExternalCheckpoint | None:
    """The denoiser or LoRA at `path`; None if there is neither.

    Args:
        path: Folder of a pipeline, its `unet/` or `transformer/`, a folder with one LoRA, or a LoRA
            file.

    Raises:
        CheckpointError: The weights are damaged, a pickle, ambiguous, or a LoRA of anything other
            than a denoiser.
    """
    if path.is_file():
        _refuse_pickle(path)
        return _lora(path) if path.suffix == ".safetensors" else None
    places = (*(path / part for part in DENOISERS), path)
    denoisers = [place for place in places if _class_name(place / CONFIG) in CLASSES]
    loras = [] if denoisers else sorted(path.glob("*.safetensors"))
    if (path / LORA_FILE).is_file():
        loras = [path / LORA_FILE]
    if len(denoisers) + len(loras) > 1:
        names = ", ".join(found.name for found in (*denoisers, *loras))
        raise CheckpointError(
            f"{path} holds more than one thing that could be the checkpoint: name one of {names}"
        )
    if denoisers:
        return _denoiser(denoisers[0])
    if loras:
        return _lora(loras[0])
    if (path / MODEL_INDEX).is_file():
        raise CheckpointError(
            f"{path} is a pipeline without a denoiser of the class {' or '.join(CLASSES)}: "
            "ddpo evaluates no other"
        )
    _refuse_pickles_and_folders(path)
    return None


def _refuse_pickles_and_folders(path: Path) -> None:
    """Raises `CheckpointError` for a folder whose LoRA is a pickle or lies in a folder below."""
    for file in sorted([*path.glob("*lora*.bin"), *path.glob("adapter_model.bin")]):
        _refuse_pickle(file)
    adapters = sorted(file.parent.name for file in path.glob(f"*/{PEFT_FILE}"))
    if adapters:
        raise CheckpointError(
            f"{path} holds adapters in folders of their own: name one, such as {path / adapters[0]}"
        )


def _class_name(file: Path) -> str:
    """The class named in a config of diffusers; "" without one."""
    return str(read_foreign_json(file).get("_class_name", "")) if file.exists() else ""


def _refuse_pickle(file: Path) -> None:
    if file.suffix in PICKLES:
        safe = file.with_suffix(".safetensors").name
        raise CheckpointError(
            f"{file} is a pickle, which ddpo never reads; convert it in its folder: "
            'python -c "import torch, safetensors.torch as s; '
            f"s.save_file(torch.load('{file.name}', weights_only=True), '{safe}')\""
        )


def _denoiser(folder: Path) -> ExternalCheckpoint:
    if not any(folder.glob("*.safetensors")):
        for pickle in sorted(folder.glob("*.bin")):
            _refuse_pickle(pickle)
    variant_of(folder)
    return ExternalCheckpoint("full", folder, {})


def _lora(file: Path) -> ExternalCheckpoint:
    found = read_lora(file)
    (rank, _), *_ = Counter(found.ranks.values()).most_common(1)
    (alpha, _), *_ = Counter(found.alphas.values()).most_common(1)
    targets = sorted({_target(layer) for layer in found.ranks})
    return ExternalCheckpoint("lora", file, {"rank": rank, "alpha": alpha, "targets": targets})


def _target(layer: str) -> str:
    """The end of a layer's name that identifies its role: "to_q" or "to_out.0"."""
    *_, parent, name = ("", *layer.split("."))
    return f"{parent}.{name}" if name.isdigit() else name
