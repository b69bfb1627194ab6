"""Whether the scores of a cache entry can still be served: by what is installed now, which may be another version."""

from __future__ import annotations

from ddpo.errors import UserError
from ddpo.rewards.cache.queries import CacheEntry
from ddpo.rewards.zoo import resolve

__all__ = ["servable"]


def servable(entry: CacheEntry) -> bool | None:
    """Whether the reward as it is installed now, with the entry's options, has the entry's identity.

    Returns:
        False if its version, weights or libraries are others, or it takes other options; None if no reward of that name is
        installed, as with one of a user's file.
    """
    facts = dict(part.partition(":")[::2] for part in entry.identity.split("|"))
    options = facts.get("options", "default")
    try:
        resolve(entry.reward)
    except UserError:
        return None
    try:
        return (
            resolve(entry.reward if options == "default" else f"{entry.reward}:{options}").identity
            == entry.identity
        )
    except UserError:
        return False
