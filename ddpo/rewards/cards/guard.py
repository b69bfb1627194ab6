"""The cards of the guards and single-task rewards, spelling and unsafe images: pure data."""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile

__all__ = ["FALCONSAI", "GUARD_CARDS", "OCR_WEIGHTS"]

OCR_WEIGHTS: Final = (
    WeightFile(
        source="package:rapidocr/models/PP-OCRv6_det_small.onnx",
        revision="3.10.0",
        sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        megabytes=9.9,
        licence="Apache-2.0",
    ),
    WeightFile(
        source="package:rapidocr/models/PP-OCRv6_rec_small.onnx",
        revision="3.10.0",
        sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        megabytes=21.2,
        licence="Apache-2.0",
    ),
    WeightFile(
        source="package:rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        revision="3.10.0",
        sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        megabytes=0.6,
        licence="Apache-2.0",
    ),
)
"""Text detector, text recogniser and classifier of upside-down lines.

The hashes are those of the files in the wheel of that release.
"""
FALCONSAI: Final = WeightFile(
    source="Falconsai/nsfw_image_detection",
    revision="main",
    sha256=None,
    megabytes=343,
    licence="Apache-2.0",
)
"""The size is that of 85.8 M parameters of 4 bytes. Neither commit nor hash is known here."""

GUARD_CARDS: Final = (
    RewardCard(
        id="ocr",
        version="1",
        summary="how well the image spells the text that the prompt quotes: "
        "1 minus edit distance over length",
        load="ddpo.rewards.models.ocr:Ocr",
        family="ocr",
        flaws="sees spelling alone, so bare letters on an empty background are the optimum: "
        "combine it with a second reward; words in the background count against the image; "
        "a line recognised with a confidence below 0.5 counts as no text; the recogniser may "
        "guess a malformed letter from its neighbours; case, spaces and line breaks do not count; "
        "an upside-down line is read like any other",
        unit="1 − edit distance / letters of the target, not below 0",
        range=(0.0, 1.0),
        typical=(0.0, 0.6, 1.0),
        typical_source="rough: the published mean of Stable Diffusion 3.5 Medium in Flow-GRPO's "
        "variant is 0.59; not measured here",
        inputs=("image", "prompt", "metadata"),
        metadata=("text",),
        preprocessing="uint8, the engine's own: sides within 30 … 2000 pixels, shorter side at "
        "least 736; both texts NFKC, case folded, straight quotes and hyphens, no spaces; "
        "all that is read counts, in reading order; up to four quoted texts in any order",
        dtype="float32",
        extra="ocr",
        libraries=("rapidocr", "onnxruntime", "opencv-python-headless", "pyclipper", "shapely"),
        memory_mb=700,
        weights=OCR_WEIGHTS,
        paper="https://arxiv.org/abs/2505.05470",
        lineage=("PP-OCRv6 small",),
        options=(
            RewardOption(
                "detector", None, "local ONNX file of another PP-OCR text detector; not verified"
            ),
            RewardOption(
                "recogniser",
                None,
                "local ONNX file of another PP-OCR recogniser, which holds its alphabet; "
                "not verified",
            ),
        ),
    ),
    RewardCard(
        id="nsfw",
        version="1",
        summary="guard: probability of not safe for work by a ViT-B/16 classifier; higher is worse",
        load="ddpo.rewards.models.nsfw:Nsfw",
        family="guard",
        flaws="a trainer maximises it as it stands: give it a negative weight; "
        "its training labels are not published and cover mainly nudity; "
        "skin, art and medicine raise false alarms; drawn or distorted images escape; "
        "blind to violence, hatred and persons; saturates near 0 and 1 (part `log_odds` does not); "
        "a low score does not make an image fit to be shown",
        unit="probability",
        direction="lower",
        range=(0.0, 1.0),
        typical=(0.0, 0.01, 0.5),
        typical_source="a rough guess; not measured here",
        preprocessing="uint8, by the model's preprocessor_config.json on Pillow: "
        "stretched to 224×224, bilinear, scaled to −1 … 1",
        dtype="float32",
        device="any",
        libraries=("torch", "transformers", "pillow"),
        memory_mb=700,
        weights=(FALCONSAI,),
        paper="https://huggingface.co/Falconsai/nsfw_image_detection",
        lineage=("google/vit-base-patch16-224-in21k",),
        options=(
            RewardOption(
                "model",
                FALCONSAI.source,
                "folder or hub id of a ViT image classifier with a label 'nsfw'",
            ),
            RewardOption("device", "cpu", "torch device"),
        ),
    ),
)
