"""Pixel conventions, against values computed by hand and against files of every awkward mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.errors import ImageError
from ddpo.images import contact_sheet, find_images, from_images, from_uint8, load_image, save_png, to_pil, to_rgb, to_uint8


def one(value: float) -> torch.Tensor:
    return torch.full((1, 3, 2, 2), value)


@pytest.mark.parametrize(
    ("value", "level"),
    [(0.0, 0), (1.0, 255), (0.4 / 255, 0), (0.6 / 255, 1), (254.6 / 255, 255), (100.9 / 255, 101), (-5e-4, 0), (1 + 5e-4, 255)],
)
def test_levels_are_rounded_never_truncated(value: float, level: int) -> None:
    assert to_uint8(one(value)).tolist() == np.full((1, 2, 2, 3), level).tolist()


@pytest.mark.parametrize("value", [2.0, -0.1, 255.0, float("nan")])
def test_pixels_outside_the_range_are_refused(value: float) -> None:
    with pytest.raises(ImageError, match=r"pixels must be in \[0, 1\]"):
        to_uint8(one(value))


def test_every_level_survives_the_round_trip_in_place() -> None:
    levels = np.arange(256 * 3, dtype=np.int64).reshape(1, 16, 16, 3).astype(np.uint8)
    assert np.array_equal(to_uint8(from_uint8(levels)), levels)


def test_channels_and_axes_are_not_mixed_up() -> None:
    pixels = torch.zeros(1, 3, 2, 3)
    pixels[0, 2, 1, 0] = 1.0  # blue, second row, first column
    array = to_uint8(pixels)
    assert array.shape == (1, 2, 3, 3)
    assert array[0, 1, 0].tolist() == [0, 0, 255]
    assert to_pil(pixels)[0].size == (3, 2)
    assert to_pil(pixels)[0].getpixel((0, 1)) == (0, 0, 255)
    assert torch.equal(from_uint8(from_images(to_pil(pixels))), pixels)


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ImageError, match="expected uint8"):
        from_uint8(np.zeros((1, 3, 4, 4), np.uint8))
    with pytest.raises(ImageError, match="float64"):
        from_uint8(np.zeros((1, 4, 4, 3)))  # type: ignore[arg-type]


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (1, 1), (255, 0, 0, 51))  # 20 % red over white
    assert to_rgb(image).getpixel((0, 0)) == (255, 204, 204)


def test_transparent_palette_is_laid_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 0
    assert [to_rgb(image).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 0)]


def test_sixteen_bit_grey_is_scaled() -> None:
    array = np.array([[0, 257, 65535, 32896]], np.uint16)  # 257 × level
    assert np.asarray(to_rgb(Image.fromarray(array)))[0, :, 0].tolist() == [0, 1, 255, 128]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright
    image.save(tmp_path / "turned.png", exif=exif)
    upright = load_image(tmp_path / "turned.png")
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 255, 255)


def test_grey_files_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 77).save(tmp_path / "grey.png")
    assert load_image(tmp_path / "grey.png").getpixel((1, 1)) == (77, 77, 77)


def test_unreadable_files_are_told_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name in ("empty.png", "text.png", "cut.png", "absent.png"):
        with pytest.raises(ImageError, match=name) as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (200, 200)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    with pytest.raises(ImageError, match="bomb"):
        load_image(tmp_path / "bomb.png")


def test_folders_stand_for_their_pictures_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])] == ["a.JPG", "b.png", "sub/c.webp"]
    with pytest.raises(ImageError, match="no such file or folder"):
        find_images([tmp_path / "absent"])
    (tmp_path / "void").mkdir()
    with pytest.raises(ImageError, match="holds no pictures"):
        find_images([tmp_path / "void"])


def test_png_is_written_whole_and_exact(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8))
    save_png(image, tmp_path / "new" / "x.png")
    assert np.array_equal(np.asarray(load_image(tmp_path / "new" / "x.png")), np.asarray(image))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.png"]


def test_contact_sheet_places_pictures_in_rows() -> None:
    sheet = contact_sheet([Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")], columns=2, gap=1)
    assert sheet.size == (9, 9)
    assert [sheet.getpixel(place) for place in ((0, 0), (5, 0), (0, 5), (5, 5))] == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    with pytest.raises(ImageError):
        contact_sheet([], columns=2)
