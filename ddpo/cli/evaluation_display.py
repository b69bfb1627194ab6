"""The terminal's side of an evaluation: its plan, its progress and its report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ddpo.cli.console import echo, print_json_text
from ddpo.devices import AUTO
from ddpo.distributed import is_first_process
from ddpo.rewards.cards.embedded import embedded_name, is_embedded
from ddpo.text import count, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import TaskID

    from ddpo.eval.inputs.models import ModelFacts
    from ddpo.eval.inputs.rewards import PlannedReward
    from ddpo.eval.plan import Plan
    from ddpo.eval.runner import EvalProgress, Outcome

__all__ = ["SAMPLING", "Forecast", "announce", "print_outcome", "run_with_progress"]

ROLES = {
    "trained": "trained on",
    "asked": "given by --reward",
    "heldout": "independent",
    "artefact": "pixel statistics",
}
SAMPLING: Final = "sampling"  # the stage of `EvalProgress` that samples images


def print_outcome(outcome: Outcome, form: str, console: Console) -> None:
    """Prints the report in the requested form to standard output, and the path of its page."""
    if outcome.report is None:  # the first process prints it
        return
    if form == "json":
        print_json_text(outcome.json.read_text(encoding="utf-8"))
    elif form == "github":
        from ddpo.eval.report.markdown import render_github

        echo(render_github(outcome.report))
    else:
        from ddpo.eval.report.terminal import render_terminal

        console.print()
        console.print(render_terminal(outcome.report), crop=False)  # commands stay whole
    console.print(f"\nReport: {outcome.html}", markup=False, soft_wrap=True)


def announce(work: Plan, console: Console) -> None:
    """Prints the models, prompts, rewards and settings of the evaluation."""
    lines = (*_model_lines(work), *_split_lines(work), *_reward_lines(work), *_people_lines(work))
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if not work.folders:
        sampler = work.sampler
        chosen = [word for word in (sampler.transition, sampler.grid) if word != AUTO]
        words = "".join(f", {word}" for word in chosen)
        console.print(
            f"{count(work.image_count, 'image')}, {work.seeds} per prompt and model from the same "
            f"noise, {count(sampler.steps, 'step')}, guidance {sampler.guidance:g}, "
            f"eta {sampler.eta:g}{words}",
            markup=False,
            soft_wrap=True,
        )


def _model_lines(work: Plan) -> Iterator[str]:
    for model in work.models:
        if not model.history:
            yield f"{model.name}: {_origin(model)}"
    earlier = sum(model.history for model in work.models)
    if earlier:
        yield f"with {count(earlier, 'earlier checkpoint')}, for the run history"


def _split_lines(work: Plan) -> Iterator[str]:
    for facts in work.split_facts:
        role = "seen in training" if facts.role == "seen" else "not in training"
        leaked = f"; {len(facts.leaks)} of them too near to training prompts" if facts.leaks else ""
        dropped = ", which were left out" if facts.dropped else ""
        prompts = count(facts.prompts, "prompt")
        yield f"  {facts.name}: {prompts}, {facts.source}, {role}{leaked}{dropped}"


def _reward_lines(work: Plan) -> Iterator[str]:
    for role, words in ROLES.items():
        if named := [_reward_name(reward) for reward in work.rewards if reward.role == role]:
            yield f"  scored by {', '.join(named)} ({words})"


def _reward_name(reward: PlannedReward) -> str:
    """The id of a reward, or the expression of an embedded variant."""
    return embedded_name(reward.id) if is_embedded(reward.resolved.card) else reward.id


def _people_lines(work: Plan) -> Iterator[str]:
    for file in work.people:
        yield f"  judged by people: {count(len(file.judgements), 'choice')} in {file.path}"


def _origin(model: ModelFacts) -> str:
    if model.kind == "images":
        return f"images in {model.checkpoint}"
    trained = f", trained on {model.trained_on}" if model.trained_on else ""
    return f"{model.kind} checkpoint, iteration {model.iteration}{trained}"


class Forecast:
    """The time that sampling takes, reported once, from the speed after the first block.

    Args:
        images: Number of images of the evaluation.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._first: tuple[int, float] | None = None  # sampled images and time, at the first block
        self._reported = False

    def line(self, event: EvalProgress, now: float) -> str | None:
        """The line after the second block of new images; None before and afterwards.

        Args:
            event: Progress of the evaluation.
            now: Time in seconds.
        """
        sampled = event.done - event.found
        if self._reported or event.stage != SAMPLING or sampled <= 0:
            return None
        if self._first is None or sampled <= self._first[0]:
            self._first = (sampled, now)
            return None
        self._reported = True
        each = (now - self._first[1]) / (sampled - self._first[0])
        left = duration(each * (self._images - event.done))
        return f"about {left} to sample the rest of {self._images:,} images; scoring comes after it"


def run_with_progress(work: Plan, console: Console) -> Outcome:
    """Runs the plan under progress bars with the time left."""
    from ddpo.eval.runner import run_evaluation

    if not is_first_process():
        return run_evaluation(work)
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    forecast = Forecast(work.image_count)
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def observe(event: EvalProgress) -> None:
            name = f"{event.stage} {event.what}".strip()
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=event.total)
            bars.update(tasks[name], completed=event.done, total=event.total)
            if line := forecast.line(event, time.monotonic()):
                console.print(line, markup=False, soft_wrap=True)

        return run_evaluation(work, observe)
