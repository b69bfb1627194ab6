"""Scorings and evaluations after a power cut, in states that POSIX allows."""

from __future__ import annotations

from pathlib import Path

import power_cuts
import pytest
from crash_states import SyncLog, state_after_cut

SEEDS = range(6)
STATES = 5  # within the work
NAMES = ("scoring", "evaluation", "sampling", "export")


@pytest.mark.parametrize("name", NAMES)
def test_what_was_reported_as_written_is_there_after_a_cut(name: str, tmp_path: Path) -> None:
    work, check = power_cuts.WORK[name]
    root = tmp_path / "disk"
    root.mkdir()
    power_cuts.prepare(name, root)
    reported: list[str] = []
    with SyncLog(root) as log:
        work(root, reported.append)
    for seed in SEEDS:
        state_after_cut(log, tmp_path / f"state{seed}", seed)
    log.close()
    assert reported == ["wrote"]
    assert log.syncs >= 3  # the table, its folder, and the folder that this is in
    for seed in SEEDS:
        assert check(tmp_path / f"state{seed}", reported) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_within_the_work_leaves_what_the_same_command_ends(name: str, tmp_path: Path) -> None:
    work, check = power_cuts.WORK[name]
    root = tmp_path / "disk"
    root.mkdir()
    power_cuts.prepare(name, root)

    def cut(number: int) -> None:
        state_after_cut(log, tmp_path / f"state{number}", seed=number)

    with SyncLog(root, before_call=cut) as log:
        work(root, lambda word: None)
    log.close()
    assert log.calls > STATES
    for number in range(0, log.calls, -(-log.calls // STATES)):
        assert check(tmp_path / f"state{number}", []) is None
