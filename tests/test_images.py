"""Pixel conventions, against values computed by hand and against files of every awkward mode."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretended_mps import PretendedMps, mark

from ddpo.errors import ImageError
from ddpo.images import (
    contact_sheet,
    decode_image,
    from_images,
    from_uint8,
    load_image,
    save_png,
    to_pil,
    to_rgb,
    to_uint8,
)
from ddpo.policies import load_policy
from ddpo.types import ImageBatch, Prompt


def one(value: float) -> torch.Tensor:
    return torch.full((1, 3, 2, 2), value)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (0.0, 0),
        (1.0, 255),
        (0.4 / 255, 0),
        (0.6 / 255, 1),
        (254.6 / 255, 255),
        (100.9 / 255, 101),
        (-5e-4, 0),
        (1 + 5e-4, 255),
    ],
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


def oriented(form: str, orientation: int) -> bytes:
    """A file of 4 × 2 pixels, white at the top left of its stored rows, with an orientation."""
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    file = BytesIO()
    if form == "XMP":
        text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'
        image.save(file, format="WEBP", lossless=True, xmp=text.encode())
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(file, format=form, exif=exif.tobytes(), lossless=True)
    return file.getvalue()


# CIPA DC-008: the stored first row and first column are, seen upright, …
PLACES = {
    2: ("right", "top"),
    3: ("right", "bottom"),
    4: ("left", "bottom"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "XMP"])
@pytest.mark.parametrize("orientation", PLACES)
def test_an_image_is_turned_once(form: str, orientation: int) -> None:
    """Scoring passes images through `to_rgb` several times."""
    image = decode_image(oriented(form, orientation), "photo")
    assert image.size == ((4, 2) if orientation < 5 else (2, 4))
    side, end = PLACES[orientation]
    corner = (image.width - 1 if side == "right" else 0, image.height - 1 if end == "bottom" else 0)
    batch = ImageBatch.of_images([to_rgb(image)], [Prompt("a photo")])
    for found in (image, to_rgb(image), batch.images[0], Image.fromarray(batch.uint8[0])):
        white = [
            (x, y)
            for x in range(found.width)
            for y in range(found.height)
            if found.getpixel((x, y)) == (255, 255, 255)
        ]
        assert white == [corner]
    assert batch.pixels[0, :, corner[1], corner[0]].tolist() == [1.0, 1.0, 1.0]
    assert float(batch.pixels.sum()) == 3.0


def test_grey_files_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 77).save(tmp_path / "grey.png")
    assert load_image(tmp_path / "grey.png").getpixel((1, 1)) == (77, 77, 77)


def test_unreadable_files_are_reported_on_one_line(tmp_path: Path) -> None:
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


def test_png_is_written_whole_and_exact(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8))
    save_png(image, tmp_path / "new" / "x.png")
    assert np.array_equal(np.asarray(load_image(tmp_path / "new" / "x.png")), np.asarray(image))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.png"]


def test_contact_sheet_places_images_in_rows() -> None:
    sheet = contact_sheet(
        [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")], columns=2, gap=1
    )
    assert sheet.size == (9, 9)
    assert [sheet.getpixel(place) for place in ((0, 0), (5, 0), (0, 5), (5, 5))] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]
    with pytest.raises(ImageError):
        contact_sheet([], columns=2)


RAMP = np.array([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]], np.float32)
LEVELS = [0, 51, 102, 153, 204, 255]  # 255 × RAMP, by hand


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def sixteen(form: str, **options: object) -> bytes:
    return encoded(Image.fromarray((RAMP * 65535).round().astype(np.uint16)), form, **options)


def floats(values: np.ndarray, form: str = "TIFF", **options: object) -> bytes:
    return encoded(Image.fromarray(values.astype(np.float32)), form, **options)


def twelve_bit_tiff() -> bytes:
    """A little-endian TIFF of two 12-bit pixels, 0 and 4095, packed into three bytes (TIFF 6.0)."""
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 3, 1), (279, 4, 3)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 12) + b"\x00\x0f\xff\x00" + directory


SCALED = {
    "float TIFF": (floats(RAMP), LEVELS),
    "float PFM": (floats(RAMP, "PPM"), LEVELS),
    "float TIFF, 0 is white": (floats(RAMP, tiffinfo={262: 0}), LEVELS[::-1]),
    "float within rounding of 1": (floats(RAMP * 1.0005), LEVELS),
    "16-bit PNG": (sixteen("PNG"), LEVELS),
    "16-bit PNG, one level transparent": (sixteen("PNG", transparency=0), [255, *LEVELS[1:]]),
    "16-bit TIFF": (sixteen("TIFF"), LEVELS),
    "16-bit TIFF, 0 is white": (sixteen("TIFF", tiffinfo={262: 0}), LEVELS[::-1]),
    "16-bit PGM": (sixteen("PPM"), LEVELS),
    "12-bit TIFF": (twelve_bit_tiff(), [0, 255]),
}


@pytest.mark.parametrize("kind", SCALED)
def test_greys_of_more_than_eight_bits_are_scaled_by_their_type(kind: str) -> None:
    data, levels = SCALED[kind]
    assert np.asarray(decode_image(data, kind))[0].tolist() == [[level] * 3 for level in levels]


UNKNOWN_RANGE = {
    "0 … 255": (floats(RAMP * 255), "go from 0 to 255; only 0 … 1"),
    "-1 … 1": (floats(RAMP * 2 - 1), "go from -1 to 1; only 0 … 1"),
    "NaN": (floats(np.where(RAMP > 0.9, np.nan, RAMP)), "not all finite"),
    "infinite": (floats(np.where(RAMP > 0.9, np.inf, RAMP)), "not all finite"),
    "32-bit integers": (
        encoded(Image.fromarray((RAMP * 65535).astype(np.int32)), "TIFF"),
        "32-bit integer pixels have no known range",
    ),
}


@pytest.mark.parametrize("kind", UNKNOWN_RANGE)
def test_a_range_that_the_type_does_not_fix_is_refused(kind: str) -> None:
    data, reason = UNKNOWN_RANGE[kind]
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data, "x.tiff")
    assert str(caught.value).startswith("x.tiff: ")


RED_IN_MODES = {
    "1": (1, (255, 255, 255)),
    "L": (9, (9, 9, 9)),
    "RGB": ((255, 0, 0), (255, 0, 0)),
    "RGBX": ((255, 0, 0, 0), (255, 0, 0)),
    "RGBA": ((255, 0, 0, 0), (255, 255, 255)),
    "RGBa": ((0, 0, 0, 0), (255, 255, 255)),
    "LA": ((0, 51), (204, 204, 204)),
    "La": ((0, 51), (204, 204, 204)),
    "CMYK": ((0, 255, 255, 0), (255, 0, 0)),
    "YCbCr": ((76, 85, 255), (254, 0, 0)),  # JFIF: 76 + 1.402·127, which is 254.05
    "HSV": ((0, 255, 255), (255, 0, 0)),
    "I;16B": (65535, (255, 255, 255)),
    "F": (0.2, (51, 51, 51)),
}


@pytest.mark.parametrize("mode", RED_IN_MODES)
def test_every_mode_becomes_rgb(mode: str) -> None:
    color, expected = RED_IN_MODES[mode]
    assert to_rgb(Image.new(mode, (2, 1), color)).getpixel((1, 0)) == expected


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="has no pixels"):
        to_rgb(Image.new("RGB", size))


ORDER = {  # EXIF orientation → the four corner pixels, row by row, when 1 2 / 3 4 are stored
    1: [1, 2, 3, 4],
    2: [2, 1, 4, 3],
    3: [4, 3, 2, 1],
    4: [3, 4, 1, 2],
    5: [1, 3, 2, 4],
    6: [3, 1, 4, 2],
    7: [4, 2, 3, 1],
    8: [2, 4, 1, 3],
    0: [1, 2, 3, 4],
    9: [1, 2, 3, 4],
}


@pytest.mark.parametrize("orientation", ORDER)
def test_all_eight_orientations_and_no_others(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.array([[1, 2], [3, 4]], np.uint8))
    upright = decode_image(encoded(stored, "PNG", exif=exif), "x.png")
    assert np.asarray(upright)[..., 0].ravel().tolist() == ORDER[orientation]


@pytest.mark.parametrize(
    "exif",
    [b"", b"Exif", b"Exif\0\0", b"Exif\0\0MM", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 40],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_damaged_exif_leaves_the_image_as_it_is(exif: bytes, form: str) -> None:
    data = encoded(Image.new("RGB", (4, 2), "white"), form, exif=exif)
    image = decode_image(data, "x")
    assert (image.size, image.getpixel((0, 0))) == ((4, 2), (255, 255, 255))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_the_image(form: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert decode_image(data, "x").getpixel((2, 2)) == (255, 0, 0)


def refusal(data: bytes) -> str | None:
    """Why bytes are no image; None if they are one."""
    try:
        assert decode_image(data, "x").mode == "RGB"
    except ImageError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about damaged tags
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF"])
def test_damaged_bytes_are_one_line_or_an_image(form: str) -> None:
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    whole = encoded(Image.effect_noise((32, 32), 80).convert("RGB"), form)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(0, min(len(data), 300), 6):
            data[place] = random.integers(256)
        message = refusal(bytes(data))
        refused += message is not None
        assert "\n" not in (message or "")
    assert refused
    with pytest.raises(ImageError, match="x: "):
        decode_image(whole[:20], "x")


def test_bytes_of_a_file_are_as_the_file(tmp_path: Path) -> None:
    Image.effect_noise((9, 7), 80).convert("RGB").save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    from_bytes = decode_image(data, "x")
    from_file = load_image(tmp_path / "x.png")
    assert np.array_equal(np.asarray(from_bytes), np.asarray(from_file))


def test_names_in_messages_stay_on_their_line(tmp_path: Path) -> None:
    for name in ("two\nlines.png", "not\udcffutf8.png"):
        (tmp_path / name).write_text("no image")
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(caught.value).encode()  # any terminal or log can hold it


def test_levels_made_on_a_device_are_those_made_on_the_cpu() -> None:
    """All 256 levels, the halves between them, their neighbours in float32, and random values."""
    levels = torch.arange(256, dtype=torch.float32) / 255
    halves = (torch.arange(255, dtype=torch.float32) + 0.5) / 255
    near = torch.cat(
        [torch.nextafter(halves, torch.tensor(1.0)), torch.nextafter(halves, torch.tensor(0.0))]
    )
    random = torch.rand(4 * 3 * 32 * 32 - 1021, generator=torch.Generator().manual_seed(0))
    pixels = torch.cat([levels, halves, near, random]).view(4, 3, 32, 32)
    expected = to_uint8(pixels)
    with PretendedMps():
        assert np.array_equal(to_uint8(mark(pixels.clone())), expected)
        batch = ImageBatch.off_device(mark(pixels.clone()), [Prompt("a")] * 4, levels=True)
        assert batch.from_bytes
        assert np.array_equal(batch.uint8, expected)
        exact = ImageBatch.off_device(mark(pixels.clone()), [Prompt("a")] * 4, levels=False)
        assert torch.equal(exact.pixels, pixels)
        for wrong in (2.0, -0.1, float("nan")):
            bad = pixels.clone()
            bad[2, 1, 5, 5] = wrong
            with pytest.raises(ImageError, match="in image 2"):
                to_uint8(mark(bad))


def test_decoding_in_slices_gives_the_images_of_one_call(tiny_model: Path) -> None:
    latents = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = load_policy(str(tiny_model), device="cpu").decode(latents)
    with PretendedMps():
        found = load_policy(str(tiny_model), device="mps").decode(mark(latents.clone())).cpu()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_images_are_read_without_the_optional_packages_of_formats(tmp_path: Path) -> None:
    """A plain installation has no pillow-heif, and Pillow raises KeyError for unknown formats."""
    names = ["a.png", "b.jpg", "c.webp", "d.gif", "e.bmp", "f.tiff"]
    for name in names:
        Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / name)
    program = (
        "import sys\n"
        "sys.modules['pillow_heif'] = None  # as if it were not installed\n"
        "sys.argv[1:] = ['rewards', 'score', 'darkness', '.', '--json']\n"
        "from ddpo.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert "damaged" not in done.stdout
    assert all(name in str(rows) for name in names)
