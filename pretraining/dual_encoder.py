"""The judge in CLIP's format: `python -m pretraining.dual_encoder --out FOLDER --minutes N`.

A `transformers.CLIPModel` with its tokenizer, as `clip_score` loads it. It is trained on cosines of
renderings and captions, against the captions of other images and against captions that differ from
the true one in one detail.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpo.rewards.models.clip_pixels import MEAN, SIDE, STD
from ddpo.rewards.scenes.grammar import Scene, caption, holds, world_words
from pretraining.judge_training import JudgeRun, arguments, half, megabytes, say, train
from pretraining.render import SIZE
from pretraining.resizing import resizing_matrix
from pretraining.scene_batches import SENTENCES, Augmentation, Reconstructions, draw_batch
from pretraining.scene_renderer import SceneRenderer
from pretraining.scene_sampling import changed, stated_part
from pretraining.tokenizer import write_tokenizer

__all__ = ["build", "image_embeddings", "train_dual_encoder", "write"]

LENGTH: Final = 32  # tokens
WIDTH: Final = 112
PATCH: Final = 28
GRAIN: Final = PATCH * SIZE // SIDE  # 8 pixels of a rendering
MARGIN: Final = 2  # pixels of a rendering that bicubic resizing reads around a patch
EXTRA_WORDS: Final = "photo depicts the image contains picture of it is in this an"
AUGMENTATION: Final = Augmentation(recolored=0.35, erased=0.15, blur=2.5)
RATES: Final = (3e-3, 1.5e-3)
FIRST_SCALE: Final = 1 / 0.07  # Radford et al., arXiv 2103.00020, section 2.5
GREATEST_SCALE: Final = 50.0


def words() -> list[str]:
    """Every word that is one token of the judge."""
    return sorted({*world_words(), *EXTRA_WORDS.split()})


def build(vocabulary: int) -> Any:
    """The untrained model of images `[batch, 3, 224, 224]`, 1.3 M parameters."""
    from transformers import CLIPConfig, CLIPModel

    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "hidden_act": "quick_gelu",
    }
    vision = {**shared, "image_size": SIDE, "patch_size": PATCH, "num_hidden_layers": 4}
    text = {
        **shared,
        "num_hidden_layers": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": LENGTH,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    config = CLIPConfig(
        vision_config=vision,
        text_config=text,
        projection_dim=WIDTH,
        logit_scale_init_value=math.log(FIRST_SCALE),
    )
    return CLIPModel(config)


def _upsampling() -> Tensor:
    """Pillow's bicubic resizing of the 12 pixels around a patch of 8 to its 28, `[28, 12]`."""
    middle = SIZE // 2
    first = middle * SIDE // SIZE
    matrix = resizing_matrix(SIZE, SIDE)
    return matrix[first : first + PATCH, middle - MARGIN : middle + GRAIN + MARGIN]


def image_embeddings(model: Any, pixels: Tensor) -> Tensor:
    """Projected embeddings of images `[batch, 3, 64, 64]` in [0, 1], without their enlargement.

    The patch convolution of the enlarged image is a convolution of the small one, since resizing is
    linear and a patch has 8 pixels. The numbers are those of the model except at the edges of the
    image and for the rounding of enlarged pixels to bytes.
    """
    vision = model.vision_model
    large = vision.embeddings.patch_embedding.weight
    matrix = _upsampling()
    small = torch.einsum("oiyx,yr,xc->oirc", large, matrix, matrix)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    framed = functional.pad((pixels - mean) / std, (MARGIN,) * 4, mode="replicate")
    patches = functional.unfold(framed, GRAIN + 2 * MARGIN, stride=GRAIN).transpose(1, 2)
    tokens = functional.linear(patches, small.flatten(1))
    first = vision.embeddings.class_embedding.expand(len(pixels), 1, -1)
    places = vision.embeddings.position_embedding.weight
    hidden = vision.pre_layrnorm(torch.cat([first, tokens], 1) + places)
    hidden = vision.encoder(inputs_embeds=hidden).last_hidden_state
    embeddings: Tensor = model.visual_projection(vision.post_layernorm(hidden[:, 0]))
    return embeddings


class Contrast:
    """The loss of a batch of images with true and nearly true captions."""

    def __init__(
        self, model: Any, folder: Path, renderer: SceneRenderer, bank: Reconstructions | None
    ) -> None:
        from transformers import CLIPTokenizer

        self.model = model
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.renderer = renderer
        self.bank = bank

    def __call__(self, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        """The loss, and the share of images whose own caption has the highest cosine."""
        pixels, shown = draw_batch(self.renderer, rng, count, AUGMENTATION, self.bank)
        stated = [stated_part(scene, rng) for scene in shown]
        near = [changed(scene, whole, rng) for scene, whole in zip(stated, shown, strict=True)]
        texts = self.texts([*stated, *near], rng)
        with torch.autocast("cpu", torch.bfloat16):
            images = image_embeddings(self.model, pixels)
            sentences = self.model.text_projection(
                self.model.text_model(input_ids=texts).pooler_output
            )
        cosines = (
            functional.normalize(images.float(), dim=-1)
            @ functional.normalize(sentences.float(), dim=-1).T
        )
        logits = cosines * self.model.logit_scale.exp().clamp(max=GREATEST_SCALE)
        also_true = torch.tensor(
            [[holds(s, w) for s in [*stated, *near]] for w in shown]
        ) & ~torch.eye(count, 2 * count, dtype=torch.bool)
        logits = logits.masked_fill(also_true, -math.inf)
        own = torch.arange(count)
        loss = functional.cross_entropy(logits, own, label_smoothing=0.0)
        loss = loss + functional.cross_entropy(logits[:, :count].T, own)
        right = (logits.argmax(1) == own).float().mean()
        nearer = (cosines[own, own] > cosines[own, own + count]).float().mean()
        return {"loss": loss / 2, "right": right, "nearer": nearer}

    def texts(self, scenes: list[Scene], rng: np.random.Generator) -> Tensor:
        """The padded token ids of sentences about scenes, int64 `[scenes, length]`."""
        picks = rng.choice(len(SENTENCES), size=len(scenes), p=(0.3, 0.4, 0.15, 0.15))
        sentences = [
            SENTENCES[pick].format(caption(scene))
            for pick, scene in zip(picks, scenes, strict=True)
        ]
        encoded = self.tokenizer(sentences, padding=True, truncation=True, max_length=LENGTH)
        return torch.tensor(encoded.input_ids)


def write(model: Any, folder: Path) -> None:
    """Writes the model in half precision beside its tokenizer."""
    write_tokenizer(folder, words(), LENGTH)
    half(model).save_pretrained(folder)


def train_dual_encoder(run: JudgeRun) -> list[float]:
    """Trains and writes the judge to `run.out / "judge"`; returns the losses."""
    torch.manual_seed(run.seed)
    folder = run.out / "judge"
    model = build(write_tokenizer(folder, words(), LENGTH))
    model.set_attn_implementation("eager")  # its backward pass is twice as fast on a CPU
    renderer = SceneRenderer(run.font)
    bank = run.bank(renderer, AUGMENTATION)
    contrast = Contrast(model, folder, renderer, bank)
    losses = train(run, nn.ModuleDict({"clip": model}), contrast, RATES)
    write(model, folder)
    say(f"{folder}: {megabytes(folder):.2f} MB")
    return losses


if __name__ == "__main__":
    train_dual_encoder(arguments("dual_encoder", __doc__, steps=3000, batch=96))
