"""The scorers of a command: with the cache unless the user says no, and closed at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ddpo.cli.warnings import one_line_warnings

if TYPE_CHECKING:
    from ddpo.rewards.resolved import ResolvedReward
    from ddpo.rewards.scorer import Scorer

__all__ = ["TIMEOUT", "open_scorers"]

TIMEOUT = 600.0  # seconds for one call of a reward whose card sets no limit


@contextmanager
def open_scorers(
    found: Mapping[str, ResolvedReward], batch_size: int, *, cache: bool = True, timeout: float = TIMEOUT
) -> Iterator[dict[str, Scorer]]:
    """Name → scorer of each reward; raises as `make_scorer`."""
    from ddpo.rewards.cache import ScoreCache
    from ddpo.rewards.scorer import make_scorer

    if any(reward.card.weights for reward in found.values()):
        from ddpo.cli.quiet import quiet_libraries

        quiet_libraries()  # which takes seconds to import: not for a reward that needs no model
    with one_line_warnings(), ExitStack() as stack:
        kept = stack.enter_context(ScoreCache()) if cache else None
        scorers = {name: make_scorer(reward, batch_size, name=name, timeout_s=timeout, cache=kept) for name, reward in found.items()}
        for scorer in scorers.values():
            stack.callback(scorer.close)
        yield scorers
