"""FLUX models and files that would give other images: each is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ddpo.errors import CheckpointError, ConfigError, MissingResourceError, UserError
from ddpo.policies import load_policy
from ddpo.policies.base_model import open_model
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.prompt_reader import PromptReader
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images
from ddpo.types import Prompt
from tests.tiny_flux_models import write_tiny_flux, write_tiny_klein

Run = Callable[..., tuple[int, str, str]]
KEYS = [SampleKey(Prompt("a cat"), 0)]
FILES = {"scheduler": "scheduler/scheduler_config.json", "model_index": "model_index.json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("flux")
    return {
        "flux": write_tiny_flux(place / "flux"),
        "klein": write_tiny_klein(place / "klein"),
        "schnell": write_tiny_flux(place / "without", guidance_embeds=False),
    }


def changed(model: Path, to: Path, part: str, **values: Any) -> Path:
    """A copy of a model with other values in one config."""
    folder = shutil.copytree(model, to / "model")
    file = folder / FILES.get(part, f"{part}/config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


BOTH: list[tuple[str, dict[str, Any], str]] = [
    ("vae", {"sample_size": 72}, "sample_size = 72, .* a multiple of 16 into vae/config.json"),
    ("vae", {"sample_size": [64, 72]}, r"sample_size = \[64, 72\], .* a multiple of 16"),
    ("vae", {"sample_size": [64]}, r"sample_size = \[64\], .* a multiple of 16"),
    ("vae", {"sample_size": 0}, "sample_size = 0, .* a multiple of 16"),
    ("vae", {"sample_size": "64"}, "sample_size = '64', .* a multiple of 16"),
    ("vae", {"latent_channels": 3}, "3 latent channels, 12 in a token"),
    ("vae", {"out_channels": 4}, "out_channels = 4: ddpo needs RGB images"),
    ("transformer", {"in_channels": 64}, "in_channels = 64 and writes 64"),
    ("transformer", {"patch_size": 2}, "patch_size = 2, which ddpo does not support"),
    ("transformer", {"joint_attention_dim": 31}, "joint_attention_dim = 31"),
    ("transformer", {"axes_dims_rope": [8, 8]}, r"axes_dims_rope = \[8, 8\]: it must be . numbers"),
    ("transformer", {"of_tomorrow": 3}, "of_tomorrow = 3, which this ddpo does not know"),
    ("scheduler", {"_class_name": "DDIMScheduler"}, "is a DDIMScheduler, .* put back its own"),
    ("scheduler", {"time_shift_type": "linear"}, "time_shift_type = 'linear'"),
    ("scheduler", {"use_karras_sigmas": True}, "use_karras_sigmas = True"),
    ("scheduler", {"shift_terminal": 0.02}, "shift_terminal = 0.02"),
]
ONE: list[tuple[str, str, dict[str, Any], str]] = [
    ("flux", "scheduler", {"max_shift": "x"}, "max_shift must be a number, got 'x'"),
    ("flux", "scheduler", {"max_image_seq_len": 256}, "cannot run through μ = 0.5 at 256 tokens"),
    ("flux", "scheduler", {"max_shift": -1e9}, "cannot run through μ = 0.5 at 256 tokens"),
    ("flux", "scheduler", {"max_shift": float("nan")}, "must be above 0, got nan"),
    ("flux", "transformer", {"pooled_projection_dim": 17}, r"and its text encoders write 16 \(CLI"),
    ("flux", "model_index", {"text_encoder_2": [None, None]}, "has no text_encoder_2: it cannot"),
    ("flux", "model_index", {"tokenizer_2": [None, None]}, "has no tokenizer_2: it cannot"),
    (
        "flux",
        "model_index",
        {"_class_name": "FluxImg2ImgPipeline"},
        "FluxImg2ImgPipeline; ddpo can",
    ),
    ("klein", "transformer", {"guidance_embeds": True}, "klein has classifier-free guidance or no"),
    ("klein", "vae", {"patch_size": [4, 4]}, r"patch_size = \[4, 4\], which ddpo does not support"),
    ("klein", "model_index", {"text_encoder": [None, None]}, "has no text_encoder: it cannot"),
]


@pytest.mark.parametrize(
    ("family", "part", "values", "words"),
    [*ONE, *((family, *case) for family in ("flux", "klein") for case in BOTH)],
)
def test_a_model_that_would_give_other_images_is_refused(
    models: dict[str, Path],
    tmp_path: Path,
    family: str,
    part: str,
    values: dict[str, Any],
    words: str,
) -> None:
    model = changed(models[family], tmp_path, part, **values)
    with pytest.raises(ConfigError, match=words) as caught:
        load_policy(str(model), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "part"), [("flux", "text_encoder_2"), ("klein", "text_encoder")]
)
def test_a_missing_encoder_is_named(
    models: dict[str, Path], tmp_path: Path, family: str, part: str
) -> None:
    model = shutil.copytree(models[family], tmp_path / "model")
    shutil.rmtree(model / part)
    with pytest.raises(MissingResourceError, match=f"is incomplete: .* has no folder {part}/"):
        load_policy(str(model), device="cpu")


def test_qwen_with_too_few_layers_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    model = shutil.copytree(models["klein"], tmp_path / "model")
    file = model / "text_encoder" / "config.json"
    config = json.loads(file.read_text()) | {"num_hidden_layers": 20}
    config["layer_types"] = config["layer_types"][:20]
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"num_hidden_layers = 20, .* of the layers 9, 18, 27"):
        load_policy(str(model), device="cpu")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"transition": "ddim"}, "is a flow model: transition must be flow_sde"),
        ({"transition": "ode", "eta": 0.5}, "eta = 0.5 has no effect with transition = 'ode'"),
        ({"transition": "cps", "eta": 1.5}, "eta must be at least 0 and at most 1"),
        ({"grid": "karras"}, "grid must be auto, diffusers or linspace"),
    ],
)
def test_a_sampler_of_another_kind_is_refused(
    models: dict[str, Path], values: dict[str, Any], words: str
) -> None:
    for family in ("flux", "klein"):
        policy = load_policy(str(models[family]), device="cpu")
        with pytest.raises(ConfigError, match=words):
            list(sample_images(policy, KEYS, SamplerSettings(steps=2, batch=1, **values), 0))


def test_the_grid_diffusers_is_that_of_the_installed_scheduler(models: dict[str, Path]) -> None:
    from math import log

    from diffusers import FlowMatchEulerDiscreteScheduler

    for family in ("flux", "klein"):
        policy: Any = load_policy(str(models[family]), device="cpu")
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(models[family] / "scheduler")
        for steps in (1, 4, 28):
            scheduler.set_timesteps(steps, mu=log(policy.schedule.shift_of(steps)))
            ours = policy.schedule.sampled_by("auto", "diffusers").sigmas(steps)
            torch.testing.assert_close(ours, scheduler.sigmas.double(), atol=1e-6, rtol=0)


def lora_of(model: Path, to: Path) -> Path:
    """The file of a LoRA as plain diffusers has it, alone in a folder."""
    policy = load_policy(str(model), device="cpu")
    policy.adapt("lora")
    (to / "own").mkdir(parents=True)
    policy.save(to / "own", 1)
    (to / "file").mkdir()
    shutil.copy(to / "own" / "pytorch_lora_weights.safetensors", to / "file")
    return to / "file"


def test_a_lora_of_another_family_is_refused(
    models: dict[str, Path], tiny_model: Path, tiny_sd3: Path, tmp_path: Path
) -> None:
    places = {"unet": tiny_model, "sd3": tiny_sd3, "flux": models["flux"], "klein": models["klein"]}
    loras = {name: lora_of(model, tmp_path / name) for name, model in places.items()}
    fits = {"flux": "flux", "klein": "klein"}
    for base in fits:
        for name, lora in loras.items():
            info = find_checkpoint(lora, str(places[base]))
            if name == base:
                load_policy(str(places[base]), info, device="cpu")
                continue
            words = "is a LoRA of a U-Net" if name == "unet" else "does not fit"
            with pytest.raises(CheckpointError, match=words) as caught:
                load_policy(str(places[base]), info, device="cpu")
            assert "\n" not in str(caught.value)


def test_a_distilled_model_is_trained_after_a_warning(
    ddpo: Run, models: dict[str, Path], tmp_path: Path
) -> None:
    """schnell is recognised by its denoiser, a klein by its index, whatever their names are."""
    distilled = changed(models["klein"], tmp_path, "model_index", is_distilled=True)
    options = (
        "--reward",
        "darkness",
        "--dry-run",
        "--out",
        tmp_path / "run",
        "--set",
        "device=cpu",
    )
    for model, word in ((models["schnell"], "schnell"), (distilled, "distilled")):
        code, out, errors = ddpo("train", "--model", model, *options)
        assert code == 0, errors
        assert f"is distilled to few steps ('{word}')" in out + errors
    code, out, errors = ddpo("train", "--model", models["flux"], *options)
    assert code == 0, errors
    assert "is distilled to few steps" not in out + errors
    assert "sample.eta=0.9 is much noise for a guidance-distilled model" in out + errors
    assert "recipe flux1 (FLUX.1)" in out


def test_qwen_reads_a_prompt_after_the_opening_of_its_chat(models: dict[str, Path]) -> None:
    reader = PromptReader(open_model(str(models["klein"])))
    opening = len("<") + len("user\n")  # the start of a message is one token, each letter another
    assert (reader.length, reader.kept) == (512, 512 - opening)
    assert reader.unread("a" * reader.kept) == ""
    assert reader.unread("a" * reader.kept + "bc") == "bc"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("double_blocks.0.img_attn.qkv.weight", "from diffusers import FluxPipeline as P"),
        ("double_stream_modulation_img.lin.weight", "the transformer of a FLUX.2 model in one fil"),
    ],
)
def test_a_model_in_one_file_is_named_with_what_to_do(
    tmp_path: Path, name: str, words: str
) -> None:
    save_file({name: torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=words):
        load_policy(str(tmp_path / "model.safetensors"))
