"""The tables against scipy and against the statistics of one line at a time."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ddpo.eval.analysis.tables import (
    Pair,
    gain_table,
    matched_pairs,
    runs_table,
    transfer_table,
    z_unit,
)
from ddpo.eval.generate.samples import Row
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.inputs.splits import Split
from ddpo.stats.paired import paired_gain, transfer_ratio
from ddpo.types import Prompt

SPLITS = (
    Split("animals", "seen", tuple(Prompt(f"a seen {i}") for i in range(6))),
    Split("unseen", "unseen_animals", tuple(Prompt(f"an unseen {i}") for i in range(5))),
)
REWARDS = ("bright", "sharp")


def _model(
    name: str,
    training_seed: int = 0,
    *,
    trained_on: str = "bright",
    iteration: int = 40,
    history: bool = False,
) -> ModelFacts:
    return ModelFacts(
        name,
        f"runs/{name}",
        "lora",
        name,
        iteration,
        96 * iteration,
        trained_on,
        training_seed,
        3,
        history,
        "",
    )


def _rows(shifts: dict[str, float], seeds: int = 3) -> list[Row]:
    """Rows of the base model and of models that add a shift to "bright", and noise to both rewards.

    On unseen prompts the shift is half as large.
    """
    noise = np.random.default_rng(0)
    rows = []
    for model, shift in {"base": 0.0, **shifts}.items():
        for split in SPLITS:
            for prompt in split.prompts:
                for index in range(seeds):
                    gain = {"bright": shift * (1.0 if split.role == "seen" else 0.5), "sharp": 0.0}
                    for reward in REWARDS:
                        score = float(noise.normal()) + gain[reward]
                        rows.append(
                            Row(
                                model,
                                split.name,
                                prompt.id,
                                prompt.text,
                                index,
                                "sha",
                                f"{model}.png",
                                reward,
                                "sig",
                                score,
                            )
                        )
    return rows


def _column(
    pairs: list[Pair], model: str, split: str, reward: str
) -> tuple[list[float], list[float], list[str]]:
    mine = [pair for pair in pairs if (pair.model, pair.split) == (model, split)]
    return (
        [pair.base[reward] for pair in mine],
        [pair.tuned[reward] for pair in mine],
        [pair.prompt_id for pair in mine],
    )


def test_pairs_hold_scores_of_one_prompt_and_noise_whatever_the_order_of_rows() -> None:
    rows = _rows({"one": 1.0, "two": 2.0})
    scores = {(row.model, row.prompt_id, row.index, row.reward): row.score for row in rows}
    random.Random(3).shuffle(rows)
    pairs = matched_pairs(rows)
    assert len(pairs) == 2 * 11 * 3
    for pair in pairs:
        for reward in REWARDS:
            assert pair.base[reward] == scores["base", pair.prompt_id, pair.index, reward]
            assert pair.tuned[reward] == scores[pair.model, pair.prompt_id, pair.index, reward]
        assert (pair.base_image, pair.tuned_image) == ("base.png", f"{pair.model}.png")
    firsts = list(
        dict.fromkeys(
            (row.model, row.split, row.prompt_id, row.index) for row in rows if row.model != "base"
        )
    )
    assert [(pair.model, pair.split, pair.prompt_id, pair.index) for pair in pairs] == firsts


def test_images_without_a_partner_are_left_out() -> None:
    rows = [row for row in _rows({"one": 1.0}) if not (row.model == "one" and row.index == 2)]
    rows = [row for row in rows if not (row.model == "base" and row.prompt == "a seen 0")]
    assert {pair.index for pair in matched_pairs(rows)} == {0, 1}
    assert "a seen 0" not in {pair.prompt for pair in matched_pairs(rows)}


def test_gains_are_those_of_each_line_and_holm_counts_the_lines_shown() -> None:
    pairs = matched_pairs(_rows({"early": 0.5, "one": 1.0, "two": 0.2}))
    gains = gain_table(
        pairs, [_model("early", history=True), _model("one"), _model("two")], SPLITS, REWARDS
    )
    assert [(gain.model, gain.reward, gain.split) for gain in gains] == [
        (model, reward, split)
        for model in ("one", "two")
        for reward in REWARDS
        for split in ("animals", "unseen")
    ]
    for gain in gains:
        base, tuned, ids = _column(pairs, gain.model, gain.split, gain.reward)
        alone = paired_gain(base, tuned, ids)
        assert (gain.paired.gain, gain.paired.wins, gain.paired.d_z) == (
            alone.gain,
            alone.wins,
            alone.d_z,
        )
        expected = scipy_stats.ttest_1samp(
            np.subtract(tuned, base).reshape(-1, 3).mean(1), 0.0
        )  # balanced: a t-test of prompt means
        assert gain.p == pytest.approx(expected.pvalue)
        spread = math.sqrt(np.reshape(base, (-1, 3)).var(axis=1, ddof=1).mean())
        assert (gain.z.mean, gain.z.low) == pytest.approx(
            (alone.gain.mean / spread, alone.gain.low / spread)
        )
    smallest = min(gains, key=lambda gain: gain.p)
    assert smallest.p_holm == pytest.approx(
        8 * smallest.p
    )  # eight lines, the earlier checkpoint's not among them
    assert max(gain.p_holm for gain in gains) <= 1.0


def test_scores_that_are_not_there_are_counted_and_a_constant_reward_has_no_z_gain() -> None:
    flat = [
        Row(**{name: getattr(row, name) for name in Row.__slots__} | {"score": 3.0})
        for row in _rows({"one": 1.0})
    ]
    flat[-1] = Row(
        **{name: getattr(flat[-1], name) for name in Row.__slots__}
        | {"score": math.nan, "error": "refused"}
    )
    gains = gain_table(matched_pairs(flat), [_model("one")], SPLITS, [*REWARDS, "unknown"])
    assert [gain.paired.gain.excluded for gain in gains] == [0, 0, 0, 1, 18, 15]
    assert all(math.isnan(gain.z.mean) for gain in gains)
    assert math.isnan(gains[-1].p_holm)


def test_transfer_is_that_of_all_seen_prompts_together() -> None:
    pairs = matched_pairs(_rows({"early": 2.0, "one": 4.0}))
    splits = (*SPLITS, Split("again", "seen", ()))
    found = transfer_table(pairs, [_model("early", history=True), _model("one")], splits, REWARDS)
    assert [(line.model, line.split, line.reward) for line in found] == [
        ("one", "unseen", reward) for reward in REWARDS
    ]
    sides = [_column(pairs, "one", split, "bright") for split in ("animals", "unseen")]
    differences = [np.subtract(tuned, base) for base, tuned, _ in sides]
    alone = transfer_ratio(differences[0], sides[0][2], differences[1], sides[1][2])
    assert (found[0].share.ratio, found[0].share.low) == pytest.approx((alone.ratio, alone.low))
    assert found[0].share.low < 0.5 < found[0].share.high
    assert found[0].gap.mean == pytest.approx(differences[0].mean() - differences[1].mean())
    assert "covers 0" in found[1].share.reason
    assert not transfer_table(pairs, [_model("one")], SPLITS[1:], REWARDS)
    assert not transfer_table(pairs, [_model("one")], SPLITS[:1], REWARDS)


def test_runs_that_differ_in_their_seed_alone_are_judged_together() -> None:
    pairs = matched_pairs(_rows({"a": 1.0, "b": 1.5, "c": 0.8}))
    found = runs_table(pairs, [_model("a", 0), _model("b", 1), _model("c", 2)], SPLITS, REWARDS)
    assert [(line.split, line.reward) for line in found] == [
        (split.name, reward) for split in SPLITS for reward in REWARDS
    ]
    means = [
        np.subtract(tuned, base).mean()
        for base, tuned, _ in (_column(pairs, name, "unseen", "bright") for name in "abc")
    ]
    expected = scipy_stats.ttest_1samp(means, 0.0).confidence_interval(0.95)
    line = found[2]
    assert line.models == ("a", "b", "c")
    assert (line.gain.mean, line.gain.low, line.gain.high) == pytest.approx(
        (np.mean(means), expected.low, expected.high)
    )


@pytest.mark.parametrize(
    "other",
    [
        _model("b", 0),  # the same seed: something else must differ
        _model("b", 1, trained_on="sharp"),
        _model("b", 1, iteration=80),
        _model("b", 1, history=True),
        _model("b", -1),  # unknown
    ],
)
def test_runs_that_differ_in_more_are_not(other: ModelFacts) -> None:
    pairs = matched_pairs(_rows({"a": 1.0, "b": 1.5}))
    assert runs_table(pairs, [_model("a", 0), other], SPLITS, REWARDS) == ()


def test_a_spread_of_rounding_errors_is_no_unit() -> None:
    """Plain base images have equal scores but for rounding; a change would be 1e15 of these."""
    prompts = ["a", "a", "b", "b"]
    base = np.array([0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2])
    assert base[0] != base[1]
    assert math.isnan(z_unit(base, np.full(4, 0.25), prompts))
    assert math.isnan(z_unit(np.full(4, 0.3), np.full(4, 0.25), prompts))
    spread = z_unit(base + np.array([0, 0.002, 0, 0.002]), np.full(4, 0.25), prompts)
    assert spread == pytest.approx(0.002 / math.sqrt(2))
    assert z_unit(np.array([1.0, 3.0, math.nan, 5.0]), np.zeros(4), prompts) == pytest.approx(
        math.sqrt(2)
    )
