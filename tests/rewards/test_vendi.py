"""The Vendi score: published numbers, closed forms, orders, and the reward on both features."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_dino import save_tiny_dino

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.groups import ALONE
from ddpo.rewards.models.vendi import cosine_kernel, vendi_gains, vendi_score
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt

NEAR = torch.tensor([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]], dtype=torch.float64)


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dino(tmp_path_factory.mktemp("dino"))


def batch(images: np.ndarray, texts: str) -> ImageBatch:
    return ImageBatch.of_uint8(images, [Prompt(text) for text in texts])


def stripe(place: int) -> np.ndarray:
    """A black image of 32×32 with one white column: orthogonal to those with another."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, place] = 255
    return image


def test_the_numbers_of_the_authors_package() -> None:
    numbers = torch.tensor([0, 0, 10, 10, 20, 20], dtype=torch.float64)
    assert vendi_score(torch.exp(-(numbers[:, None] - numbers).abs())) == pytest.approx(
        2.9999999959, abs=1e-9
    )
    assert vendi_score(NEAR) == pytest.approx(2.1573004834, abs=1e-9)


@pytest.mark.parametrize("order", [0.0, 0.1, 0.5, 1.0, 2.0, 7.0, math.inf])
@pytest.mark.parametrize("n", [2, 3, 16])
def test_equal_images_count_as_one_and_orthogonal_ones_as_many(order: float, n: int) -> None:
    assert vendi_score(torch.ones(n, n), order) == pytest.approx(1, abs=1e-9)
    assert vendi_score(torch.eye(n), order) == pytest.approx(n, abs=1e-9)
    assert vendi_score(
        cosine_kernel(torch.rand(1, 9, generator=torch.Generator().manual_seed(n)).repeat(n, 1)),
        order,
    ) == pytest.approx(1)


def test_orders_in_closed_form() -> None:
    """The eigenvalues of NEAR are 1.9, 0.1 and 1."""
    shares = np.array([1.9, 0.1, 1]) / 3
    assert vendi_score(NEAR, 0) == pytest.approx(3, abs=1e-9)
    assert vendi_score(NEAR, 2) == pytest.approx(1 / (shares**2).sum(), abs=1e-9)
    assert vendi_score(NEAR, 0.5) == pytest.approx((shares**0.5).sum() ** 2, abs=1e-9)
    assert vendi_score(NEAR, math.inf) == pytest.approx(3 / 1.9, abs=1e-9)
    scores = [vendi_score(NEAR, order) for order in (0, 0.5, 1 - 1e-6, 1, 1 + 1e-6, 2, math.inf)]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] == pytest.approx(scores[4], abs=1e-5)  # both sides of 1 meet there


def test_gains_are_what_the_score_loses_without_a_image() -> None:
    pair = math.exp(-(0.95 * math.log(0.95) + 0.05 * math.log(0.05)))  # of cosine 0.9
    assert vendi_gains(NEAR).tolist() == pytest.approx(
        [2.1573004834 - 2] * 2 + [2.1573004834 - pair], abs=1e-9
    )


def test_rows_of_zeros_are_alike_and_like_no_other() -> None:
    rows = torch.tensor([[0.0, 0], [0, 0], [1, 2], [2, 4]])
    assert np.allclose(cosine_kernel(rows), np.kron(np.eye(2), np.ones((2, 2))))
    assert vendi_score(cosine_kernel(rows)) == pytest.approx(2)


def test_pixels_in_closed_form() -> None:
    reward = make_reward("vendi:features=pixels")
    images = np.stack(
        [stripe(0), stripe(5), stripe(9), stripe(5), np.zeros((32, 32, 3), np.uint8), stripe(3)]
    )
    output = reward(batch(images, "aabbac"))
    assert output.values[:5].tolist() == pytest.approx([3, 3, 2, 2, 3], abs=1e-6)
    assert output.parts["gain"][:5].tolist() == pytest.approx([1] * 5, abs=1e-6)
    assert output.parts["n"].tolist() == [3, 3, 2, 2, 3, 1]
    assert output.errors == (None,) * 5 + (ALONE,)
    darker = reward(batch(np.stack([stripe(0), stripe(0) // 5]), "aa"))
    assert darker.values.tolist() == pytest.approx([1, 1], abs=1e-6)  # as the card says


@pytest.mark.parametrize("n", [2, 3, 16])
def test_a_group_does_not_see_another(n: int) -> None:
    reward = make_reward("vendi:features=pixels")
    random = np.random.default_rng(n)
    for height, width in ((40, 40), (33, 65)):
        mine, others = (
            random.integers(0, 256, (count, height, width, 3)).astype(np.uint8) for count in (n, 3)
        )
        alone = reward(batch(mine, "a" * n))
        both = reward(batch(np.concatenate([others[:1], mine, others[1:]]), "b" + "a" * n + "bb"))
        assert both.values[1 : n + 1].tolist() == alone.values.tolist()
        assert 1 < float(alone.values[0]) < n


def test_large_groups_have_a_score_and_no_gains() -> None:
    images = np.stack([stripe(place % 32) for place in range(257)])
    output = make_reward("vendi:features=pixels")(batch(images, "a" * 257))
    due = np.bincount(np.arange(257) % 32) / 257
    assert float(output.values[0]) == pytest.approx(math.exp(-(due * np.log(due)).sum()), rel=1e-6)
    assert output.parts["gain"].isnan().all()


def test_the_tower_is_shared_with_the_dino_diversity(dino_folder: Path) -> None:
    vendi, diversity = (
        make_reward(name, dino=str(dino_folder)) for name in ("vendi", "diversity_dino")
    )
    images = batch(
        np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3)).astype(np.uint8), "aaaa"
    )
    kernel = cosine_kernel(diversity.features(images))  # type: ignore[attr-defined]
    assert vendi(images).values[0].item() == pytest.approx(vendi_score(kernel), rel=1e-6)
    assert diversity._encoder.passes == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options", [{"features": "pixels"}, {"features": "pixels", "order": 0.0}, {}]
)
def test_the_conformance_kit(options: dict[str, object], dino_folder: Path) -> None:
    mine = (
        {option.name: option.default for option in CARDS["vendi"].options}
        | {"dino": str(dino_folder)}
        | options
    )
    only = sorted(set(all_checks()) - {"light-listing", "missing-weights"})
    results = {
        r.name: r
        for r in check_reward(ResolvedReward(CARDS["vendi"], mine, "ddpo", None), only=only)
    }
    assert {check: result.detail for check, result in results.items() if not result.ok} == {}
    for check in (
        "construction",
        "contract",
        "empty-batch",
        "rounding",
        "pixel-scale",
        "picture-sizes",
        "repeatability",
        "gradient",
    ):
        assert results[check].outcome == "passed", (check, results[check].detail)


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="features is 'clip', not one of dinov2, pixels"):
        make_reward("vendi:features=clip")
    for order, says in (("-1", "order must be at least 0, got -1"), ("nan", "must be float")):
        with pytest.raises(ConfigError, match=says):
            make_reward(f"vendi:features=pixels,order={order}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    with pytest.raises(
        MissingResourceError,
        match=r"reward 'vendi' needs facebook/dinov2-base \(346\.4 MB, Apache-2\.0\)",
    ):
        make_reward("vendi")
