"""One image may be unscorable, never the job: hostile files, and limits of memory and time."""

import io
import json
import os
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpo.errors import ConfigError, ImageError
from ddpo.image_opening import MAX_PIXELS
from ddpo.images import decode_image, load_image, thumbnail
from ddpo.inputs.collection import image_source
from ddpo.inputs.folder_prompts import FolderPrompts
from ddpo.inputs.image_files import find_images
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.image_files import stream as stream_module
from ddpo.rewards.image_files.run import ScoreRow
from ddpo.rewards.image_files.sheet import extremes_sheet
from ddpo.rewards.image_files.stream import decode, decode_ahead
from ddpo.rewards.image_files.summary import RunningSummary


def png(size: tuple[int, int] = (4, 4), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A one-bit PNG file that states a size; its pixels are missing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT"


def saved(form: str, size: tuple[int, int], **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, form, **options)
    return file.getvalue()


def special(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize("kind", ["pipe", "socket", "endless", "circle", "folder"])
def test_what_is_no_regular_file_is_no_image(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a short path, as a socket needs
    special(Path("x.png"), kind)
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(decode(InputImage("x.png"))), daemon=True)
    reader.start()
    reader.join(10)
    assert not reader.is_alive(), "it waits for a writer"
    [decoded] = found
    assert "x.png" in str(getattr(decoded, "error", None))
    assert FolderPrompts().image("x.png").prompt is None


def test_odd_entries_do_not_stop_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    for kind in ("pipe", "endless", "circle", "folder"):
        special(tmp_path / f"{kind}.png", kind)
    os.mkfifo(tmp_path / "a.txt")  # where a caption would be
    images = list(image_source([tmp_path]))
    loaded = {Path(image.file).name: decode(image).image is not None for image in images}
    assert loaded == {"a.png": True, "circle.png": False, "endless.png": False}
    assert len(find_images([tmp_path])) == 3


@pytest.mark.parametrize(
    ("form", "limit"),
    [("PNG", MAX_PIXELS), ("WEBP", 40 << 20), ("QOI", 8 << 20), ("DDS", 8 << 20)],
)
def test_limits_are_of_the_stated_size(form: str, limit: int) -> None:
    side = int(limit**0.5) + 1
    data = png_header(side, side) if form == "PNG" else saved(form, (side, side))
    with pytest.raises(ImageError, match=f"x: {side}×{side} pixels; so large"):
        decode_image(data, "x")


def test_an_icon_is_measured_by_the_image_inside() -> None:
    inner = png_header(8_000, 8_000) + bytes(50)
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(ImageError, match="8000×8000 pixels"):
        decode_image(icon, "x.ico")


def test_a_very_long_row_is_refused() -> None:
    """A row of 2²⁵ pixels would take Pillow minutes, since it joins its parts one by one."""
    width = 1 << 25
    file = b"P6 " + str(width).encode() + b" 1 255\n" + bytes(100)
    with pytest.raises(ImageError, match=f"{width}×1 pixels; a side"):
        decode_image(file, "x")


def test_many_scans_are_refused_before_they_take_minutes() -> None:
    data = saved("JPEG", (2_000, 2_000), progressive=True)
    place = data.rfind(b"\xff\xda")
    assert decode_image(data, "x").size == (2_000, 2_000)
    with pytest.raises(ImageError, match="scans of 2000×2000 pixels"):
        decode_image(data[:place] + data[place:-2] * 2_000 + b"\xff\xd9", "x")


@pytest.mark.parametrize(
    "data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.4"]
)
def test_documents_are_no_images_whatever_their_suffix(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ImageError, match="not an image"):
        load_image(tmp_path / "x.png")


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_odd_orientations_leave_the_image_as_it_is(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode_image(saved("JPEG", (6, 3), exif=exif), "x").size == (6, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "F"])
def test_bands_give_the_pixels_of_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.effect_noise((9, 40), 90)
    image = {
        "RGBA": lambda: Image.merge("RGBA", [noise, noise.rotate(180), noise, noise.rotate(180)]),
        "LA": lambda: Image.merge("LA", [noise, noise.rotate(180)]),
        "P": lambda: _transparent(noise.quantize(8)),
        "I;16": lambda: noise.convert("I").point(lambda value: value * 257).convert("I;16"),
        "F": lambda: noise.convert("F").point(lambda value: value * (1 / 255) + 0),
    }[mode]()
    from ddpo import images as images_module

    whole = images_module.to_rgb(image).tobytes()
    monkeypatch.setattr(images_module, "BAND", 9 * 7)
    assert images_module.to_rgb(image).tobytes() == whole


def _transparent(image: Image.Image) -> Image.Image:
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (3, 7), (500, 400)])
def test_thumbnails_of_extreme_aspect_have_pixels(size: tuple[int, int]) -> None:
    small = thumbnail(Image.new("RGB", size), 160)
    assert max(small.size) == 160
    assert min(small.size) >= 1


