"""The checkpoint folder: what `ddpo train` writes and what `ddpo sample`, `ddpo eval` and plain diffusers read.

policy.json                          schema, model, its place and fingerprint where it is local (base), kind ("lora" or "full"), iteration,
                                     LoRA settings, file of other weights, digest of each file (sha256)
pytorch_lora_weights.safetensors     kind "lora": diffusers' own format, for `pipeline.load_lora_weights(folder)`
unet/                                kind "full": a diffusers folder, for `UNet2DConditionModel.from_pretrained(folder, subfolder="unet")`
or another file or folder, of a model that is not Stable Diffusion

Checkpoints of other trainers have no policy.json (`ddpo.policies.checkpoints.external`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError
from ddpo.io.atomic import named_path
from ddpo.io.json_files import parse_json
from ddpo.policies.checkpoints.external import fetch, needs_base, recognise
from ddpo.policies.checkpoints.lora import LORA_FILE
from ddpo.policies.checkpoints.unet import UNET
from ddpo.policies.model_place import facts_of, fingerprint, place_of, same_place
from ddpo.weights import sha256_of

__all__ = [
    "BEST_FILE",
    "LORA_FILE",
    "POLICY_FILE",
    "UNET",
    "BaseFacts",
    "CheckpointInfo",
    "check_base",
    "check_files",
    "find_checkpoint",
    "write_facts",
]

POLICY_FILE: Final = "policy.json"
BEST_FILE: Final = "best.json"  # in the folder of a run's checkpoints: names the best by a reward that was not trained on
SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """A base model as a checkpoint or run names it."""

    word: str  # the user's spelling
    place: str = (
        ""  # its absolute path when it was trained from; "" for names and hub ids, and in old files
    )
    fingerprint: str = ""  # of its denoiser; "" where there is none

    @classmethod
    def of(cls, word: str, record: Mapping[str, Any]) -> BaseFacts:
        """The facts that `facts_of` wrote; old files have none."""
        return cls(word, str(record.get("place", "")), str(record.get("fingerprint", "")))

    def usable(self) -> str:
        """The word that finds the base model from the current directory.

        The spelling where it leads to the recorded place, or to a model with the same denoiser; else the
        recorded place, whether it is still there or not.
        """
        if not self.place or self.is_model(self.word):
            return self.word
        return self.place

    def is_model(self, word: str) -> bool:
        """True if a word names this model: by its denoiser if that is known, else by its place."""
        if not self.place:
            return same_place(word, self.word)
        if self.fingerprint:
            return fingerprint(word) == self.fingerprint
        return self.is_at(word)

    def is_at(self, word: str) -> bool:
        """True if a word leads to the recorded place."""
        place = place_of(word)
        return place is not None and place.place == self.place


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a checkpoint folder says of itself."""

    folder: Path  # where it lies; of another trainer's, perhaps the file
    model: str  # id or folder of the base model
    kind: str  # "lora" or "full"
    iteration: int
    run: Path | None  # the run folder that it lies in
    adapter: dict[str, Any]  # LoRA rank, alpha and targets
    weights: Path  # file or folder; LORA_FILE or UNET, but for models that are not Stable Diffusion and other trainers' files
    base: BaseFacts | None = (
        None  # the base model as the checkpoint names it; None for other trainers' files
    )
    digests: Mapping[str, str] = field(default_factory=dict)  # file → SHA-256; {} in old ones

    @property
    def foreign(self) -> bool:
        """Whether another trainer made it: diffusers' formats, and nothing is known but the weights."""
        return not (self.folder / POLICY_FILE).is_file()


