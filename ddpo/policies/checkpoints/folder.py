"""The checkpoint folder, written by `ddpo train` and read by ddpo and plain diffusers.

policy.json                         schema, model, base (place and fingerprint of a local model),
                                    kind ("lora" or "full"), iteration, LoRA settings, other weights
                                    digests of files (sha256) and of settings (facts_sha256)
pytorch_lora_weights.safetensors    kind "lora", for `pipeline.load_lora_weights(folder)`
unet/ or transformer/               kind "full", for `from_pretrained` of the denoiser's class

Models of plug-ins may have another file or folder of weights. Checkpoints of other
trainers have no policy.json (`ddpo.policies.checkpoints.external`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError
from ddpo.io.atomic import named_path
from ddpo.io.fields import (
    COUNT,
    FILE_NAME,
    NAME,
    SHORT,
    Fields,
    ListOf,
    MapOf,
    Maybe,
    Real,
    Whole,
    shown,
)
from ddpo.io.json_files import JsonError, check_fields, read_json
from ddpo.io.links import check_links
from ddpo.policies.checkpoints.external import fetch, needs_base, recognise
from ddpo.policies.checkpoints.lora import LORA_FILE
from ddpo.policies.model_place import facts_of, fingerprint, place_of, same_place
from ddpo.policies.pipelines import UNET
from ddpo.user_code import names_code, refuse_unnamed
from ddpo.weights import sha256_of

__all__ = [
    "BEST_FIELDS",
    "BEST_FILE",
    "LORA_FILE",
    "POLICY_FILE",
    "UNET",
    "BaseFacts",
    "CheckpointInfo",
    "check_base",
    "check_files",
    "check_present",
    "checkpoint_folders",
    "find_checkpoint",
    "write_facts",
]

POLICY_FILE: Final = "policy.json"
BEST_FILE: Final = "best.json"
"""File beside a run's checkpoints that names the best one by a held-out reward."""
SCHEMA: Final = 1
FOLDER_NAME: Final = re.compile(r"iteration-([0-9]{6,20})")
MOST_RANK: Final = 1 << 16
BEST_FIELDS: Final[Fields] = {"folder": NAME, "iteration": COUNT, "reward": str, "value": Real()}
POLICY_FIELDS: Final[Fields] = {
    "schema": int,
    "model": SHORT,
    "base": Maybe({"place": Maybe(SHORT), "fingerprint": Maybe(SHORT)}),
    "kind": SHORT,
    "iteration": COUNT,
    "adapter": Maybe(dict),
    "weights": Maybe(FILE_NAME),
    "sha256": Maybe(MapOf(SHORT)),
    "facts_sha256": Maybe(SHORT),
}
ADAPTER_FIELDS: Final[Fields] = {
    "rank": Whole(1, MOST_RANK),
    "alpha": Real(),
    "targets": ListOf(SHORT, shortest=1),
}
"""The settings of a LoRA of a model of diffusers; others have their own."""


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """A base model as recorded in a checkpoint or run."""

    word: str  # the user's spelling
    place: str = ""  # absolute path at training time; "" for names, hub ids and old files
    fingerprint: str = ""  # of the denoiser; "" without one

    @classmethod
    def of(cls, word: str, record: Mapping[str, Any]) -> BaseFacts:
        """The facts from a record of `facts_of`, which is empty in old files."""
        return cls(word, str(record.get("place") or ""), str(record.get("fingerprint") or ""))

    def usable(self) -> str:
        """The word that finds the base model from the current directory.

        It is the user's spelling if that leads to the recorded place or denoiser, and else the
        recorded place, which may no longer exist.
        """
        if not self.place or self.is_model(self.word):
            return self.word
        return self.place

    def is_model(self, word: str) -> bool:
        """True if a word names this model, by its denoiser if known and else by its place."""
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
    """The facts of a checkpoint folder."""

    folder: Path  # the checkpoint; for another trainer's, perhaps the file itself
    model: str  # id or folder of the base model
    kind: str  # "lora" or "full"
    iteration: int
    run: Path | None  # the run folder around it
    adapter: dict[str, Any]  # LoRA rank, alpha and targets
    weights: Path  # LORA_FILE or UNET, or other weights of other models and trainers
    base: BaseFacts | None = None  # the recorded base model; None for other trainers' files
    digests: Mapping[str, str] = field(default_factory=dict)  # file → SHA-256; {} in old ones
    facts_digest: str = ""  # as of `_facts_digest` when it was written; "" in old ones

    @property
    def external(self) -> bool:
        """True for a checkpoint of another trainer, in diffusers' formats and without facts."""
        return not (self.folder / POLICY_FILE).is_file()


