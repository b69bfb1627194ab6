"""A vision-language model as a judge: the expected value of the rating 1 … 5 that it is asked for."""

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
LEAST_MASS: Final = (
    0.5  # a choice: below it the reply is likelier to begin with something else than a rating
)
NEW_TOKENS: Final = 16
PARTS: Final = ("mass", "from_text")
_OUT_OF: Final = re.compile(r"(?:/|\bout of\b|\bof\b)\s*5(?:\.0+)?(?![\d.,]*\d)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?<![\w.,-])-?(?>\d+(?:[.,]\d+)*)(?![\w%]|-\d)")


def expected_rating(log_probs: Mapping[str, float]) -> tuple[float, float]:
    """Σ k·p(k) / Σ p(k) over the ratings k = 1 … 5, from the log-probabilities of the first token.

    Returns:
        The expected rating, NaN if no rating is listed; and Σ p(k), how much of the probability is on ratings.

    Source: Liu et al., arXiv 2303.16634 (G-Eval), which weighs ratings by the probabilities of their tokens.
    """
    shares = {rating: share_of(str(rating), log_probs) for rating in RATINGS}
    mass = math.fsum(shares.values())
    return (
        math.fsum(rating * share for rating, share in shares.items()) / mass
        if mass > 0
        else math.nan
    ), mass


def rating_of(reply: str) -> float | None:
    """The one number 1 … 5 in a reply; "/5", "of 5" and "out of 5" are not looked at. None: there is none, or there are several."""
    numbers = set(_NUMBER.findall(_OUT_OF.sub(" ", reply)))
    try:
        rating = float(numbers.pop()) if len(numbers) == 1 else math.nan
    except ValueError:  # "3,5" or "1.2.3"
        return None
    return rating if RATINGS[0] <= rating <= RATINGS[-1] else None


class VlmJudge:
    """Expected rating of an image, 1 … 5; from the text of the reply where the first token is hardly a rating. See the card.

    Args:
        vlm: folder or hub id of the vision-language model, or the address of a server.
        model: a server's name of the model; None: the first one that it lists.
        template: what is asked; "{prompt}" stands for the prompt's text. It should ask for a number from 1 to 5 alone.
        device: torch device of a local model.
        timeout: seconds after which an answer of a server is given up.

    Raises:
        MissingResourceError: the model is not here and cannot be fetched; says its size, licence and how to get it.
        ConfigError: the template is empty.
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
                "reward 'vlm_judge': the template is empty; it is the question that the model is asked"
            )
        self._template = template
        self.card, self._vlm = open_for(self.card, vlm, model, device, timeout)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return judge_each(batch, PARTS, self.judge)

    def judge(self, image: Image.Image, prompt: Prompt) -> Judgement:
        """The score of one image, or why it has none."""
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
        """Those of the first token; none where the back end gives none."""
        try:
            return self._vlm.first_token_logprobs(image, question)
        except UnusableAnswer:
            return {}
