"""Vision-language models behind a server that speaks OpenAI's protocol: vLLM, SGLang, `transformers serve`, OpenAI itself."""

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
THIS_IMAGE: Final = (400, 413, 415, 422)  # statuses that are about what was sent
LATER: Final = (408, 425, 429)  # and every 5xx


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry images and the key to another host: it is an answer like any other, with its status."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class ServerVlm:
    """A model behind a server. Each request has one deadline for all of it, from the connection to the last byte.

    The key in OPENAI_API_KEY is sent over https and to this machine, and nowhere else.

    Args:
        url: up to the version, such as http://127.0.0.1:8000/v1.
        model: the server's name of the model; None: the first one that the server lists.
        timeout_s: the deadline, seconds.

    Raises:
        ConfigError: the address has no host, or carries a name, password or query; the time-out is not a positive number.
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
                "vlm: a server's address is http(s)://HOST[:PORT]/v1, without a name, a password or a query"
            )
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise ConfigError(
                f"timeout must be a finite number of seconds above 0, got {timeout_s!r}"
            )
        self._url, self._model, self._timeout = url.rstrip("/"), model, timeout_s
        here = parts.hostname in LOOPBACK
        self._may_send_key = here or parts.scheme == "https"
        proxies = [urllib.request.ProxyHandler({})] if here else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)
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
            token, value = _at(top, "token"), _at(top, "logprob")
            if isinstance(token, str) and isinstance(value, (int, float)) and not math.isnan(value):
                found[token] = max(float(value), found.get(token, -math.inf))
        if not found:
            said = isinstance(_at(choice, "message"), dict) and _at(choice, "logprobs") is None
            raise (NoLogProbs if said else UnusableAnswer)(
                f"the server {self._url} gives no log-probabilities"
            )
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
        """The JSON of a reply; with `body` a POST.

        Raises:
            RewardUnavailable, UnusableAnswer, ConfigError: as `Vlm.answer`.
        """
        try:
            status, reply, wait = Background(
                lambda: self._exchange(path, body), "ddpo-question"
            ).result(self._timeout)
        except TimeoutError as error:
            raise RewardUnavailable(
                f"the server {self._url} gave no answer within {self._timeout:g} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise RewardUnavailable(
                f"the server {self._url} cannot be reached: {one_line(error)}"
            ) from error
        if status in LATER or status >= 500:
            hint = (
                "" if body is not None else "; where it does not list its models, give model=NAME"
            )
            busy = RewardUnavailable(
                f"the server {self._url} answered {status}: {_excerpt(reply)}{hint}"
            )
            busy.retry_after_s = _seconds(wait)
            raise busy
        if status in THIS_IMAGE and body is not None:
            raise UnusableAnswer(f"the server answered {status}: {_excerpt(reply)}")
        if status != 200:
            raise ConfigError(
                f"the server {self._url} answered {path} with {status}: {_excerpt(reply)}; check vlm, model and OPENAI_API_KEY"
            )
        try:
            return json.loads(reply)
        except (ValueError, RecursionError) as error:
            raise UnusableAnswer(f"the server's answer is not JSON: {_excerpt(reply)}") from error

    def _exchange(self, path: str, body: bytes | None) -> tuple[int, bytes, str]:
        """Status, body and Retry-After of the reply to one request."""
        ends = time.monotonic() + self._timeout
        headers = {"Accept": "application/json"} | (
            {} if body is None else {"Content-Type": "application/json"}
        )
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if key and self._may_send_key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url + path, body, headers)  # noqa: S310  # http or https, see the constructor
        try:
            with self._opener.open(
                request, timeout=self._timeout + 1
            ) as reply:  # the other one is to be the first to give up
                return reply.status, _read(reply, ends), ""
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error, ends), error.headers.get("Retry-After", "")


def _read(reply: Any, ends: float) -> bytes:
    """The body, if it is not too large and comes in time; a body without end or drop by drop ends here too."""
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
    """What a Retry-After asks for, a number of seconds or a date (RFC 9110, section 10.2.3); None for anything else."""
    try:
        return (
            float(wait)
            if wait.isdecimal()
            else max(0.0, parsedate_to_datetime(wait).timestamp() - time.time())
        )
    except (ValueError, OverflowError):
        return None


def _at(value: Any, *path: str | int) -> Any:
    """What lies at `path` in JSON; None if there is no such thing."""
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
