"""Training and evaluation from Python: a run with its metrics and images, and a report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpo.api.progress import EvaluationLines, iteration_line, show_iteration
from ddpo.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from ddpo.api.names import AlgorithmName, ModelName, PromptList, RecipeName, RewardName
    from ddpo.api.rewards import RewardLike
    from ddpo.eval.report.data import Report
    from ddpo.trainer.config import TrainConfig
    from ddpo.trainer.monitoring.events import Event

__all__ = ["Run", "evaluate", "iteration_line", "load_run", "train"]

log = logging.getLogger(__name__)


def train(
    reward: RewardLike,
    *,
    out: str | Path | None = None,
    prompts: PromptList | str | None = None,
    iterations: int | None = None,
    model: ModelName | str | None = None,
    algorithm: AlgorithmName | str | None = None,
    held_out: RewardName | str | None = None,
    seed: int | None = None,
    device: str | None = None,
    recipe: RecipeName | str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool = False,
    observe: Callable[[Event], object] | None = None,
) -> Run:
    """Finetunes a model on a reward and returns the finished run, as `ddpo train` does.

    Args:
        reward: name such as "compressibility", or a function `f(images, prompts)`.
        out: new run folder; None for runs/<reward>-<time>. An existing run is resumed by `resume`.
        prompts: built-in list, or a file with one prompt a line.
        iterations: number of rollouts.
        model: base model, such as "emoji", a folder in diffusers' format or a hub id.
        algorithm: name of the algorithm, such as "ddpo_is".
        held_out: reward that is not trained on, whose scores choose the best checkpoint.
        seed: seed of prompts, noise and adapters.
        device: device of the model, such as "cuda".
        recipe: TOML file of settings, or the name of a built-in recipe.
        settings: further settings by name, such as {"optim.lr": 1e-4}.
        progress: True prints one line per iteration; else they are logged at the level INFO.
        observe: receiver of each event.

    Raises:
        UserError: a setting, name or folder does not fit; raised before anything is written.
        RewardFailure: the reward failed; finished iterations are kept.
        TrainingDiverged: a loss or image is not finite.
    """
    from ddpo.api.rewards import spec_of
    from ddpo.trainer import train as start
    from ddpo.trainer.run.naming import new_run_folder
    from ddpo.trainer.settings import resolve_config

    named = {
        "prompts": prompts,
        "iterations": iterations,
        "model": model,
        "algorithm": algorithm,
        "held_out": held_out,
        "seed": seed,
        "device": device,
    }
    given = {name: value for name, value in named.items() if value is not None}
    layers = _layers({"reward": spec_of(reward), **given}, recipe, settings or {})
    config = resolve_config(layers)
    folder = Path(out).expanduser() if out is not None else new_run_folder(config.reward)
    return _followed(start(config, folder), folder, progress, observe)


def _layers(
    given: Mapping[str, Any], recipe: str | None, settings: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any]]]:
    """The settings of a recipe, then those of the caller."""
    from ddpo.trainer.recipe import merged, read_recipe
    from ddpo.trainer.settings import GIVEN

    below = [(f"recipe {recipe}", read_recipe(recipe))] if recipe else []
    values: dict[str, Any] = dict(given)
    for name, value in settings.items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        values = merged(values, nested)
    return [*below, (GIVEN, values)]


def _followed(
    events: Any, folder: Path, progress: bool, observe: Callable[[Event], object] | None
) -> Run:
    show = show_iteration if progress else _log_iteration
    try:
        for event in events:
            show(event)
            if observe is not None:
                observe(event)
    finally:
        events.close()
    return Run(folder)


def _log_iteration(event: Event) -> None:
    from ddpo.trainer.monitoring.events import IterationDone

    if isinstance(event, IterationDone):
        log.info("%s", iteration_line(event))


def load_run(path: str | Path) -> Run:
    """The run in a folder of `ddpo train`.

    Raises:
        CheckpointError: `path` is not a run folder.
    """
    from ddpo.trainer.run.folder import RunFolder

    folder = Path(path).expanduser()
    RunFolder.open(folder)
    return Run(folder)


class Run:
    """A training run on disk; its files are read when they are asked for.

    Args:
        path: the run folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> TrainConfig:
        """The settings of the run."""
        from ddpo.trainer.run.folder import RunFolder

        return RunFolder.open(self.path).config()

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per finished iteration, with the columns of `metrics.jsonl`."""
        import pandas as pd

        from ddpo.io.json_files import json_lines

        lines = json_lines(self.path / "metrics.jsonl")
        records = [line.record for line in lines if line.record is not None]
        return pd.DataFrame(records).set_index("iteration") if records else pd.DataFrame()

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Iteration → folder of each checkpoint on disk."""
        found = sorted((self.path / "checkpoints").glob("iteration-*"))
        return {int(folder.name.rpartition("-")[2]): folder for folder in found}

    def samples(self) -> dict[int, Image.Image]:
        """Iteration → grid of images of fixed prompts and noise, from before training (0) on."""
        from ddpo.images import load_image

        return {iteration: load_image(file) for iteration, file in self.grids().items()}

    def grids(self) -> dict[int, Path]:
        """Iteration → file of each grid of images."""
        found = sorted((self.path / "samples").glob("iteration-*.png"))
        return {int(file.stem.rpartition("-")[2]): file for file in found}

    def resume(
        self,
        iterations: int | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        progress: bool = False,
        observe: Callable[[Event], object] | None = None,
    ) -> Run:
        """Trains on after the last finished iteration and returns this run.

        Args:
            iterations: new total of iterations; None for that of the run.
            settings: settings by name that may change.
            progress: True prints one line per iteration; else they are logged at the level INFO.
            observe: receiver of each event.

        Raises:
            UserError: the run cannot be resumed with these settings.
        """
        from ddpo.trainer import resume

        values = _layers({}, None, settings or {})[-1][1]
        return _followed(resume(self.path, iterations, values), self.path, progress, observe)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        config = self.config
        done = len(self.metrics)
        return f"<run {self.path}: {config.reward}, {done} of {config.iterations} iterations>"

    def _repr_html_(self) -> str:
        from ddpo.api.html import run_html

        return run_html(self)


