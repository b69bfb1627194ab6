"""The promise that a LoRA is nothing at its start, and the same after it was saved and loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from ddpo.model_check.diffusers_pipeline import TOLERANCE, largest_difference, pipeline_of
from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.policies.policy import TrainablePolicy
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped

__all__ = ["lora_there_and_back"]


@torch.no_grad()
def lora_there_and_back(tested: ModelUnderTest) -> str | None:
    """A new LoRA changes no bit; a saved one is loaded to the bit, by plain diffusers too."""
    if "lora" not in tested.kinds:
        raise CheckSkipped("the model has no adapters")
    start = tested.fresh()
    start.adapt("lora")
    base = tested.policy.predict(*tested.inputs(tested.policy))
    if not torch.equal(start.predict(*tested.inputs(start)), base):
        raise CheckFailed("a new LoRA changes the prediction")
    del start
    policy = tested.adapted("lora")
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder), iteration=1)
        again = tested.fresh(checkpoint=Path(folder))
        if not torch.equal(
            again.predict(*tested.inputs(again)), policy.predict(*tested.inputs(policy))
        ):
            raise CheckFailed("a LoRA that was saved and loaded gives another prediction")
        del again
        return _in_diffusers(tested, policy, Path(folder))


def _in_diffusers(tested: ModelUnderTest, policy: TrainablePolicy, folder: Path) -> str | None:
    """The largest difference to the images of plain diffusers with the LoRA; None without one."""
    pipeline = pipeline_of(tested.word)
    if pipeline is None:
        return None
    pipeline.load_lora_weights(folder)
    pipeline.to(policy.device)
    away = largest_difference(tested, policy, pipeline, guidance=1.0)
    if not away <= TOLERANCE:
        raise CheckFailed(f"plain diffusers with the LoRA gives images that differ by {away:.2g}")
    return f"plain diffusers agrees to {away:.1e}"
