"""GenEval on the embedded world: a reader's scene is checked against the prompt's statements.

`EmojiGeneval` reads by the embedded captioner, whose answers are parsed. `EmojiDetector` reads by a
convolutional detector that was trained apart from it, as a held-out witness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import ClassVar, Final

import torch
from PIL import Image

from ddpo.errors import one_line
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.alignment import NEW_TOKENS, QUESTION
from ddpo.rewards.models.embedded_judges import judge_folder
from ddpo.rewards.models.scene_detector import load_detector
from ddpo.rewards.scenes.checks import Seen, credits_of, seen_in
from ddpo.rewards.scenes.grammar import Scene, scene_of
from ddpo.rewards.vlm import UnusableAnswer, jpeg80
from ddpo.rewards.vlm.local import LocalVlm
from ddpo.text import shortened
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["EmojiDetector", "EmojiGeneval"]

NOTHING: Final = Seen({})
"""Content of an image whose description is no scene: no statement of a prompt holds."""
PROBES: Final = (
    "a cat on a black background",
    "two dogs on a checkered background",
    "an owl on a gradient background",
    "a red ball on a gray background",
    "an apple and a fox on a spotted background",
    "a bear under a blue box on a striped background",
)
EXAMPLES: Final = "'a cat', 'three apples', 'a dog and an owl', 'a fox on a red box'"


@lru_cache(maxsize=8192)
def stated_scene(prompt: str) -> Scene | str:
    """The scene that a prompt states, or the reason why it states none."""
    try:
        return scene_of(prompt)
    except ValueError as error:
        cause = shortened(str(error.__cause__ or error))
        return (
            f"the prompt {shortened(prompt)!r} is not of the embedded world ({cause}); "
            f"use prompts such as {EXAMPLES}, or --prompts emoji_geneval_train"
        )


class SceneReward:
    """Statements of prompts checked in what `read` finds; parts are `right` and `share`.

    `probe_prompts` are for the conformance kit.

    Args:
        card: Card of the reward.
        strict: True for 1 where every statement holds and 0 elsewhere, else the share.
    """

    probe_prompts: ClassVar[Sequence[str]] = PROBES

    def __init__(self, card: RewardCard, strict: bool) -> None:
        self.card = card
        self._strict = strict

    def read(self, images: Sequence[Image.Image]) -> Iterable[Seen | UnusableAnswer]:
        """The content of each image, or the reason why it cannot be read."""
        raise NotImplementedError

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; no score depends on batch mates."""
        count = len(batch)
        errors: list[str | None] = [None] * count
        share = torch.full((count,), torch.nan)
        right = torch.full((count,), torch.nan)
        stated: dict[int, Scene] = {}
        for index, prompt in enumerate(batch.prompts):
            scene = stated_scene(prompt.text)
            if isinstance(scene, Scene):
                stated[index] = scene
            else:
                errors[index] = scene
        images = [batch.images[index] for index in stated]
        for (index, scene), seen in zip(stated.items(), self.read(images), strict=True):
            if isinstance(seen, UnusableAnswer):
                errors[index] = one_line(seen)
                continue
            credits = credits_of(scene, seen)
            share[index] = credits.share
            right[index] = float(credits.is_right)
        values = right if self._strict else share
        return RewardOutput(values.clone(), {"right": right, "share": share}, tuple(errors))


class EmojiGeneval(SceneReward):
    """The share of a prompt's statements that hold in the embedded captioner's description.

    An answer outside the grammar is read as an image of nothing: no statement holds.

    Args:
        strict: True for 1 where every statement holds and 0 elsewhere.
        device: torch device of the captioner.

    Raises:
        MissingResourceError: The installation lacks the captioner, or it is damaged.
    """

    card = CARDS["emoji_geneval"]

    def __init__(self, strict: bool = False, device: str = "cpu") -> None:
        super().__init__(self.card, strict)
        self._captioner = LocalVlm(str(judge_folder("captioner")), device)

    def read(self, images: Sequence[Image.Image]) -> Iterator[Seen | UnusableAnswer]:
        """The content of each image by the captioner's description."""
        answers = self._captioner.answers([jpeg80(image) for image in images], QUESTION, NEW_TOKENS)
        for answer in answers:
            yield answer if isinstance(answer, UnusableAnswer) else described(answer)


def described(answer: str) -> Seen:
    """The content that a description states; nothing if it is no scene."""
    try:
        return seen_in(scene_of(answer))
    except ValueError:
        return NOTHING


class EmojiDetector(SceneReward):
    """The share of a prompt's statements that hold among the figures that the detector finds.

    Args:
        strict: True for 1 where every statement holds and 0 elsewhere.
        device: torch device of the detector.

    Raises:
        MissingResourceError: The installation lacks the detector, or it is damaged.
    """

    card = CARDS["emoji_detector"]

    def __init__(self, strict: bool = False, device: str = "cpu") -> None:
        super().__init__(self.card, strict)
        file = judge_folder("scene_detector") / "model.safetensors"
        self._detector = load_detector(file, device)

    def read(self, images: Sequence[Image.Image]) -> Iterator[Seen]:
        """The content of each image by the figures found."""
        return self._detector.read(images)
