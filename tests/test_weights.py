"""Downloads from a real server on this machine are complete and verified, or fail."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ddpo import weights
from ddpo.errors import ConfigError, MissingResourceError
from ddpo.weights import cache_dir, fetch_hub_file, fetch_url, offline, sha256_of, verified

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    requests = 0

    def log_message(self, *_: object) -> None:
        type(self).requests += 1


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "a+b.bin").write_bytes(CONTENT)
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "RETRIES", 0)
    proxies = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    for name in ("DDPO_OFFLINE", "HF_HUB_OFFLINE", *proxies):
        monkeypatch.delenv(name, raising=False)
    Quiet.requests = 0
    handler = partial(Quiet, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_fetched_once_then_from_the_cache_also_offline(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch_url(f"{server}/a%2Bb.bin", SHA256, "a file")
    assert path.read_bytes() == CONTENT
    assert path.name == "a+b.bin"
    assert path.is_relative_to(cache_dir())
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    assert fetch_url(f"{server}/a%2Bb.bin", SHA256, "a file") == path
    assert Quiet.requests == 1


def test_progress_is_shown_only_if_asked_for(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetch_url(f"{server}/a%2Bb.bin", SHA256, "a file")
    assert capsys.readouterr() == ("", "")
    path.unlink()
    fetch_url(f"{server}/a%2Bb.bin", SHA256, "a file", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err
    assert "2.10M" in err  # 2 MiB in units of 10**6 bytes


def test_a_damaged_copy_in_the_cache_is_fetched_again(server: str) -> None:
    path = fetch_url(f"{server}/a%2Bb.bin", SHA256, "a file")
    path.write_bytes(CONTENT[:-1])
    assert sha256_of(fetch_url(f"{server}/a%2Bb.bin", SHA256, "a file")) == SHA256


def test_another_file_never_enters_the_cache(server: str) -> None:
    cause = r"fetched from http\S+ but is another file or was cut short: its SHA-256 is not 0{12}…"
    with pytest.raises(MissingResourceError, match=cause):
        fetch_url(f"{server}/a%2Bb.bin", "0" * 64, "a file")
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]


def test_an_absent_file_and_a_dead_server(server: str) -> None:
    absent = (
        r"a file could not be fetched \(the server answered with HTTP status 404\): get .*put it at"
    )
    with pytest.raises(MissingResourceError, match=absent):
        fetch_url(f"{server}/absent", SHA256, "a file")
    dead = r"could not be fetched \(Failed to establish .*Connection refused\): get .*put it at"
    with pytest.raises(MissingResourceError, match=dead):
        fetch_url("http://127.0.0.1:9/x", SHA256, "a file")
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["DDPO_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_no_server_and_says_where_to_put_the_file(
    server: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert not offline()
    monkeypatch.setenv(name, "1")
    by_hand = f"fetching is off .*get {server}/x and put it at .*cache"
    with pytest.raises(MissingResourceError, match=by_hand):
        fetch_url(f"{server}/x", SHA256, "a file")
    assert Quiet.requests == 0
    monkeypatch.setenv(name, "0")
    assert not offline()


@pytest.mark.parametrize("url", ["http://example.org/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_only_https(url: str) -> None:
    with pytest.raises(ConfigError, match="not an https address"):
        fetch_url(url, SHA256, "a file")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.delenv("DDPO_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(MissingResourceError, match="set DDPO_CACHE"):
        fetch_url("http://127.0.0.1:9/x", SHA256, "a file")


def test_verified(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    assert verified(tmp_path / "x", SHA256, "a file") == tmp_path / "x"
    with pytest.raises(MissingResourceError, match="a file is not at"):
        verified(tmp_path / "y", SHA256, "a file")


def test_hub_file_offline_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    command = r"run `hf download nobody/nothing w.bin --revision abc`"
    with pytest.raises(MissingResourceError, match=command):
        fetch_hub_file("nobody/nothing", "w.bin", "abc", None, "a model")


@pytest.mark.parametrize(
    "given",
    ["~no-such-user-of-this-machine", "~no-such-user-of-this-machine/cache", "~nobody.at.all/a/b"],
)
def test_a_cache_in_a_home_that_does_not_exist_is_one_line(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_CACHE", given)
    with pytest.raises(ConfigError, match=f"DDPO_CACHE={given}: .*set it to a folder"):
        cache_dir()


LOADING = """
import sys
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
from transformers.utils import logging as transformers
from ddpo.policies import load_policy
if sys.argv[1] == "off":
    transformers.disable_progress_bar()
if sys.argv[1] == "no downloads":
    disable_progress_bars()
load_policy("emoji")
from diffusers.utils import logging as diffusers
shown = [library.is_progress_bar_enabled() for library in (transformers, diffusers)]
print(*shown, are_progress_bars_disabled())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("as they are", "True True False"),
        ("off", "False True True"),
        ("no downloads", "True True True"),
    ],
)
def test_a_model_loads_in_silence_and_leaves_the_libraries_as_they_were(
    before: str, after: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADING, before], capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == (after, "")
