"""The settings of a training run: small frozen dataclasses, with each default in one place.

A recipe is a TOML file with these names: top-level keys for `TrainConfig`, and a table for each of
its parts. The defaults are the embedded model's; `ddpo.recipes` has those of other models.
"""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final, Literal

from ddpo.devices import AUTO
from ddpo.errors import ConfigError
from ddpo.policies.checkpoints.lora import ATTENTION
from ddpo.policies.image_size import OWN_SIZE, Size, checked_size
from ddpo.policies.model_place import EMBEDDED
from ddpo.policies.transitions import GridWord, Transition, check_eta, check_words
from ddpo.ranges import (
    BATCH,
    BILLION,
    ETA,
    GUIDANCE,
    IMAGES,
    ITERATIONS,
    SEED,
    STEPS,
    Range,
    check_numbers,
)
from ddpo.text import count
from ddpo.trainer.independent import independent_judge
from ddpo.word_lists import listed

__all__ = [
    "INFINITY",
    "AdaptConfig",
    "AdvantageConfig",
    "OptimConfig",
    "RegressionConfig",
    "SampleConfig",
    "TrainConfig",
    "WindowConfig",
]

INFINITY: Final = "inf"
NO_REWARD: Final = "none"  # word for no held-out reward
"""Infinity in `config.json`, since strict JSON has none."""

JUDGE: Final = "clip_score:model=emoji"
"""The held-out reward that messages about an embedded model name, if the training reward allows."""
NO_CLIPPING: Final = Range(low=0, above=True, infinity="no clipping")
COUNT: Final = Range(low=1, high=BILLION, whole=True)
COUNT_OR_ZERO: Final = Range(low=0, high=BILLION, whole=True)
ROUNDING: Final = 1e-9  # so that 0.7 of 10 steps are seven
DECAY: Final = Range(low=0, high=1, below=True)  # of a running mean


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """Settings of the rollout."""

    samples: Annotated[int, IMAGES] = 96  # images, that is reward queries, per iteration
    per_prompt: Annotated[int, IMAGES] = 8  # images of each sampled prompt
    steps: Annotated[int, STEPS] = 10  # denoising steps
    guidance: Annotated[float, GUIDANCE] = 1.0  # 1: none, at half the cost
    eta: Annotated[float, ETA] = 1.0
    """Stochasticity of the steps: of DDIM up to 1, of the SDEs of a flow up to 2."""
    batch: Annotated[int, BATCH] = 32
    """Items in one call of the denoiser, in sampling and in training."""
    branches: Annotated[int, IMAGES] = 1
    """Images of a prompt that start from the same initial noise."""
    transition: Transition = "auto"
    """Kind of the steps; auto: DDIM for U-Nets, Flow-SDE for flow models."""
    grid: GridWord = "auto"
    """Noise levels of a flow model, as `ddpo.policies.flow_schedule` names them."""
    size: Size = OWN_SIZE
    """Height and width of the images in pixels, or one number; empty: the model's own."""

    def __post_init__(self) -> None:
        check_numbers(self, "sample.")
        check_words(self.transition, self.grid, "sample.")
        object.__setattr__(self, "size", checked_size(self.size, "sample.size"))
        check_eta(self.transition, self.eta, "sample.", above=True)
        for whole, part in (("samples", "per_prompt"), ("per_prompt", "branches")):
            if getattr(self, whole) % getattr(self, part):
                raise ConfigError(
                    f"sample.{whole}={getattr(self, whole)} is not a multiple of "
                    f"sample.{part}={getattr(self, part)}"
                )


