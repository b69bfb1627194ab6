"""Common parts of the rewards that query a vision-language model, one image at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from PIL import Image

from ddpo.errors import MissingResourceError, one_line
from ddpo.rewards.card import Calls, RewardCard
from ddpo.rewards.models.load_errors import first_sentence
from ddpo.rewards.vlm import SPACE_MARKS, UnusableAnswer, Vlm, is_server, open_vlm
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["Judgement", "excerpt", "judge_each", "open_for", "served", "share_of"]

Judgement = Mapping[str, float] | str
"""The score, under "score", and the parts; or the reason why there is none."""

SHOWN: Final = 60  # characters of a reply that are repeated in a reason
SERVER_CALLS: Final = Calls(concurrency=8, retries=3, batch=1)
"""Each request is about one image and has its own time limit."""


def served(card: RewardCard, model: str | None) -> RewardCard:
    """The card of a reward on a server: concurrent calls of one image each, with retries.

    Scores of a model without a name are not cached: the server may have another model tomorrow.
    """
    return replace(
        card, thread_safe=True, calls=SERVER_CALLS, cache=card.cache and model is not None
    )


def open_for(
    card: RewardCard, vlm: str, model: str | None, device: str, timeout_s: float
) -> tuple[RewardCard, Vlm]:
    """The reward's card, adapted to a server if there is one, and the opened model.

    Args:
        card: card of the reward.
        vlm: folder or hub id of a local model, or the address of a server.
        model: name of the model on the server; None for the first that it lists.
        device: torch device of a local model.
        timeout_s: time limit of an answer by a server, in seconds.

    Raises:
        MissingResourceError: The model is neither here nor downloadable; the message has its size,
            its licence and the command that fetches it.
        ConfigError: The address or time limit is invalid.
    """
    try:
        opened = open_vlm(vlm, device, model=model, timeout_s=timeout_s)
    except MissingResourceError as error:
        needed = " and ".join(
            f"{w.source} ({w.megabytes / 1000:g} GB, {w.licence})" for w in card.weights
        )
        cause = first_sentence(error)
        raise MissingResourceError(
            f"reward {card.id!r} needs {needed}: run `ddpo rewards download {card.id}`, "
            f"or give a folder or a server's address as vlm=…; {cause}"
        ) from error
    return served(card, model) if is_server(vlm) else card, opened


def judge_each(
    batch: ImageBatch, parts: Sequence[str], judge: Callable[[Image.Image, Prompt], Judgement]
) -> RewardOutput:
    """Judges one image after the other, so that no score depends on batch mates or padding.

    Args:
        batch: images and prompts.
        parts: names of the parts, which are NaN where an image could not be judged.
        judge: function from image and prompt to judgement; the message of an `UnusableAnswer` that
            it raises becomes the reason.
    """

    def judged(image: Image.Image, prompt: Prompt) -> Judgement:
        try:
            return judge(image, prompt)
        except UnusableAnswer as error:
            return one_line(error)

    found = [
        judged(image, prompt)
        for image, prompt in zip(batch.images if len(batch) else [], batch.prompts, strict=True)
    ]

    def column(name: str) -> torch.Tensor:
        return torch.tensor(
            [math.nan if isinstance(one, str) else one[name] for one in found], dtype=torch.float32
        )

    errors = tuple(one if isinstance(one, str) else None for one in found)
    return RewardOutput(column("score"), {name: column(name) for name in parts}, errors)


def share_of(word: str, log_probs: Mapping[str, float]) -> float:
    """The probability of all tokens that spell `word`, in any case, with a leading space or not."""
    due = word.casefold()
    return math.fsum(
        math.exp(value)
        for token, value in log_probs.items()
        if token.strip(SPACE_MARKS).casefold() == due
    )


def excerpt(reply: str) -> str:
    """A reply on one line, in quotes, not longer than a reason may be."""
    text = " ".join(reply.split())
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…")
