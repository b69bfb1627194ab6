"""The report as data frames, and as one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpo.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from ddpo.eval.report.data import Report

__all__ = ["gains_frame", "report_line", "samples_frame"]


def gains_frame(report: Report) -> pd.DataFrame:
    """One row per model, split and reward: base mean, tuned mean, gain, interval, p and wins."""
    import pandas as pd

    rows = [
        {
            "model": gain.model,
            "split": gain.split,
            "role": gain.role,
            "reward": gain.reward,
            "base": gain.paired.base_mean,
            "tuned": gain.paired.tuned_mean,
            "gain": gain.paired.gain.mean,
            "low": gain.paired.gain.low,
            "high": gain.paired.gain.high,
            "se": gain.paired.gain.se,
            "p": gain.p,
            "p_holm": gain.p_holm,
            "win_rate": gain.paired.wins.rate,
            "images": gain.paired.gain.n,
            "prompts": gain.paired.gain.clusters,
        }
        for gain in report.gains
    ]
    return pd.DataFrame(rows)


def samples_frame(report: Report) -> pd.DataFrame:
    """The table `samples.parquet` of the report: one row per image and reward.

    Raises:
        ConfigError: the report was not read from a folder, or its table is missing or damaged.
    """
    import pandas as pd

    from ddpo.eval.generate.samples import read_samples

    if report.folder is None:
        raise ConfigError("this report has no folder: load it with ddpo.eval.load_report")
    rows = read_samples(report.folder / "samples.parquet")
    columns = ("model", "split", "prompt", "index", "reward", "score", "error", "image")
    return pd.DataFrame([{name: getattr(row, name) for name in columns} for row in rows])


def report_line(report: Report) -> str:
    """The report on one line: its models, splits and rewards, and its sentence."""
    models = ", ".join(model.name for model in report.compared) or "no model"
    splits = ", ".join(split.name for split in report.splits)
    rewards = ", ".join(reward.id for reward in report.rewards)
    return f"<report of {models} on {splits}: {rewards}. {report.sentence}>"
