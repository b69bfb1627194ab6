"""Exported checkpoints of flow models: the code that `ddpo export` prints and writes runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline

from ddpo.trainer import config_from_dict
from ddpo.trainer.loop import train
from ddpo.trainer.run.export import export
from tests.tiny_flow_models import write_tiny_sd3

OWN = {"eta": 0.7, "transition": "auto", "grid": "auto"}
"""The model's own transition and grid, as in runs of a family without a recipe."""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run_without_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow")
    values: dict[str, Any] = {
        "model": str(write_tiny_sd3(folder / "model", t5=False)),
        "reward": "darkness",
        "iterations": 1,
        "sample": {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 4} | OWN,
        "optim": {"updates": 1, "timesteps": 1},
        "adapt": {"rank": 2, "alpha": 2, "targets": ["attn.to_q"]},
    }
    list(train(config_from_dict(values), folder / "run"))
    return folder / "run"


def code_of(card: Path) -> str:
    """The Python code of a model card."""
    return card.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def test_the_printed_code_opens_a_merged_pipeline_without_t5(
    ddpo: Run, run_without_t5: Path, tmp_path: Path
) -> None:
    """diffusers wants None for the encoder that the model lacks, even where its index says so."""
    to = tmp_path / "merged"
    code, output, errors = ddpo("export", run_without_t5, "--merge", "--out", to, "--json")
    assert code == 0, errors
    with pytest.raises(ValueError, match="text_encoder_3"):
        DiffusionPipeline.from_pretrained(to)
    pipeline = eval(json.loads(output)["load"])
    assert isinstance(pipeline, StableDiffusion3Pipeline)
    assert pipeline.text_encoder_3 is None


def test_the_code_of_the_card_samples_a_run_with_the_sampler_of_the_model(
    run_without_t5: Path, tmp_path: Path
) -> None:
    """The pipeline of a flow model takes no eta."""
    export(run_without_t5, tmp_path / "merged", merge=True)
    code = code_of(tmp_path / "merged" / "README.md")
    names: dict[str, Any] = {}
    exec(code.replace("THIS FOLDER OR REPOSITORY", str(tmp_path / "merged")), names)
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    assert "| sampling | flow_sde on the model's own grid, 2 steps, guidance" in card
    assert type(names["pipeline"].scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize("kind", ["merged", "lora"])
def test_a_flow_checkpoint_outside_its_run_gets_no_ddim(
    run_without_t5: Path, tmp_path: Path, kind: str
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run_without_t5 / "checkpoints" / "iteration-000001", moved)
    export(moved, tmp_path / "out", merge=kind == "merged")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "was in no run folder" in card
    assert "DDIM" not in card
