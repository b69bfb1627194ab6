"""The files that rewards read of a hub repository, and the search for them in its snapshot.

A part is a need of a reward, such as a tokenizer, that one of several sets of files meets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ddpo.io.json_files import JsonError, parse_json

__all__ = ["MODEL", "PARTS", "PATTERNS", "has_weights", "holds"]

Part = Callable[[Path], bool]
"""Function from a snapshot's folder to True if it holds the part."""

INDEX: Final = ".index.json"
WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx")
VOCABULARIES: Final = ("tokenizer.json", "vocab.txt")
LARGEST_SETTINGS: Final = 16_000_000  # bytes; a tokenizer of a large vocabulary has less


def has_weights(folder: Path) -> bool:
    """True if a snapshot holds a whole file of weights, or all shards that its indices name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    indices = [path for path in files if path.name.endswith(INDEX)]
    shards = {index.parent / name for index in indices for name in _shards(index)}
    if any(path.suffix in WEIGHTS and path not in shards for path in files):
        return True
    return bool(shards) and all(map(os.path.isfile, shards))


def _shards(index: Path) -> set[str]:
    """The names of the files in an index of shards; none of a damaged one."""
    try:
        found = parse_json(index.read_bytes())
    except (JsonError, OSError):
        return set()
    names = found.get("weight_map") if isinstance(found, dict) else None
    return {str(name) for name in names.values()} if isinstance(names, dict) else set()


def has_config(folder: Path) -> bool:
    """True if a snapshot holds the settings of the model."""
    return _is_here(folder, "config.json")


def has_tokenizer(folder: Path) -> bool:
    """True if a snapshot holds a vocabulary in one of the forms that transformers reads."""
    if any(_is_here(folder, name) for name in VOCABULARIES):
        return True
    if _is_here(folder, "vocab.json", "merges.txt"):
        return True
    return any(path.is_file() for path in folder.glob("*.model"))  # SentencePiece


def names_tokenizer(folder: Path) -> bool:
    """True if a snapshot states the class of its tokenizer."""
    return has_config(folder) or _is_here(folder, "tokenizer_config.json")


def has_preprocessor(folder: Path) -> bool:
    """True if a snapshot states how images are prepared."""
    if _is_here(folder, "preprocessor_config.json"):
        return True
    return _states(folder / "processor_config.json", "image_processor")


def has_chat_template(folder: Path) -> bool:
    """True if a snapshot states the form of a question to the model."""
    if any(_is_here(folder, f"chat_template.{suffix}") for suffix in ("jinja", "json")):
        return True
    files = ("processor_config.json", "tokenizer_config.json")
    return any(_states(folder / name, "chat_template") for name in files)


def _is_here(folder: Path, *names: str) -> bool:
    return all((folder / name).is_file() for name in names)


def _states(file: Path, key: str) -> bool:
    """True if a file of settings has a value for a key; False for a damaged file."""
    try:
        if file.stat().st_size > LARGEST_SETTINGS:
            return False
        found = parse_json(file.read_bytes())
    except (JsonError, OSError):
        return False
    return isinstance(found, dict) and found.get(key) is not None


def _named(*names: str) -> tuple[Part, ...]:
    return (lambda folder: _is_here(folder, *names),)


CLIP: Final = (has_config, has_weights, has_tokenizer)
IMAGES_ONLY: Final = (has_config, has_weights)
CLASSIFIER: Final = (has_config, has_weights, has_preprocessor)
VISION_LANGUAGE: Final = (*CLASSIFIER, has_tokenizer, has_chat_template)
WORDS: Final = (has_tokenizer, names_tokenizer)

PARTS: Final[Mapping[str, tuple[Part, ...]]] = MappingProxyType(
    {
        "openai/clip-vit-base-patch32": CLIP,
        "yuvalkirstain/PickScore_v1": IMAGES_ONLY,
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": WORDS,
        "facebook/dinov2-base": IMAGES_ONLY,
        "Falconsai/nsfw_image_detection": CLASSIFIER,
        "llava-hf/llava-1.5-7b-hf": VISION_LANGUAGE,
        "microsoft/deberta-xlarge-mnli": CLIP,
        "xswu/HPSv2": _named("HPS_v2.1_compressed.pt"),
        "THUDM/ImageReward": _named("ImageReward.pt", "med_config.json"),
        "google-bert/bert-base-uncased": _named("vocab.txt"),
        "MizzenAI/HPSv3": _named("HPSv3.safetensors"),
        "Qwen/Qwen2-VL-7B-Instruct": _named("config.json", "tokenizer.json"),
    }
)
"""Source on a card → the parts that its reward reads, also of a repository in its place."""

MODEL: Final = ("*.json", "*.txt", "*.model", "*.safetensors")
PATTERNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "xswu/HPSv2": ("HPS_v2.1_compressed.pt",),
        "THUDM/ImageReward": ("ImageReward.pt", "med_config.json"),
        "google-bert/bert-base-uncased": ("vocab.txt",),
        "MizzenAI/HPSv3": ("HPSv3.safetensors",),
        "Qwen/Qwen2-VL-7B-Instruct": ("config.json", "tokenizer.json"),
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ("*.json", "*.txt"),
        "yuvalkirstain/PickScore_v1": MODEL,
        "openai/clip-vit-base-patch32": MODEL,
        "Falconsai/nsfw_image_detection": MODEL,
        "facebook/dinov2-base": MODEL,
    }
)
"""Source on a card → patterns of the files to fetch; other repositories are fetched as a whole."""


def holds(folder: Path, source: str) -> bool | None:
    """True if a snapshot holds every part that a reward reads; None if the parts are not known.

    Args:
        folder: Folder of the snapshot.
        source: Repository on the card, whose parts count; the folder may be another's.
    """
    parts = PARTS.get(source)
    return None if parts is None else all(part(folder) for part in parts)
