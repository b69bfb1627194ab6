"""Three newcomers walk through the documentation, with ddpo from its wheel, in an empty folder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.installed import Distributions, install
from tests.walks import data_scientist, reward_author, student
from tests.walks.walk import Walk


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, id=script.__name__.rpartition(".")[2])
        for script in (student, reward_author, data_scientist)
    ],
)
def test_what_the_pages_say_works(
    script: ModuleType, distributions: Distributions, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    environment = install(distributions.wheel, tmp_path)
    sizes = {} if script is data_scientist else script.SIZES
    script.walk(Walk(environment, folder, sizes, getattr(script, "WORDS", {})))
