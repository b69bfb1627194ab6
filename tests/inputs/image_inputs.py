"""Images of each kind that users bring, made on the fly."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

COMFY = json.dumps(
    {
        "3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a heron"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
    }
)
"""The graph of a ComfyUI image with the prompt "a heron"."""


def generation_data(prompt: str) -> str:
    """The text that AUTOMATIC1111's web UI keeps with an image."""
    return f"{prompt}\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"


def encoded(level: int = 0, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of a small grey image file."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level,) * 3).save(file, form, **options)
    return file.getvalue()


def png_with(level: int = 0, **texts: str) -> bytes:
    """A PNG file with text chunks."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return encoded(level, pnginfo=info)


def with_user_comment(prompt: str, form: str, order: str = "utf-16-be") -> bytes:
    """A JPEG or WebP file with generation data in EXIF, as the web UI writes it."""
    exif = Image.Exif()
    text = b"UNICODE\0" + generation_data(prompt).encode(order)
    exif.get_ifd(0x8769)[0x9286] = text
    return encoded(0, form, exif=exif)


def fill(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """Files of a folder, by their names."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """A tar archive, compressed as its suffix says."""
    mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}
    with tarfile.open(path, mode[path.suffix]) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """A zip archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
