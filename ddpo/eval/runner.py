"""An evaluation from end to end: provide images, score them, analyse the scores, write the report.

`plan.plan` decides, and `run_evaluation` does the work. An interrupted evaluation resumes when it
is called again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ddpo.distributed import World
from ddpo.eval.analysis.people import match_choices
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.samples import write_samples
from ddpo.eval.generate.scoring import ScoreJournal
from ddpo.eval.inputs.models import BASE
from ddpo.eval.plan import Plan
from ddpo.eval.report.data import Report, dated, save_report
from ddpo.eval.report.html import render_html
from ddpo.eval.report.markdown import render_markdown
from ddpo.eval.stages.findings import Findings, analyse
from ddpo.eval.stages.progress import EvalProgress, Observer, ignore_progress
from ddpo.eval.stages.sampling import provide_images
from ddpo.eval.stages.scoring import check_rewards, score_images
from ddpo.io.atomic import check_folder_writable, remove_remains, write_text
from ddpo.io.links import check_links
from ddpo.io.lock import LOCK_FILE, owned
from ddpo.io.reading import reading
from ddpo.policies.checkpoints.folder import POLICY_FILE, check_present

__all__ = ["EvalProgress", "Observer", "Outcome", "run_evaluation"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report and its files; only the first process has a report."""

    report: Report | None
    html: Path
    json: Path
    samples: Path


def run_evaluation(plan: Plan, observe: Observer = ignore_progress) -> Outcome:
    """Samples, scores and writes `report.html`, `.md`, `.json`, `samples.parquet` and `images/`.

    Under `accelerate launch` the processes share sampling and scoring, and the first one writes.
    After an error, finished images and scores are kept.

    Args:
        plan: plan of the evaluation.
        observe: receiver of progress.

    Raises:
        MissingResourceError: the base model or a reward's weights are missing.
        ConfigError: a file of people's choices that the user named is not about these images.
        RunExistsError: another evaluation writes to the folder.
        RewardFailure: a reward failed while scoring.
        StorageFailure: a file cannot be written.
    """
    world = World.join(plan.device)
    check_rewards(plan, world.device)
    report = None
    with (
        _one_owner(plan, world),
        ImageStore(plan.out, world.rank) as store,
        ScoreJournal(plan.out, world.rank) as journal,
    ):
        images = provide_images(plan, store, world, observe)
        people = match_choices(plan.people, images.compared, plan.models)
        floors = score_images(plan, images, store, journal, world, observe)
        if world.is_main:
            observe(EvalProgress("analysing", "", 0, 1, 0))
            store.sync()
            findings = analyse(plan, images, store, journal, floors, people)
            report = dated(findings.report, plan.out / "report.json", datetime.now(UTC))
            write_report(plan.out, replace(findings, report=report))
    world.barrier()
    world.leave()
    out = plan.out
    return Outcome(report, out / "report.html", out / "report.json", out / "samples.parquet")


@contextmanager
def _one_owner(plan: Plan, world: World) -> Iterator[None]:
    """Keeps other evaluations from the output folder, and runs from removing the checkpoints.

    Raises:
        RunExistsError: another evaluation writes to the folder; the message names it.
        CheckpointError: a checkpoint was removed after it was found.
        ConfigError: the folder cannot be written.
    """
    with ExitStack() as stack:
        for checkpoint in plan.checkpoints:
            stack.enter_context(reading(checkpoint.info.folder / POLICY_FILE))
        with world.all_succeed():
            for checkpoint in plan.checkpoints:
                check_present(checkpoint.info)  # it may have been removed before it was locked
            if world.is_main:
                _check_links(plan)
                check_folder_writable(plan.out)
                advice = "wait for it to end, or choose another --out"
                lock = plan.out / LOCK_FILE
                stack.enter_context(owned(lock, plan.out, "ddpo eval", advice))
                remove_remains(plan.out)
        yield


def _check_links(plan: Plan) -> None:
    """Checks that no link of a run or an earlier evaluation leads to where this one would write.

    Raises:
        CheckpointError: one does.
    """
    check_links(plan.out)
    for checkpoint in plan.checkpoints:
        run = checkpoint.info.run
        if run is not None and plan.out.is_relative_to(run):
            check_links(run)


def write_report(out: Path, findings: Findings) -> None:
    """Writes the table of samples and the report in all formats.

    Args:
        out: output folder.
        findings: report with its rows and pairs.

    Raises:
        StorageFailure: a file cannot be written.
    """
    report = findings.report
    models = {model.name: (model.run, model.checkpoint) for model in report.models}
    write_samples(out / "samples.parquet", findings.rows, models | {BASE: ("", report.base)})
    save_report(out / "report.json", report)
    write_text(out / "report.md", render_markdown(report))
    write_text(out / "report.html", render_html(report, findings.pairs, out))
