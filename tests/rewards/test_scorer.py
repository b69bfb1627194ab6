"""The scorer holds rewards to their contract."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpo.errors import ConfigError, MissingResourceError, RewardFailure, RewardUnavailable
from ddpo.rewards.cache import ScoreCache
from ddpo.rewards.card import Calls, RewardCard
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.types import ImageBatch, Prompt, RewardOutput

NAN = float("nan")


class Scripted:
    """A reward whose answer is given by a function of the batch."""

    card = RewardCard(
        id="scripted", version="1", summary="", load="here:Scripted", family="test", flaws=""
    )

    def __init__(self, answer: Callable[[ImageBatch], Any]) -> None:
        self.answer = answer
        self.sizes: list[int] = []

    def __call__(self, batch: ImageBatch) -> Any:
        self.sizes.append(len(batch))
        return self.answer(batch)


def batch(count: int) -> ImageBatch:
    """Image i has the value i / 100 everywhere."""
    pixels = (torch.arange(count) / 100).reshape(-1, 1, 1, 1).expand(count, 3, 2, 2).contiguous()
    return ImageBatch(pixels, tuple(Prompt(str(i)) for i in range(count)))


def first_pixel(images: ImageBatch) -> RewardOutput:
    values = images.pixels[:, 0, 0, 0]
    return RewardOutput(values, {"double": 2 * values})


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_order_and_parts_survive_any_batch_size(batch_size: int) -> None:
    reward = Scripted(first_pixel)
    output = Scorer(reward, batch_size).score(batch(7))
    assert output.values.tolist() == pytest.approx([i / 100 for i in range(7)])
    assert output.parts["double"].tolist() == pytest.approx([i / 50 for i in range(7)])
    assert sum(reward.sizes) == 7
    assert max(reward.sizes) <= batch_size


def test_prompts_stay_with_their_images() -> None:
    reward = Scripted(
        lambda images: RewardOutput(torch.tensor([float(p.text) for p in images.prompts]))
    )
    assert Scorer(reward, 2).score(batch(5)).values.tolist() == [0, 1, 2, 3, 4]


def test_reasons_stay_at_their_places() -> None:
    def odd_fails(images: ImageBatch) -> RewardOutput:
        odd = [int(p.text) % 2 == 1 for p in images.prompts]
        return RewardOutput(
            torch.tensor([NAN if o else 1.0 for o in odd]),
            errors=tuple("odd" if o else None for o in odd),
        )

    output = Scorer(Scripted(odd_fails), 2).score(batch(5))
    assert output.errors == (None, "odd", None, "odd", None)
    assert torch.isnan(output.values).tolist() == [False, True, False, True, False]


def test_empty_batch_has_no_scores() -> None:
    reward = Scripted(first_pixel)
    assert len(Scorer(reward).score(batch(0))) == 0
    assert reward.sizes == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda b: [0.0] * len(b), "returned a list, not a RewardOutput"),
        (lambda b: torch.zeros(len(b)), "returned a Tensor, not a RewardOutput"),
        (lambda b: RewardOutput(torch.zeros(len(b) + 1)), "returned 4 scores for 3 images"),
        (lambda b: RewardOutput(torch.zeros(len(b), dtype=torch.float64)), "must be float32"),
        (lambda b: RewardOutput(torch.zeros(len(b), 1)), r"must be float32 \[batch\]"),
        (lambda b: RewardOutput(torch.full((len(b),), NAN)), "a NaN needs a reason"),
        (
            lambda b: RewardOutput(torch.full((len(b),), float("inf"))),
            "the score of image 0 is inf",
        ),
        (lambda b: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda b: {}["key"], "KeyError: 'key'"),
    ],
)
def test_broken_contract_is_one_line_with_the_name(
    answer: Callable[[ImageBatch], Any], message: str
) -> None:
    with pytest.raises(RewardFailure, match=message) as caught:
        Scorer(Scripted(answer)).score(batch(3))
    assert "'scripted'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_lines_become_one() -> None:
    def fail(_: ImageBatch) -> RewardOutput:
        raise RuntimeError("first\n  second")

    with pytest.raises(RewardFailure, match="RuntimeError: first second") as caught:
        Scorer(Scripted(fail)).score(batch(1))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_user_errors_and_interrupts_pass_through() -> None:
    def missing(_: ImageBatch) -> RewardOutput:
        raise MissingResourceError("weights")

    def interrupt(_: ImageBatch) -> RewardOutput:
        raise KeyboardInterrupt

    with pytest.raises(MissingResourceError):
        Scorer(Scripted(missing)).score(batch(1))
    with pytest.raises(KeyboardInterrupt):
        Scorer(Scripted(interrupt)).score(batch(1))


def test_parts_that_change_between_batches_are_refused() -> None:
    reward = Scripted(
        lambda images: RewardOutput(
            torch.zeros(len(images)), {f"p{images.prompts[0].text}": torch.zeros(len(images))}
        )
    )
    with pytest.raises(RewardFailure, match="other parts"):
        Scorer(reward, 1).score(batch(2))


def test_scores_carry_no_gradient() -> None:
    images = batch(2)
    images.pixels.requires_grad_()
    assert not Scorer(Scripted(first_pixel)).score(images).values.requires_grad


def test_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Scorer(Scripted(first_pixel), 0)


def card(**changes: Any) -> RewardCard:
    return dataclasses.replace(Scripted.card, **changes)


def scripted(answer: Callable[[ImageBatch], Any], **changes: Any) -> Scripted:
    reward = Scripted(answer)
    reward.card = card(**changes)
    return reward


class Counting:
    """Scores the first pixel; keeps how many calls ran at once."""

    def __init__(self, **changes: Any) -> None:
        self.card = card(**changes)
        self.running = self.most = self.calls = 0
        self._lock = threading.Lock()

    def __call__(self, images: ImageBatch) -> RewardOutput:
        with self._lock:
            self.running = self.running + 1
            self.calls = self.calls + 1
            self.most = max(self.most, self.running)
        time.sleep(0.01)
        with self._lock:
            self.running -= 1
        return first_pixel(images)


def test_a_thread_safe_reward_runs_side_by_side_in_order_and_another_one_at_a_time() -> None:
    together = Counting(thread_safe=True, calls=Calls(concurrency=4))
    alone = Counting(thread_safe=False, calls=Calls(concurrency=4))
    expected = pytest.approx([i / 100 for i in range(24)])
    assert Scorer(together, 2).score(batch(24)).values.tolist() == expected
    assert Scorer(alone, 2).score(batch(24)).values.tolist() == expected
    assert 2 <= together.most <= 4
    assert alone.most == 1


def test_a_reward_that_is_not_thread_safe_is_locked_when_callers_are_not() -> None:
    reward = Counting(thread_safe=False)
    scorer = Scorer(reward, 2)
    threads = [threading.Thread(target=scorer.score, args=(batch(8),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (reward.calls, reward.most) == (16, 1)


def test_pixels_bound_the_micro_batch_and_one_image_is_always_allowed() -> None:
    reward = Scripted(first_pixel)
    Scorer(reward, 16, batch_pixels=3 * 4).score(batch(7))
    assert reward.sizes == [3, 3, 1]
    Scorer(reward, 16, batch_pixels=1).score(batch(2))
    assert reward.sizes[3:] == [1, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: out of memory"),
    ],
)
def test_out_of_memory_halves_the_batch_and_is_remembered(error: Exception) -> None:
    def at_most_three(images: ImageBatch) -> RewardOutput:
        if len(images) > 3:
            raise error
        return first_pixel(images)

    reward = Scripted(at_most_three)
    scorer = Scorer(reward, 16)
    assert scorer.score(batch(16)).values.tolist() == pytest.approx([i / 100 for i in range(16)])
    assert reward.sizes == [16, 8, 4, 2, 2, 4, 2, 2, 8, 4, 2, 2, 4, 2, 2]
    reward.sizes.clear()
    scorer.score(batch(6))
    assert reward.sizes == [2, 2, 2]


def test_out_of_memory_on_one_image_is_a_failure() -> None:
    def never(_: ImageBatch) -> RewardOutput:
        raise MemoryError

    with pytest.raises(RewardFailure, match="'scripted' failed: MemoryError"):
        Scorer(Scripted(never)).score(batch(4))


def breaks_on(*numbers: int) -> Callable[[ImageBatch], RewardOutput]:
    def answer(images: ImageBatch) -> RewardOutput:
        for prompt in images.prompts:
            if int(prompt.text) in numbers:
                raise ValueError(f"cannot stand {prompt.text}")
        return first_pixel(images)

    return answer


def test_the_image_at_fault_is_named() -> None:
    with pytest.raises(RewardFailure, match=r"ValueError: cannot stand 5 \(image 5, prompt '5'\)"):
        Scorer(Scripted(breaks_on(5, 9))).score(batch(12))


def test_score_each_sets_apart_what_breaks_and_scores_the_others() -> None:
    scored = Scorer(Scripted(breaks_on(5, 9))).score_each(batch(12))
    assert scored.failed == {5, 9}
    assert scored.errors[5] == "reward 'scripted' failed: ValueError: cannot stand 5"
    assert [
        i for i, value in enumerate(scored.values.tolist()) if value == pytest.approx(i / 100)
    ] == [
        0,
        1,
        2,
        3,
        4,
        6,
        7,
        8,
        10,
        11,
    ]
    assert scored.parts["double"][:2].tolist() == pytest.approx([0, 0.02])
    assert torch.isnan(scored.values[[5, 9]]).all()


def test_a_reward_that_always_breaks_is_given_up() -> None:
    reward = Scripted(lambda images: 1 / 0)
    with pytest.raises(RewardFailure, match="failed 8 times in a row and is taken for broken"):
        Scorer(reward, 4).score_each(batch(100))
    assert len(reward.sizes) < 30


def test_wrong_length_for_a_single_image_fails_that_image_alone() -> None:
    """The original client's bug: a chunk of one image loses its batch axis."""

    def squeeze(images: ImageBatch) -> Any:
        return first_pixel(images) if len(images) > 1 else RewardOutput(torch.zeros(2))

    scored = Scorer(Scripted(squeeze), 2).score_each(batch(5))
    assert scored.failed == {4}
    assert "returned 2 scores for 1 images" in str(scored.errors[4])
    assert not torch.isnan(scored.values[:4]).any()


