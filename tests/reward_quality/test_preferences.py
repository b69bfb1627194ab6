"""Tie conventions by hand, calibration in closed form and simulated, `ddpo rewards validate`."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import integrate, special
from scipy import stats as scipy_stats

from ddpo.errors import ConfigError
from ddpo.reward_quality.preference_file import read_preferences
from ddpo.reward_quality.preferences import ScoredPairs, score_pairs, validate_pairs
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward
from ddpo.stats.bradley_terry import bradley_terry_slope, calibration, reliability
from ddpo.stats.pairwise import (
    CONVENTIONS,
    best_threshold,
    cross_fitted,
    pairwise_accuracy,
    prompt_folds,
)
from ddpo.stats.tie_names import TIE_CONVENTIONS

Run = Callable[..., tuple[int, str, str]]

CHOICES = np.array([1, 1, 1, 0, 0.5, 0.5])
DIFFERENCES = np.array([2.0, 0.0, -1.0, -0.3, 0.1, 0.0])
NAN = math.nan


def test_commands_know_every_convention() -> None:
    assert set(TIE_CONVENTIONS) == set(CONVENTIONS)


@pytest.mark.parametrize(
    ("name", "threshold", "credits"),
    [
        (
            "imagereward",
            0.0,
            [1, 0, 0, 1, NAN, NAN],
        ),  # the equal scores of the second pair are wrong
        ("hpsv2", 0.0, [1, 1, 0, 1, 1, 1]),  # only the third pair is strictly opposed
        ("pickapic", 0.0, [1, 0.5, 0, 1, 0.5, 1]),
        ("pickapic", 0.3, [1, 0.5, 0, 0.5, 1, 1]),  # |−0.3| ≤ 0.3 is a tie
        ("acc_eq", 0.0, [1, 0, 0, 1, 0, 1]),
        ("acc_eq", 0.3, [1, 0, 0, 0, 1, 1]),
    ],
)
def test_credit_by_hand(name: str, threshold: float, credits: list[float]) -> None:
    found = CONVENTIONS[name].credit(CHOICES, DIFFERENCES, np.full(6, threshold))
    assert found.tolist() == pytest.approx(credits, nan_ok=True)


def test_exchanging_the_images_of_every_pair_changes_nothing() -> None:
    for convention in CONVENTIONS.values():
        for threshold in (0.0, 0.2):
            thresholds = np.full(6, threshold)
            there = convention.credit(CHOICES, DIFFERENCES, thresholds)
            back = convention.credit(1 - CHOICES, -DIFFERENCES, thresholds)
            assert there.tolist() == pytest.approx(back.tolist(), nan_ok=True)


def test_hpsv2_is_the_mean_of_the_prompts() -> None:
    # Prompt a: 1 of 1 right. Prompt b: 1 of 4. Over pairs 2/5, over prompts (1 + 1/4) / 2.
    choices = np.ones(5)
    differences = np.array([1.0, 1, -1, -1, -1])
    prompts = ["a", "b", "b", "b", "b"]
    assert pairwise_accuracy(
        CONVENTIONS["hpsv2"], choices, differences, prompts
    ).value == pytest.approx(0.625)
    assert pairwise_accuracy(
        CONVENTIONS["imagereward"], choices, differences, prompts
    ).value == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["pickapic", "acc_eq"])
def test_the_best_threshold_is_that_of_trying_all(name: str) -> None:
    random = np.random.default_rng(1)
    credit = CONVENTIONS[name].credit
    for _ in range(20):
        choices = random.choice([0, 0.5, 1], 30)
        differences = random.integers(-5, 6, 30).astype(float)
        tried = {t: credit(choices, differences, np.full(30, float(t))).mean() for t in range(6)}
        best = min(t for t, mean in tried.items() if mean == max(tried.values()))
        assert best_threshold(credit, choices, differences) == best


def test_a_threshold_is_never_chosen_on_its_own_prompt() -> None:
    prompts = [f"p{index // 2}" for index in range(22)]
    fold = prompt_folds(prompts)
    assert all(fold[index] == fold[index + 1] for index in range(0, 22, 2))
    assert sorted(np.bincount(fold).tolist()) == [4, 4, 4, 4, 6]
    seen = cross_fitted(lambda kept: float(kept.sum()), prompts)
    assert seen.tolist() == [22 - np.bincount(fold)[number] for number in fold]
    alone = pairwise_accuracy(CONVENTIONS["acc_eq"], CHOICES, DIFFERENCES, ["p"] * 6)
    assert math.isnan(alone.value)


def test_a_threshold_that_people_use_is_found() -> None:
    """People tie where scores differ by at most 1, else see the better image: all can be right."""
    differences = np.linspace(-3, 3, 121)
    choices = np.where(np.abs(differences) <= 1, 0.5, differences > 0)
    found = pairwise_accuracy(CONVENTIONS["acc_eq"], choices, differences, list(range(121)))
    assert found.value == pytest.approx(1, abs=0.02)
    assert found.threshold == pytest.approx(1, abs=0.051)
    assert (
        pairwise_accuracy(CONVENTIONS["imagereward"], choices, differences, list(range(121))).n
        == 80
    )


def test_slope_in_closed_form() -> None:
    """Of pairs of one |difference| d, a share p is ordered right: σ(β d) = p, β = logit(p) / d."""
    choices = np.array([1.0, 1, 1, 0])
    differences = np.full(4, 2.0)
    assert bradley_terry_slope(choices, differences) == pytest.approx(math.log(3) / 2, rel=1e-9)
    assert bradley_terry_slope(1 - choices, differences) == pytest.approx(
        -math.log(3) / 2, rel=1e-9
    )
    assert bradley_terry_slope(choices, differences * 1e-9) == pytest.approx(
        math.log(3) / 2e-9, rel=1e-9
    )
    assert bradley_terry_slope(np.ones(3), np.array([1.0, 2, 0])) == math.inf
    assert bradley_terry_slope(np.zeros(3), np.array([1.0, 2, 0])) == -math.inf
    assert math.isnan(bradley_terry_slope(np.ones(2), np.zeros(2)))


def test_reliability_by_hand() -> None:
    # Winners' probabilities 0.92 0.92 0.83 0.5: the first is right, the second wrong, the third
    # right, ½ is half right.
    bins = reliability(np.array([0.92, 0.08, 0.17, 0.5]), np.array([1.0, 1, 0, 1]), bins=5)
    assert [one.low for one in bins] == pytest.approx([0.5, 0.8, 0.9])
    assert [one.n for one in bins] == [1, 1, 2]
    assert [one.accuracy for one in bins] == [0.5, 1.0, 0.5]
    assert [one.confidence for one in bins] == pytest.approx([0.5, 0.83, 0.92])


def simulated(prompts: int, each: int, temperature: float) -> ScoredPairs:
    """Bradley-Terry people who see standard normal score differences through `temperature`."""
    random = np.random.default_rng(7)
    difference = random.normal(size=prompts * each)
    choices = (random.random(len(difference)) < special.expit(difference / temperature)).astype(
        float
    )
    return ScoredPairs(
        choices,
        difference,
        np.zeros(len(difference)),
        tuple(np.repeat(np.arange(prompts), each).tolist()),
        0,
        (),
    )


def test_simulated_people_are_recovered() -> None:
    """Expected accuracy ∫ σ(|d|/τ) φ(d) dd and log-loss ∫ H(σ(d/τ)) φ(d) dd, by quadrature.

    The ECE is small, since the model is true.
    """
    temperature = 0.5
    pairs = 400 * 5
    found = validate_pairs(simulated(400, 5, temperature))

    def expected(value: Callable[[float], float]) -> float:
        return float(integrate.quad(lambda d: value(d) * scipy_stats.norm.pdf(d), -9, 9)[0])

    accuracy = expected(lambda d: float(special.expit(abs(d) / temperature)))
    entropy = expected(
        lambda d: float(
            special.entr(special.expit(d / temperature))
            + special.entr(special.expit(-d / temperature))
        )
    )
    brier = expected(
        lambda d: float(special.expit(d / temperature) * special.expit(-d / temperature))
    )
    headline = found.accuracy["imagereward"]
    error = math.sqrt(accuracy * (1 - accuracy) / pairs)
    assert headline.value == pytest.approx(accuracy, abs=3 * error)
    assert headline.low <= accuracy <= headline.high
    assert headline.high - headline.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert found.calibration.temperature == pytest.approx(temperature, rel=0.12)
    assert found.calibration.log_loss == pytest.approx(entropy, abs=0.03)
    assert found.calibration.brier == pytest.approx(brier, abs=0.01)
    assert found.calibration.ece < 0.04


def test_a_reward_that_is_read_the_wrong_way_round() -> None:
    pairs = simulated(100, 3, 0.5)
    right = validate_pairs(pairs)
    wrong = validate_pairs(pairs, lower_is_better=True)
    assert right.accuracy["imagereward"].value + wrong.accuracy[
        "imagereward"
    ].value == pytest.approx(1)
    assert wrong.calibration.temperature == pytest.approx(-right.calibration.temperature)
    assert "people prefer what scores worse" in wrong.calibration.note


def test_calibration_is_on_other_prompts() -> None:
    """A score of pure chance: fitted on the same pairs, its log-loss is at most that of a coin.

    On other pairs it is above.
    """
    random = np.random.default_rng(8)
    choices = random.integers(0, 2, 60).astype(float)
    differences = random.normal(size=60)
    slope = bradley_terry_slope(choices, differences)
    assert np.logaddexp(0, -(2 * choices - 1) * slope * differences).mean() <= math.log(2)
    assert calibration(choices, differences, list(range(60))).log_loss > math.log(2)


def test_small_sets_say_what_cannot_be_known() -> None:
    assert (
        "every pair is ordered as people chose"
        in calibration(np.ones(4), np.ones(4), list("abcd")).note
    )
    assert "one prompt" in calibration(CHOICES, DIFFERENCES, ["p"] * 6).note
    assert calibration(np.full(3, 0.5), np.ones(3), list("abc")).n == 0
    with pytest.raises(ConfigError, match=r"none of the 1 pairs .*gone\.png: no such file"):
        validate_pairs(
            ScoredPairs(
                np.ones(1), np.array([NAN]), np.ones(1), ("p",), 2, ("gone.png: no such file",)
            )
        )


def test_pairs_with_an_unscorable_image_are_left_out_and_counted() -> None:
    pairs = ScoredPairs(
        np.array([1.0, 1, 0]),
        np.array([2.0, NAN, 1]),
        np.array([1.0, 0, 2]),
        ("a", "b", "c"),
        6,
        (),
    )
    found = validate_pairs(pairs)
    assert (found.pairs, found.excluded, found.prompts) == (2, 1, 2)
    assert found.accuracy["imagereward"].value == 1


@pytest.fixture
def run(ddpo: Run) -> Run:
    return partial(ddpo, "rewards", "validate", columns=100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images 0.png … 5.png, each noisier, and so less compressible, than the one before."""
    for index in range(6):
        noise = np.random.default_rng(index).normal(128, 12 * index, (24, 24, 3))
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{index}.png")
    return tmp_path


