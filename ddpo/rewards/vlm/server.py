"""Vision-language models on a server that speaks OpenAI's protocol.

Such servers are vLLM, SGLang, `transformers serve` and OpenAI itself.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

from ddpo.errors import ConfigError, RewardUnavailable, one_line
from ddpo.io.background import Background
from ddpo.io.http import build_opener
from ddpo.rewards.vlm.protocol import (
    TOP_TOKENS,
    NoLogProbs,
    UnusableAnswer,
    check_words,
    jpeg80_bytes,
)
from ddpo.weights import LOOPBACK

__all__ = ["ServerVlm"]

LARGEST_REPLY: Final = 4 * 1024 * 1024  # bytes
BLOCK: Final = 64 * 1024  # bytes
THIS_IMAGE: Final = (400, 413, 415, 422)  # statuses about the sent image
LATER: Final = (408, 425, 429)  # statuses of a busy server, as is every 5xx


class ServerVlm:
    """A model on a server. Each request has one deadline, from the connection to the last byte.

    The key in OPENAI_API_KEY is sent only over https or to this machine.

    Args:
        url: address up to the version, such as http://127.0.0.1:8000/v1.
        model: name of the model on the server; None for the first that it lists.
        timeout_s: deadline of a request, in seconds.

    Raises:
        ConfigError: The address has no host, or carries a name, password or query, or the time
            limit is not a positive number.
    """

    sends_jpeg = True
    thread_safe = True

    def __init__(self, url: str, model: str | None = None, timeout_s: float = 120.0) -> None:
        parts = urlsplit(url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or "@" in parts.netloc
            or parts.query
            or parts.fragment
        ):
            raise ConfigError(
                "vlm: a server's address is http(s)://HOST[:PORT]/v1, "
                "without a name, a password or a query"
            )
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise ConfigError(
                f"timeout must be a finite number of seconds above 0, got {timeout_s!r}"
            )
        self._url = url.rstrip("/")
        self._model = model
        self._timeout = timeout_s
        here = parts.hostname in LOOPBACK
        self._may_send_key = here or parts.scheme == "https"
        self._opener = build_opener(loopback=here)
        self._naming = threading.Lock()

    def answer(self, image: Image.Image, question: str, max_tokens: int) -> str:
        """See `Vlm`."""
        choice = self._ask(image, question, {"max_tokens": max_tokens})
        content = _at(choice, "message", "content")
        if content is not None and not isinstance(content, str):
            raise UnusableAnswer("the server's answer is not a text")
        return check_words(content or "", max_tokens)

    def first_token_logprobs(self, image: Image.Image, question: str) -> dict[str, float]:
        """See `Vlm`."""
        choice = self._ask(
            image, question, {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP_TOKENS}
        )
        tops = _at(choice, "logprobs", "content", 0, "top_logprobs")
        found: dict[str, float] = {}
        for top in tops if isinstance(tops, list) else []:
            token, value = (_at(top, key) for key in ("token", "logprob"))
            if isinstance(token, str) and isinstance(value, (int, float)) and not math.isnan(value):
                found[token] = max(float(value), found.get(token, -math.inf))
        if not found:
            answered = isinstance(_at(choice, "message"), dict)
            kind = NoLogProbs if answered and _at(choice, "logprobs") is None else UnusableAnswer
            raise kind(f"the server {self._url} gives no log-probabilities")
        return found

    def word_and_end_logprobs(
        self, image: Image.Image, question: str, word: str
    ) -> tuple[float, float]:
        """See `Vlm`; OpenAI's protocol has no request for this."""
        raise NoLogProbs(f"the server {self._url} does not say how likely the end of an answer is")

    def _ask(self, image: Image.Image, question: str, settings: Mapping[str, Any]) -> Any:
        """The first choice of the reply to a question about an image."""
        data_url = "data:image/jpeg;base64," + base64.b64encode(jpeg80_bytes(image)).decode()
        content = [
            {"type": "image_url", "image_url": {"url": data_url}},
            {"type": "text", "text": question},
        ]
        body = {
            "model": self._name(),
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            **settings,
        }
        return _at(self._get("/chat/completions", json.dumps(body).encode()), "choices", 0)

    def _name(self) -> str:
        with self._naming:
            if self._model is None:
                name = _at(self._get("/models", None), "data", 0, "id")
                if not isinstance(name, str):
                    raise ConfigError(f"the server {self._url} lists no model: give model=NAME")
                self._model = name
            return self._model

    def _get(self, path: str, body: bytes | None) -> Any:
        """The JSON of the reply to a GET, or with `body` to a POST.

        Raises:
            RewardUnavailable, UnusableAnswer, ConfigError: As `Vlm.answer`.
        """
        exchange = Background(lambda: self._exchange(path, body), "ddpo-question")
        try:
            status, reply, wait = exchange.result(self._timeout)
        except TimeoutError as error:
            raise RewardUnavailable(
                f"the server {self._url} gave no answer within {self._timeout:g} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise RewardUnavailable(
                f"the server {self._url} cannot be reached: {one_line(error)}"
            ) from error
        if status in LATER or status >= 500:
            hint = "; where it does not list its models, give model=NAME" if body is None else ""
            busy = RewardUnavailable(
                f"the server {self._url} answered {status}: {_excerpt(reply)}{hint}"
            )
            busy.retry_after_s = _seconds(wait)
            raise busy
        if status in THIS_IMAGE and body is not None:
            raise UnusableAnswer(f"the server answered {status}: {_excerpt(reply)}")
        if status != 200:
            raise ConfigError(
                f"the server {self._url} answered {path} with {status}: {_excerpt(reply)}; "
                "check vlm, model and OPENAI_API_KEY"
            )
        try:
            return json.loads(reply)
        except (ValueError, RecursionError) as error:
            raise UnusableAnswer(f"the server's answer is not JSON: {_excerpt(reply)}") from error

    def _exchange(self, path: str, body: bytes | None) -> tuple[int, bytes, str]:
        """Status, body and Retry-After of the reply to one request."""
        ends = time.monotonic() + self._timeout
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if key and self._may_send_key:
            headers["Authorization"] = f"Bearer {key}"
        # http or https, see the constructor
        request = urllib.request.Request(self._url + path, body, headers)  # noqa: S310
        try:
            # one second more than the deadline of `_get`, which is to end first
            with self._opener.open(request, timeout=self._timeout + 1) as reply:
                return reply.status, _read(reply, ends), ""
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error, ends), error.headers.get("Retry-After", "")


def _read(reply: Any, ends: float) -> bytes:
    """The body of a reply; an endless, slow or too large body raises an error."""
    blocks = []
    size = 0
    while block := reply.read1(BLOCK):
        blocks.append(block)
        size += len(block)
        if size > LARGEST_REPLY:
            raise UnusableAnswer(
                f"the server's answer is longer than {LARGEST_REPLY // 1024 // 1024} MB"
            )
        if time.monotonic() > ends:
            raise TimeoutError
    if getattr(reply, "length", None):
        raise ConnectionError(f"the connection ended {reply.length} bytes too early")
    return b"".join(blocks)


def _seconds(wait: str) -> float | None:
    """Seconds to wait by a Retry-After, number or date (RFC 9110, 10.2.3); None if unreadable."""
    try:
        if wait.isdecimal():
            return float(wait)
        return max(0.0, parsedate_to_datetime(wait).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _at(value: Any, *path: str | int) -> Any:
    """The value at `path` in JSON; None if there is none."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and len(value) > step else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _excerpt(reply: bytes) -> str:
    """The start of a reply, on one line, in printable characters."""
    text = " ".join(reply[:400].decode("utf-8", "replace").split())
    return "".join(letter for letter in text if letter.isprintable())[:200] or "nothing"
