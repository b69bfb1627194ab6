"""Runs of training that pages of evidence rest on, and the tables between a page's markers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from ddpo.eval import Report
from ddpo.eval.report.wording import estimate_text
from ddpo.io.atomic import write_text

__all__ = ["Run", "fill_page", "own_gain", "run_page"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of training.

    Args:
        folder: Folder of the run.
        reward: Trained reward.
        iterations: Number of iterations.
        every: Iterations between checkpoints.
        seed: Seed of the run.
        settings: Further settings, other than the defaults.
    """

    folder: Path
    reward: str
    iterations: int
    every: int
    seed: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    def train(self) -> None:
        """Starts or resumes the run."""
        from ddpo.trainer import config_for, resume
        from ddpo.trainer import train as start

        config = config_for(
            {
                "reward": self.reward,
                "iterations": self.iterations,
                "checkpoint_every": self.every,
                "seed": self.seed,
                **self.settings,
            }
        )
        started = (self.folder / "config.json").exists()
        for _ in resume(self.folder) if started else start(config, self.folder):
            pass

    @property
    def is_trained(self) -> bool:
        """True if the last checkpoint of the run exists."""
        checkpoint = self.folder / "checkpoints" / f"iteration-{self.iterations:06d}"
        return (checkpoint / "policy.json").is_file()


def own_gain(report: Report, model: str, reward: str, split: str) -> str:
    """The gain of a model's own reward with its interval."""
    gain = next(
        g.paired.gain
        for g in report.gains
        if (g.model, g.split, g.reward) == (model, split, reward)
    )
    return estimate_text(gain)


def fill_page(page: Path, tables: Mapping[str, str]) -> None:
    """Writes the tables of a page between their markers, by name."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin = text.index(f"<!-- {name}:begin -->\n")
        start = text.index("\n", begin) + 1
        end = text.index(f"<!-- {name}:end -->")
        text = f"{text[:start]}{table}\n{text[end:]}"
    write_text(page, text)


def run_page(work: Callable[[], Iterable[str]], write_page: Callable[[], None]) -> None:
    """The command line of a page's tool.

    Args:
        work: Training and evaluation of what is left, which yields a line per step.
        write_page: The page's tables and images from finished evaluations.
    """

    def main(
        only_page: Annotated[
            bool, typer.Option(help="The page from finished evaluations, without training.")
        ] = False,
    ) -> None:
        """Trains and evaluates what is left, and writes the page."""
        for line in () if only_page else work():
            typer.echo(line)
        write_page()

    typer.run(main)
