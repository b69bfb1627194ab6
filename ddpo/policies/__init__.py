"""The denoisers that can be trained, behind one protocol (`ddpo.policies.policy.Policy`).

`load_policy` takes "emoji" (the embedded model), a local folder, or a hub id.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.policies.checkpoint import find_checkpoint
from ddpo.registry import unknown_name
from ddpo.weights import sha256_of

if TYPE_CHECKING:
    from ddpo.policies.sd import StableDiffusionPolicy

__all__ = ["load_policy", "model_folder"]

EMBEDDED = ("emoji",)


def load_policy(model: str, checkpoint: Path | None = None, device: str = "cpu", dtype: str = "float32") -> StableDiffusionPolicy:
    """Loads a text-to-image model, with a checkpoint of it if one is given.

    Args:
        model: "emoji", a local folder in diffusers' format, or a hub id "owner/name".
        checkpoint: a checkpoint or run folder of `ddpo train`.
        device: a torch device.
        dtype: "float32", "bfloat16" or "float16", for the weights that are not trained.

    Raises:
        ConfigError: the device is unknown or not here.
        UnknownNameError: `model` is none of the three.
        MissingResourceError: the weights are not here and cannot be fetched.
        CheckpointError: the checkpoint does not fit.
    """
    import torch

    from ddpo.policies.sd import StableDiffusionPolicy

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"the device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    policy = StableDiffusionPolicy(model_folder(model), model=model, device=device, dtype=getattr(torch, dtype))
    if checkpoint is not None:
        policy.load(find_checkpoint(checkpoint))
    return policy


def _verify(folder: Path, model: str) -> None:
    """Compares every file of an embedded model with the hash in its manifest: 14 MB take some 20 ms."""
    try:
        facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        damaged = [name for name, fact in facts.items() if sha256_of(folder / name) != fact["sha256"]]
    except FileNotFoundError as error:
        raise MissingResourceError(
            f"the embedded model {model!r} is not whole in this installation: {error.filename} is missing"
        ) from error
    if damaged:
        raise MissingResourceError(
            f"the embedded model {model!r} is damaged in this installation: {damaged[0]} has another SHA-256; reinstall"
        )


def model_folder(model: str) -> str:
    """Where the files of a model are: a local folder, or the hub id itself; raises as `load_policy`."""
    if model in EMBEDDED:
        folder = Path(str(files("ddpo.policies") / model / "weights"))
        _verify(folder, model)
        return str(folder)
    if Path(model).is_dir():
        if not (Path(model) / "model_index.json").is_file():
            raise MissingResourceError(f"the folder {model} is not a diffusers model: it has no model_index.json")
        return model
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise unknown_name("model", model, EMBEDDED)
    return model
