"""Rows that represent images in comparisons: small pixels, and features of the base model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpo.eval.analysis.diversity import Groups, ImageFeatures, small_pixels
from ddpo.eval.analysis.prompt_dependence import SwapPairs, swap_partners
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.probe import features_of
from ddpo.eval.generate.samples import EvalImages
from ddpo.eval.inputs.splits import Split

__all__ = ["features_by_split", "swap_pairs"]

Rows = NDArray[Any]


def features_by_split(
    images: EvalImages, store: ImageStore, models: Collection[str]
) -> dict[tuple[str, str], ImageFeatures]:
    """The rows of all compared images.

    Args:
        images: images of all models.
        store: store of the images.
        models: names of the models.

    Returns:
        (model, split) → rows by prompt. A prompt whose images differ in size has no pixels.
    """
    pixels: dict[tuple[str, str], dict[str, list[Rows]]] = {}
    features: dict[tuple[str, str], dict[str, list[Rows]]] = {}
    for sample in images.compared:
        if sample.model not in models or not sample.sha256:
            continue
        key = (sample.model, sample.split)
        id = sample.prompt.id
        pixels.setdefault(key, defaultdict(list))[id].append(_small(store, sample.sha256))
        row = features_of(images.facts.get((sample.model, id, sample.index), {}))
        if row is not None:
            features.setdefault(key, defaultdict(list))[id].append(row)
    return {
        key: ImageFeatures(_stacked(rows), _stacked(features.get(key, {})))
        for key, rows in pixels.items()
    }


def swap_pairs(model: str, split: Split, images: EvalImages, store: ImageStore) -> SwapPairs:
    """The first image of each prompt, and that of the same noise and another prompt.

    Args:
        model: name of the model.
        split: split of the prompts.
        images: images of all models.
        store: store of the images.

    Returns:
        Prompt id → two rows `[1, width]`; features where both images have them, otherwise pixels.
    """
    own = {
        (sample.model, sample.prompt.id): sample.sha256
        for sample in images.compared
        if sample.index == 0
    }
    pairs: dict[str, tuple[Rows, Rows]] = {}
    for id, other in swap_partners([prompt.id for prompt in split.prompts]).items():
        swapped = images.swapped.get((model, id, other))
        sha256 = own.get((model, id))
        if swapped is None or not sha256:
            continue
        first = features_of(images.facts.get((model, id, 0), {}))
        second = features_of(swapped.facts)
        if first is None or second is None or first.shape != second.shape:
            pairs[id] = (_small(store, sha256)[None], _small(store, swapped.sha256)[None])
        else:
            pairs[id] = (first[None], second[None])
    return pairs


def _small(store: ImageStore, sha256: str) -> Rows:
    row: Rows = small_pixels(store.pixels(sha256)[None])[0]
    return row


def _stacked(groups: Mapping[str, Sequence[Rows]]) -> Groups:
    return {
        id: np.stack(rows) for id, rows in groups.items() if len({row.shape for row in rows}) == 1
    }
