"""The cards of rewards that were trained on which of two pictures people prefer."""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile

__all__ = ["BERT_VOCABULARY", "HPS", "IMAGE_REWARD", "PREFERENCE_CARDS"]

HPS: Final = WeightFile(source="xswu/HPSv2", revision="main", sha256=None, megabytes=3944, licence="Apache-2.0")
"""The repository of both releases; the size is that of one checkpoint, 986 M parameters of 4 bytes. Their hashes are not known here."""
IMAGE_REWARD: Final = WeightFile(source="THUDM/ImageReward", revision="main", sha256=None, megabytes=1790, licence="Apache-2.0")
BERT_VOCABULARY: Final = WeightFile(
    source="google-bert/bert-base-uncased", revision="main", sha256=None, megabytes=0.2, licence="Apache-2.0"
)
"""Of which only vocab.txt is read. Of neither are the hashes known here."""

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
        extra="hps",
        libraries=("torch", "open_clip_torch"),
        memory_mb=4200,  # once loaded; 6.4 GB at the most while a checkpoint of float16 is read
        weights=(HPS,),
        paper="https://arxiv.org/abs/2306.09341",
        lineage=("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "HPD v2"),
        options=(
            RewardOption("release", "v2.1", "v2.1 or v2.0; the original's score() takes v2.0 unless told otherwise, its evaluate() v2.1"),
            RewardOption("checkpoint", None, "local copy of HPS_v2.1_compressed.pt, or of HPS_v2_compressed.pt for v2.0; not verified"),
            RewardOption("antialias", False, "resize as the original does on torchvision 0.17 or later"),
            RewardOption("device", "cpu", "torch device"),
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
        ),
    ),
)
