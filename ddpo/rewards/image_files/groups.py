"""Scores image files with rewards of which some judge the images of a prompt as a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ddpo.devices import processors
from ddpo.inputs.input_image import InputImage, copied_to
from ddpo.io.atomic import storing
from ddpo.rewards.groups import group_places
from ddpo.rewards.image_files.run import ScoreRow, rows_of_reward, score_files, unscorable_row
from ddpo.rewards.image_files.stream import Decoded, decode_ahead
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, Prompt

__all__ = ["score_groups"]


def score_groups(
    scorers: Sequence[Scorer], images: Iterable[InputImage], batch_size: int = 16
) -> Iterator[tuple[ScoreRow, ...]]:
    """For each image, in order, one row per scorer; images of equal prompt are a group.

    Images without a prompt are one group too. A group is judged at the turn of its first image,
    and consists of its readable images. If these have several sizes, it is unscorable. Rewards
    that judge single images see them in batches, as in `score_files`.

    Args:
        scorers: Scorers with distinct names.
        images: Images to score. All are read before the first is scored; those from tables and
            archives are copied to a temporary folder.
        batch_size: Largest number of images scored together by rewards that judge single images.

    Raises:
        RewardFailure: A reward is broken. Rows yielded before stay valid.
        StorageFailure: The temporary folder cannot hold the copies.
    """
    with TemporaryDirectory(prefix="ddpo-") as folder:
        with storing(Path(folder)):
            listed = list(copied_to(Path(folder), images))
        yield from _score_listed(scorers, listed, batch_size)


def _score_listed(
    scorers: Sequence[Scorer], images: Sequence[InputImage], batch_size: int
) -> Iterator[tuple[ScoreRow, ...]]:
    grouped = [scorer for scorer in scorers if "group" in scorer.reward.card.inputs]
    others = [scorer for scorer in scorers if "group" not in scorer.reward.card.inputs]
    single = score_files(others, images, batch_size) if others else iter([()] * len(images))
    group_of = {
        place: places
        for places in group_places([image.prompt or Prompt("") for image in images])
        for place in places
    }
    waiting: dict[int, list[ScoreRow]] = {}
    for place, rows in enumerate(single):
        if place not in waiting:
            places = group_of[place]
            waiting |= zip(places, _judged(grouped, [images[i] for i in places]), strict=True)
        named = {row.reward: row for row in (*rows, *waiting.pop(place))}
        yield tuple(named[scorer.name] for scorer in scorers)


def _judged(scorers: Sequence[Scorer], group: Sequence[InputImage]) -> list[list[ScoreRow]]:
    """The rows of each image of a group."""
    decoded = list(decode_ahead(group, processors(), len(group)))
    images = [each.image for each in decoded if each.image is not None]
    readable = [each.source for each in decoded if each.image is not None]
    reasons = _reasons(decoded)
    left = [place for place in range(len(group)) if place not in reasons]
    columns = []
    for scorer in scorers:
        rows = {
            place: unscorable_row(group[place], scorer.name, reason)
            for place, reason in reasons.items()
        }
        if left:
            batch = ImageBatch.of_images(images, [image.prompt or Prompt("") for image in readable])
            rows |= zip(left, rows_of_reward(scorer, batch, readable), strict=True)
        columns.append([rows[place] for place in range(len(group))])
    return [list(rows) for rows in zip(*columns, strict=True)]


def _reasons(decoded: Sequence[Decoded]) -> dict[int, str]:
    """Place → reason of each image of a group that cannot be scored."""
    reasons = {place: each.error or "" for place, each in enumerate(decoded) if each.image is None}
    sizes = {each.image.size for each in decoded if each.image is not None}
    if len(sizes) > 1:
        several = f"the images of its prompt are judged together and have {len(sizes)} sizes"
        for place, each in enumerate(decoded):
            reasons.setdefault(place, f"{each.source.file}: {several}")
    return reasons
