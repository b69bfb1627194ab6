"""Scores image files of any size and mode with several rewards; a bad file stops nothing."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from ddpo.devices import processors
from ddpo.errors import ConfigError
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.image_files.stream import MEMORY, Decoded, decode_ahead
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.text import without_controls
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["ScoreRow", "Status", "rows_of_reward", "score_files", "unscorable_row"]

Status = Literal["scored", "unscorable", "failed"]

NO_PROMPT: Final = "it has no prompt, by which the reward judges"
BATCHES_WAITING: Final = 4  # rows, in batches, that one incomplete batch may hold up


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The result of one reward for one file."""

    file: str
    prompt: str | None
    reward: str
    status: Status
    score: float | None
    error: str | None
    parts: dict[str, float] = field(default_factory=dict)


def score_files(
    scorers: Sequence[Scorer], images: Iterable[InputImage], batch_size: int = 16
) -> Iterator[tuple[ScoreRow, ...]]:
    """For each image, in order, one row per scorer.

    Images of one size are scored together, and each file is decoded once. Memory use does not grow
    with the number of images. An unreadable file is unscorable, and an image on which a reward
    fails is failed; both have a row with the reason.

    Args:
        scorers: Scorers with distinct names, none of a reward that judges groups.
        images: Images to score, read as needed.
        batch_size: Largest number of images scored together.

    Raises:
        ConfigError: A reward judges groups; use `score_groups`.
        RewardFailure: A reward is broken. Rows yielded before stay valid.
    """
    for scorer in scorers:
        if "group" in scorer.reward.card.inputs:
            raise ConfigError(
                f"reward {scorer.reward.card.id!r} ranks images within a batch; "
                "it has no score for a file of its own"
            )
    board = _Board(scorers, batch_size)
    for decoded in decode_ahead(images, processors(), max(batch_size, 2 * processors())):
        board.add(decoded)
        yield from board.finished()
    board.flush_all()
    yield from board.finished()


class _Board:
    """Images in incomplete batches of one size, and rows that wait for the rows before them."""

    def __init__(self, scorers: Sequence[Scorer], batch_size: int) -> None:
        self._scorers = scorers
        self._batch_size = batch_size
        self._batches: dict[tuple[int, ...], list[tuple[int, Decoded]]] = defaultdict(list)
        self._rows: deque[tuple[ScoreRow, ...] | None] = deque()  # of images not yielded yet
        self._yielded = 0

    def add(self, decoded: Decoded) -> None:
        """Adds the next image, and scores the batches that are complete or have waited too long."""
        if decoded.image is None:
            reason = decoded.error or ""
            rows = [unscorable_row(decoded.source, one.name, reason) for one in self._scorers]
            self._rows.append(tuple(rows))
            return
        index = self._yielded + len(self._rows)
        self._rows.append(None)
        batch = self._batches[decoded.image.size]
        batch.append((index, decoded))
        if len(batch) == self._batch_size or len(batch) * decoded.bytes >= MEMORY // 2:
            self._flush(decoded.image.size)
        while self._too_much_waits():
            self._flush(min(self._batches, key=lambda size: self._batches[size][0][0]))

    def flush_all(self) -> None:
        """Scores all incomplete batches."""
        for size in list(self._batches):
            self._flush(size)

    def finished(self) -> Iterator[tuple[ScoreRow, ...]]:
        """The rows of the next images, up to the first that is not scored."""
        while self._rows and (rows := self._rows[0]) is not None:
            self._rows.popleft()
            self._yielded += 1
            yield rows

    def _too_much_waits(self) -> bool:
        """True if the oldest image holds up too many rows, or all images take too much memory."""
        bytes_waiting = sum(len(batch) * batch[0][1].bytes for batch in self._batches.values())
        return bool(self._batches) and (
            len(self._rows) > BATCHES_WAITING * self._batch_size or bytes_waiting > MEMORY // 2
        )

    def _flush(self, size: tuple[int, ...]) -> None:
        members = self._batches.pop(size)
        sources = [decoded.source for _, decoded in members]
        batch = ImageBatch.of_images(
            [decoded.image for _, decoded in members if decoded.image is not None],
            tuple(source.prompt or Prompt("") for source in sources),
        )
        if sum(scorer.reward.card.pixels == "float" for scorer in self._scorers) > 1:
            _ = batch.pixels  # converted once, before the scorers split the batch
        columns = [rows_of_reward(scorer, batch, sources) for scorer in self._scorers]
        for (index, _), rows in zip(members, zip(*columns, strict=True), strict=True):
            self._rows[index - self._yielded] = rows


def rows_of_reward(
    scorer: Scorer, batch: ImageBatch, sources: Sequence[InputImage]
) -> list[ScoreRow]:
    """One row per image; an image that lacks a prompt which the reward needs is unscorable."""
    name = scorer.name
    usable = [
        i
        for i, source in enumerate(sources)
        if source.prompt is not None or not scorer.reward.card.needs_prompt
    ]
    output = scorer.score_each(batch if len(usable) == len(batch) else batch.take(usable))
    rows = [
        unscorable_row(source, name, f"{source.file}: {source.no_prompt or NO_PROMPT}")
        for source in sources
    ]
    for place, i in enumerate(usable):
        rows[i] = _row_at(place, output, sources[i], name)
    return rows


def _row_at(place: int, output: RewardOutput, source: InputImage, reward: str) -> ScoreRow:
    """The row of one image of a batch."""
    error = output.errors[place]
    if error is not None:
        status: Status = "failed" if place in output.failed else "unscorable"
        return _row(source, reward, status, None, f"{source.file}: {error}")
    parts = {name: float(part[place]) for name, part in output.parts.items()}
    return _row(source, reward, "scored", float(output.values[place]), None, parts)


def unscorable_row(source: InputImage, reward: str, reason: str) -> ScoreRow:
    """The row of an image that has no score, with the reason."""
    return _row(source, reward, "unscorable", None, reason)


def _row(
    source: InputImage,
    reward: str,
    status: Status,
    score: float | None,
    error: str | None,
    parts: dict[str, float] | None = None,
) -> ScoreRow:
    prompt = source.prompt.text if source.prompt else None
    reason = None if error is None else without_controls(error)
    return ScoreRow(source.file, prompt, reward, status, score, reason, parts or {})
