"""Rank correlations by scipy and by hand, intervals by simulation, and `ddpo rewards compare`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats as scipy_stats

from ddpo.errors import ConfigError
from ddpo.reward_quality.agreement import (
    _kendall,
    _spearman,
    agreement,
    disagreements,
    mid_ranks,
    percentiles,
)
from ddpo.stats.bootstrap import cluster_weights, mean_interval

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(("n", "levels"), [(7, 3), (40, 5), (40, 1000), (700, 4)])
def test_correlations_are_those_of_scipy_with_ties(n: int, levels: int) -> None:
    x, y = np.random.default_rng(n).integers(0, levels, (2, n)).astype(float)
    found = agreement(x, y, resamples=2)
    assert found.spearman.value == pytest.approx(scipy_stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.kendall.value == pytest.approx(scipy_stats.kendalltau(x, y).statistic, abs=1e-12)


def test_tau_b_by_hand() -> None:
    # x = 1 2 2 3, y = 1 2 3 3. Pairs: 12 C, 13 C, 14 C, 23 tie in x, 24 C, 34 tie in y.
    # τ_b = (4 - 0) / √(5 · 5).
    assert agreement([1, 2, 2, 3], [1, 2, 3, 3], resamples=2).kendall.value == pytest.approx(
        0.8, abs=1e-15
    )


@pytest.mark.parametrize("n", [30, 600])  # on both sides of the limit of the matrix form
def test_a_resample_is_the_correlation_of_the_drawn_images(n: int) -> None:
    random = np.random.default_rng(3)
    x, y = random.integers(0, 8, (2, n)).astype(float)
    weights = next(cluster_weights(range(n), 3))
    for row, rho, tau in zip(
        weights, _spearman(x, y, weights), _kendall(x, y, weights), strict=True
    ):
        drawn = np.repeat(np.arange(n), row.astype(int))
        assert rho == pytest.approx(scipy_stats.spearmanr(x[drawn], y[drawn]).statistic, abs=1e-12)
        assert tau == pytest.approx(scipy_stats.kendalltau(x[drawn], y[drawn]).statistic, abs=1e-12)


def test_clusters_are_drawn_whole_and_as_many_as_there_are() -> None:
    weights = np.concatenate(list(cluster_weights(["a", "b", "a", "c"], 4000)))
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()
    assert weights.mean(0) == pytest.approx([1, 1, 1, 1], abs=0.05)


def test_the_interval_of_a_mean_of_two_clusters_by_hand() -> None:
    # Resamples of clusters {0, 0} and {1}: aa 0, ab or ba 1/3, bb 1, each a quarter of the time.
    assert mean_interval(np.array([0.0, 0.0, 1.0]), ["a", "a", "b"]) == (0.0, 1.0)
    assert all(math.isnan(bound) for bound in mean_interval(np.array([0.0, 1.0]), ["a", "a"]))


def test_intervals_cover_the_truth_of_a_gaussian_copula() -> None:
    """r = 0.6 gives ρ = 6/π · asin(r/2) and τ = 2/π · asin(r) (Kruskal 1958)."""
    rho = 6 / math.pi * math.asin(0.3)
    tau = 2 / math.pi * math.asin(0.6)
    random = np.random.default_rng(5)
    covered = np.zeros(2)
    for _ in range(200):
        x = random.normal(size=60)
        found = agreement(
            np.exp(x), 0.6 * x + 0.8 * random.normal(size=60), resamples=400
        )  # exp: ranks do not change
        covered += [
            found.spearman.low <= rho <= found.spearman.high,
            found.kendall.low <= tau <= found.kendall.high,
        ]
    assert (covered / 200 >= 0.90).all()
    assert (covered / 200 <= 0.99).all()


def test_clustered_intervals_cover_where_those_over_images_do_not() -> None:
    """24 prompts of 8 images; an image scores as its prompt plus little, and the truth is ρ = 0."""
    random = np.random.default_rng(6)
    prompts = np.repeat(np.arange(24), 8)
    covered = np.zeros(2)
    for _ in range(100):
        x, y = (
            random.normal(size=24)[prompts] + 0.3 * random.normal(size=len(prompts))
            for _ in range(2)
        )
        clustered = agreement(x, y, list(prompts), resamples=300).spearman
        naive = agreement(x, y, resamples=300).spearman
        covered += [clustered.low <= 0 <= clustered.high, naive.low <= 0 <= naive.high]
    assert covered[0] >= 85
    assert covered[1] <= 70


def test_unscorable_images_are_left_out_of_each_pair_and_counted() -> None:
    found = agreement([1, 2, math.nan, 4, 5], [1, 2, 3, math.nan, 0], resamples=50)
    assert (found.n, found.excluded) == (3, 2)
    assert found.spearman.value == pytest.approx(
        scipy_stats.spearmanr([1, 2, 5], [1, 2, 0]).statistic
    )
    assert "fewer than 10 images" in found.note


def test_what_has_no_correlation_says_so() -> None:
    constant = agreement([1, 1, 1, 1], [1, 2, 3, 4])
    assert math.isnan(constant.spearman.value)
    assert math.isnan(constant.kendall.low)
    assert "the same score" in constant.note
    assert "fewer than 3" in agreement([1, 2], [2, 1]).note
    one = agreement([1, 2, 3], [1, 2, 3], ["p"] * 3)
    assert one.spearman.value == 1
    assert math.isnan(one.spearman.low)
    with pytest.raises(ConfigError, match="compared"):
        agreement([1, 2, 3], [1, 2])


def test_percentiles_and_disagreements_by_hand() -> None:
    assert mid_ranks([10, 20, 20, 5]).tolist() == [2, 3.5, 3.5, 1]
    assert percentiles([10, 20, 20, 5]).tolist() == [0.375, 0.75, 0.75, 0.125]
    # a: ranks 1 2 3 4; b: ranks 4 2.5 2.5 1; the unscored image at index 1 is not among them.
    found = disagreements([1, math.nan, 2, 3, 4], [9, 7, 5, 5, 1], 3)
    assert [one.index for one in found] == [0, 4, 2]
    assert (found[0].percentile_a, found[0].percentile_b) == (0.125, 0.875)
    assert (found[0].rank_a, found[0].rank_b) == (4, 1)
    assert (found[2].rank_b, found[2].difference) == (2.5, -0.125)
    assert disagreements([1, 2, 3], [10, 20, 30], 3) == []


@pytest.fixture
def run(ddpo: Run) -> Run:
    return partial(ddpo, "rewards", "compare", columns=100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Greys of 0, 10 … 110 with noise of strength 11, 10 … 0: the darker, the less compressible."""
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for index in range(12):
        level = 60 + 10 * index + random.normal(0, 1 + 3 * (11 - index), (24, 24, 3))
        Image.fromarray(level.clip(0, 255).astype(np.uint8)).save(images / f"{index:02}.png")
    return images


