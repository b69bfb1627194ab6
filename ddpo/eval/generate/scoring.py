"""Scoring the stored images of an evaluation, once per image and reward, with a journal of scores.

Images are scored in fixed blocks of the plan. So each call of a reward holds the same images,
whatever the number of interruptions and processes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ddpo.distributed import ALONE, World
from ddpo.errors import ConfigError, RewardFailure
from ddpo.eval.generate.image_store import ImageStore, Pixels
from ddpo.io.closing import ClosedOnExit
from ddpo.io.fields import DIGEST, SHORT, Fields, Items, ListOf, MapOf, Maybe
from ddpo.io.journal import Journal
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, Prompt

__all__ = ["BLOCK", "Scorable", "Score", "ScoreJournal", "ScoreProgress", "score", "unscored"]

BLOCK: Final = 16  # images per line of the journal, and per call of a reward
NAME: Final = "scores"

RECORD: Final[Fields] = {
    "identity": SHORT,
    "scores": ListOf(
        Items((DIGEST, SHORT, Maybe(float), MapOf(Maybe(float)), Maybe(str), bool)), longest=4096
    ),
}
"""A line of the journal: image, prompt, score, parts, error and failure of each image."""

Scorable = tuple[str, Prompt]
"""SHA-256 of a stored image, and its prompt."""
Place = tuple[str, str, str]
"""Digest of the reward's identity, SHA-256 of the image, and the relevant parts of the prompt."""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of an image; NaN with a reason where it has none, or where the reward failed."""

    value: float
    parts: Mapping[str, float]
    error: str | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class ScoreProgress:
    """The state after a block, or after the search for earlier scores."""

    done: int  # distinct images of this process's shard, including those that were found
    total: int
    found: int


class ScoreJournal(ClosedOnExit):
    """The scores of an evaluation. Use it as a context manager, or `close` it.

    Args:
        out: output folder.
        rank: rank of this process, which writes its own journal and reads those of all.
    """

    def __init__(self, out: Path, rank: int = 0) -> None:
        self._journal = Journal(out, NAME, rank, RECORD, "its images are scored again")
        self._known: dict[Place, Score] = {}
        self.reload()

    def reload(self) -> None:
        """Reads the journals of all processes again."""
        self._known.clear()
        for record in self._journal.records():
            for image, prompt, value, parts, error, failed in record["scores"]:
                numbers = {name: _number(part) for name, part in parts.items()}
                place = (record["identity"], image, prompt)
                self._know(place, Score(_number(value), numbers, error, failed))

    def get(self, identity: str, card: RewardCard, item: Scorable) -> Score | None:
        """The score of an image by the reward of `identity`; None if it was not scored yet."""
        return self._known.get(_place(identity, card, item))

    def add(
        self, identity: str, card: RewardCard, scored: Sequence[tuple[Scorable, Score]]
    ) -> None:
        """Adds the scores of a block in one line.

        Raises:
            StorageFailure: the line cannot be written.
        """
        rows: list[list[Any]] = []
        for item, one in scored:
            place = _place(identity, card, item)
            parts = {name: _json(part) for name, part in one.parts.items()}
            rows.append([*place[1:], _json(one.value), parts, one.error, one.failed])
            self._know(place, one)
        self._journal.append(
            [{"reward": card.id, "identity": _identity_digest(identity), "scores": rows}]
        )

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _know(self, place: Place, found: Score) -> None:
        """Records a score; a failure never replaces one, since two processes may have tried."""
        before = self._known.get(place)
        if not found.failed or before is None or before.failed:
            self._known[place] = found


def unscored(
    identity: str, card: RewardCard, journal: ScoreJournal, items: Sequence[Scorable]
) -> list[Scorable]:
    """The distinct images without a score, in order, and those on which the reward failed."""
    return [
        item
        for item in _distinct(card, items)
        if (known := journal.get(identity, card, item)) is None or known.failed
    ]


