"""Scores picture files of any sizes and modes with several rewards: each file is decoded once, order is kept, nothing stops the rest."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from ddpo.errors import ConfigError
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.image_files.stream import MEMORY, Decoded, decode_ahead
from ddpo.rewards.scoring.scorer import Scorer, processors
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["ScoreRow", "Status", "rows_of_reward", "score_files", "unscorable_row"]

Status = Literal["scored", "unscorable", "failed"]

NO_PROMPT: Final = "it has no prompt, by which the reward judges"
BATCHES_WAITING: Final = 4  # pictures of other sizes that wait for company, in batches


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The outcome of one reward for one file."""

    file: str
    prompt: str | None
    reward: str
    status: Status
    score: float | None
    error: str | None
    parts: dict[str, float] = field(default_factory=dict)


def score_files(
    scorers: Sequence[Scorer], pictures: Iterable[InputImage], batch_size: int = 16
) -> Iterator[tuple[ScoreRow, ...]]:
    """For each picture, in order, one row per scorer.

    Pictures of one size are scored together. What is in memory does not grow with the number of pictures. A file that cannot be read is
    unscorable; a picture on which a reward breaks has failed; both are rows with a reason.

    Args:
        scorers: with distinct names, none of a reward that judges a picture by its group.
        pictures: what to score; drawn from as needed.
        batch_size: pictures that are scored together, at most.

    Raises:
        ConfigError: a reward judges a picture by its group, as `score_groups` allows.
        RewardFailure: a reward is broken. What was yielded before stands.
    """
    for scorer in scorers:
        if "group" in scorer.reward.card.inputs:
            raise ConfigError(
                f"reward {scorer.reward.card.id!r} ranks pictures within a batch; it has no score for a file of its own"
            )
    board = _Board(scorers, batch_size)
    for decoded in decode_ahead(pictures, processors(), max(batch_size, 2 * processors())):
        board.add(decoded)
        yield from board.finished()
    board.flush_all()
    yield from board.finished()


class _Board:
    """Pictures that wait for company of their size, and rows that wait for the rows before them."""

    def __init__(self, scorers: Sequence[Scorer], batch_size: int) -> None:
        self._scorers, self._batch_size = scorers, batch_size
        self._waiting: dict[tuple[int, ...], list[tuple[int, Decoded]]] = defaultdict(list)
        self._rows: deque[tuple[ScoreRow, ...] | None] = (
            deque()
        )  # of the pictures that are not handed out yet
        self._handed_out = 0

    def add(self, decoded: Decoded) -> None:
        """Takes the next picture; scores those that have waited long enough."""
        index = self._handed_out + len(self._rows)
        if decoded.image is None:
            self._rows.append(
                tuple(
                    unscorable_row(decoded.picture, s.name, decoded.error or "")
                    for s in self._scorers
                )
            )
            return
        self._rows.append(None)
        group = self._waiting[decoded.image.size]
        group.append((index, decoded))
        if len(group) == self._batch_size or len(group) * decoded.bytes >= MEMORY // 2:
            self._flush(decoded.image.size)
        while self._too_much_waits():
            self._flush(min(self._waiting, key=lambda size: self._waiting[size][0][0]))

    def _too_much_waits(self) -> bool:
        """Whether the oldest picture holds up too many rows, or all together take too much memory."""
        bytes_waiting = sum(len(group) * group[0][1].bytes for group in self._waiting.values())
        return bool(self._waiting) and (
            len(self._rows) > BATCHES_WAITING * self._batch_size or bytes_waiting > MEMORY
        )

    def flush_all(self) -> None:
        """Scores whatever waits."""
        for size in list(self._waiting):
            self._flush(size)

    def finished(self) -> Iterator[tuple[ScoreRow, ...]]:
        """The rows whose turn has come."""
        while self._rows and (rows := self._rows[0]) is not None:
            self._rows.popleft()
            self._handed_out += 1
            yield rows

    def _flush(self, size: tuple[int, ...]) -> None:
        group = self._waiting.pop(size)
        prompts = tuple(decoded.picture.prompt or Prompt("") for _, decoded in group)
        batch = ImageBatch.of_images(
            [decoded.image for _, decoded in group if decoded.image is not None], prompts
        )
        if sum(scorer.reward.card.pixels == "float" for scorer in self._scorers) > 1:
            _ = batch.pixels  # made once for all, before the scorers cut the batch up
        pictures = [decoded.picture for _, decoded in group]
        columns = [rows_of_reward(scorer, batch, pictures) for scorer in self._scorers]
        for (index, _), rows in zip(group, zip(*columns, strict=True), strict=True):
            self._rows[index - self._handed_out] = rows


def rows_of_reward(
    scorer: Scorer, batch: ImageBatch, pictures: Sequence[InputImage]
) -> list[ScoreRow]:
    """One row per picture; a picture without a prompt is unscorable for a reward that judges by it."""
    name = scorer.name
    usable = [
        i
        for i, picture in enumerate(pictures)
        if picture.prompt is not None or not scorer.reward.card.needs_prompt
    ]
    scored = scorer.score_each(batch if len(usable) == len(batch) else batch.take(usable))
    rows = [
        unscorable_row(picture, name, f"{picture.file}: {picture.no_prompt or NO_PROMPT}")
        for picture in pictures
    ]
    for place, i in enumerate(usable):
        rows[i] = _outcome(pictures[i], name, scored, place)
    return rows


def _outcome(picture: InputImage, reward: str, output: RewardOutput, place: int) -> ScoreRow:
    error = output.errors[place]
    if error is not None:
        return _row(
            picture,
            reward,
            "failed" if place in output.failed else "unscorable",
            None,
            f"{picture.file}: {error}",
        )
    parts = {name: float(part[place]) for name, part in output.parts.items()}
    return _row(picture, reward, "scored", float(output.values[place]), None, parts)


def unscorable_row(picture: InputImage, reward: str, reason: str) -> ScoreRow:
    """The row of a picture that has no score, and why."""
    return _row(picture, reward, "unscorable", None, reason)


def _row(
    picture: InputImage,
    reward: str,
    status: Status,
    score: float | None,
    error: str | None,
    parts: dict[str, float] | None = None,
) -> ScoreRow:
    return ScoreRow(
        picture.file,
        picture.prompt.text if picture.prompt else None,
        reward,
        status,
        score,
        error,
        parts or {},
    )
