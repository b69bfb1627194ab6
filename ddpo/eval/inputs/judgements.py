"""The choices of people between images, from preference files such as those of `ddpo label`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ddpo.errors import ConfigError, ImageError, UserError
from ddpo.images import decode_image, load_image, pixels_sha256
from ddpo.io.atomic import named_path
from ddpo.io.tables import WRITERS
from ddpo.reward_quality.preference_file import PairRow, read_preferences
from ddpo.text import single_line
from ddpo.types import Prompt

__all__ = ["JudgedImage", "Judgement", "JudgementFile", "find_judgements", "prompt_key"]

NAME: Final = "preferences"  # of the file in a run folder, whatever its suffix
FACTS: Final = (
    *("rater", "split", "index", "model_a", "model_b"),
    *("identity_a", "identity_b", "sha256_a", "sha256_b"),
)
"""The columns of `ddpo label` besides images, prompt and label."""
DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class JudgedImage:
    """One image of a choice, by all that the file says about it; "" stands for nothing."""

    sha256: str  # of the pixels
    model: str
    identity: str  # digest of the checkpoint's weights


@dataclass(frozen=True, slots=True)
class Judgement:
    """The choice of one person between two images.

    Attributes:
        choice: 1 for the first image, 0 for the second, 0.5 for a tie.
        rater: name of the person; "" if the file has none.
        first: first image.
        second: second image.
        prompt: `prompt_key` of their prompt; "" if the file has none.
        split: prompt list; "" if the file has none.
        index: number of the images among those of their prompt; -1 if the file has none.
    """

    choice: float
    rater: str
    first: JudgedImage
    second: JudgedImage
    prompt: str = ""
    split: str = ""
    index: int = -1


@dataclass(frozen=True, slots=True)
class JudgementFile:
    """The choices of one preference file."""

    path: str
    judgements: tuple[Judgement, ...]
    is_discovered: bool = False  # found in a run folder, not named by the user


def prompt_key(text: str) -> str:
    """The text of a prompt for comparisons; CSV does not keep spaces at its start."""
    return single_line(text)


def find_judgements(
    named: Sequence[str], runs: Sequence[Path], prompts: Collection[Prompt]
) -> tuple[tuple[JudgementFile, ...], tuple[str, ...]]:
    """The choices in the named files and in those that `ddpo label` wrote into the run folders.

    Images are opened only for a named file without digests: a run folder may be a stranger's.

    Args:
        named: preference files that the user named.
        runs: folders of the compared runs.
        prompts: prompts of the evaluation; images of others are not opened.

    Returns:
        The files, each once, and a sentence for each file in a run folder that cannot be used.

    Raises:
        ConfigError: a named file is missing, damaged, or empty.
    """
    keys = {prompt_key(prompt.text) for prompt in prompts}
    files: dict[Path, JudgementFile] = {}
    notes: list[str] = []
    for text in named:
        path = named_path(text)
        found = tuple(_judgements(path, keys))
        if not found:
            raise ConfigError(f"{path} holds no choice of a person: name another --preferences")
        files.setdefault(path.resolve(), JudgementFile(str(path), found))
    for path in (path for run in runs for path in _in_run(run)):
        if path.resolve() in files:
            continue
        try:
            found = tuple(_judgements(path, ()))
        except (UserError, OSError) as error:
            notes.append(f"The choices of people were left out: {single_line(str(error))}.")
            continue
        if found:
            files[path.resolve()] = JudgementFile(str(path), found, is_discovered=True)
    return tuple(files.values()), tuple(notes)


def _in_run(run: Path) -> Iterator[Path]:
    """The preference files of a run folder, in the order of their suffixes."""
    for suffix in WRITERS:
        path = run / f"{NAME}{suffix}"
        if path.is_file() and not path.is_symlink():
            yield path


def _judgements(path: Path, prompts: Collection[str]) -> Iterator[Judgement]:
    """The choices of a file; images without a digest are opened if they are of these prompts."""
    for row in read_preferences(path, facts=FACTS):
        prompt = "" if row.prompt is None else prompt_key(row.prompt.text)
        is_opened = bool(prompts) and (not prompt or prompt in prompts)
        yield Judgement(
            choice=row.choice,
            rater=_text(row.facts.get("rater")),
            first=_image(row, "a", row.image_a, is_opened),
            second=_image(row, "b", row.image_b, is_opened),
            prompt=prompt,
            split=_text(row.facts.get("split")),
            index=_index(row.facts.get("index")),
        )


def _image(row: PairRow, letter: str, image: Path | bytes, is_opened: bool) -> JudgedImage:
    """One image; its file is opened only where no column has the digest of its pixels."""
    sha256 = _text(row.facts.get(f"sha256_{letter}")).lower()
    if not DIGEST.fullmatch(sha256):
        sha256 = _digest(image, row.where) if is_opened else ""
    return JudgedImage(
        sha256,
        _text(row.facts.get(f"model_{letter}")),
        _text(row.facts.get(f"identity_{letter}")),
    )


def _digest(image: Path | bytes, where: str) -> str:
    """The digest of an image's pixels; "" if it cannot be read."""
    try:
        pixels = load_image(image) if isinstance(image, Path) else decode_image(image, where)
    except ImageError:
        return ""
    return pixels_sha256(np.asarray(pixels))


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _index(value: Any) -> int:
    """A whole number from 0; -1 for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return -1
    return int(number) if number >= 0 and number.is_integer() else -1
