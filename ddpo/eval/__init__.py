"""Does a tuned model do better, how sure is that, does it carry over to prompts it was not trained on, or did it game its reward?

from ddpo.eval import evaluate

report = evaluate(checkpoints=("runs/mine",), rewards=("colorfulness",), seeds=8)
for gain in report.gains:
    print(gain.model, gain.split, gain.reward, gain.paired.gain)

`planning.plan` decides what is compared, `job.run_evaluation` tells the story: `drawing`, `scoring`, `analysis`, `render`. The judgements are
pure functions: `stats`, `tables`, `diversity`, `dependence`, `over_optimisation`, `reading`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpo.eval.config import EvalConfig
    from ddpo.eval.report.data import Report, load_report

__all__ = ["EvalConfig", "Report", "evaluate", "load_report"]


def evaluate(request: EvalConfig | None = None, **asked: Any) -> Report:
    """Compares models with their base model and writes the report's files, as `ddpo eval` does.

    Args:
        request: what is asked for.
        asked: in its place, the fields of a `EvalConfig`: `checkpoints` or `images`, and what is not to be the default.

    Raises:
        UserError: something in the request cannot be; said before anything is loaded.
        RewardFailure: a reward broke while scoring; what was drawn and scored is kept.
    """
    from ddpo.errors import ConfigError
    from ddpo.eval.config import EvalConfig
    from ddpo.eval.plan import plan
    from ddpo.eval.runner import run_evaluation

    report = run_evaluation(plan(request or EvalConfig(**asked))).report
    if report is None:
        raise ConfigError(
            "of several processes only the first has the report: call run_evaluation instead"
        )
    return report


def __getattr__(name: str) -> object:
    if name in ("Report", "load_report"):
        from ddpo.eval.report import data as report

        return getattr(report, name)
    if name == "EvalConfig":
        from ddpo.eval.config import EvalConfig

        return EvalConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
