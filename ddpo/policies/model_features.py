"""The settings of a model's configs that ddpo honours, refuses or ignores, one table per config.

A setting that changes the images is honoured as in diffusers' own pipeline, or refused by name. An
unknown setting is refused too, unless it has the default of the installed diffusers. So a newer
model fails when it is loaded, not in its images. `docs/models.md` shows these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

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
    "given",
    "honoured",
    "ignored",
    "not_in",
    "refused",
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


def given(value: Any) -> bool:
    """True for a value that is set."""
    return value is not None and value is not False


def not_in(*accepted: Any) -> Callable[[Any], bool]:
    """The test for values other than these."""
    return lambda value: value not in accepted


def honoured(*names: str, note: str = "built by diffusers' own class") -> dict[str, Setting]:
    """Keys that are honoured, with a note."""
    return {name: Setting(HONOURED, note) for name in names}


def ignored(note: str, *names: str) -> dict[str, Setting]:
    """Keys without effect, with the reason."""
    return {name: Setting(WITHOUT_EFFECT, note) for name in names}


def refused(note: str, *names: str, when: Callable[[Any], bool] = given) -> dict[str, Setting]:
    """Keys that are refused for the values of `when`, with the reason."""
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
    **honoured(
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
    **honoured(
        "cross_attention_dim", note="must be the width of the text encoders, in every block"
    ),
    **honoured(
        "sample_size",
        note="a number, or height and width; a config of diffusers before 0.9 with less than 64 "
        "means 64, as in the pipeline; refused if there is none",
    ),
    **honoured(
        "in_channels",
        note="must be the VAE's latent_channels; 9 (inpainting) and 8 (image editing) are refused",
    ),
    **honoured("out_channels", note="must equal in_channels"),
    **refused(
        "the guidance is an input of the denoiser (a latent consistency model), "
        "which ddpo does not give it",
        "time_cond_proj_dim",
    ),
    **refused("the denoiser wants class labels", "class_embed_type", "num_class_embeds"),
    **refused("the denoiser wants two kinds of conditioning", "dual_cross_attention"),
    **refused(
        "the denoiser wants an image as conditioning",
        "encoder_hid_dim_type",
        when=not_in(None, "text_proj"),
    ),
    **refused(
        "Stable Diffusion has none or `text`, XL has `text_time`; "
        "others want conditioning that ddpo does not give",
        "addition_embed_type",
        when=not_in(None, "text", "text_time"),
    ),
    **ignored("ddpo runs the denoiser in evaluation mode", "dropout"),
    **ignored("an average over training, of no use afterwards", *EMA),
}
"""The keys of `UNet2DConditionModel`."""

VAE: Final[Mapping[str, Setting]] = {
    **honoured(
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
    **honoured("out_channels", note="must be 3"),
    **honoured("scaling_factor", note="latents are divided by it"),
    **honoured(
        "latents_mean",
        "latents_std",
        note="Stable Diffusion XL only, as in the pipeline; refused for Stable Diffusion",
    ),
    **honoured("force_upcast", note="Stable Diffusion XL in float16: the VAE decodes in float32"),
    **refused(
        "no pipeline of Stable Diffusion heeds it",
        "shift_factor",
        when=lambda value: value not in (None, 0),
    ),
    **ignored("for decoding in tiles, which ddpo does not do", "sample_size"),
}
"""The keys of `AutoencoderKL`."""

ANOTHER_SAMPLER: Final = (
    "a choice of another sampler; ddpo samples with DDIM, whatever sampler is named"
)

SCHEDULER: Final[Mapping[str, Setting]] = {
    **honoured(
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "trained_betas",
        "set_alpha_to_one",
        note="",
    ),
    **refused(
        "DDIM has none such",
        "beta_schedule",
        when=not_in("linear", "scaled_linear", "squaredcos_cap_v2"),
    ),
    **honoured("timestep_spacing", note="leading, trailing or linspace; others are refused"),
    **honoured(
        "prediction_type",
        note="epsilon, v_prediction or sample; others are refused, "
        "as is epsilon where the noisiest level has no signal",
    ),
    **honoured(
        "rescale_betas_zero_snr",
        note="refused with epsilon: at zero signal it says nothing of the image",
    ),
    **honoured(
        "steps_offset",
        note="Stable Diffusion: 1 whatever is written, as in the pipeline; XL: as written, else 0",
    ),
    **refused(
        "it clips predicted images, and these are latents; Stable Diffusion's pipeline turns it "
        "off whatever is written, so that only XL refuses it",
        "clip_sample",
    ),
    **refused("it clips predicted images, and these are latents", "thresholding"),
    **ignored(
        "of clip_sample and thresholding",
        "clip_sample_range",
        "sample_max_value",
        "dynamic_thresholding_ratio",
    ),
    **refused(
        "the model was trained for noise levels that are not those of its betas",
        "sigma_min",
        "sigma_max",
        "snr_shift_scale",
    ),
    **refused(
        "a flow-matching model, which is no variance-preserving diffusion",
        "use_flow_sigmas",
        "use_dynamic_shifting",
    ),
    **refused(
        "the denoiser wants continuous times", "timestep_type", when=not_in(None, "discrete")
    ),
    **refused(
        "the denoiser predicts a variance too",
        "variance_type",
        when=lambda value: isinstance(value, str) and "learned" in value,
    ),
    **ignored(
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
    **ignored(
        "of flow matching, which is refused", "flow_shift", "time_shift_type", "shift_terminal"
    ),
}
"""The keys of the variance-preserving schedulers of diffusers."""

INDEX: Final[Mapping[str, Setting]] = {
    **honoured(
        "force_zeros_for_empty_prompt", note="Stable Diffusion XL: the empty prompt is zeros"
    ),
    **ignored(
        "ddpo checks no image for safety",
        "requires_safety_checker",
        "safety_checker",
        "feature_extractor",
    ),
    **ignored("for image prompts, which ddpo does not give", "image_encoder"),
    **ignored("ddpo adds no watermark", "add_watermarker"),
    **honoured(
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
