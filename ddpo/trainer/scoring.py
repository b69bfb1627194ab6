"""Scores the pictures of a rollout, batch by batch."""

from __future__ import annotations

from ddpo.errors import RewardFailure
from ddpo.rewards.scoring.outages import OutageAwareScorer
from ddpo.rewards.scoring.results import ChunkResult, concatenate
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["RolloutScorer"]


class RolloutScorer:
    """Scores one batch after the other of an iteration.

    A picture on which the reward breaks, while it scores others, is unscorable: the run goes on without it. A reward whose back end
    does not answer stops the run (`OutageAwareScorer` tells the two apart).

    Args:
        scorer: of the reward.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = OutageAwareScorer(scorer)
        self._name = scorer.reward.card.id
        self.takes_levels = scorer.reward.card.pixels == "uint8"
        """True if the reward sees images at 256 levels."""
        self._pieces: list[ChunkResult] = []
        self._count = 0

    def add(self, images: ImageBatch) -> RewardOutput:
        """Scores `images`, and keeps the scores for `rewards`.

        Raises:
            RewardUnavailable: the reward's back end does not answer.
            RewardFailure: the reward is broken.
            UserError: as the reward itself raises.
        """
        found = self._scorer.score_each(images)
        self._pieces.append(
            ChunkResult(
                range(self._count, self._count + len(images)),
                found.output,
                len(found.failed) == len(images),
            )
        )
        self._count += len(images)
        return found.output

    def rewards(self) -> RewardOutput:
        """Those of all pictures so far, in order.

        Raises:
            RewardFailure: the reward broke on each of them.
        """
        found = concatenate(self._pieces, self._count, self._name).output
        if all(piece.failed for piece in self._pieces):
            raise RewardFailure(
                f"the reward could score none of {self._count} pictures; the first: {found.errors[0]}"
            )
        return found
