"""A run resumes after a power cut at any moment, and lacks no iteration that was reported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from crash_states import SyncLog, state_after_cut
from test_resume import assert_same_run, config_of

from ddpo.errors import RunExistsError
from ddpo.io.tensors import load_tensors
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.trainer.loop import resume, train
from ddpo.trainer.monitoring.events import Checkpointed, IterationDone, Started
from ddpo.trainer.run.folder import RunFolder

RESUMED = 2  # of the states; each takes some seconds


def test_a_run_resumes_from_every_state_that_a_power_cut_may_leave(
    tiny_model: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_model, iterations=3, checkpoint_every=1, checkpoint_keep=2)
    root = tmp_path / "disk"
    root.mkdir()
    started = False
    done = 0
    checkpoints = 0
    reported: list[tuple[bool, int, int]] = []

    def cut(number: int) -> None:
        reported.append((started, done, checkpoints))
        state_after_cut(log, tmp_path / f"state{number}", seed=number)

    with SyncLog(root, before_call=cut) as log:
        for event in train(config, root / "run"):
            started = started or isinstance(event, Started)
            done += isinstance(event, IterationDone)
            checkpoints += isinstance(event, Checkpointed)
    log.close()
    assert done == 3
    assert len(reported) > 30

    resumable = []
    for number, (was_started, was_done, was_checkpointed) in enumerate(reported):
        run = tmp_path / f"state{number}" / "run"
        if not (run / "config.json").exists():
            assert not was_started
            RunFolder.check_new(run)  # the command can be repeated
            continue
        opened = RunFolder.open(run)
        assert opened.config() == config
        assert opened.manifest()["prompts"]
        assert opened.load_state()[0] >= was_done
        if was_checkpointed:
            info = find_checkpoint(run)
            assert info.iteration >= was_checkpointed
        for file in (run / "checkpoints").glob("iteration-*/*.safetensors"):
            load_tensors(file)
        resumable.append(run)
    assert len(resumable) > 20
    for run in resumable[:: len(resumable) // RESUMED]:
        for _ in resume(run):
            pass
        assert_same_run(root / "run", run)


@pytest.mark.parametrize("left", ["manifest.json", ".config.json.123.tmp"])
def test_a_run_starts_where_another_was_cut_off_before_it_had_its_settings(
    left: str, tmp_path: Path
) -> None:
    (tmp_path / left).write_text("{")
    RunFolder.check_new(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "iteration-000000.png").touch()
    RunFolder.check_new(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}")  # an iteration was finished
    with pytest.raises(RunExistsError, match="already holds a run"):
        RunFolder.check_new(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="something else"):
        RunFolder.check_new(tmp_path)
