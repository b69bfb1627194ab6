"""Availability of a reward's requirements on this machine: libraries of its extra, and weights.

Nothing heavy is imported. `WeightFile.source` distinguishes four kinds of weights:
    https://…            one file, in the cache of `ddpo.weights`
    owner/name[/file]    Hugging Face hub, in its own cache: one file where the card names it or its
                         SHA-256 (model.safetensors by default), else what the reward reads; of
                         owner/name/a|b the first file that exists
    package:module/file  shipped inside the reward's own package
    file:/path           named by an option
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ddpo import weights
from ddpo.errors import ConfigError, MissingResourceError
from ddpo.rewards.card import RewardCard, WeightFile
from ddpo.rewards.hub_cache import hub_repository
from ddpo.rewards.tools.repository_parts import MODEL, PATTERNS, holds

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

__all__ = [
    "Availability",
    "WeightState",
    "availability",
    "check_space_for",
    "fetch_weight",
    "install_line",
    "missing_libraries",
    "repository_folder",
    "weight_state",
]

HUB_FILE: Final = "model.safetensors"
LOCAL: Final = "file:"
WHOLE: Final = 0.9
"""Least share of the size on the card that a folder must hold to count as a complete repository."""


@dataclass(frozen=True, slots=True)
class WeightState:
    """Place and size of a weight file or repository on this machine."""

    weight: WeightFile
    path: Path | None  # None where it is missing or incomplete
    bytes: int  # size on disk, also of an incomplete repository


@dataclass(frozen=True, slots=True)
class Availability:
    """Libraries and weights of a reward that are here or missing."""

    missing_libraries: tuple[str, ...]  # requirements of its extra
    install: str  # command that installs them
    weights: tuple[WeightState, ...]

    @property
    def complete(self) -> bool:
        """True if the reward can score without a network."""
        return not self.missing_libraries and all(state.path is not None for state in self.weights)


def availability(card: RewardCard, origin: str = "ddpo") -> Availability:
    """Libraries and weights of a reward that are here or missing; hashes are not verified.

    Args:
        card: card of the reward.
        origin: "ddpo", or distribution and version of the reward's package.
    """
    return Availability(
        missing_libraries(card, origin),
        install_line(card, origin),
        tuple(weight_state(w) for w in card.weights),
    )


def install_line(card: RewardCard, origin: str) -> str:
    """The pip command for a reward's extra; "" without one."""
    return f'pip install "{origin.split()[0]}[{card.extra}]"' if card.extra else ""


def missing_libraries(card: RewardCard, origin: str) -> tuple[str, ...]:
    """The requirements of a reward's extra that are not installed in a suitable version."""
    if not card.extra:
        return ()
    from packaging.requirements import Requirement  # comes with huggingface-hub; 40 ms

    try:
        needed = [Requirement(text) for text in requires(origin.split()[0]) or ()]
    except PackageNotFoundError:  # a user's file
        return ()
    of_extra = [
        r
        for r in needed
        if r.marker
        and r.marker.evaluate({"extra": card.extra})
        and not r.marker.evaluate({"extra": ""})
    ]
    return tuple(f"{r.name}{r.specifier}" for r in of_extra if not _installed(r.name, r.specifier))


def _installed(distribution: str, wanted: SpecifierSet) -> bool:
    try:
        return wanted.contains(version(distribution), prereleases=True)
    except PackageNotFoundError:
        return False


def _kind(weight: WeightFile) -> Literal["url", "package", "local", "file", "repository"]:
    if weight.source.startswith(("https://", "http://")):
        return "url"
    if weight.source.startswith("package:"):
        return "package"
    if weight.source.startswith(LOCAL):
        return "local"
    return "repository" if weight.sha256 is None and weight.source.count("/") == 1 else "file"


def weight_state(weight: WeightFile) -> WeightState:
    """Place and size of one weight file or repository; nothing is fetched or hashed."""
    match _kind(weight):
        case "url":
            path = None
            with suppress(ConfigError):  # no home folder, so nothing was ever cached
                path = weights.url_target(weight.source, weight.sha256 or "")
            return _file_state(weight, path)
        case "package":
            return _file_state(weight, _packaged(weight))
        case "file":
            folder = _snapshot(weight)
            paths = [folder / name for name in _hub_files(weight)] if folder else []
            return _file_state(weight, next((path for path in paths if path.is_file()), None))
        case "local":
            return _file_state(weight, Path(weight.source.removeprefix(LOCAL)))
        case "repository":
            return _repository_state(weight)


