"""Look-up of OpenCLIP models by name, folder or hub repository, and the cards of `open_clip`.

OpenCLIP is imported when a model is looked up, so that listing rewards stays fast.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ddpo import weights
from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.io.json_files import read_foreign_json
from ddpo.registry import nearest
from ddpo.rewards.card import RewardCard, WeightFile
from ddpo.rewards.cards.open_clip import LAION_B32, OPEN_CLIP_CHECKPOINT
from ddpo.rewards.models.open_clip_model import (
    CONFIG,
    UNKNOWN_LICENCE,
    OpenClipSource,
    local_file,
    megabytes_of,
    tokenizer_files,
    tokenizer_name,
)

__all__ = ["card_for_options", "find_source"]

SCORES: Final = ("cosine", "logit", "probability")
FORMS: Final = {"hf-hub": "hf-hub:owner/name", "local-dir": "local-dir:FOLDER"}
DEFAULT_MODEL: Final = "ViT-B-32"
DEFAULT_TAG: Final = "laion2b_s34b_b79k"
CHECKPOINTS: Final = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""File names of a checkpoint in a folder, best first. Source: open_clip 3.3, factory.py."""
SUFFIXES: Final = (".safetensors", ".bin", ".pt", ".pth", ".npz")
OPENAI: Final = {
    "ViT-B-32": "openai/clip-vit-base-patch32",
    "ViT-B-16": "openai/clip-vit-base-patch16",
    "ViT-L-14": "openai/clip-vit-large-patch14",
    "ViT-L-14-336": "openai/clip-vit-large-patch14-336",
}
"""OpenCLIP's name of a model → lineage of OpenAI's weights on other cards."""


def find_source(model: str, pretrained: str | None) -> OpenClipSource:
    """Looks up a model and its weights.

    Args:
        model: option `model` of the reward.
        pretrained: option `pretrained` of the reward.

    Raises:
        ConfigError: OpenCLIP has no model or no weights of that name, or weights are named for a
            folder, which has its own, or none are named where several exist.
        MissingResourceError: A folder or file is not there, or has no valid configuration.
    """
    form, colon, place = model.partition(":")
    if not colon:
        return _built_in(model, pretrained)
    if form not in FORMS:
        raise ConfigError(
            f"reward 'open_clip': model={model} is neither hf-hub:owner/name nor local-dir:FOLDER",
        )
    if not place:
        raise ConfigError(f"reward 'open_clip': model={model} is not of the form {FORMS[form]}")
    if pretrained is not None:
        raise ConfigError(
            f"reward 'open_clip': {model} has its own weights: leave pretrained={pretrained} out",
        )
    return _of_folder(Path(place)) if form == "local-dir" else _of_hub(place)


def _built_in(model: str, pretrained: str | None) -> OpenClipSource:
    import open_clip

    requested = model
    model = requested.replace("/", "-")  # ViT-B/32 is ViT-B-32, as in OpenCLIP
    config = open_clip.get_model_config(model)
    if config is None:
        hint = _hint(requested, open_clip.list_models())
        raise ConfigError(f"reward 'open_clip': OpenCLIP has no model {requested!r}; {hint}")
    tag = pretrained or _only_tag(model, open_clip.list_pretrained_tags_by_model(model))
    found = open_clip.get_pretrained_cfg(model, tag)
    if not found:
        return _with_file(model, config, tag)
    config["quick_gelu"] = bool(config.get("quick_gelu") or found.get("quick_gelu"))
    repository, _, file = found["hf_hub"].rpartition("/")
    checkpoint = WeightFile(
        f"{repository}/{_names(file)}",
        "main",
        None,
        megabytes_of(config),
        UNKNOWN_LICENCE,
    )
    if repository == "/".join(LAION_B32.source.split("/")[:2]):
        checkpoint = LAION_B32
    lineage = repository
    if tag == "openai":
        lineage = OPENAI.get(model.removesuffix("-quickgelu"), repository)
    return OpenClipSource(
        f"{model} {tag}",
        config,
        _preprocessing(found),
        checkpoint,
        lineage,
    )