def test_a_sheet_of_an_image_of_extreme_aspect(tmp_path: Path) -> None:
    (tmp_path / "long.png").write_bytes(png((1, 10_000)))
    summary = RunningSummary()
    summary.add(ScoreRow(str(tmp_path / "long.png"), None, "r", "scored", 1.0, None))
    assert extremes_sheet({"r": summary}).width > 160


def test_decoding_waits_for_memory_but_never_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads and room for one image: no two are decoded at once, and all are."""
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(png((64, 64)))
    monkeypatch.setattr(stream_module, "MEMORY", 16 * 64 * 64)
    present: list[int] = []
    most: list[int] = []
    original = InputImage.load

    def load(self: InputImage) -> Image.Image:
        image = original(self)
        present.append(1)
        most.append(len(present))
        return image

    monkeypatch.setattr(InputImage, "load", load)
    images = [InputImage(str(tmp_path / f"{number}.png")) for number in range(8)]
    names = []
    for decoded in decode_ahead(images, threads=4, ahead=8):
        names.append(Path(decoded.source.file).name)
        present.pop()
    assert names == [f"{number}.png" for number in range(8)]
    assert max(most) <= 5  # 4 bytes of decoded images within 16 of one in decoding, and the next


def test_an_abandoned_stream_ends_its_threads(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    stream = decode_ahead([InputImage(str(tmp_path / "a.png"))] * 50, threads=2, ahead=20)
    next(stream)
    stream.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("ddpo-decode")]


def test_one_damaged_member_of_a_zip_archive_is_one_image(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.png", "b.png", "c.png"):
            archive.writestr(name, png())
    data = bytearray(path.read_bytes())
    data[data.find(b"b.png") + 20] ^= 0xFF  # a byte of its content, so that its checksum fails
    path.write_bytes(data)
    errors = [decode(image).error for image in image_source([path])]
    assert [error is None for error in errors] == [True, False, True]
    assert "b.png" in str(errors[1])
    assert "CRC" in str(errors[1])


def test_a_sparse_member_of_a_tar_archive_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "b.png"):
            header = tarfile.TarInfo(name)
            header.size = len(png())
            tar.addfile(header, io.BytesIO(png()))
    data = bytearray(path.read_bytes())
    start = 1024  # the header of b.png, after one block of header and one of data
    assert data[start : start + 5] == b"b.png"
    data[start + 156 : start + 157] = b"S"  # a sparse file of GNU tar, of 64 TB
    data[start + 257 : start + 265] = b"ustar  \0"
    data[start + 386 : start + 410] = b"00000000000\0" + b"%011o\0" % len(png())
    data[start + 483 : start + 495] = b"\x80" + (64 << 40).to_bytes(11, "big")
    data[start + 148 : start + 156] = b" " * 8
    total = sum(data[start : start + 512])
    data[start + 148 : start + 156] = b"%06o\0 " % total
    path.write_bytes(data)
    errors = [decode(image).error for image in image_source([path])]
    assert errors[0] is None
    assert "70368744177664 bytes" in str(errors[1])


def test_a_name_in_tar_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 3 << 30
    (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ImageError, match="header of 3221225472 bytes"):
        image_source([tmp_path / "x.tar"])


def test_a_row_of_parquet_without_its_image_is_one_image(tmp_path: Path) -> None:
    rows = [{"image": png(), "prompt": "a"}, {"image": None, "prompt": "b"}]
    rows += [{"image": png(), "prompt": "c\x00d"}, {"image": png(), "prompt": "e"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    errors = [decode(image).error for image in image_source([tmp_path / "x.parquet"])]
    assert [error is None for error in errors] == [True, False, False, True]
    assert "x.parquet:2" in str(errors[1])


def test_a_dictionary_bomb_in_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    """64 rows of one value of 40 MB take 80 kB in the file and 2.5 GB in memory."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), [bytes(40_000_000)])
    table = pa.table({"image": column, "prompt": ["x"] * 64})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 1_000_000
    code = (
        "import sys\nfrom pathlib import Path\nfrom ddpo.inputs.collection import image_source\n"
        "assert sum(1 for _ in image_source([Path(sys.argv[1])])) == 64\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000_000  # kB


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"a" * (2 << 20)),
        lambda path: path.write_bytes(b"\0" * 100),
        lambda path: path.write_bytes(b"\xff\xfe\xfd"),
    ],
)
def test_a_bad_caption_is_the_reason_for_no_prompt(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    write(tmp_path / "a.txt")
    [image] = image_source([tmp_path])
    assert image.prompt is None
    assert "a.txt" in str(image.no_prompt)


def test_half_an_emoji_in_the_metadata_of_an_image_is_no_prompt(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("parameters", json.dumps({"prompt": "\ud83d"}))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=texts)
    [image] = image_source([tmp_path])
    assert image.prompt is None


def test_deep_and_long_toml_is_refused_in_one_line(tmp_path: Path) -> None:
    from ddpo.trainer.recipe import read_recipe

    for name, text in (("deep", "a = " + "[" * 5000), ("long", "a = " + "9" * 5000)):
        (tmp_path / f"{name}.toml").write_text(text)
        with pytest.raises(ConfigError, match=name):
            read_recipe(tmp_path / f"{name}.toml")
