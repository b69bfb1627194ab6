"""FLUX.1, and every model in its on-disk format, as a `Policy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies.conditioning import Conditioning
from ddpo.policies.flow_schedule import FlowSchedule, flux_shift
from ddpo.policies.flux_features import (
    FLUX_INDEX,
    FLUX_SCHEDULER,
    FLUX_TRANSFORMER,
    FLUX_VAE,
    line_of_shifts,
)
from ddpo.policies.model_features import Setting
from ddpo.policies.packed_policy import JOINT_ATTENTION, PackedPolicy, unpack
from ddpo.policies.policy import LoraSettings

__all__ = ["FluxPolicy"]


class FluxPolicy(PackedPolicy):
    """A flow model with a CLIP and a T5 text encoder, which takes its guidance as a number.

    The conditioning is that of diffusers' pipeline: "hidden" `[batch, tokens, width]` of T5, and
    "pooled" `[batch, width]` of CLIP. FLUX.1-dev was distilled from guided outputs, so that one
    call with the guidance scale takes the place of two. FLUX.1-schnell has no such input, and no
    scale has an effect on it. Arguments and errors as of `LatentPolicy`.
    """

    BESIDE: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")
    LORA_WRITER: ClassVar[str] = "FluxLoraLoaderMixin"
    LORA: ClassVar[LoraSettings] = LoraSettings(
        rank=64,
        alpha=128,
        targets=(
            *JOINT_ATTENTION,
            "ff.net.0.proj",
            "ff.net.2",
            "ff_context.net.0.proj",
            "ff_context.net.2",
        ),
    )
    CONFIG: ClassVar[Mapping[str, Setting]] = FLUX_TRANSFORMER
    SCHEDULER: ClassVar[Mapping[str, Setting]] = FLUX_SCHEDULER
    VAE: ClassVar[Mapping[str, Setting]] = FLUX_VAE
    INDEX: ClassVar[Mapping[str, Setting]] = FLUX_INDEX
    AXES: ClassVar[int] = 3

    text_encoder: Any
    text_encoder_2: Any

    @property
    def distilled(self) -> str:
        """As of `FlowPolicy`; "schnell" for every model without an input for the guidance."""
        return super().distilled or ("" if self.guidance_distilled else "schnell")

    @property
    def guidance_distilled(self) -> bool:
        """True for a model that was distilled from guided outputs, such as FLUX.1-dev."""
        return bool(self.denoiser.config["guidance_embeds"])

    def guided(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        unconditional: Conditioning,
        guidance: float,
    ) -> Tensor:
        """The output with the guidance scale as an input; arguments as of `sampler.guided`."""
        scale = torch.full((len(latents),), guidance, dtype=torch.float32, device=self.device)
        both = Conditioning({**conditioning.parts, "guidance": scale})
        return self.predict(latents, timesteps, both)

    def _check_shapes(self, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        self._check_tokens(denoiser, vae)
        read = (denoiser["pooled_projection_dim"], denoiser["joint_attention_dim"])
        if read != tuple(self.reader.widths):
            raise ConfigError(
                f"the transformer of the model {self.model!r} has pooled_projection_dim = {read[0]}"
                f" and joint_attention_dim = {read[1]}, and its text encoders write "
                f"{self.reader.widths[0]} (CLIP) and {self.reader.widths[1]} (T5)"
            )

    def _dynamic_schedule(self, config: Mapping[str, Any], tokens: int) -> FlowSchedule:
        shift = flux_shift(tokens, *line_of_shifts(config))
        return FlowSchedule(shift, self.GRID, shifted_once=True)

    def _encode(self, text: str) -> Conditioning:
        clip, t5 = (ids.to(self.device) for ids, _ in self.reader.tokens(text))
        return Conditioning(
            {
                "hidden": self.text_encoder_2(t5)[0],
                "pooled": self.text_encoder(clip).pooler_output,
            }
        )

    def _denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        hidden = conditioning.parts["hidden"]
        guidance = conditioning.parts.get("guidance")
        if guidance is None:
            guidance = torch.ones(len(latents), device=self.device)
        output: Tensor = self.denoiser(
            hidden_states=latents,
            timestep=timesteps,
            guidance=guidance if self.guidance_distilled else None,
            pooled_projections=conditioning.parts["pooled"],
            encoder_hidden_states=hidden,
            txt_ids=torch.zeros(hidden.shape[1], self.AXES, device=self.device),
            img_ids=self._image_ids(),
            return_dict=False,
        )[0]
        return output

    def _vae_input(self, latents: Tensor) -> Tensor:
        return super()._vae_input(unpack(latents, self.rows, self.columns))
