"""Links of Markdown pages between files of this repository, and the repository's address."""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["address_of", "repository_of", "rewrite_links"]

BRANCH: Final = "main"
FENCE: Final = r"^(?P<fence>`{3,}).*?^(?P=fence)`*$"
LINK: Final = r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<to>[^()\s]+)\)"
SHOWN: Final = r"(?P<start><img\b[^>]*?\bsrc=\")(?P<source>[^\"]+)(?P<end>\"[^>]*>)"
CODE: Final = r"(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
PARTS: Final = re.compile(f"{FENCE}|{LINK}|{SHOWN}|{CODE}", re.MULTILINE | re.DOTALL)

Resolve = Callable[[str, str], str | None]


def repository_of(project: Mapping[str, Any]) -> str | None:
    """The address `[project.urls] Repository` of a project's metadata; None if there is none."""
    found = project.get("urls", {}).get("Repository")
    return str(found).rstrip("/") if found else None


def repository_of_checkout(root: Path) -> str | None:
    """The address of the repository in a checkout's pyproject.toml; None if it names none."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return repository_of(tomllib.loads(text)["project"])


def address_of(repository: str, path: str, *, kind: str = "blob") -> str:
    """The address of a file on the main branch of a repository.

    Args:
        repository: address of the repository, without a slash at its end.
        path: path of the file in the repository.
        kind: "blob" for a page about a file, "tree" for a folder, "raw" for the file itself.
    """
    return f"{repository}/{kind}/{BRANCH}/{path}"


def rewrite_links(text: str, page: str, resolve: Resolve) -> str:
    """The Markdown text of a page with other targets for its links to files of the repository.

    Links in code, to other sites and within the page stay as they are.

    Args:
        text: Markdown of the page.
        page: path of the page in the repository.
        resolve: new target for the path of a file and an anchor ("" or "#name"); None leaves plain
            text in place of a link, and nothing in place of an image.
    """

    def target(link: str) -> str | None:
        path, _, anchor = link.partition("#")
        if not path or re.match(r"[a-z]+:", link):
            return link
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        return resolve(joined, f"#{anchor}" if anchor else "")

    def rewritten(part: re.Match[str]) -> str:
        if part["to"]:
            new = target(part["to"])
            if new is None:
                return "" if part["image"] else part["text"]
            return f"{part['image']}[{part['text']}]({new})"
        if part["source"]:
            new = target(part["source"])
            return "" if new is None else part["start"] + new + part["end"]
        return part[0]

    return PARTS.sub(rewritten, text)
