"""Pretraining of the embedded flow model on tiny data: it resumes, learns, packs and loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpo.io.tensors import load_tensors, save_tensors
from ddpo.policies import load_policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images, sample_noise
from ddpo.types import Prompt
from pretraining import architecture, flow_architecture, flow_training, training
from pretraining.flow_packing import pack_flow
from pretraining.flow_training import encode_text, logit_normal_times, train_flow
from pretraining.latents import token_ids
from pretraining.training import Process, Settings
from pretraining.worlds import WORLDS

CAPTIONS = ["a cat", "a red ball", "two stars", "a dog"]


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_architecture, "BLOCKS", 2)
    monkeypatch.setattr(flow_architecture, "HEADS", 2)
    monkeypatch.setattr(flow_architecture, "HEAD_WIDTH", 8)
    monkeypatch.setattr(flow_architecture, "TEXT_WIDTH", 32)
    monkeypatch.setattr(flow_architecture, "SMALL_TEXT_WIDTH", 32)
    build = flow_architecture.build_flow_text_encoder
    monkeypatch.setattr(
        flow_training,
        "build_flow_text_encoder",
        lambda vocabulary, width=32, layers=1: build(vocabulary, 32, 1),
    )


def work_folder(folder: Path) -> Path:
    """Latents, their scale and an untrained autoencoder, as the stages before leave them."""
    folder.mkdir()
    torch.manual_seed(0)
    vae = architecture.build_autoencoder()
    named = {f"model.vae.{name}": tensor for name, tensor in vae.state_dict().items()}
    save_tensors(folder / "autoencoder.safetensors", named, {"step": "1"})
    moments = torch.randn(4, 2, 12, 1, 1).sign().expand(4, 2, 12, 8, 8).clone()  # flat images
    moments[:, 1] = -3
    save_tensors(
        folder / "latents-0.safetensors",
        {"moments": moments.half()},
        {"captions": json.dumps(CAPTIONS)},
    )
    scale = {"mean": torch.full((12,), 0.1), "std": torch.full((12,), 1.2)}
    save_tensors(folder / "latent-scale.safetensors", scale)
    return folder


def settings(work: Path, steps: int, start: Path | None = None, save_every: int = 2) -> Settings:
    return Settings(work, 0, 1, "cpu", steps, 4, None, "emoji-scenes", start, save_every=save_every)


def trained(work: Path, steps: int, save_every: int = 2) -> dict[str, torch.Tensor]:
    train_flow(settings(work, steps, save_every=save_every), Process(0, 1))
    return load_tensors(work / "flow.safetensors")[0]


class Stopped(Exception):
    pass


def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(work_folder(tmp_path / "whole"), 4)
    cut = work_folder(tmp_path / "cut")

    class StoppingLog(training.Log):
        def add(self, step: int, **values: torch.Tensor) -> None:
            if step == 3:
                raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(flow_training, "Log", StoppingLog)
        with pytest.raises(Stopped):
            trained(cut, 4)
    assert load_tensors(cut / "flow.safetensors")[1]["step"] == "2"
    resumed = trained(cut, 4)
    assert resumed.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_some_steps_lower_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []

    class KeepingLog(training.Log):
        def add(self, step: int, **values: torch.Tensor) -> None:
            losses.append(values["loss"].item())

    monkeypatch.setattr(flow_training, "Log", KeepingLog)
    trained(work_folder(tmp_path / "work"), 100, save_every=100)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_the_packed_folder_gives_the_images_of_the_plain_pipeline(tmp_path: Path) -> None:
    from diffusers import StableDiffusion3Pipeline

    work = work_folder(tmp_path / "work")
    trained(work, 4)
    words = WORLDS["emoji-scenes"].words()
    for name in ("one", "two"):
        pack_flow(work, tmp_path / name, words)
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("one", "two")]
    assert manifests[0] == manifests[1]  # packing repeats to the byte
    policy = load_policy(str(tmp_path / "one"))
    pipeline: Any = StableDiffusion3Pipeline.from_pretrained(
        tmp_path / "one", text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    key = SampleKey(Prompt("a red ball"), 0)
    noise = sample_noise(key, 0, 3, policy.latent_shape)[:1]
    for guidance in (1.0, 3.0):
        expected = pipeline(
            "a red ball",
            latents=noise,
            num_inference_steps=3,
            guidance_scale=guidance,
            output_type="pt",
        ).images
        sampler = SamplerSettings(steps=3, guidance=guidance, eta=0.0, batch=1)
        (found,) = sample_images(policy, [key], sampler, seed=0)
        torch.testing.assert_close(found.pixels, expected, atol=1e-5, rtol=0)


def test_times_are_logit_normal() -> None:
    times = logit_normal_times(4000, np.random.default_rng(0)).double()
    logits = torch.logit(times)
    assert abs(float(logits.mean())) < 0.01
    assert abs(float(logits.std()) - 1) < 0.02


def test_the_text_encoder_starts_as_that_of_an_earlier_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The penultimate hidden states are the earlier model's last ones before its last norm."""
    monkeypatch.undo()  # of full width
    from importlib.resources import files

    from transformers import CLIPTextModel

    from pretraining.tokenizer import write_tokenizer
    from pretraining.warm_start import start_flow_text_encoder

    folder = Path(str(files("ddpo.policies") / "emoji" / "weights"))
    words = WORLDS["emoji"].words()
    vocabulary = write_tokenizer(tmp_path / "tokenizer", words)
    modules = flow_training.build_flow_modules(vocabulary)
    start_flow_text_encoder(modules["text_encoder"], tmp_path / "tokenizer", folder)
    tokens = token_ids(tmp_path / "tokenizer", ["a cat on a red background"])
    earlier: Any = CLIPTextModel.from_pretrained(folder / "text_encoder").float()
    with torch.no_grad():
        expected = earlier(tokens, output_hidden_states=True).hidden_states[-1]
        hidden, pooled = encode_text(modules, tokens)
        last = modules["text_encoder"](tokens, output_hidden_states=True).last_hidden_state
        whole = earlier(tokens).last_hidden_state
    torch.testing.assert_close(hidden[:, :16, :128], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, whole, atol=1e-5, rtol=1e-5)
    assert hidden.shape == (1, 17, 192)
    assert torch.equal(hidden[:, 16], torch.zeros(1, 192))
    assert pooled.shape == (1, 192)
