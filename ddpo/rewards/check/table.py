"""The table of checks for the documentation, from the docstrings of the checks."""

from __future__ import annotations

from ddpo.rewards.check.run import all_checks

__all__ = ["render_checks_markdown"]


def render_checks_markdown() -> str:
    """A Markdown table with one row per check."""
    lines = ["| check | demands |", "|---|---|"]
    lines += [
        f"| `{check.name}` | {check.demand.replace('|', chr(92) + '|')} |"
        for check in all_checks().values()
    ]
    return "\n".join(lines) + "\n"
