"""`ddpo train`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpo.errors import ConfigError, DdpoError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ddpo.trainer.events import Event


def train_command(
    reward: Annotated[
        list[str] | None,
        typer.Option(
            help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object, with :weight and :option=value,…; "
            "several are combined."
        ),
    ] = None,
    combine: Annotated[str | None, typer.Option(help="How several --reward become one number: sum (the default), min or pareto.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML file of settings, such as recipes/emoji.toml.")] = None,
    prompts: Annotated[str | None, typer.Option(help="A file with one prompt a line, or a built-in list.")] = None,
    model: Annotated[
        str | None, typer.Option(help="'emoji', a folder in diffusers' format, or a hub id of Stable Diffusion 1.x/2.x.")
    ] = None,
    algorithm: Annotated[str | None, typer.Option(help="ddpo_is or ddpo_sf.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Rollouts; with --resume the new total.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of prompts, noise and adapters.")] = None,
    device: Annotated[str | None, typer.Option(help="A torch device, such as cuda.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; default runs/<reward>-<time>.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run folder.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting, such as optim.lr=1e-4; repeatable.")] = None,
) -> None:
    """Finetune a model on a reward."""
    named = {
        "reward": _joined(reward, combine), "prompts": prompts, "model": model, "algorithm": algorithm, "iterations": iterations,
        "seed": seed, "device": device,
    }  # fmt: skip
    given = {name: value for name, value in named.items() if value is not None}
    if resume is not None:
        extra = {"--recipe": recipe, "--set": settings, "--out": out}
        others = [f"--{name}" for name in given if name != "iterations"] + [name for name, value in extra.items() if value]
        if others:
            raise ConfigError(
                f"--resume continues a run with its own settings; leave out {', '.join(others)} (only --iterations may change)"
            )
        folder = resume
    else:
        values = _values(recipe, given, settings or [])
        folder = out or Path("runs") / f"{_slug(str(values.get('reward', 'compressibility')))}-{time.strftime('%Y%m%d-%H%M%S')}"
    from ddpo.cli.quiet import quiet_libraries

    quiet_libraries()
    from ddpo.trainer.algorithms import algorithms
    from ddpo.trainer.config import TrainConfig, config_from_dict, merged
    from ddpo.trainer.loop import resume as resume_run
    from ddpo.trainer.loop import train

    if resume is not None:
        _show(resume_run(folder, iterations), folder)
    else:
        defaults = algorithms.get(str(values.get("algorithm", TrainConfig().algorithm))).defaults
        _show(train(config_from_dict(merged(defaults, values)), folder), folder)


def _joined(rewards: list[str] | None, combination: str | None) -> str | None:
    """The expression of all --reward."""
    from ddpo.rewards.spec import join_specs

    if combination is not None and not rewards:
        raise ConfigError("--combine says how several --reward become one number: give them")
    return join_specs(rewards, combination or "sum") if rewards else None


def _values(recipe: Path | None, given: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Recipe, then named options, then --set: the later wins."""
    from ddpo.trainer.config import read_recipe, set_value

    values = read_recipe(recipe) if recipe else {}
    values |= given
    for assignment in settings:
        set_value(values, assignment)
    return values


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in text).strip("-.")[:60]


def _show(events: Iterator[Event], folder: Path) -> None:
    """Draws the events; an interruption or failure says how to go on."""
    from ddpo.cli.training_display import TrainingDisplay

    display, begun = TrainingDisplay(folder), False
    go_on = f"ddpo train --resume {shlex.quote(str(folder))}"
    try:
        with display:
            for event in events:
                begun = True
                display.show(event)
    except KeyboardInterrupt:
        typer.echo(f"Stopped. The finished iterations are kept; go on with: {go_on}")
        raise typer.Exit(130) from None
    except DdpoError as error:
        if not begun and (isinstance(error, UserError) or not (folder / "config.json").exists()):
            raise
        state = folder / "state"
        kept = f"the finished iterations are kept in {state}" if state.exists() else "no iteration was finished"
        raise type(error)(f"{error} — {kept}; go on with: {go_on}") from error
    typer.echo(f"Run folder: {folder}")
    typer.echo(f"Next: ddpo eval --checkpoint {folder}")
