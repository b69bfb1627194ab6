"""The rules of tools/measure_house.py, on examples counted by hand and against ruff."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import house_frames
import pytest
from house_imports import circles, import_graph, reward_classes
from house_rules import RULES, complexity
from house_source import Source, dialect_of_text, dialect_words, package_of, python_files
from measure_house import House, listed, style_rows, table

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"


def lines_of(rule: str, code: str) -> list[int]:
    """The lines of a code that break a rule."""
    return sorted(place.line for place in RULES[rule](Source(Path("example.py"), code)))


def write(folder: Path, files: dict[str, str]) -> Path:
    """Writes files, given by their paths, and the `__init__.py` of each of their folders."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        for parent in list(file.relative_to(folder).parents)[:-1]:
            (folder / parent / "__init__.py").touch()
    return folder


def test_files_that_ruff_leaves_out_are_not_measured(tmp_path: Path) -> None:
    """Only the nearest pyproject.toml counts; a file or folder that is named itself is measured."""
    settings = '[tool.ruff]\nextend-exclude = [".venv", "tests/old", "tests/made.py"]\n'
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    names = ["tests/a.py", "tests/made.py", "tests/old/b.py", "tests/old_tools/c.py", ".venv/d.py"]
    write(tmp_path, dict.fromkeys(names, "x = 1\n"))
    (tmp_path / "tests" / "old" / "notes.md").write_text("Two pictures.\n", encoding="utf-8")
    tests = tmp_path / "tests"
    kept = [tests / "__init__.py", tests / "a.py", tests / "old_tools" / "__init__.py"]
    kept.append(tests / "old_tools" / "c.py")
    assert python_files(tests) == python_files(tmp_path) == kept
    assert list(listed("dialect", tests)) == []
    old = tests / "old"
    assert python_files(old) == [old / "__init__.py", old / "b.py"]
    assert python_files(tests / "made.py") == [tests / "made.py"]
    (tests / "pyproject.toml").write_text('[tool.ruff]\nextend-exclude = ["old_tools"]\n')
    assert python_files(tests) == [
        *[tests / name for name in ("__init__.py", "a.py", "made.py")],
        *[old / name for name in ("__init__.py", "b.py")],
    ]


def test_columns_are_counted_past_the_limit() -> None:
    code = "\n".join(["#" * 100, "#" * 101, "#" * 121])
    assert lines_of("over-100", code) == [2, 3]
    assert lines_of("over-120", code) == [3]


@pytest.mark.parametrize(
    ("statement", "breaks"),
    [
        ("a, b = 1, 2", True),
        ("self.a, self.b = a, b", True),
        ("[a, b] = 1, 2", True),
        ("a, b = b, a", False),
        ("x[0], x[1] = x[1], x[0]", False),
        ("a, b = b, a + b", False),
        ("a, b = a + b, a", False),
        ("a, b = a, b + 1", True),
        ("a, b = b, c", True),
        ("a, b = pair", False),
        ("a, *b = 1, 2", False),
        ("for a, b in pairs: pass", False),
        ("pair = 1, 2", False),
    ],
)
def test_tuple_assignments_are_found_where_two_lines_would_do(statement: str, breaks: bool) -> None:
    assert bool(lines_of("tuple-assignment", statement)) == breaks


def test_conditionals_count_once_for_each_inner_one() -> None:
    assert lines_of("nested-conditional", "x = 1 if a else 2") == []
    assert lines_of("nested-conditional", "x = 1 if a else 2 if b else 3") == [1]
    assert lines_of("nested-conditional", "x = 1 if a else 2 if b else 3 if c else 4") == [1, 1]
    assert lines_of("nested-conditional", "x = f(1 if a else 2) if b else 3") == [1]
    assert lines_of("nested-conditional", "x = [1 if a else 2, 3 if b else 4]") == []


def test_only_comments_switch_the_formatter_off() -> None:
    code = 'x = 1  # fmt: skip\ny = "# fmt: skip"\n# fmt: off\n'
    assert lines_of("fmt-skip", code) == [1, 3]


def test_docstring_openings_and_lengths() -> None:
    code = '"""What it is."""\ndef f():\n    """Whatever is left."""\nX = 1\n"""Whether."""\n'
    assert lines_of("docstring-opening", code) == [1, 5]
    assert lines_of("docstring-length", f'"""{"x" * 100}\n\n{"y" * 200}"""') == []
    assert lines_of("docstring-length", f'"""{"x" * 101}"""') == [1]


