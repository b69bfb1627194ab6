"""The settings of FLUX's configs that ddpo honours, refuses or ignores, one table per config.

As `ddpo.policies.flow_features`, whose tables hold the settings that are not particular to FLUX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ddpo.errors import ConfigError
from ddpo.policies.flow_features import FLOW_SCHEDULER, FLOW_VAE
from ddpo.policies.model_features import Setting, honoured, ignored, not_in, refused

__all__ = [
    "FLUX_2_INDEX",
    "FLUX_2_SCHEDULER",
    "FLUX_2_TRANSFORMER",
    "FLUX_2_VAE",
    "FLUX_INDEX",
    "FLUX_SCHEDULER",
    "FLUX_TRANSFORMER",
    "FLUX_VAE",
    "line_of_shifts",
]

LINE: Final[Mapping[str, float]] = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
}
"""Settings of the shift of FLUX.1, with the values of its pipeline where a config lacks them."""

BOTH: Final[Mapping[str, Setting]] = {
    **honoured(
        "num_layers",
        "num_single_layers",
        "attention_head_dim",
        "num_attention_heads",
        "axes_dims_rope",
    ),
    **refused("a token is a patch of 2 × 2 latents", "patch_size", when=not_in(None, 1)),
    **honoured("in_channels", note="must be 4 times the VAE's latent_channels"),
    **honoured("out_channels", note="must be unset, or equal in_channels"),
}

FLUX_TRANSFORMER: Final[Mapping[str, Setting]] = {
    **BOTH,
    **honoured("joint_attention_dim", note="must be the width of T5"),
    **honoured("pooled_projection_dim", note="must be the width of CLIP"),
    **honoured("guidance_embeds", note="the guidance scale is an input; without it there is none"),
}
"""The keys of `FluxTransformer2DModel`."""

FLUX_2_TRANSFORMER: Final[Mapping[str, Setting]] = {
    **BOTH,
    **honoured("timestep_guidance_channels", "mlp_ratio", "rope_theta", "eps"),
    **honoured("joint_attention_dim", note="must be 3 times the width of Qwen3"),
    **refused("klein has classifier-free guidance or none", "guidance_embeds"),
}
"""The keys of `Flux2Transformer2DModel`."""

SIZE: Final = honoured(
    "sample_size", note="side of the images in pixels, or height and width: multiples of 16"
)

FLUX_VAE: Final[Mapping[str, Setting]] = {**FLOW_VAE, **SIZE}
"""The keys of `AutoencoderKL` in FLUX.1."""

FLUX_2_VAE: Final[Mapping[str, Setting]] = {
    **{
        key: setting
        for key, setting in FLUX_VAE.items()
        if key
        not in ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast")
    },
    **honoured("decoder_block_out_channels"),
    **honoured("batch_norm_eps", note="of the variance by which latents are scaled"),
    **refused("a token is a patch of 2 × 2 latents", "patch_size", when=not_in([2, 2], (2, 2))),
    **ignored("of training the autoencoder", "batch_norm_momentum"),
}
"""The keys of `AutoencoderKLFlux2`."""

SHIFTED: Final[Mapping[str, Setting]] = {
    **{
        key: setting
        for key, setting in FLOW_SCHEDULER.items()
        if key not in (*LINE, "shift", "use_dynamic_shifting", "time_shift_type")
    },
    **honoured("shift", note="static shift of the noise levels, without use_dynamic_shifting"),
    **honoured("use_dynamic_shifting", note="the shift e^μ depends on the size of the image"),
    **refused(
        "FLUX has the exponential shift", "time_shift_type", when=not_in(None, "exponential")
    ),
}

FLUX_SCHEDULER: Final[Mapping[str, Setting]] = {
    **SHIFTED,
    **honoured(*LINE, note="μ is a straight line in the number of tokens"),
}
"""The keys of `FlowMatchEulerDiscreteScheduler` in FLUX.1."""

FLUX_2_SCHEDULER: Final[Mapping[str, Setting]] = {
    **SHIFTED,
    **ignored("FLUX.2 has its own μ, of the numbers of tokens and of steps", *LINE),
}
"""The keys of `FlowMatchEulerDiscreteScheduler` in FLUX.2."""

COMPONENTS: Final = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")

FLUX_INDEX: Final[Mapping[str, Setting]] = {
    **honoured(*COMPONENTS, "text_encoder_2", "tokenizer_2", note="a component"),
    **ignored("for image prompts, which ddpo does not give", "image_encoder", "feature_extractor"),
}
"""The keys of `model_index.json` of FLUX.1."""

FLUX_2_INDEX: Final[Mapping[str, Setting]] = {
    **honoured(*COMPONENTS, note="a component"),
    **honoured("is_distilled", note="no guidance; trained only after a warning"),
}
"""The keys of `model_index.json` of FLUX.2 klein."""


def line_of_shifts(config: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two points, each with tokens and μ, of the shift in a scheduler's config.

    Raises:
        ConfigError: One of the settings is no number.
    """
    found = {name: config.get(name, default) for name, default in LINE.items()}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"the scheduler's {name} must be a number, got {value!r}")
    return (
        (found["base_image_seq_len"], found["base_shift"]),
        (found["max_image_seq_len"], found["max_shift"]),
    )
