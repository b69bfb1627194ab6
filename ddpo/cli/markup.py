"""Text for rich."""

from __future__ import annotations

__all__ = ["escape"]


def escape(text: str) -> str:
    """A user's or plug-in's text with its square brackets kept from being read as markup."""
    from rich.markup import escape as escape_markup

    return escape_markup(text)
