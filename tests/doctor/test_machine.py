"""Facts about the machine, against the operating system's own tools and against planted ones."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ddpo.doctor.machine import examine_machine, installed_libraries
from ddpo.doctor.report import Report
from ddpo.doctor.reward_states import RewardState, reward_states
from ddpo.rewards.cards import CARDS

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]


def output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_facts_are_those_of_the_system_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # nproc follows it
    found = examine_machine()
    assert found.cores == int(output_of("nproc"))
    assert found.python == output_of(
        sys.executable, "-c", "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    )
    assert found.torch.startswith(
        output_of(
            sys.executable, "-c", "import importlib.metadata as m; print(m.version('torch'))"
        ).partition("+")[0]
    )
    total = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    assert found.memory_gb is not None
    assert found.memory_gb <= total / 1e9 * 1.001
    here = next(disk for disk in found.disks if disk.use == "the working folder")
    free = int(output_of("df", "--output=avail", "-B1", ".").splitlines()[-1])
    assert here.path == os.getcwd()
    assert here.free_gb == pytest.approx(free / 1e9, abs=2)  # others write to the same disk


def test_the_disk_of_a_cache_that_does_not_exist_yet_is_that_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "not" / "yet"))
    found = examine_machine()
    cache = next(disk for disk in found.disks if disk.use == "ddpo's cache")
    assert cache.path == str(tmp_path / "not" / "yet")
    assert cache.free_gb is not None
    assert not (tmp_path / "not").exists()
    assert found.variables["DDPO_CACHE"] == str(tmp_path / "not" / "yet")


@pytest.mark.parametrize(
    ("variables", "offline"),
    [
        ({}, False),
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"DDPO_OFFLINE": "true"}, True),
        ({"DDPO_OFFLINE": "0"}, False),
    ],
)
def test_the_offline_switches(
    variables: dict[str, str], offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "DDPO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert examine_machine().offline is offline


def test_the_hub_cache_counts_each_blob_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, sizes in {
        "models--a--b": (1_000, 500),
        "datasets--a--c": (250,),
        "models--empty--d": (),
    }.items():
        (tmp_path / name / "blobs").mkdir(parents=True)
        (tmp_path / name / "snapshots" / "main").mkdir(parents=True)
        for number, size in enumerate(sizes):
            blob = tmp_path / name / "blobs" / str(number)
            blob.write_bytes(b"x" * size)
            (tmp_path / name / "snapshots" / "main" / f"file{number}").symlink_to(blob)
    (tmp_path / ".locks").mkdir()
    (tmp_path / "models--broken--e").mkdir()  # no blobs
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cache = examine_machine().hub_cache
    assert (cache.path, cache.repositories, cache.complete) == (str(tmp_path), 4, True)
    assert cache.size_gb == 1_750 / 1e9
    monkeypatch.setattr("ddpo.doctor.machine.MOST_FILES", 2)
    assert not examine_machine().hub_cache.complete


def test_the_token_is_never_shown(
    ddpo: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = "hf_" + "abcDEF123" * 4
    monkeypatch.setenv("HF_TOKEN", secret)
    code, out, err = ddpo("doctor", "--json", "--out", tmp_path / "report.json")
    assert code == 0
    assert json.loads(out)["machine"]["hub_token"] is True
    texts = [out, err, *(path.read_text() for path in tmp_path.iterdir())]
    assert len(texts) == 4
    assert [text for text in texts if secret in text] == []


@pytest.mark.parametrize(
    ("content", "due"), [(None, False), ("", False), ("hf_abc", True), ("folder", False)]
)
def test_the_file_of_the_token(
    content: str | None, due: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in its place cannot be read, as a file of another user cannot."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "token"
    if content == "folder":
        place.mkdir()
    elif content is not None:
        place.write_text(content)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(place))
    assert examine_machine().hub_token is due


def test_nothing_is_fetched_and_no_model_library_is_loaded() -> None:
    script = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "sys.argv = ['ddpo', 'doctor']\n"
        "from ddpo.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = ('diffusers', 'transformers', 'pandas')\n"
        "print('LOADED', *[name for name in heavy if name in sys.modules])\n"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HF_HUB_OFFLINE", "DDPO_OFFLINE")
    }
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"
    assert "rewards are ready" in done.stdout
    assert socket.socket.connect  # of this process, which is untouched


def test_the_libraries_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = installed_libraries()
    needed = {(library.name.lower(), library.required) for library in found if not library.extra}
    stated = {
        (canonicalize_name(one.name), str(one.specifier))
        for one in map(Requirement, project["dependencies"])
    }
    assert {(canonicalize_name(name), specifier) for name, specifier in needed} == stated
    extras = {library.extra for library in found if library.extra}
    stated_extras = project["optional-dependencies"]
    assert extras == {name for name, lines in stated_extras.items() if lines} - {"dev"}
    assert all(library.fits for library in found if not library.extra)


@pytest.mark.parametrize(
    ("name", "installed"),
    [("numpy", "1.26.4"), ("torch", "2.0.1+cpu"), ("transformers", "4.57.0"), ("peft", "0.1")],
)
def test_a_library_that_is_too_old_is_a_problem(
    name: str, installed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run
) -> None:
    folder = tmp_path / f"{name}-{installed}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {installed}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, _, err = ddpo("doctor")
    assert code == 1
    assert re.search(rf"problem: {name}>=\S+ is needed; installed: {re.escape(installed)}\n", err)


def test_an_optional_library_that_is_absent_is_no_problem(machine: Any) -> None:
    from ddpo.doctor.machine import Library

    absent = Library("sentencepiece", ">=0.2", None, "alignment", fits=False)
    old = Library("rapidocr", ">=3.10", "1.0", "ocr", fits=False)
    needed = Library("typer", ">=0.15", None, "", fits=False)
    assert Report(machine, [absent, old], []).problems() == []
    assert Report(machine, [absent, needed], []).problems() == [
        "typer>=0.15 is needed; installed: none"
    ]


@pytest.fixture(scope="module")
def machine() -> Any:
    return examine_machine()


def test_every_reward_has_a_state_and_a_remedy() -> None:
    states = {state.reward: state for state in reward_states()}
    assert set(states) >= set(CARDS)
    assert states["darkness"] == RewardState("darkness", "ddpo", "ready")
    aesthetic = states["aesthetic"]
    assert (aesthetic.state, aesthetic.remedy) == (
        "weights missing",
        "ddpo rewards download aesthetic",
    )
    assert aesthetic.missing_mb == pytest.approx(
        sum(weight.megabytes for weight in CARDS["aesthetic"].weights)
    )
