"""Every row of docs/exit-codes.md is true: each is a command that ends with the row's code."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Final
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest
from PIL import Image

from tests.cli.test_every_command import COMMANDS
from tests.conftest import Run
from tests.warm_start import Process, run_ddpo, start_ddpo

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `ddpo ([a-z ]+)` \| (\d+) \|", PAGE, re.MULTILINE)
SMALL = (
    "--reward darkness --iterations 1 --set sample.samples=4 --set sample.per_prompt=2 "
    "--set sample.steps=2 --set sample.batch=4 --set optim.timesteps=1 --set optim.updates=1"
)
REWARDS = """
import time
def none(images): return [None] * len(images)
def some(images): return [None if one.mean() > 150 else 1.0 + one.mean() for one in images]
def fails(images): raise RuntimeError("broken")
def fails_once(images):
    if images.mean() > 150: raise RuntimeError("broken")
    return images.mean((1, 2, 3))
def slow(images):
    print("called", flush=True)
    time.sleep(120)
"""
ALGORITHM = """
import torch
class Wrong:
    summary = "a loss of the wrong sign"
    defaults = {}
    likelihood = "transition"
    def check(self, config): pass
    def weigh(self, rewards, prompt_ids, statistics, config):
        from ddpo.trainer.advantages import advantages
        return advantages(rewards, prompt_ids, statistics, config.advantage)
    def loss(self, new, old, weights, config): return weights * new
"""


@dataclass(frozen=True)
class World:
    """A folder with images, rewards and a run; commands are run in it.

    Attributes:
        folder: the working folder.
        run: a finished run of the tiny model.
        model: the tiny model.
        here: the program in this process.
    """

    folder: Path
    run: Path
    model: Path
    here: Run

    def code(self, line: str) -> int:
        """The exit code of a command line; RUN and MODEL stand for their folders."""
        words = [self._word(word) for word in shlex.split(line)]
        return self.here(*words)[0]

    def started(self, line: str) -> Process:
        """A command in another process; it takes Ctrl-C, as in a shell's foreground."""
        words = map(self._word, shlex.split(line))
        variables = os.environ | {"PYTHONUNBUFFERED": "1"}
        return start_ddpo(*words, cwd=self.folder, env=variables, merged=True)

    def stopped(self, line: str, sign: str, number: signal.Signals = signal.SIGINT) -> int:
        """The exit code, as a shell counts, of a command that gets a signal after a sign."""
        process = self.started(line)
        assert process.stdout is not None
        printed = ""
        while sign not in printed:
            text = process.stdout.readline()
            assert text, printed
            printed += text
        process.send_signal(number)
        process.communicate(timeout=120)
        return shell_code(process.wait())

    def ended(self, line: str, **variables: str) -> int:
        """The exit code of a command in a new interpreter."""
        path = os.pathsep.join((variables["PYTHONPATH"], str(ROOT)))
        done = subprocess.run(
            [sys.executable, "-m", "ddpo", *map(self._word, shlex.split(line))],
            cwd=self.folder,
            env=os.environ | variables | {"PYTHONPATH": path},
            capture_output=True,
            check=False,
        )
        return done.returncode

    def distribution(self, name: str, requires: str = "", rewards: str = "") -> dict[str, str]:
        """Variables with which an installed distribution is seen, with what it requires or has."""
        folder = self.folder / "site" / f"{name}-99.dist-info"
        folder.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 99\n{requires}\n"
        (folder / "METADATA").write_text(text, encoding="utf-8")
        entry_points = f"[ddpo.rewards]\n{rewards}\n"
        (folder / "entry_points.txt").write_text(entry_points, encoding="utf-8")
        return {"PYTHONPATH": str(folder.parent)}

    def _word(self, word: str) -> str:
        return word.replace("RUN", str(self.run)).replace("MODEL", str(self.model))


