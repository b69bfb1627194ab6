"""Rewards from Python: a table of all, a callable for each, and a table of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from ddpo.api.names import Family, RewardName
from ddpo.api.score_inputs import inputs_of, one_each
from ddpo.devices import AUTO
from ddpo.errors import ConfigError, RewardFailure

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from PIL import Image

    from ddpo.inputs.input_image import InputImage
    from ddpo.rewards.card import RewardCard
    from ddpo.rewards.scoring.resolve import ResolvedReward
    from ddpo.types import ImageBatch, RewardOutput

__all__ = ["LoadedReward", "RewardLike", "list_rewards", "load_reward", "score"]

RewardLike = RewardName | str | Callable[..., Any]
"""The name of a reward, as on the command line, or a function, class or object of the caller."""

REMEMBERED: Final = 256  # images in memory that a table of scores can show
COLUMNS: Final = ("measures", "unit", "needs", "family", "licence", "ready", "from")


def list_rewards(family: Family | str | None = None) -> pd.DataFrame:
    """All rewards of ddpo and of installed packages, one row each, by name.

    The columns are measures, unit, needs, family, licence, ready and from. `ready` is True where
    libraries and weights are on this machine.

    Args:
        family: the only family to list, such as "pixels" or "clip".

    Raises:
        UnknownNameError: there is no such family; the message names the nearest.
    """
    from ddpo.api.tables import RewardTable
    from ddpo.registry import unknown_name
    from ddpo.rewards.zoo import rewards

    cards, _ = rewards.available()
    families = {card.family for card in cards.values()}
    if family is not None and family not in families:
        raise unknown_name("family", family, families)
    rows = {
        name: _facts(card, rewards.origin(name))
        for name, card in cards.items()
        if family in (None, card.family)
    }
    table = RewardTable(list(rows.values()), index=list(rows), columns=list(COLUMNS))
    return table.rename_axis("reward")


def _facts(card: RewardCard, origin: str) -> tuple[Any, ...]:
    """One row of the table of rewards, in the order of `COLUMNS`."""
    from ddpo.rewards.tools.availability import availability

    licences = [card.code_licence, *(weight.licence for weight in card.weights)]
    licence = ", ".join(dict.fromkeys(licences))
    ready = availability(card, origin).complete
    return card.summary, card.unit, card.needs_text, card.family, licence, ready, origin


def load_reward(
    reward: RewardLike, *, device: str = AUTO, batch_size: int = 16, **options: Any
) -> LoadedReward:
    """A reward that is called with images.

    Args:
        reward: name such as "aesthetic" or "./my.py:f", or a function `f(images, prompts)`.
        device: device of its model, such as "cuda".
        batch_size: largest number of images in a call of the reward.
        **options: options of the reward, as its card lists them.

    Raises:
        UserError: the reward is unknown, cannot be made, or an option does not fit.
    """
    from ddpo.devices import resolve_device
    from ddpo.rewards.tools.needed_weights import check_weights
    from ddpo.rewards.zoo import resolve

    spec = spec_of(reward)
    found = resolve(spec, **options).on(resolve_device(device))
    check_weights([found])
    chosen = ",".join(f"{name}={value}" for name, value in options.items())
    joint = "," if "=" in spec else ":"
    return LoadedReward(found, f"{spec}{joint}{chosen}" if chosen else spec, batch_size)


def spec_of(reward: Any) -> str:
    """The name of a reward; an object of the caller gets one that holds in this process.

    Raises:
        ConfigError: it is neither a name nor callable.
    """
    from ddpo.given import name_of

    if isinstance(reward, LoadedReward):
        return reward.name
    if isinstance(reward, str):
        return reward
    if not callable(reward):
        kind = type(reward).__name__
        raise ConfigError(f"a reward is a name such as 'aesthetic' or a function, got a {kind}")
    return name_of(reward)


class LoadedReward:
    """A reward with its model in memory; call it with images.

    Args:
        found: the resolved reward.
        name: name by which training and `score` find the reward.
        batch_size: largest number of images in a call of the reward.

    Attributes:
        card: facts about the reward.
    """

    def __init__(self, found: ResolvedReward, name: str, batch_size: int = 16) -> None:
        from ddpo.rewards.scoring.scorer import make_scorer

        self.name = name
        self._found = found
        self._scorer = make_scorer(found, batch_size)
        self.card: RewardCard = self._scorer.reward.card

    @property
    def signature(self) -> str:
        """The line that fixes the scores: reward, version, weights, library versions."""
        return self._found.signature

    def __call__(
        self,
        images: Any,
        prompts: str | Sequence[str] | None = None,
        metadata: Any = None,
        *,
        unscorable: str = "raise",
    ) -> float | NDArray[np.float64]:
        """The score of one image, or an array `[batch]` of the scores of many.

        Args:
            images: one image or many, each a path, a Pillow image, a numpy array or a torch tensor.
            prompts: text of one image, or one text for each of many.
            metadata: mapping of one image, or one for each of many.
            unscorable: "raise", or "nan" as the score of an image without one.

        Raises:
            ImageError: an image cannot be read.
            PromptError: prompts are missing, or are not one for each image.
            RewardFailure: the reward failed, or has no score for an image.
        """
        if unscorable not in ("raise", "nan"):
            raise ConfigError(f"unscorable must be 'raise' or 'nan', got {unscorable!r}")
        output, single = self._scored(images, prompts, metadata)
        if unscorable == "raise":
            _check_scored(self.card.id, output)
        values = output.values.double().numpy()
        return float(values[0]) if single else values

    def _scored(
        self, images: Any, prompts: str | Sequence[str] | None, metadata: Any
    ) -> tuple[RewardOutput, bool]:
        """The output for all images, and True if it is for a single image."""
        from ddpo.api.images import pil_images
        from ddpo.rewards.adapters import score_images

        exact = self._exact_batch(images, prompts, metadata)
        if exact is not None:
            return self._scorer.score(exact), False
        found, single = pil_images(images)
        texts = one_each(prompts, len(found), single, "prompt")
        facts = one_each(metadata, len(found), single, "metadata")
        return score_images(self._scorer, found, texts, facts), single

    def _exact_batch(self, images: Any, prompts: Any, metadata: Any) -> ImageBatch | None:
        """The batch of an array or tensor of many images, unrounded; None for other images."""
        from ddpo.rewards.adapter_inputs import batch_of_arrays, is_batch

        if not is_batch(images):
            return None
        texts = one_each(prompts, len(images), False, "prompt")
        facts = one_each(metadata, len(images), False, "metadata")
        return batch_of_arrays(images, texts, facts, self.card)

    def __repr__(self) -> str:
        return f"<reward {self.card.id}: {self.card.summary}>"

    def _repr_html_(self) -> str:
        return self.card._repr_html_()


def _check_scored(name: str, output: RewardOutput) -> None:
    reasons = [(place, error) for place, error in enumerate(output.errors) if error is not None]
    if reasons:
        place, reason = reasons[0]
        more = f", and for {len(reasons) - 1} more" if len(reasons) > 1 else ""
        raise RewardFailure(
            f"reward {name!r} has no score for image {place}{more}: {reason}; "
            "unscorable='nan' gives NaN instead"
        )


def score(
    rewards: RewardLike | Sequence[RewardLike],
    images: Any,
    prompts: str | Sequence[str] | None = None,
    *,
    device: str = AUTO,
    batch_size: int = 16,
    cache: bool | None = None,
) -> pd.DataFrame:
    """The scores of images, as a table with a row per image and a column per reward.

    The other columns are `image`, `prompt` and `error`, the reason for a missing score. Folders,
    tables and archives are read as by `ddpo rewards score`, with the prompts beside the images.

    Args:
        rewards: one reward or several; names or functions.
        images: folder, table, archive or image file, a list of them, or images as `load_reward`
            takes them.
        prompts: one text per image, or a file of prompts; None where the images bring theirs.
        device: device of the rewards' models.
        batch_size: largest number of images in a call of a reward.
        cache: use of the score cache; None: for all rewards but those of the caller's code.

    Raises:
        UserError: a reward, a place or a prompt cannot be used.
        RewardFailure: a reward is broken.
    """
    from ddpo.api.tables import ScoreTable
    from ddpo.io.json_files import say_once
    from ddpo.rewards.cache import optional_cache, uncached_line
    from ddpo.rewards.image_files import score_files, score_groups
    from ddpo.rewards.scoring.scorer import make_scorer
    from ddpo.rewards.tools.needed_weights import check_weights

    named = _named(rewards)
    check_weights(named.values())
    in_memory: dict[str, Image.Image] = {}
    inputs = _remembered(inputs_of(images, prompts), in_memory)
    grouped = any("group" in found.card.inputs for found in named.values())
    with ExitStack() as stack:
        store = optional_cache(cache)
        if store is not None:
            stack.enter_context(store)
        scorers = []
        for name, found in named.items():
            placed = found.on(device) if device != AUTO else found
            scorers.append(make_scorer(placed, batch_size, name=name, cache=store))
            stack.callback(scorers[-1].close)
        if cache and (line := uncached_line(scorer.reward.card for scorer in scorers)):
            say_once(f"cache=True: {line}")
        rows = list((score_groups if grouped else score_files)(scorers, inputs, batch_size))
    records = [_record(row) for row in rows]
    table = ScoreTable(records, columns=["image", "prompt", *named, "error"])
    table.in_memory = in_memory
    return table


def _remembered(
    inputs: Iterable[InputImage], in_memory: dict[str, Image.Image]
) -> Iterator[InputImage]:
    """The same images; the first ones in memory leave a small copy, for the table.

    Args:
        inputs: images to score.
        in_memory: name → small copy, which is filled.
    """
    from ddpo.thumbnails import small_copy

    for one in inputs:
        if one.image is not None and len(in_memory) < REMEMBERED:
            in_memory[one.file] = small_copy(one.image)
        yield one


def _named(rewards: Any) -> dict[str, ResolvedReward]:
    """The rewards by the names of their columns.

    Raises:
        ConfigError: there is none, or one is given twice.
    """
    from ddpo.rewards.zoo import resolve

    specs = [
        spec_of(reward) for reward in (rewards if isinstance(rewards, list | tuple) else [rewards])
    ]
    found = [resolve(spec) for spec in specs]
    ids = [one.card.id for one in found]
    names = [
        one.card.id if ids.count(one.card.id) == 1 else spec
        for one, spec in zip(found, specs, strict=True)
    ]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"name each reward once, and at least one; got {names}")
    return dict(zip(names, found, strict=True))


def _record(rows: Sequence[Any]) -> dict[str, Any]:
    """One row of the table, from the results of all rewards for one image."""
    errors = dict.fromkeys(row.error for row in rows if row.error is not None)
    scores = {row.reward: math.nan if row.score is None else row.score for row in rows}
    facts = {"image": rows[0].file, "prompt": rows[0].prompt}
    return {**facts, **scores, "error": "; ".join(errors) or None}
