"""The checkpoints of an evaluation: those the user named, and earlier ones for the run history."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpo.errors import CheckpointError, ConfigError, UntrustedError
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.runs import RunFacts, read_run
from ddpo.io.json_files import say_once
from ddpo.policies.checkpoints.folder import (
    BaseFacts,
    CheckpointInfo,
    checkpoint_folders,
    find_checkpoint,
)

__all__ = [
    "EvalCheckpoint",
    "NamedCheckpoint",
    "find_eval_checkpoints",
    "find_named",
    "weights_hash",
]


@dataclass(frozen=True, slots=True)
class EvalCheckpoint:
    """A checkpoint of the evaluation, with the facts about its run."""

    facts: ModelFacts
    info: CheckpointInfo
    run: RunFacts


@dataclass(frozen=True, slots=True)
class NamedCheckpoint:
    """A checkpoint that the user named."""

    path: str  # as the user named it
    info: CheckpointInfo
    run: RunFacts


def find_eval_checkpoints(
    found: Sequence[NamedCheckpoint],
    *,
    seeds: int,
    history: int,
    history_seeds: int,
    trust: Iterable[str] = (),
) -> tuple[EvalCheckpoint, ...]:
    """The named checkpoints in that order, each after earlier ones of its run, evenly spaced.

    Args:
        found: result of `find_named`.
        seeds: images per prompt of each checkpoint.
        history: largest number of earlier checkpoints of each run.
        history_seeds: images per prompt of each earlier checkpoint.
        trust: code that a checkpoint may name as its base model.
    """
    taken = {one.info.folder.resolve() for one in found}
    checkpoints: list[EvalCheckpoint] = []
    for one, name in zip(found, _names(found), strict=True):
        for earlier in _earlier(one.info, history, taken, trust):
            taken.add(earlier.folder.resolve())
            title = f"{one.run.name}@{earlier.iteration}"
            before = NamedCheckpoint(str(earlier.folder), earlier, one.run)
            checkpoints.append(_described(before, title, min(seeds, history_seeds), history=True))
        checkpoints.append(_described(one, name, seeds, history=False))
    return tuple(checkpoints)


def find_named(
    paths: Sequence[str], base: str | None = None, trust: Iterable[str] = ()
) -> list[NamedCheckpoint]:
    """The checkpoints that the user named, with their runs; torch is not imported.

    Args:
        paths: checkpoints, run folders (their last checkpoint) or hub ids.
        base: base model of checkpoints that do not name it.
        trust: code that a checkpoint may name as its base model.

    Raises:
        CheckpointError, MissingResourceError: a checkpoint is missing, damaged, or of another base
            model than the first.
        ConfigError: the same checkpoint is named twice.
        UntrustedError: a checkpoint names code as its base model, which the caller does not.
    """
    found: list[NamedCheckpoint] = []
    for path in paths:
        info = find_checkpoint(path, base, trust)
        found.append(NamedCheckpoint(path, info, read_run(info.run)))
    _check_distinct([one.info for one in found])
    _check_one_base(found)
    return found


def weights_hash(weights: Path) -> str:
    """SHA-256 over a checkpoint's weights.

    Args:
        weights: the weight file, or a folder whose weight files count in the order of their names.
    """
    digest = hashlib.sha256()
    for path in [weights] if weights.is_file() else sorted(weights.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _identity(info: CheckpointInfo) -> str:
    """The digest of a checkpoint's tensors and adapter settings, whatever its files look like.

    Checkpoints without digests, of older versions, keep the hash of their files as their identity,
    so that an evaluation of them resumes with its images.
    """
    if not info.digests:
        return weights_hash(info.weights)
    weights = info.weights
    files = [weights] if weights.is_file() else sorted(weights.rglob("*.safetensors"))
    if any(file.suffix != ".safetensors" for file in files):
        return weights_hash(weights)
    facts = {"adapter": json.dumps(info.adapter, sort_keys=True)}
    from ddpo.io.tensors import tensor_files_digest

    return tensor_files_digest(files, facts)


def _described(found: NamedCheckpoint, name: str, seeds: int, *, history: bool) -> EvalCheckpoint:
    info = found.info
    run = found.run
    facts = ModelFacts(
        name=name,
        checkpoint=str(found.path),
        kind=info.kind,
        run=run.name,
        iteration=info.iteration,
        queries=run.queries(info.iteration),
        trained_on=run.trained_on,
        training_seed=run.training_seed,
        seeds=seeds,
        history=history,
        identity=_identity(info),
        recipe=run.recipe,
    )
    return EvalCheckpoint(facts, info, run)


def _names(found: Sequence[NamedCheckpoint]) -> list[str]:
    """Short distinct names: the run's folder, then with the iteration, then with a number."""
    short = [one.run.name or Path(one.path).name for one in found]
    often = Counter(short)
    names: list[str] = []
    for name, one in zip(short, found, strict=True):
        numbered = f"{name}@{one.info.iteration}"
        title = numbered if often[name] > 1 or name == BASE else name
        names.append(title if title not in names else f"{title} ({len(names) + 1})")
    return names


def _check_distinct(infos: Sequence[CheckpointInfo]) -> None:
    folders = [info.folder.resolve() for info in infos]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise ConfigError(f"the checkpoint {twice} was given twice")


def _check_one_base(found: Sequence[NamedCheckpoint]) -> None:
    """Refuses several base models: images of different base models cannot be paired."""
    first = found[0]
    for one in found[1:]:
        if not (one.info.base or BaseFacts(one.info.model)).is_model(first.info.model):
            raise CheckpointError(
                f"{one.path} is a checkpoint of the model {one.info.model}, "
                f"{first.path} of {first.info.model}: one evaluation has one base model"
            )


def _earlier(
    info: CheckpointInfo, most: int, taken: set[Path], trust: Iterable[str]
) -> list[CheckpointInfo]:
    """Up to `most` earlier checkpoints of the same run, evenly spaced, the newest included.

    Checkpoints that cannot be read, such as half-written ones, or that name other code are left
    out with a warning.
    """
    if info.run is None or most < 1:
        return []
    before: list[CheckpointInfo] = []
    for folder in checkpoint_folders(info.run / "checkpoints"):
        try:
            other = find_checkpoint(folder, trust=(*trust, info.model))
        except (CheckpointError, UntrustedError) as error:
            say_once(f"the earlier checkpoint {folder.name} is left out: {error}")
            continue
        if other.iteration < info.iteration and other.folder.resolve() not in taken:
            before.append(other)
    if len(before) <= most:
        return before
    places = {round((step + 1) * len(before) / most) - 1 for step in range(most)}
    return [before[place] for place in sorted(places)]
