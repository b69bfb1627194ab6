"""Needs a library of its extra "gpu"."""

import library_that_nobody_has  # noqa: F401