def write_facts(
    folder: Path,
    model: str,
    kind: str,
    iteration: int,
    adapter: Mapping[str, Any] | None = None,
    weights: str | None = None,
) -> None:
    """Writes `policy.json`, after all other files, with their digests.

    Args:
        folder: Checkpoint folder with its weights.
        model: Model argument for `load_policy`.
        kind: "lora" or "full".
        iteration: Number of finished iterations.
        adapter: LoRA rank, alpha and targets.
        weights: File or folder of the weights if it is neither LORA_FILE nor UNET.
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
    record["sha256"] = {
        path.relative_to(folder).as_posix(): _content_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != POLICY_FILE
    }
    record["facts_sha256"] = _facts_digest(kind, iteration, record["adapter"])
    (folder / POLICY_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def find_checkpoint(
    path: Path | str, base: str | None = None, trust: Iterable[str] = ()
) -> CheckpointInfo:
    """The checkpoint at `path`, of ddpo or of another trainer.

    For a run folder it is the latest checkpoint; `RUN/best` is the best one by `held_out`. Other
    trainers' checkpoints are a folder with a UNet or a LoRA, a LoRA file, or a hub id "owner/name"
    or "owner/name/lora.safetensors". They have iteration 0 and no run.

    Args:
        path: Path or hub id.
        base: Base model; required for other trainers' checkpoints, else it must match.
        trust: Code that the checkpoint may name as its base model.

    Raises:
        UntrustedError: The checkpoint names code as its base model, which the caller does not.
        CheckpointError: There is no checkpoint, it is damaged, or `base` is missing or wrong.
        MissingResourceError: The hub id cannot be fetched.
    """
    name = str(path)
    path = named_path(path)
    if path.name == "best" and not path.exists() and path.parent.is_dir():
        return _with_base(_read(_best(path.parent)), base, trust)
    if not path.exists():
        found = fetch(name, base)
        if found is None:
            raise CheckpointError(f"{path}: no such checkpoint or run folder")
        path = found
    if (path / POLICY_FILE).is_file():
        return _with_base(_read(path), base, trust)
    folders = checkpoint_folders(path / "checkpoints")
    inside = [folder for folder in folders if (folder / POLICY_FILE).is_file()]
    if inside:
        return _with_base(_read(inside[-1]), base, trust)
    external = recognise(path)
    if external is None:
        raise CheckpointError(
            f"{name} is neither a checkpoint (no {POLICY_FILE}, no denoiser or LoRA as "
            "safetensors) nor a run with finished checkpoints"
        )
    if base is None:
        raise needs_base(name)
    return CheckpointInfo(path, base, external.kind, 0, None, external.adapter, external.weights)


def checkpoint_folders(checkpoints: Path) -> list[Path]:
    """The folders of a run's checkpoints by iteration, whatever their times; copies do not count.

    Args:
        checkpoints: folder of the checkpoints, which may be absent.
    """
    found = [
        (int(match[1]), folder)
        for folder in checkpoints.glob("iteration-*")
        if (match := FOLDER_NAME.fullmatch(folder.name))
    ]
    return [folder for _, folder in sorted(found)]


def check_base(info: CheckpointInfo, model: str) -> None:
    """Raises unless a word names the base model of a checkpoint.

    Raises:
        CheckpointError: The word names another model.
    """
    base = info.base or BaseFacts(info.model)
    if base.is_model(model):
        return
    if base.is_at(model):
        raise CheckpointError(
            f"{info.folder} was trained from {base.place}, whose denoiser has changed since: "
            "give a copy of the old one with --model"
        )
    place = f" ({base.place})" if base.place and base.place != base.word else ""
    raise CheckpointError(
        f"{info.folder} was trained from {base.word!r}{place}, not from {model!r}"
    )


def check_present(info: CheckpointInfo) -> None:
    """Raises if a checkpoint was removed after it was found, as a run does that prunes.

    Raises:
        CheckpointError: It is gone.
    """
    if not info.folder.exists():
        raise CheckpointError(
            f"{info.folder} was just removed, as a run removes old checkpoints: "
            "give the command again"
        )


def check_files(info: CheckpointInfo) -> None:
    """Compares the files of a checkpoint with the digests that were written with them, if any.

    Raises:
        CheckpointError: A file is missing or has changed.
    """
    facts = _facts_digest(info.kind, info.iteration, info.adapter)
    if info.facts_digest not in ("", facts):
        raise CheckpointError(
            f"{info.folder / POLICY_FILE} is damaged: kind, iteration or adapter have changed "
            "since it was written, by their SHA-256; use another checkpoint or a copy"
        )
    check_present(info)
    for name, written in info.digests.items():
        path = info.folder / name
        if not path.is_file():
            raise CheckpointError(f"{info.folder} lacks {name}")
        if _content_digest(path) != written:
            raise CheckpointError(
                f"{path} is damaged: its content has changed since it was written, by the SHA-256 "
                f"in {POLICY_FILE}; use another checkpoint or a copy"
            )


def _facts_digest(kind: str, iteration: int, adapter: Mapping[str, Any]) -> str:
    """SHA-256 of the settings without which the weights mean something else."""
    text = json.dumps([kind, iteration, adapter], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _content_digest(path: Path) -> str:
    """SHA-256 of a file; for safetensors, of its tensors, whose order in the file is random."""
    if path.suffix != ".safetensors":
        return sha256_of(path)
    from ddpo.io.tensors import tensor_file_digest

    return tensor_file_digest(path)


def _with_base(info: CheckpointInfo, base: str | None, trust: Iterable[str]) -> CheckpointInfo:
    if base is None:
        words = [info.model] if names_code(info.model) else []
        refuse_unnamed(info.folder / POLICY_FILE, words, trust)
        return info
    check_base(info, base)
    return replace(info, model=base)


def _best(run: Path) -> Path:
    """The folder named in the run's `best.json`."""
    file = (run if run.name == "checkpoints" else run / "checkpoints") / BEST_FILE
    if not file.exists():
        raise CheckpointError(
            f"{run} has no best checkpoint: only runs with the setting held_out choose one"
        )
    folder = file.with_name(read_json(file, {"folder": NAME})["folder"])
    if not (folder / POLICY_FILE).is_file():
        raise CheckpointError(f"{file} names {folder.name}, which is not there")
    return folder


