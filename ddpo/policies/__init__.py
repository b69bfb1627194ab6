"""The denoisers that can be trained, behind one protocol (`ddpo.policies.policy.Policy`).

`load_policy` takes a name ("emoji", the embedded model, or that of an installed package's entry point in the group `ddpo.policies`), a
local folder, a hub id, or the place of a factory: `./file.py:Object`, `package.module:Object`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpo.devices import AUTO, resolve_device
from ddpo.errors import ConfigError, MissingResourceError, RewardLoadError, UserError, one_line
from ddpo.policies.base_model import model_folder, open_model
from ddpo.policies.checkpoints.folder import CheckpointInfo, check_files, find_checkpoint
from ddpo.policies.model_place import PolicyFactory, locate, policies
from ddpo.user_code import find

if TYPE_CHECKING:
    import torch

    from ddpo.policies.policy import TrainablePolicy

__all__ = ["PolicyFactory", "find_policy", "load_policy", "model_folder", "policies"]

EMBEDDED = ("emoji",)
MEMBERS = (
    "model",
    "latent_shape",
    "schedule",
    "device",
    "storage_dtype",
    "encode",
    "predict",
    "decode",
    "trainable_parameters",
    "reference",
    "adapt",
    "save",
    "load",
)


def embedded(device: str, dtype: torch.dtype) -> TrainablePolicy:
    """The embedded model."""
    return _stable_diffusion(EMBEDDED[0], device, dtype)


def load_policy(
    model: str,
    checkpoint: Path | str | CheckpointInfo | None = None,
    device: str = AUTO,
    dtype: str = "float32",
) -> TrainablePolicy:
    """Loads a text-to-image model, with a checkpoint of it if one is given.

    Args:
        model: a registered name, a local folder in diffusers' format, a hub id "owner/name", or the place of a factory.
        checkpoint: a checkpoint or run folder of `ddpo train`, what another trainer made, or what `find_checkpoint` found.
        device: a torch device; "auto" for the accelerator that is here, else the CPU.
        dtype: "float32", "bfloat16" or "float16", for the weights that are not trained.

    Raises:
        ConfigError: the device is unknown or not here.
        UnknownNameError: `model` is none of these.
        RewardLoadError: a file, module or plug-in that is broken, or makes no policy.
        MissingResourceError: a path where nothing is, or weights that cannot be fetched or are damaged.
        CheckpointError: the checkpoint does not fit.
    """
    import torch

    device = resolve_device(device)
    info = (
        checkpoint
        if checkpoint is None or isinstance(checkpoint, CheckpointInfo)
        else find_checkpoint(checkpoint, model)
    )
    try:
        factory, origin = find_policy(model)
    except MissingResourceError as error:
        if info is None or info.base is None or model != info.base.place:
            raise
        raise MissingResourceError(
            f"{info.folder} was trained from {info.base.word!r}, which is not at {info.base.place} any more: give its new place "
            "with --model (of eval, --base)"
        ) from error
    policy = _made(model, origin, factory, device, getattr(torch, dtype))
    if info is not None:
        check_files(info)
        policy.load(info)
    return policy


def find_policy(model: str) -> tuple[PolicyFactory, str]:
    """The factory of a model, and its origin: a line that changes when the code of a file or module does.

    Raises:
        UnknownNameError, RewardLoadError: as `load_policy`.
        MissingResourceError: a path where nothing is.
    """
    place = locate(model)
    if place.kind not in ("name", "code"):
        return lambda device, dtype: _stable_diffusion(model, device, dtype), "ddpo"
    found, origin = find(place.place, policies)
    if not callable(found):
        raise RewardLoadError(
            f"model {model!r} of {origin} is a {type(found).__name__}, not a factory that is called with device and dtype"
        )
    return found, origin


def _stable_diffusion(word: str, device: str, dtype: torch.dtype) -> TrainablePolicy:
    from ddpo.policies.sdxl import StableDiffusionXLPolicy
    from ddpo.policies.stable_diffusion import StableDiffusionPolicy

    model = open_model(word)
    known = {
        "StableDiffusionPipeline": StableDiffusionPolicy,
        "StableDiffusionXLPipeline": StableDiffusionXLPolicy,
    }
    if model.pipeline not in known:
        raise ConfigError(
            f"the model {word!r} is a {model.pipeline}; ddpo can train {' and '.join(known)}, and what plug-ins bring"
        )
    return known[model.pipeline](model, device=device, dtype=dtype)


def _made(
    model: str, origin: str, factory: PolicyFactory, device: str, dtype: torch.dtype
) -> TrainablePolicy:
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
        raise RewardLoadError(
            f"model {model!r} of {origin} cannot be made: {one_line(error)}"
        ) from error
    if not isinstance(policy, TrainablePolicy):
        missing = [name for name in MEMBERS if not hasattr(policy, name)]
        raise RewardLoadError(
            f"model {model!r} of {origin} is a {type(policy).__name__} without {', '.join(missing)}"
        )
    policy.model = model  # what a checkpoint names, so that it is found again
    return policy
