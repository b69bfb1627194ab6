"""An argument of a command in words, for usage lines and help."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["argument_text"]

DOTS: Final = "..."


def argument_text(argument: Any) -> str:
    """An argument as in a usage line, such as "[RUN...]"; a placeholder may have its own dots."""
    text = argument.metavar or (argument.name or "").upper()
    if argument.nargs == -1 and not text.endswith(DOTS):
        text += DOTS
    return text if argument.required else f"[{text}]"
