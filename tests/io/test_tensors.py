"""Tensors with a checksum: a flipped bit is named, equal tensors are equal whatever their order."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddpo.errors import CheckpointError
from ddpo.io.tensors import load_tensors, save_tensors, tensor_file_digest, tensors_digest

TENSORS = {
    "weight": torch.arange(12.0).reshape(3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "step": torch.tensor(7.0, dtype=torch.float64),
    "none": torch.zeros(0, 3),
}


def write(path: Path, names: list[str]) -> Path:
    """A safetensors file, by the format's definition, with its header in the order of `names`."""
    header = {}
    data = b""
    kinds = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float64: "F64"}
    for name in names:
        tensor = TENSORS[name]
        content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": kinds[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def loaded_or_line(
    path: Path,
) -> tuple[tuple[dict[str, torch.Tensor], dict[str, str]] | None, str]:
    """What a file holds, or the line that refuses it."""
    try:
        return load_tensors(path), ""
    except CheckpointError as error:
        return None, str(error)


def test_equal_tensors_have_equal_digests_in_any_order(tmp_path: Path) -> None:
    orders = [list(TENSORS), list(TENSORS)[::-1]]
    one, other = (write(tmp_path / f"{n}.safetensors", order) for n, order in enumerate(orders))
    assert one.read_bytes() != other.read_bytes()
    assert tensor_file_digest(one) == tensor_file_digest(other)
    assert tensor_file_digest(one) == tensors_digest(reversed(list(TENSORS.items())))
    assert load_tensors(one)[0].keys() == load_tensors(other)[0].keys()


@pytest.mark.parametrize(
    "change",
    [
        {"weight": torch.arange(12.0).reshape(4, 3)},
        {"weight": torch.arange(12.0).reshape(3, 4).int()},
        {"weight": torch.arange(12.0).reshape(3, 4).nextafter(torch.tensor(99.0))},
        {"none": torch.zeros(3, 0)},
    ],
)
def test_other_tensors_have_other_digests(change: dict[str, torch.Tensor]) -> None:
    assert tensors_digest((TENSORS | change).items()) != tensors_digest(TENSORS.items())


def test_the_digest_is_what_the_documentation_says() -> None:
    head = b"a torch.float32 (1,)\n" + hashlib.sha256(struct.pack("<f", 2.5)).digest()
    expected = hashlib.sha256(hashlib.sha256(head).digest() + b"1 2 k vw\n").hexdigest()
    assert tensors_digest([("a", torch.tensor([2.5]))], {"k": "vw"}) == expected


def test_every_flipped_bit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_tensors(path, TENSORS, {"iteration": "3", "statistics": '{"a": [0.25]}'})
    content = path.read_bytes()
    unharmed = load_tensors(path)
    assert unharmed[1] == {"iteration": "3", "statistics": '{"a": [0.25]}'}
    places = random.Random(0).sample(range(8 * len(content)), 400)
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        found, line = loaded_or_line(path)
        if found is None:
            assert str(path) in line
            assert "\n" not in line
        else:  # the bit was in the padding of the header, or in the name of the checksum's key
            assert found[1].get("iteration") == "3"
            assert found[0].keys() == TENSORS.keys()
            assert all(torch.equal(found[0][name], TENSORS[name]) for name in TENSORS)


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "old.safetensors", metadata={"iteration": "3"})
    tensors, metadata = load_tensors(tmp_path / "old.safetensors")
    assert torch.equal(tensors["weight"], TENSORS["weight"])
    assert metadata == {"iteration": "3"}


def test_other_programs_read_what_is_written(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", TENSORS)
    loaded = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
