"""The live picture of a training run on a terminal; plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ddpo.trainer import events

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """The last `width` values as bars between their own least and greatest."""
    shown = list(values)[-width:]
    low, high = min(shown), max(shown)
    return "".join(BARS[int((v - low) / (high - low) * (len(BARS) - 1))] if high > low else BARS[0] for v in shown)


def reward_text(metrics: events.Metrics) -> str:
    """The mean reward and, if it is known, its standard error."""
    return f"{metrics.reward_mean:.4f}" + ("" if metrics.reward_se is None else f" ± {metrics.reward_se:.4f}")


def ratio_text(metrics: events.Metrics) -> str:
    """How far the updates took the policy; the loss for a method without ratios."""
    if metrics.ratio_mean_deviation is None:
        return f"denoising loss {metrics.loss:.4f}"
    kl = "" if metrics.reference_kl is None else f", KL to reference {metrics.reference_kl:.1e}"
    return f"|ratio-1| {metrics.ratio_mean_deviation:.1e}, clipped {metrics.clip_fraction:.0%}, KL {metrics.approx_kl:.1e}{kl}"


def steps_text(metrics: events.Metrics) -> str:
    """The share of clipped items of each trained denoising step, noise first."""
    return "clipped " + " ".join(f"{step.clip_fraction:.0%}" for step in metrics.by_step) if metrics.by_step else "none"


class TrainingDisplay:
    """Draws the events of a run. Use as a context manager."""

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self.folder = folder
        self.console = console or Console()
        self.rewards: list[float] = []
        self.last: events.IterationDone | None = None
        self.grid: Path | None = None
        self.begun = time.perf_counter()
        self.total = 0
        columns = (
            TextColumn("{task.description:9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bars = Progress(*columns, console=self.console)
        self.run_bar = self.bars.add_task("run", total=None)
        self.part_bar = self.bars.add_task("sampling", total=None)
        self.live = Live(get_renderable=self.picture, console=self.console, refresh_per_second=4) if self.console.is_terminal else None

    def __enter__(self) -> TrainingDisplay:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def show(self, event: events.Event) -> None:
        """Takes one event."""
        if isinstance(event, events.Started):
            self.total = event.total
            self.console.print(event.summary, highlight=False, soft_wrap=True)
            if event.iteration:
                self.console.print(f"resumed after iteration {event.iteration}", highlight=False)
            self.bars.update(self.run_bar, total=event.total, completed=event.iteration)
        elif isinstance(event, events.Progress):
            self.bars.update(self.part_bar, description=event.stage, total=event.total, completed=event.done)
        elif isinstance(event, events.IterationDone):
            self.last = event
            self.rewards.append(event.metrics.reward_mean)
            self.bars.update(self.run_bar, completed=event.metrics.iteration)
            if not self.live:
                self.console.print(self._line(event), highlight=False, soft_wrap=True)
        elif isinstance(event, events.GridSaved):
            self.grid = event.path

    def picture(self) -> RenderableType:
        """What the terminal shows now."""
        if self.last is None:
            return self.bars
        metrics, table = self.last.metrics, Table.grid(padding=(0, 2))
        rate = (metrics.reward_queries / metrics.iteration) / metrics.seconds
        rows = [
            ("reward", f"{reward_text(metrics)}   {sparkline(self.rewards)}"),
            ("prompts", f"worst {self.last.worst[0]} {self.last.worst[1]:.3f}, best {self.last.best[0]} {self.last.best[1]:.3f}"),
            ("ratio", ratio_text(metrics)),
            ("by step", steps_text(metrics)),
            ("gradient", f"norm {metrics.grad_norm:.3f} over {metrics.updates} updates"),
            ("speed", f"{rate:.1f} pictures/s ({metrics.seconds_sampling:.1f} s sampling, {metrics.seconds_training:.1f} s training)"),
            ("queries", f"{metrics.reward_queries:,} pictures scored, {metrics.unscorable} unscorable in this iteration"),
            ("pictures", str(self.grid)),
        ]
        for name, text in rows:
            table.add_row(Text(name, style="dim"), Text(text))
        return Group(table, self.bars)

    def _line(self, event: events.IterationDone) -> str:
        metrics = event.metrics
        spent = time.perf_counter() - self.begun
        left = spent / len(self.rewards) * (self.total - metrics.iteration)
        return (
            f"iteration {metrics.iteration}/{self.total}  reward {reward_text(metrics)}  "
            f"{ratio_text(metrics)}  grad {metrics.grad_norm:.3f}  "
            f"{metrics.reward_queries / metrics.iteration / metrics.seconds:.1f} pictures/s  {left / 60:.1f} min left"
        )