def test_a_reward_that_changes_its_input_is_reported() -> None:
    def darken(images: ImageBatch) -> RewardOutput:
        images.pixels.mul_(0.5)
        return first_pixel(images)

    with pytest.raises(RewardFailure, match="changed the pixels"):
        Scorer(Scripted(darken)).score(batch(2))


def test_bytes_are_read_only() -> None:
    def whiten(images: ImageBatch) -> RewardOutput:
        images.uint8[:] = 255
        return first_pixel(images)

    with pytest.raises(RewardFailure, match="read-only"):
        Scorer(Scripted(whiten)).score(
            ImageBatch.of_uint8(np.zeros((2, 4, 4, 3), np.uint8), (Prompt(""),) * 2)
        )


def test_a_call_that_hangs_is_given_up_and_the_others_are_scored() -> None:
    release = threading.Event()

    def hang(images: ImageBatch) -> RewardOutput:
        if any(prompt.text == "2" for prompt in images.prompts):
            release.wait(30)
        return first_pixel(images)

    start = time.perf_counter()
    scored = Scorer(Scripted(hang), 4, calls=Calls(timeout_s=0.1)).score_each(batch(6))
    release.set()
    assert time.perf_counter() - start < 5
    assert scored.failed == {2}
    assert "no answer within 0.1 s" in str(scored.errors[2])


