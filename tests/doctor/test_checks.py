"""Each check of the self-test is green on a sound policy or reward, and red on a planted fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpo.doctor.measuring import float32_precision, seconds_per_call
from ddpo.doctor.ratio import ratio_is_one
from ddpo.doctor.resume import deterministic_algorithms, largest_difference, resume_is_equal
from ddpo.doctor.reward_checks import compare_scores, scores_agree, unsuited
from ddpo.doctor.row import Outcome
from ddpo.doctor.training import training_iterations
from ddpo.doctor.workload import Workload
from ddpo.rewards.cards import CARDS
from ddpo.rewards.zoo import resolve

WORK = Workload(samples=4, steps=3, guidance=5.0, batches=(2,))
FAULTS = Path(__file__).with_name("faulty_policies.py")
TINY = "ddpo.doctor.random_policies:tiny"
NAN = float("nan")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_ratio_of_a_sound_policy_is_one(dtype: str) -> None:
    assert ratio_is_one(f"{FAULTS}:sound", "cpu", dtype, WORK) == Outcome(
        "ok", {"largest_ratio_deviation": 0.0, "batch": 2}
    )


@pytest.mark.parametrize(
    "fault", ["differs_with_gradient", "feels_batch_mates", "drops_out", "rounds_in_training"]
)
def test_a_policy_that_trains_on_other_bits_fails(fault: str) -> None:
    found = ratio_is_one(f"{FAULTS}:{fault}", "cpu", "float32", WORK)
    assert found.status == "failed"
    deviation = found.values["largest_ratio_deviation"]
    assert isinstance(deviation, float)
    assert deviation > 0


def test_a_log_prob_of_latents_before_their_rounding_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler's log-prob is taken as if the stored latents had kept float32's digits."""
    from ddpo.policies import sampler

    exact = sampler.gaussian_log_prob

    def before_rounding(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        return exact(x.float() * (1 + noise * 2**-9), mean, std)  # bfloat16 keeps 8 bits

    monkeypatch.setattr(sampler, "gaussian_log_prob", before_rounding)
    assert ratio_is_one(TINY, "cpu", "bfloat16", WORK).status == "failed"


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    with deterministic_algorithms():
        assert torch.are_deterministic_algorithms_enabled()
        assert resume_is_equal(TINY, "cpu", WORK) == Outcome("ok", {"largest_difference": 0.0})
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_resume_that_forgets_the_moments_of_the_optimizer_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ddpo.trainer.state.restore_optimizer", lambda *_: None)
    found = resume_is_equal(TINY, "cpu", WORK)
    assert found.status == "failed"
    assert found.values["largest_difference"] != 0


@pytest.mark.parametrize(
    ("first", "second", "due"),
    [
        ({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([1.0, 2.0])}, 0.0),
        ({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([1.5, 1.0])}, 1.0),
        (
            {"a": torch.tensor(3), "b": torch.zeros(0)},
            {"a": torch.tensor(7), "b": torch.zeros(0)},
            4.0,
        ),
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}, NAN),
        ({"a": torch.ones(2)}, {"a": torch.ones(3)}, NAN),
        ({"a": torch.tensor([NAN])}, {"a": torch.tensor([NAN])}, NAN),
        ({}, {}, NAN),
    ],
)
def test_the_largest_difference_of_two_states(
    first: dict[str, Tensor], second: dict[str, Tensor], due: float
) -> None:
    assert largest_difference(first, second) == pytest.approx(due, nan_ok=True)


