"""The files that user code depends on in its folder, and the detection of their changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ddpo.source_files import module_files, source_files
from ddpo.user_code import load_file


def written(folder: Path, files: dict[str, str]) -> Path:
    """A folder with files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import helper", {"helper.py"}),
        ("from helper import K", {"helper.py", "deep/w.json"}),
        ("def f(images):\n    import helper", {"helper.py"}),
        ("import importlib\nx = importlib.import_module('helper')", {"helper.py"}),
        ("from lib import inner", {"lib/__init__.py", "lib/inner.py", "lib/other.py"}),
        ("import lib.inner as i", {"lib/__init__.py", "lib/inner.py", "lib/other.py"}),
        (
            "import importlib\ndef f(n):\n    importlib.import_module(f'judges.{n}')",
            {"judges/a.py"},
        ),
        (
            "from importlib import import_module\nimport_module('.helper', __package__)",
            {"helper.py"},
        ),
        (
            "from importlib import import_module\nimport_module(f'{__package__}.fast')",
            {"fast.abi3.so"},
        ),
        ("import fast", {"fast.abi3.so"}),
        ("import importlib\ndef f(n):\n    importlib.import_module(n)", set()),
        (
            "import sys\nsys.path.insert(0, HERE + 'tools')\nD = 'tools'\nimport hammer",
            {"tools/hammer.py"},
        ),
        ("W = open('w.bin')", {"w.bin"}),
        ("W = HERE / 'deep' / 'w.json'", {"deep/w.json"}),
        ("W = HERE / 'deep/w.json'", {"deep/w.json"}),
        ("def f(n):\n    return open(f'part_{n}.txt')", {"part_1.txt", "part_2.txt"}),
        ("W = sorted(HERE.glob('part_*.txt'))", {"part_1.txt", "part_2.txt"}),
        ("C = load('config.json')", {"config.json", "deep/w.json"}),
        ("W = 'link.bin'", {"link.bin"}),
        ("import json, os, random\nW = 'absent.bin'", set()),
        ("LOG = HERE / 'w.bin'\ndef f(images):\n    LOG.open('a').write('x')", set()),
        ("open('w.bin', 'w')", set()),
        ("images = 'deep'", set()),
    ],
)
def test_modules_and_data_files_are_found_by_reading_the_code(
    tmp_path: Path, code: str, found: set[str]
) -> None:
    files = {
        "helper.py": "K = 1",
        "lib/__init__.py": "",
        "lib/inner.py": "from . import other",
        "lib/other.py": "",
        "w.bin": "1",
        "deep/w.json": "{}",
        "part_1.txt": "",
        "part_2.txt": "",
        "config.json": '{"weights": "deep/w.json"}',
        "tools/hammer.py": "",
        "judges/a.py": "",
        "fast.abi3.so": "",
    }
    folder = written(tmp_path, files)
    if "from helper" in code:
        (folder / "helper.py").write_text(
            "P = 'deep/w.json'\nimport r"
        )  # names a file itself, and imports in a circle
    (folder / "link.bin").symlink_to(folder / "w.bin")
    (folder / "r.py").write_text(code)
    known = source_files(folder / "r.py")
    assert next(iter(known)) == "r.py"
    assert set(known) - {"r.py"} == found
    assert all(
        digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name, digest in known.items()
    )


def test_installed_modules_have_versions_instead() -> None:
    assert module_files(Path(pytest.__file__), "pytest") == {}
    assert module_files(Path(hashlib.__file__), "hashlib") == {}


@pytest.mark.parametrize("target", ["helper.py", "deep/w.json", "lib/inner.py", "weights.bin"])
def test_a_file_is_run_again_when_what_it_depends_on_has_changed(
    tmp_path: Path, target: str
) -> None:
    folder = written(
        tmp_path,
        {"helper.py": "K = 1", "deep/w.json": "2", "lib/inner.py": "K = 3", "real.bin": "4"},
    )
    (folder / "weights.bin").symlink_to(folder / "real.bin")
    (folder / "r.py").write_text(
        "from pathlib import Path\nimport helper\nfrom lib import inner\n"
        "HERE = Path(__file__).parent\n"
        "A = HERE / 'deep' / 'w.json'\nB = HERE / 'weights.bin'\n"
        "sum_ = helper.K + inner.K + int(A.read_text()) + int(B.read_text())\n"
    )
    before = load_file(folder / "r.py", "sum_")
    assert before[0] == 10
    assert load_file(folder / "r.py", "sum_") == before
    path = folder / target
    path.write_text(path.read_text().replace(path.read_text()[-1], "9"))
    value, origin = load_file(folder / "r.py", "sum_")
    assert (
        value
        == 10 + 9 - {"helper.py": 1, "deep/w.json": 2, "lib/inner.py": 3, "weights.bin": 4}[target]
    )
    assert origin != before[1]
    assert (
        origin.partition(" files:")[0] == before[1].partition(" files:")[0]
    )  # its own hash is as it was


def test_namesakes_of_two_folders_are_distinguished(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = written(tmp_path / name, {"helper.py": f"K = {name!r}"})
        (folder / "r.py").write_text("from helper import K\n")
    found = [load_file(tmp_path / name / "r.py", "K")[0] for name in ("one", "two", "one")]
    assert found == ["one", "two", "one"]
    (tmp_path / "one" / "helper.py").write_text("K = 'new'")
    assert load_file(tmp_path / "one" / "r.py", "K")[0] == "new"
