"""The one place that loads base models: components of a pipeline in diffusers' format, from a folder or the hub.

Safetensors only. Whatever is loaded lies in a local folder first (for hub ids, the snapshot in the hub's cache), so that nothing is
asked for over the network once that folder is there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.policies.model_place import SINGLE_FILES, locate
from ddpo.text import shortened
from ddpo.weights import fetch_hub_repository, offline, sha256_of

if TYPE_CHECKING:
    import torch

__all__ = ["BaseModel", "WeightFiles", "model_folder", "open_model", "read_json", "weight_files"]

INDEX: Final = "model_index.json"
STEMS: Final = ("diffusion_pytorch_model", "model")  # diffusers' and transformers' names of weights
VARIANTS: Final = ("fp16", "bf16")
PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")
MESSAGE: Final = 300  # characters of a library's message that are shown
LFS: Final = b"version https://git-lfs"
WITH_WEIGHTS: Final = ("unet", "vae", "text_encoder", "text_encoder_2")
SMALL_FILES: Final = (
    INDEX,
    "scheduler/*.json",
    "tokenizer/*",
    "tokenizer_2/*",
    *(f"{part}/*.json" for part in WITH_WEIGHTS),
)
CLASSES: Final = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
"""The classes of components that are read, by their names in `model_index.json`."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The safetensors of one component."""

    variant: str | None  # None for the plain names, else "fp16" or "bf16"
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A pipeline in diffusers' format in a local folder."""

    word: str  # the user's spelling
    folder: Path
    index: dict[str, Any]  # model_index.json

    @property
    def pipeline(self) -> str:
        """The class of the pipeline, such as "StableDiffusionPipeline"."""
        return str(self.index.get("_class_name"))

    def names(self, part: str) -> bool:
        """True if the index names a component, and not as none."""
        said = self.index.get(part)
        return isinstance(said, list) and len(said) == 2 and said[1] is not None

    def config(self, part: str) -> dict[str, Any]:
        """The config of a component, as its file says it.

        Raises:
            MissingResourceError: there is none, or it is damaged.
        """
        self._check_part(part)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        return read_json(self.folder / part / name, f"the model {self.word!r}")

    def load(self, part: str, of: type, dtype: torch.dtype) -> Any:
        """A component with its weights.

        Args:
            part: such as "unet".
            of: its class in diffusers or transformers.
            dtype: of its weights.

        Raises:
            MissingResourceError: missing, damaged, or not safetensors.
            ConfigError: of another class.
        """
        self._check_part(part)
        found = weight_files(self.folder / part)
        options = {"variant": found.variant, "dtype": dtype, "output_loading_info": True}
        if part.startswith("text_encoder"):
            options["ignore_mismatched_sizes"] = (
                True  # transformers then names them instead of raising
            )
        module, info = self.read(part, of, use_safetensors=True, **options)
        misfits = [key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]]
        if misfits:
            raise MissingResourceError(
                f"the model {self.word!r} cannot be loaded: {misfits[0]} in {found.paths[0]} has another shape than "
                f"{self.folder / part / 'config.json'} says"
            )
        if lost := sorted(map(str, info["missing_keys"])):
            raise MissingResourceError(
                f"the model {self.word!r} cannot be loaded: {found.paths[0]} lacks {lost[0]}"
                + (f" and {len(lost) - 1} more weights" if len(lost) > 1 else "")
            )
        return module

    def load_tokenizer(self, part: str) -> Any:
        """A tokenizer. Raises as `load`."""
        from transformers import CLIPTokenizer

        self._check_part(part)
        names = {file.name for file in (self.folder / part).iterdir()}
        if "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
            raise MissingResourceError(
                f"the model {self.word!r} is not whole: {self.folder / part} has no vocabulary "
                "(tokenizer.json, or vocab.json and merges.txt)"
            )
        for name in sorted(names):
            _check_not_pointer(self.folder / part / name)
        tokenizer = self.read(part, CLIPTokenizer)
        if tokenizer.pad_token_id is None:
            raise ConfigError(f"the tokenizer of {self.word!r} has no pad_token: add it to {part}/")
        return tokenizer

    def read(self, part: str, of: Any, **options: Any) -> Any:
        """An object that a class of diffusers or transformers makes of a component's folder.

        Raises:
            MissingResourceError: it cannot.
        """
        try:
            return of.from_pretrained(self.folder / part, local_files_only=True, **options)
        except Exception as error:  # whatever a damaged file does to the libraries
            where = f"the model {self.word!r} cannot be loaded: {self.folder / part}"
            said = shortened(one_line(error), MESSAGE)
            raise MissingResourceError(f"{where}: {said}") from error

    def _check_part(self, part: str) -> None:
        """Refuses a component that is absent, or of a class that is not read."""
        said = self.index.get(part)
        if isinstance(said, Sequence) and len(said) == 2 and part in CLASSES:
            if said[1] is None:
                raise ConfigError(
                    f"the model {self.word!r} has no {part}: it cannot be sampled from"
                )
            if said[1] not in CLASSES[part]:
                read = " or ".join(CLASSES[part])
                raise ConfigError(
                    f"the {part} of the model {self.word!r} is a {said[1]}: ddpo reads {read}"
                )
        if not (self.folder / part).is_dir():
            raise MissingResourceError(
                f"the model {self.word!r} is not whole: {self.folder} has no folder {part}/"
            )