def _hint(model: str, known: Sequence[str]) -> str:
    if Path(model).is_dir():
        return f"write model=local-dir:{model} for a folder"
    same = [name for name in known if name.lower() == model.lower()]
    near = same[0] if same else nearest(model, known)
    return f"did you mean {near!r}?" if near else "open_clip.list_models() names those that it has"


def _names(file: str) -> str:
    """File names of a checkpoint on the hub; as in OpenCLIP, safetensors come before a pickle."""
    if file.endswith((".bin", ".pth")):
        return f"{file.rpartition('.')[0]}.safetensors|{file}"
    return file or OPEN_CLIP_CHECKPOINT


def _only_tag(model: str, tags: Sequence[str]) -> str:
    if model == DEFAULT_MODEL:
        return DEFAULT_TAG
    if len(tags) == 1:
        return tags[0]
    choice = "a checkpoint file: OpenCLIP publishes no weights of it"
    if tags:
        choice = f"one of {', '.join(tags)}, or a checkpoint file"
    raise ConfigError(
        f"reward 'open_clip': say which weights of {model}, as in pretrained=…: {choice}",
    )


def _with_file(model: str, config: dict[str, Any], path: str) -> OpenClipSource:
    """A built-in model with weights from a file.

    Preprocessing is that of the model's published weights where they agree, else the default.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    if not Path(path).exists() and "/" not in path and not path.endswith(SUFFIXES):
        choice = ", ".join(tags) or "none"
        raise ConfigError(
            f"reward 'open_clip': {model} has no weights {path!r}; it has {choice}, or give a file",
        )
    found = [_preprocessing(open_clip.get_pretrained_cfg(model, tag)) for tag in tags]
    preprocessing = found[0] if found and all(each == found[0] for each in found) else {}
    checkpoint = local_file(Path(path), "weights")
    return OpenClipSource(
        f"{model} {_label(checkpoint)}",
        config,
        preprocessing,
        checkpoint,
        f"open_clip {model}",
    )


def _label(checkpoint: WeightFile) -> str:
    return f"{checkpoint.source.rpartition('/')[2]} {checkpoint.revision}"


def _of_folder(folder: Path) -> OpenClipSource:
    if not folder.is_dir():
        raise MissingResourceError(f"reward 'open_clip': there is no folder {folder}")
    if not (folder / CONFIG).is_file():
        raise MissingResourceError(f"reward 'open_clip': the folder {folder} has no {CONFIG}")
    config = _read_config(folder / CONFIG)
    here = [folder / name for name in CHECKPOINTS if (folder / name).is_file()]
    here = here or sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES[:-1])
    if not here:
        raise MissingResourceError(
            f"reward 'open_clip': {folder} has no checkpoint such as {CHECKPOINTS[0]}",
        )
    checkpoint = local_file(here[0], "weights")
    source = OpenClipSource(
        folder.name,
        config["model_cfg"],
        _preprocessing(config.get("preprocess_cfg")),
        checkpoint,
        folder.name,
        folder,
    )
    hashes = "".join(str(file.sha256) for file in source.files)
    digest = hashlib.sha256(hashes.encode()).hexdigest()
    return replace(source, name=f"{folder.name} {digest[:12]}")


def _of_hub(repository: str) -> OpenClipSource:
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ConfigError(
            f"reward 'open_clip': model=hf-hub:{repository} is not of the form hf-hub:owner/name",
        )
    what = f"reward 'open_clip' needs the configuration of {repository}, which"
    config = _read_config(weights.fetch_hub_file(repository, CONFIG, "main", None, what))
    model = config["model_cfg"]
    checkpoint = WeightFile(
        f"{repository}/{OPEN_CLIP_CHECKPOINT}",
        "main",
        None,
        megabytes_of(model),
        UNKNOWN_LICENCE,
    )
    return OpenClipSource(
        repository,
        model,
        _preprocessing(config.get("preprocess_cfg")),
        checkpoint,
        repository,
    )


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = read_foreign_json(file)
        model = config["model_cfg"]
        encoders = [model["vision_cfg"], model["text_cfg"]]
        if not all(isinstance(encoder, Mapping) for encoder in encoders):
            raise ValueError("vision_cfg and text_cfg must be tables")
        if not isinstance(model["embed_dim"], int):
            raise ValueError("embed_dim must be a whole number")
        if not isinstance(config.get("preprocess_cfg", {}), Mapping):
            raise ValueError("preprocess_cfg is no table")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingResourceError(
            f"reward 'open_clip': {file} is no configuration of OpenCLIP ({one_line(error)[:200]})",
        ) from error
    found: dict[str, Any] = config
    return found


def _preprocessing(found: Mapping[str, Any] | None) -> dict[str, Any]:
    from open_clip.transform import merge_preprocess_dict

    fields: dict[str, Any] = merge_preprocess_dict({}, dict(found or {}))
    return fields


def card_for_options(card: RewardCard, options: Mapping[str, Any]) -> RewardCard:
    """The card of `open_clip` with the weights, scale and inputs that its options choose.

    Raises:
        ConfigError: The options do not go together.
        UserError: As `find_source`.
    """
    score = options["score"]
    head = options["head"]
    if score not in SCORES:
        raise ConfigError(f"reward 'open_clip': score is {score!r}, not one of {', '.join(SCORES)}")
    if head is not None and score != "cosine":
        raise ConfigError(
            f"reward 'open_clip': a head gives its own score: leave score={score} out",
        )
    source = find_source(options["model"], options["pretrained"])
    if score == "probability" and source.config.get("init_logit_bias") is None:
        raise ConfigError(
            f"reward 'open_clip': {source.name} has no logit bias, which score=probability needs",
        )
    other = (options["model"], options["pretrained"] or DEFAULT_TAG) != (DEFAULT_MODEL, DEFAULT_TAG)
    if other:
        card = replace(card, **_of_source(card, source))
    if head is not None:
        return replace(card, **_of_head(card, source, Path(head)))
    if score == "logit":
        bias = " + logit bias" if source.config.get("init_logit_bias") is not None else ""
        return replace(
            card,
            unit=f"logit scale · cosine{bias}",
            range=(None, None),
            typical=None,
            typical_source="",
        )
    if score == "probability":
        return replace(card, unit="probability", range=(0.0, 1.0), typical=None, typical_source="")
    return card


def _of_source(card: RewardCard, source: OpenClipSource) -> dict[str, Any]:
    """The fields of the card that depend on the model."""
    libraries = card.libraries
    if tokenizer_name(source) or source.text.get("hf_model_name"):
        libraries = (*libraries, "transformers", "tokenizers")
    return {
        "preprocessing": f"uint8, OpenCLIP's own transform, {_described(source)}; "
        f"prompt cut to {source.text.get('context_length', 77)} tokens",
        "libraries": libraries,
        "memory_mb": round(1.15 * source.checkpoint.megabytes),
        "weights": source.files,
        "backbone": source.backbone,
        "lineage": (source.lineage,),
        "typical": None,
        "typical_source": "",
    }


def _described(source: OpenClipSource) -> str:
    fields = {"size": source.config["vision_cfg"].get("image_size", 224), **source.preprocessing}
    return ", ".join(f"{name} {value}" for name, value in sorted(fields.items()))


def _of_head(card: RewardCard, source: OpenClipSource, head: Path) -> dict[str, Any]:
    """The fields of the card that depend on a head; neither prompt nor tokenizer is then read."""
    tokenizer = {file.source for file in tokenizer_files(source)}
    encoder = [file for file in card.weights if file.source not in tokenizer]
    return {
        "summary": f"LAION-style head {head.name} on the image embedding of {source.name}",
        "flaws": "ignores the prompt; one direction in the embedding, so textures reach it too",
        "unit": "what the head was trained to predict",
        "range": (None, None),
        "typical": None,
        "typical_source": "",
        "inputs": ("image",),
        "preprocessing": card.preprocessing.partition("; prompt")[0],
        "weights": (local_file(head, "a head"), *encoder),
    }
