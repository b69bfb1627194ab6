"""`ddpo rewards new`: its package is installed by pip, found by name, and passes its own tests."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from ddpo.errors import ConfigError, RunExistsError
from ddpo.rewards.scaffold import KINDS, write_package

ROOT = Path(__file__).parents[2]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_package_has_what_a_package_needs(tmp_path: Path) -> None:
    folder = write_package("mylab/soft-focus", "model", tmp_path / "made")
    expected = {
        "pyproject.toml",
        "README.md",
        ".gitignore",
        "make_weights.py",
        "tests/test_mylab_soft_focus.py",
    }
    expected |= {
        f"mylab_soft_focus/{name}"
        for name in ("__init__.py", "cards.py", "reward.py", "weights.safetensors")
    }
    assert files(folder) == expected
    assert (
        '"mylab/soft-focus" = "mylab_soft_focus.cards:CARD"'
        in (folder / "pyproject.toml").read_text()
    )
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    texts = [
        path.read_text() for path in folder.rglob("*") if path.suffix not in ("", ".safetensors")
    ]
    assert [text for text in texts if "$" in text] == []


def test_the_folder_is_called_like_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_package("mylab/focus") == Path("mylab-focus")
    assert write_package("focus") == Path("focus-reward")
    assert "focus_reward/reward.py" in files(tmp_path / "focus-reward")


def test_the_weights_are_those_of_the_script_beside_them(tmp_path: Path) -> None:
    folder = write_package("mylab/edges", "model", tmp_path / "made")
    weights = folder / "mylab_edges" / "weights.safetensors"
    shipped = weights.read_bytes()
    weights.unlink()
    done = subprocess.run(
        [sys.executable, folder / "make_weights.py"], capture_output=True, text=True, check=True
    )
    assert weights.read_bytes() == shipped
    assert done.stdout.strip() == hashlib.sha256(shipped).hexdigest()
    assert done.stdout.strip() in (folder / "mylab_edges" / "cards.py").read_text()


@pytest.mark.parametrize(
    "name",
    [
        "Focus",
        "my lab/focus",
        "a/b/c",
        "9lives",
        "mylab/",
        "mylab/focus.py",
        "focus-",
        "../focus",
        "",
    ],
)
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="must be name or vendor/name"):
        write_package(name, "function", tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"there is a reward 'darkness' already, from ddpo.*mylab/darkness"
    ):
        write_package("darkness", "function", tmp_path / "made")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    write_package(
        "mylab/focus", "function", tmp_path / "made"
    )  # an empty folder is as good as none
    before = (tmp_path / "made" / "README.md").read_text()
    with pytest.raises(RunExistsError, match="nothing is overwritten"):
        write_package("mylab/other", "class", tmp_path / "made")
    assert (tmp_path / "made" / "README.md").read_text() == before
    (tmp_path / "file").touch()
    with pytest.raises(RunExistsError):
        write_package("mylab/focus", "function", tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_package("mylab/focus", "function", tmp_path / "file" / "made")


def scratch_environment(folder: Path) -> Path:
    """The Python of a new virtual environment on top of this one, for the packages of the tests."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    (site / "beside.pth").write_text(
        "\n".join(
            dict.fromkeys(
                [str(ROOT), *(sysconfig.get_path(name) for name in ("purelib", "platlib"))]
            )
        )
    )
    return python


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Python with one package of each kind installed by `pip install -e`, and their folder."""
    folder = tmp_path_factory.mktemp("new")
    packages = [
        write_package(f"mylab/new-{kind}", kind, folder / f"mylab-new-{kind}") for kind in KINDS
    ]
    python = scratch_environment(folder / "venv")
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    command += [
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        *(part for package in packages for part in ("-e", package)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python, folder


def test_installed_packages_are_listed(installed: tuple[Path, Path]) -> None:
    python, folder = installed
    done = subprocess.run(
        [python, "-m", "ddpo", "rewards", "list", "--json", "--available"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    records = {record["id"]: record for record in json.loads(done.stdout)}
    for kind in KINDS:
        assert records[f"mylab/new-{kind}"]["origin"] == f"mylab-new-{kind} 0.1.0"


def test_their_own_tests_pass_unchanged(installed: tuple[Path, Path]) -> None:
    python, folder = installed
    packages = [folder / f"mylab-new-{kind}" for kind in KINDS]
    command = [
        python,
        "-m",
        "pytest",
        "-v",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        folder,
        *packages,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout
    for kind in KINDS:
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"mylab-new-{kind}/")]
        assert any("test_scores_known_by_hand PASSED" in line for line in lines)
        assert sum("test_conforms[" in line and "PASSED" in line for line in lines) > 15