@dataclass(frozen=True, slots=True)
class WindowConfig:
    """Settings of the steps with noise, which all images of a prompt share.

    The other steps are deterministic and are not trained; see `ddpo.trainer.windows`.
    """

    steps: Annotated[int, COUNT_OR_ZERO] = 0  # steps with noise; 0: all
    kind: Literal["random", "scattered", "progressive"] = "random"
    """Consecutive steps at random, any steps at random, or a place that moves to less noise."""
    within: Annotated[float, Range(low=0, high=1, above=True)] = 1.0
    """Share of the steps, from the first, that have the window."""
    every: Annotated[int, COUNT] = 25  # progressive: iterations at each place
    stride: Annotated[int, COUNT] = 1  # progressive: steps between two places

    def __post_init__(self) -> None:
        check_numbers(self, "window.")
        _one_of(self, "kind")


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """Settings of AdamW, and of the updates that a rollout is split into."""

    lr: Annotated[float, Range(low=0, high=1e30, above=True)] = 3e-3
    beta1: Annotated[float, DECAY] = 0.9
    beta2: Annotated[float, DECAY] = 0.999
    eps: Annotated[float, Range(low=1e-30, high=1)] = 1e-8
    weight_decay: Annotated[float, Range(low=0, high=1000)] = 1e-4
    max_grad_norm: Annotated[float, NO_CLIPPING] = 1.0
    updates: Annotated[int, COUNT] = 4
    """Optimizer steps per pass over the rollout, each on its share of it."""
    epochs: Annotated[int, Range(low=1, high=10_000, whole=True)] = 1
    """Passes over the rollout per iteration ("inner epochs")."""
    skip_first: Annotated[int, COUNT_OR_ZERO] = 0
    """First denoising steps that are not trained."""
    skip_last: Annotated[int, COUNT_OR_ZERO] = 1
    """Last denoising steps that are not trained.

    Their noise is tiny, which makes their gradients drown those of other steps.
    """
    timesteps: Annotated[int, COUNT_OR_ZERO] = 5
    """Steps of each image and epoch, sampled at random; 0: all. In regression: noise levels."""
    guidance: bool = True
    """True if training sees the guided prediction; False: the prediction with the prompt alone."""
    kl: Annotated[float, Range(low=0, high=1_000_000)] = 0.0
    """Weight of KL(policy || reference policy) in the loss, a mean per latent dimension."""
    kl_of: Literal["step", "time", "output"] = "step"
    """Unit of that KL; see `ddpo.trainer.divergences`."""
    kl_reference: Literal["base", "start"] = "base"
    """Reference policy: the base model, or the model at the first step, with `adapt.start`."""
    clip_range: Annotated[float, NO_CLIPPING] = 2e-3
    """Clip range of the ratio, which is a mean per latent dimension.

    1e-4 for the 16,384 dimensions of Stable Diffusion, 2e-3 for 768.
    """
    divergence: Annotated[float, NO_CLIPPING] = 1e-5
    """flow_dppo: KL of a step from the sampling policy, beyond which an item has no gradient."""
    ema: Annotated[float, DECAY] = 0.0
    """Highest decay of the moving average of the weights, which checkpoints hold; 0: none."""
    ema_every: Annotated[int, COUNT] = 8  # optimizer steps between two updates of that average

    def __post_init__(self) -> None:
        check_numbers(self, "optim.")
        _one_of(self, "kl_of")
        _one_of(self, "kl_reference")


@dataclass(frozen=True, slots=True)
class AdvantageConfig:
    """Settings of the advantages; see `ddpo.trainer.advantages`."""

    kind: Literal["per_prompt", "batch", "group", "leave_one_out"] = "group"
    buffer: Annotated[int, COUNT] = 32  # per_prompt: last rewards kept of each prompt
    min_count: Annotated[int, COUNT] = 8
    """With fewer of a prompt, `per_prompt` uses the whole iteration's statistics."""
    clip: Annotated[float, NO_CLIPPING] = 5.0
    std: Literal["group", "iteration", "none"] = "group"
    """group: rewards whose standard deviation divides the advantages."""
    combine: Literal["rewards", "advantages"] = "rewards"
    """Sum of several rewards that is compared: of their scores, or of each one's advantages."""

    def __post_init__(self) -> None:
        check_numbers(self, "advantage.")
        for name in ("kind", "std", "combine"):
            _one_of(self, name)
        if self.std != "group" and self.kind != "group":
            raise ConfigError(
                f"advantage.std={self.std!r} is of advantage.kind='group': with "
                f"advantage.kind={self.kind!r} set advantage.std='group'"
            )


@dataclass(frozen=True, slots=True)
class RegressionConfig:
    """Settings of the weights of reward-weighted regression; see `ddpo.trainer.regression`."""

    beta: Annotated[float, Range(low=0, high=1_000_000, above=True)] = 1.0
    """Inverse temperature of rwr's softmax."""
    scale: Literal["reward", "std"] = "std"
    """Unit of the reward that β multiplies: its own, or standard deviations of its prompt."""
    keep: Annotated[float, Range(low=0, high=1, above=True, below=True)] = 0.1
    """Share of each prompt's images that rwr_sparse keeps."""

    def __post_init__(self) -> None:
        check_numbers(self, "regression.")
        _one_of(self, "scale")


