"""The data of `ddpo view`: what a reader of run folders may see, also while they are written."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from run_folders import COLOURS, line, make_run

from ddpo.errors import CheckpointError, ConfigError, TrainingDiverged, UserError
from ddpo.io.lock import LOCK_FILE, owned
from ddpo.trainer.run.divergence import forget_divergence, note_divergence
from ddpo.view.app import Viewer
from ddpo.view.grids import Thumbnails
from ddpo.view.metrics_tail import MetricsTail
from ddpo.view.run_index import RunIndex, RunPlace
from ddpo.view.series import Series
from ddpo.view.viewed_run import ViewedRun

OLD_REPORT = Path(__file__).parents[1] / "fixtures_of_old_versions/d399994/evaluation"


def viewed(path: Path) -> ViewedRun:
    return ViewedRun(RunPlace("key", path.name, path.resolve()))


def test_a_long_series_stays_short_and_ends_with_its_last_point() -> None:
    series = Series(most=16)
    for at in range(1, 10_001):
        series.add(at, at * 2.0)
    points = series.points(8)
    assert len(points) <= 9
    assert points[0] == (1, 2.0)
    assert points[-1] == (10_000, 20_000.0)
    assert all(value == 2 * at for at, value in points)


def test_what_is_no_number_is_no_point() -> None:
    series = Series()
    for value in (None, float("nan"), float("inf"), True, "3"):
        series.add(1, value)
    assert series.points(5) == []


def test_metrics_are_read_on_and_a_half_written_line_waits(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", iterations=2)
    tail = MetricsTail(run)
    tail.read_on()
    assert tail.curves["reward_mean"].points(9) == [(1, 1.0), (2, 2.0)]
    whole = line(3, 7.0)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(whole[:20])
    tail.read_on()
    assert tail.done == 2
    assert tail.damaged == 0
    with (run / "metrics.jsonl").open("a") as file:
        file.write(whole[20:] + "no JSON\n" + line(4, 8.0))
    tail.read_on()
    assert tail.curves["reward_mean"].points(9) == [(1, 1.0), (2, 2.0), (3, 7.0), (4, 8.0)]
    assert tail.damaged == 1


def test_metrics_that_were_cut_at_a_resume_are_read_from_the_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", iterations=5)
    tail = MetricsTail(run)
    tail.read_on()
    lines = [line(1, 1.0), line(2, 9.0), line(3, 9.5), line(4, 9.6), line(5, 9.7), line(6, 9.8)]
    (run / "metrics.jsonl").write_text("".join(lines))
    tail.read_on()
    assert tail.curves["reward_mean"].points(9)[1] == (2, 9.0)
    assert tail.done == 6
    (run / "metrics.jsonl").unlink()
    tail.read_on()
    assert tail.done == 0


def test_the_states_of_runs(tmp_path: Path) -> None:
    finished = make_run(tmp_path / "finished")
    stopped = make_run(tmp_path / "stopped", planned=9)
    diverged = make_run(tmp_path / "diverged", planned=9)
    note_divergence(diverged, TrainingDiverged("the loss is not finite"))
    assert viewed(finished).row()["state"] == "finished"
    assert viewed(stopped).row()["state"] == "stopped"
    page = viewed(diverged).page()
    assert page["state"] == "diverged"
    assert page["findings"] == [(3, "The training diverged: the loss is not finite")]
    forget_divergence(diverged)
    assert viewed(diverged).row()["state"] == "stopped"
    with owned(stopped / LOCK_FILE, stopped, "ddpo train", "wait"):
        before = (stopped / LOCK_FILE).read_bytes()
        assert viewed(stopped).row()["state"] == "training"
        assert (stopped / LOCK_FILE).read_bytes() == before


def test_a_lock_of_a_dead_process_is_no_training(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", planned=9)
    code = (
        "import os; from pathlib import Path; from ddpo.io.lock import Ownership\n"
        f"run = Path({str(run)!r})\n"
        "owner = Ownership(run / '.lock', run, 'ddpo train', 'wait'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (run / LOCK_FILE).exists()
    assert viewed(run).row()["state"] == "stopped"


def test_a_run_that_finished_nothing_gets_no_note_of_divergence(tmp_path: Path) -> None:
    note_divergence(tmp_path, TrainingDiverged("a ratio is not 1"))
    assert list(tmp_path.iterdir()) == []


def test_each_image_of_a_grid_is_cut_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shutil.copy(run / "samples" / "iteration-000003.png", tmp_path / "run.png")
    thumbnails = Thumbnails()
    for cell, colour in enumerate(COLOURS):
        data = thumbnails.cell(run, "iteration-000003.png", 3, cell, 128)
        image = Image.open(io.BytesIO(data))
        assert image.size == (16, 16)
        assert {found for _, found in image.getcolors() or ()} == {colour}
    preview = Image.open(io.BytesIO(thumbnails.preview(run, "iteration-000003.png", 3)))
    assert preview.size == (3 * 16 + 2 * 2, 16)
    with pytest.raises(ConfigError, match="no image 6"):
        thumbnails.cell(run, "iteration-000003.png", 3, 6, 128)
    with pytest.raises(ConfigError, match="no image grid"):
        thumbnails.cell(run, "../../run.png", 3, 0, 128)


def test_nothing_outside_a_hostile_run_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    make_run(secret)
    run = make_run(tmp_path / "runs" / "run")
    grid = run / "samples" / "iteration-000003.png"
    grid.unlink()
    grid.symlink_to(secret / "samples" / "iteration-000003.png")
    for name in ("metrics.jsonl", "manifest.json"):
        (run / name).unlink()
        (run / name).symlink_to(secret / name)
    (run / "eval").symlink_to(OLD_REPORT.parent)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(secret / "samples")
    (tmp_path / "runs" / "linked").symlink_to(secret)
    index = RunIndex([tmp_path / "runs"])
    assert [place.name for place in index.runs()] == ["run"]
    viewer = Viewer(index)
    page = viewer.run(index.runs()[0].key).page()
    assert page["done"] == 0
    assert page["prompts"] == page["checkpoints"] == page["evaluations"] == []
    with pytest.raises(UserError):
        viewer.image(page["key"], 3, "0", 128)


def test_damaged_and_endless_files_do_not_stop_the_overview(tmp_path: Path) -> None:
    run = make_run(tmp_path / "damaged")
    (run / "config.json").write_text("{")
    pipe = make_run(tmp_path / "pipe")
    (pipe / "metrics.jsonl").unlink()
    os.mkfifo(pipe / "metrics.jsonl")
    (pipe / "samples" / "iteration-000007.png").write_bytes(b"no image")
    wide = make_run(tmp_path / "wide")
    with (wide / "metrics.jsonl").open("ab") as file:
        file.write(b"x" * (20 << 20) + b"\n")
    make_run(tmp_path / "sound")
    rows: dict[str, dict[str, object]] = {}
    viewer = Viewer(RunIndex([tmp_path]))
    for _ in range(5):
        answer = viewer.overview()
        rows = {row["name"]: row for row in answer["runs"]}
        if answer["complete"]:
            break
    assert answer["complete"]
    assert "damaged" in str(rows["damaged"]["fault"])
    assert rows["pipe"]["done"] == 0
    assert rows["wide"]["done"] == rows["sound"]["done"] == 3
    with pytest.raises(UserError):
        viewer.image(str(rows["pipe"]["key"]), 7, "0", 128)


def test_an_evaluation_gives_its_grade(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shutil.copytree(OLD_REPORT, run / "eval" / "iteration-000003")
    (run / "eval" / "broken").mkdir()
    (run / "eval" / "broken" / "report.json").write_text("{}")
    grade = json.loads((OLD_REPORT / "report.json").read_text())["readings"][-1]["grade"]
    found = {one["name"]: one for one in viewed(run).page()["evaluations"]}
    assert found["iteration-000003"]["grade"] == grade
    assert "schema version" in found["broken"]["text"]


def test_findings_name_their_iteration(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    lines = [
        line(1, 1.0, held_out=3.0, unscorable=2, unscorable_reason="no face"),
        line(2, 2.0, held_out=5.0, clip_fraction=0.75),
        line(3, 3.0, held_out=4.0, clip_fraction=0.75, zero_spread=4),
    ]
    (run / "metrics.jsonl").write_text("".join(lines))
    found = viewed(run).page()["findings"]
    assert [iteration for iteration, _ in found] == [1, 2, 3, 3]
    assert "no face" in found[0][1]
    assert "highest here, 5; it is 4 at iteration 3" in found[1][1]
    assert "4 of 8 images" in found[2][1]
    assert "75 %" in found[3][1]


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        RunIndex([tmp_path / "none"]).check()
