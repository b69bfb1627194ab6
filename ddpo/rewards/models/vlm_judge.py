"""A vision-language model as a judge: the expected value of its rating from 1 to 5."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from PIL import Image

from ddpo.errors import ConfigError
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.vlm import JUDGE_TEMPLATE
from ddpo.rewards.models.vlm_reward import Judgement, excerpt, judge_each, open_for, share_of
from ddpo.rewards.vlm import UnusableAnswer
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["VlmJudge", "expected_rating", "rating_of"]

RATINGS: Final = (1, 2, 3, 4, 5)
LEAST_MASS: Final = 0.5
"""A choice: below it the reply is likelier to begin with something other than a rating."""
NEW_TOKENS: Final = 16
PARTS: Final = ("mass", "from_text")
_OUT_OF: Final = re.compile(r"(?:/|\bout of\b|\bof\b)\s*5(?:\.0+)?(?![\d.,]*\d)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?<![\w.,-])-?(?>\d+(?:[.,]\d+)*)(?![\w%]|-\d)")


def expected_rating(log_probs: Mapping[str, float]) -> tuple[float, float]:
    """Σ k·p(k) / Σ p(k) over the ratings k = 1 … 5, from the log-probabilities of the first token.

    Returns:
        The expected rating, NaN if no rating is listed; and Σ p(k), the probability of ratings.

    Source: Liu et al., arXiv 2303.16634 (G-Eval), which weighs ratings by the probabilities of
    their tokens.
    """
    shares = {rating: share_of(str(rating), log_probs) for rating in RATINGS}
    mass = math.fsum(shares.values())
    if mass == 0:
        return math.nan, 0.0
    return math.fsum(rating * share for rating, share in shares.items()) / mass, mass


def rating_of(reply: str) -> float | None:
    """The one number 1 … 5 in a reply; None if there is none, or if there are several.

    "/5", "of 5" and "out of 5" are ignored.
    """
    numbers = set(_NUMBER.findall(_OUT_OF.sub(" ", reply)))
    try:
        rating = float(numbers.pop()) if len(numbers) == 1 else math.nan
    except ValueError:  # "3,5" or "1.2.3"
        return None
    return rating if RATINGS[0] <= rating <= RATINGS[-1] else None


class VlmJudge:
    """Expected rating of an image, 1 … 5.

    Where the first token is hardly a rating, the number in the reply counts; see the card.

    Args:
        vlm: folder or hub id of the vision-language model, or the address of a server.
        model: name of the model on the server; None for the first that it lists.
        template: question to the model, which should demand only a number from 1 to 5; "{prompt}"
            stands for the text of the prompt.
        device: torch device of a local model.
        timeout: time limit of an answer by a server, in seconds.

    Raises:
        MissingResourceError: The model is neither here nor downloadable; the message has its size,
            its licence and the command that fetches it.
        ConfigError: The template is empty.
    """

    card = CARDS["vlm_judge"]

    def __init__(
        self,
        vlm: str = "llava-hf/llava-1.5-7b-hf",
        model: str | None = None,
        template: str = JUDGE_TEMPLATE,
        device: str = "cpu",
        timeout: float = 120.0,
    ) -> None:
        if not template.strip():
            raise ConfigError(
                "reward 'vlm_judge': the template is empty; it is the question to the model"
            )
        self._template = template
        self.card, self._vlm = open_for(self.card, vlm, model, device, timeout)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return judge_each(batch, PARTS, self.judge)

    def judge(self, image: Image.Image, prompt: Prompt) -> Judgement:
        """The score of one image, or the reason why it has none."""
        question = self._template.replace("{prompt}", prompt.text)
        rating, mass = expected_rating(self._log_probs(image, question))
        if mass >= LEAST_MASS:
            return {"score": rating, "mass": mass, "from_text": 0.0}
        reply = self._vlm.answer(image, question, NEW_TOKENS)
        read = rating_of(reply)
        if read is None:
            return f"no single rating from 1 to 5 in the reply {excerpt(reply)}"
        return {"score": read, "mass": mass, "from_text": 1.0}

    def _log_probs(self, image: Image.Image, question: str) -> dict[str, float]:
        """Log-probabilities of the first token; empty where the back end gives none."""
        try:
            return self._vlm.first_token_logprobs(image, question)
        except UnusableAnswer:
            return {}
