"""What a notebook shows of batches, tables, rewards and runs: few images, small and whole HTML."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ddpo
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards import CARDS
from ddpo.thumbnails import data_address
from ddpo.types import ImageBatch, Prompt
from tests.api.notebook_html import Parsed

LARGEST = 150_000
random = np.random.default_rng(0)


def noise(count: int, side: int = 256) -> np.ndarray[Any, Any]:
    """uint8 `[count, side, side, 3]`: nothing compresses worse."""
    return random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 3, 8, 20])
def test_a_batch_shows_its_first_images_in_little_room(count: int) -> None:
    prompts = [Prompt(f"<script>{place}</script>'\"" + "x" * 1000) for place in range(count)]
    batch = ImageBatch.of_uint8(noise(count), prompts)
    found = Parsed(batch._repr_html_())
    assert len(found.images) == min(count, 8)
    assert found.size < LARGEST
    assert all(max(image.size) <= 96 for image in found.images)
    assert found.alts[0].startswith("<script>0</script>'\"x")
    assert ("and 12 more" in found.text) == (count == 20)
    assert len(repr(batch)) < 200


def test_small_images_are_shown_without_loss() -> None:
    pixels = noise(4, side=32)
    found = Parsed(ImageBatch.of_uint8(pixels, [Prompt("a cat")] * 4)._repr_html_())
    for shown, image in zip(found.images, pixels, strict=True):
        assert np.array_equal(np.asarray(shown.convert("RGB")), image)


@pytest.mark.parametrize("most", [200, 3_000, 40_000])
def test_an_address_keeps_its_bound(most: int) -> None:
    address = data_address(Image.fromarray(noise(1)[0]), 256, most)
    assert len(address) < 4 / 3 * most + 40
    Parsed(f"<img src='{address}' alt=''>")


@pytest.mark.parametrize("card", CARDS.values(), ids=str)
def test_a_card_shows_its_facts(card: RewardCard) -> None:
    found = Parsed(card._repr_html_())
    assert card.id in found.text
    assert card.flaws in found.text
    assert found.size < 4_000


def test_a_loaded_reward_shows_its_card() -> None:
    reward = ddpo.load_reward("sharpness")
    assert reward._repr_html_() == CARDS["sharpness"]._repr_html_()


def test_the_table_of_rewards_shows_all_rows_and_whole_texts() -> None:
    table = ddpo.list_rewards()
    found = Parsed(str(table._repr_html_()))
    assert found.rows >= 1 + len(CARDS)
    assert all(card.summary in found.text for card in CARDS.values())
    assert isinstance(table, pd.DataFrame)
    assert len(ddpo.list_rewards("pixels")) == sum(c.family == "pixels" for c in CARDS.values())


def levels_of(found: Parsed) -> list[int]:
    """The grey level of each shown image."""
    return [int(np.asarray(image.convert("L")).mean().round()) for image in found.images]


def test_a_table_of_scores_shows_the_images_of_its_first_rows(tmp_path: Path) -> None:
    pixels = np.stack([np.full((300, 200, 3), 20 * place, np.uint8) for place in range(12)])
    for place, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{place}.png")
        (tmp_path / f"{place}.txt").write_text(f"level <{place}>")
    (tmp_path / "bad.png").write_bytes(b"no image")
    of_files = ddpo.score("darkness", tmp_path)
    in_memory = ddpo.score("darkness", pixels, [f"level <{place}>" for place in range(12)])
    for table in (of_files[of_files.error.isna()], in_memory):
        found = Parsed(table._repr_html_())
        assert levels_of(found) == [20 * place for place in range(8)]
        assert "darkness -0.07843 · level <1>" in found.text  # 20 / 255
        assert found.size < LARGEST
        darkest_last = table.sort_values("darkness")
        assert levels_of(Parsed(darkest_last._repr_html_())) == [
            20 * place for place in range(11, 3, -1)
        ]
        assert levels_of(Parsed(table.tail(2)._repr_html_())) == [200, 220]
    assert len(of_files) == 13
    assert "<img" not in in_memory.drop(columns="image")._repr_html_()


def test_a_table_of_scores_is_a_data_frame() -> None:
    table = ddpo.score(["darkness", "sharpness"], noise(3, 16))
    assert isinstance(table, pd.DataFrame)
    assert table.darkness.mean() == pytest.approx(sum(table.darkness) / 3)
    again = pickle.loads(pickle.dumps(table))
    assert Parsed(again._repr_html_()).size == Parsed(table._repr_html_()).size
    joined = pd.concat([table, table])
    assert len(joined) == 6
    assert len(Parsed(pd.DataFrame(table)._repr_html_()).images) == 0  # type: ignore[operator]
    plain = pd.DataFrame(table)
    pd.testing.assert_frame_equal(table, plain)


def test_a_table_keeps_small_copies_of_few_images() -> None:
    images = [Image.new("RGB", (200, 100), (place % 256, 0, 0)) for place in range(300)]
    table = ddpo.score("darkness", images)
    assert len(table) == 300
    assert {image.size for image in table.in_memory.values()} == {(96, 48)}
    assert len(table.in_memory) == 256
    assert images[0].size == (200, 100)


def test_without_pandas_html_there_is_none() -> None:
    table = ddpo.score("darkness", noise(1, 16))
    with pd.option_context("display.notebook_repr_html", False):
        assert table._repr_html_() is None