def _read(folder: Path) -> CheckpointInfo:
    file = folder / POLICY_FILE
    record = read_json(file, {"schema": int})
    if record["schema"] != SCHEMA:
        raise CheckpointError(f"{file} has schema {record['schema']}, this ddpo reads {SCHEMA}")
    try:
        check_fields(record, POLICY_FIELDS)
        kind = record["kind"]
        if kind not in ("lora", "full"):
            raise JsonError(f"its kind cannot be {shown(kind)}")
        own = record.get("weights")
        adapter = record.get("adapter") or {}
        weights = folder / (own or (LORA_FILE if kind == "lora" else UNET))
        if not weights.is_file() and not weights.is_dir():
            raise CheckpointError(f"{folder} lacks {weights.name}")
        if kind == "lora" and not own:
            check_fields({"adapter": adapter}, {"adapter": ADAPTER_FIELDS})
        digests = _digests(record)
    except JsonError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    _check_links(folder)
    base = BaseFacts.of(record["model"], record.get("base") or {})
    # The second path is for ".", "../name" and links.
    around = (folder.parent.parent, folder.resolve().parent.parent)
    run = next((place for place in around if (place / "config.json").is_file()), None)
    facts = record.get("facts_sha256") or ""
    return CheckpointInfo(
        folder=folder,
        model=base.usable(),
        kind=kind,
        iteration=record["iteration"],
        run=run,
        adapter=adapter,
        weights=weights,
        base=base,
        digests=digests,
        facts_digest=facts,
    )


def _digests(record: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each file in a record of `policy.json`; empty for old ones.

    Raises:
        JsonError: A file lies outside the checkpoint folder.
    """
    digests: dict[str, str] = record.get("sha256") or {}
    for name in digests:
        if not FILE_NAME.accepts(name):
            raise JsonError(f"it names {shown(name)}, outside its folder")
    return digests


def _check_links(folder: Path) -> None:
    """Checks that nothing in a checkpoint leads out of its folder, or is a device or a pipe.

    A checkpoint in the cache of the hub consists of links into `blobs`, beside its `snapshots`.

    Raises:
        CheckpointError: Something does; it could be any file of this machine.
    """
    real = folder.resolve()
    blobs = [real.parent.parent / "blobs"] if real.parent.name == "snapshots" else []
    check_links(folder, allowed=blobs)
