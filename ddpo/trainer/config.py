"""The settings of a training run: small frozen dataclasses, each default in one place, unknown keys refused with the nearest name.

A recipe is a TOML file with these names: top-level keys for `TrainConfig`, a table for each of its parts. The defaults are the
embedded model's; `ddpo.recipes` has those of other models.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ddpo.devices import AUTO
from ddpo.errors import ConfigError
from ddpo.policies.checkpoints.lora import ATTENTION

__all__ = [
    "AdaptConfig",
    "AdvantageConfig",
    "OptimConfig",
    "RegressionConfig",
    "SampleConfig",
    "TrainConfig",
]


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """How a rollout is sampled."""

    samples: int = 96  # pictures, that is reward queries, per iteration
    per_prompt: int = 8  # pictures of each prompt drawn
    steps: int = 10  # denoising steps
    guidance: float = 1.0  # 1: none, at half the cost
    eta: float = 1.0  # stochasticity of DDIM
    batch: int = 32  # items in one call of the denoiser, in sampling and in training

    def __post_init__(self) -> None:
        _positive(self, "samples", "per_prompt", "steps", "batch")
        if self.samples % self.per_prompt:
            raise ConfigError(
                f"sample.samples={self.samples} is not a multiple of sample.per_prompt={self.per_prompt}"
            )
        if self.guidance < 1 or not 0 < self.eta <= 1:
            raise ConfigError(
                f"sample.guidance must be ≥ 1 and sample.eta in (0, 1], got {self.guidance} and {self.eta}"
            )


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """AdamW, and how a rollout is cut into updates."""

    lr: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    updates: int = 4  # optimizer steps per pass over the rollout, each on its share of it
    epochs: int = 1  # passes over the rollout per iteration ("inner epochs")
    skip_first: int = 0  # first denoising steps that are not trained
    skip_last: int = 1  # last denoising steps that are not trained: their tiny noise makes their gradients drown the others'
    timesteps: int = 5  # of the steps left, how many per picture and epoch, drawn at random; 0: all. In regression: noise levels
    guidance: bool = True  # whether training sees the guided prediction, as sampling does; False: the prediction with the prompt alone
    kl: float = 0.0  # weight of KL(policy || reference policy) of each denoising step, a mean per latent dimension, added to the loss
    clip_range: float = 2e-3  # of the ratio, which is a mean per latent dimension: 1e-4 for Stable Diffusion's 16,384, 2e-3 for 768

    def __post_init__(self) -> None:
        _positive(self, "lr", "eps", "max_grad_norm", "updates", "epochs", "clip_range")
        if min(self.timesteps, self.skip_first, self.skip_last, self.weight_decay, self.kl) < 0:
            raise ConfigError(
                "optim.timesteps, optim.skip_first, optim.skip_last, optim.weight_decay and optim.kl must not be negative"
            )
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigError(
                f"optim.beta1 and optim.beta2 must be in [0, 1), got {self.beta1} and {self.beta2}"
            )


@dataclass(frozen=True, slots=True)
class AdvantageConfig:
    """How rewards become advantages; see `ddpo.trainer.advantages`."""

    kind: Literal["per_prompt", "batch", "group", "leave_one_out"] = "group"
    buffer: int = 32  # per_prompt: last rewards kept of each prompt
    min_count: int = 8  # per_prompt: below this the whole iteration's statistics are used
    clip: float = 5.0

    def __post_init__(self) -> None:
        _positive(self, "buffer", "min_count", "clip")
        _one_of(self, "kind")


@dataclass(frozen=True, slots=True)
class RegressionConfig:
    """How rewards become the weights of reward-weighted regression; see `ddpo.trainer.regression`."""

    beta: float = 1.0  # inverse temperature of rwr's softmax
    scale: Literal["reward", "std"] = (
        "std"  # β multiplies the reward itself, or the reward in standard deviations of its prompt
    )
    keep: float = 0.1  # share of each prompt's pictures that rwr_sparse keeps

    def __post_init__(self) -> None:
        _positive(self, "beta", "keep")
        _one_of(self, "scale")
        if self.keep >= 1:
            raise ConfigError(f"regression.keep must be below 1, got {self.keep}")


@dataclass(frozen=True, slots=True)
class AdaptConfig:
    """Which weights are trained."""

    kind: Literal["lora", "full"] = "lora"
    rank: int = 16
    alpha: int = 16
    targets: tuple[str, ...] = (
        ATTENTION  # the layers of the denoiser that get adapters, by the end of their names
    )
    checkpointing: bool = False  # activations are computed again in the backward pass: less memory, more time, the same gradients

    def __post_init__(self) -> None:
        _one_of(self, "kind")
        _positive(self, "rank", "alpha")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A training run."""

    reward: str = "compressibility"
    prompts: str = "animals"
    model: str = "emoji"
    algorithm: str = "ddpo_is"
    iterations: int = 10
    seed: int = 0
    device: str = AUTO  # the accelerator that is here, else the CPU; rewards follow
    dtype: Literal["float32", "bfloat16", "float16"] = (
        "float32"  # of the weights that are not trained
    )
    low_memory: bool = False  # whether speed is given for memory; see `ddpo.trainer.low_memory`
    compile: bool = (
        False  # whether the denoiser is compiled by torch.compile, for sampling and training alike
    )
    checkpoint_every: int = 2  # iterations
    checkpoint_keep: int = (
        0  # how many of the last checkpoints stay, beside the best by `held_out`; 0: all
    )
    held_out: str = ""  # a reward that is not trained on, scored at each checkpoint; "": none
    held_out_prompts: str = "unseen_animals"  # a file or built-in list for it
    grid_every: int = 5  # iterations between picture grids
    sample: SampleConfig = field(default_factory=SampleConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    regression: RegressionConfig = field(default_factory=RegressionConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Setting, as "optim.lr" → where its value came from; no setting itself. See `ddpo.trainer.settings`."""

    def __post_init__(self) -> None:
        _positive(self, "iterations", "checkpoint_every", "grid_every")
        _one_of(self, "dtype")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, got {self.seed}")
        if self.checkpoint_keep < 0:
            raise ConfigError(
                f"checkpoint_keep must be 0 (all) or more, got {self.checkpoint_keep}"
            )
        if self.sample.samples % self.optim.updates:
            raise ConfigError(
                f"sample.samples={self.sample.samples} cannot be cut into optim.updates={self.optim.updates} equal parts"
            )
        if self.trained_steps < max(1, self.optim.timesteps):
            raise ConfigError(
                f"sample.steps={self.sample.steps} without optim.skip_first={self.optim.skip_first} and "
                f"optim.skip_last={self.optim.skip_last} leaves {self.trained_steps} steps to train, fewer than "
                f"optim.timesteps={self.optim.timesteps or 1}"
            )

    @property
    def trained_steps(self) -> int:
        """How many of the denoising steps can be trained: so many after the first `optim.skip_first`."""
        return self.sample.steps - self.optim.skip_first - self.optim.skip_last

    @property
    def steps_per_picture(self) -> int:
        """How many denoising steps of each picture are trained in an epoch."""
        return self.optim.timesteps or self.trained_steps

    @property
    def training_guidance(self) -> float:
        """The guidance scale of the prediction that is trained."""
        return self.sample.guidance if self.optim.guidance else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `config.json`."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if not self.sources:
            del values["sources"]
        return values


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ConfigError(
                f"{type(config).__name__.removesuffix('Config').lower()}.{name} must be above 0, got {getattr(config, name)}"
            )


def _one_of(config: Any, name: str) -> None:
    choices = typing.get_args(typing.get_type_hints(type(config))[name])
    if (value := getattr(config, name)) not in choices:
        where = type(config).__name__.removesuffix("Config").lower().replace("train", "")
        raise ConfigError(
            f"{where + '.' if where else ''}{name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {value!r}"
        )
