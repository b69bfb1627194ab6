"""Three newcomers walk through the documentation, with ddpo from its wheel, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.installed import Distributions
from tests.walks.walks import WALKS, take


@pytest.mark.slow
@pytest.mark.parametrize("name", WALKS)
def test_what_the_pages_say_works(name: str, distributions: Distributions, tmp_path: Path) -> None:
    take(name, distributions.wheel, tmp_path)
