"""The images that `--images NAME=FOLDER` names, read without any heavy import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddpo.errors import ConfigError
from ddpo.eval.inputs.models import BASE
from ddpo.inputs.address import refuse_address

__all__ = ["named_folders"]


def named_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Name → place of the images of a base model and of others.

    Args:
        texts: Values `NAME=FOLDER`, where FOLDER may also be a table or an archive.

    Raises:
        ConfigError: A text has another form, a place does not exist, or the names are not `base`
            and at least one other, each once.
    """
    named = dict(_named_folder(text) for text in texts)
    if len(named) < len(texts) or BASE not in named or len(named) < 2:
        raise ConfigError(
            "images are given as --images base=FOLDER --images NAME=FOLDER …, each name once"
        )
    return named


def _named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    refuse_address(folder)
    if not equals or not name or not Path(folder).exists():
        raise ConfigError(
            f"--images {text!r} is not NAME=FOLDER with an existing folder, table or archive"
        )
    return name, Path(folder)