def score(
    scorer: Scorer,
    identity: str,
    store: ImageStore,
    journal: ScoreJournal,
    items: Sequence[Scorable],
    *,
    world: World = ALONE,
) -> Iterator[ScoreProgress]:
    """Scores the images of `items` that the journal lacks by one reward, block by block.

    After the last progress all processes have scored their shards and know the scores of all. If
    a reward fails on some images only, these have no score, and the next evaluation tries again.
    Scores before an error are kept.

    Args:
        scorer: scorer of the reward.
        identity: text that fixes its scores, `ResolvedReward.identity`.
        store: store of the images.
        journal: journal of the scores.
        items: images of the plan in its order, the same on every process; duplicates are scored
            once, as far as prompts allow.
        world: processes of the evaluation.

    Raises:
        ConfigError: the reward judges groups of images.
        RewardFailure: the reward failed on all images, or on many in a row.
        RewardUnavailable: the reward's back end does not answer.
        ImageError: a stored image is damaged; the next evaluation samples it again.
        StorageFailure: the journal cannot be written.
    """
    card = scorer.reward.card
    if "group" in card.inputs:
        raise ConfigError(
            f"reward {card.id!r} judges images as a group: an image has no score of its own"
        )
    blocks = world.shard(_distinct(card, items), BLOCK)
    left = [unscored(identity, card, journal, block) for block in blocks]
    total = sum(map(len, blocks))
    done = found = total - sum(map(len, left))
    yield ScoreProgress(found, total, found)
    mine = [item for block in blocks for item in block]
    example = _scored_example(identity, card, store, journal, mine) if any(left) else None
    if example is not None:
        scorer.witness = example
    for block in filter(None, left):
        journal.add(identity, card, _scored(scorer, store, block))
        done += len(block)
        yield ScoreProgress(done, total, found)
    _check_not_broken(scorer, [journal.get(identity, card, item) for item in mine])
    if world.world_size > 1:
        world.barrier()
        journal.reload()


def _scored_example(
    identity: str,
    card: RewardCard,
    store: ImageStore,
    journal: ScoreJournal,
    items: Sequence[Scorable],
) -> ImageBatch | None:
    """An image that the reward has scored before, to recognise an outage; None without one."""
    for sha256, prompt in items:
        known = journal.get(identity, card, (sha256, prompt))
        if known is not None and known.error is None:
            return _batch([store.pixels(sha256)], [prompt])
    return None


def _scored(
    scorer: Scorer, store: ImageStore, block: Sequence[Scorable]
) -> list[tuple[Scorable, Score]]:
    """The scores of a block, in order; images of one size are scored together."""
    pixels = [store.pixels(sha256) for sha256, _ in block]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, array in enumerate(pixels):
        sizes.setdefault(array.shape, []).append(place)
    outcomes: dict[int, Score] = {}
    for places in sizes.values():
        batch = _batch([pixels[place] for place in places], [block[place][1] for place in places])
        outcomes |= dict(zip(places, _outcomes(scorer, batch), strict=True))
    return [(item, outcomes[place]) for place, item in enumerate(block)]


def _batch(pixels: Sequence[Pixels], prompts: Sequence[Prompt]) -> ImageBatch:
    return ImageBatch.of_uint8(np.stack(pixels), prompts)


def _outcomes(scorer: Scorer, batch: ImageBatch) -> Iterator[Score]:
    found = scorer.score_unless_down(batch)
    values = found.values.tolist()
    parts = {name: part.tolist() for name, part in found.parts.items()}
    for place, (value, error) in enumerate(zip(values, found.errors, strict=True)):
        own = {} if error is not None else {name: part[place] for name, part in parts.items()}
        yield Score(value, own, error, place in found.failed)


def _check_not_broken(scorer: Scorer, outcomes: Sequence[Score | None]) -> None:
    """Raises RewardFailure if the reward failed on every image."""
    reasons = [one.error for one in outcomes if one is not None and one.failed]
    if reasons and len(reasons) == len(outcomes):
        raise RewardFailure(
            f"the reward {scorer.name!r} could score none of {len(reasons)} images; "
            f"the first: {reasons[0]}"
        )


def _distinct(card: RewardCard, items: Sequence[Scorable]) -> list[Scorable]:
    found: dict[tuple[str, str], Scorable] = {}
    for sha256, prompt in items:
        found.setdefault((sha256, _of_prompt(card, prompt)), (sha256, prompt))
    return list(found.values())


def _place(identity: str, card: RewardCard, item: Scorable) -> Place:
    return _identity_digest(identity), item[0], _of_prompt(card, item[1])


def _of_prompt(card: RewardCard, prompt: Prompt) -> str:
    """The parts of a prompt on which a score may depend: none, its text, or its metadata too."""
    if "metadata" in card.inputs or card.metadata:
        values = json.dumps(dict(prompt.metadata), sort_keys=True, default=str)
        return f"{prompt.id}/{hashlib.sha256(values.encode()).hexdigest()[:12]}"
    return prompt.id if "prompt" in card.inputs else ""


def _identity_digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _json(value: float) -> float | None:
    """The number for JSON, with None for NaN; the shortest text of a float64 reads back exactly."""
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
