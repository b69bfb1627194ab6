"""The aesthetic reward: head against published numbers, encoder against transformers, messages.

The published head is compared when its file is here.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.errors import MissingResourceError
from ddpo.rewards.models.aesthetic import (
    collapse_head,
    head_scores,
    image_encoder,
    load_head,
    preprocess,
)
from ddpo.rewards.zoo import make_reward

DATA = (
    Path(os.environ.get("DDPO_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    / "laion"
)
HEAD = DATA / "sac+logos+ava1-l14-linearMSE.pth"
needs_head = pytest.mark.skipif(
    not HEAD.is_file(),
    reason="the head's file is not here (DDPO_TEST_DATA names a folder with laion/)",
)
RATING_SCORES = [1.655, 2.359, 3.070, 3.672, 4.238, 4.701, 5.073, 5.365, 5.577, 5.747]
"""Scores of the ten embeddings published with LAION's predictor, computed elsewhere, by layers."""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path))
    return tmp_path


@needs_head
def test_head_against_known_scores() -> None:
    weight, bias = load_head(str(HEAD))
    assert float(bias) == pytest.approx(5.236646, abs=1e-5)
    assert float(weight.norm()) == pytest.approx(17.995625, abs=1e-5)
    embeddings = torch.stack([torch.eye(768)[0], torch.ones(768), torch.arange(1.0, 769.0)])
    assert head_scores(embeddings, weight, bias).tolist() == pytest.approx(
        [4.545052, 4.883285, 4.420676], abs=1e-5
    )


@needs_head
def test_head_orders_the_rating_embeddings() -> None:
    weight, bias = load_head(str(HEAD))
    embeddings = torch.from_numpy(
        np.stack([np.load(DATA / "vit_l_14_embeddings" / f"rating{i}.npy") for i in range(10)])
    ).float()
    assert head_scores(embeddings.reshape(10, 768), weight, bias).tolist() == pytest.approx(
        RATING_SCORES, abs=5.1e-4
    )


@needs_head
def test_collapsed_head_equals_its_layers() -> None:
    state = torch.load(HEAD, map_location="cpu", weights_only=True)
    weight, bias = collapse_head(state)
    embedding = torch.nn.functional.normalize(
        torch.randn(5, 768, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    layered = embedding.double()
    for index in (0, 2, 4, 6, 7):
        layered = (
            layered @ state[f"layers.{index}.weight"].double().T
            + state[f"layers.{index}.bias"].double()
        )
    assert head_scores(embedding, weight, bias).tolist() == pytest.approx(
        layered[:, 0].tolist(), abs=1e-5
    )


def test_collapsing_by_hand() -> None:
    state = {
        "layers.0.weight": torch.zeros(2, 768),
        "layers.0.bias": torch.tensor([1.0, 2.0]),
        "layers.2.weight": torch.tensor([[3.0, 4.0]]),
        "layers.2.bias": torch.tensor([5.0]),
    }
    state["layers.0.weight"][:, 0] = torch.tensor([10.0, 20.0])
    weight, bias = collapse_head(state)
    assert float(bias) == 3 * 1 + 4 * 2 + 5
    assert weight[:2].tolist() == [3 * 10 + 4 * 20, 0]


def test_another_head_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(b"not the head")
    with pytest.raises(
        MissingResourceError, match=r"LAION aesthetic head \(3.7 MB, Apache-2.0\).*SHA-256"
    ):
        load_head(str(tmp_path / "other.pth"))
    with pytest.raises(MissingResourceError, match="is not at"):
        load_head(str(tmp_path / "absent.pth"))


def test_without_weights_one_line_says_what_is_missing_and_how_to_get_it(offline: Path) -> None:
    with pytest.raises(MissingResourceError) as caught:
        make_reward("aesthetic")
    message = str(caught.value)
    for part in ("aesthetic", "3.7 MB", "Apache-2.0", "https://", str(offline)):
        assert part in message
    assert "\n" not in message


@needs_head
def test_without_clip_one_line_says_so(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(offline))
    with pytest.raises(
        MissingResourceError,
        match=r"CLIP ViT-L/14 \(1710.5 MB, MIT\), which is not in the hub.*hf download openai",
    ):
        make_reward("aesthetic", head=str(HEAD))


def test_preprocessing_of_a_square_is_resize_and_normalisation() -> None:
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    )
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    expected = (np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) / 255 - mean) / std
    assert np.allclose(preprocess(image).permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "box"), [((448, 224), (112, 0)), ((224, 301), (0, 38)), ((500, 224), (138, 0))]
)
def test_the_centre_is_cut_out(size: tuple[int, int], box: tuple[int, int]) -> None:
    array = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    left, top = box
    cut = Image.fromarray(array[top : top + 224, left : left + 224])
    assert torch.equal(preprocess(Image.fromarray(array)), preprocess(cut))


def test_image_tower_equals_the_whole_clip_model_on_disk() -> None:
    from transformers import CLIPConfig, CLIPModel

    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
    }
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "vocab_size": 9,
        },
        vision_config={**sizes, "patch_size": 14, "hidden_act": "quick_gelu"},
        projection_dim=12,
    )
    whole = CLIPModel(config).eval()
    tower = image_encoder(whole.state_dict(), **sizes, projection_dim=12)
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        features = whole.get_image_features(pixel_values=pixels)
        features = getattr(features, "pooler_output", features)
        assert torch.allclose(tower(pixel_values=pixels).image_embeds, features, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    with pytest.raises(MissingResourceError, match="lacks"):
        image_encoder(
            {k: v for k, v in whole.state_dict().items() if "layers.1" not in k},
            **sizes,
            projection_dim=12,
        )
