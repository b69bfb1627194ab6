"""The display of a run: live on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ddpo.cli.training_display import TrainingDisplay, ratio_text, sparkline, steps_text
from ddpo.trainer.monitoring.events import (
    Checked,
    Finding,
    GridSaved,
    IterationDone,
    Metrics,
    Progress,
    Started,
    StepStats,
)

METRICS = Metrics(
    iteration=1,
    reward_queries=96,
    reward_mean=-1.5,
    reward_se=0.125,
    unscorable=2,
    unscorable_reason=None,
    reward_parts={},
    zero_spread=0,
    loss=0.1,
    ratio_mean_deviation=1.5e-3,
    ratio_first_deviation=0.0,
    clip_fraction=0.25,
    approx_kl=3e-6,
    reference_kl=None,
    by_step=[StepStats(0, 1e-4, 0.0), StepStats(4, 4e-3, 0.5), StepStats(8, 2e-3, 0.25)],
    grad_norm=2.0,
    updates=4,
    seconds=4.0,
    seconds_sampling=3.0,
    seconds_training=1.0,
)
DONE = IterationDone(METRICS, ("a cat", -2.0), ("a dog", -1.0), memory=1_500_000_000)


def shown(terminal: bool, *events: object, folder: Path = Path("run")) -> str:
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=120,
        color_system=None,
        legacy_windows=False,
    )
    display = TrainingDisplay(folder, console)
    for event in events:
        display.show(event)  # type: ignore[arg-type]
    if terminal:
        console.print(display.view())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_lines_where_there_is_no_terminal() -> None:
    findings = Checked([Finding("ratio", "1"), Finding("reward", "flat", good=False)])
    output = shown(
        False,
        Started(0, 4, "what"),
        findings,
        DONE,
        IterationDone(replace(METRICS, held_out=7.0), *DONE_ENDS),
    )
    lines = output.splitlines()
    assert lines[:3] == ["what", "  ratio      1", "! reward     flat"]
    assert lines[3].startswith(
        "iteration 1/4  reward -1.5000 ± 0.1250  |ratio-1| 1.5e-03, clipped 25%  KL 3.0e-06  "
        "grad 2.000  24.0 images/s  0 s left"
    )
    assert lines[3].endswith("2 unscorable")
    assert "held out 7.0000" in lines[4]


def test_an_iteration_of_which_most_is_unscorable_is_warned_of() -> None:
    for terminal in (False, True):
        half, most = (
            replace(METRICS, unscorable=count, unscorable_reason="no text found")
            for count in (48, 49)
        )
        assert "! " not in shown(terminal, Started(0, 4, "what"), IterationDone(half, *DONE_ENDS))
        output = shown(terminal, Started(0, 4, "what"), IterationDone(most, *DONE_ENDS))
        assert "! iteration 1: 49 of 96 images are unscorable; the first: no text found" in output


DONE_ENDS = (DONE.worst, DONE.best)


def test_a_terminal_shows_all_of_the_iteration() -> None:
    output = shown(
        True,
        Started(0, 4, "what"),
        Progress("sampling", 32, 96),
        DONE,
        GridSaved(Path("run/samples/x.png")),
    )
    for text in (
        "-1.5000 ± 0.1250",
        "worst a cat -2.000, best a dog -1.000",
        "|ratio-1| 1.5e-03, clipped 25%",
        "▁█▄  |ratio-1| up to 4.0e-03 at step 4 of 0 … 8",
        "▁█▄  clipped up to 50% at step 4",
        "3.0e-06 from the policy that sampled",
        "norm 2.000 over 4 updates",
        "24.0 images/s (3.0 s sampling, 1.0 s training)",
        "96 images scored, 2 unscorable",
        "1.5 GB at its peak",
        "run/samples/x.png",
        "1/4",
        "32/96",
        "0 s left",
    ):
        assert text in output
    assert "held out" not in output


def test_a_method_without_ratios_has_no_such_rows() -> None:
    plain = replace(
        METRICS, ratio_mean_deviation=None, clip_fraction=None, approx_kl=None, by_step=[]
    )
    assert steps_text(plain) == ("", "")
    output = shown(True, Started(0, 4, "what"), replace(DONE, metrics=plain))
    assert "denoising loss 0.1000" in output
    assert "by step" not in output
    assert "KL" not in output


def test_one_update_per_rollout_has_no_ratios_by_step() -> None:
    one = replace(
        METRICS, ratio_mean_deviation=0.0, clip_fraction=0.0, by_step=[StepStats(0, 0.0, 0.0)]
    )
    output = shown(True, Started(0, 4, "what"), replace(DONE, metrics=one))
    assert "|ratio-1| 0.0e+00, clipped 0%" in output
    assert "by step" not in output


def test_a_resumed_run_continues_its_curve(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"reward_mean": value}) + "\n" for value in (0.0, 1.0, 7.0))
    )
    display = TrainingDisplay(tmp_path, Console(file=io.StringIO()))
    display.show(Started(3, 4, "what"))
    display.show(replace(DONE, metrics=replace(METRICS, iteration=4, reward_mean=3.5)))
    assert sparkline(display.rewards) == "▁▂█▄"


def test_a_clip_fraction_that_is_too_high_is_shown_beside_those_that_do() -> None:
    for share, text in (
        (0.05, "5%"),
        (0.3, "30%"),
        (0.6, "60% (10 % to 30 %"),
    ):
        shown = ratio_text(replace(METRICS, clip_fraction=share))
        assert f"clipped {text}" in shown
        assert ("works" in shown) == (share > 0.3)
    assert "works" not in ratio_text(replace(METRICS, clip_fraction=0.0, ratio_mean_deviation=0.0))
