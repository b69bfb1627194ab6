"""The table of docs/input-formats.md: every pair of input and command is run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import image_inputs as made
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpo.types import Prompt

Run = Callable[..., tuple[int, str, str]]
Files = dict[str, bytes | str]
PAGE = Path(__file__).parents[2] / "docs" / "input-formats.md"
COMMANDS = ("score", "compare", "calibrate", "eval --images")
CAT = "a cat"
DOG = "a dog"


def documented() -> dict[str, dict[str, str]]:
    """Input → command → what the page says."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Images\n")[2].partition("\n- **")[0]
    rows = [
        re.split(r"\s*\|\s*", line.strip("| "))
        for line in section.splitlines()
        if line.startswith("|")
    ]
    header, _, *body = rows
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in body}


def pair(level: int) -> tuple[bytes, bytes]:
    return made.encoded(level), made.encoded(level + 20)


def rows(level: int) -> list[dict[str, object]]:
    return [
        {"image": {"bytes": data, "path": f"{number}.png"}, "text": text, "index": 0}
        for number, (data, text) in enumerate(zip(pair(level), (CAT, DOG), strict=True))
    ]


def shard(level: int) -> Files:
    cat, dog = pair(level)
    return {"0.png": cat, "0.txt": CAT, "1.png": dog, "1.json": json.dumps({"caption": DOG})}


def make(kind: str, place: Path, level: int) -> Path:
    """The input of a kind with an image of a cat and one of a dog, as grey as `level` says."""
    cat, dog = pair(level)
    images: Files = {"0.png": cat, "1.png": dog}
    table = [
        {"file_name": "0.png", "text": CAT, "index": 0},
        {"file_name": "1.png", "text": DOG, "index": 0},
    ]
    jsonl = "".join(json.dumps(row) + "\n" for row in table)
    named = [f"{Prompt(text).id}-0" for text in (CAT, DOG)]
    cat_data, dog_data = (made.generation_data(text) for text in (CAT, DOG))
    folders: dict[str, Files] = {
        "folder with captions": {**images, "0.txt": CAT, "1.caption": DOG},
        "folder with metadata.jsonl": {**images, "metadata.jsonl": jsonl},
        "folder with metadata.csv": {
            **images,
            "metadata.csv": f"file_name,text\n0.png,{CAT}\n1.png,{DOG}\n",
        },
        "folder of web UI images": {
            "0.png": made.png_with(level, parameters=cat_data),
            "1.png": made.png_with(level + 20, parameters=dog_data),
        },
        "folder of ComfyUI images": {
            "0.png": made.png_with(level, prompt=made.COMFY.replace("a heron", CAT)),
            "1.png": made.png_with(level + 20, prompt=made.COMFY.replace("a heron", DOG)),
        },
        "folder of `ddpo sample`": {
            f"{named[0]}.png": cat,
            f"{named[0]}.txt": CAT,
            f"{named[1]}.png": dog,
            f"{named[1]}.txt": DOG,
            "sheet.png": cat,
        },
        "folder of GenEval": {
            "00000/metadata.jsonl": json.dumps({"tag": "one", "include": [], "prompt": CAT}),
            "00000/samples/0000.png": cat,
            "00001/metadata.jsonl": json.dumps({"tag": "two", "include": [], "prompt": DOG}),
            "00001/samples/0000.png": dog,
            "00000/grid.png": cat,
        },
        "folder of T2I-CompBench": {
            f"samples/{CAT}_000000.png": cat,
            f"samples/{DOG}_000000.png": dog,
        },
        "table of files": {**images, "t.jsonl": jsonl},
        "numbered folder with --prompts": {
            "images/0.png": cat,
            "images/1.png": dog,
            "list.txt": f"{CAT}\n{DOG}\n",
        },
    }
    if kind in folders:
        made.fill(place, folders[kind])
        return place / {
            "table of files": "t.jsonl",
            "numbered folder with --prompts": "images",
        }.get(kind, "")
    place.mkdir(parents=True)
    if "Parquet" in kind:
        pq.write_table(pa.Table.from_pylist(rows(level)), place / "train-0.parquet")
        return place if kind.startswith("folder") else place / "train-0.parquet"
    suffix = kind.split()[0]
    write = made.write_zip if suffix == "zip" else made.write_tar
    return write(place / f"shard.{suffix}", shard(level))


