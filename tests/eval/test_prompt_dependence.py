"""Prompt dependence: ω² by hand and beside an F test, and models with and without a change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from analytic import SETTINGS, AnalyticPolicy
from scipy import stats

from ddpo.eval.analysis.diversity import small_pixels
from ddpo.eval.analysis.prompt_dependence import (
    explained_change,
    omega_squared,
    swap_change,
    swap_partners,
)
from ddpo.eval.generate.probe import FACT_OF_CARD, PROBE_CARDS, features_of, probe_images
from ddpo.images import to_uint8
from ddpo.policies import load_policy
from ddpo.policies.kl import trajectory_kl
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_trajectory
from ddpo.types import Prompt

PROMPTS = [
    Prompt(f"a {noun}") for noun in ("cat", "dog", "horse", "bee", "yak", "otter", "ibex", "toucan")
]
TEXT = {prompt.id: prompt.text for prompt in PROMPTS}
Rows = dict[str, np.ndarray]


class Ignorant(AnalyticPolicy):
    """Once tuned, it draws the same whatever it is asked for."""

    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        return super().predict(latents, timesteps, conditioning * (0.0 if self.tuned else 1.0))


def sampled(
    policy: Policy, seed: int, seeds: int = 4
) -> tuple[Rows, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Pixels of every prompt's images, and beside those of the same noise for its partner."""
    partners = swap_partners(list(TEXT))
    own: Rows = {}
    pairs = {}
    for prompt in PROMPTS:
        keys = [SampleKey(prompt, index) for index in range(seeds)]
        rows = []
        for text in (prompt.text, TEXT[partners[prompt.id]]):
            latents = sample_trajectory(policy, keys, SETTINGS, seed, [text] * seeds).latents[:, -1]
            rows.append(small_pixels(to_uint8(policy.decode(latents))))
        own[prompt.id] = rows[0]
        pairs[prompt.id] = (rows[0], rows[1])
    return own, pairs


def test_no_prompt_is_its_own_partner() -> None:
    for count in (2, 3, 8, 45):
        ids = [str(i) for i in range(count)]
        partners = swap_partners(ids)
        assert all(id != other for id, other in partners.items())
        assert sorted(partners.values()) == sorted(ids)
    assert swap_partners(["only"]) == {}


def test_omega_squared_by_hand() -> None:
    """Groups 1, 3 and 5, 7: between 16 on 1, within 4 on 2 degrees of freedom: 14 / 22."""
    assert omega_squared([np.array([[1.0], [3.0]]), np.array([[5.0], [7.0]])]) == pytest.approx(
        14 / 22
    )


def test_omega_squared_is_that_of_the_f_statistic() -> None:
    """ω² = (k-1)(F-1) / ((k-1)(F-1) + N), also unequal groups (Keppel & Wickens 2004, ch. 8)."""
    random = np.random.default_rng(0)
    groups = [random.standard_normal((size, 1)) + i / 2 for i, size in enumerate((3, 5, 2, 7))]
    f = stats.f_oneway(*[rows[:, 0] for rows in groups]).statistic
    assert omega_squared(groups) == pytest.approx(3 * (f - 1) / (3 * (f - 1) + 17))


@pytest.mark.parametrize(("between", "share"), [(1.0, 0.5), (0.0, 0.0)])
def test_omega_squared_is_next_to_unbiased(between: float, share: float) -> None:
    random = np.random.default_rng(1)
    values = [
        omega_squared(
            list(random.standard_normal((20, 4, 6)) + between * random.standard_normal((20, 1, 6)))
        )
        for _ in range(300)
    ]
    assert np.mean(values) == pytest.approx(share, abs=4 * np.std(values) / 300**0.5 + 0.01)


