"""The place of a base model: the only rules for reading a word as a name, a path or a hub id.

They apply in this order:

1. A registered name ("emoji", or that of an entry point) wins over any file of the same name.
2. `FILE.py:Object` and `package.module:Object` are factories.
3. An existing folder is a model in diffusers' format, and an existing file a model in one file.
   `~` is the home directory.
4. "owner/name" and "owner/name@revision" are hub ids, unless the word looks like a path. It does if
   it starts with `.`, `/` or `~`, ends with `/` or the suffix of a weight file, or if its first
   part is a folder here. So a misspelt path is never requested over the network.
5. Everything else is an error.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ddpo.errors import ConfigError, MissingResourceError, UserError
from ddpo.policies.pipelines import denoiser_folder
from ddpo.registry import Registry, unknown_name

if TYPE_CHECKING:
    import torch

    from ddpo.policies.policy import TrainablePolicy

__all__ = [
    "EMBEDDED",
    "SINGLE_FILES",
    "ModelPlace",
    "PolicyFactory",
    "facts_of",
    "fingerprint",
    "locate",
    "place_of",
    "policies",
    "same_place",
]

PolicyFactory = Callable[[str, "torch.dtype"], "TrainablePolicy"]
"""Function of a torch device and a dtype, of frozen weights and latents, that makes a policy."""

EMBEDDED: Final = {
    "emoji": "ddpo.policies.emoji",
    "emoji-scenes": "ddpo.policies.emoji_scenes",
    "emoji-flow": "ddpo.policies.emoji_flow",
}
"""Name of an embedded model → package of its weights and vocabulary."""
policies: Registry[PolicyFactory] = Registry(
    "model",
    "ddpo.policies",
    None,
    {
        "emoji": "ddpo.policies:embedded",
        "emoji-scenes": "ddpo.policies:embedded_scenes",
        "emoji-flow": "ddpo.policies:embedded_flow",
    },
)
"""The embedded models and the models of the entry-point group `ddpo.policies`."""

SINGLE_FILES: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[\w.\-/]+)?")
HUB_ADDRESS: Final = re.compile(r"https?://[^/]+/([^/?#]+/[^/?#]+)")
CODE_FILE: Final = re.compile(r"(.+\.py)(?::([\w.]*))?")
CODE_MODULE: Final = re.compile(r"\w+(?:\.\w+)*:\w+(?:\.\w+)*")
PLAIN: Final = re.compile(r"diffusion_pytorch_model(-\d+-of-\d+)?\.safetensors")
BLOCKS: Final = 256  # read by a fingerprint from each weight file
BLOCK_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """A base model's place, the same under every spelling of its path."""

    kind: Literal["name", "code", "folder", "file", "hub"]
    place: str  # the name, an absolute path (of code with ":Object"), or the hub id

    @property
    def path(self) -> Path | None:
        """The absolute path of a folder or file; None for names, modules and hub ids."""
        if self.kind in ("folder", "file"):
            return Path(self.place)
        found = CODE_FILE.fullmatch(self.place) if self.kind == "code" else None
        return Path(found[1]) if found else None


def locate(word: str) -> ModelPlace:
    """The place of a base model.

    Args:
        word: Registered name, path, hub id or factory.

    Raises:
        MissingResourceError: The word is a path that does not exist.
        UnknownNameError: The word is no name, path or hub id.
        ConfigError: The word is an address.
    """
    if word in policies.entries():
        return ModelPlace("name", word)
    path = os.path.expanduser(word)
    if os.path.isdir(path):
        return ModelPlace("folder", os.path.realpath(path))
    if found := CODE_FILE.fullmatch(word):
        code = os.path.realpath(os.path.expanduser(found[1]))
        return ModelPlace("code", f"{code}:{found[2] or ''}".removesuffix(":"))
    if CODE_MODULE.fullmatch(word):
        return ModelPlace("code", word)
    if os.path.isfile(path):
        return ModelPlace("file", os.path.realpath(path))
    if found := HUB_ADDRESS.match(word):
        raise ConfigError(f"{word} is an address: give the hub id {found[1]}")
    if _looks_like_a_path(word):
        raise _no_such_path(word, path)
    if HUB_ID.fullmatch(word):
        return ModelPlace("hub", word.removesuffix("@main"))
    raise unknown_name("model", word, policies.entries())


def place_of(word: str) -> ModelPlace | None:
    """The place of a base model; None if `locate` raises."""
    try:
        return locate(word)
    except UserError:
        return None


def same_place(one: str, other: str) -> bool:
    """True if two words name the same base model, however they are spelled."""
    return one == other or ((place := place_of(one)) is not None and place == place_of(other))


def _looks_like_a_path(word: str) -> bool:
    first = word.split("/")[0]
    return (
        word.startswith((".", "/", "~"))
        or word.endswith(("/", *SINGLE_FILES))
        or "\\" in word
        or word.split("@")[0].count("/") > 1
        or ("/" in word and os.path.isdir(first))
    )


def _no_such_path(word: str, path: str) -> MissingResourceError:
    """The error for a path that does not exist, with the most similar entry of its folder."""
    absolute = Path(os.path.abspath(path))
    try:
        names = [
            entry.name for entry in absolute.parent.iterdir() if not entry.name.startswith(".")
        ]
    except OSError:
        names = []
    near = difflib.get_close_matches(absolute.name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {absolute.parent / near[0]}?" if near else ""
    return MissingResourceError(
        f"no model at {word!r}: there is no folder or file {absolute}{hint}"
    )


def fingerprint(word: str) -> str:
    """Sixteen hexadecimal digits that identify the denoiser of a local model; "" without one.

    They are from a SHA-256 over the size and 256 evenly spaced blocks of 4 KiB of each weight file
    of the denoiser. Of several variants, only the plain files count. Reading one MiB per file costs
    no time, and training changes every block.
    """
    place = place_of(word)
    if place is None or place.kind not in ("folder", "file"):
        return ""
    path = Path(place.place)
    files = [path] if place.kind == "file" else sorted(denoiser_folder(path).glob("*.safetensors"))
    files = [file for file in files if PLAIN.fullmatch(file.name)] or files
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return _fingerprint(tuple(facts)) if facts else ""


@lru_cache(maxsize=16)
def _fingerprint(facts: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, size, _ in facts:
        digest.update(f"{Path(name).name} {size}\n".encode())
        with open(name, "rb") as file:
            for start in _starts(size):
                file.seek(start)
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()[:16]


def _starts(size: int) -> list[int]:
    """The start offsets of the blocks of a file: all of them, or evenly spaced ones."""
    if size <= BLOCKS * BLOCK_BYTES:
        return list(range(0, size, BLOCK_BYTES))
    return [round(index * (size - BLOCK_BYTES) / (BLOCKS - 1)) for index in range(BLOCKS)]


def facts_of(word: str) -> dict[str, Any]:
    """The place and fingerprint of a local base model, as recorded in runs and checkpoints.

    The result is {} for names and hub ids.
    """
    place = place_of(word)
    if place is None or place.path is None:
        return {}
    return {"place": place.place, "fingerprint": fingerprint(word)}
