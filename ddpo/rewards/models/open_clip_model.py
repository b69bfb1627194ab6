"""An OpenCLIP model with its files: configuration, weights and tokenizer, and how it is built.

OpenCLIP is imported when a model is built, so that listing rewards stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ddpo import weights
from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.rewards.card import WeightFile
from ddpo.rewards.tools.availability import fetch_weight

__all__ = [
    "CONFIG",
    "UNKNOWN_LICENCE",
    "OpenClipSource",
    "build_model",
    "local_file",
    "megabytes_of",
    "tokenizer_files",
    "tokenizer_name",
]

CONFIG: Final = "open_clip_config.json"
TOKENIZER_FILES: Final = (
    "tokenizer_config.json",
    "tokenizer.json|spiece.model|sentencepiece.bpe.model|vocab.txt",
)
UNKNOWN_LICENCE: Final = "licence: see its model card"
OWNERS: Final = {
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "roberta-base": "FacebookAI/roberta-base",
    "xlm-roberta-base": "FacebookAI/xlm-roberta-base",
    "xlm-roberta-large": "FacebookAI/xlm-roberta-large",
}
"""Hub ids of repositories that OpenCLIP's configurations name without an owner."""


@dataclass(frozen=True, slots=True)
class OpenClipSource:
    """One OpenCLIP model with its weights, looked up and not yet loaded.

    Attributes:
        name: "MODEL WEIGHTS", which fixes weights and preprocessing.
        config: OpenCLIP's configuration, with `embed_dim`, `vision_cfg`, `text_cfg` and others.
        preprocessing: given fields of OpenCLIP's `PreprocessCfg`.
        checkpoint: file of the weights.
        lineage: name of the model that the weights descend from.
        folder: folder of `local-dir:`, which holds the tokenizer too.
    """

    name: str
    config: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    checkpoint: WeightFile
    lineage: str
    folder: Path | None = None

    @property
    def backbone(self) -> str:
        """The name under which rewards share the encoders."""
        return f"open_clip {self.name}"

    @property
    def text(self) -> Mapping[str, Any]:
        """The configuration of the text encoder."""
        found: Mapping[str, Any] = self.config["text_cfg"]
        return found

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """All files that are read, the checkpoint first."""
        return (self.checkpoint, *_config_files(self), *tokenizer_files(self))


def local_file(path: Path, what: str) -> WeightFile:
    """A user's file as a weight file with its hash.

    Args:
        path: path of the file.
        what: content of the file in words, for messages.

    Raises:
        MissingResourceError: There is no such file.
    """
    if not path.is_file():
        hint = f"; write model=local-dir:{path} for a folder" if path.is_dir() else ""
        raise MissingResourceError(
            f"reward 'open_clip': there is no file with {what} at {path}{hint}",
        )
    state = path.stat()
    digest = _sha256(path.absolute(), state.st_size, state.st_mtime_ns)
    return WeightFile(
        f"file:{path.absolute()}",
        digest[:12],
        digest,
        round(state.st_size / 1e6, 6),
        "that of your file",
    )


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:
    """The hash of a file, computed again when its size or time of change differs."""
    return weights.sha256_of(path)


def _hub_id(name: str) -> str:
    return OWNERS.get(name, name)


def _config_files(source: OpenClipSource) -> tuple[WeightFile, ...]:
    """The configuration of a folder or repository, and of a text encoder of transformers."""
    found = []
    if source.folder is not None:
        found.append(local_file(source.folder / CONFIG, "the configuration"))
    elif "/" in source.name:
        repository = source.name
        found.append(WeightFile(f"{repository}/{CONFIG}", "main", None, 0.001, UNKNOWN_LICENCE))
    encoder = source.text.get("hf_model_name")
    if encoder and not Path(encoder).is_dir():
        found.append(
            WeightFile(f"{_hub_id(encoder)}/config.json", "main", None, 0.001, UNKNOWN_LICENCE),
        )
    return tuple(found)


def tokenizer_name(source: OpenClipSource) -> str | None:
    """The folder or hub id of the tokenizer; None: OpenCLIP's own."""
    name: str | None = source.text.get("hf_tokenizer_name")
    if not name:
        return None
    return str(source.folder) if source.folder else _hub_id(name)


def tokenizer_files(source: OpenClipSource) -> tuple[WeightFile, ...]:
    name = tokenizer_name(source)
    if name is None:
        return ()
    if Path(name).is_dir():
        here = [Path(name, file) for pattern in TOKENIZER_FILES for file in pattern.split("|")]
        return tuple(local_file(file, "a tokenizer") for file in here if file.is_file())
    files = TOKENIZER_FILES if name.startswith("timm/") else (*TOKENIZER_FILES, "config.json")
    found = [WeightFile(f"{name}/{file}", "main", None, 0, UNKNOWN_LICENCE) for file in files]
    known = {file.source for file in _config_files(source)}
    return tuple(each for each in found if each.source not in known)


def build_model(config: Mapping[str, Any]) -> Any:
    """The model of a configuration, without published weights in any part of it.

    A text encoder of transformers is built from its configuration, which is fetched from the hub.

    Raises:
        MissingResourceError: That configuration is neither here nor downloadable.
    """
    import open_clip

    fields = {
        **config,
        "vision_cfg": dict(config["vision_cfg"]),
        "text_cfg": dict(config["text_cfg"]),
    }
    if "timm_model_name" in fields["vision_cfg"]:
        fields["vision_cfg"]["timm_model_pretrained"] = False
    encoder = fields["text_cfg"].get("hf_model_name")
    if encoder:
        if not Path(encoder).is_dir():
            weight = WeightFile(
                f"{_hub_id(encoder)}/config.json",
                "main",
                None,
                0.001,
                UNKNOWN_LICENCE,
            )
            encoder = str(fetch_weight(weight, "open_clip").parent)
        fields["text_cfg"] |= {"hf_model_name": encoder, "hf_model_pretrained": False}
    if not fields.pop("custom_text", False) and not encoder:
        return open_clip.CLIP(**fields)
    if "multimodal_cfg" in fields:
        return open_clip.CoCa(**fields)
    return open_clip.CustomTextCLIP(**fields)


def megabytes_of(config: Mapping[str, Any]) -> float:
    """The size of the model in float32; 0 where it cannot be built without a network."""
    import torch

    if config["text_cfg"].get("hf_model_name"):
        return 0.0
    try:
        with torch.device("meta"):
            model = build_model(config)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"reward 'open_clip': the configuration gives no model ({one_line(error)[:200]})",
        ) from error
    numbers: int = sum(value.numel() for value in model.state_dict().values())
    return round(numbers * 4 / 1e6)
