"""Human choices between images, read from a table pair by pair.

A row is a pair with a label, a pair of a chosen and a rejected image, or a ranking of several
images, which is expanded into its pairs. Layouts in use:

- Pick-a-Pic (yuvalkirstain/pickapic_v2): caption, jpg_0, jpg_1, label_0, label_1, has_label,
  best_image_uid with image_0_uid and image_1_uid;
- ImageReward (THUDM/ImageReward, data/test.json): generations, ranking, 1 for the best;
- HPDv2 (tgxs002/HPSv2, README.md): image_path, rank, the lowest for the best, in test.json, and
  file_path, human_preference, 1 for the preferred image, in train.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.inputs.columns import PROMPT, column_of, explicit_metadata, text_of, value_of
from ddpo.inputs.json_rows import parse_json
from ddpo.inputs.tables import Row, read_table
from ddpo.registry import nearest
from ddpo.text import shortened
from ddpo.types import Prompt

__all__ = ["FORMAT", "Choice", "PairRow", "Preferences", "read_preferences"]

IMAGE_A: Final = ("image_a", "image_0", "jpg_0")
IMAGE_B: Final = ("image_b", "image_1", "jpg_1")
CHOICE: Final = ("label", "preference", "choice")
SHARE_OF_A: Final = ("label_a", "label_0")
SHARE_OF_B: Final = ("label_b", "label_1")
HAS_LABEL: Final = ("has_label",)
BEST_UID: Final = ("best_image_uid",)
UID_A: Final = ("image_0_uid",)
UID_B: Final = ("image_1_uid",)
CHOSEN: Final = ("chosen", "chosen_image", "image_chosen")
REJECTED: Final = ("rejected", "rejected_image", "image_rejected")
IMAGES: Final = ("generations", "image_path", "image_paths", "file_path", "file_paths", "images")
RANKS: Final = ("ranking", "rank", "ranks")
PREFERRED: Final = ("human_preference",)
COLUMNS: Final = (
    *IMAGE_A,
    *IMAGE_B,
    *CHOICE,
    *SHARE_OF_A,
    *SHARE_OF_B,
    *HAS_LABEL,
    *BEST_UID,
    *UID_A,
    *UID_B,
    *CHOSEN,
    *REJECTED,
    *IMAGES,
    *RANKS,
    *PREFERRED,
    *PROMPT,
    "metadata",
)
"""The columns that are read of a Parquet file."""

FORMAT: Final = (
    "each row needs image_a, image_b (or image_0, image_1; jpg_0, jpg_1), label (a, b or tie; or "
    "the number of the preferred image, 0, 1, or 0.5 for a tie), and prompt (or caption); "
    "or a ranking: generations or image_path, and ranking or rank"
)
WORDS: Final = {
    "a": 1.0,
    "image_a": 1.0,
    "b": 0.0,
    "image_b": 0.0,
    "tie": 0.5,
    "image_0": 1.0,
    "image_1": 0.0,
    "0": 1.0,
    "1": 0.0,
    "0.5": 0.5,
}

Choice = float
"""1: the first image was preferred; 0: the second; 0.5: a tie."""

Image = Path | bytes
"""The path of an image file, or its bytes."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """One pair of images, and which of them people preferred."""

    where: str  # "file:line" of its row, shared by all pairs of a ranking
    image_a: Image
    image_b: Image
    choice: Choice
    prompt: Prompt | None
    facts: Mapping[str, Any] = field(default_factory=dict)  # requested further columns


def read_preferences(
    path: Path,
    root: Path | None = None,
    limit: int | None = None,
    facts: Sequence[str] = (),
) -> Preferences:
    """The pairs of a preference file, which is read during iteration.

    Args:
        path: table of any format, or a folder of Parquet shards. Images are paths; in Parquet also
            bytes, or the struct of bytes and path of Hugging Face image columns.
        root: folder that image paths are relative to; the folder of the file if None.
        limit: largest number of pairs, the first of the file; None for all.
        facts: further columns to read into `PairRow.facts`, such as "rater"; they may be missing.
    """
    folder = path if path.is_dir() else path.parent
    return Preferences(path, folder if root is None else root, limit, facts)


class Preferences:
    """The pairs of a preference file, with counts of the rows of the last iteration.

    Attributes:
        rankings: number of rankings that were expanded.
        ranked_pairs: number of pairs that they gave.
        unlabelled: number of rows left out because `has_label` is false, as in Pick-a-Pic.

    Raises:
        ConfigError: while iterating, for a missing file, an unknown suffix, or an invalid row.
    """

    def __init__(
        self, path: Path, root: Path, limit: int | None = None, facts: Sequence[str] = ()
    ) -> None:
        self._path = path
        self._root = root
        self._limit = limit
        self._facts = tuple(facts)
        self.rankings = self.ranked_pairs = self.unlabelled = 0

    def __iter__(self) -> Iterator[PairRow]:
        self.rankings = self.ranked_pairs = self.unlabelled = 0
        return islice(self._pairs(), self._limit)

    def _pairs(self) -> Iterator[PairRow]:
        """All pairs of the file, those of a ranking counted one by one."""
        for where, row in read_table(self._path, (*COLUMNS, *self._facts)):
            if _is_unlabelled(row, where):
                self.unlabelled += 1
            elif _is_ranking(row, where):
                self.rankings += 1
                for pair in _ranked_pairs(row, self._root, where):
                    self.ranked_pairs += 1
                    yield pair
            else:
                pair = _pair(row, self._root, where)
                facts = {name: value_of(row, (name,), where) for name in self._facts}
                yield replace(pair, facts=facts) if facts else pair


def _is_unlabelled(row: Row, where: str) -> bool:
    return str(value_of(row, HAS_LABEL, where)).lower() in ("false", "0", "0.0")


def _is_ranking(row: Row, where: str) -> bool:
    pair = column_of(row, IMAGE_A, where) or column_of(row, CHOSEN, where)
    return pair is None and column_of(row, IMAGES, where) is not None


def _pair(row: Row, root: Path, where: str) -> PairRow:
    prompt = _prompt(row, where)
    if column_of(row, CHOSEN, where) is not None:
        chosen, rejected = (_image(row, names, root, where) for names in (CHOSEN, REJECTED))
        return PairRow(where, chosen, rejected, 1.0, prompt)
    first, second = (_image(row, names, root, where) for names in (IMAGE_A, IMAGE_B))
    return PairRow(where, first, second, _choice(row, where), prompt)


def _image(row: Row, names: tuple[str, ...], root: Path, where: str) -> Image:
    found = value_of(row, names, where)
    if found is None:
        known = {name.lower() for name in (*IMAGE_A, *IMAGE_B)}
        near = nearest(names[0], [name for name in row if name.lower() not in known])
        hint = f"did you mean its {near!r}?" if near else FORMAT
        raise ConfigError(f"{where}: no {names[0]}; {hint}")
    return _image_of(found, root, f"{where}: {names[0]}")


def _image_of(value: Any, root: Path, where: str) -> Image:
    """An image of a cell: bytes, a path, or the struct of both of Hugging Face datasets."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(f"{where} is neither a path nor an image: {shortened(repr(value))}")
    if value.lower().startswith(("http://", "https://", "s3://", "gs://")):
        hint = "download the images and name their files"
        raise ConfigError(f"{where} is a URL ({shortened(value)}); {hint}")
    return root / value


