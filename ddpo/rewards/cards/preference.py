"""The cards of rewards that were trained on human preferences between images: pure data."""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile
from ddpo.rewards.cards.clip import DTYPE

__all__ = ["BERT_VOCABULARY", "HPS", "HPSV3", "IMAGE_REWARD", "PREFERENCE_CARDS", "QWEN2_VL_7B"]

HPS: Final = WeightFile(
    source="xswu/HPSv2", revision="main", sha256=None, megabytes=3944, licence="Apache-2.0"
)
"""The repository of both releases, whose hashes are not known here.

The size is that of one checkpoint, 986 M parameters of 4 bytes.
"""
IMAGE_REWARD: Final = WeightFile(
    source="THUDM/ImageReward", revision="main", sha256=None, megabytes=1790, licence="Apache-2.0"
)
BERT_VOCABULARY: Final = WeightFile(
    source="google-bert/bert-base-uncased",
    revision="main",
    sha256=None,
    megabytes=0.2,
    licence="Apache-2.0",
)
"""Only vocab.txt is read. Its hash is not known here, nor is that of ImageReward."""
HPSV3: Final = WeightFile(
    source="MizzenAI/HPSv3", revision="main", sha256=None, megabytes=16_600, licence="Apache-2.0"
)
QWEN2_VL_7B: Final = WeightFile(
    source="Qwen/Qwen2-VL-7B-Instruct",
    revision="main",
    sha256=None,
    megabytes=7,
    licence="Apache-2.0",
)
"""Only config.json and tokenizer.json are read. Their hashes are not known here, nor is HPSv3's."""

HPSV3_PREPROCESSING: Final = (
    r"uint8, PIL bicubic to about 256·28·28 pixels in multiples of 28, CLIP mean and std; "
    r"the chat format of Qwen2-VL with the original's instruction, whole prompt; "
    r"positions 0, 1, 2 … also over the picture; SDPA, one picture at a time"
)
"""Part of the signature of scores, and therefore kept to the letter."""

