"""Prompt lists: built in, or a user's file. `ddpo.leaks` checks that held-out prompts are not training prompts in disguise.

A `.txt` file has one prompt a line; a `.jsonl` file one object a line with "prompt" and, if a reward needs it, "metadata", and, if it is
to be drawn more often than others, "weight". Where the built-in lists come from is told in `prompt_lists/README.md`.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from ddpo.errors import PromptError
from ddpo.files import named_path
from ddpo.registry import nearest
from ddpo.types import Prompt

__all__ = ["PromptSet", "builtin_names", "builtin_prompts", "load_prompts", "read_text"]

SUFFIXES: Final = (".txt", ".jsonl")
MAX_WEIGHT: Final = 1000  # a weight beyond it is a mistake


@dataclass(frozen=True, slots=True)
class PromptSet:
    """A named list of distinct prompts; `source` says in words where it came from."""

    name: str
    source: str
    prompts: tuple[Prompt, ...]
    weights: tuple[int, ...]  # how often each is drawn before the list begins anew; without a common divisor

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of texts, metadata and weights: what a run depends on."""
        rows = [[prompt.text, dict(prompt.metadata), weight] for prompt, weight in zip(self.prompts, self.weights, strict=True)]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


@cache
def builtin_names() -> tuple[str, ...]:
    """The names of the built-in lists."""
    return tuple(sorted(_builtin_files()))


@cache
def _builtin_files() -> dict[str, str]:
    """Name of the list → name of its file."""
    entries = [entry.name for entry in (files("ddpo") / "prompt_lists").iterdir() if entry.name.endswith(SUFFIXES)]
    return {name.rpartition(".")[0]: name for name in entries}


def load_prompts(name_or_path: str) -> PromptSet:
    """The prompts of a file if there is one of that name, else of a built-in list ("animals" and "animals.txt" both work).

    Raises:
        PromptError: no such file or list (names the nearest), empty, not UTF-8, a bad line, or the same prompt twice.
    """
    path = named_path(name_or_path)
    if path.is_file():
        return _parse(read_text(path), path.stem, f"file {path}", str(path), path.suffix == ".jsonl")
    name = name_or_path.removesuffix(".txt").removesuffix(".jsonl")
    if name not in builtin_names():
        near = nearest(name, builtin_names())
        hint = f"did you mean {near!r}?" if near else f"built-in: {', '.join(builtin_names())}"
        raise PromptError(f"no prompt file and no built-in list {name_or_path!r}; {hint}")
    return builtin_prompts(name)


def builtin_prompts(name: str) -> PromptSet:
    """A built-in list, whatever file of that name may lie around; `name` is one of `builtin_names()`."""
    file = _builtin_files()[name]
    text = (files("ddpo") / "prompt_lists" / file).read_text(encoding="utf-8")
    return _parse(text, name, f"built-in list {name!r}", file, file.endswith(".jsonl"))


def read_text(path: Path) -> str:
    """The text of a prompt file.

    Raises:
        PromptError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror}") from error


def _parse(text: str, name: str, source: str, origin: str, jsonl: bool) -> PromptSet:
    """The prompts of a file's text; `origin` is what mistakes in it are told of."""
    prompts: dict[str, tuple[Prompt, int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        prompt, weight = _parse_json(line, f"{origin}:{number}") if jsonl else (Prompt(line.strip()), 1)
        if prompt.id in prompts:
            raise PromptError(f"{origin}:{number}: the prompt {prompt.text!r} stands there twice")
        prompts[prompt.id] = prompt, weight
    if not prompts:
        raise PromptError(f"{origin} holds no prompt")
    divisor = math.gcd(*(weight for _, weight in prompts.values()))
    found = prompts.values()
    return PromptSet(name, source, tuple(prompt for prompt, _ in found), tuple(weight // divisor for _, weight in found))


def _parse_json(line: str, where: str) -> tuple[Prompt, int]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str) or not isinstance(record.get("metadata", {}), dict):
        raise PromptError(
            f'{where}: expected an object with "prompt" (text) and, optionally, "metadata" (object) and "weight" (whole number)'
        )
    weight = record.get("weight", 1)
    if type(weight) is not int or not 1 <= weight <= MAX_WEIGHT:
        raise PromptError(f'{where}: "weight" must be a whole number from 1 to {MAX_WEIGHT}, got {weight!r}')
    return Prompt(record["prompt"].strip(), record.get("metadata", {})), weight