def shell_code(code: int) -> int:
    """128 and the number of the signal that ended a process, else its exit code."""
    return 128 - code if code < 0 else code


def all_labelled(world: World) -> int:
    """One pair is shown and labelled by its page's own requests, then Ctrl-C."""
    process = world.started("label a b --pairs 1 --no-browser --out labels.jsonl")
    assert process.stdout is not None
    found = None
    while found is None:
        line = process.stdout.readline()
        assert line
        found = re.search(r"(http://[^/]+)/open/\S+", line)
    opener = build_opener(HTTPCookieProcessor(CookieJar()))
    opener.open(found[0]).read()
    for path, body in (("show", {}), ("answer", {"place": 0, "choice": "left", "seconds": 1.0})):
        data = json.dumps({"rater": "Ada"} | body).encode()
        headers = {"Content-Type": "application/json", "Origin": found[1]}
        opener.open(Request(f"{found[1]}/{path}", data, headers)).read()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    return process.wait()


def missing_library(world: World) -> int:
    """The metadata of an installed ddpo that needs a version of numpy that nobody has."""
    variables = world.distribution("ddpo", requires="Requires-Dist: numpy>=99")
    return world.ended("doctor", **variables)


def broken_package(world: World) -> int:
    """An installed package whose card does not exist."""
    variables = world.distribution("lab-none", rewards="lab/none = nowhere_at_all:CARD")
    return world.ended("rewards doctor lab/none", **variables)


def stopped_sampling(world: World) -> int:
    """Ctrl-C once the first image is written."""
    process = world.started("sample one two --per-prompt 4000 --model MODEL --out many")
    while not list(world.folder.glob("many/*.png")):
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    return process.wait()


def exported_scores(world: World) -> int:
    """A score that was kept in the cache, written to a table."""
    assert world.code("rewards score ./mine.py:some a --cache") == 0
    return world.code("cache export --out scores.csv")