def test_compare_on_painted_images(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "05b.png").write_bytes(b"")
    out = tmp_path / "report" / "compare.json"
    sheet = tmp_path / "sheet.png"
    code, printed, _ = run(
        "compressibility", folder, "darkness", "--out", out, "--contact-sheet", sheet
    )
    assert code == 0
    assert (
        max(
            map(
                len,
                (
                    line
                    for line in printed.splitlines()
                    if not line.startswith(("reward:", "no score", "wrote"))
                ),
            )
        )
        <= 100
    )
    assert "no score from compressibility, darkness" in printed
    assert "noise floor" in printed
    report = json.loads(out.read_text())
    (pair,) = report["agreement"]
    assert pair["rewards"] == ["compressibility", "darkness"]
    assert (pair["n"], pair["excluded"], pair["resampled"]) == (12, 1, "images")
    assert pair["spearman"] == {"value": -1.0, "low": -1.0, "high": -1.0}
    assert Path(pair["disagreements"][0]["image"]).name in ("00.png", "11.png")
    darkness = report["rewards"][1]
    assert darkness["signature"].startswith("reward:darkness|")
    assert darkness["scores"][6] is None
    assert darkness["scores"][0] == pytest.approx(-60 / 255, abs=0.02)
    with Image.open(sheet) as image:
        assert image.size == (6 * 224 + 5 * 8, 224 + 3 * 16)


def test_compare_without_edits_gives_the_same_scores_and_clusters_by_prompt(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"prompt {index // 2}\n" for index in range(12)))
    code, printed, _ = run(
        "compressibility", "darkness", folder, "--out", tmp_path / "a.json", "--no-edits"
    )
    assert code == 0
    assert "noise floor" not in printed
    code, printed, _ = run(
        "compressibility",
        "darkness",
        folder,
        "--out",
        tmp_path / "b.json",
        "--prompts",
        tmp_path / "prompts.txt",
    )
    assert "bootstrap over prompts" in printed
    assert "fewer than 10 prompts" in printed
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert [one["scores"] for one in a["rewards"]] == [one["scores"] for one in b["rewards"]]
    assert (a["rewards"][0]["sensitivity"], b["agreement"][0]["resampled"]) == (None, "prompts")


@pytest.mark.parametrize("option", ["--edits", "--no-edits"])
def test_a_reward_that_breaks_on_one_image_spares_the_others(
    run: Run, folder: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "r.py").write_text(
        "def picky(images):\n    means = images.mean((1, 2, 3))\n"
        "    if means.max() > 165:\n        raise ValueError('too bright')\n    return means\n"
    )
    code, printed, err = run(
        f"{tmp_path}/r.py:picky", "darkness", folder, "--out", tmp_path / "a.json", option
    )
    assert code == 1
    assert "because a reward failed; the others stand" in err
    assert "too bright" in printed
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["rewards"][0]["failed"] >= 1
    assert (report["rewards"][0]["scores"][11], report["agreement"][0]["excluded"]) == (None, 1)
    assert report["agreement"][0]["spearman"]["value"] == pytest.approx(-1)


def test_a_folder_called_like_a_reward(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rename(folder.parent / "darkness")
    monkeypatch.chdir(folder.parent)
    assert run("darkness", "symmetry", "./darkness", "--no-edits")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["darkness", "symmetri", "{folder}"],
            "symmetri: no such file or folder, and unknown reward 'symmetri'; "
            "did you mean 'symmetry'?",
        ),
        (["darkness", "symmetry"], "got 2 rewards and 0 files or folders"),
        (["{folder}"], "got 0 rewards and 1 files or folders"),
        (["darkness", "{folder}", "--no-edits"], "name a second reward"),
        (["darkness", "darkness", "{folder}"], "'darkness' is given twice"),
        (["darkness", "symmetry", "{folder}", "--out", "x.csv"], "must end in .json"),
        (
            ["darkness", "symmetry", "{folder}", "--contact-sheet", "{folder}/00.png/x.png"],
            "cannot be written",
        ),
        (["darkness", "{folder}/../words.py:words", "{folder}"], "judges an image by its prompt"),
    ],
)
def test_mistakes_are_one_line(run: Run, folder: Path, arguments: list[str], message: str) -> None:
    (folder.parent / "words.py").write_text(
        "def words(images, prompts):\n    return [len(p) for p in prompts]\n"
    )
    code, out, err = run(*[argument.format(folder=folder) for argument in arguments])
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
