"""Pages of the website: files of the repository with their links turned to the site."""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Final

from repository_links import address_of, rewrite_links

__all__ = ["CARDS", "Pages"]

PLACES: Final = {
    "README.md": "index.md",
    "docs/README.md": "map.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "ddpo/policies/emoji/weights/README.md": "emoji.md",
    "ddpo/prompts/lists/README.md": "prompt-lists.md",
    "examples/notebook.ipynb": "notebook.md",
    "docs/reward-cards": "reward-cards/index.md",
}
"""File or folder of the repository → page, besides docs/NAME.md, which becomes NAME.md."""
CARDS: Final = "reward-cards"
UNSEARCHED: Final = "---\nsearch:\n  exclude: true\n---\n\n"
LANGUAGES: Final = {".py": "python", ".toml": "toml", ".md": "markdown", ".json": "json"}


class Pages:
    """The Markdown files of the website, in a folder, with links to one another.

    A link to a file that is no page leads to the repository. Without an address of the repository
    it leads to a page that shows the file.

    Args:
        root: the checkout.
        folder: empty folder for the pages.
        repository: address of the repository, or None.
    """

    def __init__(self, root: Path, folder: Path, repository: str | None) -> None:
        self.root = root
        self.folder = folder
        self.repository = repository
        self._shown: set[str] = set()

    def add_documents(self) -> None:
        """Writes all pages that are Markdown in the repository, and the figures of docs/."""
        for path in sorted((self.root / "docs").rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_file() and path.suffix == ".md":
                self.add_markdown(name, path.read_text(encoding="utf-8"))
            elif path.is_file():
                self._target_of(self.place_of(name)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, self._target_of(self.place_of(name)))
        for name in PLACES:
            path = self.root / name
            if path.suffix == ".md" and not name.startswith("docs/"):
                self.add_markdown(name, path.read_text(encoding="utf-8"))
        self._add_card_list()

    def add_markdown(self, name: str, text: str) -> None:
        """Writes the page of a file in the repository.

        Args:
            name: path of the file in the repository.
            text: Markdown of the page, with the links of that file.
        """
        place = self.place_of(name)
        self.write(place, rewrite_links(text, name, lambda to, end: self.link(to, place) + end))

    def write(self, place: str, text: str) -> None:
        """Writes a page.

        Args:
            place: path of the page in the site's folder.
            text: Markdown of the page.
        """
        path = self._target_of(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def link(self, name: str, page: str) -> str:
        """The link from a page to a file or folder of the repository.

        Args:
            name: path of the file in the repository.
            page: path of the page in the site's folder.

        Raises:
            FileNotFoundError: there is no such file.
        """
        path = self.root / name
        if not path.exists():
            raise FileNotFoundError(f"{page} links to {name}, which does not exist")
        place = self.place_of(name)
        if not place and self.repository:
            kind = "tree" if path.is_dir() else "blob"
            return address_of(self.repository, name, kind=kind)
        return posixpath.relpath(place or self._show(name), posixpath.dirname(page) or ".")

    def place_of(self, name: str) -> str:
        """The path in the site's folder of a file of the repository; "" if it is not there."""
        if name in PLACES:
            return PLACES[name]
        return name.removeprefix("docs/") if name.startswith("docs/") else ""

    def title_of(self, place: str) -> str:
        """The first heading of a written page."""
        text = self._target_of(place).read_text(encoding="utf-8")
        found = re.search(r"^# (.+)$", text, re.MULTILINE)
        return found[1].replace("`", "") if found else place

    def _target_of(self, place: str) -> Path:
        return self.folder / place

    def _show(self, name: str) -> str:
        """Writes a page that shows a file or lists a folder, once, and returns its place."""
        place = f"source/{name}.md"
        if name in self._shown:
            return place
        self._shown.add(name)
        path = self.root / name
        heading = f"{UNSEARCHED}# {name}\n\n"
        if path.is_dir():
            files = [
                file.relative_to(self.root).as_posix()
                for file in sorted(path.rglob("*"))
                if file.is_file() and "__pycache__" not in file.parts
            ]
            lines = [f"- [{file}]({self.link(file, place)})\n" for file in files]
            self.write(place, heading + "".join(lines))
        else:
            text = path.read_text(encoding="utf-8")
            longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
            fence = "`" * max(3, longest + 1)
            language = LANGUAGES.get(path.suffix, "text")
            self.write(place, f"{heading}{fence}{language}\n{text.rstrip()}\n{fence}\n")
        return place

    def _add_card_list(self) -> None:
        """Writes the list of the pages of all rewards."""
        cards = sorted((self.root / "docs" / CARDS).glob("*.md"))
        lines = [f"- [{card.stem}]({card.name})\n" for card in cards]
        introduction = "One page for each reward of [the zoo](../zoo.md).\n\n"
        self.write(f"{CARDS}/index.md", "# Reward cards\n\n" + introduction + "".join(lines))
