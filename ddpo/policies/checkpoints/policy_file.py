"""The file policy.json of a checkpoint folder: its facts, and the digests of the other files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError
from ddpo.io.fields import COUNT, FILE_NAME, SHORT, Fields, ListOf, MapOf, Maybe, Real, Whole, shown
from ddpo.io.json_files import JsonError, check_fields, read_json
from ddpo.io.links import check_links
from ddpo.policies.checkpoints.info import POLICY_FILE, BaseFacts, CheckpointInfo
from ddpo.policies.checkpoints.lora import LORA_FILE
from ddpo.policies.model_place import facts_of
from ddpo.policies.pipelines import UNET
from ddpo.weights import sha256_of

__all__ = ["check_files", "check_present", "read_facts", "write_facts"]

SCHEMA: Final = 1
MOST_RANK: Final = 1 << 16
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


def read_facts(folder: Path) -> CheckpointInfo:
    """The facts of a checkpoint folder, whose weights are not read.

    Raises:
        CheckpointError: The file is damaged or of another schema, or weights are missing.
    """
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
