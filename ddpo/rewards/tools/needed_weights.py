"""The weights that rewards with their options need or lack; nothing heavy is imported."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import MissingResourceError
from ddpo.rewards.card import PLACEMENT, RewardCard, WeightFile
from ddpo.rewards.cards.embedded import FOR_OPTIONS
from ddpo.rewards.spec import redacted
from ddpo.rewards.tools.availability import repository_folder, weight_state
from ddpo.rewards.tools.repository_parts import has_weights, holds
from ddpo.weights import offline

if TYPE_CHECKING:
    from ddpo.rewards.scoring.resolve import ResolvedReward

__all__ = ["REPLACING", "check_weights", "missing_weights", "needed_weights"]

REPLACING: Final[Mapping[str, Mapping[str, int | None]]] = {
    "aesthetic": {"head": 0, "clip": 1, "model": None},
    "aesthetic_v1": {"head": 0, "clip": 1},
    "alignment": {"model": None},
    "clip_score": {"model": None},
    "diversity_lpips": {"alexnet": 0, "linear": 1},
    "hpsv2": {"checkpoint": 0},
    "hpsv3": {"checkpoint": 0, "base": 1},
    "imagereward": {"checkpoint": 0, "config": None, "vocabulary": 1},
    "ocr": {"detector": 0, "recogniser": 1},
    "open_clip": {"model": None, "pretrained": None, "score": None, "head": None},
    "vendi": {"features": 0},
    "vlm_judge": {"model": None},
    "vqa_score": {"model": None},
    "vqa_strict": {"model": None},
}
"""Options of built-in rewards that name other weights: the place of the weights they replace.

None: the option replaces no weight file of the card as a whole.
"""

FILES: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("hpsv2", "release"): {"v2.0": "xswu/HPSv2/HPS_v2_compressed.pt"},
}
"""Reward and option → value → the one file that the value reads instead of the card's."""

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SMALL_MB: Final = 20  # of a repository of which only settings or a tokenizer are read


def check_weights(rewards: Iterable[ResolvedReward]) -> None:
    """Refuses rewards whose weights are not on this machine, where nothing may be fetched.

    Raises:
        MissingResourceError: Weights are missing; the message names the command that fetches them.
    """
    from ddpo.rewards.scoring.resolve import single_rewards

    if not offline():
        return
    for reward in (one for each in rewards for one in single_rewards(each)):
        if reward.user_code:
            continue
        card = reward.card
        if missing := missing_weights(card, reward.options, reward.origin):
            sources = " and ".join(dict.fromkeys(weight.source for weight in missing))
            raise MissingResourceError(
                f"reward {card.id!r}: its weights are not here ({sources}), and fetching is off "
                "(DDPO_OFFLINE or HF_HUB_OFFLINE); with a network, run "
                f"`ddpo rewards download {_specification(card, reward.options)}`"
            )


def missing_weights(card: RewardCard, options: Mapping[str, Any], origin: str) -> list[WeightFile]:
    """The weights that a single reward needs, and that are not on this machine.

    A repository that is partly here counts as missing unless it holds all that the reward reads.

    Args:
        card: Card for the options.
        options: All options of the reward.
        origin: "ddpo", or distribution and version of the reward's package.
    """
    needed = _with_places(card, options, origin)
    return [weight for weight, replaced in needed if _is_missing(weight, replaced)]


def needed_weights(card: RewardCard, options: Mapping[str, Any], origin: str) -> list[WeightFile]:
    """The weights of a single reward, or those that an option names in their place.

    Arguments as of `missing_weights`.
    """
    return [weight for weight, _ in _with_places(card, options, origin)]


def _is_missing(weight: WeightFile, replaced: WeightFile) -> bool:
    """True unless all that the reward reads is here.

    Args:
        weight: Needed weights.
        replaced: Weights on the card in whose place they are read.
    """
    folder = repository_folder(weight)
    if folder is None or weight_state(weight).path is not None:
        return weight_state(weight).path is None
    whole = holds(folder, replaced.source)
    if whole is None:  # of a plug-in package
        whole = weight.megabytes < SMALL_MB or has_weights(folder)
    return not whole


def _specification(card: RewardCard, options: Mapping[str, Any]) -> str:
    """The reward for a command line, with the options on which its weights depend."""
    chosen = {
        option.name: options[option.name]
        for option in card.options
        if option.name not in PLACEMENT
        and options.get(option.name, option.default) != option.default
    }
    towers = any(option.name == "tower" for option in card.options)
    if card.for_options is None or (card.for_options == FOR_OPTIONS and not towers):
        chosen = {
            name: value for name, value in chosen.items() if _names_weights(card, name, value)
        }
    if not chosen:
        return card.id
    written = ",".join(f"{name}={value}" for name, value in chosen.items())
    return shlex.quote(redacted(f"{card.id}:{written}"))


def _names_weights(card: RewardCard, option: str, value: Any) -> bool:
    """True if a value of an option chooses weights."""
    sources = {weight.source for weight in card.weights}
    return (
        option in REPLACING.get(card.id, {})
        or (card.id, option) in FILES
        or any(one.name == option and one.default in sources for one in card.options)
    )


def _with_places(
    card: RewardCard, options: Mapping[str, Any], origin: str
) -> Iterator[tuple[WeightFile, WeightFile]]:
    """The weights that are read, each with those on the card in whose place it is read."""
    changed = {
        option.name: options[option.name]
        for option in card.options
        if options.get(option.name, option.default) != option.default
    }
    named = [value for value in changed.values() if isinstance(value, str)]
    if named and origin != "ddpo":
        return  # the meaning of a package's options is not known
    table = REPLACING.get(card.id, {})
    replaced = {table[name] for name in changed if name in table}
    by_source = {option.default: option.name for option in card.options}
    files = {name: FILES.get((card.id, name), {}).get(value) for name, value in changed.items()}
    file = next(filter(None, files.values()), None)
    for place, weight in enumerate(card.weights):
        option = by_source.get(weight.source, "")
        if option not in changed and place not in replaced:
            yield (weight if file is None else replace(weight, source=file)), weight
        elif option in changed and _is_hub_id(changed[option]):
            yield replace(weight, source=changed[option], revision="main", sha256=None), weight


def _is_hub_id(value: Any) -> bool:
    """True for "owner/name" without a folder of that name."""
    return (
        isinstance(value, str) and HUB_ID.fullmatch(value) is not None and not os.path.exists(value)
    )
