"""The run folder: the files of a training run, from which it also resumes.

    config.json          the resolved configuration
    manifest.json        versions, prompts and their source, reward signature, hardware
    metrics.jsonl        one line per iteration
    held_out.jsonl       held-out scores, one line per checkpoint
    samples/             image grids of fixed prompts and noise
    checkpoints/         iteration-000020/ …, see ddpo.policies.checkpoints.folder
    state/               exact state after the last finished iteration

Each file is written under a temporary name, synced and renamed. So a kill or a power cut at any
moment loses at most the iteration under way.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import (
    CheckpointError,
    ConfigError,
    RunExistsError,
    StorageFailure,
    TrainingDiverged,
    one_line,
)
from ddpo.io.atomic import (
    atomic_folder,
    check_folder_writable,
    remove_remains,
    storing,
    write_json,
)
from ddpo.io.fields import ListOf, MapOf, Real, shown
from ddpo.io.finite import finite
from ddpo.io.json_files import (
    JsonError,
    check_fields,
    parse_json,
    read_json,
)
from ddpo.io.links import check_links
from ddpo.io.lock import LOCK_FILE, Ownership
from ddpo.io.sync import make_folder
from ddpo.io.synced_lines import SyncedLines
from ddpo.rewards.setting_paths import NAMING, setting_words, storable
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.events import Metrics
from ddpo.trainer.recipe import config_from_dict
from ddpo.trainer.run.checkpoints import prune
from ddpo.trainer.run.divergence import forget_divergence, note_divergence
from ddpo.trainer.run.fields import MANIFEST, METRICS
from ddpo.trainer.run.stopping import cut_scores, forget_stop
from ddpo.trainer.run.unfinished import holds_something, remove_unfinished
from ddpo.user_code import trust_options

if TYPE_CHECKING:
    import torch

__all__ = ["RunFolder"]

STATE_FILE: Final = "state/state.safetensors"
STATISTICS: Final = MapOf(ListOf(Real()))
MOST_DIGITS: Final = 15  # of an iteration


class RunFolder:
    """The folder of one run, made by `create` or `open`.

    Args:
        path: the folder.
        writes: False on all processes but one, so that their calls write nothing.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self._ownership: Ownership | None = None
        lines = path / "metrics.jsonl"
        self._metrics = SyncedLines(lines, METRICS, "the metrics lack its iteration")

    def own(self, writes: bool) -> None:
        """Makes this process the only one that trains in the folder, until `close`.

        Args:
            writes: False on all processes but one, which then do not own it.

        Raises:
            RunExistsError: another process owns it; the message names that process.
            CheckpointError: a link in the folder leads out of it, where the run would write.
        """
        self.writes = writes
        if writes:
            check_links(self.path)
            advice = "wait for it to end, or choose another --out"
            self._ownership = Ownership(self.path / LOCK_FILE, self.path, "ddpo train", advice)

    def close(self) -> None:
        """Gives up the ownership."""
        if self._ownership is not None:
            self._ownership.release()

    @classmethod
    def check_new(cls, path: Path) -> None:
        """Checks that a new run can be made in `path`.

        The remains of a run that finished no iteration do not count.

        Raises:
            RunExistsError: something is there; the message says how to resume a run.
        """
        if path.exists() and (not path.is_dir() or holds_something(path)):
            if (path / "config.json").exists():
                options = cls(path).trust_options()
                raise RunExistsError(
                    f"{path} already holds a run: choose another --out, "
                    f"or continue it with --resume {shlex.quote(str(path))}{options}"
                )
            raise RunExistsError(f"{path} already holds something else: choose another --out")

    @staticmethod
    def check_writable(path: Path) -> None:
        """Makes sure that a run folder could be written, and leaves nothing.

        Raises:
            ConfigError: it could not.
        """
        check_folder_writable(path)

    @classmethod
    def create(
        cls, path: Path, config: TrainConfig, manifest: Mapping[str, Any], writes: bool = True
    ) -> RunFolder:
        """Makes a new run folder.

        Args:
            path: the folder, which must be empty or absent.
            config: settings of the run.
            manifest: facts that identify the run.
            writes: False on all processes but one.

        Raises:
            RunExistsError: something is there, and the message says how to resume a run; or another
                process is making a run there.
            ConfigError: the folder cannot be written.
        """
        if not writes:
            return cls(path, writes)
        cls.check_new(path)
        run = cls(path)
        try:
            make_folder(path)
            run.own(writes)
            cls.check_new(path)  # another process may have been faster
            remove_unfinished(path)
            write_json(path / "manifest.json", manifest)
            write_json(path / "config.json", storable(config.to_dict()))
        except RunExistsError:
            run.close()
            raise
        except OSError as error:
            (path / "manifest.json").unlink(missing_ok=True)  # without config.json it is of no use
            run.close()
            cause = error.__cause__ if isinstance(error, StorageFailure) else error
            reason = getattr(cause, "strerror", None) or one_line(error)
            raise ConfigError(f"the run folder {path} cannot be written: {reason}") from error
        return run

    @classmethod
    def open(cls, path: Path, writes: bool = True) -> RunFolder:
        """Opens the folder of an existing run.

        Raises:
            CheckpointError: `path` is not a run folder.
        """
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path} is not a run folder: it has no config.json")
        return cls(path, writes)

    def config(self) -> TrainConfig:
        """The settings of the run.

        Raises:
            CheckpointError: the file is damaged.
        """
        values = read_json(self.path / "config.json")
        try:
            return config_from_dict(values)
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path / 'config.json'} is damaged: {error}") from error

    def trust_options(self, settings: tuple[str, ...] | None = None) -> str:
        """The options, after a space, that name the code and the servers of the run; "" for none.

        Args:
            settings: names of the settings that count; None for all.
        """
        try:
            values = self.config().to_dict()
        except CheckpointError:
            return ""
        words = setting_words(values, settings or NAMING)
        return f" {trust_options(words)}" if words else ""

    def manifest(self) -> dict[str, Any]:
        """The facts that were written when the run was started.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        return read_json(self.path / "manifest.json", MANIFEST)

    def reopen(
        self, config: TrainConfig, changes: Mapping[str, tuple[Any, Any]], iteration: int
    ) -> None:
        """Restores the folder to its content after an iteration, and writes the settings since.

        Args:
            config: settings with which the run resumes.
            changes: settings that are not what they were, each with its value before and now.
                `manifest.json` keeps them.
            iteration: 1-based number of the last finished iteration.

        Raises:
            StorageFailure: something cannot be written.
        """
        if not self.writes:
            return
        with storing(self.path):
            self._sweep()
            forget_divergence(self.path)
            forget_stop(self.path)
            self._cut_metrics(iteration)
            cut_scores(self.path, iteration)
            if changes:
                settings = storable(config.to_dict())
                manifest = self.manifest() | {"config": settings}
                note = {
                    "after": iteration,
                    "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "changed": changes,
                }
                manifest["resumed"] = [*(manifest.get("resumed") or []), note]
                write_json(self.path / "config.json", settings)
                write_json(self.path / "manifest.json", manifest)
        self.prune(config.checkpoint_keep)

    def note_divergence(self, error: TrainingDiverged) -> None:
        """Writes the reason of a divergence, for readers of the folder."""
        if self.writes:
            note_divergence(self.path, error)

    def prune(self, keep: int) -> None:
        """Removes all checkpoints but the last `keep` and the best; 0 keeps all.

        Raises:
            StorageFailure: one cannot be removed.
        """
        if self.writes:
            prune(self.path / "checkpoints", keep)

    def _sweep(self) -> None:
        """Removes files that a kill left half written."""
        subfolders = [self.path / name for name in ("state", "samples", "checkpoints")]
        for folder in (self.path, *subfolders):
            remove_remains(folder)  # puts a checkpoint back that was moved aside
            for left in folder.glob(".*.tmp"):
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()

    def append_metrics(self, metrics: Metrics) -> None:
        """Appends a line to `metrics.jsonl` and flushes it to the disk.

        Raises:
            StorageFailure: it cannot be written.
        """
        if not self.writes:
            return
        self._metrics.append(finite(asdict(metrics)))

    def _cut_metrics(self, iteration: int) -> None:
        """Removes the metrics of iterations after `iteration`, and damaged lines."""
        kept = [line for line in self.metrics() if line["iteration"] <= iteration]
        self._metrics.replace(kept)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, without damaged ones.

        A warning names these, but for a last line that a kill cut short.
        """
        return self._metrics.read()

    def save_state(
        self, iteration: int, tensors: Mapping[str, torch.Tensor], statistics: Mapping[str, Any]
    ) -> None:
        """Replaces the exact state, in one file.

        Args:
            iteration: 1-based number of the iteration that is finished.
            tensors: parameters, optimizer moments and loss scale.
            statistics: running statistics of the prompts, as plain values.

        Raises:
            StorageFailure: it cannot be written; the state before is whole.
        """
        if self.writes:
            metadata = {"iteration": str(iteration), "statistics": json.dumps(statistics)}
            with storing(self.path / STATE_FILE):
                from ddpo.io.tensors import save_tensors

                save_tensors(self.path / STATE_FILE, tensors, metadata)

    def load_state(self) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]]:
        """Number, tensors and statistics of the last finished iteration; number 0 if there is none.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not (self.path / STATE_FILE).exists():
            return 0, {}, {}
        from ddpo.io.tensors import load_tensors

        tensors, metadata = load_tensors(self.path / STATE_FILE)
        try:
            check_fields(metadata, {"iteration": str, "statistics": str})
            text = metadata["iteration"]
            if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
                raise JsonError(f"its iteration cannot be {shown(text)}")
            statistics = parse_json(metadata["statistics"])
            check_fields({"statistics": statistics}, {"statistics": STATISTICS})
        except JsonError as error:
            raise CheckpointError(f"{self.path / STATE_FILE} is damaged: {error}") from error
        return int(text), tensors, statistics

    def grid(self, iteration: int) -> Path:
        """Path of the image grid after `iteration`."""
        return self.path / "samples" / f"iteration-{iteration:06d}.png"

    def checkpoint(self, iteration: int, policy: Any) -> Path:
        """Writes the policy's checkpoint folder, whole or not at all.

        Args:
            iteration: 1-based iteration number.
            policy: the policy, a `TrainablePolicy`.

        Raises:
            StorageFailure: it cannot be written.
        """
        folder = self.path / "checkpoints" / f"iteration-{iteration:06d}"
        if not self.writes:
            return folder
        with storing(folder), atomic_folder(folder) as temporary:
            policy.save(temporary, iteration)
        return folder
