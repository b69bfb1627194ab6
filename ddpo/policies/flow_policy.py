"""The base of policies whose denoiser is a transformer that predicts the velocity of a flow."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies.base_model import BaseModel
from ddpo.policies.config_checks import check_settings, default_config, scheduler_names
from ddpo.policies.flow_features import FLOW_INDEX, FLOW_SCHEDULER, FLOW_VAE
from ddpo.policies.flow_schedule import FlowSchedule, Grid
from ddpo.policies.latent_policy import LatentPolicy
from ddpo.policies.model_features import Setting
from ddpo.policies.pipelines import PIPELINES, TRANSFORMER

__all__ = ["FlowPolicy"]

EULER: Final = "FlowMatchEulerDiscreteScheduler"
DISTILLED: Final = re.compile(r"(?i)\b(turbo|schnell|lightning|hyper|lcm|flash|distill\w*)\b")
"""Words in the names of checkpoints that were distilled to few steps."""


class FlowPolicy(LatentPolicy):
    """A flow model: x = (1 - σ) x_0 + σ ε, and a transformer that predicts ε - x_0.

    A family states these facts of its class, besides those of `LatentPolicy`:

    - `GRID`: noise levels that its pipeline samples on;
    - `CONFIG`: settings of its transformer's config;
    - `SCHEDULER`, `VAE`, `INDEX`: settings of its other configs.
    """

    DENOISER: ClassVar[str] = TRANSFORMER
    GRID: ClassVar[Grid] = "linspace"
    CONFIG: ClassVar[Mapping[str, Setting]]
    SCHEDULER: ClassVar[Mapping[str, Setting]] = FLOW_SCHEDULER
    VAE: ClassVar[Mapping[str, Setting]] = FLOW_VAE
    INDEX: ClassVar[Mapping[str, Setting]] = FLOW_INDEX

    schedule: FlowSchedule

    @property
    def transformer(self) -> Any:
        """The denoiser."""
        return self.denoiser

    @transformer.setter
    def transformer(self, transformer: Any) -> None:
        self.denoiser = transformer

    @property
    def distilled(self) -> str:
        """The word in the model's name that says it was distilled to few steps; "" for none."""
        name = re.split(r"[/\\]", self.model.rstrip("/\\"))[-1]
        found = DISTILLED.search(re.sub(r"[_\W]", " ", name))
        return found[0] if found else ""

    @abstractmethod
    def _check_shapes(self, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        """Raises unless channels, widths and sizes fit; configs with their defaults."""

    def _check_configs(self, base: BaseModel) -> None:
        import diffusers

        self._check_scheduler(base)
        kind = PIPELINES[base.pipeline]
        defaults = {part: default_config(kind.class_of(part)) for part in (TRANSFORMER, "vae")}
        configs = {
            TRANSFORMER: (base.config(TRANSFORMER), defaults[TRANSFORMER], self.CONFIG),
            "vae": (base.config("vae"), defaults["vae"], self.VAE),
            "scheduler": (
                base.config("scheduler"),
                default_config(diffusers.FlowMatchEulerDiscreteScheduler),
                self.SCHEDULER,
            ),
        }
        check_settings("model_index", base.index, self.model, table=self.INDEX)
        for name, (config, defaults, table) in configs.items():
            check_settings(name, config, self.model, defaults, table)
        merged = [configs[part][1] | configs[part][0] for part in (TRANSFORMER, "vae")]
        self._check_shapes(merged[0], merged[1])

    def _check_scheduler(self, base: BaseModel) -> None:
        """Raises for the scheduler of a noise-predicting model, or another flow sampler."""
        others = [name for name in scheduler_names(base) if name != EULER]
        if others:
            raise ConfigError(
                f"the scheduler of the model {self.model!r} is a {others[0]}, and its denoiser is "
                f"that of a flow model: put back its own scheduler, {EULER}"
            )

    def _schedule(self, base: BaseModel) -> FlowSchedule:
        return FlowSchedule.from_scheduler(base.config("scheduler"), self.GRID)

    def _vae_input(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        scaled: Tensor = latents.to(self.vae.dtype) / config["scaling_factor"]
        return scaled + (config.get("shift_factor") or 0.0)
