"""A live view of a training run on a terminal, and plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ddpo.cli.console import new_console
from ddpo.io.closing import ClosedOnExit
from ddpo.io.fields import Fields, Maybe
from ddpo.io.json_files import json_lines
from ddpo.text import byte_size, count, duration
from ddpo.trainer.monitoring import events
from ddpo.trainer.monitoring.clip_fraction import beside_usual

CURVE: Final[Fields] = {"reward_mean": float, "held_out": Maybe(float)}
"""Fields of a line of `metrics.jsonl` that are shown."""
BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """The last `width` values as bars between their own least and greatest.

    A value that is NaN or infinite is a gap.
    """
    shown = [value / 2 for value in list(values)[-width:]]  # no difference of halves overflows
    known = [value for value in shown if math.isfinite(value)]
    low = min(known, default=0.0)
    span = (max(known, default=0.0) - low) or 1.0
    return "".join(
        BARS[int((value - low) / span * (len(BARS) - 1))] if math.isfinite(value) else " "
        for value in shown
    )


def reward_text(metrics: events.Metrics) -> str:
    """The mean reward and, if it is known, its standard error."""
    error = "" if metrics.reward_se is None else f" ± {metrics.reward_se:.4f}"
    return f"{metrics.reward_mean:.4f}{error}"


def ratio_text(metrics: events.Metrics) -> str:
    """The deviation of the importance ratio from 1; the loss for a method without ratios."""
    if metrics.ratio_mean_deviation is not None:
        share = metrics.clip_fraction or 0.0
        usual = beside_usual(share) if metrics.ratio_mean_deviation else ""
        beside = f" ({usual})" if usual else ""
        return f"|ratio-1| {metrics.ratio_mean_deviation:.1e}, clipped {share:.0%}{beside}"
    if metrics.updates:
        return f"none in this method; denoising loss {metrics.loss:.4f}"
    return "no update"


def kl_text(metrics: events.Metrics) -> str:
    """The KL divergence of this iteration and, if measured, from the reference policy."""
    if metrics.approx_kl is None:
        return ""
    text = f"{metrics.approx_kl:.1e} from the policy that sampled"
    if metrics.reference_kl is not None:
        text += f", {metrics.reference_kl:.1e} from the reference policy"
    return text


def steps_text(metrics: events.Metrics) -> tuple[str, str]:
    """|ratio - 1| and the clipped share by trained denoising step, as bars with their maximum.

    The bars start at 0, and the noisiest step comes first. Both texts are empty after one update,
    where the ratio is 1 at every step.
    """
    if not metrics.by_step or not metrics.ratio_mean_deviation:
        return "", ""
    steps = [step.step for step in metrics.by_step]
    ratios = [step.ratio_deviation for step in metrics.by_step]
    clipped = [step.clip_fraction for step in metrics.by_step]
    largest = max(range(len(steps)), key=ratios.__getitem__)
    most_clipped = max(range(len(steps)), key=clipped.__getitem__)
    return (
        f"{_from_zero(ratios)}  |ratio-1| up to {ratios[largest]:.1e} at step {steps[largest]} "
        f"of {steps[0]} … {steps[-1]}",
        f"{_from_zero(clipped)}  clipped up to {clipped[most_clipped]:.0%} "
        f"at step {steps[most_clipped]}",
    )


def unscorable_text(metrics: events.Metrics) -> str:
    """A warning if more than half of the images of an iteration have no score; else empty."""
    images = metrics.reward_queries // metrics.iteration
    if 2 * metrics.unscorable <= images:
        return ""
    return (
        f"iteration {metrics.iteration}: {metrics.unscorable} of {images} images are unscorable; "
        f"the first: {metrics.unscorable_reason}"
    )


def _from_zero(values: Sequence[float]) -> str:
    return sparkline([0.0, *values], len(values) + 1)[1:]


class TrainingDisplay(ClosedOnExit):
    """Shows the events of a run, as a context manager.

    Args:
        folder: Run folder, whose metrics of earlier iterations are part of the curve.
        console: Console to print on; None: standard output.
    """

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self.folder = folder
        self.console = console or new_console()
        self.rewards: list[float] = []
        self.held_out: list[float] = []
        self.last: events.IterationDone | None = None
        self.grid: Path | None = None
        self.start_time = time.perf_counter()
        self.resumed = 0
        self.total = 0
        columns = (
            TextColumn("{task.description:9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bars = Progress(*columns, console=self.console)
        self.run_bar = self.bars.add_task("run", total=None, left="")
        self.part_bar = self.bars.add_task("loading", total=None, left="")
        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = Live(get_renderable=self.view, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def close(self) -> None:
        """Ends the live view."""
        if self.live:
            self.live.stop()

    def show(self, event: events.Event) -> None:
        """Shows one event."""
        if isinstance(event, events.Started):
            self._start(event)
        elif isinstance(event, events.Checked):
            self._print_findings(event)
        elif isinstance(event, events.Progress):
            if event.stage != self.bars.tasks[self.part_bar].description:
                self.bars.reset(self.part_bar)
            self.bars.update(
                self.part_bar, description=event.stage, total=event.total, completed=event.done
            )
        elif isinstance(event, events.IterationDone):
            self._finish_iteration(event)
        elif isinstance(event, events.GridSaved):
            self.grid = event.path
        elif isinstance(event, events.Stopped):
            text = f"Stopped after iteration {event.iteration}: {event.reason}."
            self.console.print(Text(text), soft_wrap=True)

    def _start(self, event: events.Started) -> None:
        self.start_time = time.perf_counter()
        self.resumed = event.iteration
        self.total = event.total
        self.console.print(event.summary, highlight=False, soft_wrap=True)
        if event.iteration:
            self.console.print(f"resumed after iteration {event.iteration}", highlight=False)
            self._read_curve()
        self.bars.update(self.run_bar, total=event.total, completed=event.iteration)

    def _read_curve(self) -> None:
        """Adds the rewards of the run folder's earlier iterations."""
        for line in json_lines(self.folder / "metrics.jsonl", CURVE):
            if line.record is not None:
                self._remember(line.record["reward_mean"], line.record.get("held_out"))

    def _print_findings(self, event: events.Checked) -> None:
        for finding in event.findings:
            text = f"{finding.topic:10} {finding.text}"
            line = Text(f"! {text}", style="yellow")
            if finding.good:
                line = Text(f"  {text}", style="dim")
            self.console.print(line, soft_wrap=True)

    def _finish_iteration(self, event: events.IterationDone) -> None:
        metrics = event.metrics
        self.last = event
        self._remember(metrics.reward_mean, metrics.held_out)
        left = self._left(metrics.iteration)
        self.bars.update(self.run_bar, completed=metrics.iteration, left=left)
        if warning := unscorable_text(metrics):
            self.console.print(Text(f"! {warning}", style="yellow"), soft_wrap=True)
        if not self.live:
            self.console.print(self._line(event), highlight=False, soft_wrap=True)

    def _remember(self, reward: float, held_out: float | None) -> None:
        self.rewards.append(reward)
        if held_out is not None:
            self.held_out.append(held_out)

    def view(self) -> RenderableType:
        """The table of the last iteration above the progress bars."""
        if self.last is None:
            return self.bars
        table = Table.grid(padding=(0, 2))
        for name, text in self._rows(self.last):
            if text:
                table.add_row(Text(name, style="dim"), Text(text))
        return Group(table, self.bars)

    def _rows(self, last: events.IterationDone) -> list[tuple[str, str]]:
        """Names and values of the table; rows without a value are empty."""
        metrics = last.metrics
        ratios, clipped = steps_text(metrics)
        held_out = ""
        if self.held_out:
            held_out = f"{self.held_out[-1]:.4f}   {sparkline(self.held_out)}"
        worst = f"worst {last.worst[0]} {last.worst[1]:.3f}"
        best = f"best {last.best[0]} {last.best[1]:.3f}"
        updates = count(metrics.updates, "update")
        times = (
            f"{metrics.seconds_sampling:.1f} s sampling, {metrics.seconds_training:.1f} s training"
        )
        queries = f"{metrics.reward_queries:,} images scored"
        return [
            ("reward", f"{reward_text(metrics)}   {sparkline(self.rewards)}"),
            ("held out", held_out),
            ("prompts", f"{worst}, {best}"),
            ("ratio", ratio_text(metrics)),
            ("by step", ratios),
            ("", clipped),
            ("KL", kl_text(metrics)),
            ("gradient", f"norm {metrics.grad_norm:.3f} over {updates}"),
            ("speed", f"{self._speed(metrics):.1f} images/s ({times})"),
            ("queries", f"{queries}, {metrics.unscorable} unscorable in this iteration"),
            ("memory", f"{byte_size(last.memory)} at its peak" if last.memory else ""),
            ("images", str(self.grid) if self.grid else ""),
        ]

    def _left(self, iteration: int) -> str:
        """The time to the end of the run at the mean speed since its start, all work included."""
        each = (time.perf_counter() - self.start_time) / (iteration - self.resumed)
        return f"{duration(each * (self.total - iteration))} left"

    @staticmethod
    def _speed(metrics: events.Metrics) -> float:
        """Images per second of this iteration."""
        return metrics.reward_queries / metrics.iteration / metrics.seconds

    def _line(self, event: events.IterationDone) -> str:
        """One line with the main values of an iteration."""
        metrics = event.metrics
        update = f"loss {metrics.loss:.4f}"
        if metrics.ratio_mean_deviation is not None:
            update = ratio_text(metrics)
        fields = [
            f"iteration {metrics.iteration}/{self.total}",
            f"reward {reward_text(metrics)}",
            "" if metrics.held_out is None else f"held out {metrics.held_out:.4f}",
            update,
            "" if metrics.approx_kl is None else f"KL {metrics.approx_kl:.1e}",
            f"grad {metrics.grad_norm:.3f}",
            f"{self._speed(metrics):.1f} images/s",
            self._left(metrics.iteration),
            f"{metrics.unscorable} unscorable" if metrics.unscorable else "",
        ]
        return "  ".join(field for field in fields if field)
