"""Export of a checkpoint: a folder for diffusers, and its upload to the Hugging Face Hub."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ddpo.errors import ConfigError, UserError, one_line
from ddpo.io.atomic import (
    atomic_folder,
    storing,
)
from ddpo.io.lock import owned_file
from ddpo.io.new_folder import check_new_folder
from ddpo.io.reading import reading
from ddpo.io.tensors import save_tensors
from ddpo.policies import load_policy
from ddpo.policies.base_model import BaseModel, known_model, open_model
from ddpo.policies.checkpoints.denoiser import check_denoiser, load_denoiser
from ddpo.policies.checkpoints.folder import (
    LORA_FILE,
    POLICY_FILE,
    CheckpointInfo,
    check_base,
    check_files,
    find_checkpoint,
)
from ddpo.policies.checkpoints.kohya_writer import UNREAD_BY_DIFFUSERS, kohya_tensors
from ddpo.policies.checkpoints.lora import check_lora, module_shape
from ddpo.policies.checkpoints.own import own_lora
from ddpo.policies.layer_shapes import layer_shapes
from ddpo.policies.pipelines import DENOISERS
from ddpo.trainer.run.model_card import model_card
from ddpo.weights import offline

if TYPE_CHECKING:
    import torch

__all__ = ["LoraNames", "export", "push_to_hub", "reads_kohya"]

LoraNames = Literal["diffusers", "kohya"]

SETTINGS: Final = ("requires_safety_checker", "force_zeros_for_empty_prompt")
OPTIONAL: Final = {
    "safety_checker": "*.safetensors",
    "image_encoder": "*.safetensors",
    "feature_extractor": "*.json",
}
"""Parts of a pipeline that ddpo does not use, each with the files that it is loaded from."""


def export(
    path: Path,
    to: Path,
    merge: bool = False,
    model: str | None = None,
    trust: Iterable[str] = (),
    lora_names: LoraNames = "diffusers",
) -> CheckpointInfo:
    """Writes a checkpoint for plain diffusers, with a model card, whole or not at all.

    LoRA becomes `pytorch_lora_weights.safetensors`, for `pipeline.load_lora_weights`. With `merge`,
    or after full finetuning, it becomes a whole float32 pipeline, for
    `DiffusionPipeline.from_pretrained`.

    Args:
        path: a run folder (its latest checkpoint), RUN/best, or a checkpoint folder.
        to: the new folder.
        merge: True to add LoRA weights to the denoiser's own.
        model: present place of the base model, if it was moved since training.
        trust: code that the checkpoint may name as its base model.
        lora_names: names of the LoRA's tensors: those of diffusers, or those of kohya-ss for its
            scripts and ComfyUI.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
        RunExistsError: `to` is not empty, or another process exports to it.
        MissingResourceError: the base model is missing.
        ConfigError: `to` cannot be written, diffusers does not know the model, or the checkpoint
            is no LoRA with names of kohya-ss.
        StorageFailure: The disk is full; nothing is left at `to`.
    """
    info = find_checkpoint(path, model, trust)
    with owned_file(to, "ddpo export", "--out"), reading(info.folder / POLICY_FILE):
        _write_export(info, to, merge, lora_names)
    return info


def _write_export(info: CheckpointInfo, to: Path, merge: bool, lora_names: LoraNames) -> None:
    """Writes a checkpoint; arguments and errors as of `export`."""
    check_files(info)
    if info.weights.name not in (LORA_FILE, *DENOISERS):
        if info.external:
            raise ConfigError(
                f"{info.weights} is of another trainer: `ddpo export` writes checkpoints of "
                "`ddpo train`"
            )
        raise ConfigError(
            f"{info.folder} is of the model {info.model!r}, which diffusers cannot load: "
            f"its weights are {info.weights.name}"
        )
    check_new_folder(to)
    whole = merge or info.kind == "full"
    if not whole:
        _check_lora_file(info)
    elif lora_names != "diffusers":
        raise ConfigError(
            f"--lora-names {lora_names} is for a LoRA file, and "
            + ("--merge writes a whole pipeline" if merge else f"{info.folder} is no LoRA")
        )
    renamed = _kohya_lora(info) if lora_names == "kohya" else None
    card = model_card(info, whole, unread=renamed is not None and not reads_kohya(info.model))
    pipeline = _pipeline(info) if whole else None
    with storing(to), atomic_folder(to) as temporary:
        if pipeline is not None:
            pipeline.save_pretrained(temporary)
        elif renamed is not None:
            save_tensors(temporary / LORA_FILE, renamed)
        else:
            shutil.copyfile(info.folder / LORA_FILE, temporary / LORA_FILE)
        (temporary / "README.md").write_text(card, encoding="utf-8")


def _kohya_lora(info: CheckpointInfo) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA by the names of kohya-ss.

    Raises:
        ConfigError, MissingResourceError: The base model is not here, or a layer has no such name.
    """
    found = own_lora(info)
    pipeline = open_model(info.model).pipeline
    return kohya_tensors(found, pipeline, info.weights)


