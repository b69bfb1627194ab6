"""The notebook as a page of the website."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from nbconvert import MarkdownExporter

__all__ = ["notebook_markdown"]

FIGURES: Final = "figures"


def notebook_markdown(path: Path, folder: Path) -> str:
    """Markdown of a notebook with its outputs; its images are written as files.

    Args:
        path: the notebook.
        folder: folder of the website's pages.
    """
    text, resources = MarkdownExporter().from_filename(str(path))
    for name, content in resources.get("outputs", {}).items():
        (folder / name).write_bytes(content)
    text = re.sub(r"<style scoped>.*?</style>\n?", "", text, flags=re.DOTALL)
    return re.sub(r"<a href='runs/[^']*'>(.*?)</a>", r"\1", text)  # files of the notebook's run
