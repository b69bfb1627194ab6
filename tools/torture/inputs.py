"""Damaged archives, captions, prompt lists, preference files, tables and recipes of users."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from images import mutated, saved
from PIL import Image

TRIES: Final = 100_000
ROWS: Final = (
    {"file_name": "a.png", "prompt": "a red fox", "weight": 2, "metadata": {"tag": "x"}},
    {"file_name": "b.png", "prompt": "two words", "weight": 1, "metadata": {}},
)
PAIRS: Final = (
    {"image_a": "a.png", "image_b": "b.png", "label": "a", "prompt": "a fox"},
    {"image_a": "b.png", "image_b": "a.png", "label": "tie", "prompt": "a cat"},
)
TOKENS: Final = (
    *(b"NaN", b"-1", b"1e999", b"9" * 5000, b"null", b"\0", b'"', b"'", b"\n", b"\r", b"\xff"),
    *(b"\\ud800", b"[" * 3000, b'{"a":' * 3000, b",,,,", b"\t", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"../../../etc/passwd", b"=1+1", b"\x1b[31m", b"[a]", b"a = [", b"true", b"1" * 30, b"{}"),
)


def run(size: float, seed: int, folder: Path) -> list[Any]:
    """The outcome of all inputs."""
    from _worker import tried_in_workers

    tries = max(1, round(TRIES * size))
    return [tried_in_workers(__file__, "files of users", tries, seed, folder)]


@cache
def originals() -> dict[str, bytes]:
    """Whole files by suffix, or by a name that ends in one."""
    image = saved(Image.new("RGB", (5, 4)), "PNG")
    members = {
        "000.png": image,
        "000.txt": b"a red fox",
        "001.png": image,
        "001.json": json.dumps({"caption": "two words", "similarity": 0.5}).encode(),
        "metadata.jsonl": b"\n".join(json.dumps(row).encode() for row in ROWS),
    }
    return {
        ".tar": _tar(members, "w", tarfile.GNU_FORMAT),
        "pax.tar": _tar({"é" * 90 + ".png": image, **members}, "w", tarfile.PAX_FORMAT),
        ".tar.gz": _tar(members, "w:gz", tarfile.GNU_FORMAT),
        "loose.tar.gz": _tar(members, "w", tarfile.GNU_FORMAT),  # compressed once it is mutated
        ".zip": _zip(members),
        "fox.png": image,
        "caption.txt": b"a red fox\nSteps: 20, Sampler: Euler\n",
        ".txt": b"a red fox\na cat\n",
        ".csv": _delimited(ROWS, ","),
        ".tsv": _delimited(ROWS, "\t"),
        ".json": json.dumps(ROWS).encode(),
        ".jsonl": members["metadata.jsonl"],
        ".parquet": _parquet([dict(row, image={"bytes": image, "path": "x"}) for row in ROWS]),
        "pairs.csv": _delimited(PAIRS, ","),
        "pairs.json": json.dumps(PAIRS).encode(),
        "pairs.parquet": _parquet(PAIRS),
        ".toml": _recipe(),
    }


def _recipe() -> bytes:
    from ddpo.recipes import recipe_text

    return recipe_text("emoji").encode()


def _tar(members: dict[str, bytes], mode: str, form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return file.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(file, "w") as archive:
        for place, (name, data) in enumerate(members.items()):
            archive.writestr(name, data, methods[place % len(methods)])
    return file.getvalue()


def _delimited(rows: Any, separator: str) -> bytes:
    names = [name for name in rows[0] if name != "metadata"]
    lines = [names, *[[f"{row[name]}" for name in names] for row in rows]]
    return "\n".join(separator.join(line) for line in lines).encode()


def _parquet(rows: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [dict(row, metadata=json.dumps(row.get("metadata", {}))) for row in rows]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(columns), file)
    return file.getvalue()


def input_of(seed: int, number: int) -> tuple[str, bytes]:
    """The name and content of a number's file."""
    random = Random(f"{seed} {number}")
    name = random.choice([*originals()])
    data = originals()[name]
    if random.random() < 0.4:
        place = random.randrange(len(data))
        data = data[:place] + random.choice(TOKENS) + data[place + random.randrange(9) :]
    else:
        data = mutated(data, random)
    return name, gzip.compress(data, 1) if name.startswith("loose") else data


def try_one(seed: int, number: int, folder: Path) -> None:
    """Reads one file by all functions for its kind; only errors of ours are right."""
    from ddpo.errors import DdpoError
    from ddpo.inputs.archives import is_archive
    from ddpo.inputs.collection import image_source
    from ddpo.prompts import listed_prompts
    from ddpo.reward_quality.preference_file import read_preferences
    from ddpo.trainer import config_for
    from ddpo.trainer.recipe import read_recipe

    name, data = input_of(seed, number)
    place = folder / "files"
    place.mkdir(exist_ok=True)
    for other in place.iterdir():
        other.unlink()
    path = place / (f"x{name}" if name.startswith(".") else name)
    path.write_bytes(data)
    with contextlib.suppress(DdpoError):
        if name == ".toml":
            config_for(read_recipe(path))
            return
        if name == "caption.txt":
            (place / "caption.png").write_bytes(originals()["fox.png"])
            _read_images(image_source([place]))
            return
        if name.startswith("pairs"):
            for pair in read_preferences(path):
                repr(pair)
            return
        if not is_archive(path) and path.suffix != ".png":
            with contextlib.suppress(DdpoError):
                for prompt in listed_prompts(path):
                    prompt.id  # noqa: B018
        if path.suffix != ".txt":
            _read_images(image_source([path]))


def _read_images(images: Any) -> None:
    from ddpo.rewards.image_files.stream import decode

    for image in images:
        image.state()
        if image.prompt is not None:
            image.prompt.id  # noqa: B018
        decode(image)


if __name__ == "__main__":
    from _worker import work

    work(try_one)