def test_lengths_of_functions_and_files() -> None:
    code = "def f():\n" + "    pass\n" * 40
    assert lines_of("function-over-40", code) == [1]
    assert lines_of("function-over-40", code.replace("    pass\n", "", 1)) == []
    assert lines_of("function-over-80", code) == []
    assert lines_of("file-over-400", "x = 1\n" * 401) == [1]
    assert lines_of("file-over-400", "x = 1\n" * 400) == []


def test_complexity_is_what_ruff_counts() -> None:
    command = [Path(sys.executable).with_name("ruff"), "check", "--isolated", "--select", "C901"]
    command += ["--config", "lint.mccabe.max-complexity=4", "--output-format", "json"]
    done = subprocess.run([*command, "ddpo"], cwd=ROOT, capture_output=True, text=True, check=False)
    expected = {}
    for found in json.loads(done.stdout):
        name, _, rest = found["message"].partition(" is too complex (")
        key = (Path(found["filename"]), found["location"]["row"], name.strip("`"))
        expected[key] = int(rest.partition(" ")[0])
    counted = {
        (file, node.lineno, node.name): complexity(node)
        for file in python_files(ROOT / "ddpo")
        for node in Source(file).functions
        if complexity(node) > 4
    }
    assert len(expected) > 100
    assert counted == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The picture of a batch.", ["picture"]),
        ("Pictures go on. It was told.", ["Pictures", "go on", "told"]),
        ("Of course, the run resumes.", []),
        ("The course of a run; over the course of a day.", ["The course"]),
        ("It goes on the x axis.", []),
        ("The run goes on after a kill.", ["goes on"]),
        ("Reads `pictures` of --pictures from pictures.json into my_pictures.", []),
        ("The word \"picture\" and the value 'told'.", []),
        ("12 pictures/s", ["pictures"]),
        ('<p class="picture">told</p>', ["told"]),
        (".picture { color: red }", []),
        ("{{ picture }} begun", ["begun"]),
        ("something else than a number", ["else than"]),
        ("Draws many images.", ["Draws many images"]),
        ("Draws a chart after drawing the axis.", []),
        (
            "the drawing and the describing, in pieces",
            ["the drawing", "the describing", "in pieces"],
        ),
        ("a reading of the paper, reading a file", []),
        ("its reading is strong", ["its reading"]),
        ("A steady-state speed.", []),
    ],
)
def test_the_dialect_is_distinct_from_plain_english(text: str, words: list[str]) -> None:
    assert [word for _, word in dialect_words(text)] == words


def test_the_dialect_is_found_where_people_read() -> None:
    code = '''"""A module.

The pictures.

Args:
    pictures: The images.
"""
pictures = {"pictures": 1, "told": 2}  # all pictures
PATTERN = r"pictures? of"
__all__ = ["Picture"]
TEMPLATE: str = "Does this picture show {prompt}?"
QUESTION = "Does this picture show a cat?"
raise ValueError(
    f"{pictures} of them: "
    "no picture"
)
'''
    assert lines_of("dialect", code) == [3, 8, 15]


def test_fenced_code_of_a_text_is_code(tmp_path: Path) -> None:
    text = tmp_path / "guide.md"
    text.write_text("# Guide\n\n```\npictures\n```\n\nTwo pictures.\n", encoding="utf-8")
    assert [(place.line, place.text) for place in dialect_of_text(text)] == [(7, "'pictures'")]


def test_circles_join_late_imports_and_leave_out_types(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "own/a.py": "import json\nfrom own import b\n",
            "own/b.py": "from own.rooms.c import thing\n",
            "own/rooms/c.py": "def late():\n    from ..a import thing\n",
            "own/d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import own.e\n",
            "own/e.py": "import own.d\n",
        },
    )
    house = House(tmp_path)
    assert package_of(tmp_path) == tmp_path / "own"
    assert circles(house.graph) == [["own.a", "own.b", "own.rooms.c"]]
    assert circles(house.graph, "own.rooms") == []
    assert house.graph["own.e"] == {"own.d"}
    assert house.graph["own.d"] == set()
    assert import_graph({"own.a": house.sources["own.a"]}) == {"own.a": set()}


