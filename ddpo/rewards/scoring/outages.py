"""Tells an image on which a back end fails from a back end that is down.

A back end may answer for all images but some, such as a server that returns status 500 for them.
A witness decides which case it is: an image that was scored earlier. It is scored again before and
after another try of the images without an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ddpo.errors import RewardUnavailable
from ddpo.rewards.scoring.results import Chunk, concatenate, select
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["find_witness", "retry_unanswered"]

Score = Callable[[ImageBatch], RewardOutput]


def find_witness(score: Score, images: ImageBatch, places: Sequence[int]) -> ImageBatch | None:
    """An image that can be scored alone, from the first two of `places`; None if neither can.

    One image of a call may have failed all the others.

    Args:
        score: Scores a batch and sets apart the images that fail.
        images: Batch that was scored together.
        places: Places of the images without an answer.
    """
    for place in places[:2]:
        alone = images.take([place])
        if not score(alone).failed:
            return alone
    return None


def retry_unanswered(
    score: Score,
    witness_answers: Callable[[], bool],
    images: ImageBatch,
    output: RewardOutput,
    name: str,
) -> RewardOutput:
    """Scores each image without an answer once more, alone, between two calls of the witness.

    Args:
        score: Scores a batch and sets apart the images that fail.
        witness_answers: Scores the witness again; returns False if it fails or there is none.
        images: Batch of images.
        output: Scores of the batch, some of them unavailable.
        name: Id of the reward.

    Returns:
        The scores of the batch. Images that are still unavailable fail while others are answered.

    Raises:
        RewardUnavailable: The back end does not answer for the witness either.
    """
    places = sorted(output.unavailable)
    count = f"{len(places)} of {len(images)} images"
    outage = RewardUnavailable(f"{output.errors[places[0]]} ({count})")
    if not witness_answers():
        raise outage
    again = {place: score(images.take([place])) for place in places}
    if any(one.unavailable for one in again.values()) and not witness_answers():
        raise outage
    kept = [place for place in range(len(images)) if place not in again]
    chunks: list[Chunk] = [([place], select(output, [place])) for place in kept]
    chunks += [([place], one) for place, one in again.items()]
    return concatenate(chunks, len(images), name)
