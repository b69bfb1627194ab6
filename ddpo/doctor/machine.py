"""Facts about this machine, its libraries and its settings. Nothing is fetched."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final

import torch

from ddpo import weights
from ddpo.errors import ConfigError

__all__ = ["Accelerator", "Disk", "Library", "Machine", "examine_machine", "installed_libraries"]

DISTRIBUTION: Final = "ddpo"
DEVELOPMENT: Final = "dev"  # the extra that users do not need
VARIABLES: Final = (
    "DDPO_CACHE",
    "DDPO_CACHE_LIMIT_MB",
    "DDPO_OFFLINE",
    "DDPO_PLUGINS",
    "DDPO_TRACEBACK",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "CUDA_VISIBLE_DEVICES",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "OMP_NUM_THREADS",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
)
"""The environment variables that change what ddpo does; none of them holds a secret."""
MOST_FILES: Final = 20_000  # of the hub's cache whose sizes are added up
NATIVE_BFLOAT16: Final = 8  # CUDA compute capability from which bfloat16 has hardware of its own


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device that torch can compute on, other than the CPU."""

    device: str  # as in `--device`
    name: str
    memory_gb: float | None  # of 10⁹ bytes; None where torch does not know
    capability: str  # CUDA compute capability or ROCm architecture; "" elsewhere
    bfloat16: bool | None  # in hardware; None where torch does not know


@dataclass(frozen=True, slots=True)
class Library:
    """One dependency of ddpo."""

    name: str
    required: str  # version specifier; "" is any
    installed: str | None
    extra: str  # the extra that needs it; "" for one that ddpo always needs
    fits: bool  # installed, in a version that is required


@dataclass(frozen=True, slots=True)
class Disk:
    """A folder that ddpo writes to, and the room there."""

    use: str
    path: str
    free_gb: float | None  # of 10⁹ bytes; None where it is not known


@dataclass(frozen=True, slots=True)
class HubCache:
    """The Hugging Face Hub's cache on this machine."""

    path: str
    repositories: int
    size_gb: float  # of 10⁹ bytes
    complete: bool  # False: there are more files than were counted


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about this machine that matter to a run."""

    python: str
    system: str
    processor: str
    cores: int  # that this process may use
    memory_gb: float | None  # of 10⁹ bytes, or the limit of the container if that is less
    torch: str
    cuda: str | None  # version that torch was built for
    rocm: str | None
    cudnn: int | None
    accelerators: tuple[Accelerator, ...]
    disks: tuple[Disk, ...]
    hub_cache: HubCache
    offline: bool
    hub_token: bool  # whether there is one; never the token itself
    variables: dict[str, str]  # of `VARIABLES`, those that are set

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def examine_machine() -> Machine:
    """The facts about this machine, found within a second once torch is imported."""
    from huggingface_hub import constants

    hub = Path(constants.HF_HUB_CACHE)
    folders = {"the hub cache": hub}
    with contextlib.suppress(ConfigError):  # this user has no home folder
        folders = {"ddpo's cache": weights.cache_dir(), **folders}
    with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
        folders["the working folder"] = Path.cwd()
    return Machine(
        python=platform.python_version(),
        system=platform.platform(),
        processor=_processor(),
        cores=_cores(),
        memory_gb=_memory_gb(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        rocm=torch.version.hip,
        cudnn=torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        accelerators=tuple(_accelerators()),
        disks=tuple(Disk(use, str(path), _free_gb(path)) for use, path in folders.items()),
        hub_cache=_hub_cache(hub),
        offline=weights.offline(),
        hub_token=_has_hub_token(),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
    )


def _has_hub_token() -> bool:
    from huggingface_hub import get_token

    try:
        return get_token() is not None
    except OSError:  # a file of the token that may not be read
        return False


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float | None:
    """Total memory in 10⁹ bytes, or the limit of the control group (cgroup v2) if that is less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return None
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total / 1e9


def _free_gb(path: Path) -> float | None:
    """Free disk space of a folder that need not exist yet, in 10⁹ bytes."""
    for folder in (path.absolute(), *path.absolute().parents):
        try:
            return shutil.disk_usage(folder).free / 1e9
        except OSError:
            continue
    return None


def _accelerators() -> Iterator[Accelerator]:
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            hip = torch.version.hip is not None
            capability = facts.gcnArchName if hip else f"{facts.major}.{facts.minor}"
            native = None if hip else facts.major >= NATIVE_BFLOAT16
            memory = facts.total_memory / 1e9
            yield Accelerator(f"cuda:{index}", facts.name, memory, capability, native)
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        for index in range(torch.xpu.device_count()):
            intel = torch.xpu.get_device_properties(index)
            yield Accelerator(f"xpu:{index}", intel.name, intel.total_memory / 1e9, "", None)
    if torch.backends.mps.is_available():
        memory = torch.mps.recommended_max_memory() / 1e9
        yield Accelerator("mps", f"{platform.processor() or 'Apple'} GPU", memory, "", None)


def _hub_cache(path: Path) -> HubCache:
    """The number and size of the cache's repositories, from at most `MOST_FILES` files."""
    repositories: list[Path] = []
    with contextlib.suppress(OSError):  # no such folder, or one that may not be read
        repositories = [each for each in path.iterdir() if "--" in each.name]
    size = 0
    files = 0
    for repository in repositories:
        for blob in _blobs(repository):
            files += 1
            if files > MOST_FILES:
                return HubCache(str(path), len(repositories), size / 1e9, complete=False)
            size += blob.stat().st_size
    return HubCache(str(path), len(repositories), size / 1e9, complete=True)


def _blobs(repository: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(repository / "blobs") as entries:
            yield from (entry for entry in entries if entry.is_file(follow_symlinks=False))
    except OSError:  # a repository that cannot be read, or has no files
        return


def installed_libraries() -> tuple[Library, ...]:
    """The dependencies of ddpo and of its extras, as the installed package names them.

    Empty where ddpo runs from a folder without being installed.
    """
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in requires(DISTRIBUTION) or ()]
    except PackageNotFoundError:
        return ()
    found = []
    for requirement in needed:
        extra = _extra(requirement)
        if extra == DEVELOPMENT or extra is None:
            continue
        installed = _version(requirement.name)
        fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
        found.append(Library(requirement.name, str(requirement.specifier), installed, extra, fits))
    return tuple(found)


def _extra(requirement: Any) -> str | None:
    """The extra of a requirement; "" for none, None for a requirement of another platform."""
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return ""
    extras = _extras()
    return next((extra for extra in extras if marker.evaluate({"extra": extra})), None)


def _extras() -> list[str]:
    from importlib.metadata import metadata

    return metadata(DISTRIBUTION).get_all("Provides-Extra") or []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