def evaluate(
    *runs: Run | str | Path,
    rewards: RewardLike | Sequence[RewardLike] = (),
    prompts: PromptList | str | Sequence[PromptList | str] = (),
    out: str | Path | None = None,
    progress: bool = False,
    **settings: Any,
) -> Report:
    """Compares runs with their base model and returns the report, as `ddpo eval` does.

    Args:
        runs: runs or checkpoints; none if `images` are given.
        rewards: further rewards, beside the one trained on.
        prompts: lists or files of prompts, "NAME=FILE" to name the split.
        out: folder of the report; None for that of `ddpo eval`.
        progress: True prints one line per model that is sampled and per reward that scores.
        **settings: further fields of `ddpo.eval.EvalConfig`, such as seeds=8.

    Raises:
        UserError: a setting cannot be used; raised before a model is loaded.
        RewardFailure: a reward failed while scoring; finished images and scores are kept.
    """
    from ddpo.api.rewards import spec_of
    from ddpo.eval import EvalConfig
    from ddpo.eval import evaluate as evaluated

    given: Sequence[Any] = rewards if isinstance(rewards, list | tuple) else [rewards]
    try:
        config = EvalConfig(
            checkpoints=tuple(str(run.path if isinstance(run, Run) else run) for run in runs),
            rewards=tuple(spec_of(reward) for reward in given),
            prompts=prompts,  # type: ignore[arg-type]  # made a tuple there
            out=Path(out).expanduser() if out is not None else None,
            **settings,
        )
    except TypeError as error:
        known = ", ".join(sorted(EvalConfig.__dataclass_fields__))
        raise ConfigError(f"{error}; settings of an evaluation are {known}") from error
    return evaluated(config, observe=EvaluationLines() if progress else None)
