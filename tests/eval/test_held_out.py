"""Held-out rewards are independent, present and repeatable; artefact statistics are untrained."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from ddpo.eval.inputs.held_out import (
    choose_artefacts,
    choose_embedded,
    choose_held_out,
)
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards import CARDS
from ddpo.rewards.lineage import shared_lineage
from ddpo.rewards.zoo import resolve, rewards

H14 = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def chosen(*trained: str, here: bool = True, **options: Any) -> list[str]:
    return [
        found.id
        for found in choose_held_out(
            [resolve(spec).card for spec in trained], CARDS, lambda card: here, **options
        )
    ]


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        # By hand from the cards: another family first, then those that see the prompt, then by id;
        # no backbone twice (pickscore has that of hpsv2).
        (
            "aesthetic",
            ["imagereward", "clip_score", "hpsv2", "open_clip"],
        ),  # aesthetic_v1 shares its CLIP ViT-L/14
        (
            "pickscore",
            ["imagereward", "clip_score", "open_clip", "aesthetic"],
        ),  # hpsv2 shares its CLIP ViT-H/14
        ("imagereward", ["clip_score", "hpsv2", "open_clip", "aesthetic"]),
        (
            "alignment",
            ["clip_score", "hpsv2", "imagereward", "open_clip"],
        ),  # LLaVA sees through CLIP ViT-L/14, at 336 pixels
        ("compressibility", ["clip_score", "hpsv2", "imagereward", "open_clip"]),
        ("compressibility:0.2 + aesthetic", ["clip_score", "hpsv2", "imagereward", "open_clip"]),
    ],
)
def test_held_out_rewards_share_no_lineage_with_trained_ones(
    trained: str, expected: list[str]
) -> None:
    found = chosen(trained)
    assert found == expected
    cards = [resolve(trained).card, *(CARDS[name] for name in found)]
    assert not any(shared_lineage(one, other) for one, other in combinations(cards, 2))


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ("compressibility", ["alignment:model=emoji", "clip_score:model=emoji"]),
        ("alignment:model=emoji", ["clip_score:model=emoji"]),  # aesthetic stands on its CLIP
        ("clip_score:model=emoji", ["alignment:model=emoji"]),
        ("aesthetic:model=emoji", ["alignment:model=emoji"]),
        ("compressibility:0.2 + aesthetic:model=emoji", ["alignment:model=emoji"]),
        ("alignment:model=emoji + clip_score:model=emoji", []),
        ("aesthetic", ["alignment:model=emoji", "clip_score:model=emoji"]),  # of LAION's CLIP
    ],
)
def test_embedded_held_out_rewards_share_no_network_with_trained_ones(
    trained: str, expected: list[str]
) -> None:
    found = choose_embedded([resolve(trained).card])
    assert [one.reward for one in found] == expected
    cards = [resolve(trained).card, *(resolve(name).card for name in expected)]
    assert not any(shared_lineage(one, other) for one, other in combinations(cards, 2))
    assert [one.id for one in found] == [name.partition(":")[0] for name in expected]


def test_the_reason_names_both_lineages() -> None:
    first = choose_held_out([CARDS["pickscore"]], CARDS, lambda card: True)[0]
    assert (
        first.reason
        == f"built on Salesforce/BLIP large, ImageRewardDB; pickscore is built on {H14}, Pick-a-Pic"
    )
    last = choose_held_out([CARDS["darkness"]], CARDS, lambda card: True, most=1)
    assert [found.reason for found in last] == [
        "built on openai/clip-vit-base-patch32; darkness measures luma level"
    ]


def test_what_is_not_here_is_not_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    assert chosen("aesthetic", here=False) == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path))
    assert (
        choose_held_out(
            [CARDS["compressibility"]],
            {name: CARDS[name] for name in ("clip_score", "hpsv2", "imagereward")},
        )
        == []
    )
    assert len(chosen("compressibility", most=2)) == 2


def test_a_held_out_reward_is_learned_repeatable_local_and_of_known_lineage() -> None:
    good = replace(CARDS["clip_score"], id="acme/good", lineage=("acme-tower",), backbone="")
    bad: dict[str, dict[str, Any]] = {
        "no_lineage": {"lineage": ()},
        "no_weights": {"weights": ()},
        "random": {"deterministic": False},
        "remote": {"calls": replace(good.calls, retries=3)},
        "lower": {"direction": "lower"},
        "asks": {"inputs": ("image", "metadata")},
        "groups": {"inputs": ("image", "group")},
        "huge": {"memory_mb": 14_500},
        "guard": {"family": "guard"},
        "statistic": {"family": "pixels"},
        "tower": {"backbone": CARDS["aesthetic"].backbone},
        "variant": {"lineage": ("openai/clip-vit-large-patch14-336",)},
    }
    cards: dict[str, RewardCard] = {
        name: replace(good, **{"id": name, "lineage": (f"tower of {name}",), **change})
        for name, change in bad.items()
    }
    assert [
        found.id
        for found in choose_held_out(
            [CARDS["aesthetic"]], cards | {"good": good}, lambda card: True
        )
    ] == ["acme/good"]


@pytest.mark.parametrize(
    ("trained", "absent"),
    [
        ("aesthetic", {"compressibility"}),  # the negative of incompressibility, which is there
        ("darkness", {"darkness", "compressibility"}),
        ("incompressibility", {"incompressibility", "compressibility"}),
        ("compressibility", {"incompressibility", "compressibility"}),
        ("saturation:0.5 + symmetry:-2.0", {"saturation", "symmetry", "compressibility"}),
    ],
)
def test_artefact_statistics_are_those_of_pixels_that_were_not_trained_on(
    trained: str, absent: set[str]
) -> None:
    pixels = {name for name, card in CARDS.items() if card.family == "pixels"}
    assert choose_artefacts([resolve(trained).card], CARDS) == sorted(pixels - absent)


def test_every_statistic_says_what_it_measures_and_registered_ones_are_the_default() -> None:
    assert all(card.lineage for card in CARDS.values() if card.family == "pixels")
    assert shared_lineage(CARDS["compressibility"], CARDS["incompressibility"]) == ("pixel detail",)
    assert shared_lineage(CARDS["darkness"], CARDS["edge_density"]) == ()
    assert set(choose_artefacts([])) <= set(rewards.names())
