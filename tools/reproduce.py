"""Repeats the paper's comparison of methods in small: `make reproduce`, which resumes.

Figure 4 of arXiv 2305.13301 compares DDPO-IS, DDPO-SF, RWR and RWR-sparse by the reward that they
reach after equally many reward queries. Here, on the embedded model, every method, reward and seed
is one run of `ddpo train` with the recipe of the method (`ddpo/recipes/emoji*.toml`). Its
checkpoints are evaluated on the training prompts. The noise is the same for all runs, and no
training sees it, so that gains over the base model are paired. Results go to `runs/reproduce/`,
tables and curves to `docs/reproduction.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from PIL import Image

ROOT: Final = Path(__file__).parents[1]
RUNS: Final = Path("runs") / "reproduce"
QUERIES: Final = 2304  # reward queries of every run
EVERY: Final = 768  # reward queries between two evaluations
REWARDS: Final = ("compressibility", "incompressibility", "colorfulness")
SEEDS: Final = (0, 1, 2)
PER_PROMPT: Final = 4  # images of each training prompt in an evaluation
NOISE: Final = 10_007  # the seed of their noise, which no run has


@dataclass(frozen=True, slots=True)
class Method:
    """One line of a comparison."""

    name: str
    recipe: str
    settings: tuple[str, ...] = ()  # as --set takes them
    rewards: tuple[str, ...] = REWARDS
    comparison: str = "methods"


GUIDED: Final = ("sample.guidance=3.0",)
UNGUIDED: Final = ("sample.guidance=3.0", "optim.guidance=false")
METHODS: Final = (
    Method("DDPO-IS", "emoji.toml"),
    Method("DDPO-SF", "emoji_sf.toml"),
    Method("RWR", "emoji_rwr.toml"),
    Method("RWR-sparse", "emoji_rwr_sparse.toml"),
    Method(
        "RWR, all weights equal",
        "emoji_rwr.toml",
        ("regression.beta=1e-9",),
        ("compressibility",),
        "control",
    ),
    Method(
        "RWR-sparse, guidance in training",
        "emoji_rwr_sparse.toml",
        GUIDED,
        ("compressibility",),
        "guidance",
    ),
    Method(
        "RWR-sparse, none in training",
        "emoji_rwr_sparse.toml",
        UNGUIDED,
        ("compressibility",),
        "guidance",
    ),
    Method("DDPO-IS, guidance in training", "emoji.toml", GUIDED, ("compressibility",), "guidance"),
    Method("DDPO-IS, none in training", "emoji.toml", UNGUIDED, ("compressibility",), "guidance"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One run."""

    method: Method
    reward: str
    seed: int

    @property
    def folder(self) -> Path:
        """The run folder."""
        words = "".join(
            c if c.isalnum() else "-" for c in self.method.name.lower().replace(", ", "-")
        )
        return RUNS / f"{self.reward}-{words}-{self.seed}"

    @property
    def curve_file(self) -> Path:
        """The file of the finished curve."""
        return self.folder / "curve.json"


def jobs(comparison: str | None = None) -> list[Job]:
    """All runs, seed by seed, so that an early stop leaves whole comparisons."""
    chosen = [method for method in METHODS if comparison in (None, method.comparison)]
    return [
        Job(method, reward, seed)
        for seed in SEEDS
        for method in chosen
        for reward in method.rewards
    ]


def train(job: Job) -> None:
    """Starts or resumes a run up to `QUERIES`."""
    from ddpo.trainer import config_for, resume
    from ddpo.trainer import train as start
    from ddpo.trainer.recipe import read_recipe, set_value

    values = read_recipe(ROOT / "ddpo" / "recipes" / job.method.recipe)
    for setting in job.method.settings:
        set_value(values, setting)
    samples = config_for(values).sample.samples
    length = {
        "iterations": QUERIES // samples,
        "checkpoint_every": EVERY // samples,
        "grid_every": EVERY // samples,
    }
    config = config_for(values | length | {"reward": job.reward, "seed": job.seed})
    started = (job.folder / "config.json").exists()
    for _ in resume(job.folder) if started else start(config, job.folder):
        pass


