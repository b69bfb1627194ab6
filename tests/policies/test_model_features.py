"""Settings of a model's configs: honoured as in diffusers' pipelines, or refused by name."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)

from ddpo.errors import ConfigError
from ddpo.policies import load_policy
from ddpo.policies.flow_features import (
    FLOW_INDEX,
    FLOW_SCHEDULER,
    FLOW_VAE,
    SD3_TRANSFORMER,
    Z_IMAGE_TRANSFORMER,
    Z_IMAGE_VAE,
)
from ddpo.policies.flux_features import (
    FLUX_2_INDEX,
    FLUX_2_SCHEDULER,
    FLUX_2_TRANSFORMER,
    FLUX_2_VAE,
    FLUX_INDEX,
    FLUX_SCHEDULER,
    FLUX_TRANSFORMER,
    FLUX_VAE,
)
from ddpo.policies.model_features import KINDS, SCHEDULER, UNET, VAE
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images, sample_noise
from ddpo.types import Prompt

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
KEY = SampleKey(Prompt("a cat"), 0)


def changed(model: Path, to: Path, part: str, values: dict[str, Any]) -> str:
    """A copy of a model with other values in one config; None as "absent" takes the key away."""
    folder = shutil.copytree(model, to / "model")
    name = {"scheduler": "scheduler/scheduler_config.json", "model_index": "model_index.json"}.get(
        part, f"{part}/config.json"
    )
    config = json.loads((folder / name).read_text()) | values
    (folder / name).write_text(
        json.dumps({key: value for key, value in config.items() if value != "absent"})
    )
    return str(folder)


def difference(word: str, pipeline: Any, **options: Any) -> float:
    """The largest difference to a pipeline's image from the same noise, by deterministic DDIM."""
    pipeline.set_progress_bar_config(disable=True)
    policy = load_policy(word)
    noise = sample_noise(KEY, 0, 4, policy.latent_shape)[:1]
    drawn = pipeline(
        "a cat",
        latents=noise,
        num_inference_steps=4,
        guidance_scale=2.0,
        eta=0.0,
        output_type="pt",
        **options,
    ).images
    (found,) = sample_images(
        policy, [KEY], SamplerSettings(steps=4, guidance=2.0, eta=0.0, batch=1), seed=0
    )
    assert found.pixels.shape == drawn.shape
    return float((found.pixels - drawn).abs().max())


def sd_pipeline(word: str) -> Any:
    """The pipeline built with DDIM, which corrects the scheduler's outdated defaults."""
    config = {**json.loads((Path(word) / "scheduler" / "scheduler_config.json").read_text())}
    scheduler = DDIMScheduler.from_config(config)
    return StableDiffusionPipeline.from_pretrained(word, scheduler=scheduler, safety_checker=None)


def xl_pipeline(word: str) -> Any:
    pipeline = StableDiffusionXLPipeline.from_pretrained(word, add_watermarker=False)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    return pipeline


BETAS = [0.0005 + 0.00001 * step for step in range(1000)]
HONOURED: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"sample_size": [8, 12]}),
    ("unet", {"sample_size": 8, "_diffusers_version": "0.8.1"}),
    ("unet", {"center_input_sample": True}),
    ("unet", {"freq_shift": 1, "flip_sin_to_cos": False}),
    ("unet", {"timestep_post_act": "silu"}),
    ("unet", {"mid_block_scale_factor": 1.5}),
    ("unet", {"norm_eps": 1e-3}),
    ("unet", {"cross_attention_dim": [128, 128]}),
    ("unet", {"dropout": 0.3}),
    ("unet", {"decay": 0.99, "inv_gamma": 1.0, "power": 0.75}),
    ("unet", {"a_key_of_tomorrow": None}),
    ("vae", {"scaling_factor": 0.5}),
    ("vae", {"force_upcast": False}),
    ("scheduler", {"clip_sample": True}),
    ("scheduler", {"steps_offset": 0}),
    ("scheduler", {"steps_offset": "absent", "clip_sample": "absent"}),
    ("scheduler", {"prediction_type": "v_prediction"}),
    ("scheduler", {"prediction_type": "sample"}),
    (
        "scheduler",
        {
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
        },
    ),
    ("scheduler", {"beta_schedule": "linear"}),
    ("scheduler", {"beta_schedule": "squaredcos_cap_v2"}),
    ("scheduler", {"trained_betas": BETAS}),
    ("scheduler", {"num_train_timesteps": 500}),
    ("scheduler", {"set_alpha_to_one": True}),
    ("scheduler", {"timestep_spacing": "linspace"}),
    ("scheduler", {"_class_name": "PNDMScheduler", "skip_prk_steps": True}),
    (
        "scheduler",
        {
            "_class_name": "DPMSolverMultistepScheduler",
            "algorithm_type": "dpmsolver++",
            "use_karras_sigmas": True,
        },
    ),
    ("text_encoder", {"use_attention_mask": True}),
]


