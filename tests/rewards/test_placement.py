"""Rewards run on the device of the run by default, which changes no signature and no cache key."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpo.devices import AUTO, accelerator, resolve_device
from ddpo.distributed import World
from ddpo.rewards.card import RewardCard, RewardOption
from ddpo.rewards.cards import CARDS
from ddpo.rewards.signature import signature
from ddpo.rewards.zoo import resolve
from ddpo.trainer import config_for, train

PLACED = [
    name for name, card in CARDS.items() if any(option.name == "device" for option in card.options)
]

NOTING = '''
import torch
from ddpo.rewards.card import RewardCard, RewardOption
from ddpo.types import RewardOutput

class Noting:
    """Note where it was put."""
    card = RewardCard(
        id="noting", version="1", summary="brightness", load="noting:Noting", family="pixels",
        flaws="blind to content", options=(RewardOption("device", "cpu", "torch device"),),
    )
    def __init__(self, device="cpu"):
        with open(__file__ + ".devices", "a") as file:
            print(device, file=file)
    def __call__(self, batch):
        return RewardOutput(batch.pixels.mean((1, 2, 3)))
'''


@pytest.fixture
def noting(tmp_path: Path) -> Path:
    """A reward in a file that writes down each device it is made with."""
    file = tmp_path / "noting.py"
    file.write_text(NOTING)
    return file


def devices(file: Path) -> list[str]:
    """The devices that the rewards of the file were made with."""
    return Path(f"{file}.devices").read_text().split()


def test_most_model_rewards_can_be_placed() -> None:
    assert {"aesthetic", "clip_score", "pickscore", "imagereward", "alignment", "vqa_score"} <= set(
        PLACED
    )


HALF = [name for name in PLACED if CARDS[name].accelerator_dtype]
"""Rewards that take another precision on an accelerator."""


def test_a_card_says_in_which_precision_it_computes_on_an_accelerator() -> None:
    assert {"alignment", "vqa_score", "vlm_judge", "hpsv3"} <= set(HALF)
    for name in HALF:
        here = resolve(name).on("cpu")
        there = resolve(name).on("cuda:1")
        assert "|dtype:float32|" in here.signature
        assert f"|dtype:{CARDS[name].accelerator_dtype}|" in there.signature
        assert there.identity == resolve(f"{name}:device=mps").identity != here.identity
    assert (
        resolve("hpsv3:dtype=float32").on("cuda").identity
        == resolve("hpsv3:dtype=float32").on("cpu").identity
    )
    served = "alignment:vlm=http://127.0.0.1:8000/v1"
    assert resolve(served).on("cuda").identity == resolve(served).on("cpu").identity


@pytest.mark.parametrize("name", [name for name in PLACED if name not in HALF])
def test_signature_and_cache_key_do_not_depend_on_the_device(name: str) -> None:
    here = resolve(name).on("cpu")
    there = resolve(name).on("cuda:1")
    written = resolve(f"{name}:device=cuda")
    assert there.options["device"] == "cuda:1"
    assert here.signature == there.signature == written.signature == resolve(name).signature
    assert here.identity == there.identity == written.identity
    assert "cuda" not in there.signature


def test_the_fingerprint_of_a_card_is_what_it_was_before_devices_were_left_out() -> None:
    """The hash is that of the commit before, for `device=cpu`: old caches and runs stay valid."""
    options = (RewardOption("gain", 1.0, ""), RewardOption("device", "cpu", ""))
    card = RewardCard(
        id="mine", version="1", summary="s", load="a:b", family="pixels", flaws="f", options=options
    )
    for device in ("cpu", "cuda", AUTO):
        assert "card:b1a8d488937df721|" in signature(card, {"gain": 2.0, "device": device})


def test_a_written_device_wins_over_that_of_the_run() -> None:
    mixed = resolve("aesthetic:device=cpu + clip_score:0.5 + darkness").on("cuda:1")
    placed = {part.name: part.options.get("device") for part in mixed.parts}
    assert placed == {"aesthetic": "cpu", "clip_score": "cuda:1", "darkness": None}
    assert mixed.identity == resolve("aesthetic + clip_score:0.5 + darkness").identity


def test_a_reward_takes_memory_where_it_runs() -> None:
    both = resolve("aesthetic + clip_score:device=cpu + darkness").on("cuda:0")
    pixels = CARDS["darkness"].memory_mb  # computed where the images are
    assert both.memory_mb("cuda:0") == CARDS["aesthetic"].memory_mb + pixels
    assert both.memory_mb("cpu") == CARDS["clip_score"].memory_mb + pixels
    assert resolve("aesthetic").on("cpu").memory_mb("cuda") == 0


def test_a_reward_follows_the_device_of_its_run(
    noting: Path, tiny_model: Path, tmp_path: Path
) -> None:
    settings = {
        "model": str(tiny_model),
        "iterations": 1,
        "dtype": "float32",
        "sample": {"samples": 4, "per_prompt": 2, "steps": 3, "batch": 4},
        "optim": {"updates": 1, "timesteps": 2},
    }
    list(
        train(
            config_for({**settings, "reward": f"{noting}:Noting", "device": "cpu:0"}),
            tmp_path / "follows",
        )
    )
    list(
        train(
            config_for({**settings, "reward": f"{noting}:Noting:device=cpu", "device": "cpu:0"}),
            tmp_path / "given",
        )
    )
    list(train(config_for({**settings, "reward": f"{noting}:Noting"}), tmp_path / "auto"))
    assert devices(noting) == ["cpu:0", "cpu", accelerator() or "cpu"]


@pytest.mark.parametrize("rank", [0, 1])
def test_each_of_two_processes_has_its_reward_on_its_own_device(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for accelerate on a machine with two GPUs; nothing is put there."""
    from accelerate.utils import DistributedType

    class TwoGpus:
        distributed_type = DistributedType.MULTI_GPU
        device = f"cuda:{rank}"
        process_index = rank
        num_processes = 2

        def __init__(self, **settings: object) -> None:
            assert settings["cpu"] is False

    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": rank,
        "LOCAL_RANK": rank,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29511",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("ddpo.distributed.accelerator", lambda: "cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("accelerate.PartialState", TwoGpus)
    world = World.join(AUTO)
    assert resolve("aesthetic").on(world.device).options["device"] == f"cuda:{rank}"


def test_auto_is_the_accelerator_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device(AUTO) == (accelerator() or "cpu")
    for kind in ("cuda", "xpu", "mps"):
        monkeypatch.setattr("ddpo.devices.accelerator", lambda kind=kind: kind)
        assert resolve_device(AUTO) == kind