def test_retries_are_bounded_and_only_for_what_may_pass() -> None:
    attempts: list[int] = []

    def flaky(images: ImageBatch) -> RewardOutput:
        attempts.append(len(images))
        if len(attempts) < 3:
            raise ConnectionResetError("gone")
        return first_pixel(images)

    pauses: list[float] = []
    scorer = Scorer(Scripted(flaky), calls=Calls(retries=2), pause=pauses.append)
    assert scorer.score(batch(2)).values.tolist() == pytest.approx([0, 0.01])
    assert len(attempts) == 3
    assert [0 <= pause <= 0.5 * 2**i for i, pause in enumerate(pauses)] == [True, True]
    attempts.clear()
    with pytest.raises(RewardUnavailable, match="ConnectionResetError: gone"):
        Scorer(Scripted(flaky), calls=Calls(retries=1), pause=pauses.append).score(batch(2))
    assert len(attempts) == 2
    broken = Scripted(lambda images: 1 / 0)
    with pytest.raises(RewardFailure, match="ZeroDivisionError"):
        Scorer(broken, calls=Calls(retries=5), pause=pauses.append).score(batch(1))
    assert broken.sizes == [1]


def test_pauses_between_retries_differ() -> None:
    def never(_: ImageBatch) -> RewardOutput:
        raise RewardUnavailable("busy")

    pauses: list[float] = []
    with pytest.raises(RewardUnavailable):
        Scorer(Scripted(never), calls=Calls(retries=12), pause=pauses.append).score(batch(1))
    assert len(set(pauses)) == 12
    assert max(pauses) <= 30


