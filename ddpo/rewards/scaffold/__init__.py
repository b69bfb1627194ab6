"""The package that `ddpo rewards new` writes: one reward, ready to install, check and change."""

from __future__ import annotations

import hashlib
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Final, Literal

from ddpo.errors import ConfigError, RunExistsError, StorageFailure
from ddpo.io.atomic import atomic_folder
from ddpo.io.lock import owned_file
from ddpo.rewards.zoo import rewards

__all__ = ["KINDS", "Kind", "write_package"]

Kind = Literal["function", "class", "model"]

KINDS: Final[tuple[Kind, ...]] = ("function", "class", "model")
TEMPLATES: Final = Path(__file__).parent / "templates"
NAME: Final = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*(/[a-z][a-z0-9]*([_-][a-z0-9]+)*)?")
SUMMARIES: Final[dict[Kind, str]] = {
    "function": "mean brightness of the pixels",
    "class": "variance of the grey levels",
    "model": "strength of edges, by a small network",
}
MORE: Final[dict[Kind, str]] = {
    "function": "",
    "class": "",
    "model": "4. `make_weights.py`: source of the weights. It prints the SHA-256 for the card.\n",
}
SHARED: Final = {
    "package/pyproject.toml": "pyproject.toml",
    "package/README.md": "README.md",
    "package/gitignore": ".gitignore",
    "package/init.py": "{module}/__init__.py",
    "{kind}/cards.py": "{module}/cards.py",
    "{kind}/reward.py": "{module}/reward.py",
    "{kind}/test.py": "tests/test_{module}.py",
}
"""Template → file of the package."""
MODEL: Final = {"model/make_weights.py": "make_weights.py"}


def write_package(name: str, kind: Kind = "function", out: Path | None = None) -> Path:
    """Writes the package of a new reward, completely or not at all.

    Args:
        name: id of the reward, `name` or `vendor/name`.
        kind: kind of the reward, a plain function, a class, or a class around a network with
            weights.
        out: new folder; None for the name of the distribution in the current folder.

    Returns:
        The folder.

    Raises:
        ConfigError: The name is invalid or taken, or the folder cannot be written.
        RunExistsError: The folder is not empty, or another process writes it.
    """
    _check_name(name)
    distribution = re.sub(r"[/_]", "-", name if "/" in name else f"{name}-reward")
    folder = Path(distribution) if out is None else out
    try:
        with owned_file(folder, "ddpo rewards new"):
            _check_empty(folder)
            with atomic_folder(folder.absolute()) as temporary:
                _write(temporary, name, distribution, kind)
    except RunExistsError:
        raise
    except StorageFailure as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def _check_empty(folder: Path) -> None:
    """Refuses a folder that holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunExistsError(
            f"{folder} exists already: choose another --out, nothing is overwritten"
        )


def _check_name(name: str) -> None:
    """Refuses a name that is invalid or taken."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"reward name {name!r} must be name or vendor/name, "
            "of lower-case letters, digits, - and _, each starting with a letter"
        )
    if name in rewards.names():
        raise ConfigError(
            f"there is a reward {name!r} already, from {rewards.origin(name)}; "
            f"a vendor in front makes it yours: mylab/{name}"
        )


def _write(folder: Path, name: str, distribution: str, kind: Kind) -> None:
    module = distribution.replace("-", "_")
    weights = TEMPLATES / "model" / "weights.safetensors"
    package_data = f'package-data = {{ {module} = ["*.safetensors"] }}\n'
    words = {
        "id": name,
        "distribution": distribution,
        "module": module,
        "summary": SUMMARIES[kind],
        "more": MORE[kind],
        "ddpo_version": version("ddpo"),
        "package_data": package_data if kind == "model" else "",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    for template, file in {**SHARED, **(MODEL if kind == "model" else {})}.items():
        text = (TEMPLATES / f"{template.format(kind=kind)}.template").read_text("utf-8")
        target = folder / file.format(module=module)
        target.parent.mkdir(exist_ok=True)
        target.write_text(Template(text).substitute(words), "utf-8")
    if kind == "model":
        shutil.copyfile(weights, folder / module / weights.name)
