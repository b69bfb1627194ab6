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
from ddpo.policies.pipelines import TRANSFORMER

__all__ = ["PATCH", "PackedPolicy", "pack", "unpack"]

PATCH: Final = 2
"""Side of a token in latents."""
SIDE: Final = 128
"""Side of the latents where a config states none; the pipelines sample 1024 × 1024 pixels."""


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

    The size of the images is `sample_size` in `transformer/config.json`, in latents, as for other
    families: a number, or height and width. Diffusers' own configs of FLUX have none, and their
    pipelines sample 1024 × 1024 pixels.

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
        self.rows, self.columns = self._tokens_a_side(base.config(TRANSFORMER))
        return self.rows * self.columns, self.denoiser.config["in_channels"]

    def _schedule(self, base: BaseModel) -> FlowSchedule:
        config = base.config("scheduler")
        if config.get("use_dynamic_shifting"):
            return self._dynamic_schedule(config, self.rows * self.columns)
        return super()._schedule(base)

    def _tokens_a_side(self, config: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns of tokens.

        Raises:
            ConfigError: The size is no size, or not of whole tokens.
        """
        size = config.get("sample_size", SIDE)
        sides = list(size) if isinstance(size, (list, tuple)) else [size, size]
        if len(sides) != 2 or any(type(one) is not int or one <= 0 or one % PATCH for one in sides):
            raise ConfigError(
                f"the transformer of the model {self.model!r} has sample_size = {size!r}, the side "
                "of the latents: write an even number into transformer/config.json, such as 64 for "
                "images of 512 pixels, whose sides are multiples of 16"
            )
        return sides[0] // PATCH, sides[1] // PATCH

    def _check_tokens(self, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        """Raises unless a token holds the latents of one patch, and heads its position ids.

        Args:
            denoiser: Config of the transformer with its defaults.
            vae: Config of the VAE with its defaults.

        Raises:
            ConfigError: One of them does not fit.
        """
        channels = denoiser["in_channels"]
        due = PATCH**2 * vae["latent_channels"]
        written = denoiser["out_channels"] or channels
        if not channels == written == due:
            raise ConfigError(
                f"the transformer of the model {self.model!r} has in_channels = {channels} and "
                f"writes {written}, and its VAE has {vae['latent_channels']} latent channels, "
                f"{due} in a token: ddpo supports text-to-image models only"
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
