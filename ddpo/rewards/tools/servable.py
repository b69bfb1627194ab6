"""Tells which entries of the score cache the installed version can still serve."""

from __future__ import annotations

from ddpo.errors import UserError
from ddpo.rewards.cache.queries import CacheEntry
from ddpo.rewards.zoo import resolve

__all__ = ["servable"]


def servable(entry: CacheEntry) -> bool | None:
    """True if the installed reward, with the entry's options, has the entry's identity.

    Returns:
        False if its version, weights, libraries or options differ. None if no reward of that name
        is installed, as for one from a user's file.
    """
    facts = dict(part.partition(":")[::2] for part in entry.identity.split("|"))
    options = facts.get("options", "default")
    try:
        resolve(entry.reward)
    except UserError:
        return None
    spec = entry.reward if options == "default" else f"{entry.reward}:{options}"
    try:
        return resolve(spec).identity == entry.identity
    except UserError:
        return False
