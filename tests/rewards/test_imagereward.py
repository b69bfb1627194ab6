"""ImageReward on tiny weights, against its arithmetic on the original's keys; messages."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.images import to_rgb
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models import imagereward
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "the",
    "cat",
    "dog",
    "rides",
    "bike",
    "##s",
    "many",
    "words",
    ".",
]
VIT = {
    **imagereward.VIT,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "patch_size": 56,
}
MED = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 32,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "model_type": "bert",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "add_type_embeddings": False,
    "vocab_size": len(WORDS) + 2,
    "encoder_width": 16,
    "add_cross_attention": True,
}
PROMPTS = ["a cat rides the bike.", "", "Dogs 猫 &amp; words", "many words " * 40]
MODES = [
    ((512, 512), "RGB"),
    ((100, 100), "RGB"),
    ((224, 224), "L"),
    ((640, 360), "RGBA"),
    ((201, 334), "CMYK"),
    ((31, 90), "LA"),
    ((300, 1000), "P"),
    ((449, 447), "1"),
]


def state() -> dict[str, Tensor]:
    """The original's keys with random values."""
    wide = VIT["hidden_size"]
    width = MED["hidden_size"]
    patches = (224 // VIT["patch_size"]) ** 2
    sides: dict[str, tuple[int, ...]] = {
        "visual_encoder.cls_token": (1, 1, wide),
        "visual_encoder.pos_embed": (1, patches + 1, wide),
        "visual_encoder.patch_embed.proj.weight": (wide, 3, VIT["patch_size"], VIT["patch_size"]),
        "visual_encoder.patch_embed.proj.bias": (wide,),
        "visual_encoder.norm": (wide,),
        "text_encoder.embeddings.word_embeddings.weight": (MED["vocab_size"], width),
        "text_encoder.embeddings.position_embeddings.weight": (
            MED["max_position_embeddings"],
            width,
        ),
        "text_encoder.embeddings.LayerNorm": (width,),
        "vision_proj": (7, wide),
        "text_proj": (7, width),
    }
    for n in range(VIT["num_hidden_layers"]):
        block = {
            "norm1": (wide,),
            "attn.qkv": (3 * wide, wide),
            "attn.proj": (wide, wide),
            "norm2": (wide,),
            "mlp.fc1": (VIT["intermediate_size"], wide),
            "mlp.fc2": (wide, VIT["intermediate_size"]),
        }
        sides |= {f"visual_encoder.blocks.{n}.{name}": shape for name, shape in block.items()}
    for n in range(MED["num_hidden_layers"]):
        layer: dict[str, tuple[int, ...]] = {
            "intermediate.dense": (MED["intermediate_size"], width),
            "output.dense": (width, MED["intermediate_size"]),
            "output.LayerNorm": (width,),
        }
        for kind, source in (("attention", width), ("crossattention", wide)):
            layer |= {
                f"{kind}.self.query": (width, width),
                f"{kind}.self.key": (width, source),
                f"{kind}.self.value": (width, source),
                f"{kind}.output.dense": (width, width),
                f"{kind}.output.LayerNorm": (width,),
            }
        sides |= {f"text_encoder.encoder.layer.{n}.{name}": shape for name, shape in layer.items()}
    sides = {f"blip.{name}": shape for name, shape in sides.items()}
    widths = (width, 10, 8, 6, 4, 1)
    sides |= {
        f"mlp.layers.{key}": (widths[i + 1], widths[i]) for i, key in enumerate((0, 2, 4, 6, 7))
    }
    generator = torch.Generator().manual_seed(0)
    made = {
        "blip.text_encoder.embeddings.position_ids": torch.arange(MED["max_position_embeddings"])[
            None
        ]
    }
    for name, shape in sides.items():
        whole = name.endswith((".weight", ".bias", "cls_token", "pos_embed"))
        for key in [name] if whole else [f"{name}.weight", f"{name}.bias"]:
            made[key] = 0.4 * torch.randn(
                shape if whole or key.endswith("weight") else shape[:1], generator=generator
            )
            made[key] += float("norm" in key.lower() and key.endswith("weight"))
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("imagereward")
    torch.save(state(), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(MED))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    names = {"checkpoint": "ImageReward.pt", "config": "med_config.json", "vocabulary": "vocab.txt"}
    return {option: str(folder / name) for option, name in names.items()}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagereward, "VIT", VIT)