def _choice(row: Row, where: str) -> Choice:
    share = _share(row, where)
    if share is not None:
        return share
    found = value_of(row, CHOICE, where)
    if found is None:
        return _best_uid(row, where)
    number = isinstance(found, int | float) and not isinstance(found, bool)
    word = f"{found:g}" if number else str(found).strip().lower()
    if word not in WORDS:
        raise ConfigError(f"{where}: the label {shortened(repr(found))} is not one; {FORMAT}")
    return WORDS[word]


def _share(row: Row, where: str) -> Choice | None:
    """The choice by `label_0` and `label_1`; None without them."""
    first, second = (value_of(row, names, where) for names in (SHARE_OF_A, SHARE_OF_B))
    for given in (first, second):
        if given is not None and _number(given) not in (0, 0.5, 1):
            raise ConfigError(f"{where}: the label {shortened(repr(given))} is not one; {FORMAT}")
    if first is None:
        return None if second is None else 1 - _number(second)
    if second is not None and _number(first) + _number(second) != 1:
        raise ConfigError(f"{where}: the labels {first} and {second} of two images contradict")
    return _number(first)


def _number(value: Any) -> float:
    """A number, or a text of one, as CSV has it; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")


def _best_uid(row: Row, where: str) -> Choice:
    """The choice that `best_image_uid` names, as in Pick-a-Pic."""
    best, first, second = (value_of(row, names, where) for names in (BEST_UID, UID_A, UID_B))
    if best is None:
        raise ConfigError(f"{where}: no label; {FORMAT}")
    choices = {"tie": 0.5, str(first): 1.0, str(second): 0.0}
    if str(best) not in choices or first == second:
        shown = shortened(repr(best))
        raise ConfigError(f"{where}: best_image_uid {shown} is neither of the two images, nor tie")
    return choices[str(best)]


def _ranked_pairs(row: Row, root: Path, where: str) -> Iterator[PairRow]:
    """All pairs that a ranking decides. Equal ranks are ties."""
    column = column_of(row, IMAGES, where)
    cells = _list(row[column], f"{where}: {column}") if column is not None else []
    if len(cells) < 2:
        raise ConfigError(f"{where}: a ranking needs two images or more, got {len(cells)}")
    places = [f"{where}: image {number}" for number in range(1, len(cells) + 1)]
    images = [_image_of(cell, root, place) for cell, place in zip(cells, places, strict=True)]
    prompt = _prompt(row, where)
    for first, second, choice in _decided(row, len(images), where):
        yield PairRow(where, images[first], images[second], choice, prompt)


def _decided(row: Row, count: int, where: str) -> list[tuple[int, int, Choice]]:
    """The pairs of places that a row decides, each with its choice."""
    pairs = list(combinations(range(count), 2))
    column = column_of(row, RANKS, where)
    if column is not None:
        ranks = _numbers(row[column], count, f"{where}: {column}")
        return [(one, two, _lower_is_better(ranks[one], ranks[two])) for one, two in pairs]
    column = column_of(row, PREFERRED, where)
    if column is None:
        names = ", ".join((*RANKS, *PREFERRED))
        raise ConfigError(f"{where}: images, but none of {names}; {FORMAT}")
    preferred = _numbers(row[column], count, f"{where}: {column}")
    if set(preferred) != {0, 1}:
        shown = shortened(repr(row[column]))
        raise ConfigError(f"{where}: {column} must be 1 for preferred images, else 0, got {shown}")
    return [(one, two, preferred[one]) for one, two in pairs if preferred[one] != preferred[two]]


def _lower_is_better(first: float, second: float) -> Choice:
    return 0.5 if first == second else float(first < second)


def _numbers(value: Any, count: int, where: str) -> list[float]:
    numbers = [_number(one) for one in _list(value, where)]
    if len(numbers) != count:
        raise ConfigError(f"{where} has {len(numbers)} values for {count} images")
    if any(number != number or abs(number) == float("inf") for number in numbers):
        raise ConfigError(f"{where} must be numbers, got {shortened(repr(value))}")
    return numbers


def _list(value: Any, where: str) -> Sequence[Any]:
    """A list, or its JSON text, as tables without nesting hold it."""
    if isinstance(value, str):
        value = parse_json(value, where) if value.lstrip().startswith("[") else value
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list, got {shortened(repr(value))}")
    return value


def _prompt(row: Row, where: str) -> Prompt | None:
    text = text_of(row, PROMPT, where)
    return None if text is None else Prompt(text, explicit_metadata(row, where) or {})