def test_a_model_that_ignores_its_prompt_is_found_out() -> None:
    policy = Ignorant(0.2)
    with policy.reference():
        before, before_pairs = sampled(policy, 5)
    after, after_pairs = sampled(policy, 5)
    swap = swap_change("run", "animals", before_pairs, after_pairs)
    assert swap.base > 20  # 8-bit levels
    assert (swap.tuned, swap.ratio, swap.low, swap.high, swap.prompts) == (0.0, 0.0, 0.0, 0.0, 8)
    explained = explained_change("run", "animals", before, after)
    assert explained.base > 0.3
    assert abs(explained.tuned) < 0.02
    assert explained.low < 0.02
    assert explained.high < 0.1


def test_a_model_that_did_not_change_or_changed_all_images_alike_keeps_its_dependence() -> None:
    before, pairs = sampled(AnalyticPolicy(0.0), 5)
    same = (
        swap_change("run", "animals", pairs, pairs),
        explained_change("run", "animals", before, before),
    )
    assert [(change.ratio, change.low, change.high) for change in same] == [(1.0, 1.0, 1.0)] * 2
    darker = {id: rows * 1.0 - 30 for id, rows in before.items()}
    moved = explained_change("run", "animals", before, darker)
    assert (moved.ratio, moved.low, moved.high) == pytest.approx((1.0, 1.0, 1.0))
    again = explained_change(
        "run", "animals", before, sampled(AnalyticPolicy(0.0), 6)[0]
    )  # other noise
    assert again.low < 1 < again.high


def test_the_interval_of_explained_covers_the_true_ratio() -> None:
    """Prompts explain 0.5 before and 0.2 after (of all prompts, of which 30 are seen)."""
    random = np.random.default_rng(4)
    inside = 0
    for _ in range(150):
        centres = random.standard_normal((30, 1, 16))
        base = centres + random.standard_normal((30, 4, 16))
        tuned = 0.5 * centres + random.standard_normal((30, 4, 16))
        change = explained_change(
            "run",
            "s",
            {str(i): r for i, r in enumerate(base)},
            {str(i): r for i, r in enumerate(tuned)},
        )
        inside += change.low <= 0.2 / 0.5 <= change.high
    assert 0.88 <= inside / 150 <= 0.99


def test_too_little_to_judge_by_is_not_a_number() -> None:
    one = {"p": np.ones((3, 2))}
    assert math.isnan(explained_change("run", "s", one, one).ratio)
    flat = {"p": np.ones((3, 2)), "q": np.ones((3, 2))}
    assert math.isnan(explained_change("run", "s", flat, flat).ratio)
    empty = swap_change("run", "s", {}, {})
    assert math.isnan(empty.base)
    assert empty.prompts == 0


def test_the_facts_of_an_image_are_json_and_come_back() -> None:
    """The embedded model, adapted: features survive the text, and KL is that of the trajectory."""
    import json

    policy = load_policy("emoji")
    torch.manual_seed(0)
    policy.adapt("lora")
    for name, parameter in policy.trainable_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02)
    keys = [SampleKey(prompt, 0) for prompt in PROMPTS[:3]]
    settings = SamplerSettings(4, 3.0, 1.0, 4)
    trajectory = sample_trajectory(policy, keys, settings, 1)
    with_kl = json.loads(json.dumps(probe_images(policy, keys, trajectory, settings, kl=True)))
    without = probe_images(policy, keys, trajectory, settings, kl=False)
    assert [facts["kl"] for facts in with_kl] == trajectory_kl(
        policy, [key.prompt.text for key in keys], trajectory, settings
    ).tolist()
    assert all(facts["kl"] > 0 for facts in with_kl)
    assert [{**facts, "kl": None} for facts in with_kl] == [{**one, "kl": None} for one in without]
    assert all("kl" not in facts for facts in without)
    features = features_of(with_kl[0])
    assert features is not None
    assert features.shape == (160,)
    assert np.isfinite(features).all()
    assert features_of({"features": None}) is None
    assert {FACT_OF_CARD[card.id] for card in PROBE_CARDS} <= set(with_kl[0])
    analytic = AnalyticPolicy(0.1)
    facts = probe_images(
        analytic, keys, sample_trajectory(analytic, keys, SETTINGS, 1), SETTINGS, kl=False
    )
    assert facts[0]["features"] is None
