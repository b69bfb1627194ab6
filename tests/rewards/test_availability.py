"""Availability of weights and libraries in real caches, and downloads by the hub's real client."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.rewards.card import RewardCard, WeightFile
from ddpo.rewards.tools.availability import (
    availability,
    check_space_for,
    fetch_weight,
    weight_state,
)

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 4000  # 1.024 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "c" * 40


def card(*weights: WeightFile, extra: str | None = None, id: str = "test/card") -> RewardCard:
    return RewardCard(
        id=id,
        version="1",
        summary="",
        load="a:b",
        family="test",
        flaws="",
        weights=weights,
        extra=extra,
    )


def weight(
    source: str, sha256: str | None = SHA256, revision: str = COMMIT, megabytes: float = 1.024
) -> WeightFile:
    return WeightFile(source, revision, sha256, megabytes, "MIT")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "ddpo"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_a_file_by_its_address(caches: Path) -> None:
    asked = weight("https://example.org/some/he%2Bad.pth")
    assert (weight_state(asked).path, weight_state(asked).bytes) == (None, 0)
    folder = caches / "ddpo" / "files" / SHA256[:16]
    folder.mkdir(parents=True)
    (folder / ".he+ad.pth.partial").write_bytes(CONTENT[:1000])  # what an older version left
    assert (weight_state(asked).path, weight_state(asked).bytes) == (None, 0)
    (folder / "he+ad.pth").write_bytes(CONTENT)
    assert (weight_state(asked).path, weight_state(asked).bytes) == (
        folder / "he+ad.pth",
        len(CONTENT),
    )


@pytest.mark.parametrize(
    ("source", "file"),
    [("owner/name", "model.safetensors"), ("owner/name/sub/head.pt", "sub/head.pt")],
)
@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_file_of_the_hub(caches: Path, source: str, file: str, revision: str) -> None:
    base = caches / "hub" / "models--owner--name"
    assert weight_state(weight(source, revision=revision)).path is None
    (base / "snapshots" / COMMIT / file).parent.mkdir(parents=True)
    (base / "snapshots" / COMMIT / file).write_bytes(CONTENT)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(COMMIT)
    assert (
        weight_state(weight(source, revision=revision)).path == base / "snapshots" / COMMIT / file
    )
    assert weight_state(weight(source, revision="d" * 40)).path is None


def test_a_repository_is_here_when_most_of_its_size_is(caches: Path) -> None:
    folder = caches / "hub" / "models--owner--name" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    asked = weight("owner/name", sha256=None)
    assert (weight_state(asked).path, weight_state(asked).bytes) == (None, 2)
    (folder / "model.safetensors").write_bytes(CONTENT)
    assert weight_state(asked).path == folder


def test_a_file_inside_a_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "heavy_package").mkdir()
    (tmp_path / "heavy_package" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "heavy_package" / "w.bin").write_bytes(CONTENT)
    assert (
        weight_state(weight("package:heavy_package/w.bin")).path
        == tmp_path / "heavy_package" / "w.bin"
    )
    assert (
        fetch_weight(weight("package:heavy_package/w.bin"), "x")
        == tmp_path / "heavy_package" / "w.bin"
    )
    for absent in (
        "package:heavy_package/v.bin",
        "package:nowhere_at_all/w.bin",
        "package:heavy_package",
    ):
        assert weight_state(weight(absent)).path is None
        with pytest.raises(MissingResourceError):
            fetch_weight(weight(absent), "x")
    assert "heavy_package" not in sys.modules


def test_libraries_of_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acme-1.dist-info").mkdir()
    lines = [
        "Metadata-Version: 2.1",
        "Name: acme",
        "Version: 1",
        "Requires-Dist: surely-absent-always",
        'Requires-Dist: numpy>=1; extra == "fine"',
        'Requires-Dist: surely-absent>=2; extra == "gone"',
        'Requires-Dist: numpy>=999; extra == "old"',
        'Requires-Dist: absent-too; extra == "fine" and python_version < "3"',
    ]
    (tmp_path / "acme-1.dist-info" / "METADATA").write_text("\n".join(lines))
    assert availability(card(extra="fine"), "acme 1").complete
    gone = availability(card(extra="gone"), "acme 1")
    assert (gone.complete, gone.missing_libraries, gone.install) == (
        False,
        ("surely-absent>=2",),
        'pip install "acme[gone]"',
    )
    assert availability(card(extra="old"), "acme 1").missing_libraries == ("numpy>=999",)
    assert availability(card(), "acme 1").complete
    assert availability(card(extra="gone"), "my.py sha256:0").complete  # a file has no extras


def test_room_is_counted_before_a_download(caches: Path) -> None:
    huge = [
        weight_state(weight(source, megabytes=1e12))
        for source in ("https://example.org/a", "owner/name")
    ]
    for state in huge:
        with pytest.raises(
            MissingResourceError,
            match=r"together takes 1,000,000,000,000\.0 MB, but only .* MB are free at",
        ):
            check_space_for([state])
    check_space_for([weight_state(weight("https://example.org/a"))])


def test_an_address_without_a_hash_is_refused(caches: Path) -> None:
    with pytest.raises(ConfigError, match="card 'x' gives no SHA-256"):
        fetch_weight(weight("https://example.org/a", sha256=None), "x")


class Hub(BaseHTTPRequestHandler):
    """The part of the hub that its client needs: metadata by HEAD, lists of files, files."""

    files: ClassVar = {
        "model.safetensors": CONTENT,
        "config.json": b"{}",
        "flax_model.msgpack": b"not wanted",
    }

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/name"):
            files = [
                {"rfilename": name, "size": len(content)} for name, content in self.files.items()
            ]
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": "0"}
                for name, content in self.files.items()
            ]
            reported: object = (
                entries
                if "/tree/" in path
                else {"id": "owner/name", "sha": COMMIT, "siblings": files}
            )
            content = json.dumps(reported).encode()
            mark = "list"
        elif path.startswith("/owner/name/resolve/") and path.rpartition("/")[2] in self.files:
            content = self.files[path.rpartition("/")[2]]
            mark = hashlib.sha256(content).hexdigest()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{mark}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_the_command_fetches_from_the_hub_once(hub: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ddpo.rewards.card import RewardCard, WeightFile\n"
        f"FILE = WeightFile('owner/name', '{COMMIT}', '{SHA256}', 1.024, 'MIT')\n"
        f"REPOSITORY = WeightFile('owner/name', '{COMMIT}', None, 1.024, 'MIT')\n"
        "CARD = RewardCard(id='mine', version='1', summary='', load='a:b', family='', flaws='', "
        "weights=(FILE, REPOSITORY))\n"
    )
    settings = {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub,
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "COLUMNS": "200",
    }
    removed = ("HF_HUB_OFFLINE", "DDPO_OFFLINE", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in removed},
        **settings,
    }

    def ddpo(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ddpo", "rewards", *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**environment, **more},
            check=False,
        )

    spec = f"{tmp_path}/mine.py:CARD"
    done = ddpo("download", spec)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "hf" / "hub" / "models--owner--name" / "snapshots" / COMMIT
    assert f"mine: {folder}/model.safetensors (SHA-256 as on the card)" in done.stdout
    assert f"mine: {folder} (revision {COMMIT}, the card gives no SHA-256)" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert ddpo("download", spec, DDPO_OFFLINE="1").returncode == 0
    reported = json.loads(ddpo("show", spec, "--json", DDPO_OFFLINE="1").stdout)["available"]
    assert reported["complete"]
    assert [one["path"] for one in reported["weights"]] == [
        f"{folder}/model.safetensors",
        str(folder),
    ]


NAMES = "model.safetensors|model.bin|model.pt"


@pytest.mark.parametrize(
    ("here", "found"),
    [
        (["model.safetensors", "model.bin"], "model.safetensors"),
        (["model.bin"], "model.bin"),
        (["model.pt", "model.bin"], "model.bin"),
        (["model.pt", "config.json"], "model.pt"),
        (["config.json"], None),
    ],
)
def test_of_several_names_the_first_that_exists_is_taken(
    caches: Path,
    here: list[str],
    found: str | None,
) -> None:
    folder = caches / "hub" / "models--owner--name" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    for name in here:
        (folder / name).write_bytes(CONTENT)
    asked = weight(f"owner/name/{NAMES}", sha256=None)
    assert weight_state(asked).path == (folder / found if found else None)


@pytest.mark.parametrize("change", ["none", "another file", "no file"])
def test_a_file_that_an_option_names_is_verified(tmp_path: Path, change: str) -> None:
    file = tmp_path / "head.pth"
    file.write_bytes(CONTENT)
    asked = weight(f"file:{file}")
    assert weight_state(asked).path == file
    assert fetch_weight(asked, "x") == file
    if change == "none":
        return
    file.unlink()
    if change == "another file":
        file.write_bytes(CONTENT[1:])
    with pytest.raises(MissingResourceError, match=r"head\.pth"):
        fetch_weight(asked, "x")


def test_a_size_that_is_not_known_is_not_called_zero(tmp_path: Path) -> None:
    sizes = [weight("a/b", megabytes=size).size for size in (0, 0.004, 605, 1710.5)]
    assert sizes == ["size not known", "0.004 MB", "605 MB", "1710.5 MB"]
