"""Reading a report costs no import of a model library."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["load_report", "EvalConfig"])
def test_reading_a_report_loads_no_torch(name: str) -> None:
    script = (
        f"import sys; from ddpo.eval import {name}; "
        "print([package for package in ('torch', 'diffusers') if package in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
