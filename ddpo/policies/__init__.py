"""Trainable denoisers behind one protocol, `ddpo.policies.policy.Policy`.

`load_policy` accepts a registered name, a local folder, a hub id, or a factory in user code,
`./file.py:Object` or `package.module:Object`. Registered are the embedded models and the entry
points of installed packages in the group `ddpo.policies`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpo.author_errors import author_error_as, author_line
from ddpo.devices import AUTO, resolve_device
from ddpo.errors import ConfigError, MissingResourceError, RewardLoadError, UserError
from ddpo.io.reading import reading
from ddpo.policies.base_model import model_folder, open_model
from ddpo.policies.checkpoints.folder import (
    POLICY_FILE,
    CheckpointInfo,
    check_files,
    find_checkpoint,
)
from ddpo.policies.image_size import OWN_SIZE, Size, set_size
from ddpo.policies.model_place import EMBEDDED, PolicyFactory, locate, policies
from ddpo.policies.pipelines import PIPELINES
from ddpo.text import listed
from ddpo.user_code import find

if TYPE_CHECKING:
    import torch

    from ddpo.policies.policy import TrainablePolicy

__all__ = ["EMBEDDED", "PolicyFactory", "find_policy", "load_policy", "model_folder", "policies"]

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
    """The embedded model `emoji`."""
    return _of_diffusers("emoji", device, dtype)


def embedded_scenes(device: str, dtype: torch.dtype) -> TrainablePolicy:
    """The embedded model `emoji-scenes`."""
    return _of_diffusers("emoji-scenes", device, dtype)


def embedded_flow(device: str, dtype: torch.dtype) -> TrainablePolicy:
    """The embedded model `emoji-flow`."""
    return _of_diffusers("emoji-flow", device, dtype)


def load_policy(
    model: str,
    checkpoint: Path | str | CheckpointInfo | None = None,
    device: str = AUTO,
    dtype: str = "float32",
    size: Size = OWN_SIZE,
) -> TrainablePolicy:
    """Loads a text-to-image model, with a checkpoint of it if one is given.

    Args:
        model: Registered name, local folder in diffusers' format, hub id or factory.
        checkpoint: Checkpoint or run folder of `ddpo train`, checkpoint of another trainer, or
            result of `find_checkpoint`.
        device: Torch device; "auto" for this machine's accelerator, else the CPU.
        dtype: Type of the weights that are not trained: "float32", "bfloat16" or "float16".
        size: Height and width of the images in pixels; empty for the model's own.

    Raises:
        ConfigError: The device is unknown or not on this machine, or the model has no images of
            this size.
        UnknownNameError: `model` is none of these.
        RewardLoadError: The file, module or plug-in is broken, or makes no policy.
        MissingResourceError: The path does not exist, or weights are damaged or unavailable.
        CheckpointError: The checkpoint does not fit the model.
    """
    import torch

    device = resolve_device(device)
    if isinstance(checkpoint, str | Path):
        info: CheckpointInfo | None = find_checkpoint(checkpoint, model)
    else:
        info = checkpoint
    try:
        factory, origin = find_policy(model)
    except MissingResourceError as error:
        if info is None or info.base is None or model != info.base.place:
            raise
        raise MissingResourceError(
            f"{info.folder} was trained from {info.base.word!r}, which is no longer at "
            f"{info.base.place}: give its new place with --model"
        ) from error
    policy = _make_policy(model, origin, factory, device, getattr(torch, dtype))
    set_size(policy, size)
    if info is not None:
        with reading(info.folder / POLICY_FILE):
            check_files(info)
            policy.load(info)
    return policy


def find_policy(model: str) -> tuple[PolicyFactory, str]:
    """The factory of a model, and its origin: a line that changes with the code of the factory.

    Raises:
        UnknownNameError, RewardLoadError: As `load_policy`.
        MissingResourceError: The path does not exist.
    """
    place = locate(model)
    if place.kind not in ("name", "code"):
        return lambda device, dtype: _of_diffusers(model, device, dtype), "ddpo"
    found, origin = find(place.place, policies)
    if not callable(found):
        kind = type(found).__name__
        raise RewardLoadError(
            f"model {model!r} of {origin} is a {kind}, not a factory called with device and dtype"
        )
    return found, origin


def _of_diffusers(word: str, device: str, dtype: torch.dtype) -> TrainablePolicy:
    model = open_model(word)
    if model.pipeline not in PIPELINES:
        raise ConfigError(
            f"the model {word!r} is a {model.pipeline}; ddpo can train {listed(list(PIPELINES))}, "
            "and models of plug-ins"
        )
    policy: TrainablePolicy = PIPELINES[model.pipeline].load_policy()(
        model, device=device, dtype=dtype
    )
    return policy


def _make_policy(
    model: str, origin: str, factory: PolicyFactory, device: str, dtype: torch.dtype
) -> TrainablePolicy:
    """The factory's policy; an exception of a plug-in is reported on one line."""
    if origin == "ddpo":
        return factory(device, dtype)
    from ddpo.policies.policy import TrainablePolicy

    policy: Any
    what = f"model {model!r} of {origin} cannot be made"
    with author_error_as(
        lambda error: RewardLoadError(f"{what}: {author_line(error)}"), passing=(UserError,)
    ):
        policy = factory(device, dtype)
    if not isinstance(policy, TrainablePolicy):
        missing = ", ".join(name for name in MEMBERS if not hasattr(policy, name))
        kind = type(policy).__name__
        raise RewardLoadError(f"model {model!r} of {origin} is a {kind} without {missing}")
    policy.model = model  # a checkpoint records it to find the model again
    return policy
