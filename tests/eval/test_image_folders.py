"""Folders of images of other programs: prompts and indices, and errors where they are unknown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpo.errors import ConfigError, ImageError, PromptError
from ddpo.eval.generate.given_images import store_images
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.inputs.image_folders import (
    ImageFolder,
    check_paired,
    find_images,
    leftover_split,
    without_prompts,
)
from ddpo.eval.inputs.splits import Split
from ddpo.images import pixels_sha256
from ddpo.types import Prompt

FOX = "a red fox, by night"
YAK = "a yak"
OWN = "the lighthouse <b>"
PROMPTS = [Prompt(FOX, {"count": 1}), Prompt(YAK), Prompt("a cat")]
RANDOM = np.random.default_rng(0)

Found = dict[tuple[str, int], str]  # prompt and index → file


def fill(folder: Path, names: Mapping[str, str | None]) -> Path:
    """Images, each other than the rest; or text where there is one."""
    for name, text in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.fromarray(RANDOM.integers(0, 256, (5, 4, 3), dtype=np.uint8)).save(folder / name)
        else:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def found(folder: ImageFolder) -> Found:
    return {
        (file.prompt.text, file.index): str(file.path.relative_to(folder.folder))
        for file in folder.files
    }


def lines(*records: Mapping[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


IMAGES = {"b.png": None, "a.jpg": None, "sub/c.png": None}
ROWS = (
    {"file_name": "b.png", "prompt": FOX, "index": 3},
    {"file_name": "a.jpg", "prompt": YAK, "index": 0},
    {"file_name": "sub/c.png", "prompt": OWN, "index": 1},
)
TABLED = {(FOX, 3): "b.png", (YAK, 0): "a.jpg", (OWN, 1): "sub/c.png"}
LAYOUTS: dict[str, tuple[Mapping[str, str | None], Found, bool]] = {
    "metadata.jsonl": ({**IMAGES, "metadata.jsonl": lines(*ROWS)}, TABLED, True),
    "other names and seeds": (
        {
            **IMAGES,
            "prompts.jsonl": lines(
                *({"image": r["file_name"], "text": r["prompt"], "seed": r["index"]} for r in ROWS)
            ),
        },
        TABLED,
        True,
    ),
    "a JSON list under any name, beside other JSON": (
        {
            **IMAGES,
            "config.json": '{"steps": 20}',
            "results.json": json.dumps([{"file": r["file_name"], **r} for r in ROWS]),
        },
        TABLED,
        True,
    ),
    "a table without indices": (
        {
            "2.png": None,
            "1.png": None,
            "3.png": None,
            "metadata.csv": f'file_name,text\n2.png,"{FOX}"\n1.png,"{FOX}"\n3.png,{YAK}\n',
        },
        {(FOX, 0): "1.png", (FOX, 1): "2.png", (YAK, 0): "3.png"},
        False,
    ),
    "captions": (
        {
            "x1.png": None,
            "x1.txt": f"{YAK}\n",
            "x2.png": None,
            "x2.caption": FOX,
            "x3.png": None,
            "x3.txt": YAK,
        },
        {(YAK, 0): "x1.png", (YAK, 1): "x3.png", (FOX, 0): "x2.png"},
        False,
    ),
    "subfolders by words and by id, numbered": (
        {
            "A_Red-Fox_by_night/image_7.png": None,
            "A_Red-Fox_by_night/image_10.png": None,
            f"{Prompt(YAK).id}/samples/0003.png": None,
            "grid/all.png": None,
        },
        {
            (FOX, 7): "A_Red-Fox_by_night/image_7.png",
            (FOX, 10): "A_Red-Fox_by_night/image_10.png",
            (YAK, 3): f"{Prompt(YAK).id}/samples/0003.png",
        },
        True,
    ),
    "subfolders with names in order": (
        {"a_yak/first.png": None, "a_yak/second.png": None},
        {(YAK, 0): "a_yak/first.png", (YAK, 1): "a_yak/second.png"},
        False,
    ),
    "numbers from 0": (
        {"00000_0.png": None, "00001_5.png": None, "00001_s3.png": None},
        {(FOX, 0): "00000_0.png", (YAK, 5): "00001_5.png", (YAK, 3): "00001_s3.png"},
        True,
    ),
    "one image per prompt": (
        {"0.png": None, "2.png": None},
        {(FOX, 0): "0.png", ("a cat", 0): "2.png"},
        True,
    ),
    "folders by number": (
        {"00000/0.png": None, "00000/1.png": None, "00002/img_7.png": None},
        {(FOX, 0): "00000/0.png", (FOX, 1): "00000/1.png", ("a cat", 7): "00002/img_7.png"},
        True,
    ),
    "samples in folders by number": (
        {"00000/samples/0000.png": None, "00001/samples/0003.png": None},
        {(FOX, 0): "00000/samples/0000.png", (YAK, 3): "00001/samples/0003.png"},
        True,
    ),
    "a folder for each list": (
        {"Mine/0.png": None, "Mine/1.png": None},
        {(FOX, 0): "Mine/0.png", (YAK, 0): "Mine/1.png"},
        True,
    ),
    "GenEval": (
        {
            "00000/samples/0002.png": None,
            "00000/metadata.jsonl": lines({"tag": "counting", "prompt": FOX}),
            "00000/grid.png": None,
        },
        {(FOX, 2): "00000/samples/0002.png"},
        True,
    ),
    "T2I-CompBench": (
        {f"samples/{YAK}_000004.png": None},
        {(YAK, 4): f"samples/{YAK}_000004.png"},
        True,
    ),
    "ddpo sample": (
        {f"{Prompt(YAK).id}-3.png": None, f"{Prompt(YAK).id}-3.txt": YAK, "sheet.png": None},
        {(YAK, 3): f"{Prompt(YAK).id}-3.png"},
        True,
    ),
    "numbers from 1": (
        {"1-0.png": None, "3-0.png": None},
        {(FOX, 0): "1-0.png", ("a cat", 0): "3-0.png"},
        True,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompts_and_indices_are_found(layout: str, tmp_path: Path) -> None:
    files, expected, known = LAYOUTS[layout]
    folder = find_images("theirs", fill(tmp_path, files), {"mine": PROMPTS})
    assert found(folder) == expected
    assert any("may not share their noise" in note for note in folder.notes) == (not known)
    assert any("no prompt and were left out" in note for note in folder.notes) == (
        "grid/all.png" in files
    )
    sheets = {"00000/grid.png", "sheet.png"} & set(files)
    assert any("1 file left out: 1 contact sheet" in note for note in folder.notes) == bool(sheets)
    fox = next((file for file in folder.files if file.prompt.text == FOX), None)
    assert fox is None or fox.prompt.metadata == {
        "count": 1
    }  # the prompt of the list, which a reward may need
    assert [file.prompt.id for file in folder.files] == sorted(
        (file.prompt.id for file in folder.files),
        key=[*(p.id for p in PROMPTS), Prompt(OWN).id].index,
    )


MISTAKES: dict[str, tuple[Mapping[str, str | None], type[Exception], str]] = {
    "nothing known": (
        {"x.png": None},
        ConfigError,
        "the prompts of its images are not known; expected metadata.jsonl",
    ),
    "no images": ({"x.txt": "a"}, ImageError, "holds no images"),
    "a caption is missing": (
        {"x.png": None, "x.txt": "a", "y.png": None},
        PromptError,
        "y.png has no caption beside it",
    ),
    "the same twice": (
        {
            **IMAGES,
            "metadata.jsonl": lines(*({**row, "prompt": YAK, "index": 1} for row in ROWS)),
        },
        ConfigError,
        "a.jpg and b.png are both image 1 of 'a yak'",
    ),
    "a row without a prompt": (
        {**IMAGES, "metadata.jsonl": lines({"file_name": "b.png"})},
        ConfigError,
        "are not known",
    ),
    "no JSON": ({**IMAGES, "metadata.jsonl": "{]\n"}, ConfigError, "metadata.jsonl:1: not JSON"),
    "an index that is none": (
        {**IMAGES, "metadata.jsonl": lines({**ROWS[0], "index": "x"})},
        ConfigError,
        "must be a whole number, got 'x'",
    ),
    "numbers from anywhere": (
        {"1_0.png": None, "2_0.png": None},
        ConfigError,
        "so they may count from 0 or from 1",
    ),
    "too many numbers": (
        {"0_0.png": None, "3_0.png": None},
        ConfigError,
        "of prompts 0 to 3 by their names, but there are 3 prompts",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_understood_is_one_line(mistake: str, tmp_path: Path) -> None:
    files, kind, message = MISTAKES[mistake]
    with pytest.raises(kind, match=message) as caught:
        find_images("theirs", fill(tmp_path, files), {"mine": PROMPTS})
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="no such folder"):
        find_images("theirs", tmp_path / "elsewhere", {"mine": PROMPTS})


def test_images_come_into_the_store_once_and_a_corrupt_one_is_an_error_of_its_own(
    tmp_path: Path,
) -> None:
    theirs = fill(tmp_path / "theirs", {f"0_{index}.png": None for index in range(20)})
    (theirs / "0_3.png").write_bytes((theirs / "0_3.png").read_bytes()[:40])
    shutil.copy(theirs / "0_4.png", theirs / "0_5.png")
    folder = find_images("theirs", theirs, {"mine": PROMPTS})
    with ImageStore(tmp_path / "out") as store:
        kept = store_images(store, folder)
        assert len(kept) == 20
        for index in (0, 19):
            pixels = np.asarray(Image.open(theirs / f"0_{index}.png"))
            assert kept[PROMPTS[0].id, index].sha256 == pixels_sha256(pixels)
            assert np.array_equal(store.pixels(kept[PROMPTS[0].id, index].sha256), pixels)
        assert kept[PROMPTS[0].id, 3].sha256 == ""
        assert "0_3.png" in str(kept[PROMPTS[0].id, 3].error)
        assert kept[PROMPTS[0].id, 4] == kept[PROMPTS[0].id, 5]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 18
    journal = tmp_path / "out" / "images" / "journal-0.jsonl"
    before = journal.read_bytes()
    with ImageStore(tmp_path / "out") as store:
        assert store_images(store, folder) == kept
        assert journal.read_bytes() == before
        Image.new("RGB", (9, 9), "red").save(theirs / "0_3.png")  # mended
        Image.new("RGB", (9, 9), "blue").save(theirs / "0_0.png")  # changed
        again = store_images(store, folder)
    changed = {key[1] for key in kept if again[key] != kept[key]}
    assert changed == {0, 3}
    assert again[PROMPTS[0].id, 3].error is None


def test_prompts_of_no_list_are_a_split_and_images_without_partner_are_noted(
    tmp_path: Path,
) -> None:
    def table(*rows: tuple[str, str, int]) -> str:
        return lines(*({"file_name": n, "prompt": p, "index": i} for n, p, i in rows))

    base = fill(
        tmp_path / "base",
        {
            **IMAGES,
            "metadata.jsonl": table(("b.png", YAK, 0), ("a.jpg", OWN, 0), ("sub/c.png", OWN, 1)),
        },
    )
    tuned = fill(
        tmp_path / "tuned",
        {
            "b.png": None,
            "a.jpg": None,
            "metadata.jsonl": table(("b.png", OWN, 1), ("a.jpg", FOX, 0)),
        },
    )
    one = find_images("base", base, {"mine": PROMPTS})
    other = find_images("tuned", tuned, {"mine": PROMPTS})
    lists = [Split("mine", "external", tuple(PROMPTS))]
    assert leftover_split([one, other], lists) == Split("prompts", "external", (Prompt(OWN),))
    assert leftover_split([one], [Split("all", "external", (*PROMPTS, Prompt(OWN)))]) is None
    assert (
        check_paired(one, other)
        == "3 images of base and tuned have no partner in the other and were left out."
    )
    assert check_paired(one, one) is None
    lonely = fill(tmp_path / "lonely", {"b.png": None, "metadata.jsonl": table(("b.png", OWN, 9))})
    with pytest.raises(ConfigError, match="there is nothing to compare"):
        check_paired(one, find_images("lonely", lonely, {"mine": PROMPTS}))


def test_a_prompt_that_a_list_names_twice_has_the_images_of_both_numbers(tmp_path: Path) -> None:
    """Lists such as DrawBench repeat prompts; images are numbered by the line."""
    twice = {"mine": [Prompt(FOX), Prompt(YAK), Prompt(FOX)]}
    one_each = find_images(
        "theirs", fill(tmp_path / "a", dict.fromkeys(("0.png", "1.png", "2.png"))), twice
    )
    assert found(one_each) == {(FOX, 0): "0.png", (YAK, 0): "1.png", (FOX, 1): "2.png"}
    two_each = find_images(
        "theirs",
        fill(tmp_path / "b", dict.fromkeys(("0_0.png", "0_1.png", "2_0.png", "2_1.png"))),
        twice,
    )
    assert found(two_each) == {
        (FOX, 0): "0_0.png",
        (FOX, 1): "0_1.png",
        (FOX, 2): "2_0.png",
        (FOX, 3): "2_1.png",
    }


def test_images_of_an_archive_come_into_the_store_once(tmp_path: Path) -> None:
    theirs = fill(tmp_path / "theirs", {"a.png": None, "a.txt": YAK, "b.png": None, "b.txt": FOX})
    (theirs / "b.png").write_bytes(b"no image")
    shutil.make_archive(str(tmp_path / "theirs"), "zip", theirs)
    archive = tmp_path / "theirs.zip"
    folder = find_images("theirs", archive, {"mine": PROMPTS})
    with ImageStore(tmp_path / "out") as store:
        kept = store_images(store, folder)
        pixels = np.asarray(Image.open(theirs / "a.png"))
        assert kept[Prompt(YAK).id, 0].sha256 == pixels_sha256(pixels)
        assert kept[Prompt(FOX).id, 0].error == f"{archive}/b.png: not an image that can be decoded"
    journal = tmp_path / "out" / "images" / "journal-0.jsonl"
    before = journal.read_bytes()
    with ImageStore(tmp_path / "out") as store:
        assert store_images(store, find_images("theirs", archive, {"mine": PROMPTS})) == kept
        assert journal.read_bytes() == before


def test_images_of_prompts_that_were_dropped_are_left_out(tmp_path: Path) -> None:
    folder = find_images(
        "theirs", fill(tmp_path, dict.fromkeys(("0.png", "1.png"))), {"mine": PROMPTS}
    )
    assert found(without_prompts(folder, {Prompt(FOX).id})) == {(YAK, 0): "1.png"}