class Original:
    """The original's forward pass in float64, by the papers' formulas on the checkpoint's keys."""

    def __init__(self) -> None:
        self.state = {
            name: tensor.double() for name, tensor in state().items() if tensor.is_floating_point()
        }

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return layer_norm(
            x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps
        )

    @staticmethod
    def attend(
        query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None
    ) -> Tensor:
        split = [x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (query, key, value)]
        weights = split[0] @ split[1].transpose(1, 2) / math.sqrt(split[0].shape[-1])
        weights = weights if mask is None else weights.masked_fill(mask == 0, -math.inf)
        return (weights.softmax(-1) @ split[2]).transpose(0, 1).flatten(1)

    def image(self, pixels: Tensor) -> Tensor:
        root = "blip.visual_encoder"
        side = VIT["patch_size"]
        patches = (
            pixels.double()
            .unfold(1, side, side)
            .unfold(2, side, side)
            .permute(1, 2, 0, 3, 4)
            .flatten(2)
            .flatten(0, 1)
        )
        x = (
            patches @ self.state[f"{root}.patch_embed.proj.weight"].flatten(1).T
            + self.state[f"{root}.patch_embed.proj.bias"]
        )
        x = torch.cat([self.state[f"{root}.cls_token"][0], x]) + self.state[f"{root}.pos_embed"][0]
        for n in range(VIT["num_hidden_layers"]):
            block = f"{root}.blocks.{n}"
            query, key, value = self.linear(
                f"{block}.attn.qkv", self.norm(f"{block}.norm1", x, 1e-6)
            ).chunk(3, -1)
            x = x + self.linear(
                f"{block}.attn.proj", self.attend(query, key, value, VIT["num_attention_heads"])
            )
            x = x + self.linear(
                f"{block}.mlp.fc2",
                gelu(self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x, 1e-6))),
            )
        return self.norm(f"{root}.norm", x, 1e-6)

    def score(self, pixels: Tensor, tokens: list[int]) -> float:
        root = "blip.text_encoder"
        image = self.image(pixels)
        heads = MED["num_attention_heads"]
        ids = torch.tensor(tokens + [0] * (35 - len(tokens)))
        mask = (torch.arange(35) < len(tokens)).long()
        embeddings = f"{root}.embeddings"
        x = (
            self.state[f"{embeddings}.word_embeddings.weight"][ids]
            + self.state[f"{embeddings}.position_embeddings.weight"][:35]
        )
        x = self.norm(f"{embeddings}.LayerNorm", x, 1e-12)
        for n in range(MED["num_hidden_layers"]):
            layer = f"{root}.encoder.layer.{n}"
            for kind, source, hidden in (
                ("attention", None, mask),
                ("crossattention", image, None),
            ):
                seen = x if source is None else source
                parts = [
                    self.linear(f"{layer}.{kind}.self.{part}", y)
                    for part, y in (("query", x), ("key", seen), ("value", seen))
                ]
                found = self.linear(
                    f"{layer}.{kind}.output.dense",
                    self.attend(parts[0], parts[1], parts[2], heads, hidden),
                )
                x = self.norm(f"{layer}.{kind}.output.LayerNorm", found + x, 1e-12)
            found = self.linear(
                f"{layer}.output.dense", gelu(self.linear(f"{layer}.intermediate.dense", x))
            )
            x = self.norm(f"{layer}.output.LayerNorm", found + x, 1e-12)
        value = x[0]
        for index in (0, 2, 4, 6, 7):
            value = self.linear(f"mlp.layers.{index}", value)
        return float((value[0] - 0.16717362830052426) / 1.0333394966054072)


TOKENS = [
    [2, 5, 7, 9, 6, 10, 14, 3],
    [2, 3],
    [2, 8, 11, 1, 1, 1, 1, 13, 3],
    [2, *[12, 13] * 16, 12, 3],
]
"""Tokens of the four prompts, by hand: words, word pieces, unknown ones, at most 33 + 2."""


def transformed(image: Image.Image) -> Tensor:
    """The original's transform."""
    transforms = pytest.importorskip("torchvision").transforms
    steps = [
        transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(
            (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        ),
    ]
    pixels: Tensor = transforms.Compose(steps)(image)
    return pixels


def test_parity_with_the_formulas_on_the_originals_keys(files: dict[str, str]) -> None:
    reward = make_reward("imagereward", **files)
    original = Original()
    ours = []
    due = []
    for number, (size, mode) in enumerate(MODES):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 7, 3)).astype(np.uint8)
        image = to_rgb(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode))
        output = reward(
            ImageBatch.of_images([image] * len(PROMPTS), [Prompt(text) for text in PROMPTS])
        )
        assert output.parts["truncated"].tolist() == [0, 0, 0, 1]
        ours.append(output.values.tolist())
        due.append([original.score(transformed(image), tokens) for tokens in TOKENS])
    assert np.abs(np.array(ours) - np.array(due)).max() < 5e-6
    assert (
        np.std(due, axis=0).min() > 1e-2
    )  # images and prompts both move it, by more than is allowed above
    assert np.std(due, axis=1).min() > 1e-2


