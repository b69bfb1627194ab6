"""The scorers of one command, with the score cache unless the user turns it off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ddpo.cli.console import note, one_line_warnings, quiet_libraries
from ddpo.cli.options import AUTO

if TYPE_CHECKING:
    from ddpo.rewards.card import RewardCard
    from ddpo.rewards.scoring.resolve import ResolvedReward
    from ddpo.rewards.scoring.scorer import Scorer

__all__ = ["TIMEOUT", "open_scorers"]

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
    """A scorer for each reward, by the reward's name; all are closed at the end of the block.

    Args:
        found: Rewards by name.
        batch_size: Largest number of images in a call of a reward.
        cache: Use of the score cache; None: for all rewards but those of a user's own code.
        timeout: Seconds for one call of a reward whose card sets no limit.
        device: Device of the rewards that name none.

    Raises:
        DdpoError: As for `make_scorer`.
    """
    from ddpo.devices import resolve_device
    from ddpo.rewards.cache import optional_cache, uncached_line
    from ddpo.rewards.scoring.scorer import make_scorer

    if any(reward.card.weights for reward in found.values()):
        quiet_libraries()  # takes seconds, so only for rewards that load models
    with one_line_warnings(), ExitStack() as stack:
        store = optional_cache(cache)
        if store is not None:
            stack.enter_context(store)
        place = resolve_device(device)
        scorers = {}
        for name, reward in found.items():
            scorers[name] = make_scorer(
                reward.on(place), batch_size, name=name, timeout_s=timeout, cache=store
            )
            stack.callback(scorers[name].close)
        if cache and (line := uncached_line(_single_cards(found, scorers))):
            note(f"--cache: {line}")
        yield scorers


def _single_cards(
    found: Mapping[str, ResolvedReward], scorers: Mapping[str, Scorer]
) -> Iterator[RewardCard]:
    """The cards of single rewards as they are made, and of the parts of combinations."""
    from ddpo.rewards.scoring.resolve import single_rewards

    for name, reward in found.items():
        if reward.parts:
            yield from (one.card for one in single_rewards(reward))
        else:
            yield scorers[name].reward.card
