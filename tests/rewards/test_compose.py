"""Combinations of rewards: grammar, arithmetic, cards, signatures and reference distributions."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.errors import ConfigError, MissingResourceError, RewardFailure
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.cache import ScoreCache
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scoring.compose import (
    ComposedReward,
    clamped,
    pareto_fronts,
    pareto_rank,
    standardised,
)
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.scoring.standardise import (
    ScoreDistribution,
    load_reference,
    save_reference,
)
from ddpo.rewards.spec import Combination, RewardSpec, join_specs, parse_expression
from ddpo.rewards.tools.calibrate import calibrate, reference_of
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt

LUMA = (0.299, 0.587, 0.114)

REWARDS = '''
"""Rewards for the tests."""
import torch
from ddpo.rewards.card import RewardCard, RewardOption
from ddpo.types import RewardOutput

def card(name, **facts):
    texts = {"summary": "test", "load": "tests:none", "family": "test", "flaws": "none"}
    return RewardCard(id=name, version="1", pixels="float", **texts, **facts)

class Mean:
    """The mean level, times `gain`; counts its calls."""
    options = (RewardOption("gain", 1.0, ""), RewardOption("device", "cpu", ""))
    card = card("mean", options=options, unit="level")
    def __init__(self, gain=1.0, device="cpu"):
        self.gain, self.calls = gain, 0
    def __call__(self, batch):
        self.calls += len(batch)
        values = batch.pixels.mean((1, 2, 3)) * self.gain
        red, blue = (batch.pixels[:, channel].mean((1, 2)) for channel in (0, 2))
        return RewardOutput(values, {"red": red, "blue": blue})

class DarkOnly:
    """Minus the mean level of images below one half; brighter ones have no score."""
    card = card("dark_only", unit="level")
    def __call__(self, batch):
        values = batch.pixels.mean((1, 2, 3))
        bright = (values > 0.5).tolist()
        errors = tuple("too bright" if b else None for b in bright)
        return RewardOutput(torch.where(values > 0.5, float("nan"), -values), errors=errors)

class Reserved:
    card = card("reserved", options=(RewardOption("clamp", "", ""),))
    def __call__(self, batch):
        return RewardOutput(torch.zeros(len(batch)))

def breaks(images):
    """Raises."""
    raise ValueError("no model")
'''

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(REWARDS)
    return str(path)


def batch(*levels: float, prompts: tuple[str, ...] | None = None) -> ImageBatch:
    pixels = (
        torch.tensor(levels, dtype=torch.float32)
        .reshape(-1, 1, 1, 1)
        .expand(len(levels), 3, 4, 4)
        .contiguous()
    )
    return ImageBatch(pixels, tuple(Prompt(text) for text in prompts or ("a",) * len(levels)))


def reference_for(spec: str, folder: Path, scores: list[float]) -> Path:
    """A stored distribution of `scores` for a reward."""
    path = folder / f"reference-{abs(hash((spec, *scores)))}.json"
    save_reference(reference_of(resolve(spec), scores, "0" * 64), path)
    return path


def calls_of(reward: Any) -> int:
    """How many images the part `mean` of a combination has scored."""
    return int(reward.scorers["mean"].reward.calls)


# grammar


def term(
    name: str, weight: float | None = None, options: dict[str, str] | None = None, **steps: Any
) -> RewardSpec:
    return RewardSpec("name", name, "", options or {}, weight, **steps)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("darkness", ("sum", (term("darkness"),))),
        ("darkness:1.0", ("sum", (term("darkness", 1.0),))),
        ("darkness:-2", ("sum", (term("darkness", -2.0),))),
        ("a:1e-3 + acme/b:.5", ("sum", (term("a", 1e-3), term("acme/b", 0.5)))),
        ("a:2:device=cuda:1", ("sum", (term("a", 2.0, {"device": "cuda:1"}),))),
        ("a:device=cuda:1", ("sum", (term("a", None, {"device": "cuda:1"}),))),
        ("a:device=cuda:1:0.5", ("sum", (term("a", 0.5, {"device": "cuda:1"}),))),
        ("a:device=cuda:1.0", ("sum", (term("a", 1.0, {"device": "cuda"}),))),
        ("a:device=cuda:-1", ("sum", (term("a", -1.0, {"device": "cuda"}),))),
        ("a:z=ref.json:2", ("sum", (term("a", 2.0, reference="ref.json"),))),
        (
            "a:z=r.json,clamp=-3..3",
            ("sum", (term("a", reference="r.json", bounds=(-3.0, 3.0)),)),
        ),
        (
            "a:clamp=..5,head=x",
            ("sum", (term("a", None, {"head": "x"}, bounds=(None, 5.0)),)),
        ),
        ("a:clamp=0.5..:2", ("sum", (term("a", 2.0, bounds=(0.5, None)),))),
        (
            "./d r/f.py:Obj:0.5",
            ("sum", (RewardSpec("file", "./d r/f.py", "Obj", weight=0.5),)),
        ),
        ("p.m:T.make:3", ("sum", (RewardSpec("object", "p.m", "T.make", weight=3.0),))),
        ("min(a:1,b:2)", ("min", (term("a", 1.0), term("b", 2.0)))),
        (
            "pareto(a:h=x,device=cuda, b)",
            ("pareto", (term("a", None, {"h": "x", "device": "cuda"}), term("b"))),
        ),
    ],
)
def test_expressions(text: str, expected: tuple[Combination, tuple[RewardSpec, ...]]) -> None:
    assert parse_expression(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a +", "not of the form"),
        ("a + + b", "not of the form"),
        ("a:0.5:h=x:0.5", "has two weights, 0.5 and 0.5"),
        ("a:1e999", "too large"),
        ("a:clamp=3..1", "lower bound not below"),
        ("a:clamp=1..1", "lower bound not below"),
        ("a:clamp=..", "at least one finite bound"),
        ("a:clamp=0..inf", "at least one finite bound"),
        ("a:clamp=5", "not of the form clamp=LOW..HIGH"),
        ("a:z=", "z needs a file"),
        ("a:h=1,h=2", "'h' is given twice"),
        ("min(a)", "needs at least two rewards"),
        ("min(a + b, c)", "not expressions"),
        ("min(a, pareto(b, c))", "not expressions"),
        ("min(a, b) + c", "must be the whole expression"),
        ("c + min(a, b)", "must be the whole expression"),
        ("pareto(a:0, b)", "weight of 0 makes no sense"),
    ],
)
def test_malformed_expressions(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_expression(text)
    assert "\n" not in str(caught.value)


def test_several_rewards_are_joined() -> None:
    assert join_specs(["a:1.0", "b:-0.2"]) == "a:1.0 + b:-0.2"
    assert join_specs(["a", "b"], "pareto") == "pareto(a, b)"
    assert join_specs(["a"]) == "a"
    with pytest.raises(ConfigError, match="min needs at least two rewards, got 1"):
        join_specs(["a"], "min")
    with pytest.raises(ConfigError, match="unknown combination 'paretto'; did you mean 'pareto'"):
        join_specs(["a", "b"], "paretto")


# arithmetic


def test_steps_by_hand() -> None:
    scores = torch.tensor([1.0, 4.0, math.nan], dtype=torch.float64)
    assert standardised(scores, 2.0, 0.5).tolist()[:2] == [-2.0, 4.0]
    assert clamped(scores, (2.0, None)).tolist()[:2] == [2.0, 4.0]
    assert clamped(scores, (None, 3.0)).tolist()[:2] == [1.0, 3.0]
    assert clamped(scores, (0.0, 1.0)).isnan().tolist() == [False, False, True]


def fronts_by_definition(points: list[list[float]]) -> list[int]:
    """Peels off, one after the other, the points that no remaining point dominates."""
    found = [-1] * len(points)
    left = set(range(len(points)))
    index = 0
    while left:
        front = set()
        for i in left:
            dominated = False
            for j in left:
                pairs = list(zip(points[j], points[i], strict=True))
                dominated |= all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
            if not dominated:
                front.add(i)
        for i in front:
            found[i] = index
        left = left - front
        index = index + 1
    return found


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_pareto_fronts_are_those_of_the_definition(objectives: int) -> None:
    generator = np.random.default_rng(objectives)
    for levels in (3, 1000):  # few levels: many ties and equal points
        points = generator.integers(0, levels, (40, objectives)).astype(float)
        assert pareto_fronts(torch.tensor(points)).tolist() == fronts_by_definition(points.tolist())
    assert pareto_fronts(torch.zeros(0, objectives)).tolist() == []


def test_pareto_ranks_are_within_a_prompt_and_leave_unscorable_images_out() -> None:
    points = torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 3.0], [0.0, 0.0], [9.0, math.nan]])
    prompts = [Prompt(text) for text in ("a", "a", "a", "b", "a")]
    ranks = pareto_rank(points, prompts).tolist()
    assert ranks[:4] == [-1.0, 0.0, 0.0, 0.0]
    assert math.isnan(ranks[4])


def test_a_weighted_sum_by_hand(mine: str) -> None:
    reward = make_reward(f"{mine}:Mean:2 + darkness:-0.5")
    output = reward(batch(0.25, 0.75))
    assert output.values.tolist() == pytest.approx(
        [2 * 0.25 + 0.5 * 0.25, 2 * 0.75 + 0.5 * 0.75], rel=1e-6
    )
    assert {name: part.tolist() for name, part in output.parts.items()} == {
        "mean": [0.25, 0.75],
        "mean.red": [0.25, 0.75],
        "mean.blue": [0.25, 0.75],
        "darkness": pytest.approx([-0.25, -0.75], rel=1e-6),
    }


def test_steps_come_in_order_z_clamp_weight(mine: str, tmp_path: Path) -> None:
    path = reference_for(f"{mine}:Mean", tmp_path, [0.25, 0.5, 0.75])  # mean 0.5, sd 0.25
    reward = make_reward(f"{mine}:Mean:10:clamp=-1.5..1,z={path}")
    assert reward(batch(0.0, 0.25, 1.0)).values.tolist() == [-15.0, -10.0, 10.0]  # z: -2, -1, 2


def test_min_takes_the_least_standardised_part(mine: str, tmp_path: Path) -> None:
    first = reference_for(f"{mine}:Mean", tmp_path, [0.25, 0.5, 0.75])
    second = reference_for("darkness", tmp_path, [-1.0, -0.5, 0.0])  # sd 0.5
    reward = make_reward(f"min({mine}:Mean:z={first}, darkness:z={second})")
    assert reward(batch(0.0, 0.5, 1.0)).values.tolist() == pytest.approx(
        [-2.0, 0.0, -1.0]
    )  # (-2, 1), (0, 0), (2, -1)


def test_pareto_of_opposed_rewards_has_one_front_and_of_equal_ones_a_ladder(mine: str) -> None:
    levels = batch(0.2, 0.4, 0.6)
    assert make_reward(f"pareto({mine}:Mean, darkness)")(levels).values.tolist() == [0.0, 0.0, 0.0]
    assert make_reward(f"pareto({mine}:Mean, darkness:-1)")(levels).values.tolist() == [
        -2.0,
        -1.0,
        0.0,
    ]


def test_a_part_without_score_makes_the_image_unscorable_in_every_combination(mine: str) -> None:
    for spec in (
        f"{mine}:Mean + {mine}:DarkOnly",
        f"min({mine}:Mean, {mine}:DarkOnly)",
        f"pareto({mine}:Mean, {mine}:DarkOnly)",
    ):
        output = Scorer(make_reward(spec)).score(batch(0.25, 0.75))
        assert output.errors == (None, "dark_only: too bright")
        assert math.isnan(output.values[1])
        assert output.parts["mean"].tolist() == [0.25, 0.75]
    assert output.values[0] == 0


def test_a_part_that_breaks_is_a_failure_with_its_name(mine: str) -> None:
    with pytest.raises(RewardFailure, match=r"'breaks' failed: mine.py:39: ValueError: no model"):
        Scorer(make_reward(f"darkness + {mine}:breaks")).score(batch(0.1))


def test_scores_do_not_depend_on_batch_mates_and_an_empty_batch_is_empty(mine: str) -> None:
    reward = make_reward(f"{mine}:Mean:0.3 + darkness:0.7")
    together = reward(batch(0.1, 0.5, 0.9)).values
    assert [reward(batch(level)).values.item() for level in (0.1, 0.5, 0.9)] == together.tolist()
    assert make_reward(f"pareto({mine}:Mean, darkness)")(batch()).values.tolist() == []


def test_gradients_reach_the_pixels_of_differentiable_parts(tmp_path: Path) -> None:
    path = reference_for("darkness", tmp_path, [-1.0, -0.5, 0.0])  # sd 0.5
    reward = make_reward(f"darkness:3:z={path} + symmetry")
    assert reward.card.differentiable
    pixels = torch.full(
        (1, 3, 4, 4), 0.5, requires_grad=True
    )  # symmetry is at its maximum: no gradient from there
    reward(ImageBatch(pixels, (Prompt(""),))).values.sum().backward()
    expected = -3 / 0.5 * torch.tensor(LUMA).reshape(1, 3, 1, 1).expand(1, 3, 4, 4) / 16
    torch.testing.assert_close(pixels.grad, expected)


def test_a_clamped_score_gives_no_gradient() -> None:
    pixels = torch.full((1, 3, 2, 2), 0.5, requires_grad=True)
    make_reward("darkness:clamp=-0.1..")(ImageBatch(pixels, (Prompt(""),))).values.sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().max() == 0


# what a combination is


def test_a_lone_reward_of_weight_one_is_itself() -> None:
    assert resolve("darkness:1.0") == resolve("darkness")
    assert resolve("darkness:1.0").signature == resolve("darkness").signature
    assert resolve("darkness:-1").card.id == "-darkness"


def test_the_card_is_made_of_the_parts(mine: str) -> None:
    found = resolve(f"aesthetic:1.0 + alignment:0.2 + {mine}:Mean")
    card = found.card
    aesthetic = resolve("aesthetic").card
    alignment = resolve("alignment").card
    assert card.id == "aesthetic+0.2alignment+mean"
    assert card.inputs == ("image", "prompt")
    assert set(card.weights) == {*aesthetic.weights, *alignment.weights}
    assert set(card.lineage) == {*aesthetic.lineage, *alignment.lineage}
    assert (card.family, card.unit, card.cache, card.differentiable) == (
        "composed",
        "combined, no unit",
        False,
        False,
    )
    assert (card.deterministic, card.batch_invariant, card.pixels) == (True, True, "float")
    assert card.dtype.startswith(f"{aesthetic.dtype} and {alignment.dtype}")
    assert found.origin.startswith("ddpo + mine.py sha256:")
    assert RewardCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    pareto = resolve("pareto(darkness, symmetry)").card
    assert (pareto.inputs, pareto.batch_invariant, pareto.differentiable) == (
        ("image", "group"),
        False,
        False,
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("darkness:2 + symmetry:-0.5", (-2.0, 0.5)),  # both are -1 … 0
        ("min(darkness:2, symmetry:-0.5)", (-2.0, 0.0)),
        ("darkness:z={z}", (-1.0, 1.0)),  # mean -0.5, sd 0.5
        ("darkness:z={z},clamp=-0.5..:-3", (-3.0, 1.5)),
        ("compressibility:0.5 + darkness", (None, 0.0)),  # compressibility has no least value
        ("compressibility:-1 + darkness", (-1.0, None)),
        ("compressibility:0 + darkness:clamp=-0.25..", (-0.25, 0.0)),
        ("pareto(darkness, symmetry)", (None, 0.0)),
    ],
)
def test_the_range_follows_from_the_parts(
    spec: str, expected: tuple[float | None, float | None], tmp_path: Path
) -> None:
    assert (
        resolve(spec.format(z=reference_for("darkness", tmp_path, [-1.0, -0.5, 0.0]))).card.range
        == expected
    )


def test_the_order_of_the_parts_does_not_matter(mine: str) -> None:
    terms = [f"{mine}:Mean:0.1", "darkness:0.7", "symmetry:-0.3"]
    for form in ("sum", "min", "pareto"):
        one = resolve(join_specs(terms, form))
        other = resolve(join_specs(terms[::-1], form))
        assert one.card == other.card
        assert one.signature == other.signature
        assert (
            one.make()(batch(0.1, 0.6, 0.7)).values.tolist()
            == other.make()(batch(0.1, 0.6, 0.7)).values.tolist()
        )


def test_whatever_moves_a_score_changes_identity_and_card(mine: str, tmp_path: Path) -> None:
    first = reference_for("darkness", tmp_path, [-1.0, 0.0])
    second = reference_for("darkness", tmp_path, [-1.0, -0.5])
    specs = [
        "darkness + symmetry",
        "darkness:2 + symmetry",
        "darkness + symmetry:2",
        "darkness:-1 + symmetry",
        "darkness:clamp=-1.. + symmetry",
        "darkness:clamp=-2.. + symmetry",
        f"darkness:z={first} + symmetry",
        f"darkness:z={second} + symmetry",
        "min(darkness:1, symmetry:1)",
        "pareto(darkness, symmetry)",
        f"darkness + {mine}:Mean",
        f"darkness + {mine}:Mean:gain=2",
    ]
    found = [resolve(spec) for spec in specs]
    assert len({one.identity for one in found}) == len(specs)
    assert len({json.dumps(one.card.to_dict()) for one in found}) == len(specs)
    line = resolve(f"darkness:0.25 + {mine}:Mean:gain=2").signature
    assert "0.25*darkness" in line
    options = {"gain": 2.0, "device": "cpu"}
    fingerprint = resolve(f"{mine}:Mean:gain=2").card.fingerprint(options)
    assert f"part:mean,version:1,card:{fingerprint},options:gain=2.0" in line
    Path(mine).write_text(REWARDS + "\n# another file\n")
    assert resolve(f"darkness + {mine}:Mean").card != found[-2].card


def test_one_reward_with_two_steps_is_scored_once_and_with_two_options_twice(mine: str) -> None:
    reward = make_reward(f"{mine}:Mean + {mine}:Mean:clamp=0.5..:2")
    assert isinstance(reward, ComposedReward)
    assert list(reward.scorers) == ["mean"]
    output = reward(batch(0.25))
    assert output.values.tolist() == [0.25 + 2 * 0.5]
    assert calls_of(reward) == 1
    other = make_reward(f"{mine}:Mean + {mine}:Mean:gain=3")(batch(0.25))
    assert {other.parts["mean"].item(), other.parts["mean-2"].item()} == {0.25, 0.75}
    assert other.values.tolist() == [1.0]


def test_parts_are_served_from_a_cache(mine: str, tmp_path: Path) -> None:
    with ScoreCache(tmp_path / "scores.sqlite", user_code=True) as cache:
        found = resolve(f"{mine}:Mean + darkness:0.5")
        first = make_scorer(found, cache=cache)
        images = batch(0.1, 0.5, 0.9)
        values = first.score(images).values.tolist()
        assert calls_of(first.reward) == 3
        again = make_scorer(resolve(f"{mine}:Mean:7 + symmetry"), cache=cache)
        again.score(images)
        assert calls_of(again.reward) == 0  # its native scores are the same under another weight
        assert make_scorer(found, cache=cache).score(images).values.tolist() == values


def test_min_refuses_scales_that_cannot_be_compared(mine: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"min needs scores on one scale.*compressibility in kB of 1000 bytes.*z=FILE",
    ):
        resolve("min(darkness, compressibility)")
    path = reference_for("darkness", tmp_path, [-1.0, 0.0])
    with pytest.raises(ConfigError, match="darkness in sd"):
        resolve(f"min(darkness:z={path}, compressibility)")
    for fine in (
        "min(darkness:1, compressibility:0.1)",
        f"min(darkness:z={path}, compressibility:0.1)",
        f"min({mine}:Mean, {mine}:DarkOnly)",
    ):
        assert resolve(fine).combination == "min"


def test_unknown_options_and_steps_name_the_nearest(mine: str) -> None:
    with pytest.raises(
        ConfigError, match="reward 'darkness' has no option 'clip'; did you mean 'clamp'"
    ):
        resolve("symmetry + darkness:clip=0..1")
    with pytest.raises(
        ConfigError, match="reward 'mean' has no option 'gian'; did you mean 'gain'"
    ):
        resolve(f"darkness + {mine}:Mean:gian=2")
    with pytest.raises(ConfigError, match="'reserved': its option 'clamp' has the name of a step"):
        resolve(f"{mine}:Reserved")
    with pytest.raises(ConfigError, match="write gain behind the reward that it is for"):
        resolve(f"darkness + {mine}:Mean", gain=3)
    assert resolve(f"{mine}:Mean:0.5", gain=3).make()(batch(1.0)).values.tolist() == [1.5]


def test_showing_a_combination_loads_nothing_heavy(tmp_path: Path) -> None:
    path = reference_for("darkness", tmp_path, [-1.0, 0.0])
    code = (
        "import sys\nfrom ddpo.rewards.zoo import resolve\n"
        f"print(resolve('aesthetic:0.1 + darkness:z={path}').signature)\n"
        "heavy = ('torch', 'numpy', 'PIL', 'pandas', 'scipy')\n"
        "print('HEAVY', [m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


# reference distributions


def test_a_distribution_by_hand(tmp_path: Path) -> None:
    reference = reference_of(resolve("darkness"), [1.0, 2.0, None, 3.0, 6.0], "f" * 64)
    assert (reference.count, reference.unscorable, reference.mean) == (4, 1, 3.0)
    assert reference.sd == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3))
    assert reference.percentiles["50"] == 2.5
    assert reference.percentiles["25"] == 1.75  # linear between the order statistics
    assert list(reference.percentiles) == ["1", "5", "25", "50", "75", "95", "99"]
    save_reference(reference, tmp_path / "a" / "r.json")
    assert load_reference(tmp_path / "a" / "r.json") == reference


def test_what_cannot_be_standardised_by_is_refused(mine: str) -> None:
    with pytest.raises(
        ConfigError,
        match=r"scored 1 of 3 images \(the first without a score: gone\): .* at least 2 scores",
    ):
        reference_of(resolve("darkness"), [1.0, None, None], "", "gone")
    with pytest.raises(ConfigError, match=r"all 3 images the same score, 0\.1"):
        reference_of(resolve("darkness"), [0.1, 0.1, 0.1], "")
    with pytest.raises(ConfigError, match="calibrate one reward at a time"):
        calibrate(resolve("darkness:2"), [])


def test_a_distribution_fits_only_the_reward_that_it_was_made_with(
    mine: str, tmp_path: Path
) -> None:
    path = reference_for(f"{mine}:Mean:gain=2", tmp_path, [1.0, 2.0])
    assert resolve(f"{mine}:Mean:gain=2,z={path}").parts
    assert resolve(
        f"{mine}:Mean:gain=2,device=cuda,z={path}"
    ).parts  # where it is computed does not matter
    with pytest.raises(ConfigError, match="was made with reward mean, not darkness"):
        resolve(f"darkness:z={path}")
    with pytest.raises(
        ConfigError, match=r"was made with options \{'gain': 2.0\}, not \{'gain': 1.0\}"
    ):
        resolve(f"{mine}:Mean:z={path}")
    Path(mine).write_text(REWARDS.replace("* self.gain", "+ self.gain"))
    with pytest.raises(ConfigError, match="other weights, preprocessing or code"):
        resolve(f"{mine}:Mean:gain=2,z={path}")
    values = json.loads(path.read_text())
    found = resolve("darkness")
    old = dataclasses.replace(reference_of(found, [1.0, 2.0], ""), version="0", scale="0")
    with pytest.raises(ConfigError, match="was made with version 0, not 1"):
        old.check(found.card, found.options, found.origin, "r.json")
    assert ScoreDistribution(**values).reward == "mean"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "not an object"),
        ('{"mean": 1, "sd": 2}', "not a reference distribution"),
        ('{"schema": 99}', "of a newer ddpo"),
    ],
)
def test_damaged_reference_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        resolve(f"darkness:z={tmp_path / 'r.json'}")


@pytest.mark.parametrize(
    "change", [{"sd": 0.0}, {"sd": -1}, {"mean": "x"}, {"sd": None}, {"options": 3}]
)
def test_reference_files_with_impossible_figures(tmp_path: Path, change: dict[str, Any]) -> None:
    path = reference_for("darkness", tmp_path, [-1.0, 0.0])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match="is damaged"):
        load_reference(path)


def test_a_missing_reference_file_says_how_to_make_it() -> None:
    with pytest.raises(
        MissingResourceError,
        match=r"z=nowhere\.json: no such file; make it with `ddpo rewards calibrate",
    ):
        resolve("darkness:z=nowhere.json")


def test_calibrating_names_the_set_by_its_content(tmp_path: Path, mine: str) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    for index, level in enumerate((0, 51, 255)):
        Image.new("L", (8, 8 + index), level).save(tmp_path / "one" / f"{index}.png")
        Image.new("L", (8, 8 + index), level).save(
            tmp_path / "two" / f"{9 - index}.png"
        )  # other names, other order

    def of(folder: str, prompt: Prompt | None = None) -> ScoreDistribution:
        return calibrate(
            resolve("darkness"),
            [InputImage(str(path), prompt) for path in sorted((tmp_path / folder).iterdir())],
        )

    first = of("one")
    assert (first.count, first.unscorable) == (3, 0)
    assert first.mean == pytest.approx(-(0 + 0.2 + 1) / 3)
    assert of("two").images == first.images
    assert of("one", Prompt("a")).images != first.images
    (tmp_path / "one" / "3.png").write_bytes(b"")
    damaged = of("one")
    assert (damaged.count, damaged.unscorable, damaged.mean) == (3, 1, first.mean)
    with pytest.raises(RewardFailure, match=r"no model.*no reference distribution was made"):
        calibrate(resolve(f"{mine}:breaks"), [InputImage(str(tmp_path / "one" / "0.png"))])


# the command line and the trainer


def test_calibrate_then_score_gives_mean_0_and_sd_1(
    ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for index, level in enumerate((0, 40, 90, 255)):
        Image.new("L", (16, 16), level).save(tmp_path / "images" / f"{index}.png")
    code, out, err = ddpo(
        "rewards", "calibrate", "darkness", "images", "--out", "dark.json", "--no-cache"
    )
    assert (code, err.strip()) == (0, "")
    assert "wrote dark.json; use it as --reward darkness:z=dark.json" in out
    scores = -np.array([0, 40, 90, 255]) / 255
    stored = json.loads((tmp_path / "dark.json").read_text())
    assert (stored["mean"], stored["sd"]) == (
        pytest.approx(scores.mean()),
        pytest.approx(scores.std(ddof=1)),
    )
    code, out, err = ddpo(
        "rewards",
        "score",
        "darkness:z=dark.json",
        "images",
        "--out",
        "scores.jsonl",
        "--no-cache",
    )
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    found = np.array([row["score"] for row in rows])
    assert found == pytest.approx((scores - scores.mean()) / scores.std(ddof=1), rel=1e-5)
    assert [row["part_darkness"] for row in rows] == pytest.approx(scores.tolist())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["darkness", "one.png", "--out", "r.json"], "scored 1 of 1 images"),
        (["darkness", "one.png", "one.png", "--out", "r.json"], "same score"),
        (["darkness:2", "one.png", "--out", "r.json"], "one reward at a time"),
        (["darkness", "absent.png", "--out", "r.json"], "absent.png"),
        (["darkness", "one.png", "--out", "."], "json"),
        (["alignment", "one.png", "--out", "missing/../r.csv"], "json"),
    ],
)
def test_calibrate_says_what_is_wrong_on_one_line(
    ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8), 40).save("one.png")
    code, _, err = ddpo("rewards", "calibrate", *arguments, "--no-cache")
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "r.json").exists()


SMALL = [
    "--set",
    "sample.samples=8",
    "--set",
    "sample.per_prompt=4",
    "--set",
    "sample.steps=2",
    "--set",
    "sample.batch=4",
    "--set",
    "optim.timesteps=1",
    "--set",
    "optim.updates=1",
    "--set",
    "checkpoint_every=1",
    "--iterations",
    "1",
]


def test_training_on_two_rewards_logs_both_and_notices_a_changed_reference(
    ddpo: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = reference_for("symmetry", tmp_path, [-0.5, 0.0])
    rewards = ["--reward", "darkness:2.0", "--reward", f"symmetry:z={path},clamp=-9..9:-0.5"]
    code, _, err = ddpo("train", *rewards, "--model", tiny_model, "--out", "run", *SMALL)
    assert code == 0, err
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["reward"]
        == f"darkness:2.0 + symmetry:z={path},clamp=-9..9:-0.5"
    )
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert list(line["reward_parts"]) == ["darkness", "symmetry"]
    parts = line["reward_parts"]
    z = (parts["symmetry"] + 0.25) / math.sqrt(
        0.125
    )  # the reference has mean -0.25 and sd √(2 · 0.25²)
    assert line["reward_mean"] == pytest.approx(2 * parts["darkness"] - 0.5 * z, rel=1e-5)
    assert -1 < parts["darkness"] < 0
    code, _, err = ddpo("train", "--resume", "run", "--iterations", "2")
    assert code == 0, err
    save_reference(reference_of(resolve("symmetry"), [-0.5, -0.1], ""), path)
    code, _, err = ddpo("train", "--resume", "run", "--iterations", "3")
    assert code == 2
    assert "is not the one that it was started with" in err


def test_training_on_a_pareto_rank_needs_whole_groups(
    ddpo: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rewards = [
        "--reward",
        "darkness",
        "--reward",
        "symmetry",
        "--combine",
        "pareto",
        "--model",
        tiny_model,
    ]
    code, _, err = ddpo("train", *rewards, "--out", "split", *SMALL, "--set", "sample.batch=6")
    assert (code, os.path.exists("split")) == (2, False)
    assert "sample.batch (6) must be a multiple of sample.per_prompt (4)" in err
    code, _, err = ddpo("train", *rewards, "--out", "run", *SMALL)
    assert code == 0, err
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert set(line["reward_parts"]) == {"darkness", "symmetry"}
    assert -3 <= line["reward_mean"] <= 0


def test_combine_needs_rewards(ddpo: Run) -> None:
    code, _, err = ddpo("train", "--combine", "min")
    assert code == 2
    assert "--combine says how several --reward become one number" in err
