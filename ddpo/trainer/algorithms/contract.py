"""The calls of an algorithm, with its results compared with the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddpo.author_errors import definition_place
from ddpo.errors import UserCodeFailure
from ddpo.trainer.advantages import Floats, PromptStatistics, SampleWeights
from ddpo.trainer.algorithms import Algorithm
from ddpo.trainer.config import TrainConfig

__all__ = ["SampleWeights", "sample_losses", "sample_weights"]


def sample_weights(
    algorithm: Algorithm,
    rewards: Floats,
    prompt_ids: Sequence[str],
    statistics: PromptStatistics,
    config: TrainConfig,
) -> SampleWeights:
    """The weights of `algorithm.weigh`, one per image.

    Raises:
        UserCodeFailure: It returned anything else.
    """
    weights: Any = algorithm.weigh(rewards, prompt_ids, statistics, config)
    if not isinstance(weights, SampleWeights):
        raise _broken(algorithm, "weigh", f"returned a {type(weights).__name__}, not SampleWeights")
    for name in ("values", "scored", "counted"):
        shape = getattr(getattr(weights, name), "shape", None)
        if shape != (len(rewards),):
            found = "no array" if shape is None else f"the shape {list(shape)}"
            raise _broken(
                algorithm,
                "weigh",
                f"gave `{name}` {found} for {len(rewards)} images: one per image",
            )
    return weights


def sample_losses(
    algorithm: Algorithm,
    log_likelihoods: Tensor,
    old_log_likelihoods: Tensor,
    weights: Tensor,
    config: TrainConfig,
) -> Tensor:
    """The losses of `algorithm.loss`, `[items]`.

    Raises:
        UserCodeFailure: It returned anything other than one loss per item, such as their mean, or
            losses without gradient.
    """
    losses: Any = algorithm.loss(log_likelihoods, old_log_likelihoods, weights, config)
    if not isinstance(losses, torch.Tensor):
        raise _broken(algorithm, "loss", f"returned a {type(losses).__name__}, not a tensor")
    if losses.shape != log_likelihoods.shape:
        found = f"the shape {list(losses.shape)} for {len(log_likelihoods)} items"
        if losses.ndim == 0:
            found = f"one number for {len(log_likelihoods)} items"
        raise _broken(
            algorithm, "loss", f"returned {found}: return one loss per item, without mean or sum"
        )
    if log_likelihoods.requires_grad and not losses.requires_grad:
        advice = "compute them from log_likelihoods, without detach or no_grad"
        raise _broken(algorithm, "loss", f"returned losses without gradient: {advice}")
    return losses


def _broken(algorithm: Algorithm, method: str, text: str) -> UserCodeFailure:
    place = definition_place(getattr(algorithm, method))
    name = type(algorithm).__name__
    return UserCodeFailure(
        f"{place}: {name}.{method} {text}" if place else f"{name}.{method} {text}"
    )
