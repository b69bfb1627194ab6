"""A denoiser of another trainer in a folder of diffusers, alone or in a whole pipeline."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import CheckpointError, MissingResourceError, UserError, one_line
from ddpo.io.fields import shown
from ddpo.io.json_files import read_foreign_json
from ddpo.policies.model_files import weight_files
from ddpo.weights import without_loading_bars

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "check_denoiser",
    "check_pipeline",
    "load_denoiser",
    "read_denoiser",
    "variant_of",
]

CONFIG: Final = "config.json"
WEIGHTS: Final = "diffusion_pytorch_model"  # diffusers' name for the weights of a denoiser or VAE
LIBRARY_ERRORS: Final = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, IndexError)
"""Errors for values that a config should not have."""
NOT_COMPARED: Final = ("sample_size", "upcast_attention")
"""Settings of a denoiser that do not change the meaning of its weights."""


def variant_of(folder: Path) -> str | None:
    """The variant of a denoiser's weights: None for plain ones, else "fp16" or "bf16".

    Raises:
        CheckpointError: There are no safetensors, or they are damaged.
    """
    try:
        return weight_files(folder).variant
    except MissingResourceError as error:
        raise CheckpointError(str(error)) from error


def check_denoiser(denoiser: Any, weights: Path, model: str) -> None:
    """Raises unless a denoiser's folder has the architecture of the base model, by their configs.

    Raises:
        CheckpointError: The architectures differ; the message names the first such setting.
    """
    parameters = inspect.signature(type(denoiser).__init__).parameters
    config = read_foreign_json(weights / CONFIG)
    for name, parameter in parameters.items():
        if name not in ("self", *NOT_COMPARED) and name in denoiser.config:
            theirs = _plain(config.get(name, parameter.default))
            ours = _plain(denoiser.config[name])
            if theirs != ours:
                raise CheckpointError(
                    f"{weights} has another architecture than {model!r}: "
                    f"{name} is {shown(theirs)}, not {shown(ours)}"
                )


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def read_denoiser(kind: Any, weights: Path, model: str) -> dict[str, Tensor]:
    """The weights of a denoiser's folder by name; arguments and errors as of `load_denoiser`."""
    state: dict[str, Tensor] = load_denoiser(kind, weights, model).state_dict()
    return state


@without_loading_bars()
def load_denoiser(kind: Any, weights: Path, model: str) -> Any:
    """The denoiser of a folder, in float32, from files of any number and precision.

    Args:
        kind: Class of the denoiser in diffusers.
        weights: Its folder.
        model: Name of the base model in messages.

    Raises:
        CheckpointError: The files are damaged, the weights do not match the folder's config, or
            some are NaN or infinite.
    """
    import torch

    from ddpo.io.tensors import check_finite

    try:
        denoiser, info = kind.from_pretrained(
            weights,
            use_safetensors=True,
            variant=variant_of(weights),
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
        )
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise anything in the libraries
        raise CheckpointError(f"{weights} does not fit {model!r}: {one_line(error)}") from error
    odd = [
        *info["missing_keys"],
        *info["unexpected_keys"],
        *info["mismatched_keys"],
        *info["error_msgs"],
    ]
    if odd:
        raise CheckpointError(
            f"{weights} does not fit {model!r}: "
            f"{odd[0]} is in one of them only, or of another shape"
        )
    check_finite(denoiser.state_dict(), weights)
    return denoiser


def check_pipeline(folder: Path, parts: Mapping[str, Any], schedule: Any, model: str) -> None:
    """Raises if a pipeline differs from the base model in more than its denoiser.

    Text encoder and VAE are compared if they are safetensors, up to the rounding of float16 or, for
    weights stored in it, of bfloat16.

    Args:
        folder: Folder of a pipeline; in any other folder there is nothing to compare.
        parts: Text encoders and VAE of the base model, by name.
        schedule: Schedule of the base model.
        model: Name of the base model in messages.

    Raises:
        CheckpointError: The pipeline differs, or its scheduler's config is damaged.
        ConfigError: ddpo cannot sample with the scheduler.
    """
    for name, own in parts.items():
        files = [file.name for file in (folder / name).glob("*.safetensors")]
        half = all(".fp16" in file for file in files)
        if files and (odd := _difference(folder / name, own, "fp16" if half else None)):
            raise CheckpointError(
                f"{folder} has another {name} than {model!r} ({odd}): "
                "ddpo evaluates changes of the denoiser only"
            )
    file = folder / "scheduler" / "scheduler_config.json"
    if file.is_file() and not _same_schedule(file, schedule):
        raise CheckpointError(
            f"{folder} was made with another noise schedule or prediction type than {model!r}"
        )


def _same_schedule(file: Path, schedule: Any) -> bool:
    """True if a scheduler's config describes the schedule of the base model."""
    config = read_foreign_json(file)
    try:
        same: bool = schedule.is_of_scheduler(config)
    except UserError:
        raise
    except LIBRARY_ERRORS as error:
        raise CheckpointError(f"{file} is damaged: {one_line(error)}") from error
    return same


@without_loading_bars()
def _difference(folder: Path, own: Any, variant: str | None) -> str:
    """The first tensor that differs between a component's folder and the base model; "" if none."""
    import torch
    from safetensors import SafetensorError

    options = {"use_safetensors": True, "variant": variant, "local_files_only": True}
    try:
        theirs = type(own).from_pretrained(folder, **options).state_dict()
    except (OSError, SafetensorError, *LIBRARY_ERRORS) as error:
        return one_line(error)
    ours = own.state_dict()
    if ours.keys() != theirs.keys():
        return str(min(ours.keys() ^ theirs.keys()))
    for name, tensor in ours.items():
        other = theirs[name]
        kinds = [
            kind for kind in (torch.float16, tensor.dtype, other.dtype) if kind.is_floating_point
        ]
        step = max(torch.finfo(kind).eps for kind in kinds)
        if tensor.shape != other.shape:
            return str(name)
        if not torch.allclose(tensor.cpu().float(), other.float(), rtol=step, atol=1e-7):
            return str(name)
    return ""
