"""The card of `open_clip`: any model of OpenCLIP as a reward. Pure data, standard library only."""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile
from ddpo.rewards.cards.clip import DTYPE

__all__ = ["LAION_B32", "OPEN_CLIP", "OPEN_CLIP_CHECKPOINT"]

OPEN_CLIP_CHECKPOINT: Final = "open_clip_model.safetensors|open_clip_pytorch_model.bin"
"""File names of a checkpoint in an OpenCLIP repository, in OpenCLIP's order of preference."""
LAION_B32: Final = WeightFile(
    source=f"laion/CLIP-ViT-B-32-laion2B-s34B-b79K/{OPEN_CLIP_CHECKPOINT}",
    revision="main",
    sha256=None,
    megabytes=605,
    licence="MIT",
)
"""The size is that of 151 M parameters of 4 bytes. The hash is not known here."""

OPEN_CLIP: Final = RewardCard(
    id="open_clip",
    version="1",
    summary="cosine, or the model's own logit, of image and prompt in any model of OpenCLIP",
    load="ddpo.rewards.models.open_clip:OpenClip",
    for_options="ddpo.rewards.models.open_clip_source:card_for_options",
    family="clip",
    flaws="blind to counts, word order and who does what to whom; an image that spells the prompt "
    "scores high; the end of a long prompt is not read; scores are not comparable between models, "
    "or between two sets of weights of one model",
    unit="cosine",
    range=(-1.0, 1.0),
    typical=(0.15, 0.30, 0.38),
    typical_source="a rough guess for ViT-B-32; not measured here",
    inputs=("image", "prompt"),
    preprocessing="uint8, OpenCLIP's own transform: PIL bicubic to 224 on the shorter side, centre "
    "crop 224, CLIP mean and std; prompt cut to 77 tokens with the end token kept",
    dtype="float32",
    device="any",
    libraries=("torch", "open_clip_torch", "torchvision", "timm", "ftfy", "regex", "pillow"),
    memory_mb=700,
    weights=(LAION_B32,),
    paper="https://arxiv.org/abs/2212.07143",
    backbone="open_clip ViT-B-32 laion2b_s34b_b79k",
    lineage=("laion/CLIP-ViT-B-32-laion2B-s34B-b79K",),
    options=(
        RewardOption(
            "model",
            "ViT-B-32",
            "OpenCLIP model, hf-hub:owner/name, or local-dir:FOLDER with open_clip_config.json",
        ),
        RewardOption(
            "pretrained",
            None,
            "tag or checkpoint file; by default laion2b_s34b_b79k for ViT-B-32, or the only tag",
        ),
        RewardOption(
            "score",
            "cosine",
            "cosine; logit (logit scale · cosine + logit bias); or probability, "
            "the sigmoid of the logit of models with a logit bias, such as SigLIP",
        ),
        RewardOption(
            "head",
            None,
            "file of a LAION-style head on the normalised image embedding: one linear layer, "
            "or the predictor v2; the prompt is then not used",
        ),
        RewardOption("device", "cpu", "torch device of both encoders"),
        DTYPE,
    ),
)
