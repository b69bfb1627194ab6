"""VQAScore: the probability that a vision-language model answers yes when asked whether the image shows the prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from PIL import Image

from ddpo.errors import ConfigError
from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.vlm_reward import Judgement, excerpt, judge_each, open_for, share_of
from ddpo.rewards.vlm import NoLogProbs, is_server
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["VqaScore", "published", "yes_and_no"]

QUESTION: Final = 'Does this figure show "{prompt}"? Please answer yes or no.'
"""Source: Lin et al., arXiv 2404.01291, section 3; t2v_metrics, its default question."""
SPELLINGS: Final = "spellings"
PUBLISHED: Final = "published"
PARTS: Final = {SPELLINGS: ("yes", "no", "yes_of_both"), PUBLISHED: ("yes", "end")}
"""The forms of the score, and the parts of each."""
ANSWER: Final = "Yes"
"""Source: linzhiqiu/t2v_metrics 1bec390, clip_t5_model.py and llava_model.py, its default answer."""


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


def published(yes: float, end: float) -> Judgement:
    """√(P(Yes) · P(end | Yes)), from the natural logarithms of both.

    That is the exponential of minus the mean cross-entropy over the two tokens of the answer.

    Source: linzhiqiu/t2v_metrics 1bec390, clip_t5_model.py and llava_model.py, forward.
    """
    yes, end = min(yes, 0.0), min(end, 0.0)  # rounding of sums over tokens
    return {"score": math.exp((yes + end) / 2), "yes": math.exp(yes), "end": math.exp(end)}


class VqaScore:
    """P(yes) that the figure shows the prompt's text, 0 … 1; or the form of it that is published.

    Args:
        vlm: folder or hub id of the vision-language model, or the address of a server that gives log-probabilities.
        model: a server's name of the model; None: the first one that it lists.
        device: torch device of a local one.
        timeout: seconds after which an answer of a server is given up.
        form: "spellings", see `yes_and_no`; or "published", see `published`, for local models.

    Raises:
        MissingResourceError: the model is not here and cannot be fetched; says its size, licence and how to get it.
        ConfigError: no such form or none of a server; an address or time-out that cannot be; when called, the server gives no
            log-probabilities.
    """

    card = CARDS["vqa_score"]

    def __init__(
        self,
        vlm: str = "llava-hf/llava-1.5-7b-hf",
        model: str | None = None,
        device: str = "cpu",
        timeout: float = 120.0,
        form: str = SPELLINGS,
    ) -> None:
        if form not in PARTS:
            raise ConfigError(
                f"reward 'vqa_score': form is {form!r}, not one of {', '.join(PARTS)}"
            )
        if form == PUBLISHED and is_server(vlm):
            raise ConfigError(
                "reward 'vqa_score': form=published needs a local model, since servers do not say how likely the end of an answer is; "
                "give a folder or hub id as vlm=…, or leave form out"
            )
        self.card, self._vlm = open_for(self.card, vlm, model, device, timeout)
        self._parts = PARTS[form]
        self._judge = {SPELLINGS: self.judge, PUBLISHED: self.judge_as_published}[form]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return judge_each(batch, self._parts, self._judge)

    def judge_as_published(self, image: Image.Image, prompt: Prompt) -> Judgement:
        """The score of one image in the published form."""
        return published(*self._vlm.word_and_end_logprobs(image, _question(prompt), ANSWER))

    def judge(self, image: Image.Image, prompt: Prompt) -> Judgement:
        """The score of one image, or why it has none."""
        try:
            return yes_and_no(self._vlm.first_token_logprobs(image, _question(prompt)))
        except NoLogProbs as error:
            raise ConfigError(
                f"reward 'vqa_score': {error}, which it is made of; `transformers serve` has none, vLLM and SGLang do"
            ) from error


def _question(prompt: Prompt) -> str:
    return QUESTION.replace("{prompt}", prompt.text)
