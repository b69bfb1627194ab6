"""Whatever an author's code raises is one line with its place, wherever a reward is used."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpo.cli import tracebacks
from ddpo.errors import RewardFailure, UserError
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.serve.app import bind, make_app, make_server
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt

Run = Callable[..., tuple[int, str, str]]

CODE = """\
from concurrent.futures import ThreadPoolExecutor
class Speechless(Exception):
    def __str__(self): raise RuntimeError("no text")
class Odd(BaseException): pass
def speechless(images): raise Speechless()
def odd(images): raise Odd("mine")
def large(images): raise ValueError("x" * 1_000_000)
def controls(images): raise ValueError("a\\nb\\x1b[31mred\\r\\nc\\x00\\u202e")
def deep(images): return deep(images)
def memory(images): raise MemoryError("none left")
def leaves(images): raise SystemExit(0)
def cancelled(images):
    import asyncio
    raise asyncio.CancelledError("stop")
def group(images): raise ExceptionGroup("many", [ValueError("a")])
def noted(images):
    error = ValueError("no face")
    error.add_note("use larger\\nimages")
    raise error
def pooled(images):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, images))
def one(image): raise ValueError("in a thread")
def chained(images):
    try:
        one(images)
    except ValueError as error:
        raise KeyError("outer") from error
def secret(images): raise ValueError("api_key=sk-12345678 was refused")
class Lazy:
    def __init__(self): self.ready = False
    def __call__(self, images): return self.missing(images)
lazy = Lazy()
"""
KINDS = {
    "speechless": "mine.py:5: Speechless: (its __str__ raised RuntimeError)",
    "odd": "mine.py:6: Odd: mine",
    "large": "mine.py:7: ValueError: xxxxxxxx",
    "controls": "mine.py:8: ValueError: a b\\x1b[31mred c\\x00\\u202e",
    "deep": "mine.py:9: RecursionError: maximum recursion depth exceeded",
    "memory": "mine.py:10: MemoryError: none left",
    "leaves": "mine.py:11: SystemExit: 0",
    "cancelled": "mine.py:14: CancelledError: stop",
    "group": "mine.py:15: ExceptionGroup: many (1 sub-exception)",
    "noted": "mine.py:19: ValueError: no face; use larger images",
    "pooled": "mine.py:23: ValueError: in a thread",
    "chained": "mine.py:28: KeyError: 'outer'",
    "secret": "mine.py:29: ValueError: api_key=*** was refused",
    "lazy": "mine.py:32: AttributeError: 'Lazy' object has no attribute 'missing'",
}
BATCH = ImageBatch.of_uint8(np.zeros((1, 8, 8, 3), np.uint8), (Prompt("a"),))
LONGEST = 2300  # of the cut message and what stands around it


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_score_in_python(folder: Path, kind: str) -> None:
    with pytest.raises(RewardFailure) as caught:
        make_scorer(resolve(f"{folder / 'mine.py'}:{kind}")).score(BATCH)
    assert KINDS[kind] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < LONGEST


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_score(folder: Path, kind: str, ddpo: Run) -> None:
    code, output, errors = ddpo("rewards", "score", f"./mine.py:{kind}", "one.png", "--json")
    assert code == 1
    assert KINDS[kind] in errors
    assert '"scored": 0' in output
    assert max(map(len, errors.splitlines())) < LONGEST


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_check_fails_whichever_check_is_chosen(
    folder: Path, kind: str, ddpo: Run
) -> None:
    words = ("rewards", "check", f"./mine.py:{kind}", "--only", "order", "--json")
    code, output, _ = ddpo(*words)
    assert code == 1
    found = {row["name"]: row for row in json.loads(output)}
    assert found["order"]["outcome"] == "skipped"
    assert found["contract"]["outcome"] == "failed"
    assert KINDS[kind] in found["contract"]["detail"]


def test_a_server_and_its_client(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The client's message names the author's line, and the server works on."""
    kinds = {**KINDS, "interrupts": "mine.py:34: RuntimeError: the call raised KeyboardInterrupt"}
    (folder / "mine.py").write_text(
        CODE + "def interrupts(images): raise KeyboardInterrupt\n"
        "def good(images): return [1.0] * len(images)\n"
    )
    specs = [f"{folder / 'mine.py'}:{kind}" for kind in (*kinds, "good")]
    app = make_app({reward.card.id: reward for reward in map(resolve, specs)})
    with bind("127.0.0.1", 0) as listening:
        server = make_server(app, 64)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        for kind, line in kinds.items():
            with pytest.raises(RewardFailure) as caught:
                Scorer(make_reward(f"{address}/{kind}")).score(BATCH)
            assert line in str(caught.value)
            assert len(str(caught.value)) < LONGEST
        assert make_reward(f"{address}/good")(BATCH).values.tolist() == [1.0]
        server.should_exit = True
        thread.join(20)


