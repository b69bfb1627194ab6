"""Trains, evaluates and writes docs/geneval.md: `make geneval`, which resumes.

Each seed trains with `emoji_geneval` on `emoji_geneval_train`. The base model and every seed are
evaluated on the unseen nouns of `emoji_geneval_test` by the captioner that was trained on and by
the detector. Runs and evaluation are in `runs/geneval/`; the page gets tables and images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from evidence import Run, fill_page, own_gain
from gains_figure import image_rows
from generalisation import assessments_table

from ddpo.eval import EvalConfig, Report, load_report
from ddpo.eval.generate.samples import Row, read_samples
from ddpo.eval.inputs.models import BASE
from ddpo.eval.plan import plan
from ddpo.eval.report.wording import estimate_text, percent
from ddpo.eval.runner import run_evaluation
from ddpo.io.atomic import atomic_path
from ddpo.prompts import load_prompts
from ddpo.stats.estimate import Estimate, clustered_mean, mean_over_runs

__all__ = ["changes", "rights", "shares_table"]

ROOT: Final = Path(__file__).parents[1]
RUNS: Final = Path("runs") / "geneval"
PAGE: Final = ROOT / "docs" / "geneval.md"
FIGURE: Final = ROOT / "docs" / "figures" / "geneval.webp"
TRAINED: Final = "emoji_geneval"
READERS: Final = {TRAINED: "captioner", "emoji_detector": "detector"}
SEEN: Final = "emoji_geneval_train"
UNSEEN: Final = "emoji_geneval_test"
ALL: Final = "all"
ITERATIONS: Final = 12
IMAGES: Final = 3  # per prompt and model
SHOWN: Final = 12  # prompts of the figure

Rights = Mapping[tuple[str, str, str], Mapping[str, Sequence[float]]]
"""Model, reward and category → prompt id → 1 for each image that is right, else 0."""


def runs_of(seeds: Sequence[int]) -> list[Run]:
    """The run of each seed, with the recipe's settings."""
    settings = {"model": "emoji-flow", "prompts": SEEN, "algorithm": "awm"}
    return [
        Run(RUNS / f"geneval-{seed}", TRAINED, ITERATIONS, ITERATIONS // 2, seed, settings)
        for seed in seeds
    ]


def work(runs: Sequence[Run]) -> Iterator[str]:
    """Trains and evaluates what is left, and yields a line per step."""
    for run in runs:
        if not run.is_trained:
            yield f"training {run.name}"
            run.train()
    yield "evaluating"
    config = EvalConfig(
        checkpoints=tuple(str(run.folder) for run in runs),
        prompts=(SEEN, UNSEEN),
        seeds=IMAGES,
        history=0,
        best_of=0,
        out=RUNS / "eval",
    )
    run_evaluation(plan(config))


def rights(rows: Sequence[Row], tags: Mapping[str, str]) -> Rights:
    """Images that are right, by model, reader and category, with `ALL` for every prompt.

    Args:
        rows: Rows of an evaluation; images that could not be read are left out.
        tags: Prompt id → category, for the prompts that count.
    """
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row.reward not in READERS or row.prompt_id not in tags or np.isnan(row.score):
            continue
        for tag in (tags[row.prompt_id], ALL):
            prompts = found.setdefault((row.model, row.reward, tag), {})
            prompts.setdefault(row.prompt_id, []).append(row.parts["right"])
    return found


def share(right: Mapping[str, Sequence[float]]) -> float:
    """The share of right images."""
    return float(np.mean([value for values in right.values() for value in values]))


def changes(found: Rights, models: Sequence[str], reward: str, tag: str) -> Estimate:
    """The mean change of the share right from the base model.

    Its interval is the wider of two: over seeds, and over prompts with the mean of all seeds for
    each. A few equal seeds alone would show no spread at all.

    Args:
        found: Images that are right.
        models: Names of the tuned models, one per seed.
        reward: Reader.
        tag: Category.
    """
    base = found[BASE, reward, tag]
    tuned = [found[model, reward, tag] for model in models]
    both = [prompt for prompt in base if all(prompt in values for values in tuned)]
    each = [
        float(np.mean([np.mean(values[prompt]) for values in tuned]) - np.mean(base[prompt]))
        for prompt in both
    ]
    over_prompts = clustered_mean(each, both)
    if len(models) == 1:
        return over_prompts
    over_seeds = mean_over_runs([share(values) - share(base) for values in tuned])
    wider = over_seeds.high - over_seeds.low > over_prompts.high - over_prompts.low
    return over_seeds if wider else over_prompts


def shares_table(found: Rights, models: Sequence[str]) -> str:
    """Shares right by category before and after, and their change in points, by both readers."""
    tags = [tag for model, reward, tag in found if (model, reward) == (BASE, TRAINED)]
    ordered = [tag for tag in dict.fromkeys(tags) if tag != ALL]
    words = [f"{name}, {when}" for name in READERS.values() for when in ("before", "after", "gain")]
    lines = [f"| category | prompts | {' | '.join(words)} |", "|---" * (2 + len(words)) + "|"]
    for tag in (*ordered, ALL):
        cells = [tag.replace("_", " "), str(len(found[BASE, TRAINED, tag]))]
        for reward in READERS:
            after = float(np.mean([share(found[model, reward, tag]) for model in models]))
            gain = changes(found, models, reward, tag)
            cells += [percent(share(found[BASE, reward, tag])), percent(after)]
            cells.append(estimate_text(_in_points(gain)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_points(gain: Estimate) -> Estimate:
    values = (100 * value for value in (gain.mean, gain.se, gain.low, gain.high))
    return Estimate(*values, gain.n, gain.clusters, gain.excluded)


def gains_table(report: Report) -> str:
    """The gain of each reader's share of statements on both lists, by run."""
    lines = ["| run | reader | trained nouns | unseen nouns |", "|---" * 4 + "|"]
    for model in report.compared:
        for reward, reader in READERS.items():
            cells = [own_gain(report, model.name, reward, split) for split in (SEEN, UNSEEN)]
            lines.append(f"| {model.name} | {reader} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page() -> None:
    """Writes the page's tables and images from the evaluation."""
    report = load_report(RUNS / "eval" / "report.json")
    models = [model.name for model in report.compared]
    rows = read_samples(RUNS / "eval" / "samples.parquet")
    tags = {prompt.id: str(prompt.metadata["tag"]) for prompt in load_prompts(UNSEEN).prompts}
    sheet = image_rows(RUNS / "eval", [BASE, *models], [UNSEEN], SHOWN)
    with atomic_path(FIGURE) as temporary:
        sheet.save(temporary, format="WEBP", quality=90)
    tables = {
        "shares": shares_table(rights(rows, tags), models),
        "gains": gains_table(report),
        "grades": assessments_table(report, "trained nouns"),
        "images": _figure(len(models)),
    }
    fill_page(PAGE, tables)


def _figure(seeds: int) -> str:
    words = "the base model above, and each seed below, from the same noise"
    return f'<img src="figures/{FIGURE.name}" alt="{SHOWN} prompts: {words}" width="100%">\n\n' + (
        f"First row: the base model. Below: {seeds} seeds, from the same noise. The first image of "
        "every few prompts is shown, none chosen."
    )


def main(
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of training seeds.")] = 3,
    only_page: Annotated[
        bool, typer.Option(help="The page from a finished evaluation, without training.")
    ] = False,
) -> None:
    """Trains and evaluates what is left, and writes the page."""
    for line in () if only_page else work(runs_of(range(seeds))):
        typer.echo(line)
    write_page()


if __name__ == "__main__":
    typer.run(main)
