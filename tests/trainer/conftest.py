"""The servers and tiny encoders of the reward tests are at hand here too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "rewards"))