@dataclass(frozen=True, slots=True)
class AdaptConfig:
    """Settings of the weights that are trained."""

    kind: Literal["lora", "full"] = "lora"
    start: str = ""
    """LoRA that training begins from, a path or hub id; "": adapters that change nothing."""
    rank: Annotated[int, Range(low=1, high=4096, whole=True)] = 16
    alpha: Annotated[int, Range(low=1, high=1_000_000, whole=True)] = 16
    targets: tuple[str, ...] = ATTENTION  # layers that get adapters, by the end of their names
    checkpointing: bool = False
    """True if activations are computed again in the backward pass.

    That takes less memory and more time; gradients are the same.
    """

    def __post_init__(self) -> None:
        _one_of(self, "kind")
        if self.start and self.kind != "lora":
            raise ConfigError(
                f"adapt.start = {self.start!r} is a LoRA to train further: set adapt.kind=lora "
                f"(it is {self.kind!r})"
            )
        listed(self, "targets")
        check_numbers(self, "adapt.")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """All settings of a training run."""

    reward: str = "compressibility"
    prompts: str = "animals"
    prompt_limit: Annotated[int, COUNT_OR_ZERO] = 0  # first prompts of the list; 0: all
    model: str = "emoji"
    algorithm: str = "ddpo_is"
    iterations: Annotated[int, ITERATIONS] = 10
    seed: Annotated[int, SEED] = 0
    device: str = AUTO  # the accelerator of the machine, else the CPU; rewards follow
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights that are not trained."""
    low_memory: bool = False  # True to take less memory and more time; see `low_memory`
    compile: bool = False  # True to compile the denoiser, for sampling and training alike
    checkpoint_every: Annotated[int, ITERATIONS] = 2  # iterations between checkpoints
    checkpoint_keep: Annotated[int, COUNT_OR_ZERO] = 0
    """Number of last checkpoints that stay, beside the best by `held_out`; 0: all."""
    held_out: str = ""
    """A reward that is not trained on, scored at each checkpoint; "" or "none": no reward."""
    held_out_prompts: str = "unseen_animals"  # a file or built-in list for it
    stop_when: Literal["never", "held-out-falls"] = "never"
    """End of the run before its last iteration: once the held-out reward has fallen."""
    stop_patience: Annotated[int, COUNT] = 2
    """Checkpoints in a row that must have fallen before the run ends."""
    grid_every: Annotated[int, ITERATIONS] = 5  # iterations between image grids
    sample: SampleConfig = field(default_factory=SampleConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    regression: RegressionConfig = field(default_factory=RegressionConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Sources of the values, by setting, such as "optim.lr"; no setting itself.

    See `ddpo.trainer.settings`.
    """

    def __post_init__(self) -> None:
        check_numbers(self)
        _one_of(self, "dtype")
        _one_of(self, "stop_when")
        if self.held_out == NO_REWARD:
            object.__setattr__(self, "held_out", "")
        if self.stop_when == "held-out-falls" and not self.held_out:
            judge = independent_judge(JUDGE, self.reward) if self.model in EMBEDDED else ""
            example = f", such as {judge}" if judge else ""
            raise ConfigError(
                "stop_when = 'held-out-falls' needs a reward that is not trained on: "
                f"name one with --held-out{example}"
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
        if self.window.steps:
            self._check_window()

    def _check_window(self) -> None:
        """Raises `ConfigError` unless the window fits the steps, and the trained steps it."""
        room = len(self.window_range)
        if self.window.steps > room:
            raise ConfigError(
                f"window.steps={self.window.steps} does not fit: sample.steps, optim.skip_first, "
                f"optim.skip_last and window.within leave {count(max(room, 0), 'step')}"
            )
        if self.optim.timesteps not in (0, self.window.steps):
            raise ConfigError(
                f"window.steps={self.window.steps}: all steps of a window are trained; "
                f"set optim.timesteps=0 (it is {self.optim.timesteps})"
            )

    @property
    def window_range(self) -> range:
        """The denoising steps that may be in a window."""
        within = math.floor(self.sample.steps * self.window.within + ROUNDING)
        last = min(self.sample.steps - self.optim.skip_last, within)
        return range(self.optim.skip_first, max(last, self.optim.skip_first))

    @property
    def trained_steps(self) -> int:
        """Number of denoising steps, after the first `optim.skip_first`, that can be trained."""
        return self.sample.steps - self.optim.skip_first - self.optim.skip_last

    @property
    def steps_per_image(self) -> int:
        """Number of denoising steps of each image that are trained in an epoch."""
        return self.window.steps or self.optim.timesteps or self.trained_steps

    @property
    def training_guidance(self) -> float:
        """The guidance scale of the prediction that is trained."""
        return self.sample.guidance if self.optim.guidance else 1.0

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for `config.json`; infinity is the text "inf"."""
        values: dict[str, Any] = json.loads(
            json.dumps(asdict(self)), parse_constant=lambda _: INFINITY
        )
        if not self.sources:
            del values["sources"]
        return values


def _one_of(config: Any, name: str) -> None:
    """Raises `ConfigError` unless a setting is one of the values that its type lists."""
    choices = typing.get_args(typing.get_type_hints(type(config))[name])
    if (value := getattr(config, name)) not in choices:
        table = type(config).__name__.removesuffix("Config").lower()
        setting = name if table == "train" else f"{table}.{name}"
        allowed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise ConfigError(f"{setting} must be {allowed}, got {value!r}")
