"""What a run, its samples and its evaluation give to programs: strict JSON, as many as asked for.

One run of the embedded model serves all tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpo.eval.config import EVAL_SEED
from ddpo.types import Prompt
from tests.conftest import Run

SETTINGS = {
    "sample.samples": 4,
    "sample.per_prompt": 2,
    "sample.steps": 3,
    "sample.batch": 4,
    "sample.guidance": 1.5,
    "sample.eta": 0.5,
    "optim.timesteps": 1,
    "optim.updates": 1,
    "checkpoint_every": 1,
}
SMALL = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
PROMPTS = ("a cat", "a dog", "a red car")


def strict(text: str) -> Any:
    """The value of a JSON text without NaN and infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def strict_lines(text: str) -> list[Any]:
    return [strict(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("output")
    (found / "p.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    return found


def trained(place: Path, ddpo: Run) -> list[dict[str, Any]]:
    """The events of the run, which the first caller trains."""
    log = place / "events.jsonl"
    if not log.exists():
        where = ("--out", place / "run", "--prompts", place / "p.txt", "--limit", 2)
        code, text, error = ddpo(
            "train", "--reward", "darkness", "--iterations", 2, *where, *SMALL, "--json"
        )
        assert code == 0, error
        log.write_text(text, encoding="utf-8")
    events: list[dict[str, Any]] = strict_lines(log.read_text(encoding="utf-8"))
    return events


def test_train_prints_its_events_as_json_lines(place: Path, ddpo: Run) -> None:
    events = trained(place, ddpo)
    names = [event["event"] for event in events]
    assert names[0] == "started"
    assert names[-1] == "finished"
    assert names.count("iteration") == 2
    assert set(names) == {"started", "checked", "iteration", "grid", "checkpoint", "finished"}
    lines = strict_lines((place / "run" / "metrics.jsonl").read_text(encoding="utf-8"))
    assert [event["metrics"] for event in events if event["event"] == "iteration"] == lines
    assert Path(events[-1]["run"]) == place / "run"


def test_limit_takes_the_first_prompts_of_a_training(place: Path, ddpo: Run) -> None:
    trained(place, ddpo)
    manifest = strict((place / "run" / "manifest.json").read_text(encoding="utf-8"))
    texts = [one if isinstance(one, str) else one["text"] for one in manifest["prompts"]["list"]]
    assert texts == list(PROMPTS[:2])


def test_a_resumed_run_prints_json_lines_too(place: Path, ddpo: Run) -> None:
    trained(place, ddpo)
    code, text, error = ddpo("train", "--resume", place / "run", "--json")
    assert code == 0, error
    assert strict_lines(text)[-1] == {"event": "finished", "run": str(place / "run")}


def test_a_check_before_a_run_and_its_settings_are_json_too(place: Path, ddpo: Run) -> None:
    options = ("--reward", "darkness", *SMALL, "--json")
    code, text, error = ddpo("train", *options, "--dry-run", "--out", place / "none")
    assert code == 0, error
    assert strict_lines(text)[-1] == {"event": "finished", "run": None}
    assert not (place / "none").exists()
    code, text, _ = ddpo("train", *options, "--print-config", "--set", "optim.clip_range=inf")
    assert code == 0
    assert strict(text)["sample"]["steps"] == 3


def sampled(place: Path, ddpo: Run, *options: object) -> tuple[dict[str, Any], list[Any]]:
    out = place / f"s{len(list(place.iterdir()))}"
    code, text, error = ddpo("sample", *options, "--out", out, "--json")
    assert code == 0, error
    rows = strict_lines((out / "metadata.jsonl").read_text(encoding="utf-8"))
    for row in rows:
        assert (out / row["file_name"]).is_file()
    return strict(text), rows


def test_limit_takes_the_first_prompts_of_a_sampling(place: Path, ddpo: Run) -> None:
    trained(place, ddpo)
    options = ("--prompts", place / "p.txt", "--limit", 2, "--per-prompt", 1)
    result, rows = sampled(place, ddpo, *options, "--checkpoint", place / "run")
    assert [row["prompt"] for row in rows] == list(PROMPTS[:2])
    assert result["images"] == 2
    facts = {"steps": 3, "guidance": 1.5, "eta": 0.5, "model": "emoji"}
    assert facts.items() <= rows[0]["settings"].items()
    assert rows[0]["seed"] == 0


def pixels_in(folder: Path) -> list[np.ndarray]:
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".png", ".webp") and path.name != "sheet.png":
            with Image.open(path) as image:
                found.append(np.asarray(image.convert("RGB"), dtype=int))
    return found


def test_a_checkpoint_is_sampled_as_its_evaluation_samples_it(place: Path, ddpo: Run) -> None:
    """Same noise and sampler: each sampled image is among the evaluation's, to one level."""
    trained(place, ddpo)
    prompts = ("--prompts", place / "p.txt", "--limit", 2, "--per-prompt", 1)
    small = ("--history", 0, "--best-of", 0, "--no-held-out")
    out = place / "evaluation"
    code, text, error = ddpo("eval", place / "run", *prompts, *small, "--out", out, "--json")
    assert code == 0, error
    report = strict(text)
    assert report == strict((out / "report.json").read_text(encoding="utf-8"))
    prompts_of_rows = {
        row["prompt"]
        for path in out.rglob("*.jsonl")
        for row in strict_lines(path.read_text(encoding="utf-8"))
        if isinstance(row.get("prompt"), str)
    }
    assert prompts_of_rows == {Prompt(text).id for text in PROMPTS[:2]}
    evaluated = [one for one in pixels_in(out) if one.shape == (64, 64, 3)]
    options = ("--checkpoint", place / "run", "--seed", EVAL_SEED)
    sampled(place, ddpo, *prompts, *options)
    folder = sorted(place.glob("s*"), key=lambda path: path.stat().st_mtime)[-1]
    images = pixels_in(folder)
    assert len(images) == 2
    for image in images:
        assert min(int(np.abs(image - other).max()) for other in evaluated) <= 1


def test_an_exported_checkpoint_is_told_in_json(place: Path, ddpo: Run) -> None:
    trained(place, ddpo)
    code, text, error = ddpo("export", place / "run", "--out", place / "export", "--json")
    assert code == 0, error
    assert strict(text)["kind"] == "lora"


def test_prompts_with_missing_numbers_stay_json(place: Path, ddpo: Run) -> None:
    """A table of prompts has NaN in a column: null, or nothing, in metadata.jsonl."""
    import pandas as pd

    table = pd.DataFrame({"prompt": ["a cat", "a dog"], "weight": [1.0, float("nan")]})
    table.to_parquet(place / "p.parquet")
    _, rows = sampled(
        place, ddpo, "--prompts", place / "p.parquet", "--per-prompt", 1, "--steps", 1
    )
    assert [row["prompt"] for row in rows] == ["a cat", "a dog"]