def write_facts(
    folder: Path,
    model: str,
    kind: str,
    iteration: int,
    adapter: Mapping[str, Any] | None = None,
    weights: str | None = None,
) -> None:
    """Writes `policy.json`, last of all files, with the digests of those that are there.

    Args:
        folder: the checkpoint, with its weights.
        model: what `load_policy` is to be given.
        kind: "lora" or "full".
        iteration: after which it is written.
        adapter: LoRA rank, alpha and targets.
        weights: file or folder of the weights, if it is neither LORA_FILE nor UNET.
    """
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "model": model,
        "base": facts_of(model),
        "kind": kind,
        "iteration": iteration,
        "adapter": dict(adapter or {}),
    }
    if weights is not None:
        record["weights"] = weights
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    record["sha256"] = {
        path.relative_to(folder).as_posix(): _content_digest(path)
        for path in files
        if path.name != POLICY_FILE
    }
    (folder / POLICY_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def find_checkpoint(path: Path | str, base: str | None = None) -> CheckpointInfo:
    """The checkpoint at `path`.

    That folder itself, or the latest one of the run folder `path`; `RUN/best` is the best by `held_out`. Or what another trainer made:
    a folder with a UNet or a LoRA, a LoRA's file, a hub id "owner/name" or "owner/name/lora.safetensors" (iteration 0, no run).

    Args:
        path: a path or hub id.
        base: the base model; needed for what ddpo did not make, refused if it contradicts what ddpo made.

    Raises:
        CheckpointError: there is none, it is damaged, `base` is missing or wrong.
        MissingResourceError: a hub id that cannot be fetched.
    """
    name, path = str(path), named_path(path)
    if path.name == "best" and not path.exists() and path.parent.is_dir():
        return _of(_read(_best(path.parent)), base)
    if not path.exists():
        found = fetch(name, base)
        if found is None:
            raise CheckpointError(f"{path}: no such checkpoint or run folder")
        path = found
    if (path / POLICY_FILE).is_file():
        return _of(_read(path), base)
    inside = sorted(
        folder
        for folder in (path / "checkpoints").glob("iteration-*")
        if (folder / POLICY_FILE).is_file()
    )
    if inside:
        return _of(_read(inside[-1]), base)
    foreign = recognise(path)
    if foreign is None:
        raise CheckpointError(
            f"{name} is neither a checkpoint (no {POLICY_FILE}, no UNet or LoRA as safetensors) nor a run with finished checkpoints"
        )
    if base is None:
        raise needs_base(name)
    return CheckpointInfo(path, base, foreign.kind, 0, None, foreign.adapter, foreign.weights)


def check_base(info: CheckpointInfo, model: str) -> None:
    """Compares the base model of a checkpoint with a word.

    Raises:
        CheckpointError: the word names another model.
    """
    base = info.base or BaseFacts(info.model)
    if base.is_model(model):
        return
    if base.is_at(model):
        raise CheckpointError(
            f"{info.folder} was trained from {base.place}, whose denoiser has changed since: give a copy of the old one with --model"
        )
    was = f"{base.word!r}" + (f" ({base.place})" if base.place and base.place != base.word else "")
    raise CheckpointError(f"{info.folder} was trained from {was}, not from {model!r}")


def check_files(info: CheckpointInfo) -> None:
    """Compares the files of a checkpoint with the digests that were written with them, if any.

    Raises:
        CheckpointError: a file is missing or has changed.
    """
    for name, written in info.digests.items():
        path = info.folder / name
        if not path.is_file():
            raise CheckpointError(f"{info.folder} lacks {name}")
        if _content_digest(path) != written:
            raise CheckpointError(
                f"{path} is damaged: its content has changed since it was written, by the SHA-256 "
                f"in {POLICY_FILE}; use another checkpoint or a copy"
            )


def _content_digest(path: Path) -> str:
    """SHA-256 of a file; of safetensors that of its content, whose order in the file is random."""
    if path.suffix != ".safetensors":
        return sha256_of(path)
    from ddpo.io.tensors import tensor_file_digest

    return tensor_file_digest(path)


def _of(info: CheckpointInfo, base: str | None) -> CheckpointInfo:
    if base is None:
        return info
    check_base(info, base)
    return replace(info, model=base)


def _best(run: Path) -> Path:
    """The folder that the run's `best.json` names."""
    file = (run if run.name == "checkpoints" else run / "checkpoints") / BEST_FILE
    try:
        folder = file.with_name(str(parse_json(file.read_bytes())["folder"]))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{run} has no best checkpoint: only runs with the setting held_out choose one"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if not (folder / POLICY_FILE).is_file():
        raise CheckpointError(f"{file} names {folder.name}, which is not there")
    return folder


def _read(folder: Path) -> CheckpointInfo:
    file = folder / POLICY_FILE
    try:
        record = parse_json(file.read_bytes())
        schema, kind, iteration = record["schema"], str(record["kind"]), int(record["iteration"])
        base = BaseFacts.of(str(record["model"]), dict(record.get("base", {})))
        adapter = dict(record.get("adapter", {}))
        digests = {
            str(name): str(digest) for name, digest in dict(record.get("sha256", {})).items()
        }
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if schema != SCHEMA:
        raise CheckpointError(f"{file} has schema {schema}, this ddpo reads {SCHEMA}")
    if outside := [
        name for name in digests if Path(name).is_absolute() or ".." in Path(name).parts
    ]:
        raise CheckpointError(f"{file} is damaged: it names {outside[0]!r}, outside its folder")
    own = record.get("weights")
    weights = folder / str(own or (LORA_FILE if kind == "lora" else UNET))
    if not weights.exists():
        raise CheckpointError(f"{folder} lacks {weights.name}")
    if kind not in ("lora", "full") or (
        kind == "lora" and not own and not {"rank", "alpha", "targets"} <= set(adapter)
    ):
        raise CheckpointError(f"{file} is damaged: kind {kind!r} with adapter settings {adapter}")
    around = (
        folder.parent.parent,
        folder.resolve().parent.parent,
    )  # the second for ".", "../name" and links
    run = next((place for place in around if (place / "config.json").is_file()), None)
    return CheckpointInfo(
        folder, base.usable(), kind, iteration, run, adapter, weights, base, digests
    )
