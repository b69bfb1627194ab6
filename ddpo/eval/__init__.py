"""Paired comparison of tuned models with their base model: gains, generalisation, reward hacking.

from ddpo.eval import evaluate

report = evaluate(checkpoints=("runs/mine",), rewards=("colorfulness",), seeds=8)
for gain in report.gains:
    print(gain.model, gain.split, gain.reward, gain.paired.gain)

`plan.plan` decides what is compared. `runner.run_evaluation` samples and scores the images
(`generate`), analyses them (`analysis`, pure functions on `ddpo.stats`) and writes the report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpo.eval.config import EvalConfig
    from ddpo.eval.report.data import Report, load_report
    from ddpo.eval.stages.progress import Observer

__all__ = ["EvalConfig", "Report", "evaluate", "load_report"]


def evaluate(
    config: EvalConfig | None = None, *, observe: Observer | None = None, **settings: Any
) -> Report:
    """Compares models with their base model and writes the report's files, as `ddpo eval` does.

    Args:
        config: settings of the evaluation.
        observe: receiver of progress.
        settings: fields of an `EvalConfig`, in place of `config`: `checkpoints` or `images`, and
            every setting that differs from its default.

    Raises:
        UserError: a setting cannot be used; raised before a model is loaded.
        RewardFailure: a reward failed while scoring; finished images and scores are kept.
    """
    from ddpo.errors import ConfigError
    from ddpo.eval.config import EvalConfig
    from ddpo.eval.plan import plan
    from ddpo.eval.runner import run_evaluation
    from ddpo.eval.stages.progress import ignore_progress

    found = plan(config or EvalConfig(**settings))
    report = run_evaluation(found, observe or ignore_progress).report
    if report is None:
        raise ConfigError(
            "only the first of several processes has the report: call run_evaluation instead"
        )
    return report


def __getattr__(name: str) -> object:
    if name in ("Report", "load_report"):
        from ddpo.eval.report import data

        return getattr(data, name)
    if name in ("EvalConfig", "Request"):  # `Request` until version 0.3
        from ddpo.eval.config import EvalConfig

        return EvalConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