SCORER = """
import ddpo.rewards.card
import ddpo.rewards.models.own
LOAD = "ddpo.rewards.sum:Sum"
class Scorer:
    def __init__(self, reward: Reward, lock: Lock) -> None: ...
class Twice:
    scorers: list[Scorer]
class _Private:
    scorer: Scorer
class Other:
    size: int
"""
CARD = """
class Calls:
    retries: int
class RewardCard:
    calls: Calls
class Reward:
    card: RewardCard
"""
LOOP = """
import ddpo.rewards.scoring.scorer
import ddpo.trainer.collect
"""
SUM = """
class Sum:
    def __call__(self, batch: ImageBatch) -> RewardOutput: ...
"""
COLLECTION = """
class Collection:
    scorer: Scorer
    policy: Policy
"""


def test_reward_classes_lie_between_the_spec_and_the_scores(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "ddpo/trainer/loop.py": LOOP,
            "ddpo/trainer/collect.py": COLLECTION,
            "ddpo/rewards/scoring/scorer.py": SCORER,
            "ddpo/rewards/card.py": CARD,
            "ddpo/rewards/sum.py": SUM,
            "ddpo/rewards/models/own.py": "class Own:\n    card: RewardCard\n",
            "ddpo/rewards/tool.py": "class Unreached:\n    card: RewardCard\n",
        },
    )
    house = House(tmp_path)
    found = [place.text for place in reward_classes(house.sources, house.graph)]
    assert found == ["Calls", "Reward", "RewardCard", "Scorer", "Sum", "Twice"]


TRAINER = """
import runpy
def config_for(values):
    return values["reward"].rpartition(":")[0]
def train(config, out):
    from ddpo.rewards.call import Reward
    from ddpo.trainer.rollout import collect
    yield collect(Reward(runpy.run_path(config)["brightness"]))
"""
ROLLOUT = """
from ddpo.rewards.call import ask
def collect(reward):
    return inner(reward)
def inner(reward):
    return ask(reward)
"""
CALL = """
from concurrent.futures import ThreadPoolExecutor
class Reward:
    def __init__(self, function):
        self.function = function
    def __call__(self):
        return [self.function([]) for _ in range(1)]
def ask(reward):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(reward).result()
"""


def test_frames_are_counted_after_the_rollout_and_across_threads(tmp_path: Path) -> None:
    """The stub calls `collect`, `inner`, `ask`, a thread, `Reward.__call__`, the function."""
    write(tmp_path, {"ddpo/trainer/rollout.py": ROLLOUT, "ddpo/rewards/call.py": CALL})
    (tmp_path / "ddpo/trainer/__init__.py").write_text(TRAINER, encoding="utf-8")
    command = [sys.executable, TOOLS / "house_frames.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        ["ddpo/rewards/call.py", "10", "ask"],
        ["ddpo/rewards/call.py", "7", "__call__"],
    ]


def test_frames_before_the_last_of_the_rollout_do_not_count() -> None:
    package = Path("/x/ddpo")
    rollout = "/x/ddpo/trainer/rollout.py"
    frames = [("/x/ddpo/cli.py", 1, "main"), (rollout, 2, "rest"), (rollout, 3, "_score")]
    frames += [("/lib/threading.py", 4, "run"), ("/x/ddpo/a.py", 5, "call"), ("/y.py", 6, "user")]
    assert house_frames.between(frames, package) == [("/x/ddpo/a.py", 5, "call")]


def test_the_table_has_a_column_per_house(tmp_path: Path) -> None:
    write(tmp_path, {"own/a.py": f"a, b = 1, 2\n{'#' * 101}\n\nc = 3\n"})
    rows = style_rows(House(tmp_path))
    assert rows["files, lines"] == "2, 4"
    assert rows["lines over 100 columns"] == "25.0 %"
    assert rows["lines over 120 columns"] == "0.0 %"
    assert rows["mean length of a line, characters"] == "39.0"  # (11 + 101 + 5) / 3
    assert rows["tuple assignments, per 1,000 lines"] == "1 (250.0)"
    assert table({"one": {"x": "1"}, "two": {"y": "2"}}).splitlines() == [
        "| | one | two |",
        "|---|---:|---:|",
        "| x | 1 | – |",
        "| y | – | 2 |",
    ]
