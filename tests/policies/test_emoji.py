"""The embedded model: files match the manifest, and images the prompts; packing is repeatable."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpo.errors import MissingResourceError
from ddpo.policies import load_policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images
from ddpo.prompts import load_prompts
from ddpo.rewards.scenes.world import NOUNS, OBJECTS, SEEN_ANIMALS, UNSEEN_ANIMALS, with_article
from ddpo.types import Prompt
from pretraining.muon import orthogonalise
from pretraining.packing import fold_standardisation
from pretraining.pretrain import stratified_timesteps
from pretraining.render import FONT_PATHS, Renderer
from pretraining.tokenizer import caption_words, train_merges, write_tokenizer

WEIGHTS = Path(str(files("ddpo.policies") / "emoji" / "weights"))
needs_font = pytest.mark.skipif(
    not any(Path(p).is_file() for p in FONT_PATHS), reason="Noto Color Emoji is not installed"
)


def test_the_weights_are_those_of_the_manifest_and_small() -> None:
    facts = json.loads((WEIGHTS / "manifest.json").read_text())["files"]
    present = {str(p.relative_to(WEIGHTS)) for p in WEIGHTS.rglob("*") if p.is_file()} - {
        "manifest.json",
        "README.md",
    }
    assert present == set(facts)
    for name, fact in facts.items():
        assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == fact["sha256"], name
    assert sum(fact["bytes"] for fact in facts.values()) <= 16e6


def test_a_damaged_installation_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "emoji" / "weights"
    shutil.copytree(WEIGHTS, copy)
    monkeypatch.setattr("ddpo.policies.base_model.files", lambda package: tmp_path / "emoji")
    load_policy("emoji")
    (copy / "unet" / "config.json").write_text("{}")
    with pytest.raises(
        MissingResourceError, match=r"damaged in this installation: unet/config\.json"
    ):
        load_policy("emoji")
    (copy / "unet" / "config.json").unlink()
    with pytest.raises(
        MissingResourceError, match=r"incomplete in this installation: .*config\.json is missing"
    ):
        load_policy("emoji")


def test_the_prompt_lists_are_the_nouns_that_the_model_was_taught() -> None:
    for name, nouns in (
        ("animals", SEEN_ANIMALS),
        ("unseen_animals", UNSEEN_ANIMALS),
        ("objects", OBJECTS),
    ):
        assert [prompt.text for prompt in load_prompts(name).prompts] == [
            with_article(noun) for noun in nouns
        ]
    assert len(NOUNS) == 133
    assert len(set(NOUNS.values())) == 133


def test_the_words_that_the_warning_knows_are_those_of_the_training_captions() -> None:
    taught = json.loads((files("ddpo.policies.emoji") / "words.json").read_text(encoding="utf-8"))
    assert taught == {"nouns": list(NOUNS), "words": caption_words()}


def test_images_depend_on_the_prompt() -> None:
    """A banana is yellower (red and green above blue) than a whale, averaged over backgrounds."""
    policy = load_policy("emoji")
    settings = SamplerSettings(steps=10, guidance=2.5, batch=16)
    yellow = {}
    for noun in ("banana", "whale"):
        keys = [SampleKey(Prompt(with_article(noun)), index) for index in range(16)]
        pixels = torch.cat(
            [batch.pixels for batch in sample_images(policy, keys, settings, seed=0)]
        )
        center = pixels[:, :, 16:48, 16:48].mean((0, 2, 3))
        yellow[noun] = float(center[0] + center[1] - 2 * center[2])
    assert yellow["banana"] > yellow["whale"] + 0.2


def test_each_caption_word_is_one_token(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    write_tokenizer(tmp_path)
    made = CLIPTokenizer.from_pretrained(tmp_path)
    shipped = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    for word in caption_words():
        assert len(made.tokenize(word)) == 1
        assert shipped(word).input_ids == made(word).input_ids
    assert len(made.tokenize("capybara")) > 1


def test_merges_of_a_hand_worked_vocabulary() -> None:
    """In "ab" and "abc", (a, b</w>), (a, b) and (b, c</w>) occur once; ties are alphabetical."""
    assert train_merges(["ab", "abc"]) == [("a", "b"), ("a", "b</w>"), ("ab", "c</w>")]


@needs_font
def test_drawing_is_repeatable_and_every_noun_has_a_glyph() -> None:
    renderer = Renderer()
    for noun in NOUNS:
        first, again = (renderer.draw(np.random.default_rng([3, 4]), noun) for _ in range(2))
        assert np.array_equal(first.pixels, again.pixels)
        assert first.caption == again.caption
        assert first.caption.startswith(with_article(noun))
        assert first.pixels.shape == (64, 64, 3)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((8, 8), (6, 20), (20, 6)):
        values = torch.linalg.svdvals(
            orthogonalise(torch.randn(shape, generator=generator), steps=6)
        )
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_folding_standardises_latents_and_keeps_the_decoder() -> None:
    from pretraining.architecture import build_autoencoder

    torch.manual_seed(0)
    vae = build_autoencoder().eval()
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = vae.encode(images).latent_dist
        decoded = vae.decode(before.mean).sample
        mean = before.mean.mean((0, 2, 3))
        std = before.mean.std((0, 2, 3))
        fold_standardisation(vae, mean, std)
        after = vae.encode(images).latent_dist
        torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(12), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(12), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            after.std, before.std / std.view(1, -1, 1, 1), atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(vae.decode(after.mean).sample, decoded, atol=1e-4, rtol=1e-3)


def test_timesteps_are_spread_evenly() -> None:
    found = np.sort(stratified_timesteps(50, 1000, np.random.default_rng(0)).numpy())
    assert all(20 * i <= t < 20 * (i + 1) for i, t in enumerate(found))