def test_a_group_reward_sees_the_whole_batch() -> None:
    reward = scripted(first_pixel, inputs=("image", "group"), batch_invariant=False)
    Scorer(reward, 2).score(batch(9))
    assert reward.sizes == [9]


def of_groups(texts: str) -> ImageBatch:
    return ImageBatch(batch(len(texts)).pixels, tuple(Prompt(text) for text in texts))


def mean_of_group(images: ImageBatch) -> RewardOutput:
    """The mean of the first pixels of each group, and the size of the group."""
    texts = [prompt.text for prompt in images.prompts]
    pixels = images.pixels[:, 0, 0, 0]
    mine = torch.tensor([[one == other for other in texts] for one in texts]).float()
    return RewardOutput(mine @ pixels / mine.sum(1), {"n": mine.sum(1)})


GROUPED: dict[str, Any] = {"inputs": ("image", "group"), "batch_invariant": False}


@pytest.mark.parametrize("most", [1, 2, 3, 5, 6, 100])
def test_groups_are_never_cut_whatever_a_call_may_hold(most: int) -> None:
    images = of_groups("abcabcaab")
    reward = scripted(mean_of_group, **GROUPED)
    output = Scorer(reward, 1, batch_pixels=4 * most).score(images)
    assert output.values.tolist() == pytest.approx(mean_of_group(images).values.tolist())
    assert output.parts["n"].tolist() == [4, 3, 2, 4, 3, 2, 4, 4, 3]
    assert max(reward.sizes) <= max(4, most)
    assert len(reward.sizes) == {1: 3, 2: 3, 3: 3, 5: 2, 6: 2, 100: 1}[most]


def test_out_of_memory_halves_the_groups_and_is_remembered() -> None:
    def four_fit(images: ImageBatch) -> RewardOutput:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return mean_of_group(images)

    images = of_groups("aaabbbccc")
    reward = scripted(four_fit, **GROUPED)
    scorer = Scorer(reward)
    assert scorer.score(images).parts["n"].tolist() == [3] * 9
    assert reward.sizes == [9, 3, 6, 3, 3]
    scorer.score(images)
    assert reward.sizes[5:] == [3, 3, 3]


def test_a_group_on_which_the_reward_breaks_is_set_apart_as_a_whole() -> None:
    def no_b(images: ImageBatch) -> RewardOutput:
        if Prompt("b") in images.prompts:
            raise ValueError("b")
        return mean_of_group(images)

    scored = Scorer(scripted(no_b, **GROUPED)).score_each(of_groups("abcabcaab"))
    assert scored.failed == {1, 4, 8}
    assert scored.parts["n"].tolist()[:4] == pytest.approx([4, NAN, 2, 4], nan_ok=True)
    with pytest.raises(RewardFailure, match=r"ValueError: b .*prompt 'b'"):
        Scorer(scripted(no_b, **GROUPED)).score(of_groups("abcabcaab"))


