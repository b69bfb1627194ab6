"""One line and the documented exit code for what a machine refuses, for every command."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ddpo.errors import ConfigError
from ddpo.inputs.tables import read_table
from ddpo.io.atomic import check_folder_writable, check_writable
from ddpo.io.tables import write_records
from ddpo.registry import explain_load_failure
from ddpo.text import without_controls

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "ddpo"]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
HOSTILE = "\x1b]52;c;aGk=\x07 [red]x[/] [/] [link=http://x]y[/link] \x9b31m \u202e \r"


def images_in(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (8 + number, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


def run(
    *words: object, before: Callable[[], object] | None = None, **options: object
) -> tuple[int, str, str]:
    environment = options.pop("env", {})
    assert isinstance(environment, dict)
    done = subprocess.run(
        [*PROGRAM, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        preexec_fn=before,
        capture_output="stdout" not in options,
        timeout=300,
        **options,  # type: ignore[call-overload]
    )
    output = (done.stdout or b"").decode(errors="surrogateescape")
    return done.returncode, output, (done.stderr or b"").decode(errors="surrogateescape")


QUICK = [["--version"], ["--help"], ["rewards", "list"], ["rewards", "list", "--json"]]
MORE = [["rewards", "show", "darkness"], ["recipes", "list"], ["train", "--help"]]


@needs_full
@pytest.mark.parametrize("words", [*QUICK, *MORE], ids=" ".join)
def test_lost_output_is_an_error_in_one_line(words: list[str]) -> None:
    with FULL.open("w") as full:
        code, _, errors = run(*words, stdout=full, stderr=subprocess.PIPE)
    assert (code, errors.count("\n")) == (2, 1), errors
    assert errors == "error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_a_closed_standard_output_is_an_error_in_one_line(words: list[str]) -> None:
    code, _, errors = run(*words, before=lambda: os.close(1))
    assert (code, errors) == (
        2,
        "error: standard output cannot be written: Bad file descriptor\n",
    )


def test_a_closed_standard_output_is_never_a_table(tmp_path: Path) -> None:
    places = images_in(tmp_path / "images")
    out = tmp_path / "t.csv"
    words = ["rewards", "score", "darkness", places, "--out", out, "--no-cache"]
    code, _, errors = run(*words, before=lambda: os.close(1))
    assert code == 2
    assert "standard output cannot be written" in errors
    with out.open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [
            str(places / f"{number}.png") for number in range(4)
        ]


def test_a_reader_that_is_gone_is_silent_and_no_success() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, _, errors = run("rewards", "list", "--json", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (code, errors) == (1, "")


@needs_full
@pytest.mark.parametrize("closed", [True, False])
def test_lost_notes_change_neither_work_nor_exit_code(tmp_path: Path, closed: bool) -> None:
    places = images_in(tmp_path / "images")
    words = [*PROGRAM, "rewards", "score", "darkness", places, "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    usual = subprocess.run(words, env=environment, capture_output=True, check=True)
    with FULL.open("w") as full:
        lost = subprocess.run(
            words,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=full,
            preexec_fn=(lambda: os.close(2)) if closed else None,
            check=False,
        )
    assert (lost.returncode, lost.stdout) == (0, usual.stdout)
    with FULL.open("w") as full:
        wrong = subprocess.run([*PROGRAM, "nothing"], env=environment, stderr=full, check=False)
    assert wrong.returncode == 2


def test_json_stays_json_in_ascii() -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    code, plain, errors = run("rewards", "list", "--json")
    assert code == 0, errors
    code, output, errors = run("rewards", "list", "--json", env=ascii_only)
    assert code == 0, errors
    assert output.isascii()
    assert json.loads(output) == json.loads(plain)
    assert not plain.isascii(), "a text outside ASCII is in the list"


def hostile_reward(folder: Path) -> Path:
    path = folder / "bad.py"
    path.write_text(f"def fails(images):\n    raise ValueError({HOSTILE + chr(0xDC80)!r})\n")
    return path


def test_errors_of_rewards_steer_no_terminal(tmp_path: Path) -> None:
    places = images_in(tmp_path / "images", 1)
    path = hostile_reward(tmp_path)
    out = tmp_path / "t.csv"
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    code, output, errors = run(
        "rewards", "score", f"{path}:fails", places, "--out", out, env=terminal
    )
    assert code == 1
    for text in (output, errors):
        own = text.replace("\x1b[0m", "").replace("\x1b[1m", "").replace("\x1b[2K", "")
        assert "\x1b]" not in own
        assert not {"\x07", "\x9b", "\u202e", "\udc80"} & set(own)
    assert "[red]x[/] [/] [link=http://x]y[/link]" in output


@pytest.mark.parametrize(
    "words",
    [
        ["{}"],
        ["train", "--{}"],
        ["rewards", "score", "darkness", "{}"],
        ["sample", "a cat", "--checkpoint", "{}"],
        ["eval", "--checkpoint", "{}"],
        ["recipes", "show", "{}"],
    ],
    ids=" ".join,
)
def test_names_steer_no_terminal(words: list[str], tmp_path: Path) -> None:
    name = "no\x1b]52;c;aGk=\x07\x9b31m\u202e"
    code, output, errors = run(*[word.format(name) for word in words], cwd=tmp_path)
    assert code == 2
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(output + errors)
    assert "Traceback" not in errors


def test_joiners_of_emoji_and_arabic_are_no_controls() -> None:
    family = "👨\u200d👩\u200d👧 می\u200cخواهم"
    assert without_controls(family + "\t\n") == family + "\t\n"
    assert without_controls("a\x1b\x85\u2066") == "a\\x1b\\x85\\u2066"


CELLS = [
    "=1+1",
    "+1",
    "-0.5",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "＝1",
    "'=1",
    "''-",
    "'quoted'",
    "a=b",
    "-",
]


def test_no_text_of_a_csv_table_is_a_formula_and_our_readers_undo_it(tmp_path: Path) -> None:
    names = ["file", "prompt", "reward", "status", "score", "error", "signature"]
    rows = [
        {"file": f"{number}.png", "prompt": text, "reward": "r", "status": "scored", "score": -0.5}
        for number, text in enumerate(CELLS)
    ]
    path = tmp_path / "t.csv"
    write_records(rows, names, path)
    with path.open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert not [row["prompt"] for row in cells if row["prompt"][0] in "=+-@\t\r\n＝＋－＠"]
    assert {row["score"] for row in cells} == {"-0.5"}
    assert [row["prompt"] for _, row in read_table(path)] == CELLS


def test_texts_of_others_tables_stay(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("file,prompt\n1.png,'@home' sign\n")
    assert [row["prompt"] for _, row in read_table(path)] == ["'@home' sign"]


def test_a_missing_path_is_one_short_line(tmp_path: Path) -> None:
    code, _, errors = run("rewards", "score", "darkness", "missing_folder", cwd=tmp_path)
    assert code == 2
    assert errors.startswith("error: missing_folder: no such file or folder, and unknown reward")
    assert len(errors) < 160


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code, _, errors = run("sample", "a cat", cwd=gone, before=gone.rmdir)
    assert code == 2
    assert errors.startswith("error: the current folder cannot be used: No such file")
    assert errors.count("\n") == 1


def test_places_that_cannot_be_written_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "deep")
    for place in ("file/x", "dangling/x", "x" * 300 + "/y"):
        with pytest.raises(ConfigError, match="cannot be written"):
            check_folder_writable(tmp_path / place)
        with pytest.raises(ConfigError, match="cannot be written"):
            check_writable(tmp_path / place / "t.csv")
    with pytest.raises(ConfigError, match="File name too long"):
        check_writable(tmp_path / ("x" * 250))
    check_folder_writable(tmp_path / "a" / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_a_dry_run_checks_that_it_could_write(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ["train", "--dry-run", "--model", tiny_model, "--reward", "darkness"]
    code, _, errors = run(*words, "--out", tmp_path / "file" / "run")
    assert code == 2
    assert errors.startswith(f"error: {tmp_path / 'file' / 'run'} cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def largest_file(size: int) -> Callable[[], object]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_scoring_on_a_full_disk_resumes_to_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    places = images_in(tmp_path / "images", 40)
    words = ["rewards", "score", "darkness", places, "--no-cache", "--out"]
    assert run(*words, tmp_path / f"whole{suffix}")[0] == 0
    out = tmp_path / f"t{suffix}"
    code, _, errors = run(*words, out, before=largest_file(6000))
    assert code == 2
    assert errors.rstrip("\n").endswith("cannot be written: File too large")
    assert "Traceback" not in errors
    assert not out.exists()
    assert run(*words, out)[0] == 0
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take another user id")
@pytest.mark.parametrize("words", [["rewards", "list"], ["rewards", "score", "darkness", "{}"]])
def test_a_user_without_home_and_without_entry(words: list[str], tmp_path: Path) -> None:
    places = images_in(tmp_path / "images")
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    for place in (places, *places.parents[:3]):
        place.chmod(0o755)
    try:
        done = subprocess.run(
            [*PROGRAM, *[word.format(places) for word in words]],
            env={**environment, "PYTHONPATH": str(ROOT)},
            user=54321,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
    except PermissionError:
        pytest.skip("another user cannot run this interpreter")
    if "No module named" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("another user cannot read this installation")
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.returncode == 2
        assert "this user has no home folder; set DDPO_CACHE to a folder" in done.stderr


def test_a_part_that_an_installed_library_lacks_is_named() -> None:
    with pytest.raises(ModuleNotFoundError) as lacking:
        import ddpo.nothing_of_that_name  # noqa: F401
    text = explain_load_failure(lacking.value, "acme.main", "pip install it")
    assert text.startswith("it needs the Python module ddpo.nothing_of_that_name, which the inst")
    assert "not installed" not in text
    broken = ImportError("libx.so: cannot open shared object file", name="torchvision._C")
    text = explain_load_failure(broken, "acme.main", "pip install it")
    assert "torchvision is installed but cannot be used" in text
    assert "libx.so" in text


def test_an_error_whose_message_cannot_be_changed_is_shown_itself() -> None:
    """An error of a template gave way to an AttributeError about the property `message`."""
    from ddpo.cli.app import _printable_mistakes

    class Fixed(Exception):
        @property
        def message(self) -> str:
            return "as it is"

    with pytest.raises(Fixed), _printable_mistakes():
        raise Fixed
