"""The embedded variants of rewards: small judges in the package, chosen by `model=emoji`.

Each has the on-disk format of its big sister, whose code loads it. `pretraining/` trained them on
renderings of the world that the embedded diffusion model draws, and never on samples of a model.
Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.io.fields import COUNT, DIGEST, FILE_NAME, Fields, MapOf
from ddpo.io.json_files import read_json
from ddpo.registry import load_attribute
from ddpo.rewards.card import RewardCard, RewardOption, WeightFile
from ddpo.rewards.spec import EMBEDDED_OPTION

__all__ = [
    "EMBEDDED",
    "EMBEDDED_REWARDS",
    "FOR_OPTIONS",
    "JUDGES",
    "LAYER",
    "TOWERS",
    "card_for_options",
    "embedded_card",
    "embedded_name",
    "embedded_option",
    "is_embedded",
    "judge_files",
    "judge_weight",
    "with_variant",
]

EMBEDDED: Final = EMBEDDED_OPTION[1]
"""Value of the option `model`; also the name of the embedded diffusion model."""
JUDGES: Final = Path(__file__).parents[1] / "judges"
LAYER: Final = 3
"""Layer of the sentence encoder at which `pretraining` trained BERTScore."""
FOR_OPTIONS: Final = "ddpo.rewards.cards.embedded:card_for_options"
TOWERS: Final = "ddpo.rewards.models.aesthetic:card_for_tower"
"""The card of an aesthetic predictor for other packages that run its encoder; imports torch."""
CHOSEN: Final = ("model", "device", "dtype", "timeout")
"""Options that go with model=emoji; all others name weights of the big variant."""
SOURCE: Final = "package:ddpo/rewards/judges"
LICENCE: Final = "Apache-2.0"
SERVERS: Final = ("http://", "https://")
MANIFEST: Final[Fields] = {"files": MapOf({"sha256": DIGEST, "bytes": COUNT}, FILE_NAME)}
WORLD: Final = (
    "knows only the world of the embedded diffusion model: its nouns, three activities, counts of "
    "one to four, places and colours; any other image is read as one of that world"
)

_CHANGES: Final[Mapping[str, Mapping[str, Any]]] = {
    "alignment": {
        "summary": "BERTScore recall of the prompt in the embedded captioner's description of the "
        "image",
        "flaws": WORLD,
        "preprocessing": "JPEG quality 80; PIL bicubic to 72; "
        "'Answer concisely: what is going on in this image?', greedy, 64 tokens; "
        "'The image contains {prompt}'; BERTScore by the package bert-score, encoder in float32",
        "memory_mb": 60,
        "lineage": ("emoji/captioner", "emoji/sentence_encoder"),
    },
    "clip_score": {
        "summary": "CLIPScore in the embedded CLIP: cosine of the image and 'A photo depicts "
        "PROMPT', times 2.5, at least 0",
        "flaws": f"{WORLD}; long prompts are truncated to 32 tokens and judged by their beginning",
        "preprocessing": "uint8, PIL bicubic to 224 on the shorter side, centre crop 224, CLIP "
        "mean and std; 'A photo depicts {prompt}', cut to 32 tokens with the end token kept; "
        "text cleaned as by OpenAI's tokenizer",
        "memory_mb": 40,
        "backbone": "emoji/dual_encoder, PIL bicubic 224",
        "lineage": ("emoji/dual_encoder",),
    },
    "aesthetic": {
        "summary": "embedded aesthetic head on the embedded CLIP: renderings that are sharp, "
        "clean, whole, centred and of full contrast rate 8, degraded ones down to 2",
        "flaws": f"{WORLD}; ignores the prompt; one direction in CLIP space, so adversarial "
        "textures reach it; the preference is the trainer's, not people's",
        "unit": "rating by a stated preference, nominally 2 … 8",
        "range": (None, None),
        "memory_mb": 40,
        "paper": "",
        "backbone": "emoji/dual_encoder, PIL bicubic 224",
        "lineage": ("emoji/dual_encoder", "emoji/aesthetic_head"),
    },
}
"""Reward → fields of its card that differ for the embedded variant."""
_PARTS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "alignment": (
        ("captioner", "model.safetensors"),
        ("sentence_encoder", "model.safetensors"),
    ),
    "clip_score": (("dual_encoder", "model.safetensors"),),
    "aesthetic": (
        ("aesthetic_head", "head.safetensors"),
        ("dual_encoder", "model.safetensors"),
    ),
}
"""Reward → its judges, with the file of weights of each."""

EMBEDDED_REWARDS: Final = tuple(_PARTS)
"""Ids of the rewards that have an embedded variant."""


def embedded_option(otherwise: str = "") -> RewardOption:
    """The option `model` of a reward with an embedded variant.

    Args:
        otherwise: further meaning of other values, in words.
    """
    text = f"{EMBEDDED}: the small embedded variant, without a download or a network"
    return RewardOption("model", None, f"{text}; {otherwise}" if otherwise else text)


def embedded_name(reward: str) -> str:
    """The expression of a reward's embedded variant, such as "clip_score:model=emoji".

    A reward without another variant, such as "emoji_detector", has its own name.
    """
    return f"{reward}:model={EMBEDDED}" if reward in EMBEDDED_REWARDS else reward


def is_embedded(card: RewardCard) -> bool:
    """True for the card of an embedded variant."""
    return bool(card.weights) and all(one.source.startswith(SOURCE) for one in card.weights)


def embedded_card(card: RewardCard) -> RewardCard:
    """The card of the embedded variant of a reward of `EMBEDDED_REWARDS`.

    Raises:
        MissingResourceError: The installation lacks the judges.
    """
    return replace(
        card,
        typical=None,
        typical_source="",
        weights=tuple(judge_weight(judge, name) for judge, name in _PARTS[card.id]),
        **_CHANGES[card.id],
    )


def with_variant(card: RewardCard, origin: str) -> dict[str, RewardCard]:
    """A reward's card and that of its embedded variant, by the expression that chooses each."""
    if origin == "ddpo" and card.id in EMBEDDED_REWARDS:
        with suppress(MissingResourceError):  # a damaged installation, which the variant reports
            return {card.id: card, embedded_name(card.id): embedded_card(card)}
    return {card.id: card}


