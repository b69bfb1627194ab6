"""A UNet in a folder of diffusers, as trainers other than ddpo write it, alone or in a whole pipeline."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import CheckpointError, MissingResourceError, one_line
from ddpo.policies.base_model import weight_files

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONFIG", "UNET", "WEIGHTS", "check_pipeline", "check_unet", "read_unet", "variant_of"]

UNET: Final = "unet"
CONFIG: Final = "config.json"
WEIGHTS: Final = "diffusion_pytorch_model"  # diffusers' name for the weights of a UNet or VAE
NOT_COMPARED: Final = (
    "sample_size",
    "upcast_attention",
)  # of the configs: neither changes what the weights mean


def variant_of(unet: Path) -> str | None:
    """The variant of the weights in a UNet's folder: None for the plain ones, else "fp16" or "bf16".

    Raises:
        CheckpointError: none as safetensors, or damaged.
    """
    try:
        return weight_files(unet).variant
    except MissingResourceError as error:
        raise CheckpointError(str(error)) from error


def check_unet(unet: Any, weights: Path, model: str) -> None:
    """Compares the architecture of a UNet's folder with that of the base model, by their configs.

    Raises:
        CheckpointError: they differ; names the first setting that does.
    """
    parameters = inspect.signature(type(unet).__init__).parameters
    config = json.loads((weights / CONFIG).read_text(encoding="utf-8"))
    for name, parameter in parameters.items():
        if name not in ("self", *NOT_COMPARED) and name in unet.config:
            theirs, ours = _plain(config.get(name, parameter.default)), _plain(unet.config[name])
            if theirs != ours:
                raise CheckpointError(
                    f"{weights} has another architecture than {model!r}: {name} is {theirs}, not {ours}"
                )


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def read_unet(weights: Path, model: str) -> dict[str, Tensor]:
    """The weights of a UNet's folder by name, float32, whether they are in one file or several, float32 or fp16.

    Raises:
        CheckpointError: damaged, or weights are missing, too many or of another shape than the folder's config says.
    """
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors import SafetensorError

    try:
        unet, info = UNet2DConditionModel.from_pretrained(
            weights,
            use_safetensors=True,
            variant=variant_of(weights),
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{weights} does not fit {model!r}: {one_line(error)}") from error
    odd = [
        *info["missing_keys"],
        *info["unexpected_keys"],
        *info["mismatched_keys"],
        *info["error_msgs"],
    ]
    if odd:
        raise CheckpointError(
            f"{weights} does not fit {model!r}: {odd[0]} is in one of them only, or of another shape"
        )
    state: dict[str, Tensor] = unet.state_dict()
    return state


def check_pipeline(folder: Path, parts: Mapping[str, Any], schedule: Any, model: str) -> None:
    """Refuses a pipeline that differs from the base model in more than its UNet.

    Text encoder and VAE are compared where they are there as safetensors, to the rounding of float16 or, where one of the two is kept in
    it, bfloat16.

    Args:
        folder: a pipeline's folder, or any other (then nothing is compared).
        parts: the base model's "text_encoder" and "vae".
        schedule: its `NoiseSchedule`.
        model: what messages call the base model.

    Raises:
        CheckpointError: they differ, or the scheduler's config is damaged.
        ConfigError: the scheduler is none that ddpo can sample with.
    """
    import torch

    from ddpo.policies.transition import NoiseSchedule

    for name, own in parts.items():
        files = [file.name for file in (folder / name).glob("*.safetensors")]
        half = all(".fp16" in file for file in files)
        if files and (odd := _difference(folder / name, own, "fp16" if half else None)):
            raise CheckpointError(
                f"{folder} has another {name} than {model!r} ({odd}): ddpo evaluates changes of the denoiser only"
            )
    file = folder / "scheduler" / "scheduler_config.json"
    if file.is_file():
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} is damaged: {one_line(error)}") from error
        theirs = NoiseSchedule.from_scheduler(config)
        same = theirs.alphas_cumprod.shape == schedule.alphas_cumprod.shape
        if (
            not same
            or theirs.prediction != schedule.prediction
            or not torch.allclose(theirs.alphas_cumprod, schedule.alphas_cumprod.cpu())
        ):
            raise CheckpointError(
                f"{folder} was made with another noise schedule or prediction type than {model!r}"
            )


def _difference(folder: Path, own: Any, variant: str | None) -> str:
    """The first tensor in which a component's folder differs from the loaded component; "" if there is none."""
    import torch

    try:
        theirs = (
            type(own)
            .from_pretrained(folder, use_safetensors=True, variant=variant, local_files_only=True)
            .state_dict()
        )
    except (OSError, ValueError, RuntimeError) as error:
        return one_line(error)
    ours = own.state_dict()
    if ours.keys() != theirs.keys():
        return str(min(ours.keys() ^ theirs.keys()))
    for name, tensor in ours.items():
        tensor, other = tensor.cpu(), theirs[name]
        step = max(
            torch.finfo(kind).eps if kind.is_floating_point else 0.0
            for kind in (torch.float16, tensor.dtype, other.dtype)
        )
        if tensor.shape != other.shape or not torch.allclose(
            tensor.float(), other.float(), rtol=step, atol=1e-7
        ):
            return str(name)
    return ""
