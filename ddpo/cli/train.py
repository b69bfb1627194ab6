"""`ddpo train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddpo.cli.commands import examples
from ddpo.cli.console import echo, print_json, quiet_libraries
from ddpo.cli.early import (
    check_resumed,
    check_reward_weights,
    check_settings,
    check_trackers,
    check_training,
)
from ddpo.cli.options import Trust
from ddpo.cli.training_options import (
    Algorithm,
    AsJsonLines,
    Combination,
    DryRun,
    HeldOut,
    Iterations,
    Limit,
    LowMemory,
    Model,
    Out,
    PrintConfig,
    Prompts,
    Recipe,
    Resume,
    Rewards,
    Seed,
    Settings,
    StopWhen,
    Trackers,
    TrainDevice,
)
from ddpo.cli.training_run import show_dry_run, show_run
from ddpo.errors import ConfigError

Layers = list[tuple[str, dict[str, Any]]]
"""Settings with the words for their source; later ones win."""


@examples(
    "ddpo train --reward compressibility --out runs/demo",
    "ddpo train --reward ./my_reward.py:redness --dry-run",
    "ddpo train --resume runs/demo --iterations 20",
)
def train_command(
    reward: Rewards = None,
    combine: Combination = None,
    recipe: Recipe = None,
    prompts: Prompts = None,
    limit: Limit = None,
    model: Model = None,
    algorithm: Algorithm = None,
    iterations: Iterations = None,
    seed: Seed = None,
    device: TrainDevice = None,
    out: Out = None,
    resume: Resume = None,
    held_out: HeldOut = None,
    stop_when: StopWhen = None,
    dry_run: DryRun = False,
    print_config: PrintConfig = False,
    low_memory: LowMemory = False,
    track: Trackers = None,
    settings: Settings = None,
    trust: Trust = None,
    as_json: AsJsonLines = False,
) -> None:
    """Finetune a model on a reward, into a run folder with checkpoints and metrics."""
    named = {
        "reward": _joined(reward, combine),
        "prompts": prompts,
        "prompt_limit": limit,
        "model": model,
        "algorithm": algorithm,
        "iterations": iterations,
        "seed": seed,
        "device": device,
        "held_out": held_out,
        "stop_when": stop_when,
        "low_memory": low_memory or None,
    }
    given = {name: value for name, value in named.items() if value is not None}
    layers = _layers(recipe, given, settings or [])
    if resume is not None:
        if others := [
            name
            for name, value in {
                "--out": out,
                "--dry-run": dry_run,
                "--print-config": print_config,
            }.items()
            if value
        ]:
            raise ConfigError(
                f"--resume continues a run where it is; leave out {' and '.join(others)}"
            )
        _resume(resume, layers, track or [], trust or [], as_json)
        return
    if trust:
        raise ConfigError("--trust is about the files of a run: give it with --resume RUN")
    if print_config:
        _print_config(layers, as_json)
        return
    folder = out or _default_folder(layers)
    if dry_run:
        _dry_run(folder, layers, track or [], as_json)
    else:
        _train(folder, layers, track or [], as_json)


def _resume(
    folder: Path, layers: Layers, track: list[str], trust: list[str], as_json: bool
) -> None:
    check_trackers(track)
    settings = _merged(layers)
    check_resumed(folder, settings, trust)
    trackers = _checked_trackers(track)
    quiet_libraries()
    from ddpo.trainer import resume

    show_run(resume(folder, settings=settings, trust=trust), folder, trackers, as_json)


def _train(folder: Path, layers: Layers, track: list[str], as_json: bool) -> None:
    check_reward_weights(check_training(layers, folder, track))
    trackers = _checked_trackers(track)
    quiet_libraries()
    from ddpo.trainer import train
    from ddpo.trainer.settings import resolve_config

    show_run(train(resolve_config(layers), folder), folder, trackers, as_json)


def _print_config(layers: Layers, as_json: bool) -> None:
    """Prints the resolved settings as a recipe, or as JSON."""
    from ddpo.policies.model_place import locate
    from ddpo.trainer.recipe import recipe_of
    from ddpo.trainer.settings import resolve_config, written_config

    config = written_config(layers)
    locate(config.model)
    check_settings(config)
    resolved = resolve_config(layers)
    if as_json:
        print_json(resolved.to_dict())
    else:
        echo(recipe_of(resolved).rstrip())


def _dry_run(folder: Path, layers: Layers, track: list[str], as_json: bool) -> None:
    check_training(layers, folder, track)
    _checked_trackers(track)
    quiet_libraries()
    from ddpo.trainer.loop import dry_run
    from ddpo.trainer.settings import resolve_config

    show_dry_run(dry_run(resolve_config(layers), folder), folder, as_json)


def _default_folder(layers: Layers) -> Path:
    """runs/<reward>-<time>."""
    from ddpo.trainer.run.naming import new_run_folder

    return new_run_folder(str(_merged(layers).get("reward", "compressibility")))


def _joined(rewards: list[str] | None, combination: str | None) -> str | None:
    """All --reward as one expression."""
    from ddpo.rewards.spec import join_specs

    if combination is not None and not rewards:
        raise ConfigError("--combine says how several --reward become one number: give them")
    return join_specs(rewards, combination or "sum") if rewards else None


def _layers(recipe: str | None, given: dict[str, Any], settings: list[str]) -> Layers:
    """The settings of the recipe, then of the named options, then of --set."""
    from ddpo.trainer.recipe import read_recipe, set_value

    layers: Layers = []
    if recipe:
        layers.append((f"recipe {recipe}", read_recipe(recipe)))
    layers += [(_option_of(name), {name: value}) for name, value in given.items()]
    for assignment in settings:
        values: dict[str, Any] = {}
        set_value(values, assignment)
        layers.append(("--set", values))
    return layers


def _option_of(setting: str) -> str:
    """The option that gives a setting."""
    return "--limit" if setting == "prompt_limit" else f"--{setting.replace('_', '-')}"


def _merged(layers: Layers) -> dict[str, Any]:
    """The values of all layers."""
    from ddpo.trainer.recipe import merged

    values: dict[str, Any] = {}
    for _, layer in layers:
        values = merged(values, layer)
    return values


def _checked_trackers(names: list[str]) -> list[str]:
    """The names of trackers, each once.

    Raises:
        DdpoError: A tracker is unknown, or its package is missing.
    """
    from ddpo.trainer.monitoring.tracking import check_tracker

    check_trackers(names)
    for name in names:
        check_tracker(name)
    return list(dict.fromkeys(names))
