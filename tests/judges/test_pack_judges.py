"""The folder of the embedded judges: copied files, modes, the manifest and the model cards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from ddpo.errors import ConfigError
from ddpo.io.tensors import save_tensors
from ddpo.rewards.cards.embedded import JUDGES
from pretraining.pack_judges import PACKED, main, pack_judges

ROWS = {"renderings": {"one": 0.75, "on": 0.5, "mean": 0.625}}
MEASURES = {
    "captioner": {
        "facts_stated": ROWS,
        "exact": {"half_erased": {"one": 0.25, "on": 0.125, "mean": 0.1875}},
        "examples": {"one": [["a cat", "a dog"], ["a bee", "a bee"], ["a fox", "a wolf"]]},
    },
    "sentence_encoder": {"rank_correlation": 0.91234},
    "dual_encoder": ROWS,
    "scene_detector": ROWS,
    "aesthetic_head": {"mean_of_renderings": 7.25, "off-centre": 0.875},
}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of trained judges, as their modules leave it, with files that only root reads."""
    folder = tmp_path / "trained"
    for name, packed in PACKED.items():
        target = folder / packed.source
        target.mkdir(parents=True)
        for each in packed.files:
            shutil.copyfile(JUDGES / name / each, target / each)
            (target / each).chmod(0o600)
        (target / "stray.log").write_text("not a part of the judge")
    run = {"judge": "captioner", "seed": 4, "batch": 96}
    (folder / "captioner" / "run.json").write_text(json.dumps(run))
    state = folder / "captioner" / "training.safetensors"
    save_tensors(state, {"model.x": torch.zeros(2)}, {"step": "1234"})
    (folder / "measures").mkdir()
    (folder / "measures" / "measures.json").write_text(json.dumps(MEASURES))
    return folder


def test_the_packed_folder_holds_the_files_with_hashes_and_modes(
    trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "packed"
    before = os.umask(0o022)
    try:
        main(["--judges", str(trained), "--out", str(out)])
    finally:
        os.umask(before)
    expected = {f"{name}/{each}" for name, packed in PACKED.items() for each in packed.files}
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))["files"]
    assert set(manifest) == expected
    for name, facts in manifest.items():
        data = (out / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        assert data == (JUDGES / name).read_bytes()
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == len(expected) + len(PACKED) + 1  # cards and manifest
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}


def test_the_cards_state_recipe_and_measures(trained: Path, tmp_path: Path) -> None:
    pack_judges(trained, tmp_path / "packed")
    cards = {name: (tmp_path / "packed" / name / "README.md").read_text() for name in PACKED}
    assert "1,234 steps of 96, seed 4" in " ".join(cards["captioner"].split())
    assert "| renderings | 75 % | 50 % | 62 % |" in cards["captioner"]
    assert "| half-erased | 25 % | 12 % | 19 % |" in cards["captioner"]
    assert "| a cat | a dog |\n| a bee | a bee |\n\n" in cards["captioner"]
    assert "| rank correlation | 0.912 |" in cards["sentence_encoder"]
    assert "| renderings | 75 % | 50 % | 62 % |" in cards["dual_encoder"]
    assert "| mean of renderings | 7.250 |" in cards["aesthetic_head"]
    for text in cards.values():
        lines = [line for line in text.splitlines() if not line.startswith("|")]
        assert max(map(len, lines)) <= 100


def test_unmeasured_judges_say_so(trained: Path, tmp_path: Path) -> None:
    shutil.rmtree(trained / "measures")
    pack_judges(trained, tmp_path / "packed")
    for name in PACKED:
        assert "measures were not taken" in (tmp_path / "packed" / name / "README.md").read_text()


@pytest.mark.parametrize("fault", ["missing", "large"])
def test_an_unfit_judge_is_refused_before_anything_is_replaced(
    trained: Path, tmp_path: Path, fault: str
) -> None:
    out = tmp_path / "packed"
    pack_judges(trained, out)
    weights = trained / "dual_encoder" / "judge" / "model.safetensors"
    if fault == "missing":
        weights.unlink()
    else:
        weights.write_bytes(bytes(3_000_001))
    words = {"missing": "the judge dual_encoder lacks", "large": "MB, more than 3"}[fault]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=words):
        pack_judges(trained, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
