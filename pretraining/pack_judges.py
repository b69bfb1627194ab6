"""The embedded judges' files: `python -m pretraining.pack_judges --judges FOLDER --out FOLDER`.

`--judges` holds a folder per trained judge, as their modules write it, and the measures of
`pretraining.measure_judges`. `--out` is `ddpo/rewards/judges`: the files that the rewards load, a
model card for each judge, and `manifest.json` with the SHA-256 and size of every file.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ddpo.errors import ConfigError
from ddpo.io.atomic import write_text
from ddpo.io.json_files import read_foreign_json
from pretraining.judge_cards import judge_card
from pretraining.judge_training import say
from pretraining.packing import write_manifest

__all__ = ["PACKED", "PackedJudge", "pack_judges"]


@dataclass(frozen=True, slots=True)
class PackedJudge:
    """The files of one judge, and the size that they may have."""

    source: str  # folder below that of all judges
    files: tuple[str, ...]
    most_megabytes: float


PACKED: Final[Mapping[str, PackedJudge]] = {
    "captioner": PackedJudge(
        "captioner/judge",
        (
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "processor_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ),
        5.0,
    ),
    "sentence_encoder": PackedJudge(
        "sentence_encoder/judge",
        ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        2.0,
    ),
    "dual_encoder": PackedJudge(
        "dual_encoder/judge",
        (
            "config.json",
            "merges.txt",
            "model.safetensors",
            "special_tokens_map.json",
            "tokenizer_config.json",
            "vocab.json",
        ),
        3.0,
    ),
    "aesthetic_head": PackedJudge("aesthetic_head", ("head.safetensors",), 0.1),
    "scene_detector": PackedJudge("scene_detector/judge", ("model.safetensors",), 2.0),
}
"""Judge → its files; sizes as promised to users of the package."""


def pack_judges(judges: Path, out: Path, measures: Path | None = None) -> dict[str, float]:
    """Writes the folder of the embedded judges anew; returns the megabytes of each.

    Args:
        judges: Folder of the trained judges.
        out: Folder to write; judges that lie there are replaced.
        measures: File of `pretraining.measure_judges`; None for the one among the judges.

    Raises:
        ConfigError: A judge lacks a file, or is larger than it may be.
    """
    file = measures or judges / "measures" / "measures.json"
    measured = read_foreign_json(file) if file.is_file() else {}
    sizes = {name: _size(name, judges / packed.source) for name, packed in PACKED.items()}
    for name, packed in PACKED.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for each in packed.files:
            shutil.copyfile(judges / packed.source / each, folder / each)
            (folder / each).chmod(0o644)
        card = judge_card(name, folder, judges / name, measured.get(name, {}))
        write_text(folder / "README.md", card)
    write_manifest(out)
    return sizes


def _size(name: str, folder: Path) -> float:
    """The megabytes of a trained judge's files, all of which are there.

    Raises:
        ConfigError: One is missing, or they are larger than they may be.
    """
    packed = PACKED[name]
    for each in packed.files:
        if not (folder / each).is_file():
            raise ConfigError(f"the judge {name} lacks {folder / each}")
    size = sum((folder / each).stat().st_size for each in packed.files) / 1e6
    if size > packed.most_megabytes:
        raise ConfigError(
            f"the judge {name} has {size:.2f} MB, more than {packed.most_megabytes:g}"
        )
    return size


def main(given: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judges", type=Path, required=True, help="folder of the trained judges")
    parser.add_argument("--out", type=Path, required=True, help="ddpo/rewards/judges")
    parser.add_argument("--measures", type=Path, default=None, help="measures.json")
    options = parser.parse_args(given)
    for name, size in pack_judges(options.judges, options.out, options.measures).items():
        say(f"{options.out / name}: {size:.2f} MB")


if __name__ == "__main__":
    main()
