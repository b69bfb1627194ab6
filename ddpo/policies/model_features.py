"""The settings of a model's configs that ddpo honours, refuses or ignores, one table per config.

A setting that changes the images is honoured as in diffusers' own pipeline, or refused by name. An
unknown setting is refused too, unless it has the default of the installed diffusers. So a newer
model fails when it is loaded, not in its images. `docs/models.md` shows these tables.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ddpo.errors import ConfigError

__all__ = [
    "HONOURED",
    "INDEX",
    "KINDS",
    "REFUSED",
    "SCHEDULER",
    "UNET",
    "VAE",
    "WITHOUT_EFFECT",
    "Setting",
    "check_settings",
    "check_shapes",
    "default_config",
    "flat_widths",
]

HONOURED: Final = "honoured"
REFUSED: Final = "refused"
WITHOUT_EFFECT: Final = "without effect"


@dataclass(frozen=True, slots=True)
class Setting:
    """The treatment of one key of a config."""

    treatment: str  # HONOURED, REFUSED or WITHOUT_EFFECT
    note: str = ""
    refused: Callable[[Any], bool] | None = None  # for REFUSED: True for the refused values


def _given(value: Any) -> bool:
    return value is not None and value is not False


def _not_in(*accepted: Any) -> Callable[[Any], bool]:
    return lambda value: value not in accepted


def _is(*names: str, note: str = "built by diffusers' own class") -> dict[str, Setting]:
    return {name: Setting(HONOURED, note) for name in names}


def _ignored(note: str, *names: str) -> dict[str, Setting]:
    return {name: Setting(WITHOUT_EFFECT, note) for name in names}


def _refused(note: str, *names: str, when: Callable[[Any], bool] = _given) -> dict[str, Setting]:
    return {name: Setting(REFUSED, note, when) for name in names}


EMA: Final = (
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
)

UNET: Final[Mapping[str, Setting]] = {
    **_is(
        "center_input_sample",
        "flip_sin_to_cos",
        "freq_shift",
        "down_block_types",
        "mid_block_type",
        "up_block_types",
        "only_cross_attention",
        "block_out_channels",
        "layers_per_block",
        "downsample_padding",
        "mid_block_scale_factor",
        "act_fn",
        "norm_num_groups",
        "norm_eps",
        "transformer_layers_per_block",
        "reverse_transformer_layers_per_block",
        "encoder_hid_dim",
        "attention_head_dim",
        "num_attention_heads",
        "use_linear_projection",
        "addition_time_embed_dim",
        "upcast_attention",
        "resnet_time_scale_shift",
        "resnet_skip_time_act",
        "resnet_out_scale_factor",
        "time_embedding_type",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
        "conv_in_kernel",
        "conv_out_kernel",
        "projection_class_embeddings_input_dim",
        "attention_type",
        "class_embeddings_concat",
        "mid_block_only_cross_attention",
        "cross_attention_norm",
        "addition_embed_type_num_heads",
    ),
    **_is("cross_attention_dim", note="must be the width of the text encoders, in every block"),
    **_is(
        "sample_size",
        note="a number, or height and width; a config of diffusers before 0.9 with less than 64 "
        "means 64, as in the pipeline; refused if there is none",
    ),
    **_is(
        "in_channels",
        note="must be the VAE's latent_channels; 9 (inpainting) and 8 (image editing) are refused",
    ),
    **_is("out_channels", note="must equal in_channels"),
    **_refused(
        "the guidance is an input of the denoiser (a latent consistency model), "
        "which ddpo does not give it",
        "time_cond_proj_dim",
    ),
    **_refused("the denoiser wants class labels", "class_embed_type", "num_class_embeds"),
    **_refused("the denoiser wants two kinds of conditioning", "dual_cross_attention"),
    **_refused(
        "the denoiser wants an image as conditioning",
        "encoder_hid_dim_type",
        when=_not_in(None, "text_proj"),
    ),
    **_refused(
        "Stable Diffusion has none or `text`, XL has `text_time`; "
        "others want conditioning that ddpo does not give",
        "addition_embed_type",
        when=_not_in(None, "text", "text_time"),
    ),
    **_ignored("ddpo runs the denoiser in evaluation mode", "dropout"),
    **_ignored("an average over training, of no use afterwards", *EMA),
}
"""The keys of `UNet2DConditionModel`."""

VAE: Final[Mapping[str, Setting]] = {
    **_is(
        "in_channels",
        "down_block_types",
        "up_block_types",
        "block_out_channels",
        "layers_per_block",
        "act_fn",
        "latent_channels",
        "norm_num_groups",
        "use_quant_conv",
        "use_post_quant_conv",
        "mid_block_add_attention",
    ),
    **_is("out_channels", note="must be 3"),
    **_is("scaling_factor", note="latents are divided by it"),
    **_is(
        "latents_mean",
        "latents_std",
        note="Stable Diffusion XL only, as in the pipeline; refused for Stable Diffusion",
    ),
    **_is("force_upcast", note="Stable Diffusion XL in float16: the VAE decodes in float32"),
    **_refused(
        "no pipeline of Stable Diffusion heeds it",
        "shift_factor",
        when=lambda value: value not in (None, 0),
    ),
    **_ignored("for decoding in tiles, which ddpo does not do", "sample_size"),
}
"""The keys of `AutoencoderKL`."""

ANOTHER_SAMPLER: Final = (
    "a choice of another sampler; ddpo samples with DDIM, whatever sampler is named"
)

SCHEDULER: Final[Mapping[str, Setting]] = {
    **_is(
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "trained_betas",
        "set_alpha_to_one",
        note="",
    ),
    **_refused(
        "DDIM has none such",
        "beta_schedule",
        when=_not_in("linear", "scaled_linear", "squaredcos_cap_v2"),
    ),
    **_is("timestep_spacing", note="leading, trailing or linspace; others are refused"),
    **_is(
        "prediction_type",
        note="epsilon, v_prediction or sample; others are refused, "
        "as is epsilon where the noisiest level has no signal",
    ),
    **_is(
        "rescale_betas_zero_snr",
        note="refused with epsilon: at zero signal it says nothing of the image",
    ),
    **_is(
        "steps_offset",
        note="Stable Diffusion: 1 whatever is written, as in the pipeline; XL: as written, else 0",
    ),
    **_refused(
        "it clips predicted images, and these are latents; Stable Diffusion's pipeline turns it "
        "off whatever is written, so that only XL refuses it",
        "clip_sample",
    ),
    **_refused("it clips predicted images, and these are latents", "thresholding"),
    **_ignored(
        "of clip_sample and thresholding",
        "clip_sample_range",
        "sample_max_value",
        "dynamic_thresholding_ratio",
    ),
    **_refused(
        "the model was trained for noise levels that are not those of its betas",
        "sigma_min",
        "sigma_max",
        "snr_shift_scale",
    ),
    **_refused(
        "a flow-matching model, which is no variance-preserving diffusion",
        "use_flow_sigmas",
        "use_dynamic_shifting",
    ),
    **_refused(
        "the denoiser wants continuous times", "timestep_type", when=_not_in(None, "discrete")
    ),
    **_refused(
        "the denoiser predicts a variance too",
        "variance_type",
        when=lambda value: isinstance(value, str) and "learned" in value,
    ),
    **_ignored(
        ANOTHER_SAMPLER,
        "solver_order",
        "algorithm_type",
        "solver_type",
        "lower_order_final",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "euler_at_final",
        "lambda_min_clipped",
        "use_lu_lambdas",
        "final_sigmas_type",
        "interpolation_type",
        "original_inference_steps",
        "timestep_scaling",
        "skip_prk_steps",
        "eta",
        "predictor_order",
        "corrector_order",
        "tau_func",
        "predict_x0",
        "disable_corrector",
        "solver_p",
        "use_clipped_model_output",
    ),
    **_ignored(
        "of flow matching, which is refused", "flow_shift", "time_shift_type", "shift_terminal"
    ),
}
"""The keys of the variance-preserving schedulers of diffusers."""

INDEX: Final[Mapping[str, Setting]] = {
    **_is("force_zeros_for_empty_prompt", note="Stable Diffusion XL: the empty prompt is zeros"),
    **_ignored(
        "ddpo checks no image for safety",
        "requires_safety_checker",
        "safety_checker",
        "feature_extractor",
    ),
    **_ignored("for image prompts, which ddpo does not give", "image_encoder"),
    **_ignored("ddpo adds no watermark", "add_watermarker"),
    **_is(
        "unet",
        "vae",
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        note="a component",
    ),
}
"""The keys of `model_index.json`."""

KINDS: Final[Mapping[str, Mapping[str, Setting]]] = {
    "unet": UNET,
    "vae": VAE,
    "scheduler": SCHEDULER,
    "model_index": INDEX,
}


MODELS_BY_CHANNELS: Final = {
    9: " (an inpainting model)",
    8: " (an image-editing model)",
    5: " (a depth model)",
    7: " (an upscaler)",
}


def check_settings(
    kind: str, config: Mapping[str, Any], model: str, defaults: Mapping[str, Any] | None = None
) -> None:
    """Raises for a setting of a config that changes the images and is not honoured.

    Args:
        kind: Key of `KINDS`.
        config: Config as in its file; diffusers' notes have keys with a leading "_".
        model: Name of the model in messages.
        defaults: Defaults of the installed diffusers' class, for keys outside the tables.

    Raises:
        ConfigError: There is such a setting; the message names it and its value.
    """
    table = KINDS[kind]
    for key, value in config.items():
        if key.startswith("_"):
            continue
        where = f"the {kind} of the model {model!r} has {key} = {value!r}"
        setting = table.get(key)
        if setting is None:
            default = _plain((defaults or {}).get(key))
            if _given(value) and value != [None, None] and _plain(value) != default:
                raise ConfigError(f"{where}, which this ddpo does not know")
        elif setting.refused is not None and setting.refused(value):
            raise ConfigError(f"{where}, which ddpo does not support: {setting.note}")


def check_shapes(
    unet: Mapping[str, Any], vae: Mapping[str, Any], text_width: int, model: str
) -> None:
    """Raises unless the channels and widths of a model's components match.

    Args:
        unet: Config of the UNet with its defaults.
        vae: Config of the VAE with its defaults.
        text_width: Width of the text conditioning.
        model: Name of the model in messages.

    Raises:
        ConfigError: Two components do not fit.
    """
    channels = unet["in_channels"]
    latent = vae["latent_channels"]
    where = f"the unet of the model {model!r}"
    if channels != latent:
        raise ConfigError(
            f"{where} has in_channels = {channels}{MODELS_BY_CHANNELS.get(channels, '')}, "
            f"and its VAE {latent} latent channels: ddpo supports text-to-image models only"
        )
    if unet["out_channels"] != channels:
        raise ConfigError(
            f"{where} has out_channels = {unet['out_channels']}, not {channels}: "
            "ddpo reads one prediction, no variance"
        )
    if vae["out_channels"] != 3:
        raise ConfigError(
            f"the vae of the model {model!r} has out_channels = {vae['out_channels']}: "
            "ddpo needs RGB images"
        )
    width = unet["encoder_hid_dim"] or unet["cross_attention_dim"]
    if odd := [one for one in flat_widths(width) if one != text_width]:
        raise ConfigError(
            f"{where} reads text of width {odd[0]}, and its text encoder writes {text_width}"
        )


def default_config(model: type) -> dict[str, Any]:
    """The default config of a diffusers class, by the names of its settings."""
    parameters = inspect.signature(model.__init__).parameters  # type: ignore[misc]
    return {name: one.default for name, one in parameters.items()}


def flat_widths(value: Any) -> list[int]:
    """The numbers of a width given as one number or a nested list."""
    if isinstance(value, (list, tuple)):
        return [width for part in value for width in flat_widths(part)]
    return [value]


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
