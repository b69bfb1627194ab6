"""Groups: the images of one prompt, which some rewards judge together.

The card of such a reward lists "group" among the inputs. It promises:

- It is called with whole groups, which no micro-batch splits. Images of equal prompt text are one
  group, wherever they are in the batch.
- The measure of a group is the score of each of its members. Part `n` is the size of the group, and
  scores of groups of different sizes are not comparable.
- A group of one image has no score, and a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

import torch
from torch import Tensor

from ddpo.types import Prompt, RewardOutput

__all__ = ["ALONE", "group_halves", "group_places", "judge_groups", "packed_groups"]

ALONE: Final = "it is the only image of its prompt here, and at least two are judged together"


def group_places(prompts: Sequence[Prompt]) -> list[list[int]]:
    """The places of the images of each prompt, in the order in which the prompts first appear."""
    groups: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt.id, []).append(place)
    return list(groups.values())


def packed_groups(prompts: Sequence[Prompt], most: int) -> list[list[int]]:
    """The places of whole groups, packed into lists of at most `most` images.

    A larger group is alone in its list. The places of each list are in ascending order.
    """
    packs: list[list[int]] = []
    for places in group_places(prompts):
        if packs and len(packs[-1]) + len(places) <= most:
            packs[-1] += places
        else:
            packs.append(places)
    return [sorted(pack) for pack in packs]


def group_halves(prompts: Sequence[Prompt]) -> list[list[int]]:
    """The places of both halves of the groups, in ascending order; nothing for a single group."""
    groups = group_places(prompts)
    half = len(groups) // 2
    if not half:
        return []
    return [sorted(chain.from_iterable(some)) for some in (groups[:half], groups[half:])]


def judge_groups(
    prompts: Sequence[Prompt], part: str, judge: Callable[[list[int]], tuple[float, Tensor]]
) -> RewardOutput:
    """The measure of each group as the score of its members.

    Args:
        prompts: One prompt per image.
        part: Name of the part with the numbers that `judge` returns for each member.
        judge: Function of the places of two or more images of one prompt. It returns the measure of
            the group and a number for each member `[n]`.

    Returns:
        Scores with the parts `n` and `part`; an image alone with its prompt is unscorable.
    """
    values, members, sizes = (torch.full((len(prompts),), torch.nan) for _ in range(3))
    errors: list[str | None] = [ALONE] * len(prompts)
    for places in group_places(prompts):
        sizes[places] = float(len(places))
        if len(places) < 2:
            continue
        value, of_members = judge(places)
        values[places] = value
        members[places] = of_members.detach().cpu().float()
        for place in places:
            errors[place] = None
    return RewardOutput(values, {"n": sizes, part: members}, tuple(errors))
