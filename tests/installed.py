"""The package as its users have it: built, installed from its wheel, called from elsewhere.

The environment of the wheel also sees the packages of the running one, so that nothing is
downloaded; what a `.pth` file adds there, such as an editable install of ddpo, it does not see.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

Completed = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Distributions:
    """The two files of a build."""

    sdist: Path
    wheel: Path


def build_distributions(source: Path, out: Path) -> Distributions:
    """Builds the sdist of a checkout, and from it the wheel, without a network."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return Distributions(sdist, wheel)


@dataclass(frozen=True)
class Environment:
    """A virtual environment with ddpo from a wheel.

    Attributes:
        folder: folder of the environment.
        home: home folder of its user, empty at first.
    """

    folder: Path
    home: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """The folder of its own packages."""
        (found,) = self.folder.glob("lib/python3*/site-packages")
        return found

    def run(self, *words: str | Path, cwd: Path) -> Completed:
        """Runs a program, found as in an activated environment."""
        return subprocess.run(
            ["/usr/bin/env", *map(str, words)],
            cwd=cwd,
            env=self._variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )

    def _variables(self) -> dict[str, str]:
        """The variables of an activated environment: no network, one thread, nothing of ours."""
        return {
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.defpath]),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's word for --no-build-isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }


def install(wheel: Path, folder: Path) -> Environment:
    """A new environment with a wheel of ddpo."""
    made = Environment(folder / "environment", folder / "home")
    made.home.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(made.folder)],
        check=True,
    )
    pip = [sys.executable, "-m", "pip", "--python", str(made.python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    shared = sysconfig.get_path("purelib")
    (made.packages / "shared.pth").write_text(f"{shared}\n", encoding="utf-8")
    for name in ("pip", "pytest"):
        script = made.folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{made.python}" -m {name} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return made
