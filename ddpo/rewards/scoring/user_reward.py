"""The card of a user's object, and the way to make its reward."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from ddpo.author_errors import author_error_as, authored_package
from ddpo.errors import RewardLoadError, UserError
from ddpo.registry import explain_load_failure, load_attribute
from ddpo.rewards.base import Reward
from ddpo.rewards.card import PLACEMENT, RewardCard
from ddpo.rewards.scoring.user_function import (
    FunctionReward,
    caller_of,
    card_of_class,
    card_of_function,
    function_of_class,
)

__all__ = ["Factory", "adopt", "card_for", "construct"]

Factory = Callable[..., Reward]
"""Makes the reward from its options, given as keywords."""


def adopt(found: Any, reference: str, origin: str) -> tuple[RewardCard, Factory | None]:
    """The card of a user's object and the factory of its reward.

    Args:
        found: Card, class or object with a card, or function.
        reference: "module:attribute" of the object, for messages and the card.
        origin: Origin of the object, with the hash of its code.

    Raises:
        RewardLoadError: The object is none of these.
    """
    if isinstance(found, RewardCard):
        return found, None  # made by what the card's `load` names
    if inspect.isclass(found):
        return _adopt_class(found, reference, origin)
    if inspect.isfunction(found):
        card = card_of_function(found, reference, _code_version(origin))
        return card, lambda **options: FunctionReward(found, card, options)
    if isinstance(found, Reward) and isinstance(found.card, RewardCard):
        return found.card, lambda: found
    if callable(found) and not _takes_batch(found):
        card = card_of_function(found, reference, _code_version(origin))
        return card, lambda **options: FunctionReward(found, card, options)
    kinds = "a reward class, a reward, a card or a function"
    raise RewardLoadError(f"{reference} is a {type(found).__name__}, not {kinds}")


def _adopt_class(found: type, reference: str, origin: str) -> tuple[RewardCard, Factory]:
    """The card and the factory of a class, with or without a card of its own.

    Raises:
        RewardLoadError: Its objects cannot be called with images.
    """
    card = getattr(found, "card", None)
    calls = "__call__" in {name for base in found.__mro__ for name in vars(base)}
    if isinstance(card, RewardCard) and calls:
        return card, cast(Factory, found)
    if not calls or card is not None or _takes_batch(functools.partial(caller_of(found), None)):
        raise RewardLoadError(
            f"class {reference} is no reward: it needs `__call__(images, prompts)`, or "
            "`__call__(batch)` and a class attribute `card: RewardCard`"
        )
    _refuse_flow_factory(found, reference)
    own = card_of_class(found, reference, _code_version(origin))
    return own, lambda **options: FunctionReward(function_of_class(found, options), own, {})


def _refuse_flow_factory(found: type, reference: str) -> None:
    """Refuses a reward class of Flow-Factory, whose arguments only that program has.

    Raises:
        RewardLoadError: Its constructor takes them.
    """
    if {"config", "accelerator"} <= {*inspect.signature(found).parameters}:
        name = reference.rpartition(":")[2]
        raise RewardLoadError(
            f"class {reference} is made by Flow-Factory: write `def reward(images, prompts)` that "
            f"makes {name} with its config and returns what it returns for a list of Pillow images"
        )


def _code_version(origin: str) -> str:
    """The hash of the code in an origin, and that of the files on which it depends."""
    return origin.rpartition("sha256:")[2].replace(" files:", "+")


def _takes_batch(found: Any) -> bool:
    """True if a callable takes an `ImageBatch`, as rewards with a card do."""
    try:
        return next(iter(inspect.signature(found).parameters), "") == "batch"
    except (TypeError, ValueError):
        return False


def card_for(card: RewardCard, options: Mapping[str, Any], origin: str) -> RewardCard:
    """The card for given options; nothing is imported if all are at their defaults.

    Args:
        card: Card of the reward.
        options: All options of the reward.
        origin: Origin of the reward, for messages.

    Raises:
        UserError: As raised by the function `card.for_options`.
        RewardLoadError: That function cannot be loaded or fails.
    """
    defaults = {
        option.name: option.default for option in card.options if option.name not in PLACEMENT
    }
    chosen = {name: value for name, value in options.items() if name not in PLACEMENT}
    if card.for_options is None or chosen == defaults:
        return card
    loader = card.for_options
    install = f"install it, or reinstall {origin.split()[0]}"

    def failure(error: BaseException) -> RewardLoadError:
        cause = explain_load_failure(error, loader.partition(":")[0], install)
        return RewardLoadError(f"reward {card.id!r} of {origin}: {loader} failed: {cause}")

    with author_error_as(failure, passing=(UserError,)):
        found: RewardCard = load_attribute(loader)(card, options)
    return found


def construct(
    card: RewardCard, origin: str, options: dict[str, Any], factory: Factory | None = None
) -> Reward:
    """The reward of a card, made with `options`.

    Args:
        card: Card of the reward.
        origin: Origin of the reward, for messages.
        options: Keywords of the factory.
        factory: Factory of the reward; None for that of `card.load`.

    Raises:
        UserError: As raised by the reward itself, such as MissingResourceError for its weights.
        RewardLoadError: The reward cannot be imported or made, or is no reward.
    """
    distribution = origin.split()[0]
    install = f"install it, or reinstall {distribution}"
    if card.extra:
        install = f'pip install "{distribution}[{card.extra}]"'
    module = card.load.partition(":")[0]
    if origin != "ddpo":
        authored_package(module)
    name = f"reward {card.id!r} of {origin}"

    def failure(error: BaseException) -> RewardLoadError:
        cause = explain_load_failure(error, module, install)
        return RewardLoadError(f"{name} cannot be loaded: {cause}")

    with author_error_as(failure, passing=(UserError,)):
        reward = (factory or load_attribute(card.load))(**options)
    if not isinstance(reward, Reward) or not isinstance(reward.card, RewardCard):
        kind = type(reward).__name__
        raise RewardLoadError(
            f"{name}: {card.load} gave a {kind}, which has no card or is not callable"
        )
    return reward
