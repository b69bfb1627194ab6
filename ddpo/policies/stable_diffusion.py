"""Stable Diffusion 1.x and 2.x, and every model in their on-disk format, as a `Policy`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies.base_model import BaseModel
from ddpo.policies.config_checks import (
    check_settings,
    check_shapes,
    default_config,
    scheduler_names,
)
from ddpo.policies.image_size import latent_side
from ddpo.policies.latent_policy import LatentPolicy, lay_out
from ddpo.policies.pipelines import UNET
from ddpo.policies.policy import LoraSettings
from ddpo.policies.transition import NoiseSchedule

__all__ = ["LoraSettings", "StableDiffusionPolicy", "lay_out", "sample_size"]

OLD_SIZE: Final = 64
"""Least latent side that diffusers' pipeline accepts from a config older than diffusers 0.9."""
LEAST_MULTIPLE: Final = 8
"""Pixels of which the sides of images are multiples."""


class StableDiffusionPolicy(LatentPolicy):
    """A latent diffusion model with one CLIP text encoder and a UNet.

    Its conditioning is the last hidden state of the text encoder, `[batch, tokens, width]`.
    Arguments and errors as of `LatentPolicy`, for diffusers' `StableDiffusionPipeline`.
    """

    DENOISER: ClassVar[str] = UNET
    BESIDE: ClassVar[tuple[str, ...]] = ("text_encoder",)
    LORA_WRITER: ClassVar[str] = "StableDiffusionLoraLoaderMixin"

    text_encoder: Any
    schedule: NoiseSchedule

    @property
    def unet(self) -> Any:
        """The denoiser."""
        return self.denoiser

    @unet.setter
    def unet(self, unet: Any) -> None:
        self.denoiser = unet

    def _check_configs(self, base: BaseModel) -> None:
        """Raises for settings that change the images and are not honoured (`model_features`)."""
        from diffusers import AutoencoderKL, UNet2DConditionModel

        unet = base.config("unet")
        vae = base.config("vae")
        unet_defaults = default_config(UNet2DConditionModel)
        vae_defaults = default_config(AutoencoderKL)
        self._check_scheduler(base)
        check_settings("model_index", base.index, self.model)
        check_settings("unet", unet, self.model, unet_defaults)
        check_settings("vae", vae, self.model, vae_defaults)
        check_settings("scheduler", self._scheduler_config(base), self.model)
        self._check_family(unet, vae)
        check_shapes(unet_defaults | unet, vae_defaults | vae, self.reader.width, self.model)

    def _check_scheduler(self, base: BaseModel) -> None:
        """Raises for the scheduler of a flow model."""
        flows = [name for name in scheduler_names(base) if name.startswith("FlowMatch")]
        if flows:
            raise ConfigError(
                f"the scheduler of the model {self.model!r} is a {flows[0]}, and its denoiser is a "
                "U-Net, no flow model: put back its own scheduler"
            )

    def _check_family(self, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        """Raises for settings that this family of models does not have."""
        embedding = unet.get("addition_embed_type")
        if embedding not in (None, "text"):
            raise ConfigError(
                f"the unet of the model {self.model!r} has addition_embed_type = {embedding!r}, "
                "which Stable Diffusion does not have"
            )
        for name in ("latents_mean", "latents_std"):
            if vae.get(name) is not None:
                raise ConfigError(
                    f"the vae of the model {self.model!r} has {name}, "
                    "which Stable Diffusion's pipeline does not heed"
                )

    def _latent_shape(self, base: BaseModel) -> tuple[int, ...]:
        return int(self.unet.config["in_channels"]), *self._latent_size(base)

    def _schedule(self, base: BaseModel) -> NoiseSchedule:
        return NoiseSchedule.from_scheduler(self._scheduler_config(base))

    def _vae_input(self, latents: Tensor) -> Tensor:
        scaled: Tensor = latents.to(self.vae.dtype) / self.vae.config["scaling_factor"]
        return scaled

    def _patch(self) -> int:
        """Latents in 8 pixels, of which diffusers' pipelines of U-Nets take multiples."""
        return max(1, LEAST_MULTIPLE // latent_side(self.vae.config))

    def _scheduler_config(self, base: BaseModel) -> dict[str, Any]:
        """The scheduler's config, with two old defaults corrected as in diffusers' pipeline."""
        return base.config("scheduler") | {"steps_offset": 1, "clip_sample": False}

    def _latent_size(self, base: BaseModel) -> tuple[int, int]:
        """Height and width of the latents, from the UNet's config as in diffusers' pipeline."""
        height, width = sample_size(self.unet.config["sample_size"], self.model)
        version = str(base.config("unet").get("_diffusers_version", "1.0"))
        numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
        if numbers < [0, 9] and height == width < OLD_SIZE:  # the pipeline corrects it as well
            return OLD_SIZE, OLD_SIZE
        return height, width

    def _encode(self, text: str) -> Any:
        """Conditioning of one text `[1, tokens, width]`."""
        ((ids, mask),) = self.reader.tokens(text)
        masked = bool(getattr(self.text_encoder.config, "use_attention_mask", False))
        attention_mask = mask.to(self.device) if masked else None
        output = self.text_encoder(ids.to(self.device), attention_mask=attention_mask)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        output: Tensor = self.unet(
            latents, timesteps, encoder_hidden_states=conditioning, return_dict=False
        )[0]
        return output


def sample_size(value: Any, model: str) -> tuple[int, int]:
    """Height and width of the latents from a UNet's `sample_size`, one number or two.

    Raises:
        ConfigError: The value is neither.
    """
    found = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(found) != 2 or not all(type(one) is int and one > 0 for one in found):
        raise ConfigError(
            f"the unet of the model {model!r} has sample_size = {value!r}: write the latents' "
            "height and width into unet/config.json, such as 64 for images of 512 pixels"
        )
    return found[0], found[1]
