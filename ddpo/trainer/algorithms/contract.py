"""The calls of an algorithm, with its results compared with the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddpo.author_errors import definition_place
from ddpo.errors import UserCodeFailure
from ddpo.trainer.advantages import Floats, PromptStatistics, SampleWeights
from ddpo.trainer.algorithms import AnyAlgorithm, ItemAlgorithm
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.items import Items

__all__ = ["SampleWeights", "outside_range", "sample_losses", "sample_weights"]


def sample_weights(
    algorithm: AnyAlgorithm,
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
    algorithm: AnyAlgorithm, items: Items, weights: Tensor, config: TrainConfig
) -> Tensor:
    """The losses of `algorithm.loss` or `algorithm.item_loss`, `[items]`.

    Raises:
        UserCodeFailure: It returned anything other than one loss per item, such as their mean, or
            losses without gradient.
    """
    new = items.new_log_probs
    losses: Any
    if isinstance(algorithm, ItemAlgorithm):
        method = "item_loss"
        losses = algorithm.item_loss(items, weights, config)
    else:
        method = "loss"
        old = new.detach() if items.old_log_probs is None else items.old_log_probs
        losses = algorithm.loss(new, old, weights, config)
    if not isinstance(losses, torch.Tensor):
        raise _broken(algorithm, method, f"returned a {type(losses).__name__}, not a tensor")
    if losses.shape != new.shape:
        found = f"the shape {list(losses.shape)} for {len(items)} items"
        if losses.ndim == 0:
            found = f"one number for {len(items)} items"
        raise _broken(
            algorithm, method, f"returned {found}: return one loss per item, without mean or sum"
        )
    if new.requires_grad and not losses.requires_grad:
        source = "log_likelihoods" if method == "loss" else "the items"
        advice = f"compute them from {source}, without detach or no_grad"
        raise _broken(algorithm, method, f"returned losses without gradient: {advice}")
    return losses


@torch.no_grad()
def outside_range(algorithm: AnyAlgorithm, items: Items, config: TrainConfig) -> Tensor:
    """True for items beyond the method's trust region, bool `[items]`.

    They are those of `algorithm.outside`, or else those whose ratio is outside
    1 ± `optim.clip_range`; none for items without old log-probs.

    Raises:
        UserCodeFailure: `outside` returned anything other than one truth value per item.
    """
    own = getattr(algorithm, "outside", None)
    if own is None:
        if items.old_log_probs is None:
            return torch.zeros_like(items.new_log_probs, dtype=torch.bool)
        log_ratio = items.new_log_probs.detach() - items.old_log_probs
        return (log_ratio.exp() - 1).abs() > config.optim.clip_range
    found: Any = own(items, config)
    if not isinstance(found, torch.Tensor) or found.dtype != torch.bool:
        raise _broken(algorithm, "outside", "returned no tensor of truth values")
    if found.shape != items.new_log_probs.shape:
        raise _broken(
            algorithm,
            "outside",
            f"returned the shape {list(found.shape)} for {len(items)} items: one per item",
        )
    return found


def _broken(algorithm: AnyAlgorithm, method: str, text: str) -> UserCodeFailure:
    place = definition_place(getattr(algorithm, method))
    name = type(algorithm).__name__
    return UserCodeFailure(
        f"{place}: {name}.{method} {text}" if place else f"{name}.{method} {text}"
    )
