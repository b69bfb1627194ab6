"""The run folder: what a training run leaves on disk, and what it resumes from.

    config.json          the resolved configuration
    manifest.json        versions, prompts and their source, reward signature, hardware
    metrics.jsonl        one line per iteration
    samples/             grids with fixed prompts and noise
    checkpoints/         iteration-000020/ …, see ddpo.policies.checkpoint
    state/               exact state after the last finished iteration

Each file is written under a temporary name and renamed, so a kill at any moment loses at most the iteration under way.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from ddpo.errors import CheckpointError, ConfigError, RunExistsError
from ddpo.files import write_json, write_text
from ddpo.tensorfile import load_tensors, save_tensors
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.events import Metrics
from ddpo.trainer.recipe import config_from_dict

__all__ = ["RunFolder"]

STATE_FILE: Final = "state/state.safetensors"


class RunFolder:
    """One run's folder; `create` and `open` check what is there. Of several processes only one `writes`, whatever is called."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    @staticmethod
    def check_new(path: Path) -> None:
        """Raises `RunExistsError` if there is something in `path`; the message says how to resume a run."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            kept = "a run" if (path / "config.json").exists() else "something else"
            raise RunExistsError(
                f"{path} already holds {kept}: choose another --out" + (f", or continue it with --resume {path}" if kept == "a run" else "")
            )

    @classmethod
    def create(cls, path: Path, config: TrainConfig, manifest: Mapping[str, Any], writes: bool = True) -> RunFolder:
        """A new run in `path`, which must not hold anything yet.

        Raises:
            RunExistsError: it does; the message says how to resume.
            ConfigError: the folder cannot be made.
        """
        if not writes:
            return cls(path, writes)
        cls.check_new(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / "manifest.json", manifest)
            write_json(path / "config.json", config.to_dict())
        except OSError as error:
            raise ConfigError(f"the run folder {path} cannot be written: {error.strerror}") from error
        return cls(path)

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
        try:
            values = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            return config_from_dict(values)
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path / 'config.json'} is damaged: {error}") from error

    def manifest(self) -> dict[str, Any]:
        """What was written down when the run was started.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        try:
            return dict(json.loads((self.path / "manifest.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{self.path / 'manifest.json'} is missing or damaged: {error}") from error

    def write_config(self, config: TrainConfig) -> None:
        """Replaces `config.json` (a resumed run may be longer)."""
        if self.writes:
            write_json(self.path / "config.json", config.to_dict())

    def append_metrics(self, metrics: Metrics) -> None:
        """Adds a line to `metrics.jsonl` and sees it onto the disk."""
        if not self.writes:
            return
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(metrics)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def cut_metrics(self, iteration: int) -> None:
        """Drops the lines of iterations after `iteration`, and a line that a kill cut short."""
        path = self.path / "metrics.jsonl"
        if not self.writes or not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["iteration"] <= iteration:
                    kept.append(line)
            except ValueError:
                break
        write_text(path, "".join(line + "\n" for line in kept))

    def save_state(self, iteration: int, tensors: Mapping[str, torch.Tensor], statistics: Mapping[str, Any]) -> None:
        """Replaces the exact state, in one file."""
        if self.writes:
            save_tensors(self.path / STATE_FILE, tensors, {"iteration": str(iteration), "statistics": json.dumps(statistics)})

    def load_state(self) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]]:
        """Iteration, tensors and prompt statistics of the last finished iteration; iteration 0 if none was finished."""
        if not (self.path / STATE_FILE).exists():
            return 0, {}, {}
        tensors, metadata = load_tensors(self.path / STATE_FILE)
        return int(metadata["iteration"]), tensors, json.loads(metadata["statistics"])

    def checkpoint(self, iteration: int, policy: Any) -> Path:
        """Writes the policy's checkpoint folder, all of it or nothing."""
        folder = self.path / "checkpoints" / f"iteration-{iteration:06d}"
        if not self.writes:
            return folder
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        policy.save(temporary, iteration)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        return folder
