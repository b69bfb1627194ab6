"""A plain function as a reward: `f(images)` or `f(images, prompts)`, one number per picture."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ddpo.errors import ContractBroken, RewardFailure, RewardLoadError
from ddpo.rewards.card import RewardCard, RewardOption
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["FunctionReward", "card_of_function"]

PARAMETERS = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NO_SCORE = "the reward function returned None"


def card_of_function(function: Callable[..., Any], reference: str, version: str) -> RewardCard:
    """A card made from a function's name, docstring and keyword defaults.

    Args:
        function: `f(images: uint8 [batch, height, width, 3], prompts: list[str], option=default, …)`; `prompts` may be left out.
        reference: "module:attribute", for the card.
        version: what changes when the function's code does.

    Raises:
        RewardLoadError: it takes no positional argument, or a third one without a default.
    """
    name = function.__name__
    parameters = list(inspect.signature(function).parameters.values())
    required = [p for p in parameters if p.default is inspect.Parameter.empty]
    if not 1 <= len(required) <= 2 or any(p.kind not in PARAMETERS for p in required):
        raise RewardLoadError(
            f"function {name!r} is no reward: it must take (images) or (images, prompts), and further parameters only with defaults"
        )
    return RewardCard(
        id=name.lower(),
        version=version,
        summary=(inspect.getdoc(function) or "a user's function, without a docstring").splitlines()[0],
        load=reference,
        family="user",
        flaws="not stated",
        inputs=("image", "prompt") if takes_prompts(function) else ("image",),
        preprocessing="uint8 [batch, height, width, 3]",
        dtype="as the function returns",
        code_licence="not stated",
        options=tuple(RewardOption(p.name, p.default, "") for p in parameters if p not in required),
    )


def takes_prompts(function: Callable[..., Any]) -> bool:
    """Whether a function's second parameter is required, and so stands for the prompts."""
    parameters = list(inspect.signature(function).parameters.values())
    return len(parameters) > 1 and parameters[1].default is inspect.Parameter.empty


class FunctionReward:
    """Calls a function with uint8 pictures and prompt texts. None stands for "cannot be scored"; NaN is a failure."""

    def __init__(self, function: Callable[..., Any], card: RewardCard, options: Mapping[str, Any]) -> None:
        self.card = card
        self._function, self._options = function, dict(options)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        import torch

        texts = ([prompt.text for prompt in batch.prompts],) if takes_prompts(self._function) else ()
        returned = self._function(batch.uint8, *texts, **self._options)
        scores = self._as_list(returned, len(batch))
        values = torch.tensor([math.nan if score is None else score for score in scores], dtype=torch.float32)
        return RewardOutput(values, errors=tuple(NO_SCORE if score is None else None for score in scores))

    def _as_list(self, returned: Any, count: int) -> Sequence[float | None]:
        try:
            scores = [None if score is None else float(score) for score in returned]
        except (TypeError, ValueError) as error:
            raise ContractBroken(f"the function must return one number per picture, got {type(returned).__name__} ({error})") from error
        if len(scores) != count:
            raise ContractBroken(f"the function returned {len(scores)} scores for {count} pictures")
        for index, score in enumerate(scores):
            if score is not None and not math.isfinite(score):
                raise RewardFailure(f"the score of image {index} is {score}; return None for a picture that cannot be scored")
        return scores
