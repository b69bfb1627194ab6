"""HTTP on this machine: bounded connections, a short log, and pages for one person's browser."""

from pathlib import Path
from typing import Final

TOKENS: Final = Path(__file__).parent / "static" / "tokens.css"
"""The colours of every page; a page that stands alone inlines them."""
