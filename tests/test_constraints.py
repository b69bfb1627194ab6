"""The installed versions are the tested ones; the oldest supported ones are stated once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOOLS = {
    "build",
    "hatchling",
    "import-linter",
    "ipykernel",
    "mkdocs-material",
    "mkdocstrings-python",
    "mypy",
    "nbconvert",
    "pandas-stubs",
    "pre-commit",
    "pytest",
    "pytest-xdist",
    "ruff",
    "scipy-stubs",
    "setuptools",
    "twine",
}
"""Tools of the developers, which no user needs in an old version."""


def requirements(*extras: str) -> Iterator[Requirement]:
    lines = [
        *PROJECT["dependencies"],
        *(line for extra in extras for line in PROJECT["optional-dependencies"][extra]),
    ]
    for line in lines:
        if (found := Requirement(line)).name != "ddpo":
            yield found


def pins(name: str) -> dict[str, Version]:
    """Name → version; only `name==version` and comments pass, as paths work on one machine only."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (pinned,) = requirement.specifier
            assert pinned.operator == "==", line
            assert requirement.url is None, line
            found[canonicalize_name(requirement.name)] = Version(pinned.version)
    return found


@pytest.mark.parametrize(
    "requirement", list(requirements("docs", "heif", "ocr", "serve", "track", "dev")), ids=str
)
def test_every_package_of_the_dev_install_has_a_tested_version(requirement: Requirement) -> None:
    assert pins("constraints.txt")[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize(
    "requirement",
    list(requirements("alignment", "docs", "heif", "ocr", "serve", "track", "dev")),
    ids=str,
)
def test_the_oldest_version_of_a_package_is_its_lower_bound(requirement: Requirement) -> None:
    oldest = pins("constraints-oldest.txt")
    (bound,) = (Version(part.version) for part in requirement.specifier if part.operator == ">=")
    if requirement.name in TOOLS:
        assert requirement.name not in oldest
    else:
        assert oldest[canonicalize_name(requirement.name)] == bound


def test_the_tested_versions_install_on_the_first_python_3_11() -> None:
    """A package may ask for a later bug-fix release, such as >=3.11.4; none of the pins does."""
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11.0")
    demands = {}
    for name, version in pins("constraints.txt").items():
        try:
            facts = metadata(name)
        except PackageNotFoundError:  # of another platform
            continue
        if Version(facts["Version"]) == version:
            demands[name] = SpecifierSet(facts.get("Requires-Python") or "")
    assert len(demands) > 100
    refused = {name: str(due) for name, due in demands.items() if not due.contains("3.11.0")}
    assert refused == {}
