"""Snapshots in the cache of the Hugging Face hub, and the commits that branches stand for.

The layout is models--OWNER--NAME/snapshots/COMMIT, where refs/BRANCH holds the commit of a branch.
Source: huggingface_hub, guide "Understand caching".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ddpo.rewards.card import RewardCard, WeightFile
from ddpo.weights import COMMIT, hub_snapshot

__all__ = ["floating_commits", "hub_repository", "is_pinned"]

REPOSITORY: Final = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


def hub_repository(weight: WeightFile) -> str | None:
    """The hub repository of a weight file, such as "owner/name"; None for other sources."""
    if re.match(r"https?:|package:|file:", weight.source):
        return None
    name = "/".join(weight.source.split("/")[:2])
    return name if REPOSITORY.fullmatch(name) else None


def is_pinned(weight: WeightFile) -> bool:
    """True if a card fixes the content: by a hash, by a commit, or inside a package's release."""
    if weight.sha256 or weight.source.startswith("package:"):
        return True
    return bool(COMMIT.fullmatch(weight.revision))


def floating_commits(card: RewardCard, options: Mapping[str, Any]) -> dict[str, str]:
    """The commits, on this machine, of repositories that a reward loads by the name of a branch.

    Args:
        card: Card of the reward.
        options: Options of the reward. A repository that is the default of an option counts only
            where the option has that value; one that an option names instead counts too.

    Returns:
        Hub repository → commit. One that is not in the cache is left out.
    """
    defaults = {option.name: option.default for option in card.options}
    chosen = {name: options.get(name, default) for name, default in defaults.items()}
    replaced = {default for name, default in defaults.items() if chosen[name] != default}
    named = (
        (repository, weight.revision)
        for weight in card.weights
        if not is_pinned(weight)
        and weight.source not in replaced
        and (repository := hub_repository(weight)) is not None
    )
    pinned = {hub_repository(weight) for weight in card.weights if is_pinned(weight)}
    given = (
        (value, "main")
        for value in chosen.values()
        if isinstance(value, str) and REPOSITORY.fullmatch(value) and value not in pinned
    )
    return _found((*named, *given))


def _found(revisions: Iterable[tuple[str, str]]) -> dict[str, str]:
    places = {repository: hub_snapshot(repository, revision) for repository, revision in revisions}
    return {
        repository: place.name for repository, place in sorted(places.items()) if place is not None
    }