@pytest.mark.parametrize(
    ("expected", "found", "status", "note"),
    [
        ([1.0, 2.0], [1.0, 2.0], "ok", ""),
        ([1.0, 2.0], [1.0, 2.0 + 1.9e-4], "ok", ""),  # 1e-4 of the largest, 2
        ([1.0, 2.0], [1.0 + 2.1e-4, 2.0], "failed", "by more than the tolerance"),
        ([-100.0, 3.0], [-100.009, 3.0], "ok", ""),
        ([-100.0, 3.0], [-100.0, 3.02], "failed", "by more than the tolerance"),
        ([0.0, 0.0], [0.0, 1e-9], "failed", "by more than the tolerance"),
        ([NAN, 2.0], [NAN, 2.0], "ok", ""),
        ([NAN, 2.0], [1.0, 2.0], "failed", "other images are unscorable"),
        ([1.0, 2.0], [1.0, NAN], "failed", "other images are unscorable"),
        ([NAN, NAN], [NAN, NAN], "failed", "none of the images could be scored"),
    ],
)
def test_scores_agree_within_a_share_of_the_largest(
    expected: list[float], found: list[float], status: str, note: str
) -> None:
    outcome = compare_scores(expected, found, 1e-4)
    assert outcome.status == status
    assert note in outcome.note


REWARD = """
from ddpo.rewards.card import RewardCard
from ddpo.types import RewardOutput

class Subject:
    card = RewardCard(
        id="subject", version="1", summary="", load="a:b", family="t", flaws="", device="any",
        dtype="float32",
    )
    made = 0

    def __init__(self):
        Subject.made += 1
        self.number = Subject.made

    def __call__(self, batch):
        mean = batch.pixels.mean((1, 2, 3)).cpu()
        return RewardOutput({scores})
"""


@pytest.mark.parametrize(
    ("scores", "status"),
    [
        ("mean", "ok"),
        ("mean * (1 + 1e-6 * self.number)", "ok"),
        ("mean * self.number", "failed"),
        ("mean + 1e-3 * self.number", "failed"),
        ("mean.flip(0) if self.number % 2 else mean", "failed"),
    ],
)
def test_a_reward_that_differs_by_device_fails(scores: str, status: str, tmp_path: Path) -> None:
    """The reward is made once per device; the second one has the fault of an accelerator."""
    file = tmp_path / "reward.py"
    file.write_text(REWARD.replace("{scores}", scores) + f"\n# {scores}\n")
    assert scores_agree(resolve(f"{file}:Subject"), "cpu").status == status


def test_rewards_that_no_accelerator_runs_say_why() -> None:
    assert unsuited(CARDS["compressibility"]) == "runs on the CPU only"
    assert unsuited(CARDS["vqa_strict"]) == "needs metadata of the prompt"
    assert [unsuited(CARDS[name]) for name in ("darkness", "aesthetic", "clip_score", "vendi")] == [
        ""
    ] * 4


def test_training_reports_its_speed_and_fails_where_the_ratio_is_not_one() -> None:
    found = training_iterations(TINY, "cpu", "float32", WORK, lambda items: items / 1000)
    assert found.status == "measured"
    values = {name: float(value) for name, value in found.values.items() if value is not None}
    assert (
        values["images"],
        values["steps"],
        values["batch"],
        values["largest_ratio_deviation"],
    ) == (4, 3, 2, 0)
    assert values["images_per_s"] * values["iteration_s"] == pytest.approx(4)
    assert values["share_of_bf16_peak"] * values["iteration_s"] == pytest.approx(2 * 4 * 3 / 1000)
    assert values["sampled_images_per_s"] > values["images_per_s"]


@pytest.mark.parametrize("tf32", [True, False])
def test_the_precision_of_the_caller_comes_back(tf32: bool) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with float32_precision(tf32):
        assert torch.backends.cudnn.allow_tf32 is tf32
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_the_time_of_a_call_leaves_out_the_warm_up() -> None:
    import time

    pauses = iter([0.3, 0.3, 0.02, 0.02, 0.02])
    seconds = seconds_per_call(
        lambda: time.sleep(next(pauses)), torch.device("cpu"), repeats=3, warm_up=2
    )
    assert 0.02 <= seconds < 0.2
    assert next(pauses, None) is None
