"""Builds the documentation as a website: `python tools/docs_site --out site`.

The pages are Markdown files in a temporary folder, which MkDocs turns to HTML. A warning of MkDocs,
such as a dead link, fails the build.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for modules of tools/

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import MkDocsException
from navigation import navigation
from notebook import notebook_markdown
from pages import Pages
from references import add_references
from repository_links import repository_of_checkout

ROOT = Path(__file__).parents[2]
NOTEBOOK = "examples/notebook.ipynb"


def build_site(root: Path, out: Path) -> None:
    """Writes the website of a checkout.

    Args:
        root: the checkout.
        out: folder of the website; files that are there already are removed.

    Raises:
        MkDocsException: the build gave a warning.
        FileNotFoundError: a page links to a file that does not exist.
    """
    repository = repository_of_checkout(root)
    with tempfile.TemporaryDirectory() as folder:
        pages = Pages(root, Path(folder), repository)
        pages.add_documents()
        if (root / NOTEBOOK).exists():
            pages.add_markdown(NOTEBOOK, notebook_markdown(root / NOTEBOOK, Path(folder)))
        order = navigation(pages, add_references(pages))
        config = load_config(
            str(Path(__file__).with_name("mkdocs.yml")),
            docs_dir=folder,
            site_dir=str(out.resolve()),
            nav=order,
            repo_url=repository,
            strict=True,
        )
        config.plugins.on_startup(command="build", dirty=False)
        try:
            build(config)
        finally:
            config.plugins.on_shutdown()


def main() -> None:
    """Builds, and prints the size of the site and the time that it took."""
    parser = argparse.ArgumentParser(description="Build the documentation as a website.")
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder of the website")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    start = time.monotonic()
    try:
        build_site(ROOT, given.out)
    except (MkDocsException, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    files = [path for path in given.out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    seconds = time.monotonic() - start
    print(f"{given.out}/index.html: {len(files)} files, {size:.1f} MB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
