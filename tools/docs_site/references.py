"""References that are made of the code: the Python API and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from pages import Pages

__all__ = ["MODULES", "add_references"]

MODULES: Final = {
    "ddpo": "Five functions, and what they return.",
    "ddpo.trainer": "Training with every setting, event by event.",
    "ddpo.trainer.config": "Settings of a training run.",
    "ddpo.trainer.monitoring.events": "Events of a training run.",
    "ddpo.trainer.algorithms": "The protocol of an algorithm.",
    "ddpo.trainer.advantages": "Advantages of a batch of rewards.",
    "ddpo.eval": "Evaluation with every setting.",
    "ddpo.types": "Values that cross the borders of the packages.",
    "ddpo.images": "Conversions of images.",
    "ddpo.rewards.base": "The protocol of a reward.",
    "ddpo.rewards.card": "Facts about a reward.",
    "ddpo.rewards.zoo": "Rewards by name, file or module.",
    "ddpo.rewards.check": "The conformance kit.",
    "ddpo.rewards.fixtures": "Images for tests of rewards.",
    "ddpo.rewards.adapters": "Rewards in other trainers.",
    "ddpo.policies.policy": "The protocols of base models.",
    "ddpo.weights": "Files of weights: where they are, and how they are fetched.",
    "ddpo.errors": "Errors, and which of them are the user's.",
}
"""Module with a page of its own → its subject in a few words."""
COMMANDS: Final = "command-line.md"


def add_references(pages: Pages) -> list[dict[str, Any]]:
    """Writes the generated references.

    Returns:
        Their entries in the order of pages, as in the setting `nav` of MkDocs.
    """
    lines = [f"- [`{module}`]({module}.md): {subject}\n" for module, subject in MODULES.items()]
    pages.write("api/index.md", "# Python API\n\nThe public modules.\n\n" + "".join(lines))
    entries: list[Any] = ["api/index.md"]
    for module, subject in MODULES.items():
        pages.write(f"api/{module}.md", f"# `{module}`\n\n{subject}\n\n::: {module}\n")
        entries.append({module: f"api/{module}.md"})
    pages.write(COMMANDS, commands_of(pages.root))
    return [{"Python API": entries}, {"Command line": COMMANDS}]


def commands_of(root: Path) -> str:
    """Markdown of the help of all commands, written by typer.

    Raises:
        subprocess.CalledProcessError: the program's commands could not be loaded.
    """
    words = [sys.executable, "-m", "typer", "ddpo.cli.main", "utils", "docs", "--name", "ddpo"]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [*words, "--title", "Command line"],
        env=environment,
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    return done.stdout
