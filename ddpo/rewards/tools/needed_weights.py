"""The weights that a reward with its options lacks on this machine; nothing heavy is imported."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ddpo.errors import MissingResourceError
from ddpo.io.json_files import JsonError, parse_json
from ddpo.rewards.card import PLACEMENT, RewardCard, WeightFile
from ddpo.rewards.tools.availability import repository_folder, weight_state

__all__ = ["REPLACING", "incomplete_weights", "missing_weights", "missing_weights_error"]

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

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SMALL_MB: Final = 20  # of a repository of which only settings or a tokenizer are read
INDEX: Final = ".index.json"
ADDRESSES: Final = ("http://", "https://")
WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx")


def missing_weights(card: RewardCard, options: Mapping[str, Any], origin: str) -> list[WeightFile]:
    """The weights that a single reward needs, and that are not on this machine.

    A repository that is partly here counts as missing unless it holds whole files of weights.

    Args:
        card: Card for the options.
        options: All options of the reward.
        origin: "ddpo", or distribution and version of the reward's package.
    """
    return [weight for weight in _needed(card, options, origin) if _is_missing(weight)]


def incomplete_weights(
    card: RewardCard, options: Mapping[str, Any], origin: str
) -> list[WeightFile]:
    """The repositories that a single reward needs, and of which only a part is here.

    Arguments as of `missing_weights`.
    """
    return [
        weight
        for weight in _needed(card, options, origin)
        if weight_state(weight).path is None and repository_folder(weight) is not None
    ]


def missing_weights_error(
    card: RewardCard, missing: list[WeightFile], options: Mapping[str, Any]
) -> MissingResourceError:
    """The error for weights that are not here, with the one command that fetches them.

    Args:
        card: Card of the reward for its options.
        missing: Its missing weights; those that an option names are not on the card.
        options: All options of the reward.
    """
    sources = list(dict.fromkeys(weight.source for weight in missing))
    remedy = f"ddpo rewards download {_specification(card, options)}"
    if any(weight not in card.weights for weight in missing):
        remedy = " && ".join(f"hf download {source}" for source in sources)
    return MissingResourceError(
        f"reward {card.id!r}: its weights are not here ({' and '.join(sources)}), and fetching is "
        f"off (DDPO_OFFLINE or HF_HUB_OFFLINE); with a network, run `{remedy}`"
    )


def _specification(card: RewardCard, options: Mapping[str, Any]) -> str:
    """The reward for a command line, with the options on which the weights of its card depend."""
    chosen = [
        f"{option.name}={options[option.name]}"
        for option in card.options
        if option.name not in PLACEMENT
        and options.get(option.name, option.default) != option.default
    ]
    if card.for_options is None or not chosen:
        return card.id
    return shlex.quote(f"{card.id}:{','.join(chosen)}")


def _needed(card: RewardCard, options: Mapping[str, Any], origin: str) -> Iterator[WeightFile]:
    """The weights of the card, or those that an option names in their place."""
    changed = {
        option.name: options[option.name]
        for option in card.options
        if options.get(option.name, option.default) != option.default
    }
    named = [value for value in changed.values() if isinstance(value, str)]
    if any(value.startswith(ADDRESSES) for value in named) or (named and origin != "ddpo"):
        return  # a server needs none; the meaning of a package's options is not known
    table = REPLACING.get(card.id, {})
    replaced = {table[name] for name in changed if name in table}
    by_source = {option.default: option.name for option in card.options}
    for place, weight in enumerate(card.weights):
        option = by_source.get(weight.source, "")
        if option not in changed and place not in replaced:
            yield weight
        elif option in changed and _is_hub_id(changed[option]):
            yield replace(weight, source=changed[option], revision="main", sha256=None)


def _is_hub_id(value: Any) -> bool:
    """True for "owner/name" without a folder of that name."""
    return (
        isinstance(value, str) and HUB_ID.fullmatch(value) is not None and not os.path.exists(value)
    )


def _is_missing(weight: WeightFile) -> bool:
    if weight_state(weight).path is not None:
        return False
    folder = repository_folder(weight)
    if folder is not None and weight.megabytes < SMALL_MB:
        return False
    return folder is None or not _has_weights(folder)


def _has_weights(folder: Path) -> bool:
    """True if a snapshot holds a whole file of weights, or all shards that its indices name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    indices = [path for path in files if path.name.endswith(INDEX)]
    shards = {index.parent / name for index in indices for name in _shards(index)}
    if any(path.suffix in WEIGHTS and path not in shards for path in files):
        return True
    return bool(shards) and all(map(os.path.isfile, shards))


def _shards(index: Path) -> set[str]:
    """The names of the files in an index of shards; none of a damaged one."""
    try:
        found = parse_json(index.read_bytes())
    except (JsonError, OSError):
        return set()
    names = found.get("weight_map") if isinstance(found, dict) else None
    return {str(name) for name in names.values()} if isinstance(names, dict) else set()
