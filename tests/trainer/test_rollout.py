"""Sampling continues while a reward is waited for, and nothing else changes."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpo.errors import RewardUnavailable
from ddpo.policies import load_policy
from ddpo.policies.policy import Policy
from ddpo.rewards.card import Calls, RewardCard
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.zoo import resolve
from ddpo.trainer import rollout
from ddpo.trainer.config import SampleConfig
from ddpo.trainer.rollout import Collection, draw_keys, leaves_idle, room_for_both
from ddpo.types import Context, ImageBatch, Prompt, RewardOutput, Rollout

CONFIG = SampleConfig(samples=12, per_prompt=4, steps=2, guidance=1.0, batch=4)
KEYS = draw_keys([Prompt(text) for text in ("a cat", "a dog", "a fox")], CONFIG, 0, 1)
LOCAL = RewardCard(id="slow", version="1", summary="s", load="m:a", family="pixels", flaws="f")
ASKS_A_SERVER = replace(LOCAL, calls=Calls(concurrency=2))


class Slow:
    """Mean brightness, after `until` or a while.

    `saw_the_next` notes if the second batch was being sampled when the first score was returned.
    """

    def __init__(self, card: RewardCard, until: threading.Event, patience: float) -> None:
        self.card = card
        self.until = until
        self.patience = patience
        self.saw_the_next: list[bool] = []
        self.asked: list[list[str]] = []

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        self.asked.append([prompt.text for prompt in batch.prompts])
        self.saw_the_next.append(self.until.wait(self.patience))
        return RewardOutput(batch.pixels.mean((1, 2, 3)).cpu())


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    return load_policy(str(tiny_model))


def collected(policy: Policy, reward: Any) -> Rollout:
    """All of an iteration's images."""
    steps = Collection(policy, KEYS, Scorer(reward), CONFIG, 0, Context()).rest()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            rollout: Rollout = end.value
            return rollout


def watched(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as the denoiser is called for a second batch."""
    second = threading.Event()
    calls = []
    predict = policy.predict

    def counted(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) > CONFIG.steps:
            second.set()
        return predict(*arguments)

    monkeypatch.setattr(policy, "predict", counted)
    return second


def test_the_next_batch_is_sampled_while_a_server_is_waited_for(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Slow(ASKS_A_SERVER, watched(policy, monkeypatch), patience=30)
    overlapped = collected(policy, remote)
    assert remote.saw_the_next[0]
    monkeypatch.undo()
    local = Slow(LOCAL, watched(policy, monkeypatch), patience=0.05)
    one_by_one = collected(policy, local)
    assert not local.saw_the_next[0]
    assert remote.asked == local.asked  # the same calls in the same order
    assert torch.equal(overlapped.rewards.values, one_by_one.rewards.values)
    assert torch.equal(overlapped.trajectory.latents, one_by_one.trajectory.latents)


def test_a_reward_on_the_same_gpu_is_overlapped_where_there_is_room(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room of a GPU is pretended; the scores and their calls are those of taking turns."""
    with monkeypatch.context() as patch:
        patch.setattr(rollout, "room_for_both", lambda device: True)
        beside = Slow(LOCAL, watched(policy, patch), patience=30)
        overlapped = collected(policy, beside)
    in_turns = Slow(LOCAL, watched(policy, monkeypatch), patience=0.05)
    one_by_one = collected(policy, in_turns)
    assert beside.saw_the_next[0]
    assert not in_turns.saw_the_next[0]
    assert beside.asked == in_turns.asked
    assert torch.equal(overlapped.rewards.values, one_by_one.rewards.values)
    assert torch.equal(overlapped.trajectory.latents, one_by_one.trajectory.latents)


@pytest.mark.parametrize(("peak", "enough"), [(18, True), (18.5, True), (19, False), (40, False)])
def test_room_is_twice_a_call_and_a_tenth(
    monkeypatch: pytest.MonkeyPatch, peak: float, enough: bool
) -> None:
    """80 GB, of which 20 are free and 15 reserved, 10 of these in use.

    So 25 are unused, 8 stay free, and 17 are for two calls.
    """
    gigabytes = {"memory_allocated": 10, "max_memory_allocated": peak, "memory_reserved": 15}
    for name, size in gigabytes.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, size=size: size * 1e9)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (20e9, 80e9))
    assert room_for_both(torch.device("cuda", 0)) == enough
    assert not room_for_both(torch.device("cpu"))
    assert not room_for_both(torch.device("mps"))


def test_what_a_reward_raises_in_the_background_is_raised(policy: Policy) -> None:
    class Gone(Slow):
        def __call__(self, batch: ImageBatch) -> RewardOutput:
            raise RewardUnavailable("nobody is there")

    with pytest.raises(RewardUnavailable, match="nobody is there"):
        collected(policy, Gone(ASKS_A_SERVER, threading.Event(), 0))


def test_when_it_pays() -> None:
    cpu = torch.device("cpu")
    gpu = torch.device("cuda", 0)
    here = make_scorer(resolve("compressibility"))
    any_device = Scorer(Slow(replace(LOCAL, device="any"), threading.Event(), 0))
    assert not leaves_idle(here, cpu)
    assert leaves_idle(here, gpu)
    assert not leaves_idle(any_device, gpu)
    assert leaves_idle(
        make_scorer(resolve("compressibility + vlm_judge:vlm=http://localhost:9/v1:0.5")), cpu
    )
