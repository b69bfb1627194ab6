"""Trains, evaluates and writes docs/generalisation.md: `make generalisation`. Goes on where it stopped.

Four runs are trained until they game their reward, twelve healthy ones are stopped early, and six more, of other rewards, were not
looked at when the thresholds of the reading were chosen. Everything is in `runs/generalisation/`; the page gets tables and figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from gains_figure import SPLITS, gains_figure, picture_rows

from ddpo.eval import EvalConfig, Report, load_report
from ddpo.eval.analysis.history import RunHistory
from ddpo.eval.inputs.models import BASE
from ddpo.eval.plan import plan
from ddpo.eval.runner import run_evaluation
from ddpo.io.atomic import atomic_path, write_text

ROOT: Final = Path(__file__).parents[1]
RUNS: Final = Path("runs") / "generalisation"
PAGE: Final = ROOT / "docs" / "generalisation.md"
FIGURES: Final = ROOT / "docs" / "figures"


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its folder's name, what it is trained on, and for how long."""

    name: str
    reward: str
    iterations: int
    every: int  # iterations between checkpoints
    seed: int = 0

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return RUNS / self.name


TRAINED: Final = tuple(
    Run(reward, reward, 20, 2)
    for reward in ("compressibility", "incompressibility", "colorfulness")
)
BROKEN: Final = (Run("darkness", "darkness", 30, 3, seed=1),)
HEALTHY: Final = tuple(
    Run(f"healthy/{reward}-{seed}", reward, iterations, iterations, seed)
    for reward, iterations in (("colorfulness", 5), ("compressibility", 4), ("contrast", 5))
    for seed in (1, 2, 3, 4)
)
VALIDATION: Final = tuple(
    Run(f"validation/{reward}-{seed}", reward, 5, 5, seed)
    for reward in ("saturation", "symmetry")
    for seed in (1, 2, 3)
)
EVALUATIONS: Final[Mapping[str, tuple[Sequence[Run], Mapping[str, object]]]] = {
    "trained": (TRAINED, {"history": 9}),
    "broken": (BROKEN, {"history": 9, "prompts": ("animals", "unseen_animals")}),
    "healthy": (
        HEALTHY,
        {"history": 0, "best_of": 0, "seeds": 3, "prompts": ("animals", "unseen_animals")},
    ),
    "validation": (
        VALIDATION,
        {"history": 0, "best_of": 0, "seeds": 3, "prompts": ("animals", "unseen_animals")},
    ),
}


def train(run: Run) -> None:
    """Starts or continues a run."""
    from ddpo.trainer import config_for, resume
    from ddpo.trainer import train as start

    config = config_for(
        {
            "reward": run.reward,
            "iterations": run.iterations,
            "checkpoint_every": run.every,
            "seed": run.seed,
        }
    )
    for _ in (
        resume(run.folder) if (run.folder / "config.json").exists() else start(config, run.folder)
    ):
        pass


def trained(run: Run) -> bool:
    """Whether its last checkpoint is there."""
    return (
        run.folder / "checkpoints" / f"iteration-{run.iterations:06d}" / "policy.json"
    ).is_file()


def work() -> Iterator[str]:
    """Trains and evaluates what is left; a line per step."""
    for run in (*TRAINED, *BROKEN, *HEALTHY, *VALIDATION):
        if not trained(run):
            yield f"training {run.name}"
            train(run)
    for name, (runs, settings) in EVALUATIONS.items():
        yield f"evaluating {name}"
        request = EvalConfig(
            checkpoints=tuple(str(run.folder) for run in runs), out=RUNS / "eval" / name, **settings
        )  # type: ignore[arg-type]
        run_evaluation(plan(request))


def gains_table(report: Report) -> str:
    """The gain of each model's own reward on every split, and the share that carries over."""
    lines = [
        "| trained on | " + " | ".join(SPLITS.values()) + " |",
        "|---" * (1 + len(SPLITS)) + "|",
    ]
    for model in report.compared:
        shares = {
            t.split: t.share
            for t in report.transfers
            if (t.model, t.reward) == (model.name, model.trained_on)
        }
        cells = []
        for split in SPLITS:
            gain = next(
                g.paired.gain
                for g in report.gains
                if (g.model, g.split, g.reward) == (model.name, split, model.trained_on)
            )
            share = (
                f"; {shares[split].ratio:.0%}"
                if split in shares and not shares[split].reason
                else ""
            )
            cells.append(f"{_number(gain.mean)} ({_number(gain.low)}, {_number(gain.high)}){share}")
        lines.append(f"| {model.trained_on} | {' | '.join(cells)} |")
    return "\n".join(lines)


