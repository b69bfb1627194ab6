"""What a vision-language model is to the rewards that ask it."""

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
"""Of the images that are sent. Source: kvablack/ddpo-pytorch 1958463, rewards.py, the LLaVA rewards."""
TOP_TOKENS: Final = 20  # the most that OpenAI's protocol gives; local models keep to it so that both kinds tell the same

SPACE_MARKS: Final = "▁Ġ \t\r\n"  # how tokenizers write a leading space


class UnusableAnswer(DdpoError):
    """An answer that says nothing about the image, or none to this image: it is unscorable, and the message is the reason."""


class NoLogProbs(UnusableAnswer):
    """A back end that answers, but does not tell how likely its words were."""


class Vlm(Protocol):
    """Answers questions about one image at a time, greedily: the same question gets the same answer, whatever was asked before.

    Attributes:
        sends_jpeg: whether images go through JPEG of quality 80 on their way to the model.
        thread_safe: whether several threads may ask at once.
    """

    sends_jpeg: bool
    thread_safe: bool

    def answer(self, image: Image.Image, question: str, max_tokens: int) -> str:
        """The answer, without white space around it, never empty.

        Args:
            image: RGB.
            question: what to ask.
            max_tokens: after how many tokens the answer is cut off.

        Raises:
            UnusableAnswer: there is none to this image.
            RewardUnavailable: the server does not answer, or not now.
            ConfigError: the server refuses such questions altogether.
        """
        ...

    def first_token_logprobs(self, image: Image.Image, question: str) -> dict[str, float]:
        """Natural log-probabilities of the 20 likeliest first tokens of the answer, as text with its white space.

        Of tokens with the same text, the likeliest counts.

        Raises:
            NoLogProbs: the server has none.
            RewardUnavailable, UnusableAnswer, ConfigError: as `answer`.
        """
        ...

    def word_and_end_logprobs(
        self, image: Image.Image, question: str, word: str
    ) -> tuple[float, float]:
        """Natural log-probabilities that the answer begins with `word`, and that it ends behind it.

        Of several tokens that spell the word, the likeliest counts.

        Args:
            image: RGB.
            question: what to ask.
            word: one token of the model, letter by letter.

        Raises:
            NoLogProbs: a server, which does not say how likely the end of an answer is.
            UnusableAnswer: the model cannot be asked about this image.
            ConfigError: the model has no such token.
        """
        ...


def check_words(answer: str, max_tokens: int) -> str:
    """`answer` without white space around it, if it can be one of `max_tokens` tokens.

    Raises:
        UnusableAnswer: it is empty, or has more words than tokens were asked for.
    """
    text = answer.strip()
    if not text:
        raise UnusableAnswer("the model's answer is empty")
    words = len(text.split())
    if words > max_tokens:
        raise UnusableAnswer(
            f"the model's answer has {words} words, though {max_tokens} tokens at most were asked for"
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
