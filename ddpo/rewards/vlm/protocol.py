"""The protocol of vision-language models, as rewards use them."""

from __future__ import annotations

import io
from typing import Final, Protocol

from PIL import Image

from ddpo.errors import DdpoError

__all__ = [
    "SPACE_MARKS",
    "TOP_TOKENS",
    "NoLogProbs",
    "UnusableAnswer",
    "Vlm",
    "check_words",
    "jpeg80",
    "jpeg80_bytes",
]

JPEG_QUALITY: Final = 80
"""Quality of the sent images. Source: kvablack/ddpo-pytorch 1958463, rewards.py, LLaVA rewards."""
TOP_TOKENS: Final = 20
"""The maximum of OpenAI's protocol; local models keep to it, so that both kinds give the same."""

SPACE_MARKS: Final = "▁Ġ \t\r\n"  # a leading space, as tokenizers write it


class UnusableAnswer(DdpoError):
    """A missing or meaningless answer: the image is unscorable, and the message is the reason."""


class NoLogProbs(UnusableAnswer):
    """An answer without the log-probabilities of its tokens."""


class Vlm(Protocol):
    """A model that answers questions about one image, greedily: equal questions, equal answers.

    Attributes:
        sends_jpeg: True if images go through JPEG of quality 80 on their way to the model.
        thread_safe: True if several threads may call at once.
    """

    sends_jpeg: bool
    thread_safe: bool

    def answer(self, image: Image.Image, question: str, max_tokens: int) -> str:
        """The answer, without surrounding white space and never empty.

        Args:
            image: RGB image.
            question: text of the question.
            max_tokens: greatest length of the answer, in tokens.

        Raises:
            UnusableAnswer: There is no answer about this image.
            RewardUnavailable: The server does not answer, or is busy.
            ConfigError: The server refuses such questions altogether.
        """
        ...

    def first_token_logprobs(self, image: Image.Image, question: str) -> dict[str, float]:
        """Text of the 20 likeliest first tokens, with white space → natural log-probability.

        Of tokens with the same text, the likeliest counts.

        Raises:
            NoLogProbs: The server gives none.
            RewardUnavailable, UnusableAnswer, ConfigError: As `answer`.
        """
        ...

    def word_and_end_logprobs(
        self, image: Image.Image, question: str, word: str
    ) -> tuple[float, float]:
        """Natural log-probabilities that the answer begins with `word`, and that it then ends.

        Of several tokens that spell the word, the likeliest counts.

        Args:
            image: RGB image.
            question: text of the question.
            word: exact text of one token of the model.

        Raises:
            NoLogProbs: The model is on a server, which gives no probability of the end.
            UnusableAnswer: The model does not take this image.
            ConfigError: The model has no such token.
        """
        ...


def check_words(answer: str, max_tokens: int) -> str:
    """`answer` without surrounding white space, if it can be one of `max_tokens` tokens.

    Raises:
        UnusableAnswer: It is empty, or has more words than the requested tokens.
    """
    text = answer.strip()
    if not text:
        raise UnusableAnswer("the model's answer is empty")
    words = len(text.split())
    if words > max_tokens:
        raise UnusableAnswer(
            f"the model's answer has {words} words, more than the {max_tokens} requested tokens"
        )
    return text


def jpeg80_bytes(image: Image.Image) -> bytes:
    """The image as a JPEG file of quality 80."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def jpeg80(image: Image.Image) -> Image.Image:
    """The RGB image after the round trip through JPEG of quality 80."""
    with Image.open(io.BytesIO(jpeg80_bytes(image))) as decoded:
        return decoded.convert("RGB")
