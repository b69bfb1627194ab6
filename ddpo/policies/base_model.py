"""Base models: the components of a pipeline in diffusers' format, from a folder or the hub.

Only safetensors are read. Components come from a local folder, which is the snapshot in the hub's
cache for a hub id. Once that folder exists, nothing is requested over the network.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import ConfigError, MissingResourceError, UserError, one_line
from ddpo.io.fields import DIGEST, FILE_NAME, Fields, MapOf
from ddpo.policies.model_files import (
    STEMS,
    VARIANTS,
    check_not_pointer,
    found_weights,
    read_json,
    single_file_error,
    weight_files,
)
from ddpo.policies.model_place import EMBEDDED, SINGLE_FILES, locate, place_of
from ddpo.policies.pipelines import PIPELINES, TRANSFORMER, UNET, parts_of
from ddpo.text import shortened
from ddpo.weights import (
    fetch_hub_repository,
    hub_snapshot,
    offline,
    sha256_of,
    without_loading_bars,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "BaseModel",
    "check_described",
    "known_model",
    "model_folder",
    "open_model",
]

INDEX: Final = "model_index.json"
MANIFEST: Final[Fields] = {"files": MapOf({"sha256": DIGEST}, FILE_NAME)}
VOCABULARIES: Final = {
    "CLIPTokenizer": ("vocab.json", "merges.txt"),
    "T5TokenizerFast": ("spiece.model",),
    "Qwen2Tokenizer": ("vocab.json", "merges.txt"),
}
"""Files of a tokenizer without a tokenizer.json, by its class."""
MESSAGE: Final = 300  # characters to show of a library's message
WITH_WEIGHTS: Final = parts_of(UNET, TRANSFORMER, "vae", "text_encoder")
SMALL_FILES: Final = (
    INDEX,
    "scheduler/*.json",
    *(f"{part}/*" for part in parts_of("tokenizer")),
    *(f"{part}/*.json" for part in WITH_WEIGHTS),
)
PIPELINE_FILES: Final = ("*.json", "*.txt", "*/*.safetensors")
"""Patterns of all files of a pipeline, in which `*` matches slashes too."""


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
        """True if the index names a component other than null."""
        entry = self.index.get(part)
        return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None

    @property
    def absent_parts(self) -> tuple[str, ...]:
        """The optional components that this model lacks, which diffusers wants as None."""
        kind = PIPELINES.get(self.pipeline)
        return tuple(part for part in kind.optional if not self.names(part)) if kind else ()

    def config(self, part: str) -> dict[str, Any]:
        """The config of a component, as written in its file.

        Raises:
            MissingResourceError: The config is missing or damaged.
        """
        self.check_part(part)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        return read_json(self.folder / part / name, f"the model {self.word!r}")

    def load(self, part: str, of: type, dtype: torch.dtype) -> Any:
        """A component with its weights.

        Args:
            part: Name of the component, such as "unet".
            of: Class of the component in diffusers or transformers.
            dtype: Type of the weights.

        Raises:
            MissingResourceError: The weights are missing, damaged, or not safetensors.
            ConfigError: The component has another class.
        """
        self.check_part(part)
        found = weight_files(self.folder / part)
        options = {"variant": found.variant, "dtype": dtype, "output_loading_info": True}
        if part.startswith("text_encoder"):
            options["ignore_mismatched_sizes"] = True  # transformers reports them, does not raise
        module, info = self.read(part, of, use_safetensors=True, **options)
        misfits = [key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]]
        if misfits:
            raise MissingResourceError(
                f"the model {self.word!r} cannot be loaded: {misfits[0]} in {found.paths[0]} "
                f"has another shape than {self.folder / part / 'config.json'} says"
            )
        if lost := sorted(map(str, info["missing_keys"])):
            more = f" and {len(lost) - 1} more weights" if len(lost) > 1 else ""
            raise MissingResourceError(
                f"the model {self.word!r} cannot be loaded: {found.paths[0]} lacks {lost[0]}{more}"
            )
        return module

    def load_tokenizer(self, part: str) -> Any:
        """A tokenizer of the model; raises as `load`."""
        import transformers

        self._check_vocabulary(part)
        for file in sorted((self.folder / part).iterdir()):
            check_not_pointer(file)
        tokenizer = self.read(part, getattr(transformers, self._classes(part)[0]))
        if tokenizer.pad_token_id is None:
            raise ConfigError(f"the tokenizer of {self.word!r} has no pad_token: add it to {part}/")
        return tokenizer

    @without_loading_bars()
    def read(self, part: str, of: Any, **options: Any) -> Any:
        """The object that a class of diffusers or transformers loads from a component's folder.

        Raises:
            MissingResourceError: The folder cannot be loaded.
        """
        try:
            return of.from_pretrained(self.folder / part, local_files_only=True, **options)
        except Exception as error:  # a damaged file can raise anything in the libraries
            where = f"the model {self.word!r} cannot be loaded: {self.folder / part}"
            reason = shortened(one_line(error), MESSAGE)
            raise MissingResourceError(f"{where}: {reason}") from error

    def _classes(self, part: str) -> tuple[str, ...]:
        """The supported classes of a component; () for one whose class does not matter."""
        kind = PIPELINES.get(self.pipeline)
        return kind.classes.get(part, ()) if kind else ()

    def check_complete(self) -> None:
        """Looks for the files of all components, without opening those of weights.

        A pipeline that ddpo does not load is not checked.

        Raises:
            MissingResourceError: A folder, a vocabulary or the weights of a component are missing.
            ConfigError: A component has another class.
        """
        kind = PIPELINES.get(self.pipeline)
        if kind is None:
            return
        for part in kind.classes:
            if part in kind.optional and not self.names(part):
                continue
            if part in kind.tokenizers:
                self._check_vocabulary(part)
            else:
                self.check_part(part)
                found_weights(self.folder / part)

    def _check_vocabulary(self, part: str) -> None:
        """Raises for a tokenizer without its vocabulary; errors as `load`."""
        self.check_part(part)
        if not self.has_vocabulary(part):
            files = VOCABULARIES[self._classes(part)[0]]
            raise MissingResourceError(
                f"the model {self.word!r} is incomplete: {self.folder / part} has no vocabulary "
                f"(tokenizer.json, or {' and '.join(files)})"
            )

    def has_vocabulary(self, part: str) -> bool:
        """True if the files of a tokenizer are here."""
        files = VOCABULARIES[self._classes(part)[0]]
        choices = (("tokenizer.json",), files)
        return any(all((self.folder / part / name).is_file() for name in one) for one in choices)

    def check_part(self, part: str) -> None:
        """Raises for a component that is absent or of an unsupported class; errors as `load`."""
        entry = self.index.get(part)
        if entry is None and part in self.index:
            entry = [None, None]  # null, which means the same
        classes = self._classes(part)
        if isinstance(entry, Sequence) and len(entry) == 2 and classes:
            kind = entry[1]
            if kind is None:
                raise ConfigError(
                    f"the model {self.word!r} has no {part}: it cannot be sampled from"
                )
            if kind not in classes:
                read = " or ".join(classes)
                raise ConfigError(
                    f"the {part} of the model {self.word!r} is a {kind}: ddpo reads {read}"
                )
        if not (self.folder / part).is_dir():
            kind = PIPELINES.get(self.pipeline)
            hint = f"; without it, {part} must be null in {INDEX}"
            raise MissingResourceError(
                f"the model {self.word!r} is incomplete: {self.folder} has no folder {part}/"
                + (hint if kind and part in kind.optional else "")
            )


def open_model(word: str) -> BaseModel:
    """The pipeline with the given name, in a local folder.

    Args:
        word: Registered name, folder or hub id; see `ddpo.policies.model_place`.

    Raises:
        UnknownNameError: The word is none of these.
        MissingResourceError: The model is damaged, or not available and cannot be fetched.
        ConfigError: The model is one file; the message says how to convert it.
    """
    folder = model_folder(word)
    index = read_json(folder / INDEX, f"the model {word!r}")
    return BaseModel(word, folder, index)


def known_model(word: str) -> BaseModel | None:
    """The pipeline with the given name as far as it is on this machine; nothing is fetched.

    None for a model that was moved or damaged, and for one that was never fetched.
    """
    place = place_of(word)
    if word not in EMBEDDED and (place is None or place.kind not in ("folder", "hub")):
        return None
    try:
        if place is None or place.kind != "hub":
            return open_model(word)
        repository, _, revision = place.place.partition("@")
        folder = hub_snapshot(repository, revision or "main")
        index = None if folder is None else read_json(folder / INDEX, word)
        return None if folder is None or index is None else BaseModel(word, folder, index)
    except UserError:
        return None


def model_folder(word: str) -> Path:
    """The local folder of a base model, fetched for a hub id; raises as `open_model`."""
    place = locate(word)
    if place.kind == "name":
        if word not in EMBEDDED:
            raise MissingResourceError(f"the model {word!r} is of a plug-in and has no folder")
        folder = Path(str(files(EMBEDDED[word]) / "weights"))
        _verify(folder, word)
        return folder
    if place.kind == "hub":
        return _fetched(place.place)
    if place.kind == "file":
        raise single_file_error(Path(place.place))
    if place.kind == "code":
        raise ConfigError(f"the model {word!r} is a factory, not a folder in diffusers' format")
    folder = Path(place.place)
    if not (folder / INDEX).is_file():
        raise MissingResourceError(
            f"the folder {word} is not a diffusers model: it has no {INDEX}{_hint(folder)}"
        )
    return folder


def _hint(folder: Path) -> str:
    """A hint for a folder without `model_index.json`: a model nearby, or one in a single file."""
    inside = sorted(index.parent.name for index in folder.glob(f"*/{INDEX}"))
    if inside:
        return f"; there is one in {inside[0]}/"
    if (folder.parent / INDEX).is_file():
        return f"; it is a part of the model {folder.parent}"
    single = sorted(file.name for file in folder.iterdir() if file.suffix in SINGLE_FILES)
    return f"; a model in one file, such as {single[0]}, must be converted first" if single else ""


def _verify(folder: Path, model: str) -> None:
    """Raises unless every file of an embedded model has the hash in its manifest; takes 20 ms."""
    facts = read_json(folder / "manifest.json", f"the embedded model {model!r}", MANIFEST)["files"]
    try:
        damaged = [
            name for name, fact in facts.items() if sha256_of(folder / name) != fact["sha256"]
        ]
    except FileNotFoundError as error:
        raise MissingResourceError(
            f"the embedded model {model!r} is incomplete in this installation: "
            f"{error.filename} is missing"
        ) from error
    if damaged:
        raise MissingResourceError(
            f"the embedded model {model!r} is damaged in this installation: "
            f"{damaged[0]} has another SHA-256; reinstall"
        )


def check_described(hub_id: str) -> None:
    """Fetches the small files of a hub id, and where fetching is off looks for its weights too.

    Raises:
        MissingResourceError: There is no such model, or it is not complete here and fetching is
            off.
    """
    if offline():
        _fetched(hub_id)
    else:
        _described(hub_id)


def _fetched(hub_id: str) -> Path:
    """The snapshot of a hub id: its small files, and one variant of each component's weights."""
    model = _described(hub_id)
    parts = [part for part in WITH_WEIGHTS if model.names(part)]
    for variant in ("", *(f".{name}" for name in VARIANTS)):
        missing = [part for part in parts if not any((model.folder / part).glob("*.safetensors"))]
        if missing and not offline():
            patterns = [name for part in missing for name in _weight_patterns(part, variant)]
            _fetch(hub_id, patterns)
    if offline():
        _check_cached(model, parts)
    return model.folder


