"""Vision-language models that answer questions about an image, local or on an OpenAI-like server.

`open_vlm` takes a folder or hub id for a local model, and a URL for a server. Both answer greedily.
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
    """True if `vlm` names a server rather than a local model."""
    return vlm.lower().startswith(("http://", "https://"))


def open_vlm(
    vlm: str, device: str = "cpu", *, model: str | None = None, timeout_s: float = 120.0
) -> Vlm:
    """The model that `vlm` names. A server gets no request before the first question.

    Args:
        vlm: address of a server, such as http://127.0.0.1:8000/v1, or folder or hub id of an
            image-text-to-text model.
        device: torch device of a local model.
        model: name of the model on the server; None for the first that it lists.
        timeout_s: time limit of an answer by a server, in seconds.

    Raises:
        MissingResourceError: A local model is neither here nor downloadable.
        ConfigError: The address or time limit is invalid.
    """
    if is_server(vlm):
        from ddpo.rewards.vlm.server import ServerVlm

        return ServerVlm(vlm, model, timeout_s)
    from ddpo.rewards.vlm.local import LocalVlm

    return LocalVlm(vlm, device)