def open_model(word: str) -> BaseModel:
    """The pipeline that a word names, in a local folder.

    Args:
        word: a name, a folder or a hub id; see `ddpo.policies.model_place`.

    Raises:
        UnknownNameError: none of these.
        MissingResourceError: not here and not to be fetched, or damaged.
        ConfigError: a model in one file; says how to convert it.
    """
    folder = model_folder(word)
    index = read_json(folder / INDEX, f"the model {word!r}")
    return BaseModel(word, folder, index)


def model_folder(word: str) -> Path:
    """The local folder of a base model; fetched if the word is a hub id. Raises as `open_model`."""
    place = locate(word)
    if place.kind == "name":
        folder = Path(str(files("ddpo.policies") / word / "weights"))
        _verify(folder, word)
        return folder
    if place.kind == "hub":
        return _fetched(place.place)
    if place.kind == "file":
        raise _in_one_file(Path(place.place))
    if place.kind == "code":
        raise ConfigError(f"the model {word!r} is a factory, not a folder in diffusers' format")
    folder = Path(place.place)
    if not (folder / INDEX).is_file():
        raise MissingResourceError(
            f"the folder {word} is not a diffusers model: it has no {INDEX}{_hint(folder)}"
        )
    return folder


def _hint(folder: Path) -> str:
    """A sentence for a folder without a `model_index.json`: where there is one, or what lies there instead."""
    inside = sorted(index.parent.name for index in folder.glob(f"*/{INDEX}"))
    if inside:
        return f"; there is one in {inside[0]}/"
    if (folder.parent / INDEX).is_file():
        return f"; it is a part of the model {folder.parent}"
    single = sorted(file.name for file in folder.iterdir() if file.suffix in SINGLE_FILES)
    return f"; a model in one file, such as {single[0]}, must be converted first" if single else ""


def _verify(folder: Path, model: str) -> None:
    """Compares every file of an embedded model with the hash in its manifest: 14 MB take some 20 ms."""
    try:
        facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        damaged = [
            name for name, fact in facts.items() if sha256_of(folder / name) != fact["sha256"]
        ]
    except FileNotFoundError as error:
        raise MissingResourceError(
            f"the embedded model {model!r} is not whole in this installation: {error.filename} is missing"
        ) from error
    if damaged:
        raise MissingResourceError(
            f"the embedded model {model!r} is damaged in this installation: {damaged[0]} has another SHA-256; reinstall"
        )


def _fetched(hub_id: str) -> Path:
    """The snapshot of a hub id with the files that are needed; of the weights, one variant of each component."""
    repository, _, revision = hub_id.partition("@")
    what = f"the model {hub_id!r}"

    def fetch(only: Sequence[str]) -> Path:
        return fetch_hub_repository(repository, revision or "main", what, only)

    folder = fetch(SMALL_FILES)
    model = BaseModel(hub_id, folder, read_json(folder / INDEX, what))
    parts = [part for part in WITH_WEIGHTS if model.names(part)]
    for variant in ("", *(f".{name}" for name in VARIANTS)):
        missing = [part for part in parts if not any((folder / part).glob("*.safetensors"))]
        if missing and not offline():
            fetch([name for part in missing for name in _weight_patterns(part, variant)])
    lost = [part for part in parts if not any((folder / part).glob("*.safetensors"))]
    if lost and offline():
        raise MissingResourceError(
            f"{what} is not whole in the hub's cache ({lost[0]}/ has no safetensors) and fetching is off: "
            f"run `hf download {repository}{f' --revision {revision}' if revision else ''}` "
            "on a machine with a network, or give a local path"
        )
    return folder


