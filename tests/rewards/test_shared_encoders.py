"""Rewards with one backbone share one loaded tower and one embedding pass."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpo.rewards.card import RewardCard
from ddpo.rewards.models import aesthetic as aesthetic_module
from ddpo.rewards.models import shared_encoders as backbones
from ddpo.rewards.models.aesthetic import Aesthetic, clip_embeddings, image_encoder
from ddpo.rewards.models.shared_encoders import SharedEncoder, shared_encoder
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, Prompt, RewardOutput

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def tiny_clip() -> Callable[[ImageBatch], Tensor]:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        **SIZES, patch_size=56, image_size=224, projection_dim=768, hidden_act="quick_gelu"
    )
    state = CLIPVisionModelWithProjection(config).state_dict()
    return clip_embeddings(image_encoder(state, **SIZES, patch_size=56), "cpu")


def noise(count: int, seed: int = 0) -> ImageBatch:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    return ImageBatch.of_uint8(pixels, (Prompt(""),) * count)


class Norm:
    """Another reward on the aesthetic reward's backbone."""

    card = RewardCard(
        id="norm",
        version="1",
        summary="",
        load="here:Norm",
        family="test",
        flaws="",
        backbone=Aesthetic.card.backbone,
        deterministic=True,
    )

    def __init__(self, tower: SharedEncoder) -> None:
        self.encoder = tower

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput(self.encoder.embed(batch).norm(dim=-1))


def test_two_rewards_share_one_tower_and_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    monkeypatch.setattr(
        aesthetic_module, "load_head", lambda path: (torch.linspace(-1, 1, 768), torch.tensor(5.0))
    )
    monkeypatch.setattr(aesthetic_module, "load_clip", lambda *asked: loaded.append(1))
    monkeypatch.setattr(aesthetic_module, "clip_embeddings", lambda *given: tiny_clip())
    first = Aesthetic()
    second = Aesthetic()
    norm = Norm(shared_encoder(Aesthetic.card.backbone, "cpu", tiny_clip))
    assert len(loaded) == 1
    batch = noise(6)
    outputs = [
        Scorer(reward, size).score(batch).values
        for reward, size in ((first, 4), (second, 3), (norm, 16))
    ]
    assert norm.encoder.passes == 6
    alone = tiny_clip()(batch)
    weight = torch.linspace(-1, 1, 768)
    expected = torch.nn.functional.normalize(alone, dim=-1) @ weight + 5
    assert torch.allclose(outputs[0], expected, atol=1e-5)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.allclose(outputs[2], alone.norm(dim=-1), atol=1e-5)


def test_the_tower_goes_with_its_last_reward() -> None:
    tower = shared_encoder("test tower", "cpu", tiny_clip)
    assert shared_encoder("test tower", "cpu", lambda: pytest.fail("loaded twice")) is tower
    del tower
    gc.collect()
    assert ("test tower", "cpu") not in backbones._encoders


def test_embeddings_are_remembered_by_content_within_a_bound() -> None:
    seen: list[int] = []

    def embed(batch: ImageBatch) -> Tensor:
        seen.append(len(batch))
        return batch.pixels.mean((1, 2, 3))[:, None]

    tower = SharedEncoder(embed, remembered=4)
    batch = noise(4)
    first = tower.embed(batch)
    copy = ImageBatch.of_uint8(batch.uint8.copy()[::-1], batch.prompts)
    assert torch.equal(tower.embed(copy), first.flip(0))
    assert seen == [4]
    tower.embed(noise(3, seed=1))  # pushes three of the four out
    tower.embed(batch)
    assert seen == [4, 3, 3]
    twice = ImageBatch.of_uint8(np.repeat(noise(1, seed=9).uint8, 3, axis=0), (Prompt(""),) * 3)
    assert tower.embed(twice).shape == (3, 1)
    assert seen[-1] == 1
