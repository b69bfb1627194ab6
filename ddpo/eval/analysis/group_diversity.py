"""Changes of the zoo's diversity rewards (LPIPS, DINO, Vendi), where their weights are present."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

import numpy as np

from ddpo.eval.analysis.diversity import DiversityChange, within_change
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.samples import EvalImages
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.splits import Split
from ddpo.rewards.cards.diversity import DIVERSITY_CARDS
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.tools.availability import availability
from ddpo.rewards.zoo import resolve
from ddpo.types import ImageBatch, Prompt

__all__ = [
    "GROUP_MEASURES",
    "group_changes",
    "group_reward_change",
    "group_rewards_here",
    "score_groups",
]

GROUP_MEASURES: Final = {
    "diversity_lpips": "lpips",
    "diversity_dino": "dino",
    "vendi": "vendi dino",
}
"""Group rewards of the zoo → their names in a `DiversityChange`."""

Hashes = dict[tuple[str, str, str], dict[int, str]]
"""(model, split, prompt id) → index → SHA-256."""


def group_rewards_here() -> tuple[str, ...]:
    """Ids of the zoo's diversity rewards whose weights and libraries are on this machine."""
    return tuple(id for id in GROUP_MEASURES if availability(DIVERSITY_CARDS[id]).complete)


def group_changes(
    specs: Sequence[str],
    models: Sequence[ModelFacts],
    splits: Sequence[Split],
    images: EvalImages,
    store: ImageStore,
) -> tuple[DiversityChange, ...]:
    """The change of each measure of each model on each split.

    Of a prompt, the indices are used that both models have, two at least.

    Args:
        specs: group rewards, as `resolve` takes them.
        models: compared models.
        splits: splits of the evaluation.
        images: images of all models.
        store: store of the images.

    Raises:
        UserError, RewardFailure: a measure cannot be loaded, or failed.
    """
    changes: list[DiversityChange] = []
    hashes: Hashes = {}
    for one in images.compared:
        if one.sha256:
            hashes.setdefault((one.model, one.split, one.prompt.id), {})[one.index] = one.sha256
    for spec in specs:
        resolved = resolve(spec)
        measure = GROUP_MEASURES.get(spec, resolved.card.id)
        with closing(make_scorer(resolved)) as scorer:
            for split in splits:
                for model in models:
                    base, tuned = _values(scorer, model.name, split, hashes, store)
                    change = group_reward_change(model.name, split.name, measure, base, tuned)
                    changes.append(change)
    return tuple(change for change in changes if not math.isnan(change.ratio))


def score_groups(scorer: Scorer, groups: Mapping[str, ImageBatch]) -> dict[str, float]:
    """The score of each prompt's images by a group reward; NaN where it gives none.

    Args:
        scorer: scorer of a group reward.
        groups: prompt id → images of the prompt, at least two.

    Raises:
        RewardFailure: as for `Scorer.score`.
    """
    return {prompt: float(scorer.score(batch).values[0]) for prompt, batch in groups.items()}


def group_reward_change(
    model: str, split: str, measure: str, base: Mapping[str, float], tuned: Mapping[str, float]
) -> DiversityChange:
    """The change of a measure on the prompts that both models have a score of."""
    shared = [
        id for id in base if not math.isnan(base[id]) and not math.isnan(tuned.get(id, math.nan))
    ]
    before = np.array([base[id] for id in shared], dtype=np.float64)
    after = np.array([tuned[id] for id in shared], dtype=np.float64)
    return within_change(model, split, measure, before, after)


def _values(
    scorer: Scorer, model: str, split: Split, hashes: Hashes, store: ImageStore
) -> tuple[dict[str, float], dict[str, float]]:
    """Prompt id → measure, of the base model and of the tuned one."""
    groups: tuple[dict[str, ImageBatch], dict[str, ImageBatch]] = ({}, {})
    for prompt in split.prompts:
        base, tuned = (hashes.get((name, split.name, prompt.id), {}) for name in (BASE, model))
        indices = sorted(base.keys() & tuned.keys())
        if len(indices) >= 2:
            for found, of in zip(groups, (base, tuned), strict=True):
                found[prompt.id] = _batch(store, prompt, [of[index] for index in indices])
    return score_groups(scorer, groups[0]), score_groups(scorer, groups[1])


def _batch(store: ImageStore, prompt: Prompt, hashes: Sequence[str]) -> ImageBatch:
    pixels = np.stack([store.pixels(sha256) for sha256 in hashes])
    return ImageBatch.of_uint8(pixels, [prompt] * len(hashes))