@pytest.mark.parametrize(("part", "values"), HONOURED)
def test_an_honoured_setting_gives_the_images_of_diffusers(
    tiny_model: Path, tmp_path: Path, part: str, values: dict[str, Any]
) -> None:
    word = changed(tiny_model, tmp_path, part, values)
    assert difference(word, sd_pipeline(word)) < 1e-4


XL_HONOURED: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"center_input_sample": True}),
    ("unet", {"_diffusers_version": "0.8.1"}),
    ("vae", {"latents_mean": [0.1, -0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 0.5, 3.0]}),
    ("vae", {"scaling_factor": 0.5}),
    ("scheduler", {"steps_offset": 0}),
    ("scheduler", {"steps_offset": 1, "timestep_spacing": "trailing"}),
    ("scheduler", {"prediction_type": "v_prediction"}),
    ("scheduler", {"use_karras_sigmas": True, "interpolation_type": "log_linear"}),
    ("model_index", {"force_zeros_for_empty_prompt": False}),
]


@pytest.mark.parametrize(("part", "values"), XL_HONOURED)
def test_an_honoured_setting_gives_the_images_of_diffusers_xl(
    tiny_xl: Path, tmp_path: Path, part: str, values: dict[str, Any]
) -> None:
    word = changed(tiny_xl, tmp_path, part, values)
    assert difference(word, xl_pipeline(word)) < 1e-4


