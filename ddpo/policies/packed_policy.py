"""The base of FLUX's policies, whose latents are a sequence of tokens of 2 × 2 latents each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies.base_model import BaseModel
from ddpo.policies.flow_policy import FlowPolicy
from ddpo.policies.flow_schedule import FlowSchedule

__all__ = ["JOINT_ATTENTION", "PATCH", "PackedPolicy", "pack", "unpack"]

PATCH: Final = 2
"""Side of a token in latents."""
JOINT_ATTENTION: Final = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
)
"""The layers of attention over image and text, which LoRAs of both families train."""


def pack(latents: Tensor) -> Tensor:
    """Latents `[batch, channels, height, width]` as tokens `[batch, tokens, 4 · channels]`."""
    batch, channels, height, width = latents.shape
    cut = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def unpack(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `pack`, for `rows` × `columns` tokens."""
    batch, _, width = tokens.shape
    cut = tokens.reshape(batch, rows, columns, width // PATCH**2, PATCH, PATCH)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, PATCH * rows, PATCH * columns)


class PackedPolicy(FlowPolicy):
    """A flow model whose latents are `[batch, tokens, channels]`, row by row.

    The size of the images is the VAE's `sample_size` in pixels: a number, or height and width. It
    is 1024 in the published models, as in diffusers' pipelines.

    A family states `AXES` of its class, besides the facts of `FlowPolicy`: the number of position
    ids of a token, of which the second is the row and the third the column.
    """

    AXES: ClassVar[int]

    rows: int
    columns: int

    @abstractmethod
    def _dynamic_schedule(self, config: Mapping[str, Any], tokens: int) -> FlowSchedule:
        """The schedule of a scheduler whose shift depends on the number of tokens."""

    def _latent_shape(self, base: BaseModel) -> tuple[int, ...]:
        return self.rows * self.columns, self.denoiser.config["in_channels"]

    def _schedule(self, base: BaseModel) -> FlowSchedule:
        config = base.config("scheduler")
        if config.get("use_dynamic_shifting"):
            return self._dynamic_schedule(config, self.rows * self.columns)
        return super()._schedule(base)

    def _patch(self) -> int:
        return PATCH

    def _latent_sides(self) -> tuple[int, int]:
        return PATCH * self.rows, PATCH * self.columns

    def _set_latent_sides(self, height: int, width: int) -> None:
        """Changes the number of tokens, on which the noise levels depend too."""
        self.rows = height // PATCH
        self.columns = width // PATCH
        self.latent_shape = (self.rows * self.columns, self.latent_shape[1])
        self.schedule = self._schedule(self._base)

    def _read_size(self, vae: Mapping[str, Any]) -> None:
        """Sets the rows and columns of tokens from a VAE's config with its defaults.

        Raises:
            ConfigError: The size is no size, or not of whole tokens.
        """
        multiple = PATCH * 2 ** (len(vae["block_out_channels"]) - 1)
        size = vae["sample_size"]
        sides = list(size) if isinstance(size, (list, tuple)) else [size, size]
        whole = [type(one) is int and one > 0 and one % multiple == 0 for one in sides]
        if len(sides) != 2 or not all(whole):
            raise ConfigError(
                f"the vae of the model {self.model!r} has sample_size = {size!r}, the side of the "
                f"images in pixels: write a multiple of {multiple} into vae/config.json, such as "
                f"{32 * multiple}"
            )
        self.rows, self.columns = (side // multiple for side in sides)

    def _check_tokens(self, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        """Raises unless a token holds the latents of one patch; reads the size of the images.

        Args:
            denoiser: Config of the transformer with its defaults.
            vae: Config of the VAE with its defaults.

        Raises:
            ConfigError: The configs do not fit each other, or the size is impossible.
        """
        self._read_size(vae)
        channels = denoiser["in_channels"]
        due = PATCH**2 * vae["latent_channels"]
        written = denoiser["out_channels"] or channels
        if not channels == written == due:
            raise ConfigError(
                f"the transformer of the model {self.model!r} has in_channels = {channels} and "
                f"writes {written}, and its VAE has {vae['latent_channels']} latent channels, "
                f"{due} in a token: ddpo supports text-to-image models only"
            )
        if vae["out_channels"] != 3:
            raise ConfigError(
                f"the vae of the model {self.model!r} has out_channels = {vae['out_channels']}: "
                "ddpo needs RGB images"
            )
        axes = list(denoiser["axes_dims_rope"])
        if len(axes) != self.AXES or sum(axes) != denoiser["attention_head_dim"]:
            raise ConfigError(
                f"the transformer of the model {self.model!r} has axes_dims_rope = {axes}: it must "
                f"be {self.AXES} numbers with the sum {denoiser['attention_head_dim']}, "
                "attention_head_dim"
            )

    def _image_ids(self) -> Tensor:
        """The positions of the tokens, float32 `[tokens, AXES]`."""
        ids = torch.zeros(self.rows, self.columns, self.AXES, device=self.device)
        ids[..., 1] = torch.arange(self.rows, device=self.device)[:, None]
        ids[..., 2] = torch.arange(self.columns, device=self.device)
        return ids.view(-1, self.AXES)
