"""The prompt that image generators write into the image file.

PNG text chunks come from AUTOMATIC1111's web UI, ComfyUI and others (`ddpo.inputs.captions`). JPEG,
WebP and AVIF files have the same text in the EXIF tag UserComment. ComfyUI writes its graph into
the EXIF tags Make and Model of WebP files.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from PIL import Image

from ddpo.image_opening import open_image, opened_file
from ddpo.inputs.captions import prompt_of_comfy, prompt_of_parameters, prompt_of_png_texts

__all__ = ["embedded_prompt"]

EXIF_FOLDER: Final = 0x8769  # tags of EXIF 2.32
USER_COMMENT: Final = 0x9286
COMFY_TAGS: Final = (0x010F, 0x0110)  # Make, Model
SETTINGS: Final = re.compile(r"^\s*Steps: ?\d+,", re.MULTILINE)


def embedded_prompt(file: str | bytes) -> str | None:
    """The prompt in the metadata of an image; None without a prompt or an image.

    Args:
        file: Path of the image, or its encoded bytes.
    """
    try:
        if isinstance(file, bytes):
            return _prompt_of(BytesIO(file))
        with opened_file(Path(file)) as opened:
            return _prompt_of(opened)
    except Exception:  # noqa: BLE001  # decoding reports the fault of the file later
        return None


def _prompt_of(file: BinaryIO) -> str | None:
    with open_image(file) as image:
        texts = {str(key): text for key, text in image.info.items() if isinstance(text, str)}
        return prompt_of_png_texts(texts) or _exif_prompt(image)


def _exif_prompt(image: Image.Image) -> str | None:
    if "exif" not in image.info:
        return None
    exif = image.getexif()
    for tag in COMFY_TAGS:
        name, _, graph = str(exif.get(tag, "")).partition(":")
        if name in ("prompt", "workflow") and (found := prompt_of_comfy(graph)):
            return found
    text = _user_comment(exif.get_ifd(EXIF_FOLDER).get(USER_COMMENT))
    generated = SETTINGS.search(text) or text.lstrip().startswith("{")
    return prompt_of_parameters(text) if generated else None


def _user_comment(value: Any) -> str:
    """The text of a UserComment, whose first eight bytes name its encoding (EXIF 2.32, 4.6.5)."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        return ""
    kind = value[:8]
    text = value[8:]
    if kind.startswith(b"UNICODE"):
        big = text[0::2].count(0) >= text[1::2].count(0)  # both byte orders are in use
        return text.decode("utf-16-be" if big else "utf-16-le", "replace")
    if kind.startswith((b"ASCII", b"\0\0\0\0")):
        return text.decode("utf-8", "replace")
    return value.decode("utf-8", "replace")
