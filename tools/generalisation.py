"""Trains, evaluates and writes docs/generalisation.md: `make generalisation`, which resumes.

Four runs are trained until they game their reward, and twelve healthy ones are stopped early. Six
more, of other rewards, were not looked at when the thresholds of the assessment were chosen. Runs
and evaluations are in `runs/generalisation/`; the page gets tables and figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from evidence import Run, fill_page, own_gain, run_page
from gains_figure import SPLITS, gains_figure, image_rows
from PIL import Image

from ddpo.eval import EvalConfig, Report, load_report
from ddpo.eval.analysis.history import RunHistory
from ddpo.eval.inputs.models import BASE
from ddpo.eval.plan import plan
from ddpo.eval.report.wording import number, percent
from ddpo.eval.runner import run_evaluation
from ddpo.io.atomic import atomic_path, write_text

ROOT: Final = Path(__file__).parents[1]
RUNS: Final = Path("runs") / "generalisation"
PAGE: Final = ROOT / "docs" / "generalisation.md"
FIGURES: Final = ROOT / "docs" / "figures"
GRADES: Final = ("no sign", "watch", "strong signs")


TRAINED: Final = tuple(
    Run(RUNS / reward, reward, 20, 2)
    for reward in ("compressibility", "incompressibility", "colorfulness")
)
BROKEN: Final = (Run(RUNS / "darkness", "darkness", 30, 3, seed=1),)
HEALTHY: Final = tuple(
    Run(RUNS / f"healthy/{reward}-{seed}", reward, iterations, iterations, seed)
    for reward, iterations in (("colorfulness", 5), ("compressibility", 4), ("contrast", 5))
    for seed in (1, 2, 3, 4)
)
VALIDATION: Final = tuple(
    Run(RUNS / f"validation/{reward}-{seed}", reward, 5, 5, seed)
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


def work() -> Iterator[str]:
    """Trains and evaluates what is left, and yields a line per step."""
    for run in (*TRAINED, *BROKEN, *HEALTHY, *VALIDATION):
        if not run.is_trained:
            yield f"training {run.name}"
            run.train()
    for name, (runs, settings) in EVALUATIONS.items():
        yield f"evaluating {name}"
        checkpoints = tuple(str(run.folder) for run in runs)
        out = RUNS / "eval" / name
        config = EvalConfig(checkpoints=checkpoints, out=out, **settings)  # type: ignore[arg-type]
        run_evaluation(plan(config))


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
            share = ""
            if split in shares and not shares[split].reason:
                share = f"; {percent(shares[split].ratio)}"
            cells.append(own_gain(report, model.name, model.trained_on, split) + share)
        lines.append(f"| {model.trained_on} | {' | '.join(cells)} |")
    return "\n".join(lines)


def matrix(report: Report) -> str:
    """The standardised gains on unseen animals: a row per model, a column per reward."""
    rewards = [model.trained_on for model in report.compared] + ["base_fit", "prompt_evidence"]
    lines = ["| trained on | " + " | ".join(rewards) + " |", "|---" * (1 + len(rewards)) + "|"]
    for model in report.compared:
        found = {
            g.reward: g.z.mean
            for g in report.gains
            if (g.model, g.split) == (model.name, "unseen_animals")
        }
        cells = " | ".join(number(found[reward], signed=True) for reward in rewards)
        lines.append(f"| {model.trained_on} | {cells} |")
    return "\n".join(lines)


def history_table(report: Report, history: RunHistory) -> str:
    """One row per checkpoint of a run: its queries, divergence, gain and grade."""
    lines = [
        "| iteration | queries | √KL | gain | prompt recognisability | denoising error | grade |",
        "|---" * 7 + "|",
    ]
    base = {g.reward: g.paired.base_mean for g in report.gains if g.split == history.split}
    for point, signs in zip(history.points[1:], history.signs, strict=True):
        shown = 1 + point.gains["prompt_evidence"].mean / base["prompt_evidence"]
        error = 1 + point.gains["base_fit"].mean / base["base_fit"]
        cells = (
            str(point.iteration),
            f"{point.queries:,}",
            f"{math.sqrt(point.kl.mean):.0f}",
            number(point.gains[history.trained_on].mean, signed=True),
            percent(shown),
            f"{error:.2f} ×",
            signs.grade,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def assessments_table(report: Report, prompts: str = "seen animals") -> str:
    """The assessment of every run, with the gain of its own reward on training prompts.

    Args:
        report: Report of an evaluation.
        prompts: Words for the training prompts.
    """
    lines = [f"| run | gain, {prompts} | grade | because of |", "|---|---|---|---|"]
    for model, found in zip(report.compared, report.readings, strict=True):
        gain = own_gain(report, model.name, model.trained_on, report.splits[0].name)
        kinds = [one.kind for one in found.evidence if one.grade == found.grade]
        because = "" if found.grade == "no sign" else "; ".join(kinds)
        lines.append(f"| {model.name} | {gain} | {found.grade} | {because} |")
    counts = Counter(found.grade for found in report.readings)
    totals = ", ".join(f"{grade}: {counts[grade]}" for grade in GRADES)
    return "\n".join(lines) + f"\n\n{totals}."


def write_page() -> None:
    """Writes the page's tables and figures."""
    reports = {name: load_report(RUNS / "eval" / name / "report.json") for name in EVALUATIONS}
    tables = {"gains": gains_table(reports["trained"]), "matrix": matrix(reports["trained"])}
    for name in ("trained", "broken"):
        tables |= {
            f"history {history.run}": history_table(reports[name], history)
            for history in reports[name].courses
        }
    tables |= {name: assessments_table(reports[name]) for name in ("healthy", "validation")}
    fill_page(PAGE, tables)
    write_text(FIGURES / "gains.svg", gains_figure(reports["trained"]))
    for name, sheet in image_sheets(reports).items():
        with atomic_path(FIGURES / f"{name}.webp") as temporary:
            sheet.save(temporary, format="WEBP", quality=90)


def image_sheets(reports: Mapping[str, Report]) -> dict[str, Image.Image]:
    """The contact sheets of the page by their file name."""
    trained, healthy = (reports[name] for name in ("trained", "healthy"))
    history = next(one for one in trained.courses if one.run == "incompressibility")
    models = [BASE, *(model.name for model in trained.compared)]
    stages = [point.model for point in history.points]
    stopped = [BASE, *(model.name for model in healthy.compared)]
    folder = RUNS / "eval"
    return {
        "before-after": image_rows(folder / "trained", models, list(SPLITS), 5),
        "history-incompressibility": image_rows(folder / "trained", stages, ["animals"], 15),
        "healthy": image_rows(folder / "healthy", stopped, ["animals"], 15),
    }


if __name__ == "__main__":
    run_page(work, write_page)
