"""FLUX.2 klein, and every model in its on-disk format, as a `Policy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies.base_model import BaseModel
from ddpo.policies.flow_schedule import FlowSchedule
from ddpo.policies.flux_2_schedule import Flux2Schedule
from ddpo.policies.flux_features import (
    FLUX_2_INDEX,
    FLUX_2_SCHEDULER,
    FLUX_2_TRANSFORMER,
    FLUX_2_VAE,
)
from ddpo.policies.model_features import Setting
from ddpo.policies.packed_policy import JOINT_ATTENTION, PackedPolicy, unpack
from ddpo.policies.policy import LoraSettings
from ddpo.policies.sampler import classifier_free

__all__ = ["Flux2KleinPolicy"]

LAYERS: Final = (9, 18, 27)
"""Layers of Qwen3 whose hidden states are the conditioning, side by side."""


class Flux2KleinPolicy(PackedPolicy):
    """A flow model with Qwen3 as its text encoder.

    The conditioning is that of diffusers' pipeline, a tensor `[batch, 512, 3 · width]`: the hidden
    states of three layers of Qwen3, which reads the text within its chat template. The base models
    have classifier-free guidance. The distilled ones have none, and no scale has an effect on them.
    Arguments and errors as of `LatentPolicy`.
    """

    BESIDE: ClassVar[tuple[str, ...]] = ("text_encoder",)
    LORA_WRITER: ClassVar[str] = "Flux2LoraLoaderMixin"
    LORA: ClassVar[LoraSettings] = LoraSettings(
        rank=64,
        alpha=128,
        targets=(
            *JOINT_ATTENTION,
            "ff.linear_in",
            "ff.linear_out",
            "ff_context.linear_in",
            "ff_context.linear_out",
            "attn.to_qkv_mlp_proj",
        ),
    )
    CONFIG: ClassVar[Mapping[str, Setting]] = FLUX_2_TRANSFORMER
    SCHEDULER: ClassVar[Mapping[str, Setting]] = FLUX_2_SCHEDULER
    VAE: ClassVar[Mapping[str, Setting]] = FLUX_2_VAE
    INDEX: ClassVar[Mapping[str, Setting]] = FLUX_2_INDEX
    AXES: ClassVar[int] = 4

    text_encoder: Any

    @property
    def distilled(self) -> str:
        """As of `FlowPolicy`; "distilled" for a model whose index says so."""
        return super().distilled or ("distilled" if self._is_distilled else "")

    def guided(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Tensor,
        unconditional: Tensor,
        guidance: float,
    ) -> Tensor:
        """The output with guidance, or without for a distilled model; as `sampler.guided`."""
        scale = 1.0 if self._is_distilled else guidance
        return classifier_free(self, latents, timesteps, conditioning, unconditional, scale)

    def _check_configs(self, base: BaseModel) -> None:
        super()._check_configs(base)
        self._is_distilled = bool(base.index.get("is_distilled"))
        layers = base.config("text_encoder").get("num_hidden_layers", 0)
        if type(layers) is not int or layers < max(LAYERS):
            raise ConfigError(
                f"the text_encoder of the model {self.model!r} has num_hidden_layers = {layers!r}, "
                f"and the conditioning is that of the layers {', '.join(map(str, LAYERS))}"
            )

    def _check_shapes(self, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        self._check_tokens(denoiser, vae)
        width = len(LAYERS) * self.reader.width
        if denoiser["joint_attention_dim"] != width:
            raise ConfigError(
                f"the transformer of the model {self.model!r} has joint_attention_dim = "
                f"{denoiser['joint_attention_dim']}, and {len(LAYERS)} layers of its text encoder "
                f"have {width}"
            )

    def _dynamic_schedule(self, config: Mapping[str, Any], tokens: int) -> FlowSchedule:
        return Flux2Schedule.of(tokens, self.GRID)

    def _encode(self, text: str) -> Tensor:
        ((ids, mask),) = self.reader.tokens(text)
        states = self.text_encoder.model(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        return torch.cat([states[layer] for layer in LAYERS], -1)

    def _denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        text_ids = torch.zeros(conditioning.shape[1], self.AXES, device=self.device)
        text_ids[:, 3] = torch.arange(conditioning.shape[1], device=self.device)
        output: Tensor = self.denoiser(
            hidden_states=latents,
            timestep=timesteps,
            guidance=None,
            encoder_hidden_states=conditioning,
            txt_ids=text_ids,
            img_ids=self._image_ids(),
            return_dict=False,
        )[0]
        return output

    def _vae_input(self, latents: Tensor) -> Tensor:
        """Undoes the batch normalisation of the latents, whose statistics are in the VAE."""
        mean = self.vae.bn.running_mean
        std = (self.vae.bn.running_var + self.vae.config["batch_norm_eps"]).sqrt()
        given = latents.to(self.vae.dtype)
        return unpack(given * std.to(given) + mean.to(given), self.rows, self.columns)
