"""The files of a model in diffusers' format: configs, safetensors and their shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError, ConfigError, MissingResourceError, one_line
from ddpo.io.fields import FILE_NAME, Fields, MapOf
from ddpo.io.json_files import read_foreign_json

__all__ = [
    "STEMS",
    "VARIANTS",
    "WeightFiles",
    "check_not_pointer",
    "found_weights",
    "read_json",
    "single_file_error",
    "weight_files",
]

STEMS: Final = ("diffusion_pytorch_model", "model")
"""Names of weight files of diffusers and of transformers."""
VARIANTS: Final = ("fp16", "bf16")
PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")
SHARDS: Final[Fields] = {"weight_map": MapOf(FILE_NAME)}
LFS: Final = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The safetensors of one component."""

    variant: str | None  # None for plain names, else "fp16" or "bf16"
    paths: tuple[Path, ...]


def read_json(path: Path, what: str, fields: Fields | None = None) -> dict[str, Any]:
    """A JSON object of a model.

    Args:
        path: Path of the JSON file.
        what: Name of the model in messages.
        fields: Names and kinds that the object must have.

    Raises:
        MissingResourceError: The file is missing, damaged or no JSON object.
    """
    check_not_pointer(path)
    if not path.exists():
        raise MissingResourceError(f"{what} is incomplete: {path} is missing")
    try:
        return read_foreign_json(path, fields)
    except CheckpointError as error:
        raise MissingResourceError(f"{what} cannot be loaded: {error}") from error


def weight_files(folder: Path) -> WeightFiles:
    """The safetensors of a component's folder: the plain ones if any, else fp16, else bf16.

    Raises:
        MissingResourceError: There are no safetensors, only pickles, or a shard is missing, or a
            file is empty, truncated or a pointer of Git LFS.
    """
    found = found_weights(folder)
    for path in found.paths:
        _check_safetensors(path)
    return found


def found_weights(folder: Path) -> WeightFiles:
    """The files that `weight_files` checks, which are not opened here.

    Raises:
        MissingResourceError: There are no safetensors, only pickles, or a shard is missing.
    """
    for variant in (None, *VARIANTS):
        if paths := _of_variant(folder, variant):
            return WeightFiles(variant, paths)
    raise _no_safetensors(folder)


def _no_safetensors(folder: Path) -> MissingResourceError:
    """The error for a component's folder without usable weights."""
    lacks = f"{folder} lacks {STEMS[0]}.safetensors or {STEMS[1]}.safetensors"
    if others := sorted(file.name for file in folder.glob("*.safetensors")):
        return MissingResourceError(f"{lacks}; {others[0]} is not read")
    files = folder.iterdir() if folder.is_dir() else ()
    if pickles := sorted(file for file in files if file.suffix in PICKLES):
        return MissingResourceError(
            f"{pickles[0]} is a pickle, which ddpo never reads; convert the model where you trust "
            f'it: python -c "from diffusers import DiffusionPipeline as P; '
            f"P.from_pretrained('{folder.parent}').save_pretrained('NEW FOLDER')\""
        )
    return MissingResourceError(lacks)


def _of_variant(folder: Path, variant: str | None) -> tuple[Path, ...]:
    """The files of one variant: a single file, or the shards of an index."""
    dotted = f".{variant}" if variant else ""
    for stem in STEMS:
        if (one := folder / f"{stem}{dotted}.safetensors").is_file():
            return (one,)
        for name in (
            f"{stem}.safetensors.index{dotted}.json",
            f"{stem}{dotted}.safetensors.index.json",
        ):
            if (folder / name).is_file():
                return _shards(folder / name)
    return ()


def _shards(index: Path) -> tuple[Path, ...]:
    names = read_json(index, f"{index.parent}", SHARDS)["weight_map"]
    if not names:
        raise MissingResourceError(f"{index} is damaged: its weight_map is empty")
    paths = tuple(index.parent / name for name in sorted(set(names.values())))
    if lost := [path for path in paths if not path.is_file()]:
        raise MissingResourceError(
            f"{index.parent} is incomplete: {lost[0].name} is missing, "
            f"{len(lost)} of {len(paths)} files"
        )
    return paths


def _check_safetensors(path: Path) -> None:
    from ddpo.io.tensors import opened_tensors

    check_not_pointer(path)
    if path.stat().st_size == 0:
        raise MissingResourceError(f"{path} is empty: fetch it again")
    try:
        with opened_tensors(path) as opened:
            opened.keys()
    except CheckpointError as error:
        raise MissingResourceError(
            f"{path} is damaged or truncated ({one_line(error)}): fetch it again"
        ) from error


def check_not_pointer(path: Path) -> None:
    """Raises for the text that Git LFS leaves in place of a large file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(LFS)) == LFS:
            raise MissingResourceError(
                f"{path} is a pointer of Git LFS, not the file itself: "
                "run `git lfs pull` in its folder"
            )


def single_file_error(file: Path) -> ConfigError:
    """The error for a model in one file, with the command that converts it."""
    keys = _keys(file)
    if any("lora" in key for key in keys):
        return ConfigError(
            f"{file} is a LoRA, not a model: give it as --checkpoint, with --model BASE"
        )
    if any("double_stream_modulation_img." in key for key in keys):
        return ConfigError(
            f"{file} is the transformer of a FLUX.2 model in one file; ddpo loads folders in "
            "diffusers' format, which has its text encoder and VAE too: give that of the model"
        )
    pipeline = _pipeline_of(keys)
    pickle = " (a pickle: only where you trust it)" if file.suffix in PICKLES else ""
    return ConfigError(
        f"{file} is a model in one file; ddpo loads folders in diffusers' format. "
        f"Convert it once{pickle}, then give the folder: "
        f'python -c "from diffusers import {pipeline} as P; '
        f"P.from_single_file({str(file)!r}).save_pretrained('FOLDER')\""
    )


def _pipeline_of(keys: Sequence[str]) -> str:
    """The class of the pipeline whose weights have these names in one file."""
    if any("double_blocks." in key for key in keys):
        return "FluxPipeline"
    if any(key.startswith("conditioner.embedders.1.") for key in keys):
        return "StableDiffusionXLPipeline"
    return "StableDiffusionPipeline"


def _keys(file: Path) -> list[str]:
    """The tensor names of a safetensors file; [] for other files."""
    if file.suffix != ".safetensors":
        return []
    from ddpo.io.tensors import opened_tensors

    _check_safetensors(file)
    with opened_tensors(file) as opened:
        return list(opened.keys())
