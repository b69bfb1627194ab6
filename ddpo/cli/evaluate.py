"""`ddpo eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from ddpo.eval.job import Outcome, Plan


def evaluate_command(
    checkpoint: Annotated[Path, typer.Option(help="A run folder (its last checkpoint) or a checkpoint folder of `ddpo train`.")],
    prompts: Annotated[
        list[str] | None,
        typer.Option(help="A file with one prompt a line, or a built-in list; repeatable. Default: animals, unseen_animals, objects."),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            help="A reward to score with, or an expression such as 'aesthetic + compressibility:0.2'; repeatable, each one is "
            "reported by itself. Default: the run's own."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Pictures per prompt, of the base and of the tuned model each.", min=1)] = 4,
    seed: Annotated[int | None, typer.Option(help="Of the noise; default: one that training does not use.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the run's.", min=1)] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance, 1: none; default: the run's.", min=1)] = None,
    eta: Annotated[float | None, typer.Option(help="Stochasticity, 0 … 1; default: the run's.", min=0, max=1)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default: RUN/eval/iteration-…, or eval inside a lone checkpoint.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="A torch device; default: the run's.")] = None,
) -> None:
    """Compare a checkpoint with its base model on seen and unseen prompts, and write a report.

    Interrupted, it goes on where it stopped when it is called again in the same way.
    """
    from ddpo.cli.quiet import quiet_libraries

    quiet_libraries()
    from ddpo.eval.job import EVAL_SEED, Request, plan
    from ddpo.eval.render.terminal import render_terminal

    request = Request(
        checkpoint=checkpoint,
        prompts=tuple(prompts or ()),
        rewards=tuple(reward or ()),
        seeds=seeds,
        seed=EVAL_SEED if seed is None else seed,
        steps=steps,
        guidance=guidance,
        eta=eta,
        out=out,
        device=device,
    )
    work = plan(request)
    console = Console(highlight=False)
    _announce(work, console)
    try:
        outcome = _run(work, console)
    except KeyboardInterrupt:
        console.print("Stopped. The pictures so far are kept; the same command goes on with them.", soft_wrap=True)
        raise typer.Exit(130) from None
    console.print()
    console.print(render_terminal(outcome.report))
    console.print(f"\nReport: {outcome.html}", markup=False, soft_wrap=True)


def _announce(work: Plan, console: Console) -> None:
    """Says what will be done, and which lists and files were taken."""
    info, sampler = work.checkpoint, work.sampler
    names = ", ".join(reward.card.id for reward in work.rewards)
    lines = [f"{info.kind} checkpoint of {info.model}, iteration {info.iteration}, scored by {names}"]
    for split in work.splits:
        role = "seen in training" if split.role == "seen" else "not in training"
        leaked = f"; {len(leaks)} of them too near to training prompts" if (leaks := work.leaks.get(split.name)) else ""
        lines.append(f"  {split.name}: {len(split.prompts)} prompts, {work.sources[split.name]}, {role}{leaked}")
    lines.append(
        f"{work.pictures} pictures ({work.seeds} per prompt, base and tuned from the same noise), {sampler.steps} steps, "
        f"guidance {sampler.guidance:g}, eta {sampler.eta:g}"
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _run(work: Plan, console: Console) -> Outcome:
    """Carries out the plan under a progress bar with pictures per second and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from ddpo.eval.job import carry_out
    from ddpo.eval.protocol import EvalProgress

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("loading", total=work.pictures, rate="")

        def observe(event: EvalProgress) -> None:
            elapsed = bars.tasks[task].elapsed or 0.0
            sampled = event.done - event.resumed
            rate = f"{sampled / elapsed:.1f} pictures/s" if sampled and elapsed > 0 else ""
            bars.update(task, completed=event.done, description=f"{event.split}, {event.policy}", rate=rate)

        return carry_out(work, observe)
