"""Loops by hand after the originals' READMEs: one image at a time, with both encoders."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from random_weights import hps_sizes
from torch import Tensor, nn
from torch.nn.functional import normalize

from ddpo.rewards.models.imagereward import MEAN, STD, load_blip

Loop = Callable[[Path, str], float]
"""Function from a file and its prompt to the score."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def transform() -> Any:
    """OpenAI's preprocessing by torchvision, as in `clip`, open_clip and ImageReward."""
    transforms = import_module("torchvision").transforms
    bicubic = transforms.InterpolationMode.BICUBIC
    return transforms.Compose(
        [
            transforms.Resize(224, interpolation=bicubic),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )


def aesthetic(
    folder: Path, device: str, dtype: torch.dtype, tiny: bool
) -> tuple[Loop, list[nn.Module]]:
    """Image embedding, norm and the head's five layers.

    Source: simple_inference.py of christophschuhmann/improved-aesthetic-predictor.
    """
    from transformers import CLIPModel

    model: Any = CLIPModel.from_pretrained(folder / "clip").to(device, dtype).eval()
    state = torch.load(folder / "head.pth", weights_only=True)
    layers = [
        (state[f"layers.{key}.weight"].to(device), state[f"layers.{key}.bias"].to(device))
        for key in (0, 2, 4, 6, 7)
    ]
    prepare = transform()

    def score(file: Path, prompt: str) -> float:
        pixels = prepare(Image.open(file).convert("RGB"))[None].to(device, dtype)
        with torch.no_grad():
            features: Tensor = normalize(
                features_of(model.get_image_features(pixel_values=pixels)).float(), dim=-1
            )
            for weight, bias in layers:
                features = torch.nn.functional.linear(features, weight, bias)
        return float(features)

    return score, [model.vision_model]


def features_of(output: Any) -> Tensor:
    """The embedding, which transformers 5 wraps."""
    found: Tensor = getattr(output, "pooler_output", output)
    return found


def clip_score(
    folder: Path, device: str, dtype: torch.dtype, tiny: bool
) -> tuple[Loop, list[nn.Module]]:
    """Processor of image and text, and the whole model.

    Source: the model card of openai/clip-vit-base-patch32.
    """
    from transformers import CLIPModel, CLIPProcessor

    model: Any = CLIPModel.from_pretrained(folder / "clip").to(device, dtype).eval()
    processor: Any = CLIPProcessor.from_pretrained(folder / "clip")

    def score(file: Path, prompt: str) -> float:
        image = Image.open(file)
        inputs = processor(
            text=["A photo depicts " + prompt],
            images=image,
            return_tensors="pt",
            padding=True,
            truncation=True,
        ).to(device)
        with torch.no_grad():
            logits = model(
                **{**inputs, "pixel_values": inputs["pixel_values"].to(dtype)}
            ).logits_per_image
            return 2.5 * max(float(logits / model.logit_scale.exp()), 0.0)

    return score, [model.vision_model, model.text_model]


def pickscore(
    folder: Path, device: str, dtype: torch.dtype, tiny: bool
) -> tuple[Loop, list[nn.Module]]:
    """Processor, image features, text features and their scaled product.

    Source: the README of yuvalkirstain/PickScore.
    """
    from transformers import AutoModel, AutoProcessor

    model: Any = AutoModel.from_pretrained(folder / "clip").eval().to(device, dtype)
    processor: Any = AutoProcessor.from_pretrained(folder / "clip")

    def score(file: Path, prompt: str) -> float:
        settings = {"padding": True, "truncation": True, "max_length": 77, "return_tensors": "pt"}
        pixels = processor(images=[Image.open(file)], return_tensors="pt").to(device)
        words = processor(text=prompt, **settings).to(device)
        with torch.no_grad():
            image = normalize(
                features_of(
                    model.get_image_features(pixel_values=pixels["pixel_values"].to(dtype))
                ),
                dim=-1,
            )
            text = normalize(features_of(model.get_text_features(**words)), dim=-1)
            return float(model.logit_scale.exp() * (text @ image.T)[0])

    return score, [model.vision_model, model.text_model]


def hpsv2(
    folder: Path, device: str, dtype: torch.dtype, tiny: bool
) -> tuple[Loop, list[nn.Module]]:
    """Tensor, resize, padding, and the whole model on one image and one text of 77 tokens.

    Source: score() of tgxs002/HPSv2.
    """
    open_clip = import_module("open_clip")
    functional = import_module("torchvision").transforms.functional
    bicubic = import_module("torchvision").transforms.InterpolationMode.BICUBIC
    with torch.device("meta"):
        model: Any = open_clip.CLIP(**hps_sizes(tiny), output_dict=True)
    model.load_state_dict(
        torch.load(folder / "hps.pt", weights_only=True)["state_dict"], strict=False, assign=True
    )
    mask = torch.full((77, 77), float("-inf")).triu_(1)
    model.attn_mask = mask
    model = model.to(device, dtype).eval().requires_grad_(False)
    tokenizer = open_clip.get_tokenizer("ViT-H-14")

    def score(file: Path, prompt: str) -> float:
        pixels = functional.to_tensor(Image.open(file).convert("RGB"))
        scale = 224 / max(pixels.shape[1:])
        high, wide = (round(side * scale) for side in pixels.shape[1:])
        pixels = functional.resize(pixels, [high, wide], bicubic, antialias=False)
        top = (224 - high) // 2
        left = (224 - wide) // 2
        pixels = functional.normalize(
            functional.pad(pixels, [left, top, 224 - wide - left, 224 - high - top]),
            CLIP_MEAN,
            CLIP_STD,
        )
        with torch.no_grad():
            output = model(pixels[None].to(device, dtype), tokenizer([prompt]).to(device))
        return float(torch.diagonal(output["image_features"] @ output["text_features"].T)[0])

    return score, [model.visual, model.transformer]


def imagereward(
    folder: Path, device: str, dtype: torch.dtype, tiny: bool
) -> tuple[Loop, list[nn.Module]]:
    """Image through BLIP's encoder, 35 tokens through its text encoder, and the head.

    Source: score() of THUDM/ImageReward.
    """
    from transformers import BertTokenizer

    vision, reader, head = load_blip(folder / "ImageReward.pt", folder / "med_config.json")
    vision = vision.to(device, dtype)
    reader = reader.to(device, dtype)
    layers = [(weight.to(device), bias.to(device)) for weight, bias in head]
    tokenizer: Any = BertTokenizer(str(folder / "vocab.txt"))
    prepare = transform()

    def score(file: Path, prompt: str) -> float:
        pixels = prepare(Image.open(file).convert("RGB"))[None].to(device, dtype)
        words = tokenizer(
            prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
        ).to(device)
        with torch.no_grad():
            image = vision(pixel_values=pixels).last_hidden_state
            seen = torch.ones(image.shape[:2], dtype=torch.long, device=device)
            features = (
                reader(
                    words["input_ids"],
                    attention_mask=words["attention_mask"],
                    encoder_hidden_states=image,
                    encoder_attention_mask=seen,
                )
                .last_hidden_state[:, 0]
                .float()
            )
            for weight, bias in layers:
                features = torch.nn.functional.linear(features, weight, bias)
        return (float(features) - MEAN) / STD

    return score, [vision, reader]


LOOPS = {
    "aesthetic": aesthetic,
    "clip_score": clip_score,
    "pickscore": pickscore,
    "hpsv2": hpsv2,
    "imagereward": imagereward,
}
