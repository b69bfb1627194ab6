"""Sharing the work: every block belongs to one process; a wrong launch gets one line."""

from __future__ import annotations

import pytest

from ddpo.errors import ConfigError
from ddpo.eval.sharing import ALONE, World, join


class State:
    def __init__(self, rank: int, count: int) -> None:
        self.process_index = rank
        self.num_processes = count


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [0, 1, 8, 9, 100])
def test_the_shares_are_the_blocks_of_the_whole(count: int, length: int) -> None:
    items = list(range(length))
    shares = [World(State(rank, count), "cpu").share(items, 8) for rank in range(count)]
    assert sorted(
        (block for share in shares for block in share), key=lambda block: block[0]
    ) == ALONE.share(items, 8)
    assert [one for block in ALONE.share(items, 8) for one in block] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_several_processes_do_not_share_a_named_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert join("cpu").device == "cpu"
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="names one device for several processes: say cuda"):
        join("cuda:1")
