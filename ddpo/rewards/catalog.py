"""The table of built-in rewards: pure data, standard library only. Third parties declare the same cards through entry points."""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile
from ddpo.rewards.catalog_pixels import DDPO_PAPER, PIXEL_CARDS

__all__ = ["CARDS", "CLIP_L14", "LAION_V2_HEAD"]

CLIP_L14: Final = WeightFile(
    source="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    megabytes=1710.5,
    licence="MIT",
)
LAION_V2_HEAD: Final = WeightFile(
    source="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/fe88a163f4661b4ddabba0751ff645e2e620746e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    revision="fe88a163f4661b4ddabba0751ff645e2e620746e",
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    megabytes=3.7,
    licence="Apache-2.0",
)
LLAVA: Final = WeightFile(source="llava-hf/llava-1.5-7b-hf", revision="main", sha256=None, megabytes=14_100, licence="Llama 2 Community")
DEBERTA: Final = WeightFile(source="microsoft/deberta-xlarge-mnli", revision="main", sha256=None, megabytes=3_000, licence="MIT")

_CARDS: Final = (
    *PIXEL_CARDS,
    RewardCard(
        id="aesthetic",
        version="1",
        summary="LAION aesthetic predictor v2 on CLIP ViT-L/14: how people rated pictures that look like this",
        load="ddpo.rewards.models.aesthetic:Aesthetic",
        family="clip",
        flaws="ignores the prompt; drifts to painterly, centred, soft-lit portraits; one direction in CLIP space, so adversarial textures "
        "reach it; scores of other preprocessings differ by up to 0.1",
        unit="predicted mean rating, nominally 1 … 10",
        range=(-12.76, 23.23),
        typical=(4.0, 5.4, 6.5),
        typical_source="rough, from published curves of Stable Diffusion 1.x samples; not measured here",
        preprocessing="uint8, PIL bicubic to 224 on the shorter side, centre crop 224, CLIP mean and std",
        dtype="float32",
        device="any",
        libraries=("torch", "transformers", "pillow"),
        memory_mb=1400,
        weights=(LAION_V2_HEAD, CLIP_L14),
        paper="https://github.com/christophschuhmann/improved-aesthetic-predictor",
        backbone="openai/clip-vit-large-patch14, PIL bicubic 224",
        lineage=("openai/clip-vit-large-patch14", "SAC", "LOGOS", "AVA"),
        options=(
            RewardOption("head", None, "local copy of sac+logos+ava1-l14-linearMSE.pth; verified by its SHA-256"),
            RewardOption("clip", None, "local copy of the CLIP checkpoint's model.safetensors; verified by its SHA-256"),
            RewardOption("device", "cpu", "torch device of the CLIP tower"),
        ),
    ),
    RewardCard(
        id="alignment",
        version="1",
        summary="LLaVA describes the picture; BERTScore recall of the prompt in that description",
        load="ddpo.rewards.models.alignment:Alignment",
        family="vlm",
        flaws="counts and small text are misread; cartoon-like pictures are described more readily; a picture that spells "
        "the prompt scores",
        unit="BERTScore recall, not rescaled",
        range=(-1.0, 1.0),
        typical=(0.5, 0.65, 0.9),
        typical_source="rough, from the literature; not measured here",
        inputs=("image", "prompt"),
        preprocessing="JPEG quality 80; 'Answer concisely: what is going on in this image?', greedy, 64 tokens; "
        "'The image contains {prompt}'",
        dtype="float16 on a GPU, float32 on a CPU",
        device="any",
        libraries=("torch", "transformers", "pillow"),
        memory_mb=17_500,
        weights=(LLAVA, DEBERTA),
        paper=DDPO_PAPER,
        lineage=("llava-1.5-7b", "openai/clip-vit-large-patch14-336", "deberta-xlarge-mnli"),
        options=(
            RewardOption("vlm", LLAVA.source, "folder or hub id of the vision-language model"),
            RewardOption("scorer", DEBERTA.source, "folder or hub id of the BERTScore encoder"),
            RewardOption("layer", 40, "encoder layer of which the hidden states are compared"),
            RewardOption("device", "cpu", "torch device of both models"),
        ),
    ),
)

CARDS: Final[dict[str, RewardCard]] = {card.id: card for card in _CARDS}
