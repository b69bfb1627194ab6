"""Folders as lists of image files: suffixes, order, links, names, and what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from ddpo.errors import ImageError
from ddpo.images import load_image
from ddpo.inputs.image_files import ImageFiles, find_images, image_suffixes, left_out_sentence


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images([folder])]


def test_folders_stand_for_their_images_in_order(tmp_path: Path) -> None:
    assert found(fill(tmp_path, "b.png", "a.JPG", "sub/c.webp", "notes.txt")) == [
        "a.JPG",
        "b.png",
        "sub/c.webp",
    ]
    with pytest.raises(ImageError, match="no such file or folder"):
        find_images([tmp_path / "absent"])
    (tmp_path / "void").mkdir()
    with pytest.raises(ImageError, match="holds no images"):
        find_images([tmp_path / "void"])


ORDERS = {
    "unpadded": [f"{number}.png" for number in range(12)],
    "padded": [f"{number:05}.png" for number in range(12)],
    "with words": ["img_2.png", "img_10.png", "img_100.png"],
    "two numbers": ["1_2.png", "1_10.png", "2_1.png", "10_0.png"],
    "folders": ["2/1.png", "2/10.png", "10/0.png"],
    "padded and not": ["1.png", "01.png", "2.png", "02.png"],
    "longer than any integer type": ["9.png", f"1{'0' * 200}.png"],
    "numbers and words": ["2.png", "10.png", "a.png", "a1.png", "a1b.png", "a10.png"],
}


@pytest.mark.parametrize("names", ORDERS.values(), ids=ORDERS)
def test_numbers_sort_as_numbers(names: list[str], tmp_path: Path) -> None:
    assert found(fill(tmp_path, *reversed(names))) == names


def test_every_suffix_that_pillow_reads_is_an_image() -> None:
    listed = ".png .apng .jpg .jpeg .jpe .jfif .mpo .webp .avif .gif .bmp .dib .tif .tiff .jp2 .tga"
    assert {*listed.split(), ".ppm", ".pgm", ".ico", ".psd", ".qoi"} <= image_suffixes()
    assert not {".pdf", ".ps", ".eps", ".svg", ".mpg", ".mp4", ".wmf", ".h5"} & image_suffixes()


@pytest.mark.parametrize(
    "suffix", [".jfif", ".jpe", ".avif", ".apng", ".tga", ".heic", ".jp2", ".MPO"]
)
def test_images_of_rarer_suffixes_are_found_and_read(suffix: str, tmp_path: Path) -> None:
    forms = {".avif": "AVIF", ".apng": "PNG", ".tga": "TGA", ".heic": "HEIF", ".jp2": "JPEG2000"}
    if suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    with (tmp_path / f"x{suffix}").open("wb") as file:
        Image.new("RGB", (32, 32), "red").save(file, forms.get(suffix, "JPEG"))
    (path,) = find_images([tmp_path])
    red, green, blue = load_image(path).getpixel((9, 9))  # type: ignore[misc]
    assert red > 240
    assert max(green, blue) < 15


LEFT_OUT = {
    "other kinds": (["a.png", "b.svg", "c.mp4", "d.MP4"], "3 files left out: 2 .mp4, 1 .svg"),
    "one": (["a.png", "README"], "1 file left out: 1 without a suffix"),
    "captions and tables belong": (["a.png", "a.txt", "a.caption", "metadata.jsonl", "m.csv"], ""),
    "hidden": (["a.png", ".b.png", ".cache/c.png"], "1 file left out: 1 hidden"),
    "of a Mac": (["a.png", "._a.png", "__MACOSX/._a.png", "__MACOSX/b.png", ".DS_Store"], ""),
    "of Windows": (["a.png", "Thumbs.db", "desktop.ini"], ""),
    "below": (["a.png", "x/y/b.pdf", "z/c.pdf"], "2 files left out: 2 .pdf"),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_is_left_out_is_counted(kind: str, tmp_path: Path) -> None:
    names, sentence = LEFT_OUT[kind]
    files = ImageFiles([fill(tmp_path, *names)])
    assert [Path(file).name for file in files] == ["a.png"]
    assert left_out_sentence(files.left_out) == sentence


def test_a_folder_of_other_files_says_which(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"holds no images; 2 files left out: 2 \.mp4"):
        ImageFiles([fill(tmp_path, "a.mp4", "b.mp4")])


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    inside = fill(tmp_path / "in", "a.png", "sub/b.png")
    outside = fill(tmp_path / "out", "c.png")
    (inside / "circle").symlink_to(inside, target_is_directory=True)
    (inside / "up").symlink_to(tmp_path, target_is_directory=True)
    (inside / "twice").symlink_to(inside / "sub", target_is_directory=True)
    (inside / "out").symlink_to(outside, target_is_directory=True)
    (inside / "out again").symlink_to(outside, target_is_directory=True)
    (outside / "back").symlink_to(inside, target_is_directory=True)
    (inside / "z.png").symlink_to(outside / "c.png")
    assert sorted(Path(name).name for name in found(inside)) == ["a.png", "b.png", "c.png", "z.png"]


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (path,) = find_images([tmp_path])
    with pytest.raises(ImageError, match="no such file"):
        load_image(path)


def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(fill(tmp_path, "a.png") / "b.png")
    files = ImageFiles([tmp_path])
    assert (len(files), left_out_sentence(files.left_out)) == (1, "1 file left out: 1 .png")


def test_names_of_any_bytes_are_found(tmp_path: Path) -> None:
    names = ["two\nlines.png", "not\udcffutf8.png", "snow ☃.png", "-dash.png", "a[1].png"]
    assert sorted(found(fill(tmp_path, *names))) == sorted(names)
