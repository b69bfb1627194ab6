"""Every reader of files, fuzzed: a value or an error of our own, whatever the file holds.

`python tools/torture readers` does the same with a million inputs.
"""

from __future__ import annotations

import ast
import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures_of_old_versions" / "d399994"
TRIES = 25  # per reader and full share
PARSERS = {
    "json": ("load", "loads"),
    "tomllib": ("load", "loads"),
    "csv": ("reader", "DictReader"),
    "pq": ("read_table", "ParquetFile", "read_schema"),
}
"""Modules whose functions parse files."""
READERS = (
    "json_lines",
    "load_tensors",
    "opened_tensors",
    "parse_foreign",
    "parse_json",
    "parse_record",
    "read_foreign_json",
    "read_json",
    "record_of",
    "safe_open",
)
"""Our own functions that do, and safetensors'."""


@pytest.fixture(scope="module", autouse=True)
def trial() -> None:
    sys.path.insert(0, str(ROOT / "tools" / "torture"))


def test_no_reader_raises_an_error_other_than_ours(tmp_path: Path) -> None:
    import readers

    outcomes = list(readers.run_here(TRIES, 15, tmp_path, FIXTURES))
    assert [fault for one in outcomes for fault in one.faults] == []
    assert len(outcomes) > 40
    assert all(one.tries > 0 for one in outcomes)


def test_a_reader_with_a_fault_is_found(tmp_path: Path) -> None:
    import readers
    from mutations import damaged_json
    from reader_table import Reader

    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "a.json").write_text('{"iteration": 3, "name": "a", "list": [1, 2]}')

    def read(file: Path) -> object:
        import json

        return json.loads(file.read_text())["iteration"] + 1

    outcome = readers.fuzz(
        Reader("naive", (), "a.json", damaged_json, lambda place: read), 200, 0, tmp_path
    )
    kinds = {
        kind for kind in ("KeyError", "TypeError", "ValueError") if kind in str(outcome.faults)
    }
    assert kinds & {"KeyError", "TypeError"}


def test_each_kind_of_damage_changes_the_file() -> None:
    from mutations import damaged_bytes, damaged_json, damaged_lines

    chance = random.Random(0)
    text = b'{"a": [1, 2.5, "x"], "b": {"c": null}}'
    for damage in (damaged_bytes, damaged_json, damaged_lines):
        found = {damage(text, chance) for _ in range(300)}
        assert len(found) > 200


def _parses(path: Path) -> bool:
    """True for a module with a call that parses a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in READERS:
            return True
        qualified = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)
        if qualified and called.attr in PARSERS.get(called.value.id, ()):
            return True
    return False


def test_every_module_that_parses_files_is_in_the_table() -> None:
    from reader_table import EXEMPT
    from reader_table import READERS as TABLE

    parsing = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "ddpo").rglob("*.py") if _parses(path)
    }
    tested = {module for reader in TABLE for module in reader.modules}
    assert parsing - tested - set(EXEMPT) == set()
    assert not tested & set(EXEMPT)
    assert all((ROOT / module).is_file() for module in tested | set(EXEMPT))
