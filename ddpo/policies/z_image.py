"""Z-Image, and every model in its on-disk format, as a `Policy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies.base_model import BaseModel
from ddpo.policies.conditioning import Conditioning
from ddpo.policies.flow_features import TURBO_SHIFT, Z_IMAGE_TRANSFORMER, Z_IMAGE_VAE
from ddpo.policies.flow_policy import FlowPolicy
from ddpo.policies.image_size import latent_side
from ddpo.policies.model_features import Setting
from ddpo.policies.policy import LoraSettings

__all__ = ["ZImagePolicy"]

PATCH: Final = 2
"""Side of a patch in latents, and of a frame's patch in frames; diffusers' pipeline uses these."""
FRAMES: Final = 1


class ZImagePolicy(FlowPolicy):
    """A flow model with one Qwen3 text encoder and a transformer on image and text together.

    The conditioning is that of diffusers' pipeline: the penultimate hidden states of the tokens of
    a chat with the prompt, without padding. Its part "hidden" is a tuple of `[tokens, width]`.

    The transformer takes the time 1 - σ and writes the velocity with the opposite sign. It sees
    each image alone, since the lengths of other texts in a batch would change its bits.

    The pipeline's guidance scale is the one of ddpo minus 1. Its `cfg_normalization` and
    `cfg_truncation` are off by default, and ddpo has no setting for them.

    Arguments and errors as of `LatentPolicy`.
    """

    BESIDE: ClassVar[tuple[str, ...]] = ("text_encoder",)
    LORA_WRITER: ClassVar[str] = "ZImageLoraLoaderMixin"
    LORA: ClassVar[LoraSettings] = LoraSettings(
        rank=64,
        alpha=128,
        targets=(
            "attention.to_q",
            "attention.to_k",
            "attention.to_v",
            "attention.to_out.0",
            "feed_forward.w1",
            "feed_forward.w2",
            "feed_forward.w3",
        ),
    )
    CONFIG: ClassVar[Mapping[str, Setting]] = Z_IMAGE_TRANSFORMER
    VAE: ClassVar[Mapping[str, Setting]] = Z_IMAGE_VAE

    text_encoder: Any

    @property
    def distilled(self) -> str:
        """As of `FlowPolicy`; a model with the shift of the Turbo model counts as one."""
        turbo = "turbo" if self.schedule.shift == TURBO_SHIFT else ""
        return super().distilled or turbo

    def _check_shapes(self, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        where = f"the transformer of the model {self.model!r} has"
        channels = denoiser["in_channels"]
        if channels != vae["latent_channels"]:
            raise ConfigError(
                f"{where} in_channels = {channels}, and its VAE {vae['latent_channels']} latent "
                "channels: they must be equal"
            )
        sizes = zip(denoiser["all_patch_size"], denoiser["all_f_patch_size"], strict=False)
        if (PATCH, FRAMES) not in sizes:
            raise ConfigError(
                f"{where} all_patch_size = {denoiser['all_patch_size']!r} and all_f_patch_size = "
                f"{denoiser['all_f_patch_size']!r}: the pipeline uses {PATCH} with {FRAMES}"
            )
        if denoiser["cap_feat_dim"] != self.reader.width:
            raise ConfigError(
                f"{where} cap_feat_dim = {denoiser['cap_feat_dim']}, and its text encoder writes "
                f"{self.reader.width}"
            )
        self._check_size(denoiser, vae)

    def _check_size(self, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        """Raises for images of a size that the transformer cannot have."""
        side = vae["sample_size"]
        multiple = PATCH * latent_side(vae)
        if type(side) is not int or side <= 0 or side % multiple:
            raise ConfigError(
                f"the vae of the model {self.model!r} has sample_size = {side!r}, the side of the "
                f"images in pixels: write a multiple of {multiple} into vae/config.json, such as "
                f"{64 * multiple}"
            )
        patches = side // multiple
        text, rows, columns = denoiser["axes_lens"]
        if patches > min(rows, columns) or self.reader.length + 2 > text:
            raise ConfigError(
                f"the transformer of the model {self.model!r} has axes_lens = "
                f"{denoiser['axes_lens']!r}: a text of {self.reader.length} tokens and images of "
                f"{side} pixels need {[self.reader.length + 2, patches, patches]}"
            )

    def _latent_shape(self, base: BaseModel) -> tuple[int, ...]:
        side = self.vae.config["sample_size"] // latent_side(self.vae.config)
        return self.denoiser.config["in_channels"], side, side

    def _patch(self) -> int:
        return PATCH

    def _set_latent_sides(self, height: int, width: int) -> None:
        """Changes the latents to a size for which the transformer has positions."""
        _, rows, columns = self.denoiser.config["axes_lens"]
        side = PATCH * latent_side(self.vae.config)
        if height // PATCH > rows or width // PATCH > columns:
            raise ConfigError(
                f"the model {self.model!r} has positions for images of {rows * side} × "
                f"{columns * side} pixels, and the given size is larger"
            )
        super()._set_latent_sides(height, width)

    def _encode(self, text: str) -> Conditioning:
        ids, mask = (one.to(self.device) for one in self.reader.tokens(text)[0])
        output = self.text_encoder(
            input_ids=ids, attention_mask=mask.bool(), output_hidden_states=True
        )
        return Conditioning({"hidden": (output.hidden_states[-2][mask.bool()],)})

    def _denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        times = (1000 - 1000 * timesteps) / 1000  # rounded as in the pipeline
        items = zip(latents, times, conditioning.parts["hidden"], strict=True)
        outputs = [
            self.denoiser([image.unsqueeze(1)], time[None], [hidden], return_dict=False)[0][0]
            for image, time, hidden in items
        ]
        return -torch.stack(outputs).squeeze(2)
