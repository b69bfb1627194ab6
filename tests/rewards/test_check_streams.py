"""The lines of `ddpo rewards check` come as the checks end, not all at the end."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.warm_start import start_ddpo

CODE = """
import time

def slow(images):
    time.sleep(0.2 * len(images))
    return [float(image.mean()) for image in images]
"""


def test_the_first_line_comes_long_before_the_last_check_ends(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    names = ["card-valid", "contract", "order", "batch-invariance"]
    words = [word for name in names for word in ("--only", name)]
    begun = time.monotonic()
    command = ["rewards", "check", "./mine.py:slow", "--json", *words]
    with start_ddpo(*command, cwd=tmp_path) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        times = {line.split(":")[0].split()[0]: time.monotonic() - begun for line in process.stderr}
        result = json.loads(process.stdout.read())
    assert process.returncode == 0
    assert [row["name"] for row in result] == names
    assert "takes" in times  # the line that names a slow reward
    ends = [times[name] for name in names]
    assert ends == sorted(ends)
    after_first = sum(row["seconds"] for row in result[1:])
    assert after_first > 1
    assert ends[-1] - ends[0] > 0.8 * after_first
