"""The package's long description: README.md, whose links work outside the repository.

Hatchling calls this hook at every build. Relative links of the README become addresses in the
repository of `[project.urls]`. Without such an address they become plain text, and images go.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # for modules of tools/

from hatchling.metadata.plugin.interface import MetadataHookInterface
from repository_links import address_of, repository_of, rewrite_links

__all__ = ["ReadmeHook", "long_description"]

README = "README.md"


class ReadmeHook(MetadataHookInterface):
    """Gives the metadata of the package its long description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the field `readme` to the table `[project]`."""
        text = long_description(Path(self.root), metadata)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def long_description(root: Path, project: Mapping[str, Any]) -> str:
    """README.md of a checkout, with absolute links or none.

    Args:
        root: the checkout.
        project: table `[project]` of its pyproject.toml.
    """
    repository = repository_of(project)

    def resolve(path: str, anchor: str) -> str | None:
        if repository is None:
            return None
        kind = "blob"
        if (root / path).is_dir():
            kind = "tree"
        elif Path(path).suffix in (".webp", ".png", ".svg"):
            kind = "raw"
        return address_of(repository, path, kind=kind) + anchor

    return rewrite_links((root / README).read_text(encoding="utf-8"), README, resolve)