def _file_state(weight: WeightFile, path: Path | None) -> WeightState:
    if path is not None and path.is_file():
        return WeightState(weight, path, path.stat().st_size)
    return WeightState(weight, None, 0)


def _packaged(weight: WeightFile) -> Path | None:
    module, _, name = weight.source.removeprefix("package:").partition("/")
    # the spec of a top-level name is found without importing it
    spec = find_spec(module) if module.isidentifier() else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) / name if folders and name else None


def _hub_files(weight: WeightFile) -> list[str]:
    """Names of the file, in the order of preference."""
    return ("/".join(weight.source.split("/")[2:]) or HUB_FILE).split("|")


def _snapshot(weight: WeightFile) -> Path | None:
    """The folder of a repository's revision in the hub's cache."""
    repository = hub_repository(weight)
    return None if repository is None else weights.hub_snapshot(repository, weight.revision)


def repository_folder(weight: WeightFile) -> Path | None:
    """The folder in the hub's cache of a weight that is a whole repository; None for others."""
    return _snapshot(weight) if _kind(weight) == "repository" else None


def _repository_state(weight: WeightFile) -> WeightState:
    folder = _snapshot(weight)
    if folder is None:
        return WeightState(weight, None, 0)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    whole = holds(folder, weight.source)
    if whole is None:  # of a plug-in package
        whole = size >= WHOLE * weight.megabytes * 1e6
    return WeightState(weight, folder if whole else None, size)


def fetch_weight(weight: WeightFile, reward: str, progress: bool = False) -> Path:
    """Fetches one weight file or repository unless it is here, and verifies its hash if known.

    Args:
        weight: weight file of a card.
        reward: id of the reward, for messages.
        progress: True for a progress bar of https sources; the hub's client always shows one.

    Raises:
        MissingResourceError: The machine is offline, the source is unreachable, or the file is not
            the one on the card.
        ConfigError: The card gives an address without a SHA-256.
    """
    name = weight.source.rpartition("/")[2].partition("|")[0]
    what = f"reward {reward!r} needs {name} ({weight.size}, {weight.licence}), which"
    match _kind(weight):
        case "url":
            if weight.sha256 is None:
                raise ConfigError(f"card {reward!r} gives no SHA-256 for {weight.source}")
            return weights.fetch_url(weight.source, weight.sha256, what, progress)
        case "package":
            return weights.verified(
                _packaged(weight) or Path(weight.source), weight.sha256 or "", what
            )
        case "local":
            return weights.verified(
                Path(weight.source.removeprefix(LOCAL)), weight.sha256 or "", what
            )
        case "file":
            return _fetch_hub_file(weight, what)
        case "repository":
            return _fetch_repository(weight, what)


def _fetch_repository(weight: WeightFile, what: str) -> Path:
    """The folder of a repository with all files that the reward reads.

    Of a model whose repository has no safetensors, every file is fetched.

    Raises:
        MissingResourceError: As `fetch_hub_repository`.
    """
    repository = hub_repository(weight) or weight.source
    needed = PATTERNS.get(weight.source, ())
    folder = weights.fetch_hub_repository(repository, weight.revision, what, needed)
    if needed != MODEL or any(folder.glob("*.safetensors")):
        return folder
    return weights.fetch_hub_repository(repository, weight.revision, what)


def _fetch_hub_file(weight: WeightFile, what: str) -> Path:
    """The first of the file's names that the repository has.

    Raises:
        MissingResourceError: As `fetch_hub_file`, about the first name.
    """
    repository = hub_repository(weight) or weight.source
    first, *others = _hub_files(weight)
    try:
        return weights.fetch_hub_file(repository, first, weight.revision, weight.sha256, what)
    except MissingResourceError:
        for name in others:
            with suppress(MissingResourceError):
                return weights.fetch_hub_file(
                    repository, name, weight.revision, weight.sha256, what
                )
        raise


def check_space_for(states: Sequence[WeightState]) -> None:
    """Refuses a download that the disk of a cache cannot hold.

    Raises:
        MissingResourceError: Too little space is free.
    """
    from huggingface_hub import constants

    for folder, kinds in (
        (weights.cache_dir(), ("url",)),
        (Path(constants.HF_HUB_CACHE), ("file", "repository")),
    ):
        missing = [state for state in states if state.path is None and _kind(state.weight) in kinds]
        size = sum(max(0, round(state.weight.megabytes * 1e6) - state.bytes) for state in missing)
        sources = " and ".join(state.weight.source for state in missing)
        weights.check_space(folder, size, f"{sources} together" if missing else "")