def matrix(report: Report) -> str:
    """z-gains on unseen animals: a row per model, a column per reward."""
    rewards = [model.trained_on for model in report.compared] + ["base_fit", "prompt_evidence"]
    lines = ["| trained on | " + " | ".join(rewards) + " |", "|---" * (1 + len(rewards)) + "|"]
    for model in report.compared:
        found = {
            g.reward: g.z.mean
            for g in report.gains
            if (g.model, g.split) == (model.name, "unseen_animals")
        }
        lines.append(
            f"| {model.trained_on} | "
            + " | ".join(_number(found[reward]) for reward in rewards)
            + " |"
        )
    return "\n".join(lines)


def course_table(report: Report, course: RunHistory) -> str:
    """What is told of each checkpoint of a run."""
    lines = [
        "| iteration | queries | √KL | gain | evidence for the prompt | denoising error | reading |",
        "|---" * 7 + "|",
    ]
    base = {g.reward: g.paired.base_mean for g in report.gains if g.split == course.split}
    for point, signs in zip(course.points[1:], course.signs, strict=True):
        shown = 1 + point.gains["prompt_evidence"].mean / base["prompt_evidence"]
        error = 1 + point.gains["base_fit"].mean / base["base_fit"]
        cells = (
            str(point.iteration),
            f"{point.queries:,}",
            f"{math.sqrt(point.kl.mean):.0f}",
            _number(point.gains[course.trained_on].mean),
            f"{shown:.0%}".replace("-", "−"),
            f"{error:.2f} ×",
            signs.grade,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def readings_table(report: Report) -> str:
    """The reading of every run, with the gain of its own reward on seen prompts."""
    lines = ["| run | gain, seen animals | reading | because of |", "|---|---|---|---|"]
    for model, reading in zip(report.compared, report.readings, strict=True):
        gain = next(
            g.paired.gain
            for g in report.gains
            if (g.model, g.split, g.reward) == (model.name, "animals", model.trained_on)
        )
        because = (
            "; ".join(one.kind for one in reading.evidence if one.grade == reading.grade)
            if reading.grade != "no sign"
            else ""
        )
        lines.append(
            f"| {model.name} | {_number(gain.mean)} ({_number(gain.low)}, {_number(gain.high)}) | {reading.grade} | {because} |"
        )
    counts = Counter(reading.grade for reading in report.readings)
    return (
        "\n".join(lines)
        + "\n\n"
        + ", ".join(f"{grade}: {counts[grade]}" for grade in ("no sign", "watch", "strong signs"))
        + "."
    )


def write_page() -> None:
    """Fills the page's tables and draws its figures."""
    reports = {name: load_report(RUNS / "eval" / name / "report.json") for name in EVALUATIONS}
    tables = {"gains": gains_table(reports["trained"]), "matrix": matrix(reports["trained"])}
    for name in ("trained", "broken"):
        tables |= {
            f"course {course.run}": course_table(reports[name], course)
            for course in reports[name].courses
        }
    tables |= {name: readings_table(reports[name]) for name in ("healthy", "validation")}
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        text = text[: text.index(begin) + len(begin)] + table + "\n" + text[text.index(end) :]
    write_text(PAGE, text)
    write_text(FIGURES / "gains.svg", gains_figure(reports["trained"]))
    folder, models = (
        RUNS / "eval" / "trained",
        [BASE, *(model.name for model in reports["trained"].compared)],
    )
    _save(picture_rows(folder, models, list(SPLITS), 5), "before-after")
    course = next(
        course for course in reports["trained"].courses if course.run == "incompressibility"
    )
    _save(
        picture_rows(folder, [point.model for point in course.points], ["animals"], 15),
        "course-incompressibility",
    )
    _save(
        picture_rows(
            RUNS / "eval" / "healthy",
            [BASE, *(m.name for m in reports["healthy"].compared)],
            ["animals"],
            15,
        ),
        "healthy",
    )


def _save(picture: object, name: str) -> None:
    with atomic_path(FIGURES / f"{name}.webp") as temporary:
        picture.save(temporary, format="WEBP", quality=90)  # type: ignore[attr-defined]


def _number(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def main(
    only_page: Annotated[
        bool, typer.Option(help="Train and evaluate nothing, write the page from what is finished.")
    ] = False,
) -> None:
    """Does what is left and writes the page."""
    for line in () if only_page else work():
        typer.echo(line)
    write_page()


if __name__ == "__main__":
    typer.run(main)
