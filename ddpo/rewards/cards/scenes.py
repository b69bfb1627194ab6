"""The cards of the readers of scenes, which check a prompt's statements in the embedded world."""

from __future__ import annotations

from typing import Final

from ddpo.errors import MissingResourceError
from ddpo.rewards.card import RewardCard, RewardOption, WeightFile
from ddpo.rewards.cards.embedded import WORLD, judge_weight

__all__ = ["READERS_OF_SCENES", "SCENE_CARDS"]

GENEVAL: Final = "https://arxiv.org/abs/2310.11513"
STATEMENTS: Final = (
    "share of the prompt's statements that hold in the scene read from the image: "
    "each thing in its number, each colour, the position, the activity, the background, "
    "and nothing else"
)
UNIT: Final = (
    "share of statements; a wrong number counts 1 − |found − stated| / stated; "
    "with strict 1 if all apply, else 0"
)
LIMITS: Final = f"{WORLD}; a prompt outside that world has no score"
STRICT: Final = RewardOption(
    "strict", False, "1 for an image of which every statement holds, 0 for any other"
)
DEVICE: Final = RewardOption("device", "cpu", "torch device of the reader")


def _weights(judge: str) -> tuple[WeightFile, ...]:
    """The weights of a judge; none in a damaged installation, which the reward reports."""
    try:
        return (judge_weight(judge, "model.safetensors"),)
    except (MissingResourceError, KeyError):
        return ()


_CARDS: Final = (
    RewardCard(
        id="emoji_geneval",
        version="1",
        summary=f"GenEval on the embedded world by its captioner: {STATEMENTS}",
        load="ddpo.rewards.models.emoji_geneval:EmojiGeneval",
        family="vlm",
        flaws=f"{LIMITS}; the captioner names one scene, so a second thing or a fifth copy "
        "can go unnoticed",
        unit=UNIT,
        range=(0.0, 1.0),
        typical=(0.0, 1.0, 1.0),
        typical_source="238 images of emoji-scenes, pretraining/hand_labels.csv",
        inputs=("image", "prompt"),
        preprocessing="JPEG quality 80; PIL bicubic to 72; "
        "'Answer concisely: what is going on in this image?', greedy, 64 tokens; "
        "the answer is parsed as a scene",
        dtype="float32",
        accelerator_dtype="float16",
        device="any",
        libraries=("torch", "transformers", "tokenizers", "pillow", "libjpeg"),
        memory_mb=60,
        weights=_weights("captioner"),
        paper=GENEVAL,
        lineage=("emoji/captioner",),
        options=(STRICT, DEVICE),
    ),
    RewardCard(
        id="emoji_detector",
        version="1",
        summary=f"GenEval on the embedded world by its convolutional detector: {STATEMENTS}",
        load="ddpo.rewards.models.emoji_geneval:EmojiDetector",
        family="detector",
        flaws=f"{LIMITS}; sees shapes on a grid of 8×8 cells, so overlapping figures merge",
        unit=UNIT,
        range=(0.0, 1.0),
        typical=(0.0, 1.0, 1.0),
        typical_source="238 images of emoji-scenes, pretraining/hand_labels.csv",
        inputs=("image", "prompt"),
        preprocessing="uint8, PIL bicubic to 64×64; figures are peaks of presence above 0.4",
        dtype="float32",
        device="any",
        libraries=("torch", "pillow"),
        memory_mb=20,
        weights=_weights("scene_detector"),
        paper=GENEVAL,
        lineage=("emoji/scene_detector",),
        options=(STRICT, DEVICE),
    ),
)

SCENE_CARDS: Final = {card.id: card for card in _CARDS}
READERS_OF_SCENES: Final = tuple(SCENE_CARDS)
