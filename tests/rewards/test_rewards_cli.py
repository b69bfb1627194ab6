"""`ddpo rewards list`, `show`, `download` and `new`, through the program's own entry."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards import CARDS, LAION_V2_HEAD
from ddpo.weights import url_target

Run = Callable[..., tuple[int, str, str]]

HEAVY = ["torch", "numpy", "PIL", "pandas", "transformers", "diffusers", "pyarrow"]


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["list", "--json"], ["show", "darkness"], ["show", "aesthetic", "--json"]],
)
def test_listing_and_showing_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, typer\nfrom ddpo.cli.rewards import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "darkness" in done.stdout or "aesthetic" in done.stdout


def test_list_shows_every_builtin(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert [name for name in CARDS if name not in out] == []
    code, out, _ = run("list", "--json")
    records = {record.pop("id"): record for record in json.loads(out)}
    assert {name: records[name]["origin"] for name in CARDS} == dict.fromkeys(CARDS, "ddpo")


def test_show_tells_the_facts(run: Run) -> None:
    code, out, _ = run("show", "aesthetic")
    assert code == 0
    for fact in (
        "known flaws",
        "Apache-2.0",
        "MIT",
        "21dd590f3ccdc646",
        "head=None",
        "reward:aesthetic|version:1|",
    ):
        assert fact in out
    _, out, _ = run("show", "aesthetic", "--json")
    record = json.loads(out)
    assert record.pop("origin") == "ddpo"
    assert record.pop("signature").startswith("reward:aesthetic|")
    assert [one["source"] for one in record.pop("available")["weights"]] == [
        w.source for w in CARDS["aesthetic"].weights
    ]
    assert RewardCard.from_dict(record) == CARDS["aesthetic"]


def test_list_by_family_and_by_what_is_here(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    _, out, _ = run("list", "--json", "--family", "vlm")
    assert {record["id"] for record in json.loads(out) if "broken" not in record} == {
        c.id for c in CARDS.values() if c.family == "vlm"
    } | {"alignment:model=emoji"}
    _, out, _ = run("list", "--json", "--available")
    names = {record["id"] for record in json.loads(out)}
    assert "darkness" in names
    fetched = {
        card.id
        for card in CARDS.values()
        if any(not weight.source.startswith("package:") for weight in card.weights)
    }
    assert names.isdisjoint(fetched)
    _, out, _ = run("list", "--family", "clip", "--available")
    assert re.search(r"^0 of \d+ rewards$", out, re.MULTILINE)
    assert re.search(r"^2 embedded variants$", out, re.MULTILINE)


def test_show_tells_how_a_reward_may_be_called_and_what_is_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ddpo.rewards.card import Calls, RewardCard\n"
        "CARD = RewardCard(id='mine', version='1', summary='', load='a:b', family='remote',\n"
        "    flaws='', inputs=('image', 'metadata'), metadata=('answers', 'question'),\n"
        "    thread_safe=True, deterministic=False, backbone='clip-l14',\n"
        "    calls=Calls(concurrency=8, timeout_s=30.0, retries=3))\n"
    )
    _, out, _ = run("show", f"{tmp_path}/mine.py:CARD")
    for fact in (
        "8 at once, at most 30 s each, 3 retries",
        "metadata: answers, question",
        "not deterministic",
        ", thread-safe",
    ):
        assert fact in out
    for label, fact in {"cache": "scores are not kept: they vary", "backbone": "clip-l14"}.items():
        assert re.search(rf"^{label} +{fact} *$", out, re.MULTILINE)


def test_show_tells_which_weights_are_here(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    _, out, _ = run("show", "aesthetic")
    assert out.count("not here") == 2
    head = url_target(LAION_V2_HEAD.source, str(LAION_V2_HEAD.sha256))
    head.parent.mkdir(parents=True)
    head.write_bytes(bytes(3_700_000))
    out = " ".join(run("show", "aesthetic")[1].split())
    assert out.count("not here") == 1
    assert "; here, 3.7 MB: " in out


@pytest.fixture
def run(ddpo: Run) -> Run:
    return partial(ddpo, "rewards")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "www").mkdir()
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www"))
    ) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_download_fetches_what_a_card_names(
    run: Run, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "cache"))
    for name in (
        "DDPO_OFFLINE",
        "HF_HUB_OFFLINE",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    content = bytes(1000)
    sha256 = hashlib.sha256(content).hexdigest()
    (tmp_path / "www" / "w.bin").write_bytes(content)
    (tmp_path / "mine.py").write_text(
        "from ddpo.rewards.card import RewardCard, WeightFile\n"
        f"FILE = WeightFile('{server}/w.bin', '1', '{sha256}', 0.001, 'MIT')\n"
        "CARD = RewardCard(id='mine', version='1', summary='', load='a:b', family='', flaws='',\n"
        "    weights=(FILE,))\n"
    )
    spec = f"{tmp_path}/mine.py:CARD"
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    code, out, err = run("download", spec)
    assert (code, out) == (2, "")
    assert "is not in the cache and fetching is off" in err
    assert len(err.strip().splitlines()) == 1
    for name in (
        "DDPO_OFFLINE",
        "HF_HUB_OFFLINE",
    ):  # the program sets the second where the first is set
        monkeypatch.delenv(name, raising=False)
    code, out, _ = run("download", "darkness", spec)
    assert code == 0
    path = next((tmp_path / "cache").rglob("w.bin"))
    assert out.splitlines() == [
        "darkness needs no weights: nothing to download",
        f"mine: {path} (SHA-256 as on the card)",
    ]
    assert path.read_bytes() == content


def test_new_writes_a_package_and_tells_what_is_next(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("new", "mylab/focus", "--kind", "class", "--out", tmp_path / "made")
    assert code == 0
    assert f"{tmp_path}/made/mylab_focus/cards.py" in out.splitlines()
    assert "ddpo rewards show mylab/focus" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "compresibility"], "did you mean 'compressibility'?"),
        (["list", "--family", "pixls"], "unknown family 'pixls'; did you mean 'pixels'?"),
        (["download", "aesthetc"], "did you mean 'aesthetic'?"),
        (["download", "aesthetic"], "fetching is off"),
        (["doctor", "darknes"], "did you mean 'darkness'?"),
        (["new", "darkness"], "there is a reward 'darkness' already"),
        (["bench", "darkness", "--batch-sizes", "1,x"], "whole numbers separated by commas"),
        (
            ["bench", "darkness", "--per-round", "2", "--size", "8", "--batch-sizes", "4"],
            "batch size 4 must be from 1 to",
        ),
    ],
)
def test_mistakes_are_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
