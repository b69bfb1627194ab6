"""A run on a pretended GPU: all tensors meet on one device, and the host waits in no step or call.

The device is registered with torch for a whole process, so the scenarios run in one of their own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pretended_gpu_worker import FAULTS, POLICIES

from tests.warm_start import run_program


@pytest.fixture(scope="module")
def outcomes(
    tiny_model: Path, tiny_xl: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The error of each scenario, empty without one."""
    out = tmp_path_factory.mktemp("pretended") / "outcomes.json"
    worker = Path(__file__).with_name("pretended_gpu_worker.py")
    done = run_program(worker, tiny_model, tiny_xl, out)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(out.read_text())
    return found


@pytest.mark.parametrize("settings", POLICIES, ids=lambda settings: " ".join(map(str, settings)))
def test_sampling_and_training_calls_do_not_wait_and_mix_no_devices(
    outcomes: dict[str, str], settings: tuple[str, ...]
) -> None:
    assert outcomes[" ".join(map(str, settings))] == ""


@pytest.mark.parametrize("part", ["sampling", "update"])
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(outcomes: dict[str, str], fault: str, part: str) -> None:
    assert FAULTS[fault][1] in outcomes[f"{fault} in {part}"]