def reads_kohya(model: str) -> bool:
    """False for a base model whose LoRAs with names of kohya-ss are not read by diffusers."""
    base = known_model(model)
    return base is None or base.pipeline not in UNREAD_BY_DIFFUSERS


def _check_lora_file(info: CheckpointInfo) -> None:
    """Verifies a LoRA as far as possible without the weights of its base model.

    Raises:
        CheckpointError: it is damaged, or does not fit the base model on this machine.
    """
    found = own_lora(info)
    if shapes := layer_shapes(info.model):
        check_lora(found, shapes.__getitem__, info.weights, info.model)


def _pipeline(info: CheckpointInfo) -> Any:
    """The base model's pipeline with the trained denoiser, without optional parts that it lacks."""
    import diffusers

    policy: Any = load_policy(info.model)
    check_base(info, info.model)
    parts = {name: getattr(policy, name) for name in (*policy.BESIDE, "vae")}
    parts[policy.DENOISER] = policy.denoiser
    if info.kind == "full":
        check_denoiser(policy.denoiser, info.weights, info.model)
        parts[policy.DENOISER] = load_denoiser(type(policy.denoiser), info.weights, info.model)
    base = open_model(info.model)
    parts |= {
        name: base.load_tokenizer(name) if base.names(name) else None
        for name in base.index
        if name.startswith("tokenizer")
    }
    scheduler = base.config("scheduler").get("_class_name", "DDIMScheduler")
    parts["scheduler"] = base.read("scheduler", getattr(diffusers, scheduler))
    settings = {name: base.index[name] for name in SETTINGS if name in base.index}
    kind = getattr(diffusers, base.pipeline)
    optional = _optional_parts(base, inspect.signature(kind).parameters)
    if "safety_checker" in optional and optional["safety_checker"] is None:
        settings["requires_safety_checker"] = False
    pipeline = kind(**parts, **optional, **settings)
    if info.kind == "lora":
        check_lora(
            own_lora(info),
            lambda layer: module_shape(policy.denoiser, layer),
            info.weights,
            info.model,
        )
        pipeline.load_lora_weights(info.folder, weight_name=LORA_FILE)
        pipeline.fuse_lora(components=[policy.DENOISER])
        pipeline.unload_lora_weights()
    return pipeline


def _optional_parts(base: BaseModel, known: Container[str]) -> dict[str, Any]:
    """The optional parts of a pipeline; None for those that the model's index or folder lacks.

    Args:
        base: the base model.
        known: names of the parts that the pipeline's class takes.
    """
    import torch
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    classes = {
        "safety_checker": StableDiffusionSafetyChecker,
        "image_encoder": CLIPVisionModelWithProjection,
    }
    parts: dict[str, Any] = {name: None for name in OPTIONAL if name in known}
    for name in parts:
        if not base.names(name) or not any((base.folder / name).glob(OPTIONAL[name])):
            continue
        if name in classes:
            parts[name] = base.load(name, classes[name], torch.float32)
        else:
            parts[name] = base.read(name, CLIPImageProcessor)
    if parts.get("feature_extractor") is None and "safety_checker" in parts:
        parts["safety_checker"] = None  # diffusers wants both or none
    return parts


def push_to_hub(folder: Path, repository: str) -> str:
    """Uploads an exported folder; returns its address.

    Args:
        folder: the folder that `export` wrote.
        repository: "owner/name" of the repository, which is made if it does not exist.

    Raises:
        UserError: the program is offline or not logged in, or the Hub refuses.
    """
    if offline():
        raise UserError(
            f"{folder} is written, but not uploaded: DDPO_OFFLINE or HF_HUB_OFFLINE is set"
        )
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise UserError(
            f"{folder} is written, but not uploaded: "
            "log in first, with `hf auth login` or the variable HF_TOKEN"
        )
    api = HfApi()
    try:
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="ddpo export")
    except Exception as error:  # of the Hub, or of its client's own HTTP library
        raise UserError(f"{folder} is written, but not uploaded: {one_line(error)}") from error
    return str(address)
