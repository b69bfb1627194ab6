"""The pipelines of diffusers that ddpo loads: their denoiser, their components and their classes.

To add one, write a policy on `ddpo.policies.latent_policy.LatentPolicy` and an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

__all__ = [
    "DENOISERS",
    "IN_WORDS",
    "PIPELINES",
    "TRANSFORMER",
    "UNET",
    "PipelineKind",
    "denoiser_folder",
    "parts_of",
]

UNET: Final = "unet"
TRANSFORMER: Final = "transformer"
DENOISERS: Final = (UNET, TRANSFORMER)
"""Names of denoisers among the components of a pipeline; a model has one of them."""
IN_WORDS: Final[Mapping[str, str]] = {UNET: "U-Net", TRANSFORMER: "transformer"}
"""Denoisers in messages."""

CLIP_TOKENIZER: Final = ("CLIPTokenizer", "CLIPTokenizerFast")
T5_TOKENIZER: Final = ("T5TokenizerFast", "T5Tokenizer")
QWEN_TOKENIZER: Final = ("Qwen2Tokenizer", "Qwen2TokenizerFast")


@dataclass(frozen=True, slots=True)
class PipelineKind:
    """A pipeline that ddpo loads."""

    policy: str  # its policy as "module:Class"
    classes: Mapping[str, tuple[str, ...]]  # component → its classes in `model_index.json`
    optional: tuple[str, ...] = ()  # components that the pipeline does without
    tokens: Mapping[str, int] = field(default_factory=dict)
    """Tokenizer → tokens that the pipeline gives an encoder that has no limit itself."""
    chat: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """Tokenizer that reads a prompt as the message of a chat → settings of its chat template."""
    guidance_offset: float = 0.0  # its guidance scale minus that of ddpo

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """The names of its tokenizers, in the order of the text encoders."""
        return tuple(name for name in self.classes if name.startswith("tokenizer"))

    def class_of(self, part: str) -> Any:
        """The first class of a component, from diffusers or transformers."""
        import diffusers
        import transformers

        name = self.classes[part][0]
        return getattr(diffusers if part in (*DENOISERS, "vae") else transformers, name)

    def load_policy(self) -> Any:
        """The class of its policy."""
        module, _, name = self.policy.partition(":")
        return getattr(import_module(module), name)


PIPELINES: Final[Mapping[str, PipelineKind]] = {
    "StableDiffusionPipeline": PipelineKind(
        policy="ddpo.policies.stable_diffusion:StableDiffusionPolicy",
        classes={
            "unet": ("UNet2DConditionModel",),
            "vae": ("AutoencoderKL",),
            "text_encoder": ("CLIPTextModel",),
            "tokenizer": CLIP_TOKENIZER,
        },
    ),
    "StableDiffusionXLPipeline": PipelineKind(
        policy="ddpo.policies.sdxl:StableDiffusionXLPolicy",
        classes={
            "unet": ("UNet2DConditionModel",),
            "vae": ("AutoencoderKL",),
            "text_encoder": ("CLIPTextModel",),
            "text_encoder_2": ("CLIPTextModelWithProjection",),
            "tokenizer": CLIP_TOKENIZER,
            "tokenizer_2": CLIP_TOKENIZER,
        },
    ),
    "StableDiffusion3Pipeline": PipelineKind(
        policy="ddpo.policies.stable_diffusion_3:StableDiffusion3Policy",
        classes={
            "transformer": ("SD3Transformer2DModel",),
            "vae": ("AutoencoderKL",),
            "text_encoder": ("CLIPTextModelWithProjection",),
            "text_encoder_2": ("CLIPTextModelWithProjection",),
            "text_encoder_3": ("T5EncoderModel",),
            "tokenizer": CLIP_TOKENIZER,
            "tokenizer_2": CLIP_TOKENIZER,
            "tokenizer_3": T5_TOKENIZER,
        },
        optional=("text_encoder_3", "tokenizer_3"),
        tokens={"tokenizer_3": 256},
    ),
    "FluxPipeline": PipelineKind(
        policy="ddpo.policies.flux:FluxPolicy",
        classes={
            "transformer": ("FluxTransformer2DModel",),
            "vae": ("AutoencoderKL",),
            "text_encoder": ("CLIPTextModel",),
            "text_encoder_2": ("T5EncoderModel",),
            "tokenizer": CLIP_TOKENIZER,
            "tokenizer_2": T5_TOKENIZER,
        },
        tokens={"tokenizer_2": 512},
    ),
    "Flux2KleinPipeline": PipelineKind(
        policy="ddpo.policies.flux_2_klein:Flux2KleinPolicy",
        classes={
            "transformer": ("Flux2Transformer2DModel",),
            "vae": ("AutoencoderKLFlux2",),
            "text_encoder": ("Qwen3ForCausalLM",),
            "tokenizer": QWEN_TOKENIZER,
        },
        tokens={"tokenizer": 512},
        chat={"tokenizer": {"enable_thinking": False}},
    ),
    "ZImagePipeline": PipelineKind(
        policy="ddpo.policies.z_image:ZImagePolicy",
        classes={
            "transformer": ("ZImageTransformer2DModel",),
            "vae": ("AutoencoderKL",),
            "text_encoder": ("Qwen3Model", "Qwen3ForCausalLM"),
            "tokenizer": QWEN_TOKENIZER,
        },
        tokens={"tokenizer": 512},
        chat={"tokenizer": {"enable_thinking": True}},
        guidance_offset=-1.0,
    ),
}
"""Class of a pipeline → its kind."""


def parts_of(*beginnings: str) -> tuple[str, ...]:
    """The names of all components whose name begins with one of `beginnings`; "" for all."""
    found = [name for kind in PIPELINES.values() for name in kind.classes]
    return tuple(dict.fromkeys(name for name in found if name.startswith(beginnings)))


def denoiser_folder(model: Path) -> Path:
    """The folder of a model's denoiser: `transformer/` if there is one, else `unet/`."""
    transformer = model / TRANSFORMER
    return transformer if transformer.is_dir() else model / UNET