def _weight_patterns(part: str, variant: str) -> list[str]:
    stem = STEMS[0] if part in ("unet", "vae") else STEMS[1]
    return [f"{part}/{stem}{variant}.safetensors", f"{part}/{stem}{variant}-*-of-*.safetensors"]


def weight_files(folder: Path) -> WeightFiles:
    """The safetensors of a component's folder: the plain ones if there are any, else fp16, else bf16.

    Raises:
        MissingResourceError: only pickles (says how to convert), none at all, a shard is missing, or
            a file is empty, cut short or a pointer of Git LFS.
    """
    for variant in (None, *VARIANTS):
        if paths := _of_variant(folder, variant):
            for path in paths:
                _check_safetensors(path)
            return WeightFiles(variant, paths)
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    pickles = (
        sorted(file for file in folder.iterdir() if file.suffix in PICKLES)
        if folder.is_dir()
        else []
    )
    if others:
        raise MissingResourceError(
            f"{folder} lacks {STEMS[0]}.safetensors or {STEMS[1]}.safetensors; {others[0]} is not read"
        )
    if pickles:
        raise MissingResourceError(
            f"{pickles[0]} is a pickle, which ddpo never reads; convert the model where you trust it: "
            f'python -c "from diffusers import DiffusionPipeline as P; '
            f"P.from_pretrained('{folder.parent}').save_pretrained('NEW FOLDER')\""
        )
    raise MissingResourceError(f"{folder} lacks {STEMS[0]}.safetensors or {STEMS[1]}.safetensors")


def _of_variant(folder: Path, variant: str | None) -> tuple[Path, ...]:
    """The files of one variant: one, or the shards that an index names."""
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
    content = read_json(index, f"{index.parent}")
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise MissingResourceError(f"{index} is damaged: it has no weight_map")
    paths = tuple(index.parent / str(name) for name in sorted(set(map(str, names.values()))))
    if lost := [path for path in paths if not path.is_file()]:
        raise MissingResourceError(
            f"{index.parent} is not whole: {lost[0].name} is missing, {len(lost)} of {len(paths)} files"
        )
    return paths


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    _check_not_pointer(path)
    if path.stat().st_size == 0:
        raise MissingResourceError(f"{path} is empty: fetch it again")
    try:
        with safe_open(str(path), framework="pt") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise MissingResourceError(
            f"{path} is damaged or cut short ({one_line(error)}): fetch it again"
        ) from error


def _check_not_pointer(path: Path) -> None:
    """Refuses the text that Git leaves in the place of a large file."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                raise MissingResourceError(
                    f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder"
                )


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object of a model.

    Args:
        path: the file.
        what: the model, for messages.

    Raises:
        MissingResourceError: missing, damaged or not an object.
    """
    _check_not_pointer(path)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise MissingResourceError(f"{what} is not whole: {path} is missing") from error
    except (OSError, ValueError, TypeError) as error:
        raise MissingResourceError(f"{what} cannot be loaded: {path}: {one_line(error)}") from error


def _in_one_file(file: Path) -> ConfigError:
    """The error for a model in one file; says how to convert it."""
    keys = _keys(file)
    if any("lora" in key for key in keys):
        return ConfigError(
            f"{file} is a LoRA, not a model: give it as --checkpoint, with --model BASE"
        )
    xl = any(key.startswith("conditioner.embedders.1.") for key in keys)
    pipeline = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    pickle = " (a pickle: only where you trust it)" if file.suffix in PICKLES else ""
    return ConfigError(
        f"{file} is a model in one file; ddpo loads folders in diffusers' format. Convert it once{pickle}, then give the folder: "
        f"python -c \"from diffusers import {pipeline} as P; P.from_single_file({str(file)!r}).save_pretrained('FOLDER')\""
    )


def _keys(file: Path) -> list[str]:
    """The names of a safetensors file's tensors; [] for other files."""
    from safetensors import SafetensorError, safe_open

    if file.suffix != ".safetensors":
        return []
    _check_safetensors(file)
    try:
        with safe_open(str(file), framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise MissingResourceError(
            f"{file} cannot be read as safetensors: {one_line(error)}"
        ) from error
