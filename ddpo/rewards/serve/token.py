"""The token of a reward server, checked before anything heavy is imported."""

from __future__ import annotations

from ddpo.errors import ConfigError
from ddpo.io.addresses import is_loopback

__all__ = ["check_token"]


def check_token(host: str, token: str | None) -> None:
    """Refuses a host that other machines can reach without a token.

    Raises:
        ConfigError: The host is not loopback and there is no token, or the token cannot be sent in
            a header.
    """
    if token is not None and (
        not token or not token.isascii() or not token.isprintable() or token != token.strip()
    ):
        raise ConfigError(
            "the token must be printable ASCII without spaces at its ends, and not empty"
        )
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines: "
            "give a --token, or set DDPO_REWARD_TOKEN"
        )
