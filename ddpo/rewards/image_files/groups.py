"""Scores picture files with rewards of which some judge the pictures of a prompt together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ddpo.inputs.input_image import InputImage, copied_to
from ddpo.rewards.groups import group_places
from ddpo.rewards.image_files.run import ScoreRow, rows_of_reward, score_files, unscorable_row
from ddpo.rewards.image_files.stream import decode_ahead
from ddpo.rewards.scoring.scorer import Scorer, processors
from ddpo.types import ImageBatch, Prompt

__all__ = ["score_groups"]


def score_groups(
    scorers: Sequence[Scorer], pictures: Iterable[InputImage], batch_size: int = 16
) -> Iterator[tuple[ScoreRow, ...]]:
    """For each picture, in order, one row per scorer, as `score_files`; pictures of equal prompt are a group, those without one too.

    A group is judged when the turn of its first picture comes, and is in memory as a whole, with its readable pictures only. It is
    unscorable if these are of several sizes. Rewards that judge single pictures see them in batches, as by `score_files`.

    Args:
        scorers: with distinct names.
        pictures: what to score; all are drawn before the first is scored, and those that are no
            files of their own are copied to a temporary folder.
        batch_size: pictures that are scored together, at most, where they are not judged as a group.

    Raises:
        RewardFailure: a reward is broken. What was yielded before stands.
    """
    with TemporaryDirectory(prefix="ddpo-") as folder:
        yield from _score_listed(scorers, list(copied_to(Path(folder), pictures)), batch_size)


def _score_listed(
    scorers: Sequence[Scorer], listed: Sequence[InputImage], batch_size: int
) -> Iterator[tuple[ScoreRow, ...]]:
    together = [scorer for scorer in scorers if "group" in scorer.reward.card.inputs]
    others = [scorer for scorer in scorers if "group" not in scorer.reward.card.inputs]
    single = score_files(others, listed, batch_size) if others else iter([()] * len(listed))
    group_of = {
        place: places
        for places in group_places([picture.prompt or Prompt("") for picture in listed])
        for place in places
    }
    waiting: dict[int, list[ScoreRow]] = {}
    for place, rows in enumerate(single):
        if place not in waiting:
            places = group_of[place]
            waiting |= zip(places, _judged(together, [listed[i] for i in places]), strict=True)
        named = {row.reward: row for row in (*rows, *waiting.pop(place))}
        yield tuple(named[scorer.name] for scorer in scorers)


def _judged(scorers: Sequence[Scorer], group: Sequence[InputImage]) -> list[list[ScoreRow]]:
    """The rows of each picture of a group."""
    decoded = list(decode_ahead(group, processors(), len(group)))
    images = [each.image for each in decoded if each.image is not None]
    readable = [each.picture for each in decoded if each.image is not None]
    reasons = {place: each.error or "" for place, each in enumerate(decoded) if each.image is None}
    if len(sizes := {image.size for image in images}) > 1:
        several = f"the pictures of its prompt are judged together and have {len(sizes)} sizes"
        reasons = {
            place: reasons.get(place, f"{picture.file}: {several}")
            for place, picture in enumerate(group)
        }
    columns = []
    for scorer in scorers:
        rows = {
            place: unscorable_row(group[place], scorer.name, reason)
            for place, reason in reasons.items()
        }
        left = [place for place in range(len(group)) if place not in rows]
        if left:
            batch = ImageBatch.of_images(
                images, [picture.prompt or Prompt("") for picture in readable]
            )
            rows |= zip(left, rows_of_reward(scorer, batch, readable), strict=True)
        columns.append([rows[place] for place in range(len(group))])
    return [list(rows) for rows in zip(*columns, strict=True)]
