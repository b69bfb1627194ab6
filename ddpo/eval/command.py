"""The command line that repeats an evaluation, from its settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, replace
from typing import Any, Final

from ddpo.eval.config import EvalConfig
from ddpo.eval.options import SAMPLER, option_of
from ddpo.rewards.spec import redacted
from ddpo.text import printable, without_secrets

__all__ = ["command_line", "quoted"]

COMPARED: Final = ("history", "best_of")
"""Fields that `ddpo compare` sets to 0."""
ONLY_EVAL: Final = ("images", "history_seeds", "trained_prompts", *SAMPLER)
"""Fields for which `ddpo compare` has no option."""


def command_line(config: EvalConfig, **changes: Any) -> str:
    """The command of the evaluation, quoted for a shell, with `***` for secrets.

    It names the settings that differ from their defaults, so that it gives the same evaluation.

    Args:
        config: settings of the evaluation.
        changes: settings of the command that differ from those of `config`.
    """
    config = replace(config, **changes)
    if _is_comparison(config):
        words = ["ddpo", "compare", *config.checkpoints]
        skipped: tuple[str, ...] = ("checkpoints", *COMPARED)
    else:
        words = ["ddpo", "eval"]
        skipped = ()
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in skipped and (field.default is MISSING or value != field.default):
            words += _option(field.name, value)
    return quoted(words)


def quoted(words: Iterable[str]) -> str:
    """The words as a command line for a shell, with control characters as escapes."""
    return " ".join(shlex.quote(_shown(word)) for word in words)


def _is_comparison(config: EvalConfig) -> bool:
    defaults = {field.name: field.default for field in fields(config)}
    plain = all(getattr(config, name) == defaults[name] for name in ONLY_EVAL)
    compared = all(getattr(config, name) == 0 for name in COMPARED)
    return len(config.checkpoints) > 1 and compared and plain


def _option(name: str, value: object) -> Iterator[str]:
    """The words of one setting; a tuple gives an option for each of its values."""
    option = option_of(name)
    if name == "size" and isinstance(value, tuple):
        yield from (option, "x".join(map(str, value)))
        return
    if isinstance(value, bool):
        yield option if value else f"--no-{option[2:]}"
        return
    for one in value if isinstance(value, tuple) else (value,):
        yield option
        yield redacted(one) if name == "rewards" else _text(one)


def _text(value: object) -> str:
    return without_secrets(str(value))


def _shown(word: str) -> str:
    return word if word.isprintable() else printable(word)
