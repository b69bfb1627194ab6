"""The shape of the command line, checked on every command."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from ddpo.cli.commands import argument_text
from ddpo.cli.main import app
from ddpo.policies import EMBEDDED
from ddpo.policies.pipelines import PIPELINES
from tests.conftest import Run
from tests.test_documented_commands import parse

PROGRAM: Any = typer.main.get_command(app)
SHORT = {"-h": "--help", "-o": "--out", "-q": "--quiet", "-v": "--verbose"}
ANY_MEANING = {"--held-out", "--prompts"}  # a value in one command, more or less of it elsewhere


def commands(group: Any = PROGRAM, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The words of each command, and the command."""
    for name, inner in group.commands.items():
        if hasattr(inner, "commands"):
            yield from commands(inner, (*path, name))
        else:
            yield " ".join((*path, name)), inner


COMMANDS = dict(commands())
every = pytest.mark.parametrize("words", COMMANDS)


def options(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "option"]


def folder_of_images(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_there_are_the_commands_that_the_guides_name() -> None:
    assert {"train", "eval", "compare", "rewards compare", "cache export"} <= set(COMMANDS)


@every
def test_every_option_and_argument_has_help(words: str) -> None:
    for parameter in COMMANDS[words].params:
        assert parameter.help, (words, parameter.name)


@every
def test_every_command_has_examples_that_parse(words: str) -> None:
    examples = COMMANDS[words].examples
    assert 1 <= len(examples) <= 3
    for line in examples:
        assert line.startswith(f"ddpo {words}")
        assert len(line) <= 58, "an example stays on one line of a narrow terminal"
        parse(shlex.split(line)[1:])


@pytest.mark.parametrize(
    "line",
    [
        line
        for words in ("rewards list", "rewards show", "recipes list", "recipes show", "cache stats")
        for line in COMMANDS[words].examples
        if "--available" not in line
    ],
)
def test_quick_examples_run(line: str, ddpo: Run) -> None:
    code, text, error = ddpo(*shlex.split(line)[1:])
    assert (code, error) == (0, "")
    assert text


@every
def test_short_names_mean_one_thing(words: str) -> None:
    for option in options(COMMANDS[words]):
        for name in option.opts:
            if not name.startswith("--"):
                assert SHORT[name] in option.opts
        if "--out" in option.opts:
            assert "-o" in option.opts
        if "--json" in option.opts:
            assert option.is_flag
    assert {"--quiet", "--verbose"} <= {n for one in options(COMMANDS[words]) for n in one.opts}


def test_an_option_has_one_kind_of_value_in_all_commands() -> None:
    kinds: dict[str, set[str]] = defaultdict(set)
    for command in COMMANDS.values():
        for option in options(command):
            for name in set(option.opts) - ANY_MEANING:
                kind = "flag" if option.is_flag else str(option.metavar)
                kinds[name].add({"X": "N", "FOLDER": "FILE"}.get(kind, kind))
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_what_a_command_writes_is_called_out() -> None:
    writing = {words for words, one in COMMANDS.items() if "--out" in str(one.params)}
    named = {w for w, one in COMMANDS.items() if any("--out" in o.opts for o in options(one))}
    assert {"train", "sample", "eval", "compare", "export", "doctor", "cache export"} <= named
    assert writing <= named


@every
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_fits_the_terminal_and_cuts_no_name(words: str, columns: int, ddpo: Run) -> None:
    code, text, _ = ddpo(*words.split(), "--help", columns=columns)
    assert code == 0
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    for option in options(COMMANDS[words]):
        assert all(name in text for name in option.opts)
    for argument in COMMANDS[words].params:
        if argument.param_type_name == "argument" and not argument.hidden:
            assert argument_text(argument) in " ".join(text.split())
    assert "9,223,372" not in text
    for line in COMMANDS[words].examples:
        assert f"  {line}\n" in text


def test_help_shows_defaults_and_ranges(ddpo: Run) -> None:
    _, text, _ = ddpo("eval", "--help", columns=120)
    assert "[default: 4]" in text
    assert "Range: 1 to 1,000." in text


@pytest.mark.parametrize(
    ("arguments", "old", "new"),
    [
        (("export", "nowhere", "--to", "x"), "--to", "--out"),
        (("export", "nowhere", "--to=x"), "--to", "--out"),
        (("eval", "nowhere", "--seeds", "2", "--base", "emoji"), "--seeds", "--per-prompt"),
        (("eval", "nowhere", "--seeds", "2", "--base", "emoji"), "--base", "--model"),
    ],
)
def test_old_names_work_with_a_note(
    arguments: tuple[str, ...], old: str, new: str, ddpo: Run
) -> None:
    code, _, error = ddpo(*arguments)
    assert code == 2
    assert f"note: {old} is now called {new}\n" in error
    assert "nowhere: no such checkpoint" in error
    _, _, quiet = ddpo(*arguments, "-q")
    assert "note" not in quiet


@pytest.mark.parametrize(
    ("arguments", "name", "times"),
    [
        (("train", "--prompts", "a.txt", "--prompts", "nowhere.txt"), "--prompts", 2),
        (("train", "--held-out", "sharpness", "--held-out", "nowhere"), "--held-out", 2),
        (("export", "nowhere", "-o", "a", "--out=b", "-o", "c"), "--out", 3),
        (("sample", "x", "--checkpoint", "a", "--checkpoint", "nowhere"), "--checkpoint", 2),
    ],
)
def test_an_option_of_one_value_that_is_given_again_is_noted(
    arguments: tuple[str, ...], name: str, times: int, ddpo: Run
) -> None:
    code, _, error = ddpo(*arguments)
    assert code == 2
    assert f"note: {name} is given {times} times, and takes one value: the last one " in error
    assert "nowhere" in error.splitlines()[-1]
    _, _, quiet = ddpo(*arguments, "-q")
    assert "note" not in quiet


def test_repeatable_options_switches_and_counts_need_no_note(ddpo: Run) -> None:
    words = ("--reward", "darkness", "--reward", "sharpness", "--set", "a=1", "--set", "b=2")
    _, _, error = ddpo("train", *words, "--dry-run", "--dry-run", "-v", "-v")
    assert "note" not in error


def test_the_list_of_models_says_what_each_is_for(ddpo: Run) -> None:
    _, output, _ = ddpo("models", "list", "--json")
    purposes = {row["model"]: row["for"] for row in json.loads(output)}
    assert purposes.keys() >= {*EMBEDDED, *PIPELINES}
    assert all(purposes[name] for name in (*EMBEDDED, *PIPELINES))


def test_the_users_own_spellings_need_no_note(ddpo: Run) -> None:
    for arguments in (("eval", "--checkpoint", "nowhere"), ("eval", "nowhere")):
        _, _, error = ddpo(*arguments)
        assert error == "error: nowhere: no such checkpoint or run folder\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("rewards", "list", "--json"),
        ("rewards", "show", "compressibility", "--json"),
        ("recipes", "list", "--json"),
        ("recipes", "show", "sd1", "--json"),
        ("cache", "stats", "--json"),
        ("cache", "clear", "--json"),
        ("rewards", "new", "redness", "--json"),
        ("rewards", "score", "darkness", "sharpness", "images", "--json"),
        ("rewards", "score", "darkness", "images/0.png", "--json"),
        ("rewards", "compare", "darkness", "sharpness", "images", "--json", "--no-edits"),
        ("rewards", "validate", "darkness", "--preferences", "pairs.csv", "--json"),
        ("rewards", "calibrate", "darkness", "images", "-o", "d.json", "--json"),
        ("rewards", "bench", "darkness", "--per-round", "2", "--size", "16", "--json"),
    ],
)
def test_json_is_strict_and_alone_on_standard_output(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_images(Path("images"))
    Path("pairs.csv").write_text(
        "prompt,image_a,image_b,label\na,images/0.png,images/1.png,a\n", encoding="utf-8"
    )
    code, text, error = ddpo(*arguments)
    assert code == 0, error

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(text, parse_constant=refuse)


def test_limit_takes_the_first_images_and_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_images(Path("images"))
    _, text, _ = ddpo("rewards", "score", "darkness", "images", "--limit", "3", "--json")
    found = json.loads(text)
    names = [Path(image["file"]).name for image in found["images"]]
    assert names == ["0.png", "1.png", "2.png"]
    assert found["rewards"]["darkness"]["scored"] == 3
    rows = [f"a,images/{n}.png,images/{n + 1}.png,a" for n in range(3)]
    table = "\n".join(["prompt,image_a,image_b,label", *rows])
    Path("pairs.csv").write_text(table, encoding="utf-8")
    judge = ("rewards", "validate", "darkness", "--preferences", "pairs.csv", "--json")
    assert json.loads(ddpo(*judge, "--limit", "2")[1])["pairs"] == 2
    assert json.loads(ddpo(*judge)[1])["pairs"] == 3


def test_quiet_prints_results_alone_and_verbose_names_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_images(Path("images"))
    Path("images/notes.xyz").write_text("no image", encoding="utf-8")
    command = ("rewards", "calibrate", "darkness", "images", "-o", "d.json")
    _, loud, _ = ddpo(*command)
    assert "left out" in loud or "notes" in loud or ".xyz" in loud
    code, quiet, error = ddpo(*command, "-q")
    assert (code, error) == (0, "")
    assert ".xyz" not in quiet
    _, _, error = ddpo(*command, "-v")
    assert "INFO ddpo.io: wrote d.json" in error
    _, _, error = ddpo(*command)
    assert "INFO" not in error, "the log ends with its command"
    code, _, error = ddpo(*command, "-q", "-v")
    assert code == 2
    assert "contradict" in error
    assert ddpo("-q", *command)[1] == quiet


def test_print_config_is_a_recipe_that_gives_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--reward", "darkness", "--limit", "2", "--set", "optim.clip_range=inf")
    code, text, error = ddpo("train", *given, "--print-config")
    assert (code, error) == (0, "")
    settings = tomllib.loads(text)
    assert settings["prompt_limit"] == 2
    assert settings["optim"]["clip_range"] == "inf"
    Path("mine.toml").write_text(text, encoding="utf-8")
    assert ddpo("train", "--recipe", "mine.toml", "--print-config")[1] == text
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_compare_and_rewards_compare_name_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "manifest.json"):
        (run / name).write_text("{}", encoding="utf-8")
    code, _, error = ddpo("rewards", "compare", "run", "run")
    assert code == 2
    assert "run is a run: `ddpo compare` compares runs" in error
    code, _, error = ddpo("rewards", "compare", "darkness", "run")
    assert (code, error.count("\n")) == (2, 1)
    code, _, error = ddpo("compare", "darkness", "sharpness")
    assert code == 2
    assert "`ddpo rewards compare`" in error
    assert "`ddpo rewards compare`" in ddpo("compare", "--help")[1]
    assert "`ddpo compare`" in ddpo("rewards", "compare", "--help")[1]


@pytest.mark.parametrize(
    ("line", "place", "expected"),
    [
        ("ddpo train --reward compress", 3, "compressibility"),
        ("ddpo train --recipe sd", 3, "sd1"),
        ("ddpo train --prompts unseen", 3, "unseen_animals"),
        ("ddpo train --algorithm rwr_", 3, "rwr_sparse"),
        ("ddpo rewards show aesth", 3, "aesthetic"),
        ("ddpo recipes show emo", 3, "emoji"),
        ("ddpo rewards val", 2, "validate"),
        ("ddpo eval --prom", 2, "--prompts"),
    ],
)
def test_the_shell_completes_names(line: str, place: int, expected: str) -> None:
    environment = {
        **os.environ,
        "_DDPO_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(place),
    }
    script = (
        "import sys; sys.argv = ['ddpo']\n"
        "from ddpo.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'numpy', 'PIL', 'pandas'} & set(sys.modules)\n"
        "    print('HEAVY', *heavy, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert expected in done.stdout.split(), done.stderr
    assert done.stderr.splitlines()[-1] == "HEAVY"
