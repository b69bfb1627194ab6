"""Trains, evaluates and writes docs/alignment.md: `make alignment`, which resumes.

The runs are on the embedded model of scenes: three seeds of prompt alignment, a long run that
over-optimises it, a run on the aesthetic judge, and twelve healthy runs that were stopped early.
Runs and evaluations are in `runs/alignment/`; the page gets tables and images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from evidence import Run, fill_page, own_gain, run_page
from gains_figure import image_rows
from generalisation import assessments_table
from PIL import Image

from ddpo.eval import EvalConfig, Report, load_report
from ddpo.eval.analysis.history import RunHistory
from ddpo.eval.inputs.models import BASE
from ddpo.eval.plan import plan
from ddpo.eval.runner import run_evaluation
from ddpo.io.atomic import atomic_path

ROOT: Final = Path(__file__).parents[1]
RUNS: Final = Path("runs") / "alignment"
PAGE: Final = ROOT / "docs" / "alignment.md"
FIGURES: Final = ROOT / "docs" / "figures"
CAPTIONER: Final = "alignment:model=emoji"
WITNESS: Final = "clip_score:model=emoji"
AESTHETIC: Final = "aesthetic:model=emoji"
SCENES: Final[Mapping[str, object]] = {"model": "emoji-scenes", "prompts": "seen_pairings"}
ANIMALS: Final[Mapping[str, object]] = {"model": "emoji-scenes", "prompts": "animals"}
SPLITS: Final = {
    "seen_pairings": "seen animals",
    "unseen_pairings": "unseen animals",
    "new_pairings": "new pairings",
    "objects": "objects",
}
ITERATIONS: Final = 12
LONG: Final = 36
LIMIT: Final = 40  # prompts of a list, as in `make demo`

SEEDS: Final = tuple(
    Run(RUNS / f"alignment-{seed}", CAPTIONER, ITERATIONS, 4, seed, SCENES) for seed in (0, 1, 2)
)
OPTIMISED: Final = (Run(RUNS / "alignment-long", CAPTIONER, LONG, 6, 3, SCENES),)
PLEASING: Final = (Run(RUNS / "aesthetic", AESTHETIC, ITERATIONS, 2, 0, ANIMALS),)
HEALTHY: Final = tuple(
    Run(RUNS / "healthy" / f"{name}-{seed}", reward, 5, 5, seed, settings)
    for name, reward, settings in (
        ("alignment", CAPTIONER, SCENES),
        ("clip_score", WITNESS, {**SCENES, "held_out": CAPTIONER}),
    )
    for seed in (11, 12, 13, 14)
)
PRESSED: Final = tuple(
    Run(RUNS / "healthy" / f"compressibility-{seed}", "compressibility", 4, 4, seed, ANIMALS)
    for seed in (11, 12, 13, 14)
)
EVALUATIONS: Final[Mapping[str, tuple[Sequence[Run], Mapping[str, object]]]] = {
    "seeds": (SEEDS, {"history": 0, "best_of": 0}),
    "optimised": (OPTIMISED, {"history": 10, "best_of": 0}),
    "aesthetic": (PLEASING, {"history": 10, "best_of": 0}),
    "healthy": (HEALTHY, {"history": 0, "best_of": 0, "limit": LIMIT}),
    "pressed": (PRESSED, {"history": 0, "best_of": 0, "limit": LIMIT}),
}


WITNESSES: Final = {
    "base_fit": "plausibility to the base model",
    "prompt_evidence": "prompt recognisability",
}
"""Internal witness → its name in reports."""

SHEETS: Final = {
    "seeds": "alignment",
    "optimised": "alignment-history",
    "aesthetic": "aesthetic-history",
    "pressed": "alignment-early",
}
"""Evaluation → name of its figure."""


def work() -> Iterator[str]:
    """Trains and evaluates what is left, and yields a line per step."""
    for name, (runs, settings) in EVALUATIONS.items():
        for run in runs:
            if not run.is_trained:
                yield f"training {run.name}"
                run.train()
        yield f"evaluating {name}"
        checkpoints = tuple(str(run.folder) for run in runs)
        out = RUNS / "eval" / name
        config = EvalConfig(checkpoints=checkpoints, out=out, **settings)  # type: ignore[arg-type]
        run_evaluation(plan(config))


def gains_table(report: Report) -> str:
    """The gains of the trained reward and of the witness on every split, by seed."""
    lines = ["| seed | judge | " + " | ".join(SPLITS.values()) + " |", "|---" * 6 + "|"]
    judges = {"alignment": "captioner", "clip_score": "independent CLIP"}
    for model in report.compared:
        for reward, judge in judges.items():
            cells = [own_gain(report, model.name, reward, split) for split in SPLITS]
            lines.append(f"| {model.name.rsplit('-', 1)[-1]} | {judge} | {' | '.join(cells)} |")
    return "\n".join(lines)


def history_table(history: RunHistory) -> str:
    """One row per checkpoint: queries, divergence, gains of both judges, and grade."""
    scored = {name for point in history.points[1:] for name in point.gains}
    others = [name for name in ("clip_score", "alignment") if name in scored]
    columns = list(dict.fromkeys([history.trained_on, *others]))
    lines = [
        "| iteration | queries | √KL | " + " | ".join(columns) + " | grade |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for point, signs in zip(history.points[1:], history.signs, strict=True):
        gains = [thousandths(point.gains[name].mean) for name in columns]
        root = f"{math.sqrt(point.kl.mean):.0f}"
        cells = [str(point.iteration), f"{point.queries:,}", root, *gains, signs.grade]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def peaks_table(history: RunHistory) -> str:
    """Best checkpoint of each judge, and the first one significantly below it."""
    lines = ["| judge | best checkpoint | falls from | last minus best |", "|---" * 4 + "|"]
    for peak in history.peaks:
        onset = str(peak.onset_iteration) if peak.onset_iteration >= 0 else "does not fall"
        drop = thousandths(peak.drop.mean) if peak.drop.n else "0"
        judge = WITNESSES.get(peak.reward, peak.reward)
        lines.append(f"| {judge} | {peak.best_iteration} | {onset} | {drop} |")
    return "\n".join(lines)


def thousandths(value: float) -> str:
    """A signed number of three decimals, with a minus sign."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def write_page() -> None:
    """Writes the tables and images of the finished evaluations into the page."""
    found = {name: RUNS / "eval" / name / "report.json" for name in EVALUATIONS}
    reports = {name: load_report(path) for name, path in found.items() if path.is_file()}
    for name, report in reports.items():
        fill_page(PAGE, tables_of(name, report))
        if name in SHEETS:
            with atomic_path(FIGURES / f"{SHEETS[name]}.webp") as temporary:
                image_sheet(name, report).save(temporary, format="WEBP", quality=90)


def tables_of(name: str, report: Report) -> dict[str, str]:
    """The tables of one evaluation, by the name of their place in the page."""
    if name == "seeds":
        return {"gains": gains_table(report), "grades": assessments_table(report)}
    if name in ("healthy", "pressed"):
        return {name: assessments_table(report)}
    (history,) = report.courses
    return {name: history_table(history), f"{name} peaks": peaks_table(history)}


def image_sheet(name: str, report: Report) -> Image.Image:
    """The contact sheet of one evaluation: models or checkpoints by row, prompts by column."""
    folder = RUNS / "eval" / name
    if not report.courses:
        models = [BASE, *(model.name for model in report.compared)]
        splits = list(SPLITS) if name == "seeds" else ["animals"]
        return image_rows(folder, models, splits, 16 // len(splits))
    stages = [point.model for point in report.courses[0].points]
    return image_rows(folder, stages, ["animals" if name == "aesthetic" else "seen_pairings"], 15)


if __name__ == "__main__":
    run_page(work, write_page)