IMPORTS = {
    "x = 1\ndef f(images:\n    return x\n": (
        "mine.py:2: SyntaxError: '(' was never closed (column 6 of 'def f(images:')"
    ),
    "def f(images):\n    return (1 +\n": "mine.py:2: SyntaxError: ",
    "def f(images):\n    if True:\n    return 1\n": "mine.py:3: IndentationError: ",
    "def f(images):\n  x = 1\n\ty = 2\n": "mine.py:3: TabError: ",
    "x = 1\0": "SyntaxError: source code string cannot contain null bytes",
    "x = " + "(" * 500 + ")" * 500: "mine.py:1: SyntaxError: too many nested parentheses",
    "class Odd(BaseException): pass\nraise Odd('no')\n": "mine.py:2: Odd: no",
    "raise SystemExit\n": "mine.py:1: SystemExit",
    "import sys\nsys.exit(0)\n": "mine.py:2: SystemExit: 0",
    "def r(): return r()\nr()\n": "mine.py:1: RecursionError: ",
    "raise ValueError('x' * 1_000_000)\n": "mine.py:1: ValueError: xxx",
    "raise MemoryError\n": "mine.py:1: MemoryError",
}


@pytest.mark.parametrize("code", IMPORTS, ids=range(len(IMPORTS)))
def test_a_file_that_cannot_be_imported(folder: Path, code: str, ddpo: Run) -> None:
    (folder / "mine.py").write_text(code)
    for words in (
        ("rewards", "score", "./mine.py:f", "one.png"),
        ("rewards", "show", "./mine.py:f"),
    ):
        found, _, errors = ddpo(*words)
        assert found == 2
        assert IMPORTS[code] in errors
        assert len(errors.splitlines()) == 1
        assert len(errors) < LONGEST


@pytest.mark.parametrize(
    "code",
    ["def __init__(self): raise {}('no')", "def __init__(self): raise Odd('no')"],
    ids=["exception", "base exception"],
)
def test_a_constructor_that_fails(folder: Path, code: str, ddpo: Run) -> None:
    (folder / "mine.py").write_text(
        "class Odd(BaseException): pass\nclass A:\n"
        f"    {code.format('ValueError')}\n    def __call__(self, images): return [0.0]\n"
    )
    found, _, errors = ddpo("rewards", "score", "./mine.py:A", "one.png")
    assert found == 2
    assert "mine.py:3: " in errors
    assert len(errors.splitlines()) == 1
    found, output, _ = ddpo("rewards", "check", "./mine.py:A", "--only", "order", "--json")
    assert found == 1
    assert "mine.py:3: " in json.loads(output)[1]["detail"]


def test_a_reward_that_raises_keyboard_interrupt_in_a_thread_fails(folder: Path, ddpo: Run) -> None:
    """Calls of this command have a time limit, so that they run in a thread; Ctrl-C never does."""
    (folder / "mine.py").write_text("def f(images): raise KeyboardInterrupt\n")
    found, output, _ = ddpo("rewards", "score", "./mine.py:f", "one.png")
    assert found == 1
    assert "the call raised KeyboardInterrupt" in output


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("x = 1\ndef f(images:\n    return x\n", ["    def f(images:", "         ^"]),
        ("def f(images):\n    raise ValueError('a\\x1b[2Jb')\n", ["ValueError: a\\x1b[2Jb"]),
        (
            "class E(Exception):\n    def __str__(self): raise ValueError\n"
            "def f(images): raise E\n",
            ["mine.E: <exception str() failed>"],
        ),
        ("def g(): 1 / 0\ndef f(images): g()\n", ["in f", "in g", "ZeroDivisionError: division"]),
    ],
)
def test_traceback_shows_all_of_it(
    folder: Path, code: str, lines: list[str], ddpo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "mine.py").write_text(code)
    try:
        _, _, errors = ddpo("--traceback", "rewards", "score", "./mine.py:f", "one.png")
    finally:
        tracebacks.follow()
    assert "Traceback (most recent call last)" in errors
    for line in lines:
        assert line in errors
    assert "\x1b" not in errors


def test_an_interrupt_of_a_caller_is_no_failure_of_the_reward(folder: Path) -> None:
    from ddpo.errors import Interrupt

    class TimeIsUp(Interrupt):
        pass

    def late(images: object) -> list[float]:
        raise TimeIsUp

    from ddpo.given import name_of

    with pytest.raises(TimeIsUp):
        make_scorer(resolve(name_of(late))).score(BATCH)


def test_what_is_wrong_in_a_class_is_a_users_error(folder: Path) -> None:
    (folder / "mine.py").write_text("class A: pass\n")
    with pytest.raises(UserError):
        resolve("./mine.py:A")
