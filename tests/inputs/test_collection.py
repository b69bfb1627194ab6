"""One reader of images and their prompts, against every layout and container in use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import image_inputs as made
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddpo.errors import ConfigError, ImageError, PromptError, UserError
from ddpo.inputs.collection import image_source

PNG = made.encoded()
Prompts = dict[str, str | None]


def found(place: Path, *, below: Path | None = None) -> Prompts:
    """Name → prompt of the images of a place."""
    root = f"{below or place}/"
    source = image_source([place])
    images = list(source)
    assert len(source) == len(images)
    names = [image.file.removeprefix(root) for image in images]
    texts = [image.prompt.text if image.prompt else None for image in images]
    assert len(set(names)) == len(names)
    for image in images:
        assert image.load().size == (8, 8)
    return dict(zip(names, texts, strict=True))


def lines(*rows: Mapping[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


FOLDERS: dict[str, tuple[dict[str, bytes | str], Prompts]] = {
    "captions of every suffix": (
        {
            "a.png": PNG,
            "a.txt": "ant",
            "b.png": PNG,
            "b.caption": "bee\n",
            "c.png": PNG,
            "c.cap": "cow",
        },
        {"a.png": "ant", "b.png": "bee", "c.png": "cow"},
    ),
    "generation data in a caption": (
        {"a.png": PNG, "a.txt": made.generation_data("an ant,\nred")},
        {"a.png": "an ant, red"},
    ),
    "metadata two levels above": (
        {"x/y/a.png": PNG, "metadata.jsonl": lines({"file_name": "x/y/a.png", "text": "ant"})},
        {"x/y/a.png": "ant"},
    ),
    "the nearest metadata": (
        {
            "x/a.png": PNG,
            "x/b.png": PNG,
            "metadata.csv": "file_name,text\nx/a.png,far\nx/b.png,bee\n",
            "x/metadata.jsonl": lines({"file_name": "a.png", "text": "near"}),
        },
        {"x/a.png": "near", "x/b.png": "bee"},
    ),
    "metadata before captions": (
        {
            "a.png": PNG,
            "a.txt": "caption",
            "metadata.jsonl": lines({"file_name": "a.png", "prompt": "table"}),
        },
        {"a.png": "table"},
    ),
    "metadata of other columns, then captions": (
        {"a.png": PNG, "a.txt": "ant", "metadata.csv": "file_name,label\na.png,3\n"},
        {"a.png": "ant"},
    ),
    "metadata written on Windows": (
        {"x/a.png": PNG, "metadata.csv": "\ufefffile_name;text\r\nx\\a.png;ant\r\n"},
        {"x/a.png": "ant"},
    ),
    "paths with dots": (
        {"x/a.png": PNG, "metadata.jsonl": lines({"file_name": "./x/../x/a.png", "text": "ant"})},
        {"x/a.png": "ant"},
    ),
    "names outside the folder": (
        {
            "a.png": PNG,
            "metadata.jsonl": lines(
                {"file_name": "../../etc/a.png", "text": "no"},
                {"file_name": "/a.png", "text": "no"},
            ),
        },
        {"a.png": None},
    ),
    "the web UI's PNG": (
        {"a.png": made.png_with(parameters=made.generation_data("an ant"))},
        {"a.png": "an ant"},
    ),
    "ComfyUI's PNG": ({"a.png": made.png_with(prompt=made.COMFY)}, {"a.png": "a heron"}),
    "the web UI's JPEG": (
        {"a.jpg": made.with_user_comment("an ant ☃", "JPEG")},
        {"a.jpg": "an ant ☃"},
    ),
    "the web UI's WebP": (
        {"a.webp": made.with_user_comment("an ant", "WEBP")},
        {"a.webp": "an ant"},
    ),
    "EXIF of the other byte order": (
        {"a.jpg": made.with_user_comment("an ant", "JPEG", "utf-16-le")},
        {"a.jpg": "an ant"},
    ),
    "a comment of a camera": (
        {"a.jpg": made.encoded(0, "JPEG", comment="CREATOR: a camera")},
        {"a.jpg": None},
    ),
    "GenEval": (
        {
            "00000/metadata.jsonl": '{"tag": "counting", "include": [], "prompt": "two benches"}',
            "00000/samples/0000.png": PNG,
            "00000/samples/0001.png": PNG,
            "00000/grid.png": PNG,
            "00001/metadata.jsonl": '{"tag": "color", "include": [], "prompt": "a red cow"}',
            "00001/samples/0000.png": PNG,
        },
        {
            "00000/samples/0000.png": "two benches",
            "00000/samples/0001.png": "two benches",
            "00001/samples/0000.png": "a red cow",
        },
    ),
    "T2I-CompBench": (
        {"samples/a green bench_000000.png": PNG, "samples/a green bench_000001.png": PNG},
        {
            "samples/a green bench_000000.png": "a green bench",
            "samples/a green bench_000001.png": "a green bench",
        },
    ),
    "numbers that are no prompt": ({"image_000001.png": PNG}, {"image_000001.png": None}),
    "ddpo sample": (
        {"0123456789ab-0.png": PNG, "0123456789ab-0.txt": "ant", "sheet.png": PNG},
        {"0123456789ab-0.png": "ant"},
    ),
    "ddpo sample with a table": (
        {
            "ant-0.png": PNG,
            "sheet.png": PNG,
            "metadata.jsonl": lines({"file_name": "ant-0.png", "prompt": "ant"}),
        },
        {"ant-0.png": "ant"},
    ),
    "an image called sheet": (
        {"sheet.png": PNG, "pillow.png": PNG},
        {"pillow.png": None, "sheet.png": None},
    ),
    "JSON beside each image": (
        {"a.png": PNG, "a.json": '{"prompt": "ant"}', "a.txt": "bee"},
        {"a.png": "bee"},
    ),
    "names of no text encoding": (
        {"not\udcffutf8.png": PNG, "not\udcffutf8.txt": "ant"},
        {"not\\udcffutf8.png": "ant"},
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_prompts_of_a_folder(kind: str, tmp_path: Path) -> None:
    files, expected = FOLDERS[kind]
    assert found(made.fill(tmp_path, files)) == expected


def test_metadata_beside_the_prompt_reaches_it(tmp_path: Path) -> None:
    made.fill(tmp_path, FOLDERS["GenEval"][0])
    first = next(iter(image_source([tmp_path])))
    assert first.prompt is not None
    assert dict(first.prompt.metadata) == {"tag": "counting", "include": []}
    assert first.index == 0


def test_a_folder_inside_the_one_with_metadata(tmp_path: Path) -> None:
    made.fill(tmp_path, FOLDERS["metadata two levels above"][0])
    assert found(tmp_path / "x" / "y") == {"a.png": "ant"}
    assert found(tmp_path / "x" / "y" / "a.png", below=tmp_path) == {"x/y/a.png": "ant"}


NO_PROMPT: dict[str, tuple[dict[str, bytes | str], str]] = {
    "empty": ({"a.txt": ""}, "its caption .*a.txt is empty"),
    "blank": ({"a.caption": " \n\t\n"}, "its caption .*a.caption is empty"),
    "only a negative prompt": (
        {"a.txt": "Negative prompt: blurry\nSteps: 20, Seed: 1"},
        "is empty",
    ),
    "no text": ({"a.txt": b"\xff\xd8\xff"}, "a.txt:1 is not UTF-8"),
    "a control character": ({"a.cap": "an \x07 ant"}, "a control character"),
    "a book": ({"a.txt": "word " * 9000}, "characters, more than"),
}


@pytest.mark.parametrize("kind", NO_PROMPT)
def test_a_caption_without_a_prompt_has_a_reason(kind: str, tmp_path: Path) -> None:
    files, reason = NO_PROMPT[kind]
    (image,) = image_source([made.fill(tmp_path, {"a.png": PNG, **files})])
    assert image.prompt is None
    assert image.no_prompt is not None
    assert re.search(reason, image.no_prompt)


SHARD: dict[str, bytes | str] = {
    "000.png": PNG,
    "000.txt": "ant",
    "000.json": '{"caption": "other", "url": "u"}',
    "001.jpg": made.encoded(9, "JPEG"),
    "001.json": '{"caption": "bee", "width": 8}',
    "002.txt": "cow",
    "002.webp": made.encoded(9, "WEBP"),
    "003.png": PNG,
    "003.txt": "",
    "004.png": made.png_with(parameters=made.generation_data("dog")),
    "004.cls": "7",
    "._005.png": b"junk",
    "__MACOSX/006.png": b"junk",
}
SHARD_PROMPTS = {
    "000.png": "ant",
    "001.jpg": "bee",
    "002.webp": "cow",
    "003.png": None,
    "004.png": "dog",
}
FOLDER_IN_ARCHIVE: dict[str, bytes | str] = {
    "./d/b.png": PNG,
    "./d/a.png": PNG,
    "./d/a.txt": "ant",
    "./metadata.csv": "file_name,text\nd/b.png,bee\n",
}


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.xz", "tar.bz2", "zip"])
def test_archives(suffix: str, tmp_path: Path) -> None:
    write = made.write_zip if suffix == "zip" else made.write_tar
    shard = write(tmp_path / f"s.{suffix}", SHARD)
    folder = write(tmp_path / f"f.{suffix}", FOLDER_IN_ARCHIVE)
    assert found(shard) == SHARD_PROMPTS
    assert image_source([shard]).left_out == {".cls": 1}
    assert found(folder) == {"./d/b.png": "bee", "./d/a.png": "ant"}
    reasons = [image.no_prompt for image in image_source([shard])]
    assert [reason for reason in reasons if reason] == [f"its caption {shard}/003.txt is empty"]


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "cut within a header",
        "compressed and cut",
        "empty",
        "text",
        "folder",
        "no images",
        "zip that is cut",
    ],
)
def test_an_archive_that_is_none_is_one_line(kind: str, tmp_path: Path) -> None:
    path = made.write_tar(tmp_path / "x.tar", SHARD)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "cut within a header":
        path.write_bytes(path.read_bytes()[:1500])
    elif kind == "compressed and cut":
        path = made.write_tar(tmp_path / "x.tar.gz", SHARD)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no archive")
    elif kind == "folder":
        path = tmp_path / "y.tar"
        path.mkdir()
    elif kind == "no images":
        made.write_tar(path, {"a.txt": "ant", "b.mp4": b""})
    else:
        path = made.write_zip(tmp_path / "x.zip", SHARD)
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ImageError, match=r"cannot be read as an archive|holds no images") as caught:
        image_source([path])
    assert "\n" not in str(caught.value)


CELLS = {
    "Hugging Face": [
        {"image": {"bytes": PNG, "path": "a.png"}, "text": "ant"},
        {"image": {"bytes": PNG, "path": "b.png"}, "text": "bee"},
    ],
    "bytes": [{"jpg": PNG, "caption": "ant"}, {"jpg": PNG, "caption": "bee"}],
    "with a file name": [
        {"image": {"bytes": PNG, "path": None}, "file_name": "a.png", "prompt": "ant"},
        {"image": {"bytes": PNG, "path": None}, "prompt": "bee"},
    ],
    "paths in the struct": [
        {"image": {"bytes": None, "path": "a.png"}, "text": "ant"},
        {"image": {"bytes": None, "path": "b.png"}, "text": "bee"},
    ],
}


@pytest.mark.parametrize("kind", CELLS)
def test_images_in_parquet(kind: str, tmp_path: Path) -> None:
    made.fill(tmp_path, {"a.png": PNG, "b.png": PNG})
    pq.write_table(pa.Table.from_pylist(CELLS[kind]), tmp_path / "d.parquet")
    assert list(found(tmp_path / "d.parquet").values()) == ["ant", "bee"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "ndjson", "parquet"])
def test_tables_of_files(suffix: str, tmp_path: Path) -> None:
    made.fill(tmp_path, {"x/a.png": PNG, "b.png": PNG})
    rows = pd.DataFrame(
        {"Image_Path": ["x/a.png", str(tmp_path / "b.png")], "Prompt": ["ant", None]}
    )
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        rows.to_parquet(path)
    elif suffix in ("csv", "tsv"):
        rows.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    else:
        rows.to_json(path, orient="records", lines=suffix != "json")
    assert found(path, below=tmp_path) == {"x/a.png": "ant", "b.png": None}
    assert list(image_source([path]))[1].no_prompt is not None


def test_shards_of_a_folder_and_of_several_places(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        rows = [{"image": {"bytes": PNG, "path": "x.png"}, "text": f"from {number}"}]
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / f"train-{number}.parquet")
    made.fill(tmp_path, {"data/README.md": "a data set"})
    assert list(found(tmp_path / "data").values()) == ["from 0", "from 2", "from 10"]
    made.fill(tmp_path, {"more/a.png": PNG, "more/a.txt": "ant"})
    tar = made.write_tar(tmp_path / "s.tar", {"b.png": PNG, "b.txt": "bee"})
    places = [tar, tmp_path / "more", tmp_path / "data" / "train-2.parquet"]
    texts = [image.prompt.text for image in image_source(places) if image.prompt]
    assert texts == ["bee", "ant", "from 2"]


CERTAIN = {
    "unpadded": [f"{number}.png" for number in range(12)],
    "padded": [f"{number:03}.png" for number in range(12)],
    "from 1": [f"img-{number}.png" for number in range(1, 13)],
    "counter and seed": [f"{number:05}-{(number * 7919) % 101}.png" for number in range(12)],
    "grid": [f"{number // 3}_{number % 3}.png" for number in range(12)],
    "several suffixes": [f"{number}.{'jpg' if number % 2 else 'png'}" for number in range(12)],
    "folders": [f"{number}/samples/0.png" for number in range(12)],
    "words": [f"{letter}.png" for letter in "abcdefghijkl"],
}


@pytest.mark.parametrize("kind", CERTAIN)
def test_prompts_by_line_go_by_number(kind: str, tmp_path: Path) -> None:
    made.fill(tmp_path / "p", dict.fromkeys(reversed(CERTAIN[kind]), PNG))
    (tmp_path / "p.txt").write_text("".join(f"line {number}\n" for number in range(12)))
    images = image_source([tmp_path / "p"], tmp_path / "p.txt")
    pairs = {
        image.file.removeprefix(f"{tmp_path}/p/"): image.prompt.text
        for image in images
        if image.prompt
    }
    assert pairs == {name: f"line {number}" for number, name in enumerate(CERTAIN[kind])}


DOUBTFUL = {
    "words and numbers": ["a.png", "10.png"],
    "equal numbers in folders": ["x/0.png", "y/0.png"],
    "one number twice": ["0.png", "0.jpg"],
    "padded and not": ["1.png", "01.png"],
    "one word twice": ["a.png", "a.jpg"],
    "other words before numbers": ["cat_1.png", "dog_2.png"],
    "seed and counter": ["912_0.png", "17_1.png", "300_2.png"],
}


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_an_uncertain_order_is_refused(kind: str, tmp_path: Path) -> None:
    made.fill(tmp_path / "p", dict.fromkeys(DOUBTFUL[kind], PNG))
    (tmp_path / "p.txt").write_text("line\n" * len(DOUBTFUL[kind]))
    with pytest.raises(
        ConfigError, match=r"it is uncertain .*give a table with the columns file and prompt"
    ) as caught:
        image_source([tmp_path / "p"], tmp_path / "p.txt")
    assert "\n" not in str(caught.value)


def test_the_order_of_a_shell_s_pattern_is_refused_and_any_other_is_kept(tmp_path: Path) -> None:
    made.fill(tmp_path, dict.fromkeys((f"{number}.png" for number in range(11)), PNG))
    (tmp_path / "p.txt").write_text("".join(f"line {number}\n" for number in range(11)))
    shell = sorted(tmp_path.glob("*.png"), key=str)
    with pytest.raises(ConfigError, match="a shell's pattern sorts numbers as words"):
        image_source(shell, tmp_path / "p.txt")
    chosen = [tmp_path / f"{number}.png" for number in (3, 0, 10, *range(4, 10), 1, 2)]
    texts = [
        image.prompt.text for image in image_source(chosen, tmp_path / "p.txt") if image.prompt
    ]
    assert texts == [f"line {number}" for number in range(11)]


@pytest.mark.parametrize("suffix", ["txt", "tsv", "csv", "json"])
def test_published_lists_go_by_line_and_repeats_count(suffix: str, tmp_path: Path) -> None:
    made.fill(tmp_path, {"p/0.png": PNG, "p/1.png": PNG, "p/2.png": PNG})
    contents = {
        "txt": "ant\nbee\nant\n",
        "tsv": "Prompt\tCategory\nant\tx\nbee\ty\nant\tx\n",
        "csv": "Prompts,Category\nant,x\nbee,y\nant,x\n",
        "json": '["ant", "bee", "ant"]',
    }
    made.fill(tmp_path, {f"list.{suffix}": contents[suffix]})
    images = image_source([tmp_path / "p"], tmp_path / f"list.{suffix}")
    assert [image.prompt.text for image in images if image.prompt] == ["ant", "bee", "ant"]


def test_bare_names_in_a_table_must_fit_one_image(tmp_path: Path) -> None:
    made.fill(tmp_path, {"x/a.png": PNG, "y/a.png": PNG, "t.csv": "file,prompt\na.png,ant\n"})
    with pytest.raises(ConfigError, match=r"t.csv:2: 'a.png' may be .*x/a.png or .*y/a.png"):
        image_source([tmp_path], tmp_path / "t.csv")
    made.fill(tmp_path, {"t.csv": "file,prompt\nx/a.png,ant\ny/a.png,bee\n"})
    texts = [
        image.prompt.text for image in image_source([tmp_path], tmp_path / "t.csv") if image.prompt
    ]
    assert texts == ["ant", "bee"]
    made.fill(tmp_path, {"t.csv": "file,prompt\nz/q.png,ant\n"})
    with pytest.raises(ConfigError, match="names none of the images"):
        image_source([tmp_path], tmp_path / "t.csv")


WRONG: dict[str, tuple[dict[str, bytes | str], str]] = {
    "a file twice": (
        {"metadata.csv": "file_name,text\na.png,ant\na.png,bee\n"},
        r"metadata.csv:3: 'a.png' is in the table twice",
    ),
    "no file column": (
        {"metadata.jsonl": lines({"text": "ant"}, {"text": "bee"})},
        "metadata.jsonl:1: no file",
    ),
    "no JSON": ({"metadata.jsonl": '{"file_name": "a.png"\n'}, r"metadata.jsonl:\d: not JSON"),
    "a prompt that is a number": (
        {"metadata.jsonl": lines({"file_name": "a.png", "text": 3})},
        "metadata.jsonl:1: 'text' must be a text",
    ),
    "a control character": (
        {"metadata.jsonl": lines({"file_name": "a.png", "text": "an\u0007t"})},
        "metadata.jsonl:1: a control",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_table_that_cannot_be_meant_is_one_line_with_its_place(kind: str, tmp_path: Path) -> None:
    files, message = WRONG[kind]
    made.fill(tmp_path, {"a.png": PNG, **files})
    with pytest.raises((ConfigError, PromptError), match=message) as caught:
        list(image_source([tmp_path]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prompt", ["", "  ", "a\x00b", "\ud83d"])
def test_a_prompt_for_all_that_is_none_is_refused(prompt: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--prompt"):
        image_source([made.fill(tmp_path, {"a.png": PNG})], prompt=prompt)
