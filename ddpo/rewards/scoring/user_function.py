"""A function as a reward: `f(images, prompts, metadata)`, with a number per image, or with info."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from ddpo.author_errors import definition_place
from ddpo.devices import AUTO
from ddpo.errors import ConfigError, ContractBroken, RewardFailure
from ddpo.rewards.card import PLACEMENT, RewardCard, RewardOption
from ddpo.rewards.scoring.function_parameters import STARRED, WORDS, has_default, parameters_of
from ddpo.rewards.scoring.returned_scores import (
    numbers_per_image,
    scores_and_info,
    scores_per_image,
)
from ddpo.types import ImageBatch, RewardOutput

__all__ = [
    "FunctionReward",
    "caller_of",
    "card_of_class",
    "card_of_function",
    "function_of_class",
]

NO_SCORE: Final = "the reward function returned None"
LARGEST_FLOAT32: Final = 3.4028234e38
AS_ARRAY: Final = (
    "images are NumPy arrays here, uint8 [batch, height, width, 3]: use Image.fromarray(image) for "
    "each image; for a tensor as in other trainers begin with "
    "`images = torch.tensor(images).permute(0, 3, 1, 2) / 255`"
)


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
    return RewardCard(
        id=name.lower(),
        version=version,
        summary=(_described(function) or "a user's function, without a docstring").splitlines()[0],
        load=reference,
        family="user",
        flaws="not stated",
        inputs=tuple(kind for kind, _ in WORDS if kind in found.inputs.values()),
        optional=tuple(kind for kind, _ in WORDS if found.is_optional(kind)),
        preprocessing="uint8 [batch, height, width, 3]",
        dtype="as the function returns",
        code_licence="not stated",
        options=tuple(
            RewardOption(option, default, "") for option, default in found.options.items()
        ),
    )


def card_of_class(found: type, reference: str, version: str) -> RewardCard:
    """A card of a class without one, whose objects are called with images as a function is.

    The parameters of the constructor are the options. `device` gets the device of the run; another
    one without a default must be given, as in `./my.py:MyReward:weights=head.pt`.

    Args:
        found: Class of a user.
        reference: "module:attribute" of the class, for the card.
        version: Text that changes with the class's code.

    Raises:
        RewardLoadError: Its objects take no images, or its constructor takes unknown parameters.
    """
    card = card_of_function(functools.partial(caller_of(found), None), reference, version)
    options = tuple(
        RewardOption(parameter.name, _default_of(parameter), "")
        for parameter in _constructor_parameters(found)
    )
    summary = (_described(found) or "a user's class, without a docstring").splitlines()[0]
    return replace(card, id=found.__name__.lower(), summary=summary, options=options)


def function_of_class(found: type, options: Mapping[str, Any]) -> Callable[..., Any]:
    """The scoring method of a new object of a user's class.

    Raises:
        ConfigError: An option without a default was not given.
    """
    for parameter in _constructor_parameters(found):
        needed = not has_default(parameter) and parameter.name not in PLACEMENT
        if needed and options.get(parameter.name) is None:
            example = f"{found.__name__}:{parameter.name}=…"
            place = definition_place(found.__init__)  # type: ignore[misc]
            needs = f"reward {found.__name__} needs {parameter.name!r}, as in {example}"
            raise ConfigError(f"{place}: {needs}" if place else needs)
    named = dict(options)
    positional = [
        named.pop(parameter.name)
        for parameter in _constructor_parameters(found)
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY and parameter.name in named
    ]
    return cast(Callable[..., Any], getattr(found(*positional, **named), caller_of(found).__name__))


def caller_of(found: type) -> Callable[..., Any]:
    """The method that scores: `forward` of a torch module, else `__call__`."""
    forward = getattr(found, "forward", None)
    is_module = any(base.__module__.startswith("torch.nn") for base in found.__mro__)
    method = forward if is_module and callable(forward) else found.__call__
    return cast(Callable[..., Any], method)


def _constructor_parameters(found: type) -> list[inspect.Parameter]:
    """The parameters of a class's constructor, without the object and starred ones."""
    if found.__init__ is object.__init__:  # type: ignore[misc]
        return []
    constructor = found.__init__  # type: ignore[misc]
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    return [parameter for parameter in parameters if parameter.kind not in STARRED]


def _default_of(parameter: inspect.Parameter) -> Any:
    """The default of an option; None where a value must be given."""
    if parameter.name in PLACEMENT:
        return AUTO
    return parameter.default if has_default(parameter) else None


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
        parts: dict[str, torch.Tensor] = {}
        for places in self._calls(batch):
            part = batch if len(places) == len(batch) else batch.take(places)
            positional, named = self._arguments(part)
            try:
                result = self._function(*positional, **named)
            except (AttributeError, TypeError) as error:
                if "numpy.ndarray" in str(error):
                    error.add_note(AS_ARRAY)
                raise
            try:
                returned, info = scores_and_info(result)
                found = scores_per_image(returned, len(part))
            except ContractBroken as error:
                raise ContractBroken(self._at_function(str(error))) from error
            for place, score in zip(places, found, strict=True):
                scores[place] = score
            for name, values in numbers_per_image(info, len(part)).items():
                column = parts.setdefault(name, torch.full((len(batch),), math.nan))
                column[places] = torch.tensor(values, dtype=torch.float32)
        for index, score in enumerate(scores):
            self._refuse_score(index, score)
        values = [math.nan if score is None else score for score in scores]
        errors = tuple(NO_SCORE if score is None else None for score in scores)
        return RewardOutput(torch.tensor(values, dtype=torch.float32), parts, errors)

    def _refuse_score(self, index: int, score: float | None) -> None:
        """Refuses a score that is no finite number of float32.

        Raises:
            RewardFailure: It is none.
        """
        if score is None or abs(score) <= LARGEST_FLOAT32:
            return
        advice = "return None for an image that cannot be scored"
        if math.isfinite(score):
            advice = f"beyond the largest number of float32, {LARGEST_FLOAT32:.2g}"
        raise RewardFailure(self._at_function(f"the score of image {index} is {score}; {advice}"))

    def _calls(self, batch: ImageBatch) -> list[list[int]]:
        """The places of the images of each call.

        If prompts may be left out, images with and without one are scored in two calls.
        """
        everywhere = list(range(len(batch)))
        if not self._parameters.is_optional("prompt"):
            return [everywhere]
        prompted = [place for place in everywhere if batch.prompts[place].text]
        bare = [place for place in everywhere if not batch.prompts[place].text]
        return [places for places in (prompted, bare) if places] or [everywhere]

    def _arguments(self, batch: ImageBatch) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments for images of which all or none have a prompt."""
        found = self._parameters
        bare = not any(prompt.text for prompt in batch.prompts)
        given = dict(self._options)
        for name, kind in found.inputs.items():
            if kind == "image":
                given[name] = batch.uint8
            elif kind == "metadata":
                given[name] = [dict(prompt.metadata) for prompt in batch.prompts]
            elif not (bare and name in found.defaults):
                given[name] = [prompt.text for prompt in batch.prompts]
        positional = [
            given.pop(name) if name in given else found.defaults[name] for name in found.positional
        ]
        return positional, given

    def _at_function(self, text: str) -> str:
        """A text with the function's place before it, if known."""
        place = definition_place(self._function)
        return f"{place}: {text}" if place else text