def test_the_cache_serves_what_was_scored_and_the_same_image_is_scored_once(
    tmp_path: Path,
) -> None:
    images = batch(6)
    twice = ImageBatch(
        torch.cat([images.pixels, images.pixels[:3]]),
        images.prompts + tuple(Prompt("another") for _ in range(3)),
    )
    reward = Scripted(
        first_pixel
    )  # its card does not name prompts: the same pixels are the same image
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        scorer = Scorer(reward, 4, cache=cache)
        first = scorer.score(twice)
        assert sum(reward.sizes) == 6
        assert scorer.served == 3
        again = Scorer(reward, 4, cache=cache).score(twice)
    assert sum(reward.sizes) == 6
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.parts["double"], again.parts["double"])
    assert first.values[6:].tolist() == first.values[:3].tolist()


def test_the_cache_keeps_no_reasons_and_asks_again(tmp_path: Path) -> None:
    def odd_fails(images: ImageBatch) -> RewardOutput:
        odd = [int(p.text) % 2 == 1 for p in images.prompts]
        return RewardOutput(
            torch.tensor([NAN if o else 1.0 for o in odd]),
            errors=tuple("odd" if o else None for o in odd),
        )

    reward = Scripted(odd_fails)
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        for _ in range(2):
            output = Scorer(reward, 16, cache=cache).score(batch(4))
            assert output.errors == (None, "odd", None, "odd")
    assert reward.sizes == [4, 2]


class Unsteady:
    """Scores the first pixel, but not of the images that are down."""

    card = RewardCard(id="unsteady", version="1", summary="", load="a:b", family="test", flaws="")

    def __init__(self) -> None:
        self.down: set[str] = set()

    def __call__(self, images: ImageBatch) -> RewardOutput:
        if self.down & {prompt.text for prompt in images.prompts}:
            raise RewardUnavailable("503")
        return first_pixel(images)


def test_an_earlier_scored_image_distinguishes_a_bad_image_from_an_outage() -> None:
    reward = Unsteady()
    scorer = Scorer(reward, 3)
    reward.down = {"4"}
    output = scorer.score_unless_down(batch(6))
    assert (output.failed, output.unavailable) == ({4}, {4})
    assert [place for place, error in enumerate(output.errors) if error is not None] == [4]
    reward.down = {str(number) for number in range(6)}
    with pytest.raises(RewardUnavailable, match=r"503 \(6 of 6 images\)"):
        scorer.score_unless_down(batch(6))


def test_a_bad_image_in_the_first_call_is_found_without_a_witness() -> None:
    reward = Unsteady()
    reward.down = {"0"}
    output = Scorer(reward, 3).score_unless_down(batch(3))
    assert output.failed == {0}
    assert output.values[1:].tolist() == pytest.approx([0.01, 0.02])


def test_the_witness_of_an_outage_is_not_served_from_the_cache(tmp_path: Path) -> None:
    reward = Unsteady()
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        scorer = Scorer(reward, 3, cache=cache)
        assert not scorer.score_unless_down(batch(3)).failed
        reward.down = {str(number) for number in range(6)}
        with pytest.raises(RewardUnavailable, match="3 of 6 images"):
            scorer.score_unless_down(batch(6))


def test_only_the_scorer_says_which_images_failed() -> None:
    def boastful(images: ImageBatch) -> RewardOutput:
        return RewardOutput(first_pixel(images).values, failed=frozenset({0}))

    assert Scorer(Scripted(boastful)).score_each(batch(2)).failed == frozenset()


@pytest.mark.parametrize(
    "change", [{"deterministic": False}, {"batch_invariant": False}, {"cache": False}]
)
def test_what_must_not_be_cached_is_not(tmp_path: Path, change: dict[str, bool]) -> None:
    reward = scripted(first_pixel, **change)
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        for _ in range(2):
            Scorer(reward, cache=cache).score(batch(4))
    assert reward.sizes == [4, 4]
