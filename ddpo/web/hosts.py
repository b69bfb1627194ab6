"""Host names in the headers of a request."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["host_of"]


def host_of(url: str) -> str:
    """The host name of a URL, without its port; "" for what is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
