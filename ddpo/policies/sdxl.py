"""Stable Diffusion XL, and every model in its on-disk format, as a `Policy`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies.base_model import BaseModel
from ddpo.policies.conditioning import Conditioning
from ddpo.policies.stable_diffusion import StableDiffusionPolicy, sample_size

__all__ = ["StableDiffusionXLPolicy"]


class StableDiffusionXLPolicy(StableDiffusionPolicy):
    """A latent diffusion model with two CLIP text encoders, conditioned on image size as well.

    The conditioning is that of diffusers' pipeline (arXiv 2307.01952): the penultimate hidden
    states of both encoders side by side, and the projected embedding of the second. The full size
    is original and target size, without crop. The empty text is zeros if the model sets
    `force_zeros_for_empty_prompt`. In float16, an autoencoder with `force_upcast` decodes in
    float32.

    The conditioning has two parts: "hidden" `[batch, tokens, width]` and "pooled" `[batch, width]`.
    """

    BESIDE: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")

    text_encoder_2: Any

    def _load_parts(self, base: BaseModel, dtype: torch.dtype) -> dict[str, Any]:
        from diffusers import AutoencoderKL

        parts = super()._load_parts(base, dtype)
        self._zeros_for_empty = bool(base.index.get("force_zeros_for_empty_prompt", True))
        if dtype == torch.float16 and parts["vae"].config["force_upcast"]:
            parts["vae"] = base.load("vae", AutoencoderKL, torch.float32)
        return parts

    def _check_family(self, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        if unet.get("addition_embed_type") != "text_time":
            found = unet.get("addition_embed_type")
            raise ConfigError(
                f"the unet of the model {self.model!r} has addition_embed_type = {found!r}, "
                "where Stable Diffusion XL has 'text_time'"
            )

    def _scheduler_config(self, base: BaseModel) -> dict[str, Any]:
        return base.config("scheduler")

    def _latent_size(self, base: BaseModel) -> tuple[int, int]:
        return sample_size(self.unet.config["sample_size"], self.model)

    def _set_latent_sides(self, height: int, width: int) -> None:
        """Changes the latents, and so the size that is a part of its input."""
        super()._set_latent_sides(height, width)
        self.__dict__.pop("_size", None)

    def _vae_input(self, latents: Tensor) -> Tensor:
        """As of `StableDiffusionPolicy`, after undoing any centring and scaling by channel."""
        config = self.vae.config
        mean = config.get("latents_mean")
        std = config.get("latents_std")
        if mean is not None and std is not None:
            centre, spread = (
                torch.tensor(one, dtype=torch.float32, device=latents.device).view(1, -1, 1, 1)
                for one in (mean, std)
            )
            latents = latents.float() * spread + centre * config["scaling_factor"]
        return super()._vae_input(latents)

    @cached_property
    def _size(self) -> Tensor:
        """Original size, corner and target size `[1, 6]`, copied to the device once."""
        scale = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        side = [latent * scale for latent in self.latent_shape[1:]]
        return torch.tensor([[*side, 0, 0, *side]], dtype=self.storage_dtype, device=self.device)

    def _encode(self, text: str) -> Conditioning:
        pairs = zip(self._text_encoders(), self.reader.tokens(text), strict=True)
        outputs = [
            encoder(ids.to(self.device), output_hidden_states=True) for encoder, (ids, _) in pairs
        ]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        pooled = outputs[1].text_embeds
        if text == "" and self._zeros_for_empty:
            hidden = torch.zeros_like(hidden)
            pooled = torch.zeros_like(pooled)
        return Conditioning({"hidden": hidden, "pooled": pooled})

    def _denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        added = {
            "text_embeds": conditioning.parts["pooled"],
            "time_ids": self._size.expand(len(latents), -1),
        }
        output: Tensor = self.unet(
            latents,
            timesteps,
            encoder_hidden_states=conditioning.parts["hidden"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output
