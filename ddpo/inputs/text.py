"""Text files in UTF-8, or in UTF-16 and UTF-32 with a byte order mark."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ddpo.errors import PromptError
from ddpo.text import shortened

__all__ = ["MAX_CHARACTERS", "check_text", "numbered_lines", "read_text"]

MAX_CHARACTERS: Final = 20_000  # the size of all built-in lists; a longer line is no prompt
MAX_TEXT: Final = 256 * 1024 * 1024  # bytes of a file that is read as a whole, or of a line
MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # starts like the mark of UTF-16, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SEPARATORS: Final = "\x85\u2028\u2029"  # line ends of Unicode that no text format here uses


def read_text(path: Path, largest: int = MAX_TEXT) -> str:
    """The whole text of a file, with line feeds as line ends.

    Args:
        path: Path of the text file.
        largest: Greatest size of the file, bytes.

    Raises:
        PromptError: The file is missing, unreadable, too large, in another encoding, or has NUL
            characters.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        size = 0  # the reason is named below
    if size > largest:
        raise PromptError(f"{path}: {size} bytes; at most {largest} are read")
    return "".join(line for _, line in numbered_lines(path))


def numbered_lines(path: Path, newline: str | None = None) -> Iterator[tuple[int, str]]:
    """The lines of a file with their 1-based numbers, line ends included.

    Args:
        path: Path of the text file.
        newline: As in `open`; "" leaves the line ends unchanged.

    Raises:
        PromptError: The file is missing, unreadable, in another encoding, or has NUL characters.
    """
    number = 0
    try:
        if path.exists() and not path.is_file():
            raise PromptError(f"{path} is no regular file; save the text in one")
        with path.open(encoding=_encoding(path), newline=newline) as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT + 1), ""), 1):
                if len(line) > MAX_TEXT:
                    raise PromptError(f"{path}:{number}: a line of over {MAX_TEXT} characters")
                if "\0" in line:
                    hint = "text in UTF-16 without a byte order mark must be saved as UTF-8"
                    raise PromptError(f"{path}:{number}: a NUL character; {hint}")
                yield number, line
    except FileNotFoundError as error:
        raise PromptError(f"{path}: no such file") from error
    except UnicodeError as error:
        where = _undecodable(path)
        raise PromptError(f"{where} is not UTF-8 text; save the file as UTF-8") from error
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror or error}") from error


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")


def _undecodable(path: Path) -> str:
    """The place of the undecodable text: "file:line" for UTF-8, else the file."""
    if _encoding(path) in ("utf-16", "utf-32"):
        return str(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"{path}:{number}"
    return str(path)


def check_text(text: str, where: str) -> str:
    """The text without surrounding whitespace, if it is a valid prompt.

    Args:
        text: Prompt or other text from a user.
        where: Place of the text in messages, "file:line".

    Raises:
        PromptError: The text is empty or too long, or has half a surrogate pair or control
            characters.
    """
    text = text.strip()
    if not text:
        raise PromptError(f"{where}: an empty prompt")
    if len(text) > MAX_CHARACTERS:
        length = f"{len(text)} characters, more than {MAX_CHARACTERS}"
        raise PromptError(f"{where}: a prompt of {length}: {shortened(text)!r}")
    if text.isprintable():
        return text
    for character in text:
        kind = unicodedata.category(character)
        code = f"U+{ord(character):04X}"
        if kind == "Cs":
            raise PromptError(f"{where}: half a surrogate pair ({code}), such as half an emoji")
        if character in SEPARATORS or (kind == "Cc" and character not in "\t\n\r"):
            raise PromptError(f"{where}: a control character ({code}) in the prompt")
    return text
