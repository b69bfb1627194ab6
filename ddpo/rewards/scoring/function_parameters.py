"""The parameters of a user's function by purpose: images, prompts, metadata and options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ddpo.author_errors import definition_place
from ddpo.errors import RewardLoadError

__all__ = ["STARRED", "WORDS", "Input", "Parameters", "has_default", "parameters_of"]

Input = Literal["image", "prompt", "metadata"]

POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
STARRED: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
IMAGES: Final = ("images", "image")
PROMPTS: Final = ("prompts", "prompt")
METADATA: Final = ("metadata",)
FACTORY: Final = ("device", "dtype")
"""Parameters of functions that make a reward; no image is given to them."""
OBJECTS: Final = ("self", "cls")
WORDS: Final[tuple[tuple[Input, tuple[str, ...]], ...]] = (
    ("image", IMAGES),
    ("prompt", PROMPTS),
    ("metadata", METADATA),
)
UNFILLED: Final[Mapping[str, Input]] = {
    "text": "prompt",
    "texts": "prompt",
    "caption": "prompt",
    "captions": "prompt",
    "metadatas": "metadata",
    "prompt_metadata": "metadata",
}
"""Other words for inputs; with a default other than None they are options."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function by purpose."""

    inputs: Mapping[str, Input]  # parameter → its content
    defaults: Mapping[str, Any]  # of those of `inputs` that have one
    options: Mapping[str, Any]  # parameter → default
    positional: tuple[str, ...]  # those that cannot be passed by name, in order

    def is_optional(self, kind: Input) -> bool:
        """True if an input may be left out."""
        return kind in {self.inputs[name] for name in self.defaults}


def parameters_of(function: Callable[..., Any], name: str) -> Parameters:
    """The parameters of a callable by purpose.

    - A parameter called images, prompts or metadata (or image, prompt) is an input, at any position
      and with or without a default.
    - A parameter called text, texts, caption or captions with the default None takes prompts.
    - If none is called images, the first parameter without a default is. If none is called prompts,
      the next one without a default is.
    - All others are options and need a default; `*args` and `**kwargs` are ignored.

    Args:
        function: Callable of a user.
        name: Name of the callable, for messages.

    Raises:
        RewardLoadError: There is no parameter for images, or another one has no default. The
            message has the place of the function and the change to make.
    """
    if _is_asynchronous(function):
        raise _no_reward(function, name, "it is asynchronous: await inside it, by asyncio.run(…)")
    try:
        own = list(inspect.signature(function, follow_wrapped=False).parameters.values())
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        reason = f"its parameters are not known ({error})"
        raise _no_reward(function, name, reason) from error
    if not any(parameter.kind in STARRED for parameter in own):
        parameters = own  # a decorator may fill what the decorated function needs
    inputs, named = _inputs_of(parameters)
    _refuse_inputs_as_options(function, name, inputs, named)
    left = _left_over(inputs, named)
    if "image" not in inputs.values() or left:
        raise _no_reward(
            function, name, f"{_remedy(parameters, left)}{_factory_advice(name, named)}"
        )
    return Parameters(
        inputs,
        {one.name: one.default for one in named if has_default(one) and one.name in inputs},
        {one.name: one.default for one in named if one.name not in inputs},
        tuple(one.name for one in named if one.kind is inspect.Parameter.POSITIONAL_ONLY),
    )


def _inputs_of(
    parameters: Sequence[inspect.Parameter],
) -> tuple[dict[str, Input], list[inspect.Parameter]]:
    """The inputs by parameter, and all parameters that are not starred."""
    named = [parameter for parameter in parameters if parameter.kind not in STARRED]
    inputs: dict[str, Input] = {}
    if named and named[0].name in OBJECTS and not has_default(named[0]):
        return inputs, named
    for kind, words in WORDS:
        first = next((parameter.name for parameter in named if parameter.name in words), None)
        if first is not None:
            inputs[first] = kind
    _add_unfilled(inputs, named)
    _add_unnamed(inputs, named)
    return inputs, named


def _left_over(inputs: Mapping[str, Input], named: Sequence[inspect.Parameter]) -> list[str]:
    """The parameters that nothing fills."""
    return [one.name for one in named if one.name not in inputs and not has_default(one)]


def _remedy(parameters: Sequence[inspect.Parameter], left: Sequence[str]) -> str:
    """The reason why parameters are refused, with the change to make."""
    if left and left[0] in OBJECTS:
        return "it is a method: name its class, or a method of an object such as scorer.score"
    if parameters and all(parameter.kind in STARRED for parameter in parameters):
        return (
            "it must take (images) or (images, prompts) by name, not only starred ones; "
            "a decorator keeps the names with functools.wraps"
        )
    rule = "it must take (images) or (images, prompts), and further parameters only with defaults"
    return f"{rule}; give {left[0]!r} a default" if left and len(parameters) > 1 else rule


def _factory_advice(name: str, named: Sequence[inspect.Parameter]) -> str:
    """Advice on a function that makes a reward, as in ddpo-pytorch and flow_grpo; else ""."""
    if named and not any(parameter.name in FACTORY for parameter in named):
        return ""
    words = ", ".join(f"{parameter.name}=…" for parameter in named)
    return f"; if it makes the reward, write `reward = {name}({words})` and name `reward`"


def _is_asynchronous(function: Callable[..., Any]) -> bool:
    call = getattr(type(function), "__call__", None)  # noqa: B004  # the method is inspected
    return any(
        inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)
        for found in (function, call)
    )


def _no_reward(function: Callable[..., Any], name: str, reason: str) -> RewardLoadError:
    place = definition_place(function)
    text = f"function {name!r} is no reward: {reason}"
    return RewardLoadError(f"{place}: {text}" if place else text)


def _add_unfilled(inputs: dict[str, Input], named: Sequence[inspect.Parameter]) -> None:
    """Adds inputs under the names of `UNFILLED`, each kind once."""
    for parameter in named:
        kind = UNFILLED.get(parameter.name)
        unfilled = parameter.default is None or not has_default(parameter)
        if kind is not None and kind not in inputs.values() and unfilled:
            inputs[parameter.name] = kind


def _refuse_inputs_as_options(
    function: Callable[..., Any],
    name: str,
    inputs: Mapping[str, Input],
    named: Sequence[inspect.Parameter],
) -> None:
    """Refuses a second parameter with the name of an input, which would never be filled.

    Raises:
        RewardLoadError: There is one.
    """
    for parameter in named:
        kind = next((kind for kind, words in WORDS if parameter.name in words), None)
        taken = next((other for other, found in inputs.items() if found == kind), None)
        if taken is not None and parameter.name not in inputs:
            reason = f"{parameter.name!r} and {taken!r} name one input; rename the option"
            raise _no_reward(function, name, reason)


def _add_unnamed(inputs: dict[str, Input], named: Sequence[inspect.Parameter]) -> None:
    """Adds images and prompts under other names: the first required parameters."""
    free = [
        parameter
        for parameter in named
        if parameter.name not in inputs and parameter.kind in POSITIONAL
    ]
    required = [
        parameter
        for parameter in free
        if not has_default(parameter) and parameter.name not in FACTORY
    ]
    if "image" not in inputs.values() and required:
        inputs[required.pop(0).name] = "image"
    if "prompt" not in inputs.values() and required:
        inputs[required.pop(0).name] = "prompt"


def has_default(parameter: inspect.Parameter) -> bool:
    """True if a parameter may be left out."""
    return parameter.default is not inspect.Parameter.empty
