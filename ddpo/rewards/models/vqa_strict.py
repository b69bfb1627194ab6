"""Visual question answering as in the DDPO paper: the share of questions answered as expected."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from PIL import Image

from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.vlm_reward import Judgement, judge_each, open_for
from ddpo.rewards.vlm import jpeg80
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["VqaStrict", "compared", "normalised", "questions_and_answers"]

NEW_TOKENS: Final = 64
"""Source: kvablack/LLaVA-server, which answers the requests of kvablack/ddpo-pytorch rewards.py."""
PARTS: Final = ("substring", "exact")
_PUNCTUATION: Final = str.maketrans(dict.fromkeys(string.punctuation, " "))


def normalised(text: str) -> str:
    """The words of a text in NFKC and lower case, without punctuation, articles and extra spaces.

    Punctuation is ASCII's, articles are English. Source: the steps of the SQuAD evaluation (arXiv
    1606.05250).
    """
    words = unicodedata.normalize("NFKC", text).casefold().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", words).split())


def compared(replies: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Share of replies that contain their answer, and of those that equal it once normalised.

    The former compares letter by letter. Its source: kvablack/ddpo-pytorch rewards.py, the strict
    satisfaction of LLaVA.
    """
    pairs = list(zip(replies, answers, strict=True))
    contained = sum(answer in reply for reply, answer in pairs) / len(pairs)
    equal = sum(normalised(answer) == normalised(reply) for reply, answer in pairs) / len(pairs)
    return {"score": contained, "substring": contained, "exact": equal}


def questions_and_answers(metadata: Mapping[str, Any]) -> tuple[list[str], list[str]] | str:
    """The two lists of a prompt's metadata, or the reason why they are unusable."""
    for key in ("questions", "answers"):
        if key not in metadata:
            return f"the prompt has no {key!r} in its metadata"
        texts = metadata[key]
        if (
            not isinstance(texts, list | tuple)
            or not texts
            or not all(isinstance(text, str) and text.strip() for text in texts)
        ):
            return f"{key!r} of the prompt's metadata is not a list of texts, or one is empty"
    questions, answers = (list(metadata[key]) for key in ("questions", "answers"))
    if len(questions) != len(answers):
        return f"the prompt's metadata has {len(questions)} questions and {len(answers)} answers"
    return questions, answers


class VqaStrict:
    """Share of the questions of a prompt's metadata whose answer is in the model's reply.

    An example of metadata is {"questions": ["who is washing the dishes?"], "answers": ["monkey"]},
    one answer per question. Images go through JPEG of quality 80, as in the original. A prompt
    without usable questions, or an empty reply, makes the image unscorable.

    Args:
        vlm: folder or hub id of the vision-language model, or the address of a server.
        model: name of the model on the server; None for the first that it lists.
        device: torch device of a local model.
        timeout: time limit of an answer by a server, in seconds.

    Raises:
        MissingResourceError: The model is neither here nor downloadable; the message has its size,
            its licence and the command that fetches it.
    """

    card = CARDS["vqa_strict"]

    def __init__(
        self,
        vlm: str = "llava-hf/llava-1.5-7b-hf",
        model: str | None = None,
        device: str = "cpu",
        timeout: float = 120.0,
    ) -> None:
        self.card, self._vlm = open_for(self.card, vlm, model, device, timeout)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return judge_each(batch, PARTS, self.judge)

    def judge(self, image: Image.Image, prompt: Prompt) -> Judgement:
        """The score of one image, or the reason why it has none."""
        lists = questions_and_answers(prompt.metadata)
        if isinstance(lists, str):
            return lists
        questions, answers = lists
        sent = image if self._vlm.sends_jpeg else jpeg80(image)
        return compared(
            [self._vlm.answer(sent, question, NEW_TOKENS) for question in questions], answers
        )
