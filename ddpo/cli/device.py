"""The option `--device`, the same for every command that computes."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ddpo.devices import AUTO

__all__ = ["AUTO", "HELP", "Device", "RunDevice"]

HELP: Final = "Torch device, such as cuda, cuda:1, mps or cpu; auto: the accelerator that is here, else the CPU."

Device = Annotated[str, typer.Option(help=HELP)]
"""The option of a command without a run; "auto" by default."""

RunDevice = Annotated[str | None, typer.Option(help=f"{HELP} Default: the run's.")]
"""The option of a command that reads a run."""