PREFERENCE_CARDS: Final = (
    RewardCard(
        id="hpsv2",
        version="1",
        summary="Human Preference Score v2.1: cosine of image and prompt in a CLIP ViT-H/14 "
        "fine-tuned on human preferences",
        load="ddpo.rewards.models.hpsv2:Hpsv2",
        family="clip",
        flaws="drifts to bright, saturated, oily, highly detailed images, even where the prompt "
        "asks for others; hardly sees counts and positions; an image that is not square is judged "
        "with black bars; without antialiasing, fine texture of large images turns into patterns "
        "that score high; v2.0 and v2.1 are not comparable; the checkpoint's hash is not known, "
        "so it is not verified",
        unit="cosine; tables of the original are 100 times this",
        range=(-1.0, 1.0),
        typical=(0.20, 0.28, 0.34),
        typical_source="v2.1, rough, from the literature (model means 0.25 … 0.31); "
        "not measured here",
        inputs=("image", "prompt"),
        preprocessing="uint8, as a tensor in [0, 1] bicubic to 224 on the longest side, "
        "no antialiasing, zero padding to a square, CLIP mean and std; "
        "text by the CLIP BPE, cut at 77 tokens with the end token kept",
        dtype="float32",
        device="any",
        libraries=("torch", "open_clip_torch", "ftfy", "regex"),  # the last two clean the texts
        memory_mb=4200,  # once loaded; at most 6.4 GB while a checkpoint of float16 is read
        weights=(HPS,),
        paper="https://arxiv.org/abs/2306.09341",
        lineage=("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "HPD v2"),
        options=(
            RewardOption(
                "release",
                "v2.1",
                "v2.1 or v2.0; the original's score() defaults to v2.0, its evaluate() to v2.1",
            ),
            RewardOption(
                "checkpoint",
                None,
                "local copy of HPS_v2.1_compressed.pt, or of HPS_v2_compressed.pt for v2.0; "
                "not verified",
            ),
            RewardOption(
                "antialias", False, "resize as the original does on torchvision 0.17 or later"
            ),
            RewardOption("device", "cpu", "torch device"),
            DTYPE,
        ),
    ),
    RewardCard(
        id="imagereward",
        version="1",
        summary="ImageReward v1.0: BLIP of image and prompt, trained on human rankings of "
        "fidelity, alignment and harm",
        load="ddpo.rewards.models.imagereward:ImageReward",
        family="blip",
        flaws="reads only the first 35 tokens of the prompt; sees the middle square of the image "
        "at 224 pixels; training on it repeats and enlarges what the prompt names and drifts to "
        "saturated close-ups; the checkpoint's hash is not known, so it is not verified",
        unit="standard deviations of the original's normalisation",
        typical=(-1.9, 0.1, 1.7),
        typical_source="rough, from the normalisation to mean 0 and standard deviation 1; "
        "not measured here",
        inputs=("image", "prompt"),
        preprocessing="uint8, PIL bicubic to 224 on the shorter side, centre crop 224, CLIP mean "
        "and std; text by the tokens of bert-base-uncased, cut at 35 with the last one kept",
        dtype="float32",
        device="any",
        libraries=("torch", "transformers", "tokenizers", "pillow"),
        memory_mb=2000,
        weights=(IMAGE_REWARD, BERT_VOCABULARY),
        paper="https://arxiv.org/abs/2304.05977",
        lineage=("Salesforce/BLIP large", "ImageRewardDB"),
        options=(
            RewardOption("checkpoint", None, "local copy of ImageReward.pt; not verified"),
            RewardOption("config", None, "local copy of med_config.json"),
            RewardOption("vocabulary", None, "local copy of vocab.txt of bert-base-uncased"),
            RewardOption("device", "cpu", "torch device"),
            DTYPE,
        ),
    ),
    RewardCard(
        id="hpsv3",
        version="1",
        summary="Human Preference Score v3: Qwen2-VL-7B that reads image, prompt and criteria, "
        "trained on human preferences",
        load="ddpo.rewards.models.hpsv3:Hpsv3",
        family="vlm",
        flaws="has no bound, so a large learning rate finds images far outside its training data; "
        "favours clean, detailed, photographic or rendered images, even where the prompt asks for "
        "others; sees 256 tokens of an image, so small text and distant faces hardly count; "
        "the prompt is inserted into its instruction and may manipulate it; "
        "ports that give the image's tokens rows and columns, or resize bilinearly, give other "
        "scores; the checkpoint's hash is not known, so it is not verified",
        unit="mean of the preference model; μ₁ - μ₂ is judged against the σ of both",
        typical=(-2.0, 6.0, 12.0),
        typical_source="rough, a guess around the means of 10.3 … 10.6 of the best models on its "
        "leaderboard; not measured here",
        inputs=("image", "prompt"),
        preprocessing=HPSV3_PREPROCESSING,
        dtype="bfloat16 on a GPU, float32 on a CPU, the head in float32",
        accelerator_dtype="bfloat16",
        device="any",
        libraries=("torch", "transformers", "tokenizers", "pillow"),
        memory_mb=17_500,  # in bfloat16; twice that in float32
        weights=(HPSV3, QWEN2_VL_7B),
        paper="https://arxiv.org/abs/2508.03789",
        lineage=("Qwen2-VL-7B-Instruct", "HPDv3"),
        options=(
            RewardOption("checkpoint", None, "local copy of HPSv3.safetensors; not verified"),
            RewardOption(
                "base",
                None,
                "folder with config.json and tokenizer.json of Qwen2-VL-7B-Instruct; "
                "its weights are not needed",
            ),
            RewardOption("device", "cpu", "torch device"),
            RewardOption(
                "dtype", None, "bfloat16 or float32; by default float32 on a CPU, else bfloat16"
            ),
        ),
    ),
)
