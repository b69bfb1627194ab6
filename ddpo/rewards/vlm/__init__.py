"""Vision-language models that answer a question about an image: local ones, and servers that speak OpenAI's protocol.

`open_vlm` takes a folder or hub id for a local one, and a URL for a server. Both answer greedily.
"""

from __future__ import annotations

from ddpo.rewards.vlm.protocol import (
    SPACE_MARKS,
    NoLogProbs,
    UnusableAnswer,
    Vlm,
    check_words,
    jpeg80,
    jpeg80_bytes,
)

__all__ = [
    "SPACE_MARKS",
    "NoLogProbs",
    "UnusableAnswer",
    "Vlm",
    "check_words",
    "is_server",
    "jpeg80",
    "jpeg80_bytes",
    "open_vlm",
]


def is_server(vlm: str) -> bool:
    """Whether `vlm` names a server rather than a local model."""
    return vlm.lower().startswith(("http://", "https://"))


def open_vlm(
    vlm: str, device: str = "cpu", *, model: str | None = None, timeout_s: float = 120.0
) -> Vlm:
    """The model that `vlm` names. No request is made to a server before the first question.

    Args:
        vlm: address of a server, such as http://127.0.0.1:8000/v1; else folder or hub id of an image-text-to-text model.
        device: torch device of a local model.
        model: a server's name of the model; None: the first one that the server lists.
        timeout_s: seconds after which an answer of a server is given up.

    Raises:
        MissingResourceError: a local model is not here and cannot be fetched.
        ConfigError: an address or time-out that cannot be.
    """
    if is_server(vlm):
        from ddpo.rewards.vlm.server import ServerVlm

        return ServerVlm(vlm, model, timeout_s)
    from ddpo.rewards.vlm.local import LocalVlm

    return LocalVlm(vlm, device)