def test_every_input_of_the_page_is_one_that_is_tried(tmp_path: Path) -> None:
    assert len(documented()) == 15
    for number, kind in enumerate(documented()):
        assert make(kind, tmp_path / str(number), 100).exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", documented())
def test_every_pair_of_input_and_command(
    kind: str, command: str, tmp_path: Path, ddpo: Run
) -> None:
    assert documented()[kind][command] == "yes"
    base = make(kind, tmp_path / "base", 100)
    tuned = make(kind, tmp_path / "tuned", 40)
    lists = ["--prompts", tmp_path / "base" / "list.txt"] if "--prompts" in kind else []
    out = tmp_path / "out.json"
    if command == "score":
        code, _, err = ddpo(
            "rewards", "score", "darkness", base, *lists, "--out", f"{out}l", "--no-cache"
        )
        scored = [json.loads(line) for line in Path(f"{out}l").read_text().splitlines()]
        assert sorted((row["prompt"], row["score"]) for row in scored) == [
            (CAT, pytest.approx(-100 / 255, abs=1e-6)),
            (DOG, pytest.approx(-120 / 255, abs=1e-6)),
        ]
    elif command == "compare":
        code, _, err = ddpo(
            "rewards",
            "compare",
            "darkness",
            "entropy",
            base,
            *lists,
            "--no-edits",
            "--out",
            out,
            "--no-cache",
        )
        assert len(json.loads(out.read_text())["images"]) == 2
    elif command == "calibrate":
        code, _, err = ddpo(
            "rewards", "calibrate", "darkness", base, *lists, "--out", out, "--no-cache"
        )
        assert json.loads(out.read_text())["mean"] == pytest.approx(-110 / 255, abs=1e-6)
    else:
        from ddpo.eval.generate.samples import read_samples

        images = [
            "--images",
            f"base={base}",
            "--images",
            f"mine={tuned}",
            "--reward",
            "darkness",
            "--no-held-out",
        ]
        code, _, err = ddpo("eval", *images, *lists, "--out", tmp_path / "report")
        assert {row.prompt for row in read_samples(tmp_path / "report" / "samples.parquet")} == {
            CAT,
            DOG,
        }
    assert code == 0, err


@pytest.mark.parametrize("kind", ["Parquet with images", "tar.gz archive", "folder with captions"])
def test_contact_sheets_show_the_images_of_every_container(
    kind: str, tmp_path: Path, ddpo: Run
) -> None:
    place = make(kind, tmp_path / "base", 100)
    sheet = tmp_path / "sheet.png"
    code, _, err = ddpo("rewards", "score", "darkness", place, "--contact-sheet", sheet)
    assert code == 0, err
    with Image.open(sheet) as image:
        greys = {color for _, color in image.getcolors(1 << 20) or ()}
    assert {(100, 100, 100), (120, 120, 120)} <= greys


@pytest.mark.parametrize("kind", ["Parquet with images", "zip archive", "folder with captions"])
def test_images_are_grouped_by_prompt_in_every_container(
    kind: str, tmp_path: Path, ddpo: Run
) -> None:
    (tmp_path / "mine.py").write_text(
        "from ddpo.rewards.card import RewardCard\n"
        "from ddpo.types import RewardOutput\n"
        "class Mine:\n"
        "    card = RewardCard(id='mine', version='1', summary='x', load='mine:Mine', family='x',"
        " flaws='', inputs=('image', 'group'))\n"
        "    def __call__(self, batch):\n"
        "        means = batch.pixels.mean((1, 2, 3))\n"
        "        return RewardOutput(means - means.mean())\n"
    )
    place = make(kind, tmp_path / "base", 100)
    out = tmp_path / "o.jsonl"
    spec = f"{tmp_path}/mine.py:Mine"
    code, _, err = ddpo("rewards", "score", spec, place, "--prompt", "x", "--out", out)
    assert code == 0, err
    scores = [json.loads(line)["score"] for line in out.read_text().splitlines()]
    assert scores == pytest.approx([-10 / 255, 10 / 255], abs=1e-6)
