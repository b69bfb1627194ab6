"""The settings of flow models' configs that ddpo honours, refuses or ignores, one table per config.

As `ddpo.policies.model_features`, for pipelines whose denoiser is a transformer. `docs/models.md`
shows these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ddpo.policies.model_features import VAE, Setting, honoured, ignored, not_in, refused

__all__ = [
    "FLOW_INDEX",
    "FLOW_SCHEDULER",
    "FLOW_VAE",
    "SD3_TRANSFORMER",
    "TURBO_SHIFT",
    "Z_IMAGE_TRANSFORMER",
    "Z_IMAGE_VAE",
]

SD3_TRANSFORMER: Final[Mapping[str, Setting]] = {
    **honoured(
        "patch_size",
        "num_layers",
        "attention_head_dim",
        "num_attention_heads",
        "caption_projection_dim",
        "dual_attention_layers",
        "qk_norm",
    ),
    **honoured(
        "sample_size",
        note="side of the latents, of square images; a multiple of patch_size",
    ),
    **honoured("pos_embed_max_size", note="patches along a side, at most"),
    **honoured("in_channels", note="must be the VAE's latent_channels"),
    **honoured("out_channels", note="must equal in_channels"),
    **honoured("joint_attention_dim", note="must be the width of T5, if there is one"),
    **honoured(
        "pooled_projection_dim", note="must be the width of both CLIP encoders' projections"
    ),
}
"""The keys of `SD3Transformer2DModel`."""

FLOW_VAE: Final[Mapping[str, Setting]] = {
    **VAE,
    **honoured("scaling_factor", note="latents are divided by it"),
    **honoured("shift_factor", note="it is added to the divided latents"),
    **refused("the pipelines of flow models do not heed it", "latents_mean", "latents_std"),
    **ignored("the pipelines of flow models do not heed it", "force_upcast"),
}
"""The keys of `AutoencoderKL` in a flow model."""

Z_IMAGE_TRANSFORMER: Final[Mapping[str, Setting]] = {
    **honoured(
        "dim",
        "n_layers",
        "n_refiner_layers",
        "n_heads",
        "norm_eps",
        "qk_norm",
        "rope_theta",
        "t_scale",
        "axes_dims",
    ),
    **honoured("all_patch_size", note="must have 2, the size that the pipeline uses"),
    **honoured("all_f_patch_size", note="must have 1 at the same place"),
    **honoured("in_channels", note="must be the VAE's latent_channels"),
    **honoured("cap_feat_dim", note="must be the width of the text encoder"),
    **honoured("axes_lens", note="positions of text and image, which must suffice"),
    **refused("the denoiser wants an image as conditioning", "siglip_feat_dim"),
    **ignored("diffusers' own class does not heed it", "n_kv_heads"),
}
"""The keys of `ZImageTransformer2DModel`."""

Z_IMAGE_VAE: Final[Mapping[str, Setting]] = {
    **FLOW_VAE,
    **honoured("sample_size", note="side of the square images, in pixels; a multiple of 16"),
}
"""The keys of `AutoencoderKL` in Z-Image, whose transformer states no size."""

TURBO_SHIFT: Final = 3.0
"""Shift of the distilled Z-Image-Turbo; that of the base model is 6."""

ANOTHER_GRID: Final = "other noise levels than those of the grids that ddpo samples on"

FLOW_SCHEDULER: Final[Mapping[str, Setting]] = {
    **honoured("shift", note="static shift of the noise levels"),
    **refused("flow models are trained at 1,000 times", "num_train_timesteps", when=not_in(1000)),
    **refused(
        "the noise levels would depend on the size of the image, "
        "which the models of this pipeline do not want",
        "use_dynamic_shifting",
    ),
    **refused(
        ANOTHER_GRID,
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "invert_sigmas",
        "shift_terminal",
    ),
    **refused("the sampler of a distilled model with its own noise", "stochastic_sampling"),
    **ignored(
        "of use_dynamic_shifting, which is refused",
        "base_shift",
        "max_shift",
        "base_image_seq_len",
        "max_image_seq_len",
        "time_shift_type",
    ),
}
"""The keys of `FlowMatchEulerDiscreteScheduler`, for models with a static shift."""

FLOW_INDEX: Final[Mapping[str, Setting]] = {
    **ignored("for image prompts, which ddpo does not give", "image_encoder", "feature_extractor"),
    **honoured(
        "transformer",
        "vae",
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        note="a component",
    ),
    **honoured(
        "text_encoder_3", "tokenizer_3", note="a component; null for a conditioning without T5"
    ),
}
"""The keys of `model_index.json` of Stable Diffusion 3."""
