"""`ddpo sample` that is killed, cut off by a full disk, or given a folder in use."""

from __future__ import annotations

import json
import resource
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.warm_start import Process, start_ddpo

IMAGES = 70  # three batches


def command(model: Path, out: Path, *more: object, seed: int = 0) -> list[str]:
    words = [
        "sample",
        "a cat",
        "a dog",
        "--model",
        model,
        "--per-prompt",
        IMAGES // 2,
        "--steps",
        2,
    ]
    words += ["--seed", seed, "--out", out, *more]
    return list(map(str, words))


def sampled(words: list[str], **limits: Mapping[int, int]) -> tuple[int | None, str]:
    process = start_ddpo(*words, **limits)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def until_rows(process: Process, table: Path, rows: int) -> None:
    end = time.monotonic() + 120
    while not table.exists() or table.read_bytes().count(b"\n") < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "samples"
    code, errors = sampled(command(tiny_model, out))
    assert code == 0, errors
    return contents(out)


@pytest.mark.parametrize("rows", [1, 33])
def test_a_killed_sampling_is_consistent_and_resumes_to_the_same_bytes(
    tiny_model: Path, tmp_path: Path, undisturbed: dict[str, bytes], rows: int
) -> None:
    out = tmp_path / "samples"
    process = start_ddpo(*command(tiny_model, out))
    until_rows(process, out / "metadata.jsonl", rows)
    process.send_signal(signal.SIGSTOP)
    second, refused = sampled(command(tiny_model, out))
    assert second == 2
    assert f"in use by ddpo sample, process {process.pid} on" in refused
    process.send_signal(signal.SIGKILL)
    process.communicate()
    written = [
        json.loads(line)
        for line in (out / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for row in written:
        assert (out / row["file_name"]).read_bytes() == undisturbed[row["file_name"]]
    other, errors = sampled(command(tiny_model, out, seed=1))
    assert other == 2
    assert "unfinished sampling with other prompts, settings or weights" in errors
    code, errors = sampled(command(tiny_model, out))
    assert code == 0, errors
    assert contents(out) == undisturbed
    again, errors = sampled(command(tiny_model, out))
    assert again == 2
    assert "is not an empty folder" in errors


def test_a_disk_that_is_full_keeps_the_images_before(
    tiny_model: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "samples"
    limit = 8000  # bytes of the largest file: the table of some rows, and each image
    assert max(len(data) for name, data in undisturbed.items() if "-" in name) < limit
    code, errors = sampled(command(tiny_model, out), limits={resource.RLIMIT_FSIZE: limit})
    assert code == 2
    assert errors.count("\n") == 1
    assert "metadata.jsonl cannot be written: File too large" in errors
    assert "repeat the command to resume" in errors
    assert (out / "metadata.jsonl").read_bytes().endswith(b"\n")
    code, errors = sampled(command(tiny_model, out))
    assert code == 0, errors
    assert contents(out) == undisturbed


def test_a_command_that_wrote_no_image_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "samples"
    code, _ = sampled(command(tmp_path / "no_model", out))
    assert code == 2
    assert not out.exists()