def card_for_options(card: RewardCard, options: Mapping[str, Any]) -> RewardCard:
    """The card of the variant that the options of a reward choose.

    Raises:
        ConfigError: The option `model` has another value, or goes with weights of the big variant.
        MissingResourceError: The installation lacks the judges, or a file is not there.
    """
    model = options.get("model")
    if model is None or str(options.get("vlm", "")).lower().startswith(SERVERS):
        if options.get("tower", "transformers") == "transformers":
            return card
        found: RewardCard = load_attribute(TOWERS)(card, options)
        return found
    if model != EMBEDDED:
        served = "; other names are of models on a server, vlm=http://…" * ("vlm" in options)
        raise ConfigError(f"reward {card.id!r}: model is {model!r}, not {EMBEDDED}{served}")
    defaults = {option.name: option.default for option in card.options}
    for name, value in options.items():
        if name not in CHOSEN and value != defaults[name]:
            raise ConfigError(
                f"reward {card.id!r}: model={EMBEDDED} has weights of its own; leave out {name}"
            )
    return embedded_card(card)


def judge_weight(judge: str, name: str) -> WeightFile:
    """A judge's file of weights, whose revision stands for all files of the judge.

    Raises:
        MissingResourceError: The installation lacks the judge.
    """
    files = judge_files(judge)
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return WeightFile(
        source=f"{SOURCE}/{judge}/{name}",
        revision=digest[:12],
        sha256=files[name]["sha256"],
        megabytes=round(sum(facts["bytes"] for facts in files.values()) / 1e6, 3),
        licence=LICENCE,
    )


def judge_files(judge: str) -> dict[str, dict[str, Any]]:
    """Name of each file of a judge → its "sha256" and "bytes", by the manifest.

    Raises:
        MissingResourceError: The installation lacks the judges.
    """
    start = f"{judge}/"
    return {
        name.removeprefix(start): facts
        for name, facts in _manifest().items()
        if name.startswith(start)
    }


@cache
def _manifest() -> Mapping[str, dict[str, Any]]:
    files: dict[str, dict[str, Any]] = read_json(
        JUDGES / "manifest.json", MANIFEST, MissingResourceError
    )["files"]
    return files
