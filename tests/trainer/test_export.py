"""An exported checkpoint in plain diffusers samples the images of `ddpo sample`, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from ddpo.errors import CheckpointError, ConfigError, RunExistsError, UserError
from ddpo.images import to_uint8
from ddpo.policies import load_policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images
from ddpo.policies.stable_diffusion import StableDiffusionPolicy
from ddpo.trainer import config_from_dict
from ddpo.trainer.loop import train
from ddpo.trainer.run.export import export, push_to_hub
from ddpo.types import Prompt

Run = Callable[..., tuple[int, str, str]]


def trained(model: Path, out: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "model": str(model),
        "reward": "darkness",
        "iterations": 2,
        "checkpoint_every": 2,
        "held_out": "colorfulness",
        "sample": {"samples": 8, "per_prompt": 2, "steps": 2, "batch": 8},
        "optim": {"updates": 1, "timesteps": 1, "lr": 3e-2},
    }
    list(train(config_from_dict(values | changes), out))
    return out


@pytest.fixture(scope="module")
def lora_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(
        tiny_model,
        tmp_path_factory.mktemp("runs") / "lora",
        adapt={"kind": "lora", "rank": 3, "alpha": 6},
    )


@pytest.fixture(scope="module")
def full_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_model, tmp_path_factory.mktemp("runs") / "full", adapt={"kind": "full"})


def drawn_by(pipeline: Any, model: Path) -> list[Any]:
    """Images by our noise and sampler, with the weights as the pipeline loaded them."""
    policy = StableDiffusionPolicy(str(model))
    policy.reader.tokenizers = [pipeline.tokenizer]
    for name in ("text_encoder", "unet", "vae"):
        setattr(policy, name, getattr(pipeline, name))
    keys = [SampleKey(Prompt("a cat"), 0), SampleKey(Prompt("a cat"), 1)]
    (batch,) = sample_images(policy, keys, SamplerSettings(steps=3, guidance=2.5, batch=2), seed=0)
    return list(to_uint8(batch.pixels))


def sampled(ddpo: Run, checkpoint: Path | None, model: Path, out: Path) -> list[Any]:
    """The images of `ddpo sample`."""
    chosen = ("--checkpoint", checkpoint) if checkpoint else ("--model", model)
    code, _, errors = ddpo(
        "sample", "a cat", *chosen, "--per-prompt", 2, "--steps", 3, "--guidance", 2.5, "--out", out
    )
    assert code == 0, errors
    return [np.asarray(Image.open(path)) for path in sorted(out.glob("*-?.png"))]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) == 2 and all(
        np.array_equal(a, b) for a, b in zip(one, other, strict=True)
    )


def test_a_lora_in_plain_diffusers_gives_the_same_images(
    ddpo: Run, lora_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    code, output, errors = ddpo("export", lora_run, "--out", tmp_path / "out")
    assert code == 0, errors
    assert "load_lora_weights" in output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "pytorch_lora_weights.safetensors",
    ]
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipeline.load_lora_weights(tmp_path / "out")
    expected = sampled(ddpo, lora_run, tiny_model, tmp_path / "tuned")
    assert same(drawn_by(pipeline, tiny_model), expected)
    assert not same(sampled(ddpo, None, tiny_model, tmp_path / "base"), expected), (
        "the training changed nothing that can be seen"
    )


def test_a_full_checkpoint_is_a_pipeline_that_gives_the_same_images(
    ddpo: Run, full_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    export(full_run, tmp_path / "out")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    expected = sampled(ddpo, full_run, tiny_model, tmp_path / "tuned")
    assert same(drawn_by(pipeline, tiny_model), expected)
    assert same(sampled(ddpo, None, tmp_path / "out", tmp_path / "again"), expected), (
        "it is a base model for ddpo, too"
    )
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a cat", num_inference_steps=2).images[0].size == (16, 16)


def test_merged_adapters_are_the_denoiser_but_for_rounding(
    lora_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """(W + BA) x and W x + BA x are not the same bits."""
    export(lora_run, tmp_path / "out", merge=True)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert not any("lora" in name for name, _ in pipeline.unet.named_parameters())
    policy = load_policy(str(tiny_model), lora_run)
    base = load_policy(str(tiny_model))
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    times = torch.tensor([10, 700])
    hidden = base.encode(["a cat", "a dog"])
    with torch.no_grad():
        merged, beside, before = (
            pipeline.unet(latents, times, hidden).sample,
            *(p.predict(latents, times, hidden) for p in (policy, base)),
        )
    rounding = (merged - beside).abs().max()
    change = (before - beside).abs().max()
    assert rounding < 1e-5 < 100 * rounding < change


def test_the_model_card_has_the_facts_of_the_run_folder(lora_run: Path, tmp_path: Path) -> None:
    export(lora_run / "best", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: diffusers\npipeline_tag: text-to-image\ntags:\n")
    last = json.loads((lora_run / "metrics.jsonl").read_text().splitlines()[-1])
    manifest = json.loads((lora_run / "manifest.json").read_text())
    for fact in (
        "| method | `ddpo_is`, LoRA of rank 3, alpha 6 |",
        "| reward queries | 16 (8 images an iteration) |",
        "| iterations | 2 of 2 |",
        f"Signature: `{manifest['reward']['signature']}`",
        f"| 2 | {last['reward_mean']:.4g} ± {last['reward_se']:.4g} | 16 "
        f"| {last['held_out']:.4g} |",
        "“a cat”",
        'pipeline("a cat", num_inference_steps=2, guidance_scale=1, eta=1).images[0]',
        "`colorfulness`, not trained on",
        "Known flaws: ",
        "The licence of the base model was not known",
    ):
        assert fact in text
    assert str(lora_run.parent) not in text, "no path of this machine"


def test_what_cannot_be_exported_or_uploaded_is_reported_in_one_line(
    lora_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        export(tmp_path / "none", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="choose another --out"):
        export(lora_run, tmp_path / "full")
    (tmp_path / "full" / "weights.safetensors").write_bytes(b"")
    record = {
        "schema": 1,
        "model": "theirs",
        "kind": "full",
        "iteration": 1,
        "weights": "weights.safetensors",
    }
    (tmp_path / "full" / "policy.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="of the model 'theirs', which diffusers cannot load"):
        export(tmp_path / "full", tmp_path / "out")
    export(lora_run, tmp_path / "out")
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    with pytest.raises(UserError, match="is written, but not uploaded: DDPO_OFFLINE"):
        push_to_hub(tmp_path / "out", "somebody/something")
    monkeypatch.delenv("DDPO_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="log in first, with `hf auth login`"):
        push_to_hub(tmp_path / "out", "somebody/something")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_none")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="is written, but not uploaded"):
        push_to_hub(tmp_path / "out", "somebody/something")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "out"]
