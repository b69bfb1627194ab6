"""Stable Diffusion 3 and 3.5, and every model in their on-disk format, as a `Policy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddpo.errors import ConfigError
from ddpo.policies.base_model import BaseModel
from ddpo.policies.conditioning import Conditioning
from ddpo.policies.flow_features import SD3_TRANSFORMER
from ddpo.policies.flow_policy import FlowPolicy
from ddpo.policies.flow_schedule import Grid
from ddpo.policies.image_size import latent_side
from ddpo.policies.model_features import Setting
from ddpo.policies.model_place import EMBEDDED
from ddpo.policies.policy import LoraSettings
from ddpo.policies.repeated_token import T5_TOKENS, RepeatedLastToken

__all__ = ["StableDiffusion3Policy"]


class StableDiffusion3Policy(FlowPolicy):
    """A flow model with two CLIP text encoders, a T5 encoder or none, and a joint transformer.

    The conditioning is that of diffusers' pipeline (arXiv 2403.03206): the penultimate hidden
    states of both CLIP encoders side by side, padded with zeros to the width of T5, then the tokens
    of T5. Its parts are "hidden" `[batch, tokens, width]` and "pooled" `[batch, width]`, the
    projections of both CLIP encoders side by side. Arguments and errors as of `LatentPolicy`.

    Without T5, zeros take the place of its tokens. An embedded model computes them as one token,
    since its images have fewer tokens than these (`ddpo.policies.repeated_token`).
    """

    BESIDE: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2", "text_encoder_3")
    LORA_WRITER: ClassVar[str] = "SD3LoraLoaderMixin"
    LORA: ClassVar[LoraSettings] = LoraSettings(
        rank=32,
        alpha=64,
        targets=(
            "attn.add_q_proj",
            "attn.add_k_proj",
            "attn.add_v_proj",
            "attn.to_add_out",
            "attn.to_q",
            "attn.to_k",
            "attn.to_v",
            "attn.to_out.0",
        ),
    )
    GRID: ClassVar[Grid] = "diffusers"
    CONFIG: ClassVar[Mapping[str, Setting]] = SD3_TRANSFORMER

    text_encoder: Any
    text_encoder_2: Any
    text_encoder_3: Any  # None without T5

    def __init__(
        self, base: BaseModel | str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(base, device=device, dtype=dtype)
        self._one_zero_token = self.text_encoder_3 is None and self.model in EMBEDDED
        self._set_attention(self.denoiser)

    def _set_attention(self, transformer: Any) -> None:
        """Makes a transformer read the last text token as all of those in place of T5."""
        if self._one_zero_token:
            transformer.set_attn_processor(RepeatedLastToken(T5_TOKENS))

    def adapt(self, kind: Literal["lora", "full"], lora: LoraSettings | None = None) -> None:
        """Adds trainable weights; arguments and errors as of `LatentPolicy`."""
        super().adapt(kind, lora)
        if self._reference is not None:
            self._set_attention(self._reference)

    def _check_shapes(self, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        where = f"the transformer of the model {self.model!r} has"
        channels = denoiser["in_channels"]
        if not channels == denoiser["out_channels"] == vae["latent_channels"]:
            raise ConfigError(
                f"{where} in_channels = {channels} and out_channels = {denoiser['out_channels']}, "
                f"and its VAE {vae['latent_channels']} latent channels: they must be equal"
            )
        side = denoiser["sample_size"]
        patch = denoiser["patch_size"]
        if type(side) is not int or side <= 0 or side % patch:
            raise ConfigError(
                f"{where} sample_size = {side!r}, the side of the latents: write a multiple of "
                f"patch_size = {patch} into transformer/config.json, such as 64 for images of "
                "512 pixels"
            )
        if side // patch > denoiser["pos_embed_max_size"]:
            raise ConfigError(
                f"{where} sample_size = {side}, which is {side // patch} patches a side: "
                f"it has positions for {denoiser['pos_embed_max_size']}"
            )
        width = denoiser["joint_attention_dim"]
        clip = sum(self.reader.widths[:2])
        others = self.reader.widths[2:]
        if clip > width or any(one != width for one in others):
            raise ConfigError(
                f"{where} joint_attention_dim = {width}, and its text encoders write "
                f"{clip} (CLIP) and {others[0] if others else 'nothing'} (T5)"
            )

    def _latent_shape(self, base: BaseModel) -> tuple[int, ...]:
        config = self.denoiser.config
        return config["in_channels"], config["sample_size"], config["sample_size"]

    def _patch(self) -> int:
        return int(self.denoiser.config["patch_size"])

    def _set_latent_sides(self, height: int, width: int) -> None:
        """Changes the latents to a size for which the transformer has positions."""
        patches = max(height, width) // self._patch()
        most = self.denoiser.config["pos_embed_max_size"]
        if patches > most:
            side = self._patch() * latent_side(self.vae.config)
            raise ConfigError(
                f"the model {self.model!r} has positions for images of {most * side} pixels a "
                f"side, and a side of the given size has {patches * side}"
            )
        super()._set_latent_sides(height, width)

    def _encode(self, text: str) -> Conditioning:
        tokens = [ids.to(self.device) for ids, _ in self.reader.tokens(text)]
        clip = [
            self.text_encoder(tokens[0], output_hidden_states=True),
            self.text_encoder_2(tokens[1], output_hidden_states=True),
        ]
        hidden = torch.cat([output.hidden_states[-2] for output in clip], -1)
        width = self.denoiser.config["joint_attention_dim"]
        if self.text_encoder_3 is None:
            long = hidden.new_zeros(1, 1 if self._one_zero_token else T5_TOKENS, width)
        else:
            long = self.text_encoder_3(tokens[2])[0]
        padded = pad(hidden, (0, width - hidden.shape[-1]))
        return Conditioning(
            {
                "hidden": torch.cat([padded, long.to(padded.dtype)], 1),
                "pooled": torch.cat([output.text_embeds for output in clip], -1),
            }
        )

    def _denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        output: Tensor = self.denoiser(
            hidden_states=latents,
            timestep=1000 * timesteps,
            encoder_hidden_states=conditioning.parts["hidden"],
            pooled_projections=conditioning.parts["pooled"],
            return_dict=False,
        )[0]
        return output
