"""A damaged part of a folder is named in one line, and what can be done without it is done."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from ddpo.errors import CheckpointError
from ddpo.eval.analysis.noise_floor import FILE, NoiseFloors
from ddpo.eval.generate.scoring import ScoreJournal
from ddpo.eval.inputs.runs import read_curve
from ddpo.rewards.zoo import resolve
from ddpo.trainer.run.folder import RunFolder
from ddpo.types import Prompt

FIXTURES = Path(__file__).parent / "fixtures_of_old_versions" / "d399994"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES / "runs" / "keeping", tmp_path / "run")
    return tmp_path / "run"


def replace_line(path: Path, number: int, text: bytes) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = text
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\n", b"{}\n", b'{"iteration": -1}\n', b"[" * 100_000 + b"\n"]
)
def test_metrics_without_a_damaged_line(
    run: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = run / "metrics.jsonl"
    whole = len(path.read_bytes().splitlines())
    replace_line(path, 0, line)
    assert len(read_curve(path)) == whole - 1
    assert len(RunFolder(run).metrics()) == whole - 1
    curve, metrics = caplog.messages
    assert f"{path}: line 1 is damaged" in curve
    assert f"{path}: line 1 is damaged" in metrics
    assert "\n" not in curve + metrics


def test_a_line_that_a_kill_cut_short_is_no_damage(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = run / "metrics.jsonl"
    whole = len(path.read_bytes().splitlines())
    with path.open("ab") as file:
        file.write(b'{"iteration": 3, "rew')
    assert len(read_curve(path)) == whole
    assert not caplog.messages


def test_scores_of_a_damaged_line_are_missing_and_the_others_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(FIXTURES / "evaluation" / "scores-0.jsonl", tmp_path)
    with ScoreJournal(tmp_path) as journal:
        known = len(journal._known)
    with (tmp_path / "scores-0.jsonl").open("ab") as file:
        file.write(b'{"identity": "x", "scores": [["../../x", "", "nan", {}, null, 0]]}\n')
    with ScoreJournal(tmp_path) as journal:
        assert len(journal._known) == known
        journal.reload()
    (line,) = caplog.messages
    assert re.search(r"scores-0\.jsonl: line \d+ is damaged .*; its images are scored again", line)


@pytest.mark.parametrize("text", ["", "[]", '{"a": -1}', '{"a": "nan"}', '{"a": 1, "a": 2}'])
def test_damaged_noise_floors_are_measured_again(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text(text)
    floors = NoiseFloors(tmp_path, [("0" * 64, Prompt("a cat"))])
    assert not floors.known(resolve("darkness"))
    (line,) = caplog.messages
    assert "noise floors are measured again" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": {"source": "x", "list": []}}, r"its prompts\.list cannot be"),
        ({"prompts": {"list": ["a"]}}, r"it has no prompts\.source"),
        ({"reward": {"card": []}}, r"its reward\.card cannot be"),
        ({"versions": {"ddpo": 3}}, r"its versions\.\"ddpo\" cannot be 3"),
        ({"folder": 7}, "its folder cannot be 7"),
        ({"config": "x"}, "its config cannot be"),
    ],
)
def test_a_manifest_with_absurd_facts_is_named(
    change: dict[str, object], message: str, run: Path
) -> None:
    record = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(record | change))
    with pytest.raises(CheckpointError, match=rf"manifest\.json is damaged: {message}"):
        RunFolder(run).manifest()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"iteration": "-1", "statistics": "{}"}, "its iteration cannot be"),
        ({"iteration": "9" * 5000, "statistics": "{}"}, "its iteration cannot be"),
        ({"iteration": "\N{ARABIC-INDIC DIGIT TWO}", "statistics": "{}"}, "its iteration cannot"),
        ({"iteration": "2", "statistics": '{"a": ["x"]}'}, "its statistics"),
        ({"iteration": "2", "statistics": "[" * 1000}, "nested more than"),
        ({"iteration": "2"}, "it has no statistics"),
    ],
)
def test_a_state_with_absurd_metadata_is_named(
    metadata: dict[str, str], message: str, run: Path
) -> None:
    from safetensors.torch import save_file

    file = run / "state" / "state.safetensors"
    file.unlink(missing_ok=True)
    file.parent.mkdir(exist_ok=True)
    save_file({"loss_scale": torch.ones(2)}, file, metadata=metadata)
    with pytest.raises(CheckpointError, match=rf"state\.safetensors is damaged: .*{message}"):
        RunFolder(run).load_state()


def test_a_state_that_does_not_fit_the_run_is_refused() -> None:
    from ddpo.distributed import ALONE
    from ddpo.policies import load_policy
    from ddpo.policies.policy import LoraSettings
    from ddpo.trainer.config import TrainConfig
    from ddpo.trainer.state import TrainingState

    policy = load_policy("emoji", device="cpu")
    policy.adapt("lora", LoraSettings(rank=1, alpha=1))
    state = TrainingState(policy, TrainConfig(device="cpu"), ALONE)
    tensors = state.tensors()
    state.load(tensors, {})
    first = next(name for name in tensors if name.startswith("policy."))
    shape = tensors[first].shape
    moment = {"optimizer.0.step": torch.tensor(1.0)}
    for change, message in (
        ({first: torch.ones(3, 3)}, "of the shape"),
        ({first: torch.full(shape, torch.nan)}, "NaN or infinite"),
        ({"loss_scale": torch.ones(3)}, "loss_scale"),
        ({"loss_scale": torch.tensor([-1.0, 0.0])}, "loss_scale"),
        ({"optimizer.99999.step": torch.tensor(1.0)}, "it has"),
        ({"optimizer.x": torch.tensor(1.0)}, "it has"),
        (moment | {"optimizer.1.exp_avg": torch.tensor(1.0)}, "moments"),
        (moment | {"optimizer.0.exp_avg": torch.ones(7)}, "another shape"),
    ):
        with pytest.raises(CheckpointError, match=message):
            state.load(tensors | change, {})
    with pytest.raises(CheckpointError, match="is missing"):
        state.load({name: one for name, one in tensors.items() if name != first}, {})
