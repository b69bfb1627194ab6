"""Check that a stopped and resumed run equals an uninterrupted one."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ddpo.doctor.row import Outcome
from ddpo.doctor.workload import Workload, run_config
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.loop import resume, train
from ddpo.trainer.monitoring.events import IterationDone
from ddpo.trainer.run.folder import RunFolder

__all__ = ["deterministic_algorithms", "largest_difference", "resume_is_equal"]

STOP_AFTER: Final = 2  # iterations, of three


def resume_is_equal(model: str, device: str, work: Workload) -> Outcome:
    """The largest difference of the final states: weights, optimizer moments and loss scale.

    On a CPU the states must be equal to the bit. An accelerator may add in another order in every
    run, so there the difference is only reported.

    Args:
        model: Place of a policy factory.
        device: Torch device.
        work: Size of an iteration.
    """
    config = run_config(model, device, "float32", work, work.batches[0], iterations=STOP_AFTER + 1)
    with tempfile.TemporaryDirectory(prefix="ddpo-doctor-") as folder:
        whole = Path(folder) / "whole"
        resumed = Path(folder) / "resumed"
        for _ in train(config, whole):
            pass
        _train_until(config, resumed, STOP_AFTER)
        for _ in resume(resumed, trust=[model]):
            pass
        difference = largest_difference(_state(whole), _state(resumed))
    values = {"largest_difference": difference}
    if difference == 0:
        return Outcome("ok", values)
    if torch.device(device).type == "cpu" or difference != difference:
        return Outcome("failed", values, "on a CPU a resumed run must equal an uninterrupted one")
    return Outcome("measured", values, "not equal to the bit; judged on a CPU alone")


def _train_until(config: TrainConfig, out: Path, iteration: int) -> None:
    """Starts a run and abandons it after an iteration, as Ctrl-C does."""
    events = train(config, out)
    for event in events:
        if isinstance(event, IterationDone) and event.metrics.iteration == iteration:
            break
    events.close()


def _state(run: Path) -> dict[str, Tensor]:
    _, tensors, _ = RunFolder.open(run).load_state()
    return tensors


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest absolute difference of two states; NaN if their tensors differ or hold a NaN."""
    if not first or first.keys() != second.keys():
        return float("nan")
    pairs = [(first[name].double(), second[name].double()) for name in first]
    if any(one.shape != other.shape for one, other in pairs):
        return float("nan")
    differences = [(one - other).abs().max() for one, other in pairs if one.numel()]
    return float(torch.stack(differences).max()) if differences else 0.0


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """A block in which torch picks deterministic kernels where it has them.

    cuBLAS repeats its results without a setting of its own, since only one stream is in use.
    """
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
