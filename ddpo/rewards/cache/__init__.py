"""The score cache: each image is scored once, whatever the name of its file."""

from ddpo.rewards.cache.key import cacheable, image_digests, score_key, uncached_line
from ddpo.rewards.cache.queries import CacheEntry, CacheStats
from ddpo.rewards.cache.rows import CachedScore
from ddpo.rewards.cache.store import CacheWarning, ScoreCache, optional_cache

__all__ = [
    "CacheEntry",
    "CacheStats",
    "CacheWarning",
    "CachedScore",
    "ScoreCache",
    "cacheable",
    "image_digests",
    "optional_cache",
    "score_key",
    "uncached_line",
]
