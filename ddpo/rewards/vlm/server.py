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
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

from ddpo.errors import ConfigError, RewardUnavailable, one_line
from ddpo.io.addresses import is_loopback
from ddpo.io.http import Reply, ReplyTooLong, build_opener, exchange
from ddpo.io.json_files import JsonError, parse_json, parse_record
from ddpo.ranges import BILLION, Range
from ddpo.rewards.vlm.protocol import (
    TOP_TOKENS,
    NoLogProbs,
    UnusableAnswer,
    check_words,
    jpeg80_bytes,
)

__all__ = ["ServerVlm"]

LARGEST_REPLY: Final = 4 * 1024 * 1024  # bytes
SHOWN: Final = 400  # bytes of a reply in an error, half of them as characters
MOST_LOGPROB: Final = 0.1  # of a probability of 1 that was rounded in half precision
LIMIT: Final = Range(low=0, high=BILLION, above=True)  # seconds; sockets take 9·10⁹ at most
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
            limit is out of range.
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
        LIMIT.checked("timeout", timeout_s)
        self._url = url.rstrip("/")
        self._model = model
        self._timeout = timeout_s
        here = is_loopback(parts.hostname or "")
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
            if isinstance(value, (int, float)) and value > MOST_LOGPROB:
                raise UnusableAnswer(f"the server {self._url} gives a probability above 1")
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
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if key and self._may_send_key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            answer = exchange(
                self._opener,
                self._url + path,
                body,
                headers,
                seconds=self._timeout,
                most_bytes=LARGEST_REPLY,
            )
        except TimeoutError as error:
            raise RewardUnavailable(
                f"the server {self._url} gave no answer within {self._timeout:g} s"
            ) from error
        except ReplyTooLong as error:
            raise UnusableAnswer(
                f"the server's answer is longer than {LARGEST_REPLY // 1024 // 1024} MB"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise RewardUnavailable(
                f"the server {self._url} cannot be reached: {_excerpt(one_line(error))}"
            ) from error
        return self._json(path, body, answer)

    def _json(self, path: str, body: bytes | None, answer: Reply) -> Any:
        """The JSON of a reply; raises as `_get`."""
        status = answer.status
        reply = _excerpt(answer.body[:SHOWN].decode("utf-8", "replace"))
        if status in LATER or status >= 500:
            hint = "; where it does not list its models, give model=NAME" if body is None else ""
            busy = RewardUnavailable(f"the server {self._url} answered {status}: {reply}{hint}")
            busy.retry_after_s = _seconds(answer.headers.get("Retry-After", ""))
            raise busy
        if status in THIS_IMAGE and body is not None:
            raise UnusableAnswer(f"the server answered {status}: {reply}")
        if status != 200:
            raise ConfigError(
                f"the server {self._url} answered {path} with {status}: {reply}; "
                "check vlm, model and OPENAI_API_KEY"
            )
        try:
            # only `parse_record` takes -Infinity, which Python writes for a probability of 0
            parse = parse_record if answer.body.lstrip().startswith(b"{") else parse_json
            return parse(answer.body)
        except JsonError as error:
            raise UnusableAnswer(f"the server's answer is not JSON: {reply}") from error


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


def _excerpt(text: str) -> str:
    """The start of a text, on one line, in printable characters."""
    line = " ".join(text[:SHOWN].split())
    return "".join(letter for letter in line if letter.isprintable())[: SHOWN // 2] or "nothing"
