"""Needs a library that nobody has."""

import library_that_nobody_has  # noqa: F401
