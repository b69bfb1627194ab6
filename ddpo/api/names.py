"""Names of built-in rewards, lists and methods, which editors complete; others are legal.

Written by tools/api_names.py from the registries.
"""

from typing import Literal

__all__ = ["AlgorithmName", "Family", "ModelName", "PromptList", "RecipeName", "RewardName"]

RewardName = Literal[
    "aesthetic",
    "aesthetic_v1",
    "alignment",
    "clip_score",
    "colorfulness",
    "compressibility",
    "contrast",
    "darkness",
    "diversity_dino",
    "diversity_lpips",
    "edge_density",
    "emoji_detector",
    "emoji_geneval",
    "entropy",
    "high_frequency",
    "hpsv2",
    "hpsv3",
    "imagereward",
    "incompressibility",
    "nsfw",
    "ocr",
    "open_clip",
    "pickscore",
    "rotation_symmetry",
    "saturation",
    "sharpness",
    "symmetry",
    "vendi",
    "vlm_judge",
    "vqa_score",
    "vqa_strict",
]

Family = Literal[
    "blip",
    "clip",
    "detector",
    "group",
    "guard",
    "ocr",
    "pixels",
    "vlm",
]

PromptList = Literal[
    "activities",
    "animals",
    "animals_activities",
    "counting",
    "emoji_geneval_test",
    "emoji_geneval_train",
    "imagenet_animals",
    "near",
    "new_pairings",
    "objects",
    "seen_activities",
    "seen_pairings",
    "unseen_animals",
    "unseen_pairings",
]

AlgorithmName = Literal[
    "awm",
    "ddpo_is",
    "ddpo_sf",
    "flow_dppo",
    "grpo",
    "grpo_fast",
    "grpo_guard",
    "mix_grpo",
    "rwr",
    "rwr_sparse",
    "tempflow_grpo",
]

ModelName = Literal[
    "emoji",
    "emoji-flow",
    "emoji-scenes",
]

RecipeName = Literal[
    "emoji",
    "emoji_flow",
    "emoji_rwr",
    "emoji_rwr_sparse",
    "emoji_scenes",
    "emoji_sf",
    "flux1",
    "flux2_klein",
    "paper_aesthetic",
    "paper_alignment",
    "paper_compressibility",
    "paper_incompressibility",
    "paper_rwr",
    "paper_rwr_sparse",
    "sd1",
    "sd15_lora",
    "sd2",
    "sd3",
    "sdxl",
    "z_image",
]
