"""Runs of a local base model, used from another directory or after the model was moved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from ddpo.errors import CheckpointError, MissingResourceError
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.trainer import config_from_dict
from ddpo.trainer.loop import resume, train
from ddpo.trainer.run.export import export

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a model at models/sd and a run of it; tests start in elsewhere/."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, "models/sd")
    values: dict[str, Any] = {
        "model": "models/sd",
        "reward": "darkness",
        "iterations": 1,
        "sample": {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 4},
        "optim": {"updates": 1, "timesteps": 1},
    }
    list(train(config_from_dict(values), Path("run")))
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    return tmp_path


def sample(ddpo: Run, out: Path, *options: object) -> tuple[int, str]:
    code, _, errors = ddpo(
        "sample", "a cat", "--per-prompt", 1, "--steps", 2, "--out", out, *options
    )
    return code, " ".join(errors.split())


@pytest.mark.parametrize(
    "spelling",
    [None, "../models/sd", "../models/sd/", "../elsewhere/../models/sd", "{absolute}", "link"],
)
def test_a_run_is_sampled_from_another_directory(
    ddpo: Run, project: Path, spelling: str | None
) -> None:
    Path("link").symlink_to("../models/sd")
    model = (
        () if spelling is None else ("--model", spelling.format(absolute=project / "models" / "sd"))
    )
    assert sample(ddpo, project / "out", "--checkpoint", "../run", *model) == (
        0,
        sample(ddpo, project / "other", "--model", "../models/sd")[1],
    )


def test_the_record_has_the_spelling_and_the_place(project: Path) -> None:
    info = find_checkpoint("../run")
    record = json.loads((info.folder / "policy.json").read_text())
    manifest = json.loads((project / "run" / "manifest.json").read_text())
    assert record["model"] == manifest["config"]["model"] == "models/sd"
    assert (
        record["base"]["place"]
        == manifest["base"]["place"]
        == str(project / "models" / "sd")
        == info.model
    )


def test_a_run_is_resumed_from_another_directory(project: Path) -> None:
    list(resume(Path("../run"), iterations=2))
    assert find_checkpoint("../run").iteration == 2


def test_a_moved_model_is_asked_for_and_accepted(ddpo: Run, project: Path) -> None:
    (project / "models").rename(project / "store")
    code, errors = sample(ddpo, project / "out", "--checkpoint", "../run")
    assert code == 2
    assert (
        f"was trained from 'models/sd', which is no longer at {project / 'models' / 'sd'}: "
        "give its new place with --model"
    ) in errors
    assert sample(ddpo, project / "out", "--checkpoint", "../run", "--model", "../store/sd")[0] == 0
    export(Path("../run"), project / "merged", merge=True, model="../store/sd")
    with pytest.raises(MissingResourceError, match="no model at"):
        list(resume(Path("../run"), iterations=2))
    list(resume(Path("../run"), settings={"iterations": 2, "model": "../store/sd"}))
    assert find_checkpoint("../run").model == "../store/sd"


def test_a_model_that_was_moved_with_its_project_is_found_by_its_spelling(
    ddpo: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = project.with_name(project.name + "-moved")
    moved.mkdir()
    for name in ("models", "run"):
        (project / name).rename(moved / name)
    monkeypatch.chdir(moved)
    assert find_checkpoint("run").model == "models/sd"
    assert sample(ddpo, moved / "out", "--checkpoint", "run")[0] == 0


@pytest.mark.parametrize("place", ["models/sd", "other"])
def test_another_denoiser_is_refused_wherever_it_lies(ddpo: Run, project: Path, place: str) -> None:
    if place == "other":
        shutil.copytree(project / "models" / "sd", project / "other")
    file = project / place / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(
        {name: tensor + 0.01 for name, tensor in load_file(file).items()},
        file,
        metadata={"format": "pt"},
    )
    with pytest.raises(
        CheckpointError,
        match="whose denoiser has changed since"
        if place != "other"
        else "was trained from 'models/sd'",
    ):
        find_checkpoint("../run", f"../{place}")
    assert sample(ddpo, project / "out", "--checkpoint", "../run", "--model", f"../{place}")[0] == 2


def test_a_checkpoint_of_an_older_version_knows_the_spelling_alone(
    ddpo: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (project / "run").glob("checkpoints/*/policy.json"):
        record = json.loads(file.read_text())
        del record["base"]
        file.write_text(json.dumps(record))
    manifest = json.loads((project / "run" / "manifest.json").read_text())
    del manifest["base"]
    (project / "run" / "manifest.json").write_text(json.dumps(manifest))
    assert sample(ddpo, project / "out", "--checkpoint", "../run")[0] == 2
    monkeypatch.chdir(project)
    assert sample(ddpo, project / "out", "--checkpoint", "run")[0] == 0
    assert sample(ddpo, project / "out2", "--checkpoint", "run", "--model", "./models/sd/")[0] == 0
    list(resume(Path("run"), iterations=2))


ABSENT: dict[str, dict[str, list[str]]] = {
    "safety checker": {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]},
    "feature extractor": {"feature_extractor": ["transformers", "CLIPImageProcessor"]},
    "both": {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    },
    "image encoder": {"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]},
}


@pytest.mark.parametrize("case", ABSENT)
def test_a_merged_pipeline_does_without_absent_parts(project: Path, case: str) -> None:
    from diffusers import DiffusionPipeline

    file = project / "models" / "sd" / "model_index.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | ABSENT[case] | {"requires_safety_checker": True})
    )
    export(Path("../run"), project / "merged", merge=True)
    index = json.loads((project / "merged" / "model_index.json").read_text())
    assert all(index[name] == [None, None] for name in ABSENT[case])
    assert DiffusionPipeline.from_pretrained(project / "merged").unet is not None
