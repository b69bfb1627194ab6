"""The cards of the built-in rewards: pure data, standard library only.

Third parties declare the same cards through entry points.
"""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile
from ddpo.rewards.cards.clip import CLIP_CARDS, CLIP_L14, LAION_V2_HEAD
from ddpo.rewards.cards.diversity import DIVERSITY_CARDS
from ddpo.rewards.cards.embedded import FOR_OPTIONS, embedded_option
from ddpo.rewards.cards.guard import GUARD_CARDS
from ddpo.rewards.cards.open_clip import OPEN_CLIP
from ddpo.rewards.cards.pixels import DDPO_PAPER, PIXEL_CARDS
from ddpo.rewards.cards.preference import PREFERENCE_CARDS
from ddpo.rewards.cards.scenes import SCENE_CARDS
from ddpo.rewards.cards.vlm import LLAVA, VLM_CARDS

__all__ = ["CARDS", "CLIP_L14", "LAION_V2_HEAD"]

DEBERTA: Final = WeightFile(
    source="microsoft/deberta-xlarge-mnli",
    revision="main",
    sha256=None,
    megabytes=3_000,
    licence="MIT",
)

_CARDS: Final = (
    *PIXEL_CARDS,
    *PREFERENCE_CARDS,
    *CLIP_CARDS,
    OPEN_CLIP,
    RewardCard(
        id="alignment",
        version="3",
        summary="BERTScore recall of the prompt in LLaVA's description of the image; "
        "LLaVA runs locally or on a server",
        load="ddpo.rewards.models.alignment:Alignment",
        for_options=FOR_OPTIONS,
        family="vlm",
        flaws="counts and small text are misread; cartoon-like images are described more readily; "
        "an image that spells the prompt scores high; a server may round differently from day to "
        "day; the authors ran LLaVA v0 13B, so the default model does not reproduce their numbers",
        unit="BERTScore recall, not rescaled",
        range=(-1.0, 1.0),
        typical=(0.5, 0.65, 0.9),
        typical_source="rough, from the literature; not measured here",
        inputs=("image", "prompt"),
        preprocessing="JPEG quality 80; images resized by Pillow; "
        "'Answer concisely: what is going on in this image?', greedy, 64 tokens; "
        "'The image contains {prompt}'; BERTScore by the package bert-score, encoder in float32",
        dtype="float16 on a GPU, float32 on a CPU",
        accelerator_dtype="float16",
        device="any",
        libraries=("torch", "transformers", "tokenizers", "bert-score", "pillow", "libjpeg"),
        memory_mb=17_500,
        weights=(LLAVA, DEBERTA),
        paper=DDPO_PAPER,
        lineage=("llava-1.5-7b", "openai/clip-vit-large-patch14-336", "deberta-xlarge-mnli"),
        options=(
            RewardOption(
                "vlm",
                LLAVA.source,
                "folder or hub id of the vision-language model, "
                "or the address of a server: http://HOST:PORT/v1",
            ),
            RewardOption("scorer", DEBERTA.source, "folder or hub id of the BERTScore encoder"),
            RewardOption("layer", 40, "encoder layer whose hidden states are compared"),
            RewardOption("device", "cpu", "torch device of the local models"),
            embedded_option(
                "with a server, the name of its model; by default the first that it lists, "
                "and scores are then not cached"
            ),
            RewardOption("timeout", 120.0, "time limit of an answer by a server, seconds"),
        ),
    ),
    *VLM_CARDS,
    *GUARD_CARDS,
    *DIVERSITY_CARDS.values(),
    *SCENE_CARDS.values(),
)

CARDS: Final[dict[str, RewardCard]] = {card.id: card for card in _CARDS}
