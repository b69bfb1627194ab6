"""Published files of human choices give the pairs that stand in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ddpo.errors import ConfigError
from ddpo.reward_quality.preference_file import read_preferences

Run = Callable[..., tuple[int, str, str]]
Pair = tuple[str, str, float]

IMAGE_REWARD = {
    "id": "005658-0040",
    "prompt": "deathly portal to the abyss",
    "generations": ["a.webp", "b.webp", "c.webp"],
    "ranking": [2, 1, 5],
}
HPD_TEST = {
    "prompt": "a fox",
    "image_path": ["a.jpg", "b.jpg", "c.jpg"],
    "rank": [1, 0, 1],
    "raw_annotations": [{"rank": [1, 0, 2], "user_hash": "x"}],
}
HPD_TRAIN = {"human_preference": [0, 1], "prompt": "a fox", "file_path": ["a.jpg", "b.jpg"]}


def pairs(path: Path) -> list[Pair]:
    found = []
    for row in read_preferences(path):
        assert isinstance(row.image_a, Path)
        assert isinstance(row.image_b, Path)
        assert row.image_a.parent == path.parent
        found.append((row.image_a.name, row.image_b.name, row.choice))
    return found


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "image_reward.json",
            json.dumps([IMAGE_REWARD], indent=4),
            [("a.webp", "b.webp", 0), ("a.webp", "c.webp", 1), ("b.webp", "c.webp", 1)],
        ),
        (
            "hpd_test.json",
            json.dumps([HPD_TEST]),
            [("a.jpg", "b.jpg", 0), ("a.jpg", "c.jpg", 0.5), ("b.jpg", "c.jpg", 1)],
        ),
        ("hpd_train.json", json.dumps([HPD_TRAIN, HPD_TRAIN]), [("a.jpg", "b.jpg", 0)] * 2),
        ("one.json", json.dumps(HPD_TRAIN), [("a.jpg", "b.jpg", 0)]),
        ("hpd.jsonl", json.dumps(HPD_TRAIN), [("a.jpg", "b.jpg", 0)]),
        (
            "best_of_three.jsonl",
            json.dumps({"images": ["a", "b", "c"], "human_preference": [0, 1, 0]}),
            [("a", "b", 0), ("b", "c", 1)],
        ),
        (
            "ranking.csv",
            'prompt,generations,ranking\na fox,"[""a"", ""b""]","[2, 1]"\n',
            [("a", "b", 0)],
        ),
        ("pairs.tsv", "prompt\timage_a\timage_b\tlabel\nx\ta\tb\ttie\n", [("a", "b", 0.5)]),
        ("pairs.csv", "Prompt,Image_0,Image_1,Label\nx,a,b,1\n", [("a", "b", 0)]),
        (
            "pairs.json",
            json.dumps([{"image_a": "a", "image_b": "b", "label": "a"}]),
            [("a", "b", 1)],
        ),
        ("dpo.jsonl", json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}), [("a", "b", 1)]),
        (
            "shares.csv",
            "image_0,image_1,label_0,label_1\na,b,0.5,0.5\na,b,0,1\n",
            [("a", "b", 0.5), ("a", "b", 0)],
        ),
        ("second.jsonl", '{"image_0": "a", "image_1": "b", "label_1": 1}', [("a", "b", 0)]),
    ],
)
def test_files_as_they_are_published(
    tmp_path: Path, name: str, content: str, expected: list[Pair]
) -> None:
    (tmp_path / name).write_text(content)
    assert pairs(tmp_path / name) == expected


@pytest.fixture
def png(tmp_path: Path) -> list[bytes]:
    """Three images, each brighter than the one before."""
    for level in range(3):
        Image.new("L", (8, 8), 100 * level).save(tmp_path / f"{level}.png")
    return [(tmp_path / f"{level}.png").read_bytes() for level in range(3)]


def test_pick_a_pic_with_its_bytes(tmp_path: Path, png: list[bytes]) -> None:
    rows = [
        {
            "caption": "x",
            "jpg_0": png[0],
            "jpg_1": png[1],
            "label_0": 1.0,
            "label_1": 0.0,
            "has_label": True,
        },
        {
            "caption": "x",
            "jpg_0": png[0],
            "jpg_1": png[2],
            "label_0": 0.5,
            "label_1": 0.5,
            "has_label": True,
        },
        {
            "caption": "x",
            "jpg_0": png[1],
            "jpg_1": png[2],
            "label_0": 0.0,
            "label_1": 0.0,
            "has_label": False,
        },
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "pick.parquet")
    found = read_preferences(tmp_path / "pick.parquet")
    assert [(row.image_a, row.image_b, row.choice) for row in found] == [
        (png[0], png[1], 1),
        (png[0], png[2], 0.5),
    ]
    assert (found.rankings, found.ranked_pairs, found.unlabelled) == (0, 0, 1)


@pytest.mark.parametrize(("best", "choice"), [("u0", 1), ("u1", 0), ("tie", 0.5)])
def test_the_best_uid_of_pick_a_pic(tmp_path: Path, best: str, choice: float) -> None:
    row = {
        "jpg_0": "a",
        "jpg_1": "b",
        "image_0_uid": "u0",
        "image_1_uid": "u1",
        "best_image_uid": best,
    }
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    assert pairs(tmp_path / "p.jsonl") == [("a", "b", choice)]


def test_rankings_of_images_as_hugging_face_writes_them(tmp_path: Path, png: list[bytes]) -> None:
    images = [{"bytes": content, "path": None} for content in png]
    pd.DataFrame([{"prompt": "x", "images": images, "rank": [2, 1, 3]}]).to_parquet(
        tmp_path / "r.parquet"
    )
    found = [
        (row.image_a, row.image_b, row.choice) for row in read_preferences(tmp_path / "r.parquet")
    ]
    assert found == [(png[0], png[1], 0), (png[0], png[2], 1), (png[1], png[2], 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"images": ["a"], "rank": [1]}, "p.jsonl:1: a ranking needs two images or more, got 1"),
        ({"images": ["a", "b"], "rank": [1]}, "p.jsonl:1: rank has 1 values for 2 images"),
        ({"images": ["a", "b"], "rank": ["x", 1]}, "p.jsonl:1: rank must be numbers"),
        ({"images": ["a", "b"], "rank": [True, 1]}, "p.jsonl:1: rank must be numbers"),
        ({"images": ["a", "b"], "rank": 1}, "p.jsonl:1: rank must be a list, got 1"),
        ({"images": ["a", "b"]}, "p.jsonl:1: images, but none of ranking, rank"),
        ({"images": "a", "rank": [1]}, "p.jsonl:1: images must be a list"),
        (
            {"images": ["a", 7], "rank": [1, 2]},
            "p.jsonl:1: image 2 is neither a path nor an image: 7",
        ),
        (
            {"file_path": ["a", "b"], "human_preference": 1},
            "human_preference must be a list, got 1",
        ),
        ({"file_path": ["a", "b"], "human_preference": [0, 0]}, "must be 1 for preferred images"),
        ({"file_path": ["a", "b"], "human_preference": [0, 3]}, "must be 1 for preferred images"),
        (
            {"image_a": "a", "image_b": "b", "label_0": 1, "label_1": 1},
            "the labels 1 and 1 of two images contradict",
        ),
        ({"image_a": "a", "image_b": "b", "label_1": "x"}, "the label 'x' is not one"),
        (
            {"image_0": "a", "image_1": "b", "best_image_uid": "u", "image_0_uid": "v"},
            "best_image_uid 'u' is neither",
        ),
        ({"image_a": "https://x.org/a.png", "image_b": "b", "label": "a"}, "image_a is a URL"),
        (
            {"image_a": {"bytes": None, "path": None}, "image_b": "b", "label": "a"},
            "image_a is neither a path nor",
        ),
        ({"chosen": "a"}, "p.jsonl:1: no rejected"),
        (
            {"image_a": "a", "image_b": "b", "label": "a", "prompt": 3},
            "p.jsonl:1: 'prompt' must be a text, got 3",
        ),
        ({"image_a": "a", "Image_A": "c", "image_b": "b", "label": "a"}, "two columns of one name"),
    ],
)
def test_rows_that_cannot_be_understood_are_named(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    with pytest.raises(ConfigError, match=message) as caught:
        list(read_preferences(tmp_path / "p.jsonl"))
    assert "\n" not in str(caught.value)


def test_validate_tells_how_many_pairs_come_from_rankings(
    ddpo: Run, tmp_path: Path, png: list[bytes]
) -> None:
    """Two rankings, brightest best; darkness prefers dark images, so no strict pair is right."""
    rankings = [
        {"prompt": "x", "image_path": ["0.png", "1.png", "2.png"], "rank": [3, 2, 1]},
        {"prompt": "y", "image_path": ["0.png", "1.png", "2.png"], "rank": [2, 1, 1]},
    ]
    (tmp_path / "hpd.json").write_text(json.dumps(rankings))
    run = partial(ddpo, "rewards", "validate", columns=100)
    code, printed, _ = run(
        "darkness", "--preferences", tmp_path / "hpd.json", "--out", tmp_path / "o.json"
    )
    assert code == 0
    assert "6 pairs of 2 prompts" in printed
    assert "6 pairs come from 2 rankings" in printed
    report = json.loads((tmp_path / "o.json").read_text())
    assert (report["pairs"], report["ties"], report["prompts"]) == (6, 1, 2)
    assert (report["rankings"], report["ranked_pairs"], report["unlabelled"]) == (2, 6, 0)
    assert report["accuracy"]["imagereward"]["value"] == 0


def test_pairs_of_a_ranking_without_prompt_are_resampled_together(
    ddpo: Run, tmp_path: Path, png: list[bytes]
) -> None:
    ranking = {"image_path": ["0.png", "1.png", "2.png"], "rank": [3, 2, 1]}
    (tmp_path / "r.jsonl").write_text(json.dumps(ranking) + "\n" + json.dumps(ranking) + "\n")
    code, printed, _ = ddpo(
        "rewards", "validate", "darkness", "--preferences", tmp_path / "r.jsonl"
    )
    assert code == 0
    assert "6 pairs of 2 prompts" in printed
