"""A run history of known truth: rises, falls, onsets, and the fitted curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats

from ddpo.errors import ConfigError
from ddpo.eval.analysis.history import run_history
from ddpo.eval.analysis.history_fit import fit_over_optimisation
from ddpo.eval.analysis.onset import find_onset
from ddpo.eval.analysis.tables import Pair
from ddpo.eval.inputs.models import ModelFacts

ITERATIONS = (10, 20, 30, 40, 50, 60)
ROLES = {
    "proxy": "trained",
    "gold": "heldout",
    "guard": "heldout",
    "dark": "artefact",
    "extra": "asked",
}
# Gains over the base model after 10, 20, … iterations, in standard deviations of its scores
# within a prompt.
TRUTH = {
    "proxy": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
    "gold": (0.6, 1.2, 1.6, 1.0, -0.5, -1.5),
    "guard": (-0.5, -1.0, -1.5, -0.9, 0.2, 0.8),  # better when lower
    "dark": (0.5, 1.0, 2.0, 3.0, 4.0, 4.5),
    "extra": (-1.0, -1.0, -1.0, -1.0, -1.0, -1.0),
}
PROMPTS = [f"p{i:02}" for i in range(20)]


def _models(run: str = "cheat") -> list[ModelFacts]:
    """The last checkpoint has the run's own name and more seeds than the earlier ones."""
    found = []
    for iteration in ITERATIONS:
        last = iteration == ITERATIONS[-1]
        name = run if last else f"{run}@{iteration}"
        found.append(
            ModelFacts(
                name,
                "",
                "lora",
                run,
                iteration,
                20 * iteration,
                "proxy",
                0,
                6 if last else 3,
                not last,
                "",
            )
        )
    return found


def _pairs(seed: int = 0) -> list[Pair]:
    random = np.random.default_rng(seed)
    base = {
        (p, i): {reward: float(random.normal(3 * k, 1)) for k, reward in enumerate(ROLES)}
        for p in PROMPTS
        for i in range(6)
    }
    pairs = []
    for step, model in enumerate(_models()):
        for (prompt, index), before in base.items():
            if index < model.seeds:
                after = {
                    reward: before[reward] + TRUTH[reward][step] + float(random.normal(0, 0.5))
                    for reward in ROLES
                }
                pairs += [
                    Pair(model.name, "animals", prompt, prompt, index, None, None, before, after)
                ]
                pairs += [
                    Pair(
                        model.name,
                        "unseen",
                        prompt,
                        prompt,
                        index,
                        None,
                        None,
                        before,
                        dict(before),
                    )
                ]  # not to be looked at
    return pairs


def _kl() -> dict[str, list[tuple[str, float]]]:
    """d = √KL = 0.5, 1.0, … 3.0 nats^½ on average; unknown for the second checkpoint."""
    found = {}
    for step, model in enumerate(_models(), 1):
        nats = (step / 2) ** 2
        found[model.name] = [
            (prompt, nats * (1 + shift)) for prompt in PROMPTS for shift in (-0.1, 0.1)
        ]
    del found["cheat@20"]
    return found


def test_history_of_a_run_that_hacks_its_reward() -> None:
    models = _models()
    found = run_history(
        models[::-1], _pairs(), split="animals", roles=ROLES, kl=_kl(), lower=("guard",)
    )
    assert [point.model for point in found.points] == ["base", *(model.name for model in models)]
    assert [point.iteration for point in found.points] == [0, *ITERATIONS]
    assert [point.queries for point in found.points] == [
        0,
        *(20 * iteration for iteration in ITERATIONS),
    ]
    for step, point in enumerate(found.points[1:]):
        for reward, truth in TRUTH.items():
            assert point.gains[reward].mean == pytest.approx(truth[step], abs=0.25)
            assert (point.gains[reward].n, point.gains[reward].clusters) == (
                60,
                20,
            )  # three seeds: those that all have
    assert all(
        (gain.mean, gain.low, gain.high) == (0, 0, 0) for gain in found.points[0].gains.values()
    )
    peaks = {peak.reward: peak for peak in found.peaks}
    assert list(peaks) == ["proxy", "gold", "guard", "extra"]  # a statistic has no best
    assert [(peak.best_iteration, peak.onset_iteration) for peak in found.peaks] == [
        (60, -1),
        (30, 40),
        (30, 40),
        (0, 10),
    ]
    assert peaks["gold"].drop.mean == pytest.approx(-3.1, abs=0.3)
    assert peaks["guard"].drop.mean == pytest.approx(-2.3, abs=0.3)  # it rose, which is worse
    assert peaks["proxy"].drop.mean == 0.0
    assert (found.run, found.trained_on, found.split, found.best_iteration) == (
        "cheat",
        "proxy",
        "animals",
        30,
    )
    assert (found.best_of_n, found.best_of_verdict, found.beats_best_of) == ((), "", "")