def write_lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_validate_on_painted_images(run: Run, folder: Path) -> None:
    """Six pairs: right, right, wrong, tied by people, the same image twice, a missing image."""
    rows: list[dict[str, object]] = [
        {"prompt": "p", "image_a": "0.png", "image_b": "5.png", "label": "a"},
        {"prompt": "p", "image_a": "4.png", "image_b": "1.png", "label": 1},
        {"caption": "q", "jpg_0": "2.png", "jpg_1": "3.png", "label_0": 0},
        {"prompt": "q", "image_0": "2.png", "image_1": "4.png", "label": "tie"},
        {"prompt": "r", "image_a": "1.png", "image_b": "1.png", "label": "image_b"},
        {"prompt": "r", "image_a": "9.png", "image_b": "1.png", "label": 0},
    ]
    out = folder / "report.json"
    code, printed, _ = run(
        "compressibility",
        "--preferences",
        write_lines(folder / "p.jsonl", rows),
        "--out",
        out,
        "--ties",
        "hpsv2",
    )
    assert code == 0
    assert "compressibility: pairwise accuracy" in printed
    assert "9.png: no such file" in printed
    report = json.loads(out.read_text())
    assert (report["pairs"], report["excluded"], report["ties"], report["equal_scores"]) == (
        5,
        1,
        1,
        1,
    )
    assert (report["preferred_first"], report["preferred_second"], report["headline"]) == (
        1,
        3,
        "hpsv2",
    )
    assert report["accuracy"]["imagereward"]["value"] == pytest.approx(2 / 4)
    assert report["accuracy"]["hpsv2"]["value"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert report["signature"].startswith("reward:compressibility|")


def encoded(path: Path) -> bytes:
    return path.read_bytes()


def test_parquet_with_embedded_images_scores_each_content_once(folder: Path) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = [("0.png", "5.png"), ("5.png", "0.png"), ("0.png", "3.png")]
    first = [{"bytes": encoded(folder / a), "path": a} for a, _ in names]
    table = pa.table(
        {
            "caption": ["p", "q", "r"],
            "jpg_0": pa.array(first, image),
            "jpg_1": pa.array([encoded(folder / b) for _, b in names], pa.binary()),
            "label_0": [1.0, 0.0, 0.5],
        }
    )
    pq.write_table(table, folder / "p.parquet")
    rows = list(read_preferences(folder / "p.parquet"))
    assert [row.choice for row in rows] == [1, 0, 0.5]
    scored = score_pairs(Scorer(make_reward("compressibility")), rows)
    assert scored.images == 3
    sizes = {}
    for name in ("0.png", "3.png", "5.png"):
        with Image.open(folder / name) as image, io.BytesIO() as file:
            image.save(file, "JPEG", quality=95, subsampling="4:2:0")
            sizes[name] = -len(file.getvalue()) / 1000
    assert scored.first.tolist() == pytest.approx([sizes[a] for a, _ in names])
    assert scored.second.tolist() == pytest.approx([sizes[b] for _, b in names])


def test_an_embedded_image_that_cannot_be_decoded_is_named_by_its_row(folder: Path) -> None:
    pq.write_table(
        pa.table({"image_a": [b"x"], "image_b": [encoded(folder / "0.png")], "label": ["a"]}),
        folder / "p.parquet",
    )
    scored = score_pairs(Scorer(make_reward("darkness")), read_preferences(folder / "p.parquet"))
    assert scored.errors == (f"{folder}/p.parquet:1 image_a: not an image that can be decoded",)


def test_one_image_under_two_prompts_has_two_scores_where_the_prompt_matters(
    folder: Path,
) -> None:
    (folder / "words.py").write_text(
        "def words(images, prompts):\n    return [len(p.split()) for p in prompts]\n"
    )
    rows: list[dict[str, object]] = [
        {"prompt": "one", "image_a": "0.png", "image_b": "1.png", "label": "a"},
        {"prompt": "one two", "image_a": "0.png", "image_b": "1.png", "label": "a"},
    ]
    path = write_lines(folder / "p.jsonl", rows)
    scored = score_pairs(Scorer(make_reward(f"{folder}/words.py:words")), read_preferences(path))
    assert (scored.images, scored.first.tolist(), scored.second.tolist()) == (4, [1, 2], [1, 2])
    assert score_pairs(Scorer(make_reward("darkness")), read_preferences(path)).images == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "p.jsonl:2: not JSON"),
        ("[]", "p.jsonl:2: not a JSON object"),
        ('{"image_a": "0.png", "label": "a"}', "p.jsonl:2: no image_b"),
        ('{"image_a": "0.png", "imageb": "1.png", "label": "a"}', "did you mean its 'imageb'?"),
        ('{"image_a": "0.png", "image_b": "1.png"}', "p.jsonl:2: no label"),
        (
            '{"image_a": "0.png", "image_b": "1.png", "label": 2}',
            "p.jsonl:2: the label 2 is not one",
        ),
        (
            '{"image_a": "0.png", "image_b": "1.png", "label": true}',
            "p.jsonl:2: the label True is not one",
        ),
        (
            '{"image_a": "0.png", "image_b": "1.png", "label_0": 0.7}',
            "p.jsonl:2: the label 0.7 is not one",
        ),
    ],
)
def test_unreadable_lines_are_named(run: Run, folder: Path, line: str, message: str) -> None:
    (folder / "p.jsonl").write_text(
        '{"image_a": "0.png", "image_b": "1.png", "label": "b"}\n' + line + "\n"
    )
    code, out, err = run("darkness", "--preferences", folder / "p.jsonl")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["darkness", "--preferences", "{folder}/absent.jsonl"], "absent.jsonl: no such file"),
        (
            ["darkness", "--preferences", "{folder}/0.png"],
            "must be one of .csv, .tsv, .json, .jsonl, .ndjson, .parquet",
        ),
        (["darkness", "--preferences", "{folder}/bad.parquet"], "cannot be read as Parquet"),
        (
            ["darkness", "--preferences", "{folder}/p.jsonl", "--ties", "imagerewrd"],
            "did you mean 'imagereward'?",
        ),
        (
            ["darkness", "--preferences", "{folder}/p.jsonl", "--root", "{folder}/absent"],
            "no such folder",
        ),
        (
            ["{folder}/words.py:words", "--preferences", "{folder}/p.jsonl"],
            "p.jsonl:1: no prompt, and reward 'words' judges an image by it",
        ),
    ],
)
def test_mistakes_are_one_line(run: Run, folder: Path, arguments: list[str], message: str) -> None:
    (folder / "words.py").write_text(
        "def words(images, prompts):\n    return [len(p) for p in prompts]\n"
    )
    (folder / "bad.parquet").write_bytes(b"PAR1")
    (folder / "p.jsonl").write_text('{"image_a": "0.png", "image_b": "1.png", "label": "b"}\n')
    code, out, err = run(*[argument.format(folder=folder) for argument in arguments])
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