def sample_batches(job: Job, checkpoint: Path | None, each: int) -> Iterator[Any]:
    """Batches of `each` images of every training prompt, of a checkpoint or the base model."""
    from ddpo.policies import load_policy
    from ddpo.policies.sampler import SampleKey, sample_images
    from ddpo.prompts import load_prompts
    from ddpo.trainer.rollout import sampler_settings
    from ddpo.trainer.run.folder import RunFolder

    config = RunFolder.open(job.folder).config()
    keys = [
        SampleKey(prompt, index)
        for prompt in load_prompts(config.prompts).prompts
        for index in range(each)
    ]
    return sample_images(
        load_policy(config.model, checkpoint), keys, sampler_settings(config.sample), NOISE
    )


def scores(job: Job, checkpoint: Path | None) -> list[float]:
    """The rewards of `PER_PROMPT` images of each training prompt, in order."""
    from ddpo.rewards.scoring.scorer import make_scorer
    from ddpo.rewards.zoo import resolve

    with closing(make_scorer(resolve(job.reward))) as scorer:
        return [
            value
            for batch in sample_batches(job, checkpoint, PER_PROMPT)
            for value in scorer.score(batch).values.tolist()
        ]


def evaluate(job: Job) -> None:
    """Writes the curve of a finished run: scores of the base model and of each checkpoint."""
    from ddpo.io.atomic import write_json

    folders = sorted((job.folder / "checkpoints").glob("iteration-*"))
    per_iteration = QUERIES // int(folders[-1].name.rpartition("-")[2])
    points = [{"queries": 0, "scores": scores(job, None)}]
    points += [
        {"queries": int(f.name.rpartition("-")[2]) * per_iteration, "scores": scores(job, f)}
        for f in folders
    ]
    lines = (job.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = sum(json.loads(line)["seconds"] for line in lines)
    write_json(
        job.curve_file,
        {
            "method": job.method.name,
            "reward": job.reward,
            "seed": job.seed,
            "seconds": seconds,
            "points": points,
        },
    )


@cache
def curve(job: Job) -> tuple[list[int], list[float], float]:
    """Reward queries, mean paired gain over the base model at each, and seconds of training."""
    found = json.loads(job.curve_file.read_text(encoding="utf-8"))
    base = np.array(found["points"][0]["scores"])
    gains = [float((np.array(point["scores"]) - base).mean()) for point in found["points"]]
    return [point["queries"] for point in found["points"]], gains, found["seconds"]


def over_seeds(done: Sequence[Job]) -> tuple[list[int], list[tuple[float, float]]]:
    """Reward queries, and at each the mean and the half width of the 95 % t interval over seeds."""
    from scipy import stats

    table = np.array([curve(job)[1] for job in done])
    mean = table.mean(0)
    count = len(done)
    half = np.full_like(mean, np.nan)
    if count > 1:
        half = stats.t.ppf(0.975, count - 1) * table.std(0, ddof=1) / count**0.5
    return curve(done[0])[0], list(zip(mean.tolist(), half.tolist(), strict=True))


def finished(method: Method, reward: str) -> list[Job]:
    """The finished runs of a method on a reward."""
    return [job for seed in SEEDS if (job := Job(method, reward, seed)).curve_file.exists()]


def work(chosen: Sequence[Job]) -> Iterator[str]:
    """Runs what is left, one job at a time, and yields a line per job."""
    for number, job in enumerate(chosen, 1):
        if job.curve_file.exists():
            continue
        start = time.perf_counter()
        train(job)
        evaluate(job)
        queries, gains, _ = curve(job)
        spent = time.perf_counter() - start
        name = f"{job.reward} {job.method.name} seed {job.seed}"
        result = f"{gains[-1]:+.3f} at {queries[-1]} queries, {spent:.0f} s"
        yield f"{number}/{len(chosen)} {name}: {result}"


def table(comparison: str) -> str:
    """The final gains as a Markdown table: a row per method, a column per reward."""
    methods = [method for method in METHODS if method.comparison == comparison]
    rewards = methods[0].rewards
    rows = [f"| method | {' | '.join(rewards)} |", "|---" * (1 + len(rewards)) + "|"]
    for method in methods:
        cells = []
        for reward in rewards:
            if done := finished(method, reward):
                _, points = over_seeds(done)
                each = ", ".join(f"{curve(job)[1][-1]:+.2f}" for job in done)
                interval = f"{points[-1][0]:+.2f} ± {points[-1][1]:.2f} ({each})"
                cells.append(interval if len(done) > 1 else each)
            else:
                cells.append("not run")
        rows.append(f"| {method.name} | {' | '.join(cells)} |")
    return "\n".join(rows).replace(" -", " −").replace("(-", "(−")


def save_images(reward: str, path: Path) -> None:
    """Writes a sheet of 15 prompts and one noise: the base model, then each method's first run.

    The runs are shown after `EVERY` queries and at their end.
    """
    from ddpo.images import contact_sheet, to_pil
    from ddpo.io.atomic import atomic_path

    shown = [
        done[0]
        for method in METHODS
        if method.comparison == "methods" and (done := finished(method, reward))
    ]
    checkpoints = {job: sorted((job.folder / "checkpoints").glob("iteration-*")) for job in shown}
    rows: list[tuple[Job, Path | None]] = [
        (shown[0], None),
        *((job, checkpoints[job][at]) for at in (0, -1) for job in shown),
    ]
    images: list[Image.Image] = []
    for job, checkpoint in rows:
        row = [
            image for batch in sample_batches(job, checkpoint, 1) for image in to_pil(batch.pixels)
        ]
        images += row[::3]
    sheet = contact_sheet(images, columns=len(images) // len(rows))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="WEBP", quality=90)


def report() -> None:
    """Writes tables and figures into `docs/`."""
    from curves_figure import Curve, curves_figure

    from ddpo.io.atomic import write_text

    page = ROOT / "docs" / "reproduction.md"
    text = page.read_text(encoding="utf-8")
    for comparison in ("methods", "control", "guidance"):
        methods = [method for method in METHODS if method.comparison == comparison]
        if len(methods) > 1:
            panels = {
                reward: [
                    Curve(method.name, *over_seeds(done))
                    for method in methods
                    if (done := finished(method, reward))
                ]
                for reward in methods[0].rewards
            }
            write_text(
                ROOT / "docs" / "figures" / f"reproduction-{comparison}.svg", curves_figure(panels)
            )
        begin = text.index(f"<!-- {comparison}:begin -->\n")
        start = text.index("\n", begin) + 1
        end = text.index(f"<!-- {comparison}:end -->")
        text = f"{text[:start]}{table(comparison)}\n{text[end:]}"
    save_images(REWARDS[0], ROOT / "docs" / "figures" / "reproduction-images.webp")
    write_text(page, text)


def main(
    workers: Annotated[
        int, typer.Option(help="Number of processes, each with its share of the cores.")
    ] = 1,
    comparison: Annotated[
        str | None, typer.Option(help="methods, control or guidance; default: all.")
    ] = None,
    only_report: Annotated[
        bool, typer.Option(help="The page from finished runs, without new ones.")
    ] = False,
    part: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Runs what is left and writes the page."""
    chosen = jobs(comparison)
    if part is not None:
        for line in work(chosen[part::workers]):
            typer.echo(line)
        return
    if not only_report:
        left = [job for job in chosen if not job.curve_file.exists()]
        typer.echo(f"{len(left)} of {len(chosen)} runs left; each takes 3 to 8 minutes of one core")
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        environment: dict[str, Any] = os.environ | {"OMP_NUM_THREADS": threads}
        arguments = ["--workers", str(workers)] + (
            ["--comparison", comparison] if comparison else []
        )
        parts = [
            subprocess.Popen(
                [sys.executable, __file__, *arguments, "--part", str(i)], env=environment
            )
            for i in range(workers)
        ]
        if max([process.wait() for process in parts]):
            raise typer.Exit(1)
    report()


if __name__ == "__main__":
    typer.run(main)