IMAGE_PROJECTION = {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": 8}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "unet",
        {"time_cond_proj_dim": 256},
        "has time_cond_proj_dim = 256, .*latent consistency model",
    ),
    ("unet", {"class_embed_type": "timestep"}, "has class_embed_type = 'timestep'"),
    ("unet", {"num_class_embeds": 10}, "has num_class_embeds = 10"),
    ("unet", {"dual_cross_attention": True}, "has dual_cross_attention = True"),
    ("unet", IMAGE_PROJECTION, "has encoder_hid_dim_type = 'image_proj'"),
    ("unet", {"addition_embed_type": "image_hint"}, "has addition_embed_type = 'image_hint'"),
    (
        "unet",
        {"addition_embed_type": "text_time"},
        "has addition_embed_type = 'text_time', which Stable Diffusion does not have",
    ),
    ("unet", {"in_channels": 9}, "in_channels = 9 .an inpainting model."),
    ("unet", {"in_channels": 8}, "in_channels = 8 .an image-editing model."),
    ("unet", {"out_channels": 8}, "has out_channels = 8, not 4"),
    (
        "unet",
        {"cross_attention_dim": 64},
        "reads text of width 64, and its text encoder writes 128",
    ),
    ("unet", {"cross_attention_dim": [128, 64]}, "reads text of width 64"),
    ("unet", {"sample_size": None}, "has sample_size = None: write"),
    ("unet", {"sample_size": "8"}, "has sample_size = '8'"),
    ("unet", {"sample_size": [8, 8, 8]}, r"has sample_size = \[8, 8, 8\]"),
    ("unet", {"a_key_of_tomorrow": 3}, "has a_key_of_tomorrow = 3, which this ddpo does not know"),
    ("vae", {"shift_factor": 0.1}, "has shift_factor = 0.1"),
    (
        "vae",
        {"latents_mean": [0.0] * 4},
        "has latents_mean, which Stable Diffusion's pipeline does not heed",
    ),
    ("vae", {"latent_channels": 8}, "in_channels = 4, and its VAE 8 latent channels"),
    ("vae", {"a_key_of_tomorrow": "on"}, "has a_key_of_tomorrow = 'on'"),
    ("scheduler", {"thresholding": True}, "has thresholding = True"),
    (
        "scheduler",
        {"rescale_betas_zero_snr": True},
        "'epsilon' and no signal at the noisiest level",
    ),
    (
        "scheduler",
        {"trained_betas": [0.1] * 999 + [1.0]},
        "'epsilon' and no signal at the noisiest level",
    ),
    (
        "scheduler",
        {"trained_betas": BETAS[:10]},
        "has 10 trained_betas and num_train_timesteps = 1000",
    ),
    ("scheduler", {"trained_betas": [-0.1, *BETAS[1:]]}, "betas must be in"),
    ("scheduler", {"trained_betas": ["x"]}, "describes no schedule"),
    ("scheduler", {"num_train_timesteps": "many"}, "describes no schedule"),
    ("scheduler", {"beta_schedule": "sigmoid"}, "has beta_schedule = 'sigmoid'"),
    ("scheduler", {"prediction_type": "flow_prediction"}, "has prediction_type 'flow_prediction'"),
    ("scheduler", {"timestep_spacing": "other"}, "timestep_spacing 'other': ddpo reads"),
    ("scheduler", {"use_flow_sigmas": True}, "has use_flow_sigmas = True"),
    ("scheduler", {"sigma_max": 80.0}, "has sigma_max = 80.0"),
    ("scheduler", {"timestep_type": "continuous"}, "has timestep_type = 'continuous'"),
    ("scheduler", {"variance_type": "learned_range"}, "has variance_type = 'learned_range'"),
    ("scheduler", {"beta_schedule": "absent"}, "is not a variance-preserving diffusion"),
    (
        "model_index",
        {"controlnet": ["diffusers", "ControlNetModel"]},
        r"model_index .* has controlnet = ",
    ),
    (
        "model_index",
        {"scheduler": ["diffusers", "FlowMatchHeunDiscreteScheduler"]},
        "is a FlowMatchHeunDiscreteScheduler, and its denoiser is a U-Net",
    ),
    ("model_index", {"text_encoder": [None, None]}, "has no text_encoder"),
    (
        "model_index",
        {"text_encoder": ["transformers", "T5EncoderModel"]},
        "is a T5EncoderModel: ddpo reads CLIPTextModel",
    ),
]


@pytest.mark.parametrize(("part", "values", "message"), REFUSED)
def test_other_settings_are_refused_by_name(
    tiny_model: Path, tmp_path: Path, part: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_policy(changed(tiny_model, tmp_path, part, values))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


XL_REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("scheduler", {"clip_sample": True}, "has clip_sample = True"),
    (
        "unet",
        {"addition_embed_type": "text"},
        "has addition_embed_type = 'text', where Stable Diffusion XL has 'text_time'",
    ),
    ("model_index", {"text_encoder": [None, None]}, "has no text_encoder"),
    ("text_encoder_2", {"max_position_embeddings": 12}, "read 16 and 12 tokens"),
]


