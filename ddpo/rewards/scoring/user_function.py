"""A function as a reward: `f(images)` or `f(images, prompts)`, with one number per image."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ddpo.errors import ContractBroken, RewardFailure, RewardLoadError
from ddpo.rewards.card import RewardCard, RewardOption
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["FunctionReward", "card_of_function"]

POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
STARRED: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
IMAGES: Final = ("images", "image")
PROMPTS: Final = ("prompts", "prompt")
METADATA: Final = ("metadata",)
NO_SCORE: Final = "the reward function returned None"

Input = Literal["image", "prompt", "metadata"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function by purpose."""

    inputs: Mapping[str, Input]  # parameter → its content
    optional: frozenset[str]  # those of `inputs` with a default
    options: Mapping[str, Any]  # parameter → default
    positional: tuple[str, ...]  # those that cannot be passed by name, in order


def card_of_function(function: Callable[..., Any], reference: str, version: str) -> RewardCard:
    """A card from a callable's name, docstring and parameters.

    Args:
        function: `f(images, prompts, option=default, …)` with images uint8
            `[batch, height, width, 3]` and prompts a list of texts; see `parameters_of`.
        reference: "module:attribute" of the function, for the card.
        version: Text that changes with the function's code.

    Raises:
        RewardLoadError: The function takes no images, or has another parameter without a default.
    """
    name = _name(function, reference)
    found = parameters_of(function, name)
    kinds: tuple[Input, ...] = ("image", "prompt", "metadata")
    return RewardCard(
        id=name.lower(),
        version=version,
        summary=(_described(function) or "a user's function, without a docstring").splitlines()[0],
        load=reference,
        family="user",
        flaws="not stated",
        inputs=tuple(kind for kind in kinds if kind in found.inputs.values()),
        optional=tuple(kind for kind in kinds if _is_optional(found, kind)),
        preprocessing="uint8 [batch, height, width, 3]",
        dtype="as the function returns",
        code_licence="not stated",
        options=tuple(
            RewardOption(option, default, "") for option, default in found.options.items()
        ),
    )


def parameters_of(function: Callable[..., Any], name: str) -> Parameters:
    """The parameters of a callable by purpose.

    - A parameter called images, prompts or metadata (or image, prompt) is an input, at any position
      and with or without a default.
    - If none is called images, the first parameter without a default is. If none is called prompts,
      the next one without a default is.
    - All others are options and need a default; `*args` and `**kwargs` are ignored.

    Args:
        function: Callable of a user.
        name: Name of the callable, for messages.

    Raises:
        RewardLoadError: There is no parameter for images, or another one has no default.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise RewardLoadError(
            f"function {name!r} is no reward: its parameters are not known ({error})"
        ) from error
    named = [parameter for parameter in parameters if parameter.kind not in STARRED]
    inputs: dict[str, Input] = {}
    for kind, words in (("image", IMAGES), ("prompt", PROMPTS), ("metadata", METADATA)):
        first = next((parameter.name for parameter in named if parameter.name in words), None)
        if first is not None:
            inputs[first] = kind  # type: ignore[assignment]  # mypy takes the words for any text
    _add_unnamed(inputs, named)
    options = {
        parameter.name: parameter.default for parameter in named if parameter.name not in inputs
    }
    if "image" not in inputs.values() or inspect.Parameter.empty in options.values():
        raise RewardLoadError(
            f"function {name!r} is no reward: it must take (images) or (images, prompts), "
            "and further parameters only with defaults"
        )
    optional = frozenset(
        parameter.name
        for parameter in named
        if _has_default(parameter) and parameter.name in inputs
    )
    places = tuple(
        parameter.name for parameter in named if parameter.kind is inspect.Parameter.POSITIONAL_ONLY
    )
    return Parameters(inputs, optional, options, places)


def _add_unnamed(inputs: dict[str, Input], named: Sequence[inspect.Parameter]) -> None:
    """Adds images and prompts under other names: the first required parameters."""
    free = [
        parameter
        for parameter in named
        if parameter.name not in inputs and parameter.kind in POSITIONAL
    ]
    required = [parameter for parameter in free if not _has_default(parameter)]
    if "image" not in inputs.values() and required:
        inputs[required.pop(0).name] = "image"
    if "prompt" not in inputs.values() and required:
        inputs[required.pop(0).name] = "prompt"


def _has_default(parameter: inspect.Parameter) -> bool:
    return parameter.default is not inspect.Parameter.empty


def _is_optional(found: Parameters, kind: Input) -> bool:
    return any(found.inputs[name] == kind for name in found.optional)


def _name(function: Callable[..., Any], reference: str) -> str:
    """The function's own name, or for a lambda, partial or object the name of its variable."""
    own = getattr(function, "__name__", "")
    return own if own.isidentifier() else re.sub(r"\W", "_", reference.rpartition(":")[2])


