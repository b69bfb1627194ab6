"""The cards of the CLIP rewards: pure data, standard library only."""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile
from ddpo.rewards.cards.embedded import FOR_OPTIONS, TOWERS, embedded_option

__all__ = [
    "CLIP_B32",
    "CLIP_CARDS",
    "CLIP_H14",
    "CLIP_L14",
    "DTYPE",
    "LAION_V1_HEAD",
    "LAION_V2_HEAD",
    "PICKSCORE_V1",
]

CLIP_L14: Final = WeightFile(
    source="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    megabytes=1710.5,
    licence="MIT",
)
CLIP_B32: Final = WeightFile(
    source="openai/clip-vit-base-patch32",
    revision="main",
    sha256=None,
    megabytes=605,
    licence="MIT",
)
CLIP_H14: Final = WeightFile(
    source="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    revision="main",
    sha256=None,
    megabytes=4,
    licence="MIT",
)
"""Only the tokenizer is read; the size is roughly that of its files."""
PICKSCORE_V1: Final = WeightFile(
    source="yuvalkirstain/PickScore_v1",
    revision="main",
    sha256=None,
    megabytes=3_950,
    licence="code MIT, weights not stated",
)
LAION_V2_HEAD: Final = WeightFile(
    source="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/"
    "fe88a163f4661b4ddabba0751ff645e2e620746e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    revision="fe88a163f4661b4ddabba0751ff645e2e620746e",
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    megabytes=3.7,
    licence="Apache-2.0",
)
LAION_V1_HEAD: Final = WeightFile(
    source="https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
    revision="main",
    sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
    megabytes=0.004,
    licence="MIT",
)

DTYPE: Final = RewardOption(
    "dtype",
    "float32",
    "precision of the encoders: float32, or bfloat16, which is faster but keeps 8 bits, "
    "so that close scores swap",
)
CLIP_PIXELS: Final = (
    "uint8, PIL bicubic to 224 on the shorter side, centre crop 224, CLIP mean and std"
)
L14_BACKBONE: Final = "openai/clip-vit-large-patch14, PIL bicubic 224"
L14_OPTIONS: Final = (
    RewardOption(
        "clip",
        None,
        "local copy of the CLIP checkpoint's model.safetensors; verified by its SHA-256; "
        "with tower=open_clip a checkpoint of OpenCLIP's ViT-L-14, which is not verified",
    ),
    RewardOption(
        "tower",
        "transformers",
        "package that runs the encoder: transformers, or open_clip, which shares it with the "
        "reward open_clip:model=ViT-L-14,pretrained=openai",
    ),
    RewardOption("device", "cpu", "torch device of the CLIP encoder"),
    DTYPE,
)

