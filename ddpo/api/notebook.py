"""Manners in a notebook: no advice about widgets that ddpo does not show."""

from __future__ import annotations

import importlib
import sys
import warnings
from contextlib import suppress

__all__ = ["import_bars"]

BARS = "tqdm.auto"


def import_bars() -> None:
    """Imports tqdm under IPython without its warning that there are no widgets.

    Libraries import it, and ddpo shows no bars from Python.
    """
    if "IPython" not in sys.modules or BARS in sys.modules:
        return
    with warnings.catch_warnings(), suppress(ImportError):
        warnings.simplefilter("ignore")
        importlib.import_module(BARS)
