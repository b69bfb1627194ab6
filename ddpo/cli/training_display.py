"""The live picture of a training run on a terminal; plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ddpo.text import byte_size, duration
from ddpo.trainer.monitoring import events

BARS = "▁▂▃▄▅▆▇█"
HOUR = 3600.0


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """The last `width` values as bars between their own least and greatest."""
    shown = list(values)[-width:]
    low, high = min(shown), max(shown)
    return "".join(
        BARS[int((v - low) / (high - low) * (len(BARS) - 1))] if high > low else BARS[0]
        for v in shown
    )


def reward_text(metrics: events.Metrics) -> str:
    """The mean reward and, if it is known, its standard error."""
    return f"{metrics.reward_mean:.4f}" + (
        "" if metrics.reward_se is None else f" ± {metrics.reward_se:.4f}"
    )


def ratio_text(metrics: events.Metrics) -> str:
    """How far the updates took the policy; the loss for a method without ratios."""
    if metrics.ratio_mean_deviation is None:
        return (
            f"none in this method; denoising loss {metrics.loss:.4f}"
            if metrics.updates
            else "no update"
        )
    return f"|ratio-1| {metrics.ratio_mean_deviation:.1e}, clipped {metrics.clip_fraction:.0%}"


def kl_text(metrics: events.Metrics) -> str:
    """How far the policy went in this iteration, and from its start if that is measured."""
    if metrics.approx_kl is None:
        return ""
    return f"{metrics.approx_kl:.1e} from the policy that sampled" + (
        ""
        if metrics.reference_kl is None
        else f", {metrics.reference_kl:.1e} from the reference policy"
    )


def steps_text(metrics: events.Metrics) -> tuple[str, str]:
    """|ratio - 1| and the share of clipped items of each trained denoising step, as bars from 0 up, noise first; and their largest."""
    if (
        not metrics.by_step or not metrics.ratio_mean_deviation
    ):  # with one update the ratio is 1 throughout
        return "", ""
    ratios, clipped = (
        [getattr(step, name) for step in metrics.by_step]
        for name in ("ratio_deviation", "clip_fraction")
    )
    steps = [step.step for step in metrics.by_step]
    most, often = max(ratios), max(clipped)
    return (
        f"{_from_zero(ratios)}  |ratio-1| up to {most:.1e} at step {steps[ratios.index(most)]} of {steps[0]} … {steps[-1]}",
        f"{_from_zero(clipped)}  clipped up to {often:.0%} at step {steps[clipped.index(often)]}",
    )


def unscorable_text(metrics: events.Metrics) -> str:
    """A warning if more than half of the pictures of an iteration have no score; else nothing."""
    pictures = metrics.reward_queries // metrics.iteration
    if 2 * metrics.unscorable <= pictures:
        return ""
    share = f"{metrics.unscorable} of {pictures} pictures"
    return f"iteration {metrics.iteration}: {share} are unscorable; the first: {metrics.unscorable_reason}"


def _from_zero(values: Sequence[float]) -> str:
    return sparkline([0.0, *values], len(values) + 1)[1:]


class TrainingDisplay:
    """Draws the events of a run. Use as a context manager.

    Args:
        folder: the run folder; what it holds of earlier iterations is in the curve too.
        console: where to draw; standard output if None.
    """

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self.folder = folder
        self.console = console or Console()
        self.rewards: list[float] = []
        self.held_out: list[float] = []
        self.last: events.IterationDone | None = None
        self.grid: Path | None = None
        self.begun, self.resumed, self.total = time.perf_counter(), 0, 0
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
        self.live = (
            Live(get_renderable=self.picture, console=self.console, refresh_per_second=4)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> TrainingDisplay:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.stop()

    def show(self, event: events.Event) -> None:
        """Takes one event."""
        if isinstance(event, events.Started):
            self._start(event)
        elif isinstance(event, events.Checked):
            for finding in event.findings:
                mark, style = ("  ", "dim") if finding.good else ("! ", "yellow")
                self.console.print(
                    Text(f"{mark}{finding.topic:10} {finding.text}", style=style), soft_wrap=True
                )
        elif isinstance(event, events.Progress):
            if event.stage != self.bars.tasks[self.part_bar].description:
                self.bars.reset(self.part_bar)
            self.bars.update(
                self.part_bar, description=event.stage, total=event.total, completed=event.done
            )
        elif isinstance(event, events.IterationDone):
            self.last = event
            self._remember(event.metrics.reward_mean, event.metrics.held_out)
            self.bars.update(
                self.run_bar,
                completed=event.metrics.iteration,
                left=self._left(event.metrics.iteration),
            )
            if warning := unscorable_text(event.metrics):
                self.console.print(Text(f"! {warning}", style="yellow"), soft_wrap=True)
            if not self.live:
                self.console.print(self._line(event), highlight=False, soft_wrap=True)
        elif isinstance(event, events.GridSaved):
            self.grid = event.path

    def _start(self, event: events.Started) -> None:
        self.total, self.resumed, self.begun = event.total, event.iteration, time.perf_counter()
        self.console.print(event.summary, highlight=False, soft_wrap=True)
        if event.iteration:
            self.console.print(f"resumed after iteration {event.iteration}", highlight=False)
            curve = self.folder / "metrics.jsonl"
            for line in curve.read_text(encoding="utf-8").splitlines() if curve.exists() else []:
                values = json.loads(line)
                self._remember(values["reward_mean"], values.get("held_out"))
        self.bars.update(self.run_bar, total=event.total, completed=event.iteration)

    def _remember(self, reward: float, held_out: float | None) -> None:
        self.rewards.append(reward)
        if held_out is not None:
            self.held_out.append(held_out)

    def picture(self) -> RenderableType:
        """What the terminal shows now."""
        if self.last is None:
            return self.bars
        metrics, table = self.last.metrics, Table.grid(padding=(0, 2))
        ratios, clipped = steps_text(metrics)
        rows = [
            ("reward", f"{reward_text(metrics)}   {sparkline(self.rewards)}"),
            (
                "held out",
                f"{self.held_out[-1]:.4f}   {sparkline(self.held_out)}" if self.held_out else "",
            ),
            (
                "prompts",
                f"worst {self.last.worst[0]} {self.last.worst[1]:.3f}, best {self.last.best[0]} {self.last.best[1]:.3f}",
            ),
            ("ratio", ratio_text(metrics)),
            ("by step", ratios),
            ("", clipped),
            ("KL", kl_text(metrics)),
            (
                "gradient",
                f"norm {metrics.grad_norm:.3f} over {metrics.updates} update{'s' * (metrics.updates != 1)}",
            ),
            (
                "speed",
                f"{self._speed(metrics):.1f} pictures/s ({metrics.seconds_sampling:.1f} s sampling, "
                f"{metrics.seconds_training:.1f} s training)",
            ),
            (
                "queries",
                f"{metrics.reward_queries:,} pictures scored, {metrics.unscorable} unscorable in this iteration",
            ),
            ("memory", f"{byte_size(self.last.memory)} at its peak" if self.last.memory else ""),
            ("pictures", str(self.grid) if self.grid else ""),
        ]
        for name, text in rows:
            if text:
                table.add_row(Text(name, style="dim"), Text(text))
        return Group(table, self.bars)

    def _left(self, iteration: int) -> str:
        """How long the rest of the run takes, checkpoints, grids and all, if it goes on as since its start."""
        each = (time.perf_counter() - self.begun) / (iteration - self.resumed)
        return f"{duration(each * (self.total - iteration))} left"

    @staticmethod
    def _speed(metrics: events.Metrics) -> float:
        """Pictures per second of this iteration."""
        return metrics.reward_queries / metrics.iteration / metrics.seconds

    def _line(self, event: events.IterationDone) -> str:
        metrics = event.metrics
        fields = [
            f"iteration {metrics.iteration}/{self.total}",
            f"reward {reward_text(metrics)}",
            "" if metrics.held_out is None else f"held out {metrics.held_out:.4f}",
            ratio_text(metrics)
            if metrics.ratio_mean_deviation is not None
            else f"loss {metrics.loss:.4f}",
            "" if metrics.approx_kl is None else f"KL {metrics.approx_kl:.1e}",
            f"grad {metrics.grad_norm:.3f}",
            f"{self._speed(metrics):.1f} pictures/s",
            self._left(metrics.iteration),
            f"{metrics.unscorable} unscorable" if metrics.unscorable else "",
        ]
        return "  ".join(field for field in fields if field)
