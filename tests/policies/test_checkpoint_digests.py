"""A checkpoint whose files have changed since it was written is named, not used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpo.errors import CheckpointError
from ddpo.eval.inputs.checkpoints import find_eval_checkpoints, find_named, weights_hash
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import LORA_FILE, POLICY_FILE, find_checkpoint
from ddpo.policies.policy import LoraSettings
from ddpo.trainer.run.export import export


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    policy = load_policy("emoji")
    policy.adapt("lora", LoraSettings(rank=2, alpha=2))
    policy.save(folder, 3)
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def edit(folder: Path, **changes: object) -> None:
    record = json.loads((folder / POLICY_FILE).read_text())
    record |= changes
    (folder / POLICY_FILE).write_text(json.dumps(record))


def test_a_checkpoint_records_a_digest_of_each_file(checkpoint: Path) -> None:
    record = json.loads((checkpoint / POLICY_FILE).read_text())
    assert record["sha256"].keys() == {LORA_FILE}
    load_policy("emoji", checkpoint)


def test_a_flipped_bit_is_named_and_neither_loaded_nor_exported(
    checkpoint: Path, tmp_path: Path
) -> None:
    flip(checkpoint / LORA_FILE)
    with pytest.raises(CheckpointError, match=f"{LORA_FILE} is damaged"):
        load_policy("emoji", checkpoint)
    with pytest.raises(CheckpointError, match=f"{LORA_FILE} is damaged"):
        export(checkpoint, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_an_old_checkpoint_without_sums_loads_and_keeps_its_identity(checkpoint: Path) -> None:
    edit(checkpoint, sha256={})
    load_policy("emoji", checkpoint)
    (old,) = find_eval_checkpoints(
        find_named([str(checkpoint)]), seeds=1, history=0, history_seeds=1
    )
    assert old.facts.identity == weights_hash(checkpoint / LORA_FILE)


def test_the_identity_of_equal_weights_does_not_depend_on_their_order(checkpoint: Path) -> None:
    (one,) = find_eval_checkpoints(
        find_named([str(checkpoint)]), seeds=1, history=0, history_seeds=1
    )
    path = checkpoint / LORA_FILE
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(dict(reversed(header.items()))).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    assert path.read_bytes() != content
    (other,) = find_eval_checkpoints(
        find_named([str(checkpoint)]), seeds=1, history=0, history_seeds=1
    )
    assert one.facts.identity == other.facts.identity


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_a_record_that_names_files_outside_is_damaged(checkpoint: Path, name: str) -> None:
    edit(checkpoint, sha256={name: "0" * 64})
    with pytest.raises(CheckpointError, match="outside its folder"):
        find_checkpoint(checkpoint)
