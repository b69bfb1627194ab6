"""Conditioning of several tensors: batches, indices and their memory, as of one tensor."""

from __future__ import annotations

import pytest
import torch

from ddpo.policies.conditioning import Conditioning, concatenated, expanded, size_in_bytes


def texts(first: float, batch: int) -> Conditioning:
    hidden = torch.arange(batch * 6.0).view(batch, 2, 3) + first
    return Conditioning({"hidden": hidden, "pooled": torch.full((batch, 4), float(first))})


def test_batches_follow_each_other_and_indices_pick_items() -> None:
    both = concatenated([texts(0, 2), texts(100, 1)])
    assert len(both) == 3
    assert both.parts["pooled"][:, 0].tolist() == [0, 0, 100]
    picked = both[torch.tensor([2, 0, 2])]
    assert picked.parts["hidden"][:, 0, 0].tolist() == [100, 0, 100]
    assert len(both[1:]) == 2


def test_one_text_serves_a_whole_batch_without_a_copy() -> None:
    one = texts(7, 1)
    whole = expanded(one, 5)
    assert len(whole) == 5
    assert whole.parts["hidden"].data_ptr() == one.parts["hidden"].data_ptr()
    assert torch.equal(whole.parts["hidden"][4], one.parts["hidden"][0])


def test_a_tensor_is_conditioning_too() -> None:
    one = torch.arange(6.0).view(1, 2, 3)
    assert torch.equal(concatenated([one, one + 1])[1], one[0] + 1)
    assert expanded(one, 3).shape == (3, 2, 3)
    assert size_in_bytes(one) == 24
    assert size_in_bytes(texts(0, 2)) == 2 * (6 + 4) * 4


def test_parts_must_fit_each_other() -> None:
    with pytest.raises(ValueError, match="one batch size"):
        Conditioning({"hidden": torch.zeros(2, 3), "pooled": torch.zeros(1, 3)})
    with pytest.raises(ValueError, match="one batch size"):
        Conditioning({})
    with pytest.raises(ValueError, match="different parts"):
        concatenated([texts(0, 1), Conditioning({"hidden": torch.zeros(1, 2, 3)})])


def test_a_part_may_be_a_tuple_of_tensors_of_different_lengths() -> None:
    rows = Conditioning({"hidden": (torch.zeros(3, 2), torch.ones(1, 2)), "at": torch.arange(2)})
    both = concatenated([rows, expanded(rows[1:], 2)])
    assert [len(row) for row in both.parts["hidden"]] == [3, 1, 1, 1]
    picked = both[torch.tensor([3, 0])]
    assert [len(row) for row in picked.parts["hidden"]] == [1, 3]
    assert picked.parts["at"].tolist() == [1, 0]
    assert size_in_bytes(rows) == (3 + 1) * 2 * 4 + 2 * 8
    with pytest.raises(ValueError, match="one batch size"):
        Conditioning({"hidden": (torch.zeros(3, 2),), "at": torch.arange(2)})
