"""The score cache: a score is computed once per image, whatever the image's file is called."""

from ddpo.rewards.cache.key import cacheable, image_digests, score_key
from ddpo.rewards.cache.queries import CacheEntry, CacheStats
from ddpo.rewards.cache.rows import CachedScore
from ddpo.rewards.cache.store import CacheWarning, ScoreCache

__all__ = [
    "CacheEntry",
    "CacheStats",
    "CacheWarning",
    "CachedScore",
    "ScoreCache",
    "cacheable",
    "image_digests",
    "score_key",
]
