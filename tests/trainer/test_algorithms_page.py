"""The page of algorithms is true: its names, settings, numbers and commands."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddpo.policies.family import FAMILIES
from ddpo.policies.flow_schedule import FlowSchedule
from ddpo.trainer.algorithms import algorithms, load_algorithm
from ddpo.trainer.check import check_algorithm
from ddpo.trainer.settings import config_for

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]
SMALL = "--dry-run --set sample.samples=16 --set sample.batch=16 --device cpu"

Run = Callable[..., tuple[int, str, str]]


def own() -> set[str]:
    return {name for name in algorithms.names() if algorithms.origin(name) == "ddpo"}


def test_every_algorithm_is_in_the_table_and_has_a_source() -> None:
    first = PAGE.partition("| algorithm | loss of an item |")[2].partition("\n\n")[0]
    last = PAGE.partition("| algorithm | published in |")[2].partition("\n\n")[0]
    for table in (first, last):
        cells = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
        assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == own()


def test_the_table_of_settings_is_fresh() -> None:
    tools = runpy.run_path(str(ROOT / "tools" / "algorithms_table.py"))
    assert tools["with_table"](PAGE) == PAGE, "run: python tools/algorithms_table.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_start(
    command: str, ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, error = ddpo(*shlex.split(command)[1:], *shlex.split(SMALL))
    assert code == 0, error
    assert "b²/k² by step" in output


DIMENSIONS = {
    "emoji": 12 * 8 * 8,
    "emoji_scenes": 12 * 8 * 8,
    "emoji_flow": 12 * 8 * 8,
    "sd1": 4 * 64 * 64,
    "sd2": 4 * 96 * 96,
    "sdxl": 4 * 128 * 128,
    "sd3": 16 * 64 * 64,
    "flux1": 64 * 32 * 32,
    "flux2_klein": 128 * 24 * 24,
    "z_image": 16 * 64 * 64,
}
"""Latent dimensions of the images of each family's recipe."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_settings_of_each_algorithm_and_family_fit(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges are for the latent dimensions of the family; 65,536 are those of the sources."""
    monkeypatch.setattr("ddpo.trainer.settings.family_of", lambda model: family)
    dimensions = DIMENSIONS[family]
    for name in own():
        config = config_for({"algorithm": name})
        load_algorithm(name)[0].check(config)
        if name == "grpo_guard":
            assert config.optim.clip_range == pytest.approx(2e-6 * 65_536 / dimensions, rel=0.02)
        if name == "flow_dppo":
            assert config.optim.divergence == pytest.approx(1e-5 * 65_536 / dimensions, rel=0.03)


def deviation_at_the_end(schedule: FlowSchedule, eta: float, steps: int) -> float:
    """Standard deviation after all steps of the exact flow of N(1, 0.5²), by its moments.

    The velocity of a Gaussian is linear in x, so every step keeps the distribution Gaussian.
    """
    table = schedule.coefficients(steps, eta)
    sigma = schedule.sigmas(steps)
    variance = torch.ones((), dtype=torch.float64)
    for step in range(steps):
        t = sigma[step]
        spread = (1 - t) ** 2 * 0.25 + t**2
        slope = (t - 0.25 * (1 - t)) / spread
        factor = table.a[step].double() + table.b[step].double() * slope
        variance = factor**2 * variance + table.noise_std[step].double() ** 2
    return float(variance.sqrt())


def test_the_spread_with_and_without_noise_is_that_of_the_page() -> None:
    still = deviation_at_the_end(FlowSchedule(3.0, "diffusers", "ode"), 0.0, 10)
    noisy = deviation_at_the_end(FlowSchedule(3.0, "diffusers", "flow_sde"), 0.7, 10)
    assert (round(still, 2), round(noisy, 2)) == (0.36, 0.42)
    assert "deviation of 0.36 without noise and 0.42 with Flow-SDE at\n0.7" in PAGE


def test_the_weights_of_the_steps_are_those_of_the_page() -> None:
    table = FlowSchedule(3.0, "diffusers", "flow_sde").coefficients(10, 0.7)
    weights = (table.b / table.std).square()
    assert (f"{weights[0]:.3f}", f"{weights[-1]:.0f}") == ("0.003", "3")
    assert "On Stable Diffusion 3 it grows from 0.003 to 3." in PAGE


def test_the_loss_on_items_of_the_guide_passes_the_checks(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "writing-an-algorithm.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(# my_even.py\n.*?)```", guide, re.DOTALL)
    (tmp_path / "my_even.py").write_text(source)
    assert [one for one in check_algorithm(f"{tmp_path}/my_even.py:Even") if not one.ok] == []
