"""One sampling of `ddpo sample`: its images, settings, and the facts that its folder records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.progress import track

from ddpo.cli.console import note, note_console
from ddpo.devices import AUTO, resolve_device
from ddpo.eval.inputs.checkpoints import weights_hash
from ddpo.eval.inputs.runs import read_run
from ddpo.images import to_pil
from ddpo.io.finite import finite
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import CheckpointInfo
from ddpo.policies.family import chosen_sampler, default_dtype
from ddpo.policies.model_place import facts_of
from ddpo.policies.sample_folder import SampleFolder, sample_folder
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images

__all__ = ["SamplingPlan", "plan_sampling"]

NUMBERS: Final = ("steps", "guidance", "eta")
WORDS: Final = ("transition", "grid")
BATCH: Final = 32  # images per call of the denoiser


def plan_sampling(
    model: str,
    info: CheckpointInfo | None,
    keys: Sequence[SampleKey],
    given: Mapping[str, Any],
    seed: int,
    device: str | None,
) -> SamplingPlan:
    """The plan of a sampling; what is not given is the run's, else the model family's.

    Args:
        model: Base model.
        info: Checkpoint; None for the base model itself.
        keys: Keys of the images.
        given: Settings of the sampler that the user gave; None for those left out.
        seed: Seed of the noise.
        device: Torch device; None for the run's.

    Raises:
        ConfigError: A setting or the device does not fit.
    """
    config = dict(read_run(info.run).config) if info is not None else {}
    values = chosen_sampler(model, config.get("sample", {}), given)
    settings = SamplerSettings(**values | {"batch": min(BATCH, len(keys))})
    place = resolve_device(device or str(config.get("device", AUTO)))
    dtype = str(config.get("dtype") or default_dtype(model, place))
    return SamplingPlan(model, info, keys, settings, seed, place, dtype)


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """All that fixes the images of a sampling."""

    model: str
    info: CheckpointInfo | None  # the checkpoint; None for the base model itself
    keys: Sequence[SampleKey]
    settings: SamplerSettings
    seed: int
    device: str
    dtype: str

    @property
    def facts(self) -> dict[str, Any]:
        """The settings that metadata.jsonl and --json state, as plain values."""
        settings = self.settings
        return {
            "model": self.model,
            "checkpoint": str(self.info.folder) if self.info else None,
            **{name: getattr(settings, name) for name in NUMBERS},
            **{name: word for name in WORDS if (word := getattr(settings, name)) != AUTO},
            **({"size": list(settings.size)} if settings.size else {}),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """The facts that fix the pixels and are not in metadata.jsonl, as JSON values."""
        return {
            "base": facts_of(self.model),
            "weights": weights_hash(self.info.weights) if self.info else "",
            "batch": self.settings.batch,
            "dtype": self.dtype,
            "device": self.device.partition(":")[0],
        }

    def write(self, out: Path, columns: int) -> Path:
        """Writes the images that the folder lacks, and returns the path of the contact sheet.

        Args:
            out: Folder for the images.
            columns: Columns of the contact sheet.

        Raises:
            RunExistsError: The folder holds something else, or another process writes to it.
            StorageFailure: A file cannot be written.
        """
        facts = self.facts
        rows = [_metadata_row(key, self.seed, facts) for key in self.keys]
        with sample_folder(out, rows, self.identity) as folder:
            self._write_images(folder)
            return folder.finish(columns=columns)

    def _write_images(self, folder: SampleFolder) -> None:
        """Writes each batch once sampled, after those that an interrupted sampling left."""
        policy = load_policy(
            self.model, self.info, device=self.device, dtype=self.dtype, size=self.settings.size
        )
        batch_size = self.settings.batch
        done = folder.keep_finished(batch_size)
        if done:
            note(f"{done} of {len(self.keys)} images are there already")
        batches = sample_images(policy, self.keys[done:], self.settings, self.seed)
        total = -(-(len(self.keys) - done) // batch_size)
        console = note_console()
        hidden = not console.is_terminal
        for batch in track(batches, "sampling", total=total, console=console, disable=hidden):
            folder.add(done, to_pil(batch.pixels))
            done += len(batch)


def _metadata_row(key: SampleKey, seed: int, facts: dict[str, Any]) -> dict[str, Any]:
    """The line of metadata.jsonl of one image."""
    row = {
        "file_name": f"{key.prompt.id}-{key.index}.png",
        "prompt": key.prompt.text,
        "index": key.index,
        "seed": seed,
        "settings": facts,
    }
    if key.prompt.metadata:
        row["metadata"] = finite(dict(key.prompt.metadata))
    return row