def test_a_prompt_that_just_fits_is_not_cut(files: dict[str, str]) -> None:
    reward = make_reward("imagereward", **files)
    batch = ImageBatch.of_uint8(
        np.zeros((3, 8, 8, 3), np.uint8), [Prompt("cat " * count) for count in (33, 34, 500)]
    )
    output = reward(batch)
    assert output.parts["truncated"].tolist() == [0, 1, 1]
    assert output.values[1] == pytest.approx(float(output.values[2]), abs=1e-6)


def test_bfloat16_is_another_score_near_by(files: dict[str, str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 50, 70, 3)).astype(np.uint8)
    batch = ImageBatch.of_uint8(pixels, [Prompt(text) for text in PROMPTS])
    due, found = (
        make_reward("imagereward", **files, dtype=dtype)(batch).values
        for dtype in ("float32", "bfloat16")
    )
    assert 1e-5 < (found - due).abs().max() < 0.05 * due.abs().max()
    with pytest.raises(ConfigError, match="'imagereward': dtype is 'half'"):
        make_reward("imagereward", **files, dtype="half")


def test_no_images_no_scores(files: dict[str, str]) -> None:
    assert make_reward("imagereward", **files)(
        ImageBatch(torch.zeros(0, 3, 8, 8), [])
    ).values.shape == (0,)


def test_the_conformance_kit(files: dict[str, str]) -> None:
    options = {option.name: option.default for option in CARDS["imagereward"].options} | files
    only = sorted(set(all_checks()) - {"light-listing", "missing-weights", "card-options"})
    results = {
        r.name: r
        for r in check_reward(
            ResolvedReward(CARDS["imagereward"], options, "ddpo", None), only=only
        )
    }
    assert {name: result.detail for name, result in results.items() if not result.ok} == {}
    for name in (
        "construction",
        "batch-invariance",
        "order",
        "rounding",
        "long-prompt",
        "picture-sizes",
        "empty-batch",
    ):
        assert results[name].outcome == "passed", name


def test_full_size_takes_the_keys_of_blip_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from transformers import BlipVisionConfig, BlipVisionModel

    with torch.device("meta"):
        vision = BlipVisionModel(BlipVisionConfig(**imagereward.VIT))
    assert sum(p.numel() for p in vision.parameters()) == pytest.approx(
        303.3e6, rel=1e-3
    )  # ViT-L/16 at 224 without its classifier


def test_without_weights_one_line_says_how_to_get_them(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    needed = {
        "vocabulary": "google-bert/bert-base-uncased vocab.txt",
        "config": "THUDM/ImageReward med_config.json",
        "checkpoint": "THUDM/ImageReward ImageReward.pt",
    }
    for option, command in needed.items():
        with pytest.raises(
            MissingResourceError,
            match=rf"^reward 'imagereward' needs .*Apache-2\.0.*hf download {command}",
        ) as caught:
            make_reward(
                "imagereward", **{name: path for name, path in files.items() if name != option}
            )
        assert "\n" not in str(caught.value)
        with pytest.raises(MissingResourceError, match="is not at"):
            make_reward("imagereward", **{**files, option: str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blip.visual_encoder.norm.bias": None}, "post_layernorm.bias"),
        (
            {"blip.text_encoder.encoder.layer.1.crossattention.self.key.bias": None},
            "crossattention.self.key.bias",
        ),
        ({"mlp.layers.7.bias": None}, "7.bias"),
        ({"blip.text_encoder.more": torch.zeros(1)}, "more"),
        ({"blip.queue": torch.zeros(1)}, "1 keys of no known part, such as blip.queue"),
        ({"mlp.layers.8.weight": torch.zeros(1)}, "more than five layers"),
    ],
)
def test_every_key_counts(
    change: dict[str, Any], message: str, files: dict[str, str], tmp_path: Path
) -> None:
    changed = {name: tensor for name, tensor in {**state(), **change}.items() if tensor is not None}
    torch.save(changed, tmp_path / "ImageReward.pt")
    with pytest.raises(
        MissingResourceError, match=r"is no checkpoint of ImageReward v1\.0 .*" + message
    ) as caught:
        make_reward("imagereward", **{**files, "checkpoint": str(tmp_path / "ImageReward.pt")})
    assert "\n" not in str(caught.value)


def test_other_files_are_refused_in_one_line(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "x").write_text("<html>")
    for option in ("checkpoint", "config"):
        with pytest.raises(
            MissingResourceError, match=r"is no checkpoint of ImageReward v1\.0"
        ) as caught:
            make_reward("imagereward", **{**files, option: str(tmp_path / "x")})
        assert "\n" not in str(caught.value)