CLIP_CARDS: Final = (
    RewardCard(
        id="aesthetic",
        version="1",
        summary="LAION aesthetic predictor v2 on CLIP ViT-L/14: "
        "how people rated images that look like this",
        load="ddpo.rewards.models.aesthetic:Aesthetic",
        for_options=FOR_OPTIONS,
        family="clip",
        flaws="ignores the prompt; drifts to painterly, centred, soft-lit portraits; "
        "one direction in CLIP space, so adversarial textures reach it; "
        "other preprocessing moves scores by up to 0.1",
        unit="predicted mean rating, nominally 1 … 10",
        range=(-12.76, 23.23),
        typical=(4.0, 5.4, 6.5),
        typical_source="rough, from published curves of Stable Diffusion 1.x samples; "
        "not measured here",
        preprocessing=CLIP_PIXELS,
        dtype="float32",
        device="any",
        libraries=("torch", "transformers", "pillow"),
        memory_mb=1400,
        weights=(LAION_V2_HEAD, CLIP_L14),
        paper="https://github.com/christophschuhmann/improved-aesthetic-predictor",
        backbone=L14_BACKBONE,
        lineage=("openai/clip-vit-large-patch14", "SAC", "LOGOS", "AVA"),
        options=(
            RewardOption(
                "head",
                None,
                "local copy of sac+logos+ava1-l14-linearMSE.pth; verified by its SHA-256",
            ),
            *L14_OPTIONS,
            embedded_option(),
        ),
    ),
    RewardCard(
        id="aesthetic_v1",
        version="1",
        summary="LAION aesthetic predictor v1 on CLIP ViT-L/14: "
        "a cheap second opinion on `aesthetic`",
        load="ddpo.rewards.models.aesthetic:AestheticV1",
        for_options=TOWERS,
        family="clip",
        flaws="ignores the prompt; one direction in CLIP space, so adversarial textures reach it; "
        "shares its encoder with `aesthetic` and is not independent of it, "
        "though the two directions have a cosine of only 0.37",
        unit="predicted mean rating, nominally 1 … 10",
        range=(-24.92, 31.98),
        typical=(4.0, 5.5, 7.0),
        typical_source="rough, a guess from its nominal scale; not measured here",
        preprocessing=CLIP_PIXELS,
        dtype="float32",
        device="any",
        libraries=("torch", "transformers", "pillow"),
        memory_mb=1400,
        weights=(LAION_V1_HEAD, CLIP_L14),
        paper="https://github.com/LAION-AI/aesthetic-predictor",
        backbone=L14_BACKBONE,
        lineage=("openai/clip-vit-large-patch14",),
        options=(
            RewardOption(
                "head", None, "local copy of sa_0_4_vit_l_14_linear.pth; verified by its SHA-256"
            ),
            *L14_OPTIONS,
        ),
    ),
    RewardCard(
        id="clip_score",
        version="2",
        summary="CLIPScore: cosine of the image and 'A photo depicts PROMPT' in CLIP ViT-B/32, "
        "times 2.5, at least 0",
        load="ddpo.rewards.models.clip_score:ClipScore",
        for_options=FOR_OPTIONS,
        family="clip",
        flaws="blind to counts, word order and who does what to whom; "
        "an image that spells the prompt scores high; "
        "long prompts are truncated to 77 tokens and judged by their beginning; "
        "other packages give the same name to 100·cos on ViT-L/14 without the prefix",
        unit="2.5·max(cosine, 0)",
        range=(0.0, 2.5),
        typical=(0.6, 0.75, 0.9),
        typical_source="rough, from the literature; not measured here",
        inputs=("image", "prompt"),
        preprocessing=f"{CLIP_PIXELS}; 'A photo depicts {{prompt}}', "
        "cut to 77 tokens with the end token kept; text cleaned as by OpenAI's tokenizer: "
        "mis-decoded letters, typographic quotes, full-width letters and HTML entities "
        "become plain",
        dtype="float32",
        device="any",
        libraries=("torch", "transformers", "tokenizers", "ftfy", "pillow"),
        memory_mb=700,
        weights=(CLIP_B32,),
        paper="https://arxiv.org/abs/2104.08718",
        backbone="openai/clip-vit-base-patch32, PIL bicubic 224",
        lineage=("openai/clip-vit-base-patch32",),
        options=(
            RewardOption(
                "clip", CLIP_B32.source, "folder or hub id of the CLIP model and its tokenizer"
            ),
            RewardOption("device", "cpu", "torch device of both encoders"),
            DTYPE,
            embedded_option(),
        ),
    ),
    RewardCard(
        id="pickscore",
        version="1",
        summary="PickScore v1: CLIP ViT-H/14 fine-tuned on which of two images people picked for "
        "a prompt; logit scale as published",
        load="ddpo.rewards.models.pickscore:PickScore",
        family="clip",
        flaws="favours glossy, saturated, detailed images; weak on counts and relations; "
        "long prompts are truncated to 77 tokens and judged by their beginning; "
        "other packages divide by 26 or leave the logit scale out",
        unit="logit scale · cosine; a difference is the log-odds of being picked",
        typical=(17.0, 20.5, 24.0),
        typical_source="rough, from the literature; not measured here",
        inputs=("image", "prompt"),
        preprocessing=f"{CLIP_PIXELS}, crop offset rounded down; "
        "prompt cut to 77 tokens with the end token kept",
        dtype="float32",
        device="any",
        libraries=("torch", "transformers", "tokenizers", "pillow"),
        memory_mb=4_000,
        weights=(PICKSCORE_V1, CLIP_H14),
        paper="https://arxiv.org/abs/2305.01569",
        backbone="yuvalkirstain/PickScore_v1, PIL bicubic 224",
        lineage=("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "Pick-a-Pic"),
        options=(
            RewardOption(
                "clip", PICKSCORE_V1.source, "folder or hub id of the fine-tuned CLIP model"
            ),
            RewardOption("processor", CLIP_H14.source, "folder or hub id of the tokenizer"),
            RewardOption("device", "cpu", "torch device of both encoders"),
            DTYPE,
        ),
    ),
)
