"""Where images and their prompts come from."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ddpo.errors import ConfigError, DdpoError, ImageError, PromptError
from ddpo.inputs.collection import image_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "deep/c.webp"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.md").touch()
    return tmp_path / "images"


def listed(
    places: list[Path], prompts: Path | None = None, prompt: str | None = None
) -> list[tuple[str, str | None]]:
    source = image_source(places, prompts, prompt)
    found = [
        (Path(image.file).name, image.prompt.text if image.prompt else None) for image in source
    ]
    assert len(source) == len(found)
    assert [Path(image.file).name for image in source] == [
        name for name, _ in found
    ]  # a second time
    return found


def test_folders_in_order_of_path_and_one_prompt_for_all(folder: Path) -> None:
    assert listed([folder]) == [("a.jpg", None), ("b.png", None), ("c.webp", None)]
    assert listed([folder / "deep", folder / "b.png"], prompt="x") == [
        ("c.webp", "x"),
        ("b.png", "x"),
    ]


def test_a_text_file_goes_by_order(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("ant\n\nbee\n cow \n", encoding="utf-8")
    assert [prompt for _, prompt in listed([folder], tmp_path / "p.txt")] == ["ant", "bee", "cow"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_table_goes_by_file(folder: Path, tmp_path: Path, suffix: str) -> None:
    records = [
        {"file": "c.webp", "prompt": "cow"},
        {"file": "images/a.jpg", "prompt": "ant"},
        {"file": str(folder / "b.png"), "prompt": "bee"},
    ]
    path = tmp_path / f"p.{suffix}"
    if suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n")
    elif suffix == "csv":
        pd.DataFrame(records).to_csv(path, index=False)
    else:
        pd.DataFrame(records).to_parquet(path)
    assert listed([folder], path) == [("a.jpg", "ant"), ("b.png", "bee"), ("c.webp", "cow")]
    missing = path.with_name(f"fewer.{suffix}")
    missing.write_bytes(path.read_bytes())
    Image.new("RGB", (4, 4)).save(folder / "new.png")
    assert listed([folder], missing)[-1] == ("new.png", None)


def test_metadata_of_a_jsonl_table_reaches_the_prompt(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"file": "a.jpg", "prompt": "ant", "metadata": {"n": 6}})
    )
    (image,) = image_source([folder / "a.jpg"], tmp_path / "p.jsonl")
    assert image.prompt is not None
    assert dict(image.prompt.metadata) == {"n": 6}


def test_what_lies_beside_an_image_is_its_prompt(folder: Path) -> None:
    (folder / "a.txt").write_text("an ant\n")
    (folder / "deep" / "metadata.jsonl").write_text(
        json.dumps({"file_name": "c.webp", "text": "a cow"})
    )
    assert listed([folder]) == [("a.jpg", "an ant"), ("b.png", None), ("c.webp", "a cow")]


def test_a_table_is_a_place_of_images(folder: Path) -> None:
    pd.DataFrame({"image": ["deep/c.webp", "a.jpg"], "caption": ["cow", "ant"]}).to_csv(
        folder / "set.csv", index=False
    )
    assert listed([folder / "set.csv"]) == [("c.webp", "cow"), ("a.jpg", "ant")]
    assert listed([folder / "set.csv"], prompt="x") == [("c.webp", "x"), ("a.jpg", "x")]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("p.txt", b"one\n", PromptError, "1 prompts for 3 images"),
        ("p.txt", b"one\xff\n", PromptError, "not UTF-8"),
        ("p.jsonl", b"{}\n", ConfigError, "p.jsonl:1: no file"),
        (
            "p.jsonl",
            b'{"file": "a.jpg", "prompt": "x"}\n{"file": \n',
            ConfigError,
            "p.jsonl:2: not JSON",
        ),
        ("p.jsonl", b"[1]\n", ConfigError, "p.jsonl:1: not a JSON object, but 1"),
        ("p.jsonl", b'{"file": "a.png"}\n', PromptError, "has no column of prompts"),
        (
            "p.csv",
            b"name,prompt\na.jpg,x\n",
            ConfigError,
            "p.csv:2: the column 'name' of files must be called file_name, filename, file, image, ",
        ),
        ("p.parquet", b"PAR1", ConfigError, "p.parquet cannot be read as Parquet"),
    ],
)
def test_bad_prompt_files_are_one_line(
    folder: Path, tmp_path: Path, name: str, content: bytes, error: type[DdpoError], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        image_source([folder], tmp_path / name)
    assert "\n" not in str(caught.value)


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    for suffix in ("txt", "jsonl", "csv", "parquet"):
        with pytest.raises((PromptError, ConfigError), match=r"no such file|cannot be read"):
            image_source([folder], tmp_path / f"absent.{suffix}")
    with pytest.raises(ConfigError, match="not both"):
        image_source([folder], tmp_path / "p.txt", "x")
    with pytest.raises(ImageError, match="no such file or folder"):
        image_source([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no images"):
        image_source([tmp_path / "empty"])
    pd.DataFrame({"image": ["a.jpg"]}).to_csv(folder / "set.csv", index=False)
    with pytest.raises(ConfigError, match="brings its prompts; leave out --prompts"):
        image_source([folder, folder / "set.csv"], tmp_path / "p.txt")
