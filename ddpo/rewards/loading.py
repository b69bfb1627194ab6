"""From a user's object, in a file or a module, to a card and a way to make the reward."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ddpo.errors import RewardLoadError, UserError, one_line
from ddpo.registry import explain_load_failure, load_attribute, nearest
from ddpo.rewards.base import Reward
from ddpo.rewards.card import RewardCard
from ddpo.rewards.code import source_digest
from ddpo.rewards.function import FunctionReward, card_of_function

__all__ = ["Factory", "adopt", "construct", "load_file", "load_object"]

Factory = Callable[..., Reward]
"""Makes the reward from its options, given as keywords."""


def load_file(path: Path, attribute: str) -> tuple[Any, str]:
    """Runs a Python file and returns one of its objects, and "file.py sha256:…" as its origin.

    Raises:
        RewardLoadError: no such file or attribute, or the file raises; names the line.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise RewardLoadError(f"reward file {path}: {error.strerror or error}") from error
    digest = hashlib.sha256(source).hexdigest()
    name = f"ddpo_user_{path.stem}_{digest[:16]}"
    module = sys.modules.get(name) or _execute(name, path, source)
    if not attribute:
        found = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == name and not key.startswith("_")]
        raise RewardLoadError(f"reward file {path}: say which object, such as {path}:{found[0] if found else 'MyReward'}")
    return _attribute(module, attribute, str(path)), f"{path.name} sha256:{digest[:12]}"


def _execute(name: str, path: Path, source: bytes) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickle look the module of a class up by its name
    try:
        exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102  # the user asks for this file to be run
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = _line_in(error, str(path))
        raise RewardLoadError(f"reward file {path}{line}: {explain_load_failure(error, name, 'install it')}") from error
    return module


def _line_in(error: BaseException, path: str) -> str:
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line


def _attribute(module: ModuleType, attribute: str, where: str) -> Any:
    value: Any = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            near = nearest(part, [key for key in vars(value) if not key.startswith("_")]) if hasattr(value, "__dict__") else None
            raise RewardLoadError(f"{where} has no {attribute!r}" + (f"; did you mean {near!r}?" if near else "")) from None
    return value


def load_object(module: str, attribute: str) -> tuple[Any, str]:
    """The object `module:attribute`, and "module sha256:…" as its origin.

    Raises:
        RewardLoadError: no such module or attribute, or the module raises.
    """
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            hint = "a file is named as ./file.py:Attribute"
            raise RewardLoadError(f"reward {module}:{attribute}: no module {error.name!r}; {hint}") from error
        raise RewardLoadError(f"reward {module}:{attribute}: {explain_load_failure(error, module, 'install it')}") from error
    except (Exception, SystemExit) as error:
        raise RewardLoadError(f"reward {module}:{attribute} cannot be imported: {one_line(error)}") from error
    digest = source_digest(module)
    return _attribute(imported, attribute, module), f"{module} sha256:{digest}" if digest else module


def adopt(found: Any, reference: str, origin: str) -> tuple[RewardCard, Factory | None]:
    """The card of a user's object, and how to make the reward: a card, a class with a card, an object with one, or a function.

    Raises:
        RewardLoadError: it is none of these.
    """
    if isinstance(found, RewardCard):
        return found, None  # made by what the card's `load` names
    if inspect.isclass(found):
        card = getattr(found, "card", None)
        if not isinstance(card, RewardCard) or not callable(getattr(found, "__call__", None)):  # noqa: B004
            raise RewardLoadError(f"class {reference} is no reward: it needs a class attribute `card: RewardCard` and `__call__(batch)`")
        return card, cast(Factory, found)
    if inspect.isfunction(found):
        card = card_of_function(found, reference, origin.rpartition("sha256:")[2])
        return card, lambda **options: FunctionReward(found, card, options)
    if isinstance(found, Reward) and isinstance(found.card, RewardCard):
        return found.card, lambda: found
    raise RewardLoadError(f"{reference} is a {type(found).__name__}, not a reward class, a reward, a card or a function")


def construct(card: RewardCard, origin: str, options: dict[str, Any], factory: Factory | None = None) -> Reward:
    """Loads what a card names and makes the reward with `options`.

    Raises:
        UserError: as the reward itself raises, such as MissingResourceError for its weights.
        RewardLoadError: it cannot be imported or made, or is not a reward.
    """
    distribution = origin.split()[0]
    install = f'pip install "{distribution}[{card.extra}]"' if card.extra else f"install it, or reinstall {distribution}"
    module = card.load.partition(":")[0]
    try:
        reward = (factory or load_attribute(card.load))(**options)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise RewardLoadError(f"reward {card.id!r} of {origin} cannot be loaded: {explain_load_failure(error, module, install)}") from error
    if not isinstance(reward, Reward) or not isinstance(reward.card, RewardCard):
        raise RewardLoadError(
            f"reward {card.id!r} of {origin}: {card.load} gave a {type(reward).__name__}, which has no card or is not callable"
        )
    return reward