def _check_cached(model: BaseModel, parts: Sequence[str]) -> None:
    """Raises for a model of which the hub's cache lacks files, where fetching is off.

    Args:
        model: The model in the hub's cache.
        parts: Its components with weights.
    """
    lost = [part for part in parts if not any((model.folder / part).glob("*.safetensors"))]
    if lost:
        raise _incomplete(model.word, f"{lost[0]}/ has no safetensors")
    kind = PIPELINES.get(model.pipeline)
    names = [part for part in kind.tokenizers if model.names(part)] if kind else []
    unread = [part for part in names if not model.has_vocabulary(part)]
    if unread:
        raise _incomplete(model.word, f"{unread[0]}/ has no vocabulary")
    model.check_complete()


def _incomplete(hub_id: str, reason: str) -> MissingResourceError:
    """The error for a model of which the hub's cache lacks a part, where fetching is off."""
    return MissingResourceError(
        f"the model {hub_id!r} is incomplete in the hub's cache ({reason}) and fetching is off: "
        f"run `{_command(hub_id)}` on a machine with a network, or give a local path"
    )


def _described(hub_id: str) -> BaseModel:
    """The model of a hub id with its small files, which are fetched."""
    folder = _fetch(hub_id, SMALL_FILES)
    return BaseModel(hub_id, folder, read_json(folder / INDEX, f"the model {hub_id!r}"))


def _fetch(hub_id: str, only: Sequence[str]) -> Path:
    repository, _, revision = hub_id.partition("@")
    what = f"the model {hub_id!r}"
    return fetch_hub_repository(repository, revision or "main", what, only, _command(hub_id))


def _command(hub_id: str) -> str:
    """The command of the hub's client that fetches a model without its files in other formats."""
    repository, _, revision = hub_id.partition("@")
    patterns = [f"--include {shlex.quote(pattern)}" for pattern in PIPELINE_FILES]
    words = ["hf", "download", repository, *patterns]
    return " ".join([*words, "--revision", revision] if revision else words)


def _weight_patterns(part: str, variant: str) -> list[str]:
    stem = STEMS[1] if part.startswith("text_encoder") else STEMS[0]
    return [f"{part}/{stem}{variant}.safetensors", f"{part}/{stem}{variant}-*-of-*.safetensors"]
