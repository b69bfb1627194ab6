"""The denoisers that can be trained, behind one protocol (`ddpo.policies.policy.Policy`).

`load_policy` takes a name ("emoji", the embedded model, or that of an installed package's entry point in the group `ddpo.policies`), a
local folder, a hub id, or the place of a factory: `./file.py:Object`, `package.module:Object`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpo.devices import check_device
from ddpo.errors import ConfigError, MissingResourceError, RewardLoadError, UserError, one_line
from ddpo.loading import find
from ddpo.policies.checkpoint import CheckpointInfo, find_checkpoint
from ddpo.registry import Registry, unknown_name
from ddpo.weights import sha256_of

if TYPE_CHECKING:
    import torch

    from ddpo.policies.policy import TrainablePolicy

__all__ = ["PolicyFactory", "find_policy", "load_policy", "model_folder", "policies"]

EMBEDDED = ("emoji",)
MEMBERS = (
    "model", "latent_shape", "schedule", "device", "storage_dtype", "encode", "predict", "decode", "trainable_parameters", "reference",
    "adapt", "save", "load",
)  # fmt: skip

PolicyFactory = Callable[[str, "torch.dtype"], "TrainablePolicy"]
"""Makes a policy on a torch device, with weights that are not trained and latents between steps in a dtype."""


def _embedded(model: str) -> PolicyFactory:
    return lambda device, dtype: _stable_diffusion(model, device, dtype)


policies: Registry[PolicyFactory] = Registry("model", "ddpo.policies", None, {name: _embedded(name) for name in EMBEDDED})
"""The embedded model and the models of the entry-point group `ddpo.policies`."""


def load_policy(
    model: str, checkpoint: Path | str | CheckpointInfo | None = None, device: str = "cpu", dtype: str = "float32"
) -> TrainablePolicy:
    """Loads a text-to-image model, with a checkpoint of it if one is given.

    Args:
        model: a registered name, a local folder in diffusers' format, a hub id "owner/name", or the place of a factory.
        checkpoint: a checkpoint or run folder of `ddpo train`, what another trainer made, or what `find_checkpoint` found.
        device: a torch device.
        dtype: "float32", "bfloat16" or "float16", for the weights that are not trained.

    Raises:
        ConfigError: the device is unknown or not here.
        UnknownNameError: `model` is none of these.
        RewardLoadError: a file, module or plug-in that is broken, or makes no policy.
        MissingResourceError: the weights are not here and cannot be fetched.
        CheckpointError: the checkpoint does not fit.
    """
    import torch

    check_device(device)
    factory, origin = find_policy(model)
    policy = _made(model, origin, factory, device, getattr(torch, dtype))
    if checkpoint is not None:
        policy.load(checkpoint if isinstance(checkpoint, CheckpointInfo) else find_checkpoint(checkpoint, model))
    return policy


def find_policy(model: str) -> tuple[PolicyFactory, str]:
    """What makes the policy of a name, and where it comes from: a line that changes when the code of a file or module does.

    Raises:
        UnknownNameError, RewardLoadError: as `load_policy`.
    """
    if model in policies.entries() or (":" in model and not Path(model).is_dir()):
        found, origin = find(model, policies)
        if not callable(found):
            raise RewardLoadError(
                f"model {model!r} of {origin} is a {type(found).__name__}, not a factory that is called with device and dtype"
            )
        return found, origin
    return lambda device, dtype: _stable_diffusion(model, device, dtype), "ddpo"


def _stable_diffusion(model: str, device: str, dtype: torch.dtype) -> TrainablePolicy:
    from ddpo.policies.sd import StableDiffusionPolicy
    from ddpo.policies.sdxl import StableDiffusionXLPolicy
    from ddpo.policies.unet_folder import pipeline_config

    folder = model_folder(model)
    pipeline = str(pipeline_config(folder).get("_class_name"))
    known = {"StableDiffusionPipeline": StableDiffusionPolicy, "StableDiffusionXLPipeline": StableDiffusionXLPolicy}
    if pipeline not in known:
        raise ConfigError(f"the model {model!r} is a {pipeline}; ddpo can train {' and '.join(known)}, and what plug-ins bring")
    return known[pipeline](folder, model=model, device=device, dtype=dtype)


def _made(model: str, origin: str, factory: PolicyFactory, device: str, dtype: torch.dtype) -> TrainablePolicy:
    """The factory's policy; what a plug-in raises is told on one line."""
    if origin == "ddpo":
        return factory(device, dtype)
    from ddpo.policies.policy import TrainablePolicy

    policy: Any
    try:
        policy = factory(device, dtype)
    except UserError:
        raise
    except Exception as error:
        raise RewardLoadError(f"model {model!r} of {origin} cannot be made: {one_line(error)}") from error
    if not isinstance(policy, TrainablePolicy):
        missing = [name for name in MEMBERS if not hasattr(policy, name)]
        raise RewardLoadError(f"model {model!r} of {origin} is a {type(policy).__name__} without {', '.join(missing)}")
    policy.model = model  # what a checkpoint names, so that it is found again
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
        raise unknown_name("model", model, policies.entries())
    return model
