"""Rewards as the callables of other programs, such as DDPO trainers, TRL, flow_grpo and a function.

Every adapter calls the reward through a `Scorer`, so that its contract, micro-batches and time-outs
hold. None is differentiable. Scores are on the reward's own scale unless `scale` is given. An image
without a score raises unless `unscorable` is given, and never becomes 0. docs/other-trainers.md has
an example for each program.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from PIL import Image
from torch import Tensor

from ddpo.devices import in_float64
from ddpo.errors import ConfigError, RewardFailure, RewardLoadError
from ddpo.registry import explain_load_failure
from ddpo.rewards.adapter_inputs import batch_of_arrays, batches_of_images
from ddpo.rewards.base import Reward
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scales import SCALES, divisor_of
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.scoring.user_function import FunctionReward
from ddpo.rewards.zoo import resolve
from ddpo.types import RewardOutput

__all__ = [
    "SCALES",
    "FunctionReward",
    "RewardFunction",
    "Unscorable",
    "flow_factory_reward",
    "image_scorer",
    "multi_score",
    "picture_scorer",
    "reward_function",
    "score_images",
]

Unscorable = Literal["raise", "mean", "nan"]
"""The treatment of an image without a score: an error, the mean of its call's scores, or NaN.

With the mean its advantage is 0.
"""


class RewardFunction(Protocol):
    """The reward function of ddpo-pytorch, TRL's DDPOTrainer, flow_grpo and DiffusionNFT."""

    def __call__(
        self, images: Any, prompts: Any, metadata: Any = None, *, progress: float | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores `[batch]` float32 on the CPU, and a dictionary of information.

        The information holds the parts of the scores, and `unscorable`: index → reason.

        Args:
            images: Float tensor `[batch, 3, height, width]` in [0, 1], or uint8 array
                `[batch, height, width, 3]`.
            prompts: One text per image.
            metadata: One mapping per image, or None.
            progress: Share of the training that is done, for rewards that read it.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A scorer with a scale and a treatment of images without a score."""

    scorer: Scorer
    divisor: float
    unscorable: Unscorable

    @property
    def card(self) -> RewardCard:
        return self.scorer.reward.card

    def finish(self, output: RewardOutput) -> tuple[Tensor, dict[str, Any]]:
        """Scores on the chosen scale, and the information.

        Raises:
            RewardFailure: An image has no score, and `unscorable` is "raise", or is "mean" and no
                image of the call has one.
        """
        values = (in_float64(output.values) / self.divisor).float()
        reasons = {
            index: reason for index, reason in enumerate(output.errors) if reason is not None
        }
        info: dict[str, Any] = {**output.parts, "unscorable": reasons}
        if not reasons or self.unscorable == "nan":
            return values, info
        index, reason = next(iter(reasons.items()))
        if self.unscorable == "raise":
            more = f"{len(reasons) - 1} more of {len(values)}"
            raise RewardFailure(
                f"reward {self.card.id!r} has no score for image {index}, and {more}: {reason}"
            )
        if len(reasons) == len(values):
            none = f"none of {len(values)} images, so no mean"
            raise RewardFailure(f"reward {self.card.id!r} has a score for {none}: {reason}")
        return values.nan_to_num(nan=float(values[~values.isnan()].mean())), info


def reward_function(
    reward: str | Reward | Scorer,
    *,
    scale: str | float = 1.0,
    unscorable: Unscorable = "raise",
    batch_size: int = 16,
) -> RewardFunction:
    """The reward as `fn(images, prompts, metadata) -> (scores, info)`.

    Args:
        reward: Specification such as "compressibility" or "./my.py:f:option=3", a reward, or a
            scorer, for instance one with a cache.
        scale: Project of `SCALES` whose divisor is used, or a divisor.
        unscorable: Treatment of an image without a score.
        batch_size: Largest number of images per call of the reward.

    Raises:
        UserError: The reward cannot be made, or an argument is invalid.
    """
    scaled = _scaled(reward, scale, unscorable, batch_size)

    def score(
        images: Any, prompts: Any, metadata: Any = None, *, progress: float | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        batch = batch_of_arrays(images, prompts, metadata, scaled.card, progress)
        return scaled.finish(scaled.scorer.score(batch))

    return score


def multi_score(
    weights: Mapping[str, float],
    *,
    scale: str | float = 1.0,
    unscorable: Unscorable = "raise",
    batch_size: int = 16,
) -> Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]:
    """The scores of several rewards and `avg`, their weighted sum, for flow_grpo and DiffusionNFT.

    Args:
        weights: Specification of each reward → its weight.
        scale: Project of `SCALES` that knows every reward, or one divisor for all.
        unscorable: Treatment of an image without a score.
        batch_size: Largest number of images per call of a reward.

    Returns:
        `fn(images, prompts, metadata, only_strict=True)`, which returns
        `({reward id: scores, …, "avg": scores}, info)`. `only_strict` concerns GenEval alone and
        has no effect.

    Raises:
        UserError: As `reward_function`; there is no reward, or one appears twice.
    """
    parts = [
        (weight, _scaled(spec, scale, unscorable, batch_size)) for spec, weight in weights.items()
    ]
    names = [scaled.card.id for _, scaled in parts]
    if not names or len(set(names)) < len(names) or "avg" in names:
        got = ", ".join(names) or "none"
        raise ConfigError(
            f"multi_score needs at least one reward, each once and none called 'avg'; got {got}"
        )

    def score(
        images: Any,
        prompts: Any,
        metadata: Any = None,
        only_strict: bool = True,
        *,
        progress: float | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        scores: dict[str, Tensor] = {}
        info: dict[str, Any] = {}
        for _, scaled in parts:
            batch = batch_of_arrays(images, prompts, metadata, scaled.card, progress)
            scores[scaled.card.id], info[scaled.card.id] = scaled.finish(scaled.scorer.score(batch))
        total = torch.stack([weight * scores[scaled.card.id] for weight, scaled in parts]).sum(0)
        return {**scores, "avg": total}, info

    return score


def image_scorer(
    reward: str | Reward | Scorer,
    *,
    scale: str | float = 1.0,
    unscorable: Unscorable = "raise",
    batch_size: int = 16,
) -> Callable[..., list[float]]:
    """The reward as `fn(images, prompts=None) -> list[float]` on PIL images of any mode and size.

    The arguments are those of `reward_function`.
    """
    scaled = _scaled(reward, scale, unscorable, batch_size)

    def score(images: Sequence[Image.Image], prompts: Sequence[str] | None = None) -> list[float]:
        scores: list[float] = scaled.finish(score_images(scaled.scorer, images, prompts))[
            0
        ].tolist()
        return scores

    return score


picture_scorer = image_scorer  # its name in earlier versions


def score_images(
    scorer: Scorer,
    images: Sequence[Image.Image],
    prompts: Sequence[str] | None,
    metadata: Sequence[Any] | None = None,
) -> RewardOutput:
    """The scores of PIL images of any mode and size, in order.

    Args:
        scorer: Scorer of the reward.
        images: Images to score.
        prompts: One text per image; None only for a reward that does not read them.
        metadata: One mapping per image; None for none.

    Raises:
        ImageError: An item is not an image, or sizes differ for a reward that judges a group.
        PromptError: Prompts or metadata are missing, or are not one per image.
        RewardFailure: The reward failed.
    """
    batches, reasons = batches_of_images(images, prompts, scorer.reward.card, metadata)
    values = torch.full((len(images),), torch.nan)
    errors = [reasons.get(index) for index in range(len(images))]
    for places, batch in batches:
        output = scorer.score(batch)
        values[list(places)] = output.values
        for place, error in zip(places, output.errors, strict=True):
            errors[place] = error
    return RewardOutput(values, errors=tuple(errors))


def flow_factory_reward(
    reward: str, *, scale: str | float = 1.0, unscorable: Unscorable = "raise"
) -> type:
    """The reward as a class for Flow-Factory's `reward_model: my_module.MyReward`.

    Its objects are made by `cls(config, accelerator)` and called with `(prompt, image)`. It derives
    from Flow-Factory's PointwiseRewardModel, or from GroupwiseRewardModel for a reward that judges
    groups. Without Flow-Factory it is a class of the same shape, for trials.

    Args:
        reward: Specification of the reward, which is made when the class is instantiated.
        scale: As in `reward_function`.
        unscorable: As in `reward_function`.

    Raises:
        UserError: As `reward_function`; the reward reads metadata, which Flow-Factory does not
            pass on; or Flow-Factory is broken.
    """
    card = resolve(reward).card
    if "metadata" in card.inputs:
        raise ConfigError(
            f"reward {card.id!r} reads metadata, which Flow-Factory does not pass to rewards"
        )
    divisor_of(card.id, scale)
    base, output_type = _flow_factory(
        "GroupwiseRewardModel" if "group" in card.inputs else "PointwiseRewardModel"
    )

    def __init__(self: Any, config: Any, accelerator: Any) -> None:  # noqa: N807
        base.__init__(self, config, accelerator)
        self.scaled = _scaled(reward, scale, unscorable, getattr(config, "batch_size", 16))

    def __call__(self: Any, prompt: Any, image: Any = None) -> Any:  # noqa: N807
        if image is None:
            raise ConfigError(
                f"reward {card.id!r} scores images; Flow-Factory passed none (a video model?)"
            )
        values, info = self.scaled.finish(score_images(self.scaled.scorer, image, prompt))
        return output_type(rewards=values, extra_info=info)

    body = {
        "__doc__": card.summary,
        "__module__": __name__,
        "__init__": __init__,
        "__call__": __call__,
        "required_fields": ("prompt", "image"),
        "use_tensor_inputs": False,
    }
    return type("DdpoReward", (base,), body)


@dataclass(frozen=True, slots=True)
class _Output:
    rewards: Tensor
    extra_info: dict[str, Any]


class _Standalone:
    """The base class where Flow-Factory is not installed."""

    def __init__(self, config: Any, accelerator: Any) -> None:
        self.config = config
        self.accelerator = accelerator


def _flow_factory(base: str) -> tuple[Any, Any]:
    if importlib.util.find_spec("flow_factory") is None:
        return _Standalone, _Output
    try:
        module = importlib.import_module("flow_factory.rewards")
        return getattr(module, base), module.RewardModelOutput
    except Exception as error:  # foreign code may raise anything
        cause = explain_load_failure(error, "flow_factory", "install it")
        raise RewardLoadError(
            f"Flow-Factory is installed but cannot be imported: {cause}"
        ) from error


def _scaled(
    reward: str | Reward | Scorer, scale: str | float, unscorable: Unscorable, batch_size: int
) -> _Scaled:
    if unscorable not in ("raise", "mean", "nan"):
        raise ConfigError(f"unscorable must be 'raise', 'mean' or 'nan', got {unscorable!r}")
    if isinstance(reward, str):
        scorer = make_scorer(resolve(reward), batch_size)
    elif isinstance(reward, Scorer):
        scorer = reward
    elif isinstance(reward, Reward):
        scorer = Scorer(reward, batch_size)
    else:
        raise ConfigError(
            f"expected the name of a reward, a reward or a scorer, got a {type(reward).__name__}"
        )
    return _Scaled(scorer, divisor_of(scorer.reward.card.id, scale), unscorable)
