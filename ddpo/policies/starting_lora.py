"""Training that begins from a LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ddpo.errors import CheckpointError
from ddpo.policies.checkpoints.folder import CheckpointInfo, check_files
from ddpo.policies.checkpoints.lora import LoraFile, check_lora, module_shape, read_lora

if TYPE_CHECKING:
    from ddpo.policies.policy import LoraSettings, TrainablePolicy

__all__ = ["begin_from", "starting_lora"]


def starting_lora(info: CheckpointInfo, denoiser: Any, lora: LoraSettings, model: str) -> LoraFile:
    """The LoRA of a checkpoint of this model, which has the adapters that are trained.

    Args:
        info: The checkpoint, of ddpo or of another trainer.
        denoiser: Denoiser of diffusers without an adapter.
        lora: Settings of the adapters that are trained.
        model: Name of the base model in messages.

    Raises:
        CheckpointError: It is no LoRA, is damaged, does not fit the model, or has another rank or
            alpha than the settings.
    """
    if info.kind != "lora":
        raise CheckpointError(
            f"adapt.start = {str(info.folder)!r} is a whole denoiser, not a LoRA: "
            "name its model with --model instead"
        )
    check_files(info)
    found = read_lora(info.weights, denoiser)
    check_lora(found, lambda layer: module_shape(denoiser, layer), info.weights, model)
    if found.rank_stabilised:
        raise CheckpointError(
            f"adapt.start: {info.weights} was made with use_rslora, whose scale ddpo cannot train"
        )
    for name, due, values in (
        ("rank", lora.rank, found.ranks),
        ("alpha", lora.alpha, found.alphas),
    ):
        has = sorted(set(values.values()))
        if len(has) > 1:
            raise CheckpointError(
                f"adapt.start: the layers of {info.weights} have several values of {name} "
                f"({', '.join(f'{one:g}' for one in has)}), and ddpo trains LoRAs of one"
            )
        if has != [due]:
            raise CheckpointError(
                f"adapt.start: {info.weights} has {name} {has[0]:g}: set adapt.{name}={has[0]:g} "
                f"(it is {due:g})"
            )
    return found


@torch.no_grad()
def begin_from(policy: TrainablePolicy, found: LoraFile, info: CheckpointInfo) -> None:
    """Gives the new adapters of a policy the weights of a LoRA.

    Raises:
        CheckpointError: The LoRA has other layers than `adapt.targets` names.
    """
    trained = {
        name.replace(".default.", "."): parameter
        for name, parameter in policy.trainable_parameters()
    }
    if odd := sorted(set(trained) ^ set(found.tensors)):
        layer = odd[0].partition(".lora_")[0]
        where = "it lacks" if odd[0] in trained else "it has, and adapt.targets does not name,"
        targets = sorted({_ending(name) for name in found.ranks})
        raise CheckpointError(
            f"adapt.start: {info.weights} has other layers than adapt.targets: {where} {layer}; "
            f"its layers end in {', '.join(targets)}"
        )
    for name, parameter in trained.items():
        parameter.copy_(found.tensors[name])


def _ending(layer: str) -> str:
    """The end of a layer's name as `adapt.targets` would name it."""
    *_, parent, name = ("", *layer.split("."))
    return f"{parent}.{name}" if name.isdigit() else name
