"""Groups: the pictures of one prompt, which some rewards judge together (their cards list "group" among the inputs).

What a group reward promises: it is called with whole groups, which no micro-batch cuts; pictures of equal prompt text are one group, in
whatever places of the batch. A measure of a group is the score of each of its members; part `n` says how many they were, and scores of
groups of different n are not to be compared. Groups of fewer than two have no score, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

import torch
from torch import Tensor

from ddpo.types import Prompt, RewardOutput

__all__ = ["ALONE", "group_halves", "group_places", "judge_groups", "packed_groups"]

ALONE: Final = "it is the only picture of its prompt here, and at least two are judged together"


def group_places(prompts: Sequence[Prompt]) -> list[list[int]]:
    """The places of the pictures of each prompt, in the order in which the prompts first appear."""
    groups: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt.id, []).append(place)
    return list(groups.values())


def packed_groups(prompts: Sequence[Prompt], most: int) -> list[list[int]]:
    """The places of whole groups, as many together as have at most `most` pictures; a larger group is by itself. Each list rises."""
    packs: list[list[int]] = []
    for places in group_places(prompts):
        if packs and len(packs[-1]) + len(places) <= most:
            packs[-1] += places
        else:
            packs.append(places)
    return [sorted(pack) for pack in packs]


def group_halves(prompts: Sequence[Prompt]) -> list[list[int]]:
    """The places of one half of the groups and of the other, rising; nothing if there is one group only."""
    groups = group_places(prompts)
    half = len(groups) // 2
    return (
        [sorted(chain.from_iterable(some)) for some in (groups[:half], groups[half:])]
        if half
        else []
    )


def judge_groups(
    prompts: Sequence[Prompt], part: str, judge: Callable[[list[int]], tuple[float, Tensor]]
) -> RewardOutput:
    """The measure of each group as the score of its members.

    Args:
        prompts: one per picture.
        part: name of what `judge` says of each member.
        judge: given the places of two pictures or more of one prompt: the group's measure, and a number for each member `[n]`.

    Returns:
        Per picture the group's measure, with the parts `n` and `part`; a picture alone with its prompt is unscorable.
    """
    values, members, n = (torch.full((len(prompts),), torch.nan) for _ in range(3))
    errors: list[str | None] = [ALONE] * len(prompts)
    for places in group_places(prompts):
        n[places] = float(len(places))
        if len(places) < 2:
            continue
        value, of_members = judge(places)
        values[places], members[places] = value, of_members.detach().cpu().float()
        for place in places:
            errors[place] = None
    return RewardOutput(values, {"n": n, part: members}, tuple(errors))
