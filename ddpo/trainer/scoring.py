"""Scores the pictures of a rollout, and tells a picture that cannot be scored from a reward that does not answer."""

from __future__ import annotations

from collections.abc import Sequence

from ddpo.errors import RewardFailure, RewardUnavailable
from ddpo.rewards.pieces import Piece, Scored, joined
from ddpo.rewards.scorer import Scorer
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["RolloutScorer"]


class RolloutScorer:
    """Scores one batch after the other of an iteration.

    A picture on which the reward breaks, while it scores others, is unscorable: the run goes on without it. A reward whose back end
    does not answer stops the run, for scores that come and go with an outage would make the result depend on when it was. A back end
    that answers for all pictures but some, such as a server that fails on them with status 500, is told from an outage by a witness:
    a picture that it did score is scored again, before they are asked for once more and after it.

    Args:
        scorer: of the reward.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._witness: ImageBatch | None = None
        self._pieces: list[Piece] = []
        self._count = 0

    def add(self, images: ImageBatch) -> RewardOutput:
        """Scores `images`, and keeps the scores for `rewards`.

        Raises:
            RewardUnavailable: the reward's back end does not answer.
            RewardFailure: the reward is broken.
            UserError: as the reward itself raises.
        """
        found = self._scorer.score_each(images)
        scored = [place for place, value in enumerate(found.output.values.tolist()) if value == value]
        if scored and "group" not in self._scorer.reward.card.inputs:  # whose pictures are nothing alone
            self._witness = images.take(scored[:1])
        if found.unavailable:
            found = self._one_by_one(images, found)
        self._pieces.append(Piece(range(self._count, self._count + len(images)), found.output, len(found.failed) == len(images)))
        self._count += len(images)
        return found.output

    def rewards(self) -> RewardOutput:
        """Those of all pictures so far, in order.

        Raises:
            RewardFailure: the reward broke on each of them.
        """
        found = joined(self._pieces, self._count, self._scorer.reward.card.id).output
        if all(piece.failed for piece in self._pieces):
            raise RewardFailure(f"the reward could score none of {self._count} pictures; the first: {found.errors[0]}")
        return found

    def _one_by_one(self, images: ImageBatch, found: Scored) -> Scored:
        """Asks once more for each picture without an answer, alone, after the witness was answered.

        Raises:
            RewardUnavailable: there is still none, and for the witness neither.
        """
        places = sorted(found.unavailable)
        outage = RewardUnavailable(f"{found.output.errors[places[0]]} ({len(places)} of {len(images)} pictures)")
        if self._witness is None:
            self._look_for_witness(images, places)
        if not self._witness_answered():
            raise outage
        again = {place: self._scorer.score_each(images.take([place])) for place in places}
        if any(one.unavailable for one in again.values()) and not self._witness_answered():
            raise outage
        return _replaced(found, again, len(images), self._scorer.reward.card.id)

    def _look_for_witness(self, images: ImageBatch, places: Sequence[int]) -> None:
        """Tries two of the pictures alone, if they were asked for together: one of them may have failed the others."""
        card = self._scorer.reward.card
        if card.calls.batch == 1 or "group" in card.inputs or len(images) == 1:
            return
        for place in places[:2]:
            alone = images.take([place])
            if not self._scorer.score_each(alone).failed:
                self._witness = alone
                return

    def _witness_answered(self) -> bool:
        return self._witness is not None and not self._scorer.score_each(self._witness).failed


def _replaced(found: Scored, again: dict[int, Scored], count: int, name: str) -> Scored:
    """`found` with the outcome of the places that were asked for again."""
    kept = [place for place in range(count) if place not in again]
    pieces = [Piece([place], _at(found.output, [place]), place in found.failed) for place in kept]
    pieces += [Piece([place], one.output, bool(one.failed)) for place, one in again.items()]
    return joined(pieces, count, name)


def _at(output: RewardOutput, places: Sequence[int]) -> RewardOutput:
    index = list(places)
    parts = {name: part[index] for name, part in output.parts.items()}
    return RewardOutput(output.values[index], parts, tuple(output.errors[place] for place in index))
