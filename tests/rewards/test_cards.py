"""Cards as data: the round trip through JSON, the fingerprint, the signature, the table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ddpo.errors import ConfigError
from ddpo.rewards.card import API_VERSION, RewardCard, RewardOption, WeightFile
from ddpo.rewards.cards import CARDS
from ddpo.rewards.signature import signature
from ddpo.rewards.tools.card_pages import render_table_markdown

CARD = RewardCard(
    id="x",
    version="1",
    summary="s",
    load="a:b",
    family="f",
    flaws="none",
    weights=(WeightFile("o/n", "r" * 40, "ab" * 32, 1.0, "MIT"),),
    options=(RewardOption("k", 1, ""),),
)


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_round_trip_through_json(card: RewardCard) -> None:
    assert RewardCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_builtin_cards_are_complete(card: RewardCard) -> None:
    assert card.summary
    assert card.flaws
    assert card.unit
    assert card.preprocessing
    assert card.typical is not None
    assert card.typical_source
    assert list(card.typical) == sorted(card.typical)
    assert card.golden or card.weights
    low, high = card.range
    for value in (*card.typical, *(golden.score for golden in card.golden)):
        assert low is None or low <= value
        assert high is None or value <= high


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ConfigError, match="colour"):
        RewardCard.from_dict({**CARD.to_dict(), "colour": "red"})


@pytest.mark.parametrize("id", ["", "Upper", "a b", "a|b", "a:b"])
def test_bad_ids_are_refused(id: str) -> None:
    with pytest.raises(ConfigError, match="reward id"):
        dataclasses.replace(CARD, id=id)


def test_newer_api_is_refused() -> None:
    with pytest.raises(ConfigError, match="upgrade ddpo"):
        dataclasses.replace(CARD, api=API_VERSION + 1)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "y"},
        {"version": "2"},
        {"pixels": "float"},
        {"preprocessing": "other"},
        {"dtype": "float16"},
        {"weights": ()},
        {"weights": (WeightFile("o/n", "s" * 40, "ab" * 32, 1.0, "MIT"),)},
        {"weights": (WeightFile("o/n", "r" * 40, "cd" * 32, 1.0, "MIT"),)},
    ],
)
def test_fingerprint_changes_with_whatever_moves_the_score(change: dict[str, object]) -> None:
    assert dataclasses.replace(CARD, **change).fingerprint() != CARD.fingerprint()


def test_fingerprint_ignores_what_does_not_move_the_score() -> None:
    assert (
        dataclasses.replace(CARD, summary="t", flaws="many", paper="p").fingerprint()
        == CARD.fingerprint()
    )
    assert CARD.fingerprint({"k": 1}) != CARD.fingerprint({"k": 2})
    assert len(CARD.fingerprint()) == 16


def test_signature_is_one_line_that_names_everything() -> None:
    card = dataclasses.replace(CARD, preprocessing="resize | crop\nand more", libraries=("pillow",))
    line = signature(card, {"k": 2}, "acme 1.0")
    assert line.splitlines() == [line]
    parts = dict(part.split(":", 1) for part in line.split("|"))
    assert (
        " ".join(parts)
        == "reward version card pixels preprocessing dtype weights options origin pillow ddpo"
    )
    assert parts["weights"] == "n@sha256-" + "ab" * 6
    assert parts["options"] == "k=2"
    assert parts["preprocessing"] == "resize / crop and more"


def test_signature_of_defaults_given_and_left_out_is_the_same() -> None:
    assert signature(CARD) == signature(CARD, {"k": 1})
    assert signature(CARD) != signature(CARD, {"k": 3})


def field(line: str, name: str) -> str:
    return dict(part.split(":", 1) for part in line.split("|"))[name]


@pytest.mark.parametrize(
    ("library", "stand_in"),
    [
        ("pillow", "pillow-simd"),
        ("onnxruntime", "onnxruntime-gpu"),
        ("opencv-python-headless", "opencv-python"),
        ("opencv-python-headless", "opencv-contrib-python"),
    ],
)
def test_a_distribution_that_brings_the_same_module_is_named(
    library: str, stand_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = dataclasses.replace(CARD, libraries=(library,))
    before = field(signature(card), library)
    assert stand_in not in before
    place = tmp_path / f"{stand_in.replace('-', '_')}-9.8.7.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {stand_in}\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(tmp_path)
    after = field(signature(card), library)
    assert f"{stand_in} 9.8.7" in after
    assert after == (
        f"{stand_in} 9.8.7" if before == "not installed" else f"{library} {before}+{stand_in} 9.8.7"
    )


@pytest.mark.parametrize(
    "name",
    ["compressibility", "incompressibility", "alignment", "vqa_strict", "vqa_score", "vlm_judge"],
)
def test_rewards_that_write_jpeg_name_the_codec(name: str) -> None:
    from PIL import features

    written = field(signature(CARDS[name]), "libjpeg")
    assert (features.version("libjpeg_turbo") or features.version("jpg")) in written
    assert written.split()[0] in ("turbo", "mozjpeg", "plain")


def test_table_has_one_row_per_card() -> None:
    lines = render_table_markdown().splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == list(CARDS)
    assert all(line.replace("\\|", "").count("|") == 7 for line in lines)
