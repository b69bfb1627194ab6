"""Readers of the scalars, images and settings in files of TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL = 1
LAST = 4


@dataclass
class Recorded:
    """The records of a run; a name that was logged twice at a step is there twice."""

    scalars: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    images: list[int] = field(default_factory=list)  # their steps
    settings: dict[str, Any] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    ended: int = 0


def read_tensorboard(folder: Path) -> Recorded:
    """The event files of a folder, through TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    recorded = Recorded()
    for name in found.Tags()["scalars"]:
        recorded.scalars[name] = [(event.step, event.value) for event in found.Scalars(name)]
    if "samples" in found.Tags()["images"]:
        recorded.images = [event.step for event in found.Images("samples")]
    content = found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    recorded.settings = {
        name: getattr(value, value.WhichOneof("kind")) for name, value in settings.items()
    }
    return recorded


def read_wandb(folder: Path) -> Recorded:
    """The offline files of a run folder, oldest first.

    Their format is LevelDB's log (blocks of 32 KiB, records in chunks of 7 bytes of header and a
    body) after a header of 7 bytes; each record is a protobuf message that the package describes.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    recorded = Recorded()
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for message in _messages(path.read_bytes()):
            record = Record.FromString(message)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                recorded.ids.append(record.run.run_id)
            elif kind == "exit":
                recorded.ended += 1
            elif kind == "config":
                recorded.settings |= {
                    item.key: json.loads(item.value_json)
                    for item in record.config.update
                    if item.key
                }
            elif kind == "history":
                _add(
                    recorded,
                    {
                        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                        for item in record.history.item
                    },
                )
    return recorded


def _add(recorded: Recorded, values: dict[str, Any]) -> None:
    step = int(values["_step"])
    if any(name.split("/")[0].startswith("samples") for name in values):
        recorded.images.append(step)
    for name, value in values.items():
        if isinstance(value, int | float) and not name.startswith(("_", "samples")):
            recorded.scalars.setdefault(name, []).append((step, value))


def _messages(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    place = HEADER.size
    message = b""
    while place + HEADER.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER.size:
            place += left
            continue
        _, length, kind = HEADER.unpack_from(data, place)
        place += HEADER.size
        message += data[place : place + length]
        place += length
        if kind in (FULL, LAST):
            yield message
            message = b""
