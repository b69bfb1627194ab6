"""The zoo's measures of diversity inside a report."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ddpo.eval.analysis.group_diversity import group_changes
from ddpo.eval.generate.image_store import ImageKey, ImageStore
from ddpo.eval.generate.samples import EvalImages, Sample
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.inputs.splits import Split
from ddpo.types import Prompt

MODEL = ModelFacts("m", "m", "lora", "m", 1, 1, "x", 0, 3, history=False, identity="")


def test_equal_images_count_once_and_different_ones_each(tmp_path: Path) -> None:
    """Vendi of n equal images is 1; the measure is taken over as many images of both models."""
    random = np.random.default_rng(0)
    prompts = (Prompt("a cat"), Prompt("a dog"), Prompt("a yak"))
    samples = []
    with ImageStore(tmp_path) as store:
        for place, prompt in enumerate(prompts):
            base = [random.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(3)]
            for model, images in (("base", base), ("m", [base[0]] * 3)):
                for index, pixels in enumerate(
                    images[: 2 if model == "m" and place == 0 else 3]
                ):  # one is missing
                    key = ImageKey(model, prompt.id, index)
                    store.add([(key, pixels, {})])
                    found = store.get(key)
                    assert found is not None
                    samples.append(Sample(model, "animals", prompt, index, found.sha256))
        split = Split("animals", "seen", prompts)
        (change,) = group_changes(
            ["vendi:features=pixels"], [MODEL], [split], EvalImages(tuple(samples)), store
        )
        assert (change.model, change.split, change.measure, change.scope, change.prompts) == (
            "m",
            "animals",
            "vendi",
            "within",
            3,
        )
        assert math.isclose(change.tuned, 1, abs_tol=1e-5)
        assert change.base > 1.05
        assert math.isclose(change.ratio, change.tuned / change.base, rel_tol=1e-9)
        assert (
            group_changes(
                ["vendi:features=pixels"],
                [MODEL],
                [Split("other", "objects", prompts)],
                EvalImages(tuple(samples)),
                store,
            )
            == ()
        )
