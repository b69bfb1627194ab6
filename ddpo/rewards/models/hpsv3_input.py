"""HPSv3's input as in the original: the instruction around a prompt, the patches of an image."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["IMAGE", "MERGED", "REWARD", "conversation", "fitted_size", "patches"]

PATCH: Final = 14  # side of a patch, pixels
MERGED: Final = 2  # side of the square that becomes one token, patches
FRAMES: Final = 2  # an image is a film of two equal frames
PIXELS: Final = 256 * 28 * 28
LONGEST: Final = 200  # greatest aspect ratio; the original refuses longer images
MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD: Final = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
REWARD: Final = "<|Reward|>"
IMAGE: Final = "<|image_pad|>"
INSTRUCTION: Final = (
    "\n"
    "You are tasked with evaluating a generated image based on Visual Quality and Text "
    "Alignment and give a overall score to estimate the human preference. Please provide a "
    "rating from 0 to 10, with 0 being the worst and 10 being the best. \n"
    "\n"
    "**Visual Quality:**  \n"
    "Evaluate the overall visual quality of the image. The following sub-dimensions should "
    "be considered:\n"
    "- **Reasonableness:** The image should not contain any significant biological or "
    "logical errors, such as abnormal body structures or nonsensical environmental setups.\n"
    "- **Clarity:** Evaluate the sharpness and visibility of the image. The image should "
    "be clear and easy to interpret, with no blurring or indistinct areas.\n"
    "- **Detail Richness:** Consider the level of detail in textures, materials, lighting, "
    "and other visual elements (e.g., hair, clothing, shadows).\n"
    "- **Aesthetic and Creativity:** Assess the artistic aspects of the image, including "
    "the color scheme, composition, atmosphere, depth of field, and the overall creative "
    "appeal. The scene should convey a sense of harmony and balance.\n"
    "- **Safety:** The image should not contain harmful or inappropriate content, such as "
    "political, violent, or adult material. If such content is present, the image quality "
    "and satisfaction score should be the lowest possible. \n"
    "\n"
    "**Text Alignment:**  \n"
    "Assess how well the image matches the textual prompt across the following "
    "sub-dimensions:\n"
    "- **Subject Relevance** Evaluate how accurately the subject(s) in the image (e.g., "
    "person, animal, object) align with the textual description. The subject should match "
    "the description in terms of number, appearance, and behavior.\n"
    "- **Style Relevance:** If the prompt specifies a particular artistic or stylistic "
    "style, evaluate how well the image adheres to this style.\n"
    "- **Contextual Consistency**: Assess whether the background, setting, and surrounding "
    "elements in the image logically fit the scenario described in the prompt. The "
    "environment should support and enhance the subject without contradictions.\n"
    "- **Attribute Fidelity**: Check if specific attributes mentioned in the prompt (e.g., "
    "colors, clothing, accessories, expressions, actions) are faithfully represented in "
    "the image. Minor deviations may be acceptable, but critical attributes should be "
    "preserved.\n"
    "- **Semantic Coherence**: Evaluate whether the overall meaning and intent of the "
    "prompt are captured in the image. The generated content should not introduce elements "
    "that conflict with or distort the original description.\n"
    "Textual prompt - "
)
"""The instruction that the weights were trained with, to the letter.

Source: hpsv3 1.0.0 on PyPI, hpsv3/dataset/data_collator_qwen.py.
"""
REQUEST: Final = f"\n\n\n\nPlease provide the overall ratings of this image: {REWARD}\n\nEND\n"


def conversation(prompt: str) -> str:
    """The input text in the chat format of Qwen2-VL, with one `<|image_pad|>` for the image.

    Source: hpsv3 1.0.0, hpsv3/inference.py; chat_template.json of Qwen/Qwen2-VL-7B-Instruct.
    """
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    turn = f"<|vision_start|>{IMAGE}<|vision_end|>{INSTRUCTION}{prompt}{REQUEST}"
    return f"{system}<|im_start|>user\n{turn}<|im_end|>\n<|im_start|>assistant\n"


def fitted_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of about 256·28·28 pixels: multiples of 28, nearly the same aspect ratio.

    Raises:
        ValueError: The image is over 200 times as long as it is wide, before or after.

    Source: hpsv3 1.0.0, hpsv3/dataset/utils.py, with equal least and greatest numbers of pixels.
    """
    unit = PATCH * MERGED
    sides = [max(unit, round(side / unit) * unit) for side in (width, height)]
    if math.prod(sides) > PIXELS:
        shrink = math.sqrt(width * height / PIXELS)
        sides = [math.floor(side / shrink / unit) * unit for side in (width, height)]
    elif math.prod(sides) < PIXELS:
        # not 1 / shrink, whose rounding may raise a ceiling by one
        grow = math.sqrt(PIXELS / (width * height))
        sides = [math.ceil(side * grow / unit) * unit for side in (width, height)]
    if max(width, height) > LONGEST * min(width, height) or max(sides) > LONGEST * min(sides):
        raise ValueError(
            f"an image of {width}×{height} is longer than {LONGEST} times its width, "
            "which HPSv3 does not take"
        )
    return sides[0], sides[1]


def patches(image: Image.Image) -> tuple[Tensor, tuple[int, int]]:
    """The input of Qwen2-VL's vision encoder: resized, normalised, in squares of four patches.

    Args:
        image: RGB image.

    Returns:
        float32 `[rows·columns, 3·2·14·14]`, and the numbers of rows and columns of patches.

    Raises:
        ValueError: As `fitted_size`.

    Source: transformers 4.45.2, image processor of Qwen2-VL.
    """
    image = image.resize(fitted_size(*image.size), Image.Resampling.BICUBIC)
    rows, columns = (length // PATCH for length in (image.height, image.width))
    pixels = ((np.asarray(image) * (1 / 255)).astype(np.float32) - MEAN) / STD
    cells = torch.from_numpy(pixels).reshape(
        rows // MERGED, MERGED, PATCH, columns // MERGED, MERGED, PATCH, 3
    )
    # squares (2), patches of a square (2), channel, frame, pixels of a patch (2)
    ordered = cells.permute(0, 3, 1, 4, 6, 2, 5).unsqueeze(5)
    frames = ordered.expand(*ordered.shape[:5], FRAMES, PATCH, PATCH)
    return frames.reshape(rows * columns, -1), (rows, columns)
