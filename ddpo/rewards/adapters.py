"""A reward as the callable that other programs expect: DDPO trainers, TRL, flow_grpo, DiffusionNFT, Flow-Factory, a plain function.

Every adapter goes through `Scorer`: contract, micro-batches, time-outs. None is differentiable. The scale is the reward's own unless
`scale` says otherwise, and a picture that cannot be scored raises unless `unscorable` says otherwise: it never becomes 0.
docs/other-trainers.md has a snippet for each.
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
from ddpo.rewards.zoo import resolve
from ddpo.types import RewardOutput

__all__ = [
    "SCALES",
    "RewardFunction",
    "Unscorable",
    "flow_factory_reward",
    "image_scorer",
    "multi_score",
    "picture_scorer",
    "reward_function",
]

Unscorable = Literal["raise", "mean", "nan"]
"""What becomes of a picture without a score: an error; the mean of the others of the same call (advantage 0); NaN."""


class RewardFunction(Protocol):
    """What ddpo-pytorch, TRL's DDPOTrainer and the functions of flow_grpo and DiffusionNFT are called with, and return."""

    def __call__(
        self, images: Any, prompts: Any, metadata: Any = None, *, progress: float | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores `[batch]` float32, on the CPU, and `info`: the parts of the score, and `unscorable`, index → reason.

        Args:
            images: float tensor `[batch, 3, height, width]` in [0, 1], or uint8 array `[batch, height, width, 3]`.
            prompts: one text per picture.
            metadata: one mapping per picture, or None.
            progress: share of the training that is done, for rewards that read it.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A scorer with a scale and a way with pictures that have no score."""

    scorer: Scorer
    divisor: float
    unscorable: Unscorable

    @property
    def card(self) -> RewardCard:
        return self.scorer.reward.card

    def finish(self, output: RewardOutput) -> tuple[Tensor, dict[str, Any]]:
        """Scores on the chosen scale and the info beside them; raises RewardFailure for a picture without a score, if so chosen."""
        values = (in_float64(output.values) / self.divisor).float()
        reasons = {
            index: reason for index, reason in enumerate(output.errors) if reason is not None
        }
        info: dict[str, Any] = {**output.parts, "unscorable": reasons}
        if not reasons or self.unscorable == "nan":
            return values, info
        index, reason = next(iter(reasons.items()))
        if self.unscorable == "raise":
            raise RewardFailure(
                f"reward {self.card.id!r} has no score for image {index}, and {len(reasons) - 1} more of {len(values)}: {reason}"
            )
        if len(reasons) == len(values):
            raise RewardFailure(
                f"reward {self.card.id!r} has a score for none of {len(values)} images, so no mean: {reason}"
            )
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
        reward: a specification such as "compressibility" or "./my.py:f:option=3", a reward, or a scorer (with a cache, say).
        scale: a project of `SCALES`, whose divisor is used, or a divisor.
        unscorable: what becomes of a picture without a score.
        batch_size: pictures per call of the reward, at most.

    Raises:
        UserError: the reward cannot be made, or an argument is not as above.
    """
    scaled = _scaled(reward, scale, unscorable, batch_size)

    def score(
        images: Any, prompts: Any, metadata: Any = None, *, progress: float | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        return scaled.finish(
            scaled.scorer.score(batch_of_arrays(images, prompts, metadata, scaled.card, progress))
        )

    return score


def multi_score(
    weights: Mapping[str, float],
    *,
    scale: str | float = 1.0,
    unscorable: Unscorable = "raise",
    batch_size: int = 16,
) -> Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]:
    """Several rewards as the training scripts of flow_grpo and DiffusionNFT call them: the scores of each, and `avg`, their weighted sum.

    Args:
        weights: specification of a reward → its weight.
        scale: a project of `SCALES`, which must know every reward, or one divisor for all.
        unscorable: what becomes of a picture without a score.
        batch_size: pictures per call of a reward, at most.

    Returns:
        `fn(images, prompts, metadata, only_strict=True) -> ({reward id: scores, …, "avg": scores}, info)`; `only_strict`, which concerns
        GenEval alone, changes nothing.

    Raises:
        UserError: as `reward_function`; no reward, or one twice.
    """
    parts = [
        (weight, _scaled(spec, scale, unscorable, batch_size)) for spec, weight in weights.items()
    ]
    names = [scaled.card.id for _, scaled in parts]
    if not names or len(set(names)) < len(names) or "avg" in names:
        raise ConfigError(
            f"multi_score needs at least one reward, each once and none called 'avg'; got {', '.join(names) or 'none'}"
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
    """The reward as `fn(images, prompts=None) -> list[float]` on PIL pictures of any mode and size; arguments as `reward_function`."""
    scaled = _scaled(reward, scale, unscorable, batch_size)

    def score(images: Sequence[Image.Image], prompts: Sequence[str] | None = None) -> list[float]:
        scores: list[float] = scaled.finish(_score_pictures(scaled, images, prompts))[0].tolist()
        return scores

    return score


picture_scorer = image_scorer  # its name in earlier versions


def _score_pictures(
    scaled: _Scaled, images: Sequence[Image.Image], prompts: Sequence[str] | None
) -> RewardOutput:
    batches, reasons = batches_of_images(images, prompts, scaled.card)
    values = torch.full((len(images),), torch.nan)
    errors = [reasons.get(index) for index in range(len(images))]
    for places, batch in batches:
        output = scaled.scorer.score(batch)
        values[list(places)] = output.values
        for place, error in zip(places, output.errors, strict=True):
            errors[place] = error
    return RewardOutput(values, errors=tuple(errors))


def flow_factory_reward(
    reward: str, *, scale: str | float = 1.0, unscorable: Unscorable = "raise"
) -> type:
    """The reward as a class that Flow-Factory's `reward_model: my_module.MyReward` loads: `cls(config, accelerator)(prompt, image)`.

    It derives from Flow-Factory's PointwiseRewardModel (GroupwiseRewardModel for a reward that judges a group). Where Flow-Factory is not
    installed, it is a class of the same shape that can be tried out.

    Args:
        reward: a specification; the reward is made when the class is instantiated.
        scale: as in `reward_function`.
        unscorable: as in `reward_function`.

    Raises:
        UserError: as `reward_function`; the reward reads metadata, which Flow-Factory does not hand on; or its package is broken.
    """
    card = resolve(reward).card
    if "metadata" in card.inputs:
        raise ConfigError(
            f"reward {card.id!r} reads metadata, which Flow-Factory does not hand to rewards"
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
                f"reward {card.id!r} scores images; Flow-Factory handed it none (a video model?)"
            )
        values, info = self.scaled.finish(_score_pictures(self.scaled, image, prompt))
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
    """Stands in for Flow-Factory's base class where that is not installed."""

    def __init__(self, config: Any, accelerator: Any) -> None:
        self.config, self.accelerator = config, accelerator


def _flow_factory(base: str) -> tuple[Any, Any]:
    if importlib.util.find_spec("flow_factory") is None:
        return _Standalone, _Output
    try:
        module = importlib.import_module("flow_factory.rewards")
        return getattr(module, base), module.RewardModelOutput
    except Exception as error:  # foreign code may raise anything
        raise RewardLoadError(
            f"Flow-Factory is installed but cannot be imported: {explain_load_failure(error, 'flow_factory', 'install it')}"
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
