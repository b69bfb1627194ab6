"""Two programs on one folder: the second is refused in one line that names the first."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ddpo.errors import CheckpointError, RunExistsError
from ddpo.io.lock import LOCK_FILE, owned, owned_file
from ddpo.io.reading import reading
from ddpo.policies.checkpoints.folder import POLICY_FILE
from ddpo.trainer.loop import resume
from ddpo.trainer.run.checkpoints import prune
from tests.warm_start import Process, start_ddpo

SLOW = """
import time
from pathlib import Path

def slow(images):
    while not Path("go").exists():
        time.sleep(0.02)
    return [0.5] * len(images)
"""


def wait_for(path: Path, process: Process) -> None:
    import time

    until = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def train_words(model: Path, out: Path) -> list[object]:
    sizes = ["sample.samples=4", "sample.per_prompt=2", "sample.steps=2", "sample.batch=2"]
    sizes += ["optim.updates=1", "optim.timesteps=1"]
    words: list[object] = ["train", "--model", model, "--reward", "darkness", "--out", out]
    return words + ["--iterations", "200"] + [word for size in sizes for word in ("--set", size)]


def test_a_run_that_is_trained_can_neither_be_resumed_nor_begun_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    first = start_ddpo(*train_words(tiny_model, tmp_path / "run"), cwd=tmp_path)
    try:
        wait_for(tmp_path / "run" / "metrics.jsonl", first)
        with pytest.raises(RunExistsError, match=f"in use by ddpo train, process {first.pid} on"):
            next(resume(tmp_path / "run"))
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    total = last["iteration"] + 1
    for _ in resume(tmp_path / "run", total):
        pass
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == list(range(1, total + 1))
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_two_scorings_into_one_table_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "images").mkdir()
    for number in range(24):
        Image.new("RGB", (8 + number, 8)).save(tmp_path / "images" / f"{number:02}.png")
    words = ["rewards", "score", "./slow.py:slow", "images", "--out", "table.csv"]
    first = start_ddpo(*words, "--batch-size", 1, cwd=tmp_path)
    wait_for(tmp_path / f".table.csv{LOCK_FILE}", first)
    second = start_ddpo(
        "rewards", "score", "darkness", "images", "--out", "table.csv", cwd=tmp_path
    )
    _, error = second.communicate(timeout=300)
    assert second.returncode == 2
    assert f"table.csv is in use by ddpo rewards score, process {first.pid} on" in error
    assert error.count("\n") == 1
    (tmp_path / "go").touch()
    _, error = first.communicate(timeout=300)
    assert first.returncode == 0, error
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 25
    assert sorted(path.name for path in tmp_path.glob(".table*")) == []


def test_two_evaluations_of_one_folder(tmp_path: Path) -> None:
    from ddpo.eval import evaluate

    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
        for level in range(4):
            image = Image.new("RGB", (8, 8), (level * 9 + len(name), 0, 0))
            image.save(tmp_path / name / f"{level}.png")
            (tmp_path / name / f"{level}.txt").write_text("a cat")
    place = tmp_path / "report"
    asked: dict[str, object] = {
        "images": tuple(f"{name}={tmp_path / name}" for name in ("base", "tuned")),
        "rewards": ("darkness",),
        "held_out": False,
        "out": place,
    }
    run: Callable[..., object] = evaluate
    with (
        owned(place / LOCK_FILE, place, "ddpo eval", "wait"),
        pytest.raises(
            RunExistsError, match=f"report is in use by ddpo eval, process {os.getpid()}"
        ),
    ):
        run(**asked)
    assert not list(place.iterdir())


def test_a_checkpoint_that_an_evaluation_reads_is_pruned_after_it(tmp_path: Path) -> None:
    for iteration in (1, 2, 3):
        folder = tmp_path / f"iteration-{iteration:06d}"
        folder.mkdir()
        (folder / POLICY_FILE).write_text("{}")
    with reading(tmp_path / "iteration-000001" / POLICY_FILE):
        prune(tmp_path, 1)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "iteration-000001",
            "iteration-000003",
        ]
    prune(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["iteration-000003"]


def test_a_run_is_trained_once_at_a_time_in_one_process_too(
    tiny_model: Path, tmp_path: Path
) -> None:
    from ddpo.trainer import config_for, train

    sizes = {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 2}
    config = config_for(
        {"model": str(tiny_model), "reward": "darkness", "iterations": 1, "sample": sizes}
    )
    events = train(config, tmp_path / "run")
    next(events)
    with pytest.raises(RunExistsError, match=f"in use by ddpo train, process {os.getpid()}"):
        next(resume(tmp_path / "run"))
    events.close()
    for _ in resume(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK_FILE).exists()
    (tmp_path / "run" / LOCK_FILE).symlink_to(tmp_path / "mine")
    with pytest.raises(CheckpointError, match="is a link out of its folder"):
        next(resume(tmp_path / "run", 2))
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["rewards", "calibrate", "darkness", "images", "--out", "o.json"], "o.json"),
        (["rewards", "compare", "darkness", "images", "--out", "o.json"], "o.json"),
        (["rewards", "compare", "darkness", "contrast", "images", "--no-edits"], "s.png"),
        (["rewards", "score", "darkness", "images", "--out", "o.parquet"], "o.parquet"),
        (["rewards", "score", "darkness", "images", "--contact-sheet", "s.png"], "s.png"),
        (["rewards", "new", "mine", "--out", "o"], "o"),
        (["doctor", "--out", "o"], "o.json"),
    ],
)
def test_every_output_has_one_owner(tmp_path: Path, words: list[str], out: str) -> None:
    (tmp_path / "images").mkdir()
    for number in range(4):
        image = Image.new("RGB", (8 + number, 8), (40 * number, 0, 0))
        image.save(tmp_path / "images" / f"{number}.png")
    if out == "s.png" and "compare" in words:
        words = [*words, "--contact-sheet", "s.png"]
    with owned_file(tmp_path / out, "ddpo of another user"):
        process = start_ddpo(*words, cwd=tmp_path)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 2, error
    assert f"{out} is in use by ddpo of another user, process {os.getpid()} on" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("by_link", [False, True])
def test_an_input_is_not_replaced_by_the_output(tmp_path: Path, by_link: bool) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    table = tmp_path / "images.csv"
    table.write_text("file_name,prompt\n0.png,a cat\n")
    if by_link:
        (tmp_path / "link.csv").symlink_to(table)
    out = "link.csv" if by_link else "images.csv"
    process = start_ddpo("rewards", "score", "darkness", "images.csv", "--out", out, cwd=tmp_path)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2
    assert error == f"error: {out} would replace an input of this command: choose another name\n"
    assert table.read_text() == "file_name,prompt\n0.png,a cat\n"


def test_a_checkpoint_that_is_exported_has_one_target_and_stays(
    tiny_model: Path, tmp_path: Path
) -> None:
    from ddpo.policies import load_policy
    from ddpo.policies.policy import LoraSettings
    from ddpo.trainer.run.export import export

    folder = tmp_path / "run" / "checkpoints" / "iteration-000001"
    folder.mkdir(parents=True)
    policy = load_policy(str(tiny_model))
    policy.adapt("lora", LoraSettings(rank=2, alpha=2))
    policy.save(folder, 1)
    with (
        owned_file(tmp_path / "to", "ddpo export", "--out"),
        pytest.raises(RunExistsError, match=r"to is in use by ddpo export.*another --out"),
    ):
        export(folder, tmp_path / "to")
    export(folder, tmp_path / "to")
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == [
        "README.md",
        "pytorch_lora_weights.safetensors",
    ]
    record = json.loads((folder / POLICY_FILE).read_text())
    record["adapter"]["alpha"] += 1
    (folder / POLICY_FILE).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"policy\.json is damaged: kind, iteration or adapt"):
        load_policy(str(tiny_model), folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "to"]


def test_a_checkpoint_that_was_moved_away_is_named_on_one_line(
    tiny_model: Path, tmp_path: Path
) -> None:
    from ddpo.policies import load_policy
    from ddpo.policies.checkpoints.folder import find_checkpoint
    from ddpo.policies.policy import LoraSettings

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    policy = load_policy(str(tiny_model))
    policy.adapt("lora", LoraSettings(rank=2, alpha=2))
    policy.save(folder, 1)
    info = find_checkpoint(folder)
    folder.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="checkpoint was just removed"):
        load_policy(str(tiny_model), info)
