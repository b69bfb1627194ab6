"""Scoring the pictures of an evaluation: each picture once per reward, from the stored file, and a journal of the scores.

Pictures are scored in blocks of the plan, whatever was found of it, so that the calls of a reward have the same pictures in them however
often the evaluation was interrupted and whatever the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from ddpo.errors import ConfigError, RewardFailure
from ddpo.eval.generate.image_store import ImageStore, Pixels
from ddpo.eval.sharing import ALONE, World
from ddpo.io.journal import Journal
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, Prompt

__all__ = ["BLOCK", "Scorable", "Score", "ScoreJournal", "ScoreProgress", "score", "unscored"]

BLOCK: Final = 16  # pictures that are scored together and journaled in one line; as many as a scorer gives to a reward at once
NAME: Final = "scores"

Scorable = tuple[str, Prompt]  # SHA-256 of a stored picture, and the prompt that it was made for
Place = tuple[
    str, str, str
]  # digest of the reward's identity, SHA-256 of the picture, what of the prompt matters


@dataclass(frozen=True, slots=True)
class Score:
    """What became of a picture: a score; or NaN and a reason, where it has none or, `failed`, where the reward broke on it."""

    value: float
    parts: Mapping[str, float]
    error: str | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class ScoreProgress:
    """One block is done, or what was found has been looked at."""

    done: int  # different pictures of this process's share, with those that were found
    total: int
    found: int


class ScoreJournal:
    """The scores of an evaluation. Use it as a context manager, or `close` it.

    Args:
        out: the output folder.
        rank: of this process, which writes a journal of its own and reads those of all.
    """

    def __init__(self, out: Path, rank: int = 0) -> None:
        self._journal = Journal(out, NAME, rank)
        self._known: dict[Place, Score] = {}
        self.reload()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def reload(self) -> None:
        """Reads the journals of all processes anew."""
        self._known.clear()
        for record in self._journal.records():
            try:
                for image, prompt, value, parts, error, failed in record["scores"]:
                    place = (str(record["identity"]), str(image), str(prompt))
                    read = Score(
                        _number(value),
                        {name: _number(part) for name, part in parts.items()},
                        error,
                        bool(failed),
                    )
                    self._know(place, read)
            except (KeyError, TypeError, ValueError, AttributeError):
                continue  # not a line of ours: as if it were not there

    def get(self, identity: str, card: RewardCard, item: Scorable) -> Score | None:
        """The outcome of a picture under the reward of `identity`; None if it was not scored yet."""
        return self._known.get(_place(identity, card, item))

    def add(
        self, identity: str, card: RewardCard, scored: Sequence[tuple[Scorable, Score]]
    ) -> None:
        """Adds the outcomes of a block in one line.

        Raises:
            StorageFailure: it cannot be written.
        """
        rows: list[list[Any]] = []
        for item, one in scored:
            place = _place(identity, card, item)
            rows.append(
                [
                    *place[1:],
                    _json(one.value),
                    {name: _json(part) for name, part in one.parts.items()},
                    one.error,
                    one.failed,
                ]
            )
            self._know(place, one)
        self._journal.append(
            [{"reward": card.id, "identity": _identity_digest(identity), "scores": rows}]
        )

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _know(self, place: Place, found: Score) -> None:
        """A failure never takes the place of a score: two processes may have tried."""
        before = self._known.get(place)
        if not found.failed or before is None or before.failed:
            self._known[place] = found


def unscored(
    identity: str, card: RewardCard, journal: ScoreJournal, items: Sequence[Scorable]
) -> list[Scorable]:
    """The different pictures that the journal has no outcome of, in order; and those on which the reward broke, for another try."""
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
    together: World = ALONE,
) -> Iterator[ScoreProgress]:
    """Scores what the journal lacks of `items` under one reward, block by block.

    After the last progress all processes have scored their shares, and the journal knows the scores of all.

    Args:
        scorer: of the reward.
        identity: what fixes its scores, `ResolvedReward.identity`.
        store: where the pictures are.
        journal: of the scores.
        items: the pictures of the plan, in its order, the same on every process; doubles are scored once, as far as prompts allow.
        together: the processes of the evaluation.

    Raises:
        ConfigError: the reward judges groups of pictures.
        RewardFailure: the reward is broken: it broke on all pictures, or on many in a row.
        RewardUnavailable: the reward's back end does not answer. (One that fails on some pictures only holds up nothing: they have
            no score, and are asked for again when the evaluation is done again.)
        ImageError: a stored picture is damaged. Drawing mends it.
        StorageFailure: the journal cannot be written. What was scored before is kept, here and above.
    """
    card = scorer.reward.card
    if "group" in card.inputs:
        raise ConfigError(
            f"reward {card.id!r} judges pictures as a group: a picture has no score of its own"
        )
    blocks = together.share(_distinct(card, items), BLOCK)
    left = [unscored(identity, card, journal, block) for block in blocks]
    total = sum(map(len, blocks))
    done = found = total - sum(map(len, left))
    yield ScoreProgress(found, total, found)
    scored = (
        item
        for block in blocks
        for item in block
        if (known := journal.get(identity, card, item)) and known.error is None
    )
    if any(left) and (witness := next(scored, None)):
        scorer.witness = _batch([store.pixels(witness[0])], [witness[1]])
    for block in left:
        if block:
            journal.add(identity, card, _scored(scorer, store, block))
            done += len(block)
            yield ScoreProgress(done, total, found)
    _check_not_broken(
        scorer, [journal.get(identity, card, item) for block in blocks for item in block]
    )
    if together.count > 1:
        together.wait()
        journal.reload()


def _scored(
    scorer: Scorer, store: ImageStore, block: Sequence[Scorable]
) -> list[tuple[Scorable, Score]]:
    """The outcomes of a block, in order; pictures of one size are scored together."""
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
    """A reward that broke on each and every picture has found nothing out about them."""
    reasons = [one.error for one in outcomes if one is not None and one.failed]
    if reasons and len(reasons) == len(outcomes):
        raise RewardFailure(
            f"the reward {scorer.name!r} could score none of {len(reasons)} pictures; the first: {reasons[0]}"
        )


def _distinct(card: RewardCard, items: Sequence[Scorable]) -> list[Scorable]:
    found: dict[tuple[str, str], Scorable] = {}
    for sha256, prompt in items:
        found.setdefault((sha256, _of_prompt(card, prompt)), (sha256, prompt))
    return list(found.values())


def _place(identity: str, card: RewardCard, item: Scorable) -> Place:
    return _identity_digest(identity), item[0], _of_prompt(card, item[1])


def _of_prompt(card: RewardCard, prompt: Prompt) -> str:
    """What of a prompt a score may depend on: nothing, its text, or its metadata too."""
    if "metadata" in card.inputs or card.metadata:
        values = json.dumps(dict(prompt.metadata), sort_keys=True, default=str)
        return f"{prompt.id}/{hashlib.sha256(values.encode()).hexdigest()[:12]}"
    return prompt.id if "prompt" in card.inputs else ""


def _identity_digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _json(value: float) -> float | None:
    """JSON has no NaN. Every float32 is a float64, whose shortest text reads back as it was."""
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
