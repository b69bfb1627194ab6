"""The scorers of a command: with the cache unless the user says no, and closed at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.device import AUTO
from ddpo.cli.warnings import one_line_warnings

if TYPE_CHECKING:
    from ddpo.rewards.scoring.resolve import ResolvedReward
    from ddpo.rewards.scoring.scorer import Scorer

__all__ = ["TIMEOUT", "Cache", "open_scorers"]

Cache = Annotated[
    bool | None,
    typer.Option(
        "--cache/--no-cache",
        help="Look scores up that were computed before, and keep new ones; by default for all rewards but those in your own files.",
    ),
]
"""The option of a command; None: nothing was said."""
TIMEOUT = 600.0  # seconds for one call of a reward whose card sets no limit


@contextmanager
def open_scorers(
    found: Mapping[str, ResolvedReward],
    batch_size: int,
    *,
    cache: bool | None = None,
    timeout: float = TIMEOUT,
    device: str = AUTO,
) -> Iterator[dict[str, Scorer]]:
    """Name → scorer of each reward; raises as `make_scorer`.

    Args:
        found: name → reward.
        batch_size: images per call of a reward, at most.
        cache: whether scores are looked up and kept; None: but for those of a user's own code.
        timeout: seconds for one call of a reward whose card sets no limit.
        device: device of the rewards that name none.
    """
    from ddpo.devices import resolve_device
    from ddpo.rewards.cache import ScoreCache
    from ddpo.rewards.scoring.scorer import make_scorer

    if any(reward.card.weights for reward in found.values()):
        from ddpo.cli.quiet import quiet_libraries

        quiet_libraries()  # which takes seconds to import: not for a reward that needs no model
    with one_line_warnings(), ExitStack() as stack:
        kept = (
            stack.enter_context(ScoreCache(user_code=cache is True)) if cache is not False else None
        )
        place = resolve_device(device)
        scorers = {
            name: make_scorer(
                reward.on(place), batch_size, name=name, timeout_s=timeout, cache=kept
            )
            for name, reward in found.items()
        }
        for scorer in scorers.values():
            stack.callback(scorer.close)
        yield scorers
