"""The zoo's own measures of diversity (LPIPS, DINO, Vendi) on the pictures of each prompt, where their weights are on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing

import numpy as np

from ddpo.eval.analysis.diversity import (
    GROUP_MEASURES,
    DiversityChange,
    group_reward_change,
    score_groups,
)
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.images import EvalImages
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.splits import Split
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.zoo import resolve
from ddpo.types import ImageBatch, Prompt

__all__ = ["group_changes"]

Hashes = dict[tuple[str, str, str], dict[int, str]]
"""(model, split, prompt id) → index → SHA-256."""


def group_changes(
    specs: Sequence[str],
    models: Sequence[ModelFacts],
    splits: Sequence[Split],
    pictures: EvalImages,
    store: ImageStore,
) -> tuple[DiversityChange, ...]:
    """The change of each measure of each model on each split.

    Of a prompt the same number of pictures of both models is taken, those of the indices that both have; two at least.

    Args:
        specs: rewards that judge groups, as `resolve` takes them.
        models: that are compared.
        splits: of the evaluation.
        pictures: of all models.
        store: where they are.

    Raises:
        UserError, RewardFailure: a measure cannot be loaded, or broke.
    """
    changes: list[DiversityChange] = []
    hashes: Hashes = {}
    for one in pictures.compared:
        if one.sha256:
            hashes.setdefault((one.model, one.split, one.prompt.id), {})[one.index] = one.sha256
    for spec in specs:
        resolved = resolve(spec)
        measure = GROUP_MEASURES.get(spec, resolved.card.id)
        with closing(make_scorer(resolved)) as scorer:
            for split in splits:
                for model in models:
                    values = _values(scorer, model.name, split, hashes, store)
                    changes.append(
                        group_reward_change(model.name, split.name, measure, values[0], values[1])
                    )
    return tuple(change for change in changes if not math.isnan(change.ratio))


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
    return ImageBatch.of_uint8(
        np.stack([store.pixels(sha256) for sha256 in hashes]), [prompt] * len(hashes)
    )
