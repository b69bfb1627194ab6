"""VQAScore: the probability of "yes" when a vision-language model is asked about the prompt."""

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
"""Form of the score → its parts."""
ANSWER: Final = "Yes"
"""Source: linzhiqiu/t2v_metrics 1bec390, clip_t5_model.py and llava_model.py, default answer."""


def yes_and_no(log_probs: Mapping[str, float]) -> Judgement:
    """P(yes) of the first token, all spellings together; P(no); and the share of yes in both.

    Only the 20 likeliest tokens are listed. Where "no" is listed and "yes" is not, P(yes) is below
    the least listed probability and counts as 0. Where neither is listed, the model did not answer
    the question, and there is no score.
    """
    yes, no = (share_of(word, log_probs) for word in ("yes", "no"))
    if yes + no > 0:
        yes = min(yes, 1.0)  # rounding of log-probs in half precision
        return {"score": yes, "yes": yes, "no": no, "yes_of_both": yes / (yes + no)}
    likely = max(log_probs, key=lambda token: log_probs[token])
    return (
        "neither yes nor no is among the likely first tokens; "
        f"the likeliest is {excerpt(likely)} ({math.exp(log_probs[likely]):.2g})"
    )


def published(yes: float, end: float) -> Judgement:
    """√(P(Yes) · P(end | Yes)), from the natural logarithms of both.

    That is the exponential of minus the mean cross-entropy over the two tokens of the answer.

    Source: linzhiqiu/t2v_metrics 1bec390, clip_t5_model.py and llava_model.py, forward.
    """
    yes, end = (min(value, 0.0) for value in (yes, end))  # rounding of sums over tokens
    return {"score": math.exp((yes + end) / 2), "yes": math.exp(yes), "end": math.exp(end)}


class VqaScore:
    """Probability of "yes" to the question whether the image shows the prompt, 0 … 1.

    Args:
        vlm: folder or hub id of the vision-language model, or the address of a server that gives
            log-probabilities.
        model: name of the model on the server; None for the first that it lists.
        device: torch device of a local model.
        timeout: time limit of an answer by a server, in seconds.
        form: form of the score, "spellings" as in `yes_and_no`, or for local models "published" as
            in `published`.

    Raises:
        MissingResourceError: The model is neither here nor downloadable; the message has its size,
            its licence and the command that fetches it.
        ConfigError: The form is not known or not available from a server, or the address or time
            limit is invalid. When called: the server gives no log-probabilities.
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
                "reward 'vqa_score': form=published needs a local model, since servers do not say "
                "how likely the end of an answer is; give a folder or hub id as vlm=…, "
                "or leave form out"
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
        """The score of one image, or the reason why it has none."""
        try:
            return yes_and_no(self._vlm.first_token_logprobs(image, _question(prompt)))
        except NoLogProbs as error:
            raise ConfigError(
                f"reward 'vqa_score': {error}, which the score needs; "
                "vLLM and SGLang give them, `transformers serve` does not"
            ) from error


def _question(prompt: Prompt) -> str:
    return QUESTION.replace("{prompt}", prompt.text)
