"""Imports a module of its own that it forgot to ship."""

import ddpo_broken_plugin.forgotten  # noqa: F401