@pytest.mark.parametrize(("part", "values", "message"), XL_REFUSED)
def test_other_settings_of_xl_are_refused_by_name(
    tiny_xl: Path, tmp_path: Path, part: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_policy(changed(tiny_xl, tmp_path, part, values))


def schedulers() -> list[type]:
    """diffusers' schedulers of variance-preserving diffusions."""
    found = [getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")]
    return [
        one
        for one in found
        if inspect.isclass(one) and "beta_schedule" in inspect.signature(one.__init__).parameters
    ]


def keys_of(*classes: type) -> set[str]:
    return {name for one in classes for name in inspect.signature(one.__init__).parameters} - {
        "self",
        "kwargs",
    }


@pytest.mark.parametrize(
    ("table", "classes"),
    [
        (UNET, [UNet2DConditionModel]),
        (VAE, [AutoencoderKL]),
        (SCHEDULER, schedulers()),
        (SD3_TRANSFORMER, [SD3Transformer2DModel]),
        (FLOW_VAE, [AutoencoderKL]),
        (Z_IMAGE_TRANSFORMER, [ZImageTransformer2DModel]),
        (Z_IMAGE_VAE, [AutoencoderKL]),
        (FLOW_SCHEDULER, [FlowMatchEulerDiscreteScheduler]),
        (FLOW_INDEX, [StableDiffusion3Pipeline]),
        (FLUX_TRANSFORMER, [FluxTransformer2DModel]),
        (FLUX_VAE, [AutoencoderKL]),
        (FLUX_SCHEDULER, [FlowMatchEulerDiscreteScheduler]),
        (FLUX_INDEX, [FluxPipeline]),
        (FLUX_2_TRANSFORMER, [Flux2Transformer2DModel]),
        (FLUX_2_VAE, [AutoencoderKLFlux2]),
        (FLUX_2_SCHEDULER, [FlowMatchEulerDiscreteScheduler]),
        (FLUX_2_INDEX, [Flux2KleinPipeline]),
    ],
)
def test_every_key_of_the_installed_diffusers_is_in_a_table(
    table: Any, classes: list[type]
) -> None:
    assert keys_of(*classes) - set(table) == set()


@pytest.mark.parametrize(
    ("title", "table"),
    {
        "UNet": UNET,
        "VAE": VAE,
        "Scheduler": SCHEDULER,
        "`model_index.json`": KINDS["model_index"],
        "Transformer of Stable Diffusion 3": SD3_TRANSFORMER,
        "VAE of flow models": FLOW_VAE,
        "Scheduler of flow models": FLOW_SCHEDULER,
        "`model_index.json` of Stable Diffusion 3": FLOW_INDEX,
        "Transformer of FLUX.1": FLUX_TRANSFORMER,
        "VAE of FLUX.1": FLUX_VAE,
        "Scheduler of FLUX.1": FLUX_SCHEDULER,
        "`model_index.json` of FLUX.1": FLUX_INDEX,
        "Transformer of FLUX.2 klein": FLUX_2_TRANSFORMER,
        "VAE of FLUX.2 klein": FLUX_2_VAE,
        "Scheduler of FLUX.2 klein": FLUX_2_SCHEDULER,
        "`model_index.json` of FLUX.2 klein": FLUX_2_INDEX,
        "Transformer of Z-Image": Z_IMAGE_TRANSFORMER,
        "VAE of Z-Image": Z_IMAGE_VAE,
    }.items(),
)
def test_the_page_states_every_key_as_the_table_does(title: str, table: Any) -> None:
    section = PAGE.read_text(encoding="utf-8").partition(f"### {title}\n")[2].partition("\n#")[0]
    stated = {
        key: (treatment, note)
        for names, treatment, note in re.findall(
            r"^\| (`[^|]+`) \| ([a-z ]+) \| (.+) \|$", section, re.MULTILINE
        )
        for key in re.findall(r"`(\w+)`", names)
    }
    assert stated.keys() == table.keys()
    assert [
        key
        for key, setting in table.items()
        if stated[key][0] != setting.treatment or setting.note not in stated[key][1]
    ] == []


def test_the_safety_checker_and_its_like_are_not_loaded(tiny_model: Path, tmp_path: Path) -> None:
    absent = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "image_encoder": ["transformers", "X"],
    }
    word = changed(tiny_model, tmp_path, "model_index", absent)
    latents = torch.zeros(1, 4, 8, 8)
    assert torch.equal(
        load_policy(word).decode(latents), load_policy(str(tiny_model)).decode(latents)
    )
