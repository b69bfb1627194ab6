"""Changes of diversity and of prompt dependence, for every model and split."""

from __future__ import annotations

from collections.abc import Sequence

from ddpo.eval.analysis.diversity import DiversityChange, ImageFeatures, diversity_changes
from ddpo.eval.analysis.image_features import features_by_split, swap_pairs
from ddpo.eval.analysis.prompt_dependence import Dependence, explained_change, swap_change
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.samples import EvalImages
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.splits import Split

__all__ = ["image_changes"]


def image_changes(
    splits: Sequence[Split],
    models: Sequence[ModelFacts],
    images: EvalImages,
    store: ImageStore,
) -> tuple[tuple[DiversityChange, ...], tuple[Dependence, ...]]:
    """Diversity and prompt dependence of every model on every split.

    Args:
        splits: splits to compare.
        models: tuned models to compare.
        images: images of all models; without swapped images there is no swap test.
        store: store of the images.
    """
    features = features_by_split(images, store, {BASE, *(model.name for model in models)})
    nothing = ImageFeatures({})
    diversity: list[DiversityChange] = []
    dependence: list[Dependence] = []
    for split in splits:
        base = features.get((BASE, split.name), nothing)
        for model in models:
            tuned = features.get((model.name, split.name), nothing)
            diversity += diversity_changes(model.name, split.name, base, tuned)
            before, after = (one.features or one.pixels for one in (base, tuned))
            dependence.append(explained_change(model.name, split.name, before, after))
            if images.swapped:
                own, swapped = (
                    swap_pairs(name, split, images, store) for name in (BASE, model.name)
                )
                dependence.append(swap_change(model.name, split.name, own, swapped))
    return tuple(diversity), tuple(dependence)