def _described(function: Callable[..., Any]) -> str | None:
    """The docstring of a function, of a partial's function, or of an object's class."""
    return inspect.getdoc(function.func if isinstance(function, functools.partial) else function)


class FunctionReward:
    """A reward that calls a function with uint8 images and, if it takes them, prompts.

    A score of None marks an image that cannot be scored; NaN is a failure. For images without a
    prompt, a parameter for prompts keeps its default if it has one.

    Args:
        function: Callable of a user.
        card: Card of the reward.
        options: Values of the function's options.
    """

    def __init__(
        self, function: Callable[..., Any], card: RewardCard, options: Mapping[str, Any]
    ) -> None:
        self.card = card
        self._function = function
        self._options = dict(options)
        self._parameters = parameters_of(function, card.id)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`.

        Raises:
            ContractBroken: The function does not return one number per image.
            RewardFailure: A score is NaN or infinite.
        """
        import torch

        scores: list[float | None] = [None] * len(batch)
        for places in self._calls(batch):
            part = batch if len(places) == len(batch) else batch.take(places)
            positional, named = self._arguments(part)
            returned = self._function(*positional, **named)
            for place, score in zip(places, self._as_list(returned, len(part)), strict=True):
                scores[place] = score
        for index, score in enumerate(scores):
            if score is not None and not math.isfinite(score):
                advice = "return None for an image that cannot be scored"
                raise RewardFailure(f"the score of image {index} is {score}; {advice}")
        values = [math.nan if score is None else score for score in scores]
        errors = tuple(NO_SCORE if score is None else None for score in scores)
        return RewardOutput(torch.tensor(values, dtype=torch.float32), errors=errors)

    def _calls(self, batch: ImageBatch) -> list[list[int]]:
        """The places of the images of each call.

        If prompts may be left out, images with and without one are scored in two calls.
        """
        everywhere = list(range(len(batch)))
        if not _is_optional(self._parameters, "prompt"):
            return [everywhere]
        prompted = [place for place in everywhere if batch.prompts[place].text]
        bare = [place for place in everywhere if not batch.prompts[place].text]
        return [places for places in (prompted, bare) if places] or [everywhere]

    def _arguments(self, batch: ImageBatch) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments for images of which all or none have a prompt."""
        found = self._parameters
        bare = not any(prompt.text for prompt in batch.prompts)
        given: dict[str, Any] = dict(self._options)
        for name, kind in found.inputs.items():
            if kind == "image":
                given[name] = batch.uint8
            elif kind == "metadata":
                given[name] = [dict(prompt.metadata) for prompt in batch.prompts]
            elif not (bare and name in found.optional):
                given[name] = [prompt.text for prompt in batch.prompts]
        positional = [given.pop(name) for name in found.positional if name in given]
        return positional, given

    def _as_list(self, returned: Any, count: int) -> Sequence[float | None]:
        """The scores of one call of the function."""
        try:
            scores = [None if score is None else float(score) for score in returned]
        except (TypeError, ValueError) as error:
            kind = type(returned).__name__
            raise ContractBroken(
                f"the function must return one number per image, got {kind} ({error})"
            ) from error
        if len(scores) != count:
            raise ContractBroken(f"the function returned {len(scores)} scores for {count} images")
        return scores
