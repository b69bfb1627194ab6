"""The cards of rewards that were trained on which of two pictures people prefer."""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile
from ddpo.rewards.cards.clip import DTYPE

__all__ = ["BERT_VOCABULARY", "HPS", "HPSV3", "IMAGE_REWARD", "PREFERENCE_CARDS", "QWEN2_VL_7B"]

HPS: Final = WeightFile(
    source="xswu/HPSv2", revision="main", sha256=None, megabytes=3944, licence="Apache-2.0"
)
"""The repository of both releases; the size is that of one checkpoint, 986 M parameters of 4 bytes. Their hashes are not known here."""
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
"""Of which only vocab.txt is read. Of neither are the hashes known here."""
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
"""Of which only config.json and tokenizer.json are read. Of neither are the hashes known here."""

PREFERENCE_CARDS: Final = (
    RewardCard(
        id="hpsv2",
        version="1",
        summary="Human Preference Score v2.1: cosine of picture and prompt in a CLIP ViT-H/14 tuned on which picture people prefer",
        load="ddpo.rewards.models.hpsv2:Hpsv2",
        family="clip",
        flaws="drifts to bright, saturated, oily, highly detailed pictures, also where the prompt asks for others; counts and positions "
        "are hardly seen; a picture that is not square is judged with black bars; without antialiasing, fine texture of large pictures "
        "turns into patterns that score; v2.0 and v2.1 do not compare; the checkpoint's hash is not known, so it is not verified",
        unit="cosine; tables of the original are 100 times this",
        range=(-1.0, 1.0),
        typical=(0.20, 0.28, 0.34),
        typical_source="of v2.1, rough, from the literature (model means 0.25 … 0.31); not measured here",
        inputs=("image", "prompt"),
        preprocessing="uint8, as a tensor in [0, 1] bicubic to 224 on the longest side, no antialiasing, zero padding to a square, CLIP "
        "mean and std; text by the CLIP BPE, cut at 77 tokens with the end token kept",
        dtype="float32",
        device="any",
        libraries=(
            "torch",
            "open_clip_torch",
            "ftfy",
            "regex",
        ),  # its tokenizer cleans texts by the last two
        memory_mb=4200,  # once loaded; 6.4 GB at the most while a checkpoint of float16 is read
        weights=(HPS,),
        paper="https://arxiv.org/abs/2306.09341",
        lineage=("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "HPD v2"),
        options=(
            RewardOption(
                "release",
                "v2.1",
                "v2.1 or v2.0; the original's score() takes v2.0 unless told otherwise, its evaluate() v2.1",
            ),
            RewardOption(
                "checkpoint",
                None,
                "local copy of HPS_v2.1_compressed.pt, or of HPS_v2_compressed.pt for v2.0; not verified",
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
        summary="ImageReward v1.0: BLIP of picture and prompt, trained on rankings by people of fidelity, alignment and harm",
        load="ddpo.rewards.models.imagereward:ImageReward",
        family="blip",
        flaws="reads 35 tokens of the prompt and no more; sees the middle square of the picture at 224 pixels; repeats and enlarges what "
        "the prompt names; drifts to saturated close-ups when trained on; the checkpoint's hash is not known, so it is not verified",
        unit="standard deviations of the original's normalisation",
        typical=(-1.9, 0.1, 1.7),
        typical_source="rough, from the normalisation to mean 0 and deviation 1; not measured here",
        inputs=("image", "prompt"),
        preprocessing="uint8, PIL bicubic to 224 on the shorter side, centre crop 224, CLIP mean and std; text by the tokens of "
        "bert-base-uncased, cut at 35 with the last one kept",
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
        summary="Human Preference Score v3: Qwen2-VL-7B that reads picture, prompt and criteria, trained on which picture people prefer",
        load="ddpo.rewards.models.hpsv3:Hpsv3",
        family="vlm",
        flaws="has no bound, so that a large learning rate finds pictures far outside its training; favours clean, detailed, photographic "
        "or rendered pictures, also where the prompt asks for others; sees 256 tokens of a picture, so small text and far faces hardly "
        "count; the prompt is read inside its instruction and may talk to it; ports that give the picture's tokens rows and columns, or "
        "resize bilinearly, score otherwise; the checkpoint's hash is not known, so it is not verified",
        unit="mean of the preference model; μ₁ - μ₂ is judged against the σ of both",
        typical=(-2.0, 6.0, 12.0),
        typical_source="rough, a guess around the means of 10.3 … 10.6 that its leaderboard gives for the best models; not measured here",
        inputs=("image", "prompt"),
        preprocessing="uint8, PIL bicubic to about 256·28·28 pixels in multiples of 28, CLIP mean and std; the chat format of Qwen2-VL "
        "with the original's instruction, whole prompt; positions 0, 1, 2 … also over the picture; SDPA, one picture at a time",
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
                "folder with config.json and tokenizer.json of Qwen2-VL-7B-Instruct; its weights are not needed",
            ),
            RewardOption("device", "cpu", "torch device"),
            RewardOption(
                "dtype", None, "bfloat16 or float32; if not given bfloat16, on a CPU float32"
            ),
        ),
    ),
)
