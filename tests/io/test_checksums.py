"""A flipped bit in a file of our own is named or computed anew, and equal contents stay equal."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ddpo.errors import ConfigError
from ddpo.inputs.input_image import InputImage, same_state
from ddpo.io.journal import Journal
from ddpo.io.tables import write_records
from ddpo.io.tensors import tensor_files_digest
from ddpo.rewards.scoring.standardise import ScoreDistribution, load_reference, save_reference


def test_a_journal_line_with_a_flipped_bit_is_no_record(tmp_path: Path) -> None:
    records = [{"score": value, "name": "é"} for value in (0.1, 1e-7, float("nan"))]
    with Journal(tmp_path, "scores", None) as journal:
        journal.append(records)
        assert [record["score"] for record in journal.records()][:2] == [0.1, 1e-7]
    path = tmp_path / "scores"
    line = path.read_bytes().splitlines()[0]
    text, _, crc = line.partition(b', "crc32": "')
    assert crc == b'%08x"}' % zlib.crc32(text + b"}")
    path.write_bytes(path.read_bytes().replace(b"1e-07", b"1e-06"))
    kept = list(Journal(tmp_path, "scores", None).records())
    assert len(kept) == 2
    assert kept[0] == records[0]
    assert len(list(Journal(tmp_path, "scores", None).own_records())) == 1


def test_journals_of_older_versions_have_no_checksums(tmp_path: Path) -> None:
    (tmp_path / "scores").write_text('{"score": 1.5}\n')
    assert list(Journal(tmp_path, "scores", None).records()) == [{"score": 1.5}]


def test_a_changed_distribution_is_named(tmp_path: Path) -> None:
    path = tmp_path / "z.json"
    percentiles = {"5": 0.0, "50": 1.0, "95": 2.0}
    save_reference(
        ScoreDistribution(
            *("darkness", "1", {}, "scale", "line", 9, 0, 1.0, 0.5, percentiles, "0", "", "1")
        ),
        path,
    )
    values = json.loads(path.read_text())
    assert load_reference(path).mean == 1.0
    path.write_text(json.dumps(values | {"mean": 3.0}))
    with pytest.raises(ConfigError, match=r"z\.json is damaged: its content has changed"):
        load_reference(path)
    del values["sha256"]  # of an older version
    path.write_text(json.dumps(values | {"mean": 3.0}))
    assert load_reference(path).mean == 3.0


def test_a_flipped_bit_in_a_parquet_table_is_found(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "table.parquet"
    write_records([{"score": 0.5 + n} for n in range(50)], ["score"], path)
    content = bytearray(path.read_bytes())
    content[60] ^= 1  # in the first page
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"(?i)crc"):
        pq.read_table(path, page_checksum_verification=True)


def test_equal_tensors_in_other_files_have_equal_digests(tmp_path: Path) -> None:
    tensors = {name: torch.randn(3, 2) for name in "abc"}
    save_file(tensors, tmp_path / "one", metadata={"format": "pt"})
    save_file({"a": tensors["a"]}, tmp_path / "two", metadata={"format": "np", "x": "y"})
    save_file({name: tensors[name] for name in "cb"}, tmp_path / "three")
    whole = tensor_files_digest([tmp_path / "one"], {})
    assert tensor_files_digest([tmp_path / "three", tmp_path / "two"], {}) == whole
    assert tensor_files_digest([tmp_path / "one"], {"alpha": "2"}) != whole
    assert tensor_files_digest([tmp_path / "two"], {}) != whole


def test_an_image_of_equal_size_and_time_is_another(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"one")
    before = InputImage(str(path)).state()
    assert before is not None
    os.utime(path, ns=(before[1], before[1]))
    before = InputImage(str(path)).state()
    assert before is not None
    path.write_bytes(b"two")
    os.utime(path, ns=(before[1], before[1]))
    after = InputImage(str(path)).state()
    assert after is not None
    assert after[:2] == before[:2]
    assert not same_state(before, after)
    assert same_state(before[:2], after), "recorded by an older version"
    assert not same_state([4, *before[1:2]], after)