def test_kl_and_fit_of_a_history() -> None:
    found = run_history(_models(), _pairs(), split="animals", roles=ROLES, kl=_kl())
    assert [point.kl.mean for point in found.points] == pytest.approx(
        [0, 0.25, math.nan, 2.25, 4, 6.25, 9], nan_ok=True
    )
    assert [point.kl.clusters for point in found.points] == [0, 20, 0, 20, 20, 20, 20]
    assert [fit.reward for fit in found.fits] == ["proxy", "gold", "guard"]
    assert all(fit.points == 5 for fit in found.fits)
    proxy, gold, _ = found.fits
    assert proxy.beta == pytest.approx(0.0, abs=0.15)  # the proxy's gain is 2 d
    assert proxy.alpha == pytest.approx(2.0, abs=0.1)
    d = np.array([0.5, 1.5, 2.0, 2.5, 3.0])  # the second checkpoint's KL is unknown
    truth = np.delete(TRUTH["gold"], 1)
    expected, _ = optimize.curve_fit(
        lambda x, alpha, beta: x * (alpha - beta * np.log(x)), d, truth
    )
    assert (gold.alpha, gold.beta) == pytest.approx(tuple(expected), abs=0.15)


def test_history_with_best_of_n() -> None:
    random = np.random.default_rng(1)
    base = {
        prompt: {reward: random.normal(3 * k, 1, 8).tolist() for k, reward in enumerate(ROLES)}
        for prompt in PROMPTS
    }
    found = run_history(
        _models(),
        _pairs(),
        split="animals",
        roles=ROLES,
        kl={},
        base=base,
        ns=(1, 2, 4),
        training_prompts=200,
    )
    assert [point.queries for point in found.best_of_n] == [200, 400, 800]
    assert (
        found.beats_best_of == "yes"
    )  # 1200 queries on 200 prompts: best-of-6 gains about 1.27, the run 6
    assert "gains +5.97" in found.best_of_verdict
    last = [
        pair.gain("proxy") for pair in _pairs() if (pair.model, pair.split) == ("cheat", "animals")
    ]
    assert np.mean(last) == pytest.approx(5.97, abs=0.005)
    assert "best-of-6 of the base model +1.2" in found.best_of_verdict
    others = run_history(
        _models(),
        _pairs(),
        split="animals",
        roles={"gold": "heldout"},
        kl={},
        base=base,
        ns=(2,),
        training_prompts=200,
    )
    assert (others.best_of_n, others.beats_best_of) == ((), "")


def test_without_heldout_rewards_no_checkpoint_is_best() -> None:
    found = run_history(
        _models(), _pairs(), split="animals", roles={"proxy": "trained", "dark": "artefact"}, kl={}
    )
    assert found.best_iteration == -1
    assert not found.fits
    assert all(math.isnan(point.kl.mean) for point in found.points[1:])


def test_best_checkpoint_weighs_rewards_by_the_base_models_spread() -> None:
    # After 10 iterations "fine" has gained 1 of its standard deviations; after 60 "coarse" has
    # gained 20 points, a fifth of one.
    spread = {"fine": 1.0, "coarse": 100.0}
    gains = {10: {"fine": 1.0, "coarse": 0.0}, 60: {"fine": 0.0, "coarse": 20.0}}
    random = np.random.default_rng(2)
    bases = [
        (p, {reward: float(random.normal(0, sd)) for reward, sd in spread.items()})
        for p in PROMPTS
        for _ in range(3)
    ]
    models = [_models()[0], _models()[-1]]
    pairs = [
        Pair(
            model.name,
            "animals",
            p,
            p,
            i,
            None,
            None,
            base,
            {name: base[name] + gains[model.iteration][name] for name in base},
        )
        for model in models
        for i, (p, base) in enumerate(bases)
    ]
    assert (
        run_history(
            models, pairs, split="animals", roles=dict.fromkeys(spread, "heldout"), kl={}
        ).best_iteration
        == 10
    )


def test_images_that_cannot_be_scored_do_not_hide_a_history() -> None:
    pairs = _pairs()
    for pair in pairs:
        if pair.model == "cheat" or pair.index == 0:
            pair.tuned["gold"] = math.nan  # type: ignore[index]
    found = run_history(_models(), pairs, split="animals", roles=ROLES, kl={}, lower=("guard",))
    gold = next(peak for peak in found.peaks if peak.reward == "gold")
    assert (gold.best_iteration, gold.onset_iteration, gold.drop.n) == (30, 40, 0)
    assert [point.gains["gold"].n for point in found.points] == [60, 40, 40, 40, 40, 40, 0]
    nowhere = run_history(_models(), pairs, split="elsewhere", roles=ROLES, kl={})
    assert [(peak.best_iteration, peak.onset_iteration) for peak in nowhere.peaks] == [(-1, -1)] * 4
    assert nowhere.best_iteration == -1


