"""HTML of a notebook's outputs, parsed."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from io import BytesIO

from PIL import Image

__all__ = ["Parsed"]

VOID = {"img", "br"}


class Parsed(HTMLParser):
    """The images, links and table rows of a piece of HTML; every tag must be closed."""

    def __init__(self, html: str | None) -> None:
        super().__init__()
        assert html is not None
        self.size = len(html.encode())
        self.images: list[Image.Image] = []
        self.alts: list[str] = []
        self.links: list[str] = []
        self.rows = 0
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert tag != "script"
        assert not any(name.startswith("on") for name in found)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "img":
            head, _, data = found["src"].partition(",")
            assert head in ("data:image/png;base64", "data:image/webp;base64")
            image = Image.open(BytesIO(base64.b64decode(data, validate=True)))
            image.load()
            self.images.append(image)
            self.alts.append(found["alt"])
        elif tag == "a":
            self.links.append(found["href"])
        self.rows += tag == "tr"

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
