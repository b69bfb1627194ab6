"""Options that the checks of rewards and of models share."""

from __future__ import annotations

from typing import Annotated, Final

from ddpo.cli.options import EXECUTION, INPUT, number_option, option
from ddpo.ranges import SECONDS

__all__ = ["EACH_S", "CheckTimeout", "OnlyChecks", "Timeout"]

EACH_S: Final = 1800.0
"""Seconds for a check.

A dozen calls of a reward of 7 billion parameters on a CPU take less, and so do six loads of an
image model of 6 billion.
"""

OnlyChecks = Annotated[
    list[str] | None,
    option("Name of the only check to run; repeatable.", metavar="CHECK", panel=INPUT),
]
Timeout = Annotated[
    float | None,
    number_option(
        SECONDS,
        "Time limit for all checks, in seconds; those left are failures.",
        panel=EXECUTION,
    ),
]
CheckTimeout = Annotated[
    float,
    number_option(
        SECONDS,
        "Time limit for each check, in seconds; one that exceeds it fails.",
        "--check-timeout",
        panel=EXECUTION,
    ),
]
