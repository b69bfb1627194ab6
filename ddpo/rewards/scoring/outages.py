"""Scores batch after batch of one piece of work, and tells a picture on which a back end fails from a back end that is down."""

from __future__ import annotations

from collections.abc import Sequence

from ddpo.errors import RewardUnavailable
from ddpo.rewards.scoring.results import ChunkResult, ScoringResult, concatenate
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["OutageAwareScorer"]


class OutageAwareScorer:
    """A scorer for work that an outage must stop and one bad picture must not.

    Scores that come and go with an outage would make the result depend on when it was. But a back end may answer for all pictures but
    some, such as a server that fails on them with status 500, and would hold up the work for ever. Which of the two it is a witness
    tells: a picture that it did score is scored again, before the others are asked for once more, alone, and after it.

    Args:
        scorer: of the reward.
        witness: a picture that was scored earlier, as a batch of one; None: the first one that is.
    """

    def __init__(self, scorer: Scorer, witness: ImageBatch | None = None) -> None:
        self.scorer, self._witness = scorer, witness

    def score_each(self, images: ImageBatch) -> ScoringResult:
        """As the scorer's. What is left in `unavailable` are pictures on which the back end fails while it answers for others.

        Raises:
            RewardUnavailable: the back end does not answer.
            RewardFailure, UserError: as the scorer's.
        """
        found = self.scorer.score_each(images)
        scored = [
            place for place, value in enumerate(found.output.values.tolist()) if value == value
        ]
        if (
            scored and "group" not in self.scorer.reward.card.inputs
        ):  # whose pictures are nothing alone
            self._witness = images.take(scored[:1])
        return self._one_by_one(images, found) if found.unavailable else found

    def _one_by_one(self, images: ImageBatch, found: ScoringResult) -> ScoringResult:
        """Asks once more for each picture without an answer, alone, after the witness was answered."""
        places = sorted(found.unavailable)
        outage = RewardUnavailable(
            f"{found.output.errors[places[0]]} ({len(places)} of {len(images)} pictures)"
        )
        if self._witness is None:
            self._look_for_witness(images, places)
        if not self._witness_answered():
            raise outage
        again = {place: self.scorer.score_each(images.take([place])) for place in places}
        if any(one.unavailable for one in again.values()) and not self._witness_answered():
            raise outage
        return _replaced(found, again, len(images), self.scorer.reward.card.id)

    def _look_for_witness(self, images: ImageBatch, places: Sequence[int]) -> None:
        """Tries two of the pictures alone, if they were asked for together: one of them may have failed the others."""
        card = self.scorer.reward.card
        if card.calls.batch == 1 or "group" in card.inputs or len(images) == 1:
            return
        for place in places[:2]:
            alone = images.take([place])
            if not self.scorer.score_each(alone).failed:
                self._witness = alone
                return

    def _witness_answered(self) -> bool:
        return self._witness is not None and not self.scorer.score_each(self._witness).failed


def _replaced(
    found: ScoringResult, again: dict[int, ScoringResult], count: int, name: str
) -> ScoringResult:
    """`found` with the outcome of the places that were asked for again."""
    kept = [place for place in range(count) if place not in again]
    pieces = [
        ChunkResult([place], _at(found.output, [place]), place in found.failed) for place in kept
    ]
    pieces += [
        ChunkResult([place], one.output, bool(one.failed), bool(one.unavailable))
        for place, one in again.items()
    ]
    return concatenate(pieces, count, name)


def _at(output: RewardOutput, places: Sequence[int]) -> RewardOutput:
    index = list(places)
    parts = {name: part[index] for name, part in output.parts.items()}
    return RewardOutput(output.values[index], parts, tuple(output.errors[place] for place in index))
