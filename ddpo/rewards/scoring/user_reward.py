"""From a user's object to a card and a way to make the reward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from ddpo.errors import RewardLoadError, UserError
from ddpo.registry import explain_load_failure, load_attribute
from ddpo.rewards.base import Reward
from ddpo.rewards.card import PLACEMENT, RewardCard
from ddpo.rewards.scoring.user_function import FunctionReward, card_of_function

__all__ = ["Factory", "adopt", "card_for", "construct"]

Factory = Callable[..., Reward]
"""Makes the reward from its options, given as keywords."""


def adopt(found: Any, reference: str, origin: str) -> tuple[RewardCard, Factory | None]:
    """The card of a user's object, and how to make the reward: a card, a class with a card, an object with one, or a function.

    Raises:
        RewardLoadError: it is none of these.
    """
    if isinstance(found, RewardCard):
        return found, None  # made by what the card's `load` names
    if inspect.isclass(found):
        card = getattr(found, "card", None)
        if not isinstance(card, RewardCard) or not callable(getattr(found, "__call__", None)):  # noqa: B004
            raise RewardLoadError(
                f"class {reference} is no reward: it needs a class attribute `card: RewardCard` and `__call__(batch)`"
            )
        return card, cast(Factory, found)
    if inspect.isfunction(found):
        card = card_of_function(found, reference, _code_version(origin))
        return card, lambda **options: FunctionReward(found, card, options)
    if isinstance(found, Reward) and isinstance(found.card, RewardCard):
        return found.card, lambda: found
    if callable(found) and not _takes_batch(found):
        card = card_of_function(found, reference, _code_version(origin))
        return card, lambda **options: FunctionReward(found, card, options)
    raise RewardLoadError(
        f"{reference} is a {type(found).__name__}, not a reward class, a reward, a card or a function"
    )


def _code_version(origin: str) -> str:
    """The hash of the code in an origin, with that of the other files that it depends on."""
    return origin.rpartition("sha256:")[2].replace(" files:", "+")


def _takes_batch(found: Any) -> bool:
    """True if a callable takes an `ImageBatch`, as rewards with a card do, rather than images."""
    try:
        return next(iter(inspect.signature(found).parameters), "") == "batch"
    except (TypeError, ValueError):
        return False


def card_for(card: RewardCard, options: Mapping[str, Any], origin: str) -> RewardCard:
    """The card that holds for these options; nothing is imported where they are the defaults.

    Raises:
        UserError: as the card's function raises.
        RewardLoadError: that function cannot be loaded or fails.
    """
    defaults = {
        option.name: option.default for option in card.options if option.name not in PLACEMENT
    }
    chosen = {name: value for name, value in options.items() if name not in PLACEMENT}
    if card.for_options is None or chosen == defaults:
        return card
    try:
        found: RewardCard = load_attribute(card.for_options)(card, options)
    except UserError:
        raise
    except Exception as error:
        module = card.for_options.partition(":")[0]
        cause = explain_load_failure(error, module, f"install it, or reinstall {origin.split()[0]}")
        raise RewardLoadError(
            f"reward {card.id!r} of {origin}: {card.for_options} failed: {cause}"
        ) from error
    return found


def construct(
    card: RewardCard, origin: str, options: dict[str, Any], factory: Factory | None = None
) -> Reward:
    """Loads what a card names and makes the reward with `options`.

    Raises:
        UserError: as the reward itself raises, such as MissingResourceError for its weights.
        RewardLoadError: it cannot be imported or made, or is not a reward.
    """
    distribution = origin.split()[0]
    install = (
        f'pip install "{distribution}[{card.extra}]"'
        if card.extra
        else f"install it, or reinstall {distribution}"
    )
    module = card.load.partition(":")[0]
    try:
        reward = (factory or load_attribute(card.load))(**options)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise RewardLoadError(
            f"reward {card.id!r} of {origin} cannot be loaded: {explain_load_failure(error, module, install)}"
        ) from error
    if not isinstance(reward, Reward) or not isinstance(reward.card, RewardCard):
        raise RewardLoadError(
            f"reward {card.id!r} of {origin}: {card.load} gave a {type(reward).__name__}, which has no card or is not callable"
        )
    return reward
