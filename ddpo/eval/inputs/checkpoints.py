"""Which checkpoints an evaluation compares: those that the user named, and earlier ones of the same runs for the course of training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpo.errors import CheckpointError, ConfigError
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.runs import RunFacts, read_run
from ddpo.io.tensors import tensor_file_digest
from ddpo.policies.checkpoints.folder import BaseFacts, CheckpointInfo, find_checkpoint

__all__ = ["EvalCheckpoint", "find_candidates", "weights_hash"]


@dataclass(frozen=True, slots=True)
class EvalCheckpoint:
    """A checkpoint to be evaluated, with what its run says of it."""

    facts: ModelFacts
    info: CheckpointInfo
    run: RunFacts


def find_candidates(
    paths: Sequence[str], *, base: str | None = None, seeds: int, history: int, history_seeds: int
) -> tuple[EvalCheckpoint, ...]:
    """The checkpoints at `paths`, in that order, each after up to `history` earlier ones of its run, evenly spaced.

    Args:
        paths: checkpoints, run folders (their last checkpoint) or hub ids.
        base: the base model, for checkpoints that do not name it.
        seeds: pictures per prompt of each.
        history: how many earlier checkpoints of each run are looked at.
        history_seeds: pictures per prompt of those.

    Raises:
        CheckpointError, MissingResourceError: no checkpoint there, a damaged one, or one of another base model than the first.
        ConfigError: the same checkpoint twice.
    """
    found = [
        (path, info, read_run(info.run)) for path in paths for info in [find_checkpoint(path, base)]
    ]
    _check_distinct([info for _, info, _ in found])
    _check_one_base([(path, info) for path, info, _ in found])
    named = {info.folder.resolve() for _, info, _ in found}
    names = _names([(path, info, run) for path, info, run in found])
    candidates: list[EvalCheckpoint] = []
    for (path, info, run), name in zip(found, names, strict=True):
        for earlier in _earlier(info, history, named):
            named.add(earlier.folder.resolve())
            title = f"{run.name}@{earlier.iteration}"
            candidates.append(
                _candidate(
                    title,
                    str(earlier.folder),
                    earlier,
                    run,
                    min(seeds, history_seeds),
                    history=True,
                )
            )
        candidates.append(_candidate(name, str(path), info, run, seeds, history=False))
    return tuple(candidates)


def weights_hash(weights: Path) -> str:
    """SHA-256 over a checkpoint's weights: the file, or the weight files of the folder in the order of their names."""
    digest = hashlib.sha256()
    for path in [weights] if weights.is_file() else sorted(weights.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _identity(info: CheckpointInfo) -> str:
    """The digest of a checkpoint's tensors; of an old checkpoint, that of its files, as before.

    Old ones keep theirs so that an evaluation of them resumes with the images that it has.
    """
    if not info.digests:
        return weights_hash(info.weights)
    weights = info.weights
    files = [weights] if weights.is_file() else sorted(weights.rglob("*.safetensors"))
    if any(file.suffix != ".safetensors" for file in files):
        return weights_hash(weights)
    return hashlib.sha256("".join(map(tensor_file_digest, files)).encode()).hexdigest()


def _candidate(
    name: str, checkpoint: str, info: CheckpointInfo, run: RunFacts, seeds: int, *, history: bool
) -> EvalCheckpoint:
    facts = ModelFacts(
        name=name,
        checkpoint=checkpoint,
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


def _names(found: Sequence[tuple[str, CheckpointInfo, RunFacts]]) -> list[str]:
    """Short distinct names: the run's folder; with the iteration where a run has several; numbered where even that is not distinct."""
    short = [run.name or Path(path).name for path, _, run in found]
    often = Counter(short)
    names: list[str] = []
    for name, (_, info, _) in zip(short, found, strict=True):
        wanted = f"{name}@{info.iteration}" if often[name] > 1 or name == BASE else name
        names.append(wanted if wanted not in names else f"{wanted} ({len(names) + 1})")
    return names


def _check_distinct(infos: Sequence[CheckpointInfo]) -> None:
    folders = [info.folder.resolve() for info in infos]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise ConfigError(f"the checkpoint {twice} was given twice")


def _check_one_base(found: Sequence[tuple[str, CheckpointInfo]]) -> None:
    """All must share the base model: pictures of different base models cannot be paired."""
    first = found[0]
    for path, info in found[1:]:
        if not (info.base or BaseFacts(info.model)).is_model(first[1].model):
            raise CheckpointError(
                f"{path} is a checkpoint of the model {info.model}, {first[0]} of {first[1].model}: one evaluation has one base model"
            )


def _earlier(info: CheckpointInfo, most: int, taken: set[Path]) -> list[CheckpointInfo]:
    """Up to `most` checkpoints of the same run before this one, evenly spaced, the newest included; half-written ones are left out."""
    if info.run is None or most < 1:
        return []
    before: list[CheckpointInfo] = []
    for folder in sorted((info.run / "checkpoints").glob("iteration-*")):
        try:
            other = find_checkpoint(folder)
        except CheckpointError:
            continue
        if other.iteration < info.iteration and other.folder.resolve() not in taken:
            before.append(other)
    if len(before) <= most:
        return before
    places = {round((step + 1) * len(before) / most) - 1 for step in range(most)}
    return [before[place] for place in sorted(places)]