JUDGE: Final = "eval --images base=a --images tuned=b --no-held-out --out report"
CASES: Final[Mapping[tuple[str, str], str | Callable[[World], int]]] = {
    ("train", "0"): f"train --model MODEL --out new {SMALL}",
    ("train", "1"): f"train --model MODEL --out new {SMALL} --reward ./mine.py:none",
    ("train", "2"): "train --reward darknes --out new",
    ("train", "130"): lambda world: world.stopped(
        f"train --model MODEL --out new {SMALL} --iterations 500", "iteration 1/"
    ),
    ("sample", "0"): 'sample "a cat" --per-prompt 1 --steps 2 --model MODEL',
    ("sample", "2"): 'sample "a cat" --checkpoint nowhere/here',
    ("sample", "130"): stopped_sampling,
    ("eval", "0"): f"{JUDGE} --reward darkness",
    ("eval", "1"): f"{JUDGE} --reward darkness --reward ./mine.py:none",
    ("eval", "2"): f"{JUDGE} --reward darknes",
    ("eval", "3"): f"{JUDGE} --reward darkness --fail-if 'prompts.gain > -1000'",
    ("eval", "4"): f"{JUDGE} --reward ./mine.py:none --fail-if 'prompts.gain > 0'",
    ("eval", "130"): lambda world: world.stopped(f"{JUDGE} --reward ./mine.py:slow", "called"),
    ("compare", "0"): "compare RUN/checkpoints/iteration-000001 RUN/checkpoints/iteration-000002 "
    "--limit 2 --per-prompt 2 --no-held-out --out report --prompts prompts.txt",
    ("compare", "2"): "compare RUN",
    ("label", "0"): all_labelled,
    ("label", "2"): "label a nowhere --no-browser",
    ("label", "130"): lambda world: world.stopped("label a b --no-browser -o l.csv", "http://"),
    ("view", "0"): lambda world: world.stopped("view RUN --no-browser", "http://"),
    ("view", "2"): "view nowhere --no-browser",
    ("export", "0"): "export RUN --out lora",
    ("export", "2"): "export nowhere --out lora",
    ("doctor", "0"): "doctor",
    ("doctor", "1"): missing_library,
    ("doctor", "2"): "doctor --minutes 3",
    ("rewards score", "0"): "rewards score darkness ./mine.py:some a",
    ("rewards score", "1"): "rewards score darkness ./mine.py:none a",
    ("rewards score", "2"): "rewards score darkness empty",
    ("rewards score", "130"): lambda world: world.stopped(
        "rewards score ./mine.py:slow a", "called"
    ),
    ("rewards compare", "0"): "rewards compare darkness ./mine.py:some a",
    ("rewards compare", "1"): "rewards compare darkness ./mine.py:none a --no-edits",
    ("rewards compare", "2"): "rewards compare darkness empty",
    ("rewards validate", "0"): "rewards validate darkness --preferences pairs.jsonl",
    ("rewards validate", "1"): "rewards validate ./mine.py:fails --preferences pairs.jsonl",
    ("rewards validate", "2"): "rewards validate ./mine.py:none --preferences pairs.jsonl",
    ("rewards calibrate", "0"): "rewards calibrate darkness a --out z.json",
    ("rewards calibrate", "1"): "rewards calibrate ./mine.py:fails a --out z.json",
    ("rewards calibrate", "2"): "rewards calibrate ./mine.py:none a --out z.json",
    ("rewards bench", "0"): "rewards bench darkness --per-round 2 --size 16 --repeats 1",
    ("rewards bench", "1"): "rewards bench ./mine.py:fails --per-round 2 --size 16 --repeats 1",
    ("rewards bench", "2"): "rewards bench darkness --per-round 2 --batch-sizes 3",
    ("rewards check", "0"): "rewards check darkness --only order",
    ("rewards check", "1"): "rewards check ./mine.py:fails --only order",
    ("rewards check", "2"): "rewards check darkness --only nothing",
    ("rewards doctor", "0"): "rewards doctor darkness",
    ("rewards doctor", "1"): broken_package,
    ("rewards doctor", "2"): "rewards doctor darknes",
    ("rewards serve", "2"): "rewards serve darkness --host 0.0.0.0",
    ("rewards serve", "130"): lambda world: world.stopped(
        "rewards serve darkness --port 0", "http://"
    ),
    ("rewards download", "0"): "rewards download darkness",
    ("rewards download", "2"): "rewards download aesthetic",
    ("rewards list", "0"): "rewards list",
    ("rewards show", "0"): "rewards show darkness",
    ("rewards show", "2"): "rewards show darknes",
    ("rewards new", "0"): "rewards new lab/mine",
    ("rewards new", "2"): "rewards new lab/mine --kind nothing",
    ("algorithms list", "0"): "algorithms list",
    ("algorithms check", "0"): "algorithms check rwr",
    ("algorithms check", "1"): "algorithms check ./algorithm.py:Wrong",
    ("algorithms check", "2"): "algorithms check rwrr",
    ("models list", "0"): "models list",
    ("models check", "0"): "models check MODEL --only decoding",
    ("models check", "1"): "models check ./algorithm.py:Wrong",
    ("models check", "2"): "models check MODEL --only nothing",
    ("recipes list", "0"): "recipes list",
    ("recipes show", "0"): "recipes show emoji",
    ("recipes show", "2"): "recipes show emojy",
    ("cache stats", "0"): "cache stats",
    ("cache clear", "0"): "cache clear",
    ("cache export", "0"): exported_scores,
    ("cache export", "2"): "cache export --out scores.txt",
}
"""Command and code → a command line, or a function that runs one and returns its code."""


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny model with two checkpoints."""
    folder = tmp_path_factory.mktemp("run") / "run"
    words = ["--model", str(tiny_model), "--out", str(folder), *SMALL.split()]
    words += ["--iterations", "2", "--set", "checkpoint_every=1"]
    done = run_ddpo("train", *words)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def world(
    tmp_path: Path, run: Path, tiny_model: Path, ddpo: Run, monkeypatch: pytest.MonkeyPatch
) -> World:
    for folder in ("a", "b", "empty"):
        (tmp_path / folder).mkdir()
    for folder, first in (("a", 40), ("b", 50)):
        for place, name in enumerate(("cat", "dog")):
            level = first + 130 * place
            image = Image.new("RGB", (16, 16), (level, level, level))
            image.save(tmp_path / folder / f"{name}.png")
            (tmp_path / folder / f"{name}.txt").write_text(f"a {name}", encoding="utf-8")
    pair = {"prompt": "a cat", "image_a": "a/cat.png", "image_b": "a/dog.png", "label": "a"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n", encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text(REWARDS, encoding="utf-8")
    (tmp_path / "algorithm.py").write_text(ALGORITHM, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return World(tmp_path, run, tiny_model, ddpo)


def test_the_page_names_each_command_and_each_case_is_a_row() -> None:
    assert {command for command, _ in ROWS} == set(COMMANDS)
    assert len(ROWS) == len(set(ROWS))
    assert set(CASES) == set(ROWS)


@pytest.mark.parametrize(("command", "code"), ROWS)
def test_a_command_ends_with_the_code_of_its_row(command: str, code: str, world: World) -> None:
    case = CASES[command, code]
    found = world.code(case) if isinstance(case, str) else case(world)
    assert found == int(code)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_ends_a_command_with_128_and_its_number(
    world: World, number: signal.Signals
) -> None:
    assert f"| {128 + number} |" in PAGE
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("started by nohup, which commands obey")
    code = world.stopped("rewards score ./mine.py:slow a", "called", number)
    assert code == 128 + number


@pytest.mark.parametrize("words", COMMANDS)
def test_an_unknown_option_is_code_2(words: str, world: World) -> None:
    assert world.code(f"{words} --no-such-option") == 2


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("rewards score ./mine.py:some a", 0),
        ("rewards score ./mine.py:none ./mine.py:some a", 1),
        ("rewards score ./mine.py:none a --json --out scores.csv", 1),
        ("rewards score ./mine.py:fails_once a --batch-size 1", 1),
        ("rewards check ./mine.py:some --only golden-scores", 1),
        ("rewards check darkness --only order --only golden-scores", 0),
        ("rewards compare ./mine.py:some darkness a", 0),
        ("rewards compare ./mine.py:none a", 1),
        ("rewards compare ./mine.py:none ./mine.py:none:x=1 a", 2),
        ("rewards compare ./mine.py:fails_once darkness a --no-edits --batch-size 1", 1),
        (f"{JUDGE} --reward ./mine.py:some", 0),
        (f"{JUDGE} --reward ./mine.py:none", 1),
        (f"{JUDGE} --reward ./mine.py:none --fail-if 'reading >= strong'", 4),
        (f"{JUDGE} --reward ./mine.py:fails", 1),
    ],
)
def test_nothing_scored_is_not_0_and_partly_scored_is(line: str, code: int, world: World) -> None:
    assert world.code(line) == code


def test_an_evaluation_without_scores_writes_its_report_and_names_the_reward(
    world: World, ddpo: Run
) -> None:
    code, _, errors = ddpo(*shlex.split(f"{JUDGE} --reward darkness --reward ./mine.py:none"))
    assert code == 1
    assert errors.strip().splitlines()[-1].startswith("failed: reward 'none' scored no pair of")
    assert (world.folder / "report" / "report.html").is_file()


def test_two_rewards_of_which_one_scores_nothing_are_told_apart(world: World, ddpo: Run) -> None:
    _, output, errors = ddpo("rewards", "score", "darkness", "./mine.py:none", "a")
    assert errors.startswith("failed: reward 'none' could score no image")
    assert "darkness" in output
