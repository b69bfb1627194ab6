"""The entry to all rewards: built in, of packages, files and servers, and combinations of them.

Nothing heavy is imported before a reward is made.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpo.errors import ConfigError
from ddpo.io.atomic import named_path
from ddpo.registry import Registry
from ddpo.rewards.base import Reward
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards import CARDS
from ddpo.rewards.option_values import resolve_options
from ddpo.rewards.scoring.composed_card import composed_card
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.standardise import load_reference
from ddpo.rewards.scoring.user_reward import Factory, adopt, card_for
from ddpo.rewards.spec import (
    STEPS,
    TOKEN_VARIABLE,
    Combination,
    RewardSpec,
    parse_expression,
)
from ddpo.text import REDACTED
from ddpo.user_code import load_file, load_object, loaded_files

__all__ = ["ResolvedReward", "make_reward", "resolve", "resolve_card", "rewards"]


def _fits(name: str, card: RewardCard) -> None:
    if card.id != name:
        raise ConfigError(f"its card has the id {card.id!r}")
    _refuse_reserved_options(card)


def _refuse_reserved_options(card: RewardCard) -> None:
    for option in card.options:
        if option.name in STEPS:
            raise ConfigError(
                f"reward {card.id!r}: its option {option.name!r} has the name of a step "
                "that every reward has; rename it"
            )


rewards: Registry[RewardCard] = Registry("reward", "ddpo.rewards", RewardCard, CARDS, _fits)


def resolve(spec: str, **options: Any) -> ResolvedReward:
    """The resolved reward of an expression.

    Args:
        spec: Expression of `ddpo.rewards.spec`.
        **options: Options of a single reward, which win over those in the expression.

    Raises:
        UnknownNameError: There is no reward of that name; the message names the nearest.
        RewardLoadError: The plug-in, file or object is broken or no reward.
        ConfigError: The expression is malformed, an option is unknown or has the wrong type, a
            reference distribution belongs to another reward, or a combination got `options`.
        MissingResourceError: The file of a reference distribution does not exist.
        RewardFailure: The server of a reward does not answer, or is none.
    """
    combination, terms = parse_expression(spec)
    if len(terms) == 1:
        found = _resolve_one(terms[0], options)
        return found if terms[0].plain else _compose("sum", terms, [found])
    if options:
        example = "write {names} behind the reward that it is for, as in name:option=value"
        raise ConfigError(f"reward {spec!r}: {example.format(names=', '.join(options))}")
    return _compose(combination, terms, [_resolve_one(term, {}) for term in terms])


def _resolve_one(parsed: RewardSpec, options: dict[str, Any]) -> ResolvedReward:
    given = {**parsed.options, **options}
    _refuse_redacted(parsed, given)
    if parsed.kind == "url":
        card, factory, origin = _remote(parsed.target, given.pop("token", None))
        return ResolvedReward(card, resolve_options(card.id, card.options, given), origin, factory)
    if parsed.kind == "name":
        card = rewards.get(parsed.target)
        origin = rewards.origin(parsed.target)
        chosen = resolve_options(card.id, card.options, given)
        return ResolvedReward(card_for(card, chosen, origin), chosen, origin, None)
    if parsed.kind == "file":
        found, origin = load_file(Path(parsed.target), parsed.attribute)
    else:
        found, origin = load_object(parsed.target, parsed.attribute)
    user_card, factory_or_none = adopt(found, f"{parsed.target}:{parsed.attribute}", origin)
    _refuse_reserved_options(user_card)
    files = loaded_files(parsed.target, parsed.kind)
    chosen = resolve_options(user_card.id, user_card.options, given)
    return ResolvedReward(
        card_for(user_card, chosen, origin), chosen, origin, factory_or_none, files=files
    )


def _refuse_redacted(parsed: RewardSpec, given: Mapping[str, Any]) -> None:
    """Refuses options whose secret was not stored; the token of a server may be in a variable.

    Raises:
        ConfigError: an option is needed again.
    """
    for name, value in given.items():
        in_variable = parsed.kind == "url" and name == "token" and os.environ.get(TOKEN_VARIABLE)
        if REDACTED in str(value) and not in_variable:
            raise ConfigError(
                f"reward {parsed.target!r}: the secret in its option {name!r} was not stored; "
                f"give the whole reward again with --reward, or {_secret_advice(parsed)}"
            )


def _secret_advice(parsed: RewardSpec) -> str:
    return f"set {TOKEN_VARIABLE}" if parsed.kind == "url" else "read it from a variable"


def _remote(url: str, token: str | None) -> tuple[RewardCard, Factory, str]:
    """The card, factory and origin of a served reward; its token enters no signature or cache."""
    from ddpo.rewards.serve.client import RemoteReward

    remote = RemoteReward(url, token)
    return remote.card, lambda: remote, remote.origin


def _compose(
    combination: Combination, terms: Sequence[RewardSpec], found: Sequence[ResolvedReward]
) -> ResolvedReward:
    """The combination, with its parts in canonical order, on which no score and no name depends."""
    names = _distinct_names(found)
    unordered = [
        _part(names[one.identity], term, one) for term, one in zip(terms, found, strict=True)
    ]
    parts = tuple(sorted(unordered, key=lambda part: (part.name, part.steps)))
    origin = " + ".join(sorted({part.origin for part in parts}))
    card = composed_card(combination, parts)
    return ResolvedReward(card, {}, origin, None, combination, parts)


def _distinct_names(found: Sequence[ResolvedReward]) -> dict[str, str]:
    """Identity → id, numbered if the same reward occurs with other options."""
    names: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for one in sorted({one.identity: one for one in found}.values(), key=lambda one: one.identity):
        seen[one.card.id] += 1
        names[one.identity] = (
            one.card.id if seen[one.card.id] == 1 else f"{one.card.id}-{seen[one.card.id]}"
        )
    return names


def _part(name: str, term: RewardSpec, found: ResolvedReward) -> ResolvedReward:
    """A resolved reward as a part of a combination, with its reference distribution loaded."""
    reference = None
    if term.reference is not None:
        reference = load_reference(named_path(term.reference))
        reference.check(found.card, found.options, found.origin, term.reference)
    return replace(found, name=name, weight=term.weight, reference=reference, bounds=term.bounds)


def resolve_card(spec: str) -> RewardCard:
    """The card of a reward, without making the reward; raises as `resolve`."""
    return resolve(spec).card


def make_reward(spec: str, **options: Any) -> Reward:
    """A reward, ready to be called; raises as `resolve` and `construct`."""
    return resolve(spec, **options).make()
