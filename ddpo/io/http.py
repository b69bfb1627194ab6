"""Opener of HTTP requests that may carry a secret: it follows no redirect."""

from __future__ import annotations

import ipaddress
import urllib.request
from typing import Any

__all__ = ["build_opener", "is_loopback"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect unfollowed: it could carry images and the secret to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def is_loopback(host: str) -> bool:
    """True for the name or address of this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def build_opener(*, loopback: bool) -> urllib.request.OpenerDirector:
    """An opener to which a redirect is an error of its status, as any other.

    Args:
        loopback: True if the host is this machine; no proxy is then used.
    """
    proxies = [urllib.request.ProxyHandler({})] if loopback else []
    return urllib.request.build_opener(_NoRedirect, *proxies)
