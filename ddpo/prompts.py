"""Prompt lists: built in, or a user's file; and the check that held-out prompts are not training prompts in disguise.

A `.txt` file has one prompt a line; a `.jsonl` file one object a line with "prompt" and, if a reward needs it, "metadata", and, if it is
to be drawn more often than others, "weight". Where the built-in lists come from is told in `prompt_lists/README.md`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from ddpo.errors import PromptError
from ddpo.registry import nearest
from ddpo.types import Prompt

__all__ = ["Leak", "PromptSet", "builtin_names", "find_leaks", "load_prompts", "read_text"]

ARTICLES: Final = frozenset({"a", "an", "the"})
SUFFIXES: Final = (".txt", ".jsonl")
MAX_WEIGHT: Final = 1000  # a weight beyond it is a mistake
LEAK_JACCARD: Final = 0.8  # share of words in common above which two prompts count as near-duplicates


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


@dataclass(frozen=True, slots=True)
class Leak:
    """A held-out prompt that is too near to a training prompt, and why."""

    heldout: Prompt
    train: Prompt
    reason: str


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
    path = Path(name_or_path)
    if path.is_file():
        return _parse(read_text(path), path.stem, f"file {path}", str(path), path.suffix == ".jsonl")
    name = name_or_path.removesuffix(".txt").removesuffix(".jsonl")
    if name not in builtin_names():
        near = nearest(name, builtin_names())
        hint = f"did you mean {near!r}?" if near else f"built-in: {', '.join(builtin_names())}"
        raise PromptError(f"no prompt file and no built-in list {name_or_path!r}; {hint}")
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


def find_leaks(train: Sequence[Prompt], heldout: Sequence[Prompt]) -> list[Leak]:
    """Held-out prompts that a training prompt gives away: the same words but for articles, case and plural, or nearly the same.

    Near-duplicates have a word overlap |A ∩ B| / |A ∪ B| of at least 0.8. At most one leak per held-out prompt is told.
    """
    words = [(prompt, _words(prompt.text)) for prompt in train]
    exact = {found: prompt for prompt, found in reversed(words)}
    leaks: list[Leak] = []
    for prompt in heldout:
        mine = _words(prompt.text)
        if mine in exact:
            leaks.append(Leak(prompt, exact[mine], "the same words"))
            continue
        for other, theirs in words:
            overlap = len(mine & theirs) / max(1, len(mine | theirs))
            if overlap >= LEAK_JACCARD:
                leaks.append(Leak(prompt, other, f"{overlap:.0%} of the words in common"))
                break
    return leaks


def _words(text: str) -> frozenset[str]:
    """The words of a prompt in lower case, without articles and plural endings."""
    return frozenset(_singular(word) for word in re.findall(r"\w+", text.lower()) if word not in ARTICLES)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
