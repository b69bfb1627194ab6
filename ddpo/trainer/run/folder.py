"""The run folder: what a training run leaves on disk, and what it resumes from.

    config.json          the resolved configuration
    manifest.json        versions, prompts and their source, reward signature, hardware
    metrics.jsonl        one line per iteration
    samples/             grids with fixed prompts and noise
    checkpoints/         iteration-000020/ …, see ddpo.policies.checkpoints.folder
    state/               exact state after the last finished iteration

Each file is written under a temporary name, synced and renamed: a kill or a power cut at any moment
loses at most the iteration under way.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from ddpo.errors import CheckpointError, ConfigError, DdpoError, RunExistsError, one_line
from ddpo.io.atomic import atomic_folder, write_json, write_text
from ddpo.io.json_files import check_fields, json_lines, parse_json, read_json
from ddpo.io.lock import LOCK_FILE, Ownership
from ddpo.io.sync import make_folder, sync_descriptor, sync_folder
from ddpo.io.tensors import load_tensors, save_tensors
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.failures import storing
from ddpo.trainer.monitoring.events import Metrics
from ddpo.trainer.recipe import config_from_dict

__all__ = ["RunFolder"]

STATE_FILE: Final = "state/state.safetensors"


class RunFolder:
    """One run's folder; `create` and `open` check what is there. Of several processes only one `writes`, whatever is called."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._ownership: Ownership | None = None

    def own(self) -> None:
        """Makes this process the only one that trains in the folder, until `close`.

        Raises:
            RunExistsError: another process does; names it.
        """
        if self.writes:
            advice = "wait for it to end, or choose another --out"
            self._ownership = Ownership(self.path / LOCK_FILE, self.path, "ddpo train", advice)

    def close(self) -> None:
        """Gives the folder up."""
        if self._ownership is not None:
            self._ownership.release()

    @staticmethod
    def check_new(path: Path) -> None:
        """Raises `RunExistsError` if there is something in `path`; the message says how to resume a run.

        What is left of a run that was killed while its folder was made does not count.
        """
        if path.exists() and (not path.is_dir() or _holds_something(path)):
            kept = "a run" if (path / "config.json").exists() else "something else"
            raise RunExistsError(
                f"{path} already holds {kept}: choose another --out"
                + (f", or continue it with --resume {path}" if kept == "a run" else "")
            )

    @classmethod
    def create(
        cls, path: Path, config: TrainConfig, manifest: Mapping[str, Any], writes: bool = True
    ) -> RunFolder:
        """A new run in `path`, which must not hold anything yet.

        Raises:
            RunExistsError: it does, and the message says how to resume; or another process is making one.
            ConfigError: the folder cannot be made.
        """
        if not writes:
            return cls(path, writes)
        cls.check_new(path)
        run = cls(path)
        try:
            make_folder(path)
            run.own()
            cls.check_new(path)  # another process may have been faster
            write_json(path / "manifest.json", manifest)
            write_json(path / "config.json", config.to_dict())
        except DdpoError:
            run.close()
            raise
        except OSError as error:
            (path / "manifest.json").unlink(missing_ok=True)  # without config.json it is of no use
            run.close()
            raise ConfigError(
                f"the run folder {path} cannot be written: {error.strerror}"
            ) from error
        return run

    @classmethod
    def open(cls, path: Path, writes: bool = True) -> RunFolder:
        """An existing run.

        Raises:
            CheckpointError: `path` is not a run folder.
        """
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path} is not a run folder: it has no config.json")
        return cls(path, writes)

    def config(self) -> TrainConfig:
        """The configuration that the run was started with.

        Raises:
            CheckpointError: the file is damaged.
        """
        values = read_json(self.path / "config.json")
        try:
            return config_from_dict(values)
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path / 'config.json'} is damaged: {error}") from error

    def manifest(self) -> dict[str, Any]:
        """What was written down when the run was started.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        return read_json(self.path / "manifest.json")

    def go_on(
        self, config: TrainConfig, changes: Mapping[str, tuple[Any, Any]], iteration: int
    ) -> None:
        """Makes the folder what it was after `iteration`, and writes down with which settings the run goes on.

        Args:
            config: the settings.
            changes: those that are not what they were: value before and now. They are kept in `manifest.json`.
            iteration: the last finished one.

        Raises:
            StorageFailure: something cannot be written.
        """
        if not self.writes:
            return
        with storing(self.path):
            self._sweep()
            self._cut_metrics(iteration)
            if changes:
                manifest = self.manifest() | {"config": config.to_dict()}
                note = {
                    "after": iteration,
                    "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "changed": changes,
                }
                write_json(self.path / "config.json", config.to_dict())
                write_json(
                    self.path / "manifest.json",
                    manifest | {"resumed": [*manifest.get("resumed", []), note]},
                )

    def _sweep(self) -> None:
        """Removes what a kill left half written."""
        for folder in (
            self.path,
            *(self.path / name for name in ("state", "samples", "checkpoints")),
        ):
            for left in folder.glob(".*.tmp"):
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()

    def append_metrics(self, metrics: Metrics) -> None:
        """Adds a line to `metrics.jsonl` and sees it onto the disk. Raises as `save_state`."""
        if not self.writes:
            return
        with (
            storing(self.path / "metrics.jsonl"),
            (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file,
        ):
            data = json.dumps(asdict(metrics)) + "\n"
            file.write(data)
            file.flush()
            sync_descriptor(file.fileno())
            if len(data) == file.tell():
                sync_folder(self.path)

    def _cut_metrics(self, iteration: int) -> None:
        """Drops the lines of iterations after `iteration`, and a line that a kill cut short."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in json_lines(path, {"iteration": int}):
            if line.record is None:
                break
            if line.record["iteration"] <= iteration:
                kept.append(json.dumps(line.record))
        write_text(path, "".join(line + "\n" for line in kept))

    def save_state(
        self, iteration: int, tensors: Mapping[str, torch.Tensor], statistics: Mapping[str, Any]
    ) -> None:
        """Replaces the exact state, in one file.

        Raises:
            StorageFailure: it cannot be written; the state before is whole.
        """
        if self.writes:
            with storing(self.path / STATE_FILE):
                save_tensors(
                    self.path / STATE_FILE,
                    tensors,
                    {"iteration": str(iteration), "statistics": json.dumps(statistics)},
                )

    def load_state(self) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]]:
        """Iteration, tensors and prompt statistics of the last finished iteration; iteration 0 if none was finished."""
        if not (self.path / STATE_FILE).exists():
            return 0, {}, {}
        tensors, metadata = load_tensors(self.path / STATE_FILE)
        try:
            iteration, statistics = int(metadata["iteration"]), parse_json(metadata["statistics"])
            check_fields({"statistics": statistics}, {"statistics": dict})
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{self.path / STATE_FILE} is damaged: {one_line(error)}"
            ) from error
        return iteration, tensors, statistics

    def grid(self, iteration: int) -> Path:
        """Where the grid of pictures is that is drawn after `iteration`."""
        return self.path / "samples" / f"iteration-{iteration:06d}.png"

    def checkpoint(self, iteration: int, policy: Any) -> Path:
        """Writes the policy's checkpoint folder, all of it or nothing. Raises as `save_state`."""
        folder = self.path / "checkpoints" / f"iteration-{iteration:06d}"
        if not self.writes:
            return folder
        with storing(folder), atomic_folder(folder) as temporary:
            policy.save(temporary, iteration)
        return folder


def _holds_something(folder: Path) -> bool:
    """True if a folder holds more than the first file of a run that never got its second one."""
    found = {path.name for path in folder.iterdir()}
    own = ("manifest.json", LOCK_FILE)
    began = {name for name in found if name in own or _is_temporary(name)}
    return bool(found - began)


def _is_temporary(name: str) -> bool:
    """True for the names under which a run's first two files are written."""
    return name.startswith((".manifest.json.", ".config.json.")) and name.endswith(".tmp")
