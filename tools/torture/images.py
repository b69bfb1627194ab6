"""Damaged and hostile image files, through the functions of scoring, evaluation and the server.

Every input follows from the seed and its number. Nine of ten are files of each format that Pillow
writes, mutated; the others have hand-built structures: EXIF, profiles, text chunks, tiles, sizes.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from ddpo.image_opening import register_heif

TRIES: Final = 100_000
BOMB_SIDE: Final = 16_383  # the longest side of WebP
MODES: Final = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I", "F", "CMYK", "YCbCr", "LAB")
FORMATS: Final = (
    *("AVIF", "BLP", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "IM", "JPEG"),
    *("JPEG2000", "MPO", "MSP", "PCX", "PNG", "PPM", "QOI", "SGI", "SPIDER", "TGA", "TIFF"),
    *("WEBP", "XBM"),
)
INTERESTING: Final = (0, 1, 2, 0x7F, 0xFF, 0x3FFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
SUFFIXES: Final = (".png", ".jpg", ".webp", ".tiff", ".gif", ".avif", ".jp2", ".heic", ".ico")


def run(size: float, seed: int, folder: Path) -> list[Any]:
    """Outcomes of mutated images one by one, and of a folder of decompression bombs together."""
    from _worker import tried_in_workers
    from outcome import Outcome

    tries = max(1, round(TRIES * size))
    outcome = tried_in_workers(__file__, "mutated images", tries, seed, folder)
    bombs = Outcome("decompression bombs scored together")
    for fault in _scored_bombs(folder / "bombs", bombs.measures):
        bombs.count(fault)
    return [outcome, bombs]


def _scored_bombs(folder: Path, measures: dict[str, float]) -> list[str | None]:
    """None or the fault of each bomb of a folder that `ddpo rewards score` reads at once."""
    folder.mkdir()
    files = {f"{number}-{name}": data for name, data in bombs().items() for number in range(3)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    table = folder / "scores.jsonl"
    command = [
        "-m",
        "ddpo",
        "rewards",
        "score",
        "compressibility",
        str(folder),
        "--out",
        str(table),
    ]
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    measures["peak MiB"] = usage.ru_maxrss / 1024
    if not table.exists():
        return [f"no table, exit code {process.returncode}: {error[-300:]}"]
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    found = {Path(row["file"]).name for row in rows}
    faults: list[str | None] = [None if name in found else f"{name}: no row" for name in files]
    if measures["peak MiB"] > 2048:
        faults.append(f"{measures['peak MiB']:.0f} MiB of memory")
    return faults


@cache
def bombs() -> dict[str, bytes]:
    """Small files that state very many pixels, by name."""
    Image.init()
    register_heif()
    large = Image.new("RGB", (BOMB_SIDE, BOMB_SIDE // 8), (10, 20, 30))
    found = {}
    for name, form in (("png", "PNG"), ("webp", "WEBP"), ("gif", "GIF"), ("tiff", "TIFF")):
        options: dict[str, Any] = {"TIFF": {"compression": "tiff_deflate"}}.get(form, {})
        if form == "WEBP":
            options = {"lossless": True, "method": 0}
        found[f"{name}.{name}"] = saved(large, form, **options)
    for name, side in (("fits", 8_000), ("over", 9_000), ("vast", 60_000)):
        found[f"{name}.png"] = png_of_size(side, side)
    found["tile.tiff"] = tiled_tiff(60_000)
    found["scans.jpg"] = many_scans()
    found["text.png"] = text_bomb()
    found["webp-lie.webp"] = webp_of_size(BOMB_SIDE, BOMB_SIDE)
    found["icon.ico"] = icon_of(png_of_size(12_000, 12_000))
    for form, name in (("AVIF", "avif"), ("JPEG2000", "jp2"), ("HEIF", "heic")):
        if form in Image.SAVE:
            found[f"{name}.{name}"] = saved(Image.new("RGB", (6_000, 6_000)), form)
    return found


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """The image as a file of a format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file, with its CRC."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(*chunks: bytes, width: int = 4, height: int = 4) -> bytes:
    """A grey PNG file with further chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def png_of_size(width: int, height: int) -> bytes:
    """A black one-bit PNG file of any size, whose pixels are there up to 100 million."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = height if width * height < 100_000_000 else 1
    pixels = chunk(b"IDAT", zlib.compress(bytes(((width + 7) // 8 + 1) * rows)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG file with 64 text chunks that unpack to 50 MB each."""
    packed = zlib.compress(bytes(50_000_000))
    return png_of(*[chunk(b"zTXt", b"key\0\0" + packed)] * 64)


def webp_of_size(width: int, height: int) -> bytes:
    """An animated WebP file that states a canvas and has one frame of one pixel."""
    frame = saved(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
    animation = b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    body = bytes(6) + bytes(6) + b"\x64\0\0\0" + frame
    frames = b"ANMF" + struct.pack("<I", len(body)) + body
    content = b"WEBP" + extended + animation + frames
    return b"RIFF" + struct.pack("<I", len(content)) + content


def icon_of(png: bytes) -> bytes:
    """An icon of stated 16×16 pixels that has another PNG file inside."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


def many_scans() -> bytes:
    """A progressive JPEG file whose last scan is repeated 3,000 times."""
    data = saved(Image.new("RGB", (4_000, 4_000)), "JPEG", progressive=True)
    place = data.rfind(b"\xff\xda")
    return data[:place] + data[place:-2] * 3_000 + b"\xff\xd9"


def tiff_of(
    entries: dict[int, tuple[int, int, int]], data: bytes = b"", following: int = 0
) -> bytes:
    """A TIFF file of one directory: tag → type, count, value or place."""
    rows = [struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items())]
    directory = struct.pack("<H", len(rows)) + b"".join(rows) + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 8) + directory + data


def tiled_tiff(side: int) -> bytes:
    """A TIFF file of 16×16 pixels in one compressed tile of `side` × `side`."""
    short = 3  # types of TIFF 6.0
    long = 4
    entries = {256: (long, 1, 16), 257: (long, 1, 16), 258: (short, 1, 8), 259: (short, 1, 8)}
    entries |= {262: (short, 1, 1), 322: (long, 1, side), 323: (long, 1, side)}
    entries |= {277: (short, 1, 1), 324: (long, 1, 126), 325: (long, 1, 20)}
    return tiff_of(entries, zlib.compress(bytes(5000))[:20].ljust(20, b"\0"))


@cache
def originals() -> tuple[bytes, ...]:
    """Whole files of every format and mode that Pillow writes, with metadata where it can."""
    Image.init()
    register_heif()
    random = Random(0)
    files = []
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = 'prompt:{"1": {"class_type": "KSampler", "inputs": {}}}'
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for form in FORMATS:
        if form not in Image.SAVE:
            continue
        for mode in MODES:
            image = Image.new(mode, (13, 9))
            if mode not in ("LAB", "I;16", "F", "I"):
                noise = Image.frombytes("RGB", (13, 9), random.randbytes(351))
                image = noise.convert(mode) if mode != "LA" else noise.convert("L").convert("LA")
            for options in ({}, {"exif": exif, "icc_profile": profile}, {"save_all": True}):
                if "save_all" in options:
                    options = {"save_all": True, "append_images": [image, image]}
                try:
                    files.append(saved(image, form, **options))
                except Exception:  # noqa: BLE001  # the format has no such mode
                    continue
    for options in (
        {"compression": "tiff_lzw"},
        {"compression": "jpeg"},
        {"compression": "group4"},
    ):
        mode = "1" if options["compression"] == "group4" else "RGB"
        files.append(saved(Image.new(mode, (64, 64)), "TIFF", **options))
    texts = PngInfo()
    texts.add_text("parameters", "a fox\nSteps: 20, Sampler: x")
    texts.add_itxt("prompt", '{"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "fox"}}}')
    files.append(saved(Image.new("RGB", (4, 4)), "PNG", pnginfo=texts))
    return tuple(dict.fromkeys(files))


def mutated(data: bytes, random: Random) -> bytes:
    """A file with one to eight changes of bytes, fields, lengths or blocks."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        if not changed:
            break
        place = random.randrange(len(changed))
        if random.random() < 0.5:
            place = min(place, random.randrange(64))  # headers
        random.choice(CHANGES)(changed, place, random)
    if random.random() < 0.5 and changed.startswith(b"\x89PNG"):
        return repaired_png(bytes(changed))
    return bytes(changed)


def _flip(data: bytearray, place: int, random: Random) -> None:
    data[place] ^= 1 << random.randrange(8)


def _byte(data: bytearray, place: int, random: Random) -> None:
    data[place] = random.randrange(256)


def _field(data: bytearray, place: int, random: Random) -> None:
    form = random.choice(("<H", ">H", "<I", ">I"))
    value = random.choice(INTERESTING) % (1 << 8 * struct.calcsize(form))
    data[place : place + struct.calcsize(form)] = struct.pack(form, value)


def _cut(data: bytearray, place: int, random: Random) -> None:
    del data[place : None if random.random() < 0.3 else place + random.randrange(1, 64)]


def _repeat(data: bytearray, place: int, random: Random) -> None:
    data[place:place] = data[place : place + random.randrange(1, 64)] * random.randrange(1, 9)


def _insert(data: bytearray, place: int, random: Random) -> None:
    data[place:place] = random.randbytes(random.randrange(1, 32))


def _splice(data: bytearray, place: int, random: Random) -> None:
    other = random.choice(originals())
    data[place:] = other[min(place, len(other)) :]


CHANGES: Final[tuple[Callable[[bytearray, int, Random], None], ...]] = (
    *(_flip, _byte, _byte, _field, _field, _field),
    *(_cut, _repeat, _insert, _splice),
)


def repaired_png(data: bytes) -> bytes:
    """The PNG file with right checksums, so that decoding does not stop at the first."""
    fixed = bytearray(data)
    place = 8
    while place + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, place)
        end = place + 8 + length
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[place + 4 : end]))
        place = end + 4
    return bytes(fixed)


def odd_exif(random: Random) -> bytes:
    """EXIF with an odd orientation, circular directories, or fields that point anywhere."""
    kind = random.choice((1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 200))
    count = random.choice((0, 1, 2, 1000, 0xFFFFFFFF))
    value = random.choice((0, 3, 6, 8, 9, 255, 65535, 0xFFFFFFFF))
    entries = {0x0112: (kind, count, value), 0x010F: (2, random.choice((4, 1 << 31)), value)}
    entries[0x8769] = (4, 1, random.choice((8, 0, 26, value)))  # 8: the directory itself
    entries[0x8825] = (random.choice((4, 13)), 1, 8)
    return b"Exif\0\0" + tiff_of(entries, random.randbytes(16), random.choice((0, 8, value)))


def hand_built(random: Random) -> bytes:
    """A file with one odd structure."""
    image = Image.new("RGB", (random.choice((1, 3, 17)), random.choice((1, 5, 300))))
    form = random.choice(("JPEG", "PNG", "WEBP", "TIFF", "AVIF"))
    profile = random.choice((b"", b"\0" * 200, random.randbytes(300), b"acsp" * 40))
    kinds: list[Callable[[], bytes]] = [
        lambda: saved(image, "JPEG", exif=odd_exif(random), icc_profile=profile),
        lambda: saved(image, "PNG", exif=odd_exif(random), icc_profile=profile),
        lambda: saved(image, "WEBP", exif=odd_exif(random), icc_profile=profile),
        lambda: saved(image, form, xmp=random.randbytes(40) + b'tiff:Orientation="9"'),
        lambda: tiff_of({256: (4, 1, 1 << random.randrange(32)), 257: (4, 1, 9)}, b"", 8),
        lambda: tiled_tiff(1 << random.randrange(17)),
        lambda: png_of(chunk(random.choice((b"zTXt", b"iTXt", b"iCCP")), random.randbytes(50))),
        lambda: png_of(chunk(b"gAMA", random.randbytes(4)), chunk(b"eXIf", odd_exif(random)[6:])),
        lambda: png_of(chunk(b"tEXt", b"prompt\0" + _deep_json(random))),
        lambda: png_of(chunk(b"tEXt", b"parameters\0" + b'{"prompt": "\\ud800"}')),
        lambda: png_of_size(random.choice((0, 1, 1 << 20)), random.choice((0, 1, 1 << 20))),
        lambda: webp_of_size(random.randrange(1, 1 << 24), random.randrange(1, 100)),
        lambda: icon_of(png_of(width=1 + random.randrange(3000))),
        lambda: bytes(random.randrange(2000)),
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        lambda: b"%PDF-1.4\n%%EOF",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    ]
    return random.choice(kinds)()


def _deep_json(random: Random) -> bytes:
    depth = 10 ** random.randrange(1, 6)
    return b"[" * depth if random.random() < 0.5 else b'{"nodes":' * depth


def input_of(seed: int, number: int) -> bytes:
    """The file of a number."""
    random = Random(f"{seed} {number}")
    if random.random() < 0.1:
        data = hand_built(random)
        return mutated(data, random) if random.random() < 0.5 else data
    return mutated(random.choice(originals()), random)


def try_one(seed: int, number: int, folder: Path) -> None:
    """Reads one input as scoring, evaluation and the server do; only UserError is right."""
    from ddpo.inputs.folder_prompts import FolderPrompts
    from ddpo.inputs.image_metadata import embedded_prompt
    from ddpo.inputs.input_image import InputImage
    from ddpo.rewards.image_files.stream import decode
    from ddpo.rewards.serve.wire import Limits, Refused, decode_batch

    data = input_of(seed, number)
    random = Random(number)
    if number % 4 == 0:
        path = folder / f"{os.getpid()}{random.choice(SUFFIXES)}"
        path.write_bytes(data)
        image = FolderPrompts(str(folder)).image(str(path))
    else:
        embedded_prompt(data)
        image = InputImage("x", data=data)
    image.state()
    if image.prompt is not None:
        image.prompt.id  # noqa: B018
    decoded = decode(image)
    if decoded.image is not None:
        if decoded.image.mode != "RGB" or 0 in decoded.image.size:
            raise AssertionError(f"{decoded.image.mode} {decoded.image.size}")
    elif not decoded.error or "\n" in decoded.error:
        raise AssertionError(f"the reason {decoded.error!r}")
    if number % 4 == 1:
        request = {
            "api": 1,
            "prompts": [{"text": ""}],
            "pictures": [base64.b64encode(data).decode()],
        }
        with contextlib.suppress(Refused):
            decode_batch(json.dumps(request).encode(), Limits())


if __name__ == "__main__":
    from _worker import work

    work(try_one)
