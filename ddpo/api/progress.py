"""Progress of trainings and evaluations as lines, for `progress=True` and for logs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpo.eval.stages.progress import EvalProgress
    from ddpo.trainer.monitoring.events import Event, IterationDone

__all__ = ["EvaluationLines", "iteration_line", "show_iteration"]


def show_iteration(event: Event) -> None:
    """Prints one line for a finished iteration."""
    from ddpo.trainer.monitoring.events import IterationDone

    if isinstance(event, IterationDone):
        _show(iteration_line(event))


def iteration_line(event: IterationDone) -> str:
    """One line about a finished iteration, for `observe` of notebooks and for logs."""
    metrics = event.metrics
    spread = "" if metrics.reward_se is None else f" ± {metrics.reward_se:.2g}"
    reward = f"reward {metrics.reward_mean:.4g}{spread}"
    return f"iteration {metrics.iteration}: {reward}, {metrics.seconds:.0f} s"


class EvaluationLines:
    """Prints one line for each model that is sampled and each reward that scores."""

    def __init__(self) -> None:
        self._last: tuple[str, str] | None = None

    def __call__(self, event: EvalProgress) -> None:
        """Prints a line if the event is the first of its stage and subject."""
        if (event.stage, event.what) != self._last:
            self._last = (event.stage, event.what)
            _show(f"{event.stage} {event.what}".rstrip())


def _show(line: str) -> None:
    """Writes a line where `print` would: in a notebook under the cell."""
    stream: Any = sys.stdout
    if stream is None:  # as under pythonw, which has no console
        return
    try:
        stream.write(f"{line}\n")
    except UnicodeEncodeError:
        stream.write(f"{line.encode('ascii', 'replace').decode('ascii')}\n")
    stream.flush()
