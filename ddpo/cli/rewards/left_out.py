"""The line about files that were not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpo.cli.markup import escape

if TYPE_CHECKING:
    from rich.console import Console

    from ddpo.inputs.collection import ImageSource

__all__ = ["print_left_out"]


def print_left_out(console: Console, pictures: ImageSource) -> None:
    """Says which files beside the images were not read, if there were any."""
    from ddpo.inputs.image_files import left_out_sentence

    sentence = left_out_sentence(pictures.left_out)
    if sentence:
        console.print(escape(sentence), soft_wrap=True, highlight=False)
