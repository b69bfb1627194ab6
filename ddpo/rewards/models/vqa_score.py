"""VQAScore: the probability that a vision-language model answers yes when asked whether the picture shows the prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from PIL import Image

from ddpo.errors import ConfigError
from ddpo.rewards.catalog import CARDS
from ddpo.rewards.models.asking import Judgement, excerpt, judge_each, open_for, share_of
from ddpo.rewards.vlm import NoLogProbs
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["VqaScore", "yes_and_no"]

QUESTION: Final = 'Does this figure show "{prompt}"? Please answer yes or no.'
"""Source: Lin et al., arXiv 2404.01291, section 3; t2v_metrics, its default question."""
PARTS: Final = ("yes", "no", "yes_of_both")


def yes_and_no(log_probs: Mapping[str, float]) -> Judgement:
    """P(yes) of the first token, all spellings together; P(no); and the former's share of both.

    Only what is listed counts, that is the 20 likeliest tokens, one per text: where "no" is listed and "yes" is not, P(yes) is below the
    least listed probability, and 0 stands for it. Where neither is listed, the model did not answer the question, and there is no score.
    """
    yes, no = share_of("yes", log_probs), share_of("no", log_probs)
    if yes + no > 0:
        yes = min(yes, 1.0)  # rounding of log-probs in half precision
        return {"score": yes, "yes": yes, "no": no, "yes_of_both": yes / (yes + no)}
    likely = max(log_probs, key=lambda token: log_probs[token])
    return f"neither yes nor no is among the likely first tokens; the likeliest is {excerpt(likely)} ({math.exp(log_probs[likely]):.2g})"


class VqaScore:
    """P(yes) that the figure shows the prompt's text, 0 … 1.

    Args:
        vlm: folder or hub id of the vision-language model, or the address of a server that gives log-probabilities.
        model: a server's name of the model; None: the first one that it lists.
        device: torch device of a local one.
        timeout: seconds after which an answer of a server is given up.

    Raises:
        MissingResourceError: the model is not here and cannot be fetched; says its size, licence and how to get it.
        ConfigError: an address or time-out that cannot be; when called, the server gives no log-probabilities.
    """

    card = CARDS["vqa_score"]

    def __init__(
        self, vlm: str = "llava-hf/llava-1.5-7b-hf", model: str | None = None, device: str = "cpu", timeout: float = 120.0
    ) -> None:
        self.card, self._vlm = open_for(self.card, vlm, model, device, timeout)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return judge_each(batch, PARTS, self.judge)

    def judge(self, image: Image.Image, prompt: Prompt) -> Judgement:
        """The score of one picture, or why it has none."""
        try:
            return yes_and_no(self._vlm.first_token_logprobs(image, QUESTION.replace("{prompt}", prompt.text)))
        except NoLogProbs as error:
            raise ConfigError(
                f"reward 'vqa_score': {error}, which it is made of; `transformers serve` has none, vLLM and SGLang do"
            ) from error
