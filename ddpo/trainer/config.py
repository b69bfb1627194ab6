"""The settings of a training run: small frozen dataclasses, with each default in one place.

A recipe is a TOML file with these names: top-level keys for `TrainConfig`, and a table for each of
its parts. The defaults are the embedded model's; `ddpo.recipes` has those of other models.
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
    """Settings of the rollout."""

    samples: int = 96  # images, that is reward queries, per iteration
    per_prompt: int = 8  # images of each sampled prompt
    steps: int = 10  # denoising steps
    guidance: float = 1.0  # 1: none, at half the cost
    eta: float = 1.0  # stochasticity of DDIM
    batch: int = 32  # items in one call of the denoiser, in sampling and in training

    def __post_init__(self) -> None:
        _positive(self, "samples", "per_prompt", "steps", "batch")
        if self.samples % self.per_prompt:
            raise ConfigError(
                f"sample.samples={self.samples} is not a multiple of "
                f"sample.per_prompt={self.per_prompt}"
            )
        if self.guidance < 1 or not 0 < self.eta <= 1:
            raise ConfigError(
                f"sample.guidance must be ≥ 1 and sample.eta in (0, 1], "
                f"got {self.guidance} and {self.eta}"
            )


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """Settings of AdamW, and of the updates that a rollout is split into."""

    lr: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    updates: int = 4  # optimizer steps per pass over the rollout, each on its share of it
    epochs: int = 1  # passes over the rollout per iteration ("inner epochs")
    skip_first: int = 0
    """First denoising steps that are not trained."""
    skip_last: int = 1
    """Last denoising steps that are not trained.

    Their noise is tiny, which makes their gradients drown those of other steps.
    """
    timesteps: int = 5
    """Steps of each image and epoch, sampled at random; 0: all. In regression: noise levels."""
    guidance: bool = True
    """True if training sees the guided prediction; False: the prediction with the prompt alone."""
    kl: float = 0.0
    """Weight of KL(policy || reference policy) in the loss, a mean per latent dimension."""
    clip_range: float = 2e-3
    """Clip range of the ratio, which is a mean per latent dimension.

    1e-4 for the 16,384 dimensions of Stable Diffusion, 2e-3 for 768.
    """

    def __post_init__(self) -> None:
        _positive(self, "lr", "eps", "max_grad_norm", "updates", "epochs", "clip_range")
        if min(self.timesteps, self.skip_first, self.skip_last, self.weight_decay, self.kl) < 0:
            raise ConfigError(
                "optim.timesteps, optim.skip_first, optim.skip_last, optim.weight_decay and "
                "optim.kl must not be negative"
            )
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigError(
                f"optim.beta1 and optim.beta2 must be in [0, 1), got {self.beta1} and {self.beta2}"
            )


@dataclass(frozen=True, slots=True)
class AdvantageConfig:
    """Settings of the advantages; see `ddpo.trainer.advantages`."""

    kind: Literal["per_prompt", "batch", "group", "leave_one_out"] = "group"
    buffer: int = 32  # per_prompt: last rewards kept of each prompt
    min_count: int = 8  # per_prompt: with fewer, the whole iteration's statistics are used
    clip: float = 5.0

    def __post_init__(self) -> None:
        _positive(self, "buffer", "min_count", "clip")
        _one_of(self, "kind")


@dataclass(frozen=True, slots=True)
class RegressionConfig:
    """Settings of the weights of reward-weighted regression; see `ddpo.trainer.regression`."""

    beta: float = 1.0  # inverse temperature of rwr's softmax
    scale: Literal["reward", "std"] = "std"
    """Unit of the reward that β multiplies: its own, or standard deviations of its prompt."""
    keep: float = 0.1  # share of each prompt's images that rwr_sparse keeps

    def __post_init__(self) -> None:
        _positive(self, "beta", "keep")
        _one_of(self, "scale")
        if self.keep >= 1:
            raise ConfigError(f"regression.keep must be below 1, got {self.keep}")


@dataclass(frozen=True, slots=True)
class AdaptConfig:
    """Settings of the weights that are trained."""

    kind: Literal["lora", "full"] = "lora"
    rank: int = 16
    alpha: int = 16
    targets: tuple[str, ...] = ATTENTION  # layers that get adapters, by the end of their names
    checkpointing: bool = False
    """True if activations are computed again in the backward pass.

    That takes less memory and more time; gradients are the same.
    """

    def __post_init__(self) -> None:
        _one_of(self, "kind")
        _positive(self, "rank", "alpha")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """All settings of a training run."""

    reward: str = "compressibility"
    prompts: str = "animals"
    model: str = "emoji"
    algorithm: str = "ddpo_is"
    iterations: int = 10
    seed: int = 0
    device: str = AUTO  # the accelerator of the machine, else the CPU; rewards follow
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights that are not trained."""
    low_memory: bool = False  # True to take less memory and more time; see `low_memory`
    compile: bool = False  # True to compile the denoiser, for sampling and training alike
    checkpoint_every: int = 2  # iterations between checkpoints
    checkpoint_keep: int = 0
    """Number of last checkpoints that stay, beside the best by `held_out`; 0: all."""
    held_out: str = ""  # a reward that is not trained on, scored at each checkpoint; "": none
    held_out_prompts: str = "unseen_animals"  # a file or built-in list for it
    grid_every: int = 5  # iterations between image grids
    sample: SampleConfig = field(default_factory=SampleConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    regression: RegressionConfig = field(default_factory=RegressionConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Sources of the values, by setting, such as "optim.lr"; no setting itself.

    See `ddpo.trainer.settings`.
    """

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
                f"sample.samples={self.sample.samples} cannot be split into "
                f"optim.updates={self.optim.updates} equal parts"
            )
        if self.trained_steps < max(1, self.optim.timesteps):
            raise ConfigError(
                f"sample.steps={self.sample.steps} without "
                f"optim.skip_first={self.optim.skip_first} and "
                f"optim.skip_last={self.optim.skip_last} leaves {self.trained_steps} steps to "
                f"train, fewer than optim.timesteps={self.optim.timesteps or 1}"
            )

    @property
    def trained_steps(self) -> int:
        """Number of denoising steps, after the first `optim.skip_first`, that can be trained."""
        return self.sample.steps - self.optim.skip_first - self.optim.skip_last

    @property
    def steps_per_image(self) -> int:
        """Number of denoising steps of each image that are trained in an epoch."""
        return self.optim.timesteps or self.trained_steps

    @property
    def training_guidance(self) -> float:
        """The guidance scale of the prediction that is trained."""
        return self.sample.guidance if self.optim.guidance else 1.0

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for `config.json`."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if not self.sources:
            del values["sources"]
        return values


def _positive(config: Any, *names: str) -> None:
    """Raises `ConfigError` unless these settings are above 0."""
    table = type(config).__name__.removesuffix("Config").lower()
    for name in names:
        value = getattr(config, name)
        if value <= 0:
            raise ConfigError(f"{table}.{name} must be above 0, got {value}")


def _one_of(config: Any, name: str) -> None:
    """Raises `ConfigError` unless a setting is one of the values that its type lists."""
    choices = typing.get_args(typing.get_type_hints(type(config))[name])
    if (value := getattr(config, name)) not in choices:
        table = type(config).__name__.removesuffix("Config").lower()
        setting = name if table == "train" else f"{table}.{name}"
        allowed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise ConfigError(f"{setting} must be {allowed}, got {value!r}")