def test_checkpoints_of_several_runs_are_no_history() -> None:
    with pytest.raises(ConfigError, match="one run"):
        run_history([*_models(), *_models("other")], _pairs(), split="animals", roles=ROLES, kl={})
    with pytest.raises(ConfigError):
        run_history([], [], split="animals", roles=ROLES, kl={})


@pytest.mark.parametrize(("points", "onset"), [(2, 1), (3, 2), (7, -1)])
def test_onset_allows_for_how_many_points_the_best_was_chosen_from(points: int, onset: int) -> None:
    # The last two points differ by a paired t-test's one-sided p of 0.0139: below 0.05 / 3, but
    # not below 0.05 / 21.
    best = np.arange(8.0)
    worse = best - 1 + np.array([1.1, -1.1, 0.9, -0.9, 1.0, -1.0, 0.8, -0.8])
    assert scipy_stats.ttest_rel(best, worse, alternative="greater").pvalue == pytest.approx(
        0.0139, abs=1e-4
    )
    earlier = [best - 0.01 * (points - step) for step in range(points - 2)]
    found = find_onset(np.array([*earlier, best, worse]), list("abcdefgh"))
    assert (found.best, found.onset) == (points - 2, onset)
    assert found.drop.mean == pytest.approx(-1.0)


def test_onset_is_the_first_later_point_and_not_an_earlier_one() -> None:
    base = np.arange(12.0)
    noise = np.tile([0.1, -0.1, 0.0], 4)
    scores = np.array(
        [
            base,
            base + 1 + noise,
            base + 3,
            base + 2.5 + noise,
            base + 2.9 + 20 * noise,
            base + noise,
        ]
    )
    found = find_onset(scores, [str(i // 2) for i in range(12)])
    assert (found.best, found.onset) == (2, 3)
    assert found.drop.mean == pytest.approx(-3.0)


def test_a_point_that_is_better_on_the_same_images_is_no_onset() -> None:
    # The second point is best on average because it scored the easy images that the third one
    # could not; on the others it is lower.
    base = np.zeros(12)
    second = np.array([9.0, 9.1, 9.2, 9.0, 9.1, 9.2, 1.0, 1.1, 1.2, 1.0, 1.1, 1.2])
    third = np.array([math.nan] * 6 + [2.0, 2.2, 2.3, 2.1, 2.2, 2.3])
    found = find_onset(np.array([base, second, third]), list("aabbccddeeff"))
    assert (found.best, found.onset) == (1, -1)
    assert found.drop.low > 0


def test_fit_finds_the_coefficients_that_made_the_points() -> None:
    d = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
    found = fit_over_optimisation("gold", d**2, d * (1.5 - 0.8 * np.log(d)))
    assert found is not None
    assert (found.alpha, found.beta, found.points) == pytest.approx((1.5, 0.8, 5))
    assert found.rmse == pytest.approx(0.0, abs=1e-12)
    top = optimize.minimize_scalar(
        lambda x: -x * (1.5 - 0.8 * math.log(x)),
        bounds=(0.1, 20),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found.peak_kl == pytest.approx(top.x**2, rel=1e-6)


def test_fit_is_that_of_scipy_for_noisy_points() -> None:
    d = np.linspace(0.3, 5, 9)
    gains = d * (1.0 - 0.4 * np.log(d)) + np.random.default_rng(0).normal(0, 0.2, 9)
    expected, _ = optimize.curve_fit(
        lambda x, alpha, beta: x * (alpha - beta * np.log(x)), d, gains
    )
    found = fit_over_optimisation("gold", [*(d**2), math.nan, 0.0], [*gains, 5.0, 5.0])
    assert found is not None
    assert (found.alpha, found.beta) == pytest.approx(tuple(expected), rel=1e-6)
    residuals = gains - d * (expected[0] - expected[1] * np.log(d))
    assert found.rmse == pytest.approx(math.sqrt((residuals**2).mean()), rel=1e-6)


def test_no_fit_of_too_little() -> None:
    assert fit_over_optimisation("gold", [1.0, 4.0, 9.0, math.nan], [1.0, 2.0, 3.0, 4.0]) is None
    assert (
        fit_over_optimisation("gold", [4.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]) is None
    )  # one distance has no form
    rising = fit_over_optimisation("proxy", [1.0, 4.0, 9.0, 16.0], [1.0, 4.0, 9.0, 16.0])
    assert rising is not None
    assert rising.beta < 0
    assert math.isnan(rising.peak_kl)
