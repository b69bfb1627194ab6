"""All writers of ddpo go through one place, whose remains after a kill the next owner removes."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ddpo
from ddpo.errors import ConfigError
from ddpo.io.atomic import (
    atomic_folder,
    atomic_path,
    check_not_of_a_run,
    check_writable,
    remove_remains,
    temporary_path,
    write_text,
)
from ddpo.io.process import here
from ddpo.policies.checkpoints.folder import checkpoint_folders
from ddpo.rewards.image_files.run import ScoreRow
from ddpo.rewards.image_files.table import write_table

ROOT = Path(ddpo.__file__).parent
PLACE = ("io/atomic.py", "io/sync.py", "io/lock.py", "io/journal.py")
"""The one place: what is written here is synced, renamed and owned."""

METHODS = {
    *("write_text", "write_bytes", "save", "save_pretrained", "save_file", "write_table"),
    *("rename", "unlink", "rmtree", "copyfile", "copytree", "symlink_to", "touch"),
    *("mkdir", "makedirs", "truncate", "to_csv", "to_parquet", "savefig", "move"),
}
WRITING = re.compile(r"[rbt]*[wax+][bt+]*")  # modes of `open`
INTO_MEMORY = "encodes into memory"
INTO_ATOMIC = "writes into the temporary file or folder of atomic_path or atomic_folder"
SHORT_LIVED = "writes into a temporary folder that is removed at the end"
REMOVES = "removes or moves what nothing needs any more"
EXCEPTIONS = {
    "doctor/random_clip.py": SHORT_LIVED,
    "doctor/random_policies.py": SHORT_LIVED,
    "doctor/random_weights.py": SHORT_LIVED,
    "eval/generate/image_store.py": "renames images, and syncs all of them before the report",
    "eval/generate/samples.py": INTO_ATOMIC,
    "eval/report/inline_images.py": INTO_MEMORY,
    "images.py": INTO_ATOMIC,
    "inputs/archives.py": SHORT_LIVED,
    "inputs/input_image.py": SHORT_LIVED,
    "io/synced_lines.py": "appends lines and syncs each",
    "io/tables.py": INTO_ATOMIC,
    "io/tensors.py": INTO_ATOMIC,
    "labelling/app.py": INTO_MEMORY,
    "labelling/session.py": "asks `Answers` for its table, which is replaced as a whole",
    "model_check/promises/lora.py": SHORT_LIVED,
    "model_check/promises/resume.py": SHORT_LIVED,
    "policies/checkpoints/policy_file.py": INTO_ATOMIC,
    "policies/sample_folder.py": "removes the mark of an unfinished sampling",
    "policies/latent_policy.py": INTO_ATOMIC,
    "reward_quality/edits.py": INTO_MEMORY,
    "reward_quality/preferences.py": SHORT_LIVED,
    "rewards/cache/database.py": "SQLite syncs its own file; a damaged one is moved aside",
    "rewards/cache/store.py": "makes the folder of the cache, and removes damaged caches",
    "rewards/check/inputs.py": INTO_MEMORY,
    "rewards/image_files/journal.py": REMOVES,
    "rewards/models/bertscore.py": SHORT_LIVED,
    "rewards/models/jpeg.py": INTO_MEMORY,
    "rewards/scaffold/__init__.py": INTO_ATOMIC,
    "rewards/serve/wire.py": INTO_MEMORY,
    "rewards/tools/bench.py": "writes to /proc, to reset a peak of memory",
    "rewards/tools/doctor_probe.py": "writes answers to standard output",
    "rewards/vlm/protocol.py": INTO_MEMORY,
    "thumbnails.py": INTO_MEMORY,
    "trainer/run/checkpoints.py": REMOVES,
    "trainer/run/export.py": INTO_ATOMIC,
    "trainer/run/ending_note.py": REMOVES,
    "trainer/run/folder.py": "removes remains of a kill",
    "trainer/run/unfinished.py": REMOVES,
    "weights.py": "removes what a killed download left",
}
"""Every other module that writes, with the reason why it may."""


def writes(call: ast.Call) -> bool:
    """True for a call that makes, changes, moves or removes a file or folder."""
    function = call.func
    if not isinstance(function, (ast.Attribute, ast.Name)):
        return False
    name = function.attr if isinstance(function, ast.Attribute) else function.id
    if name in ("open", "fdopen"):
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        modes = [one.value for one in values if isinstance(one, ast.Constant)]
        return any(isinstance(mode, str) and WRITING.fullmatch(mode) for mode in modes)
    if name == "replace":
        return isinstance(function, ast.Attribute) and ast.unparse(function.value) == "os"
    if isinstance(function, ast.Name):
        return name == "save_file"
    return name in METHODS


def writers() -> set[str]:
    found = set()
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        if any(isinstance(node, ast.Call) and writes(node) for node in ast.walk(tree)):
            found.add(path.relative_to(ROOT).as_posix())
    return found


def test_every_module_that_writes_is_the_one_place_or_has_a_reason() -> None:
    found = writers()
    assert found - set(PLACE) - EXCEPTIONS.keys() == set()
    assert EXCEPTIONS.keys() - found == set(), "an exception that is no longer needed"


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_remains_of_dead_processes_of_this_host_are_removed(tmp_path: Path) -> None:
    dead = dead_process()
    gone = [f".t.csv.{dead}.tmp", f".t.csv.{dead}-{here()}.tmp"]
    kept = [
        f".t.csv.{os.getpid()}-{here()}.tmp",
        f".t.csv.{os.getppid()}.tmp",
        f".t.csv.{dead}-00000000.tmp",  # of another host
        f".other.csv.{dead}-{here()}.tmp",
        ".t.csv.notes.tmp",
        "t.csv",
    ]
    for name in gone + kept:
        (tmp_path / name).write_text("")
    (tmp_path / f".t.{dead}-{here()}.tmp" / "unet").mkdir(parents=True)
    remove_remains(tmp_path, "t.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*kept, f".t.{dead}-{here()}.tmp"]
    )
    remove_remains(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        set(kept) - {f".other.csv.{dead}-{here()}.tmp"}
    )
    remove_remains(tmp_path / "absent")


def test_a_folder_is_replaced_in_one_step_or_can_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    for content in ("one", "two", "three"):
        if content == "three":
            monkeypatch.setattr(sys, "platform", "other")  # without renameat2
        with atomic_folder(folder) as temporary:
            (temporary / "weights").write_text(content)
        assert (folder / "weights").read_text() == content
        assert list(tmp_path.iterdir()) == [folder]
    folder.rename(tmp_path / ".checkpoint.older.tmp")  # a kill between two renames
    remove_remains(tmp_path)
    assert (folder / "weights").read_text() == "three"
    folder.rename(tmp_path / ".checkpoint.older.tmp")
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder):
        raise KeyboardInterrupt
    assert (folder / "weights").read_text() == "three"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_link_in_place_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    temporary_path(tmp_path / "table").symlink_to(tmp_path / "mine")
    write_text(tmp_path / "table", "theirs")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "table").read_text() == "theirs"


@pytest.mark.parametrize("umask", [0o002, 0o027, 0o077])
def test_files_and_folders_honour_the_umask(tmp_path: Path, umask: int) -> None:
    from ddpo.rewards.cache import CachedScore, ScoreCache

    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.chmod(0o600)  # as safetensors and mkstemp do
        with atomic_folder(tmp_path / "folder") as place:
            (place / "inner").write_text("")
            (place / "inner").chmod(0o600)
        with ScoreCache(tmp_path / "cache" / "scores.sqlite") as cache:
            cache.put("r", "r", [(b"k" * 32, CachedScore(1.0, {}))])
            modes = [path.stat().st_mode for path in (tmp_path / "cache").iterdir()]
    finally:
        os.umask(before)
    files = [tmp_path / "file", tmp_path / "folder" / "inner"]
    modes += [path.stat().st_mode for path in files]
    assert {mode & 0o777 for mode in modes} == {0o666 & ~umask}
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize(
    ("known", "name"),
    [
        *((("config.json", "manifest.json"), name) for name in ("config.json", "metrics.jsonl")),
        (("config.json", "manifest.json"), "checkpoints/iteration-000001/policy.json"),
        (("report.json", "samples.parquet"), "samples.parquet"),
    ],
)
def test_files_of_a_run_or_an_evaluation_are_not_replaced_by_another_command(
    tmp_path: Path, known: tuple[str, str], name: str
) -> None:
    check_writable(tmp_path / name)
    for file in known:
        (tmp_path / file).write_text("{}")
    with pytest.raises(ConfigError, match=r"belongs to the (run|evaluation) in"):
        check_writable(tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="belongs to the"):
        check_not_of_a_run(tmp_path / "link" / name)
    check_writable(tmp_path / "my.csv")


def test_a_table_with_too_few_rows_is_an_error_and_the_old_one_stays(tmp_path: Path) -> None:
    rows = [ScoreRow(str(n), None, "darkness", "scored", 0.5, None) for n in range(3)]
    table = tmp_path / "table.csv"
    write_table(lambda: rows, table, {"darkness": "line"}, expected=3)
    before = table.read_bytes()
    with pytest.raises(OSError, match=r"was not written: there are 2 rows for 3 scores"):
        write_table(lambda: rows[:2], table, {"darkness": "line"}, expected=3)
    assert table.read_bytes() == before
    assert list(tmp_path.iterdir()) == [table]


def test_checkpoints_are_ordered_by_iteration_and_copies_are_none(tmp_path: Path) -> None:
    for name in ("999999", "1000000", "000002", "000002 (copy)", "000003.bak"):
        (tmp_path / f"iteration-{name}").mkdir()
    os.utime(tmp_path / "iteration-1000000", (0, 0))
    names = [folder.name for folder in checkpoint_folders(tmp_path)]
    assert names == ["iteration-000002", "iteration-999999", "iteration-1000000"]
