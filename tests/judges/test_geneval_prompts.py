"""The prompt lists `emoji_geneval_train` and `emoji_geneval_test`."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ddpo.prompts import load_prompts
from ddpo.prompts.leaks import find_leaks
from ddpo.rewards.scenes.grammar import Scene, scene_of
from pretraining.geneval_prompts import LISTS, SIZES, prompt_rows


def scenes(split: str) -> list[Scene]:
    return [scene_of(prompt.text) for prompt in load_prompts(f"emoji_geneval_{split}").prompts]


@pytest.mark.parametrize("split", SIZES)
def test_the_lists_are_what_the_script_writes(split: str) -> None:
    lines = (LISTS / f"emoji_geneval_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == prompt_rows(split)


@pytest.mark.parametrize("split", SIZES)
def test_every_prompt_is_of_the_grammar_and_has_genevals_fields(split: str) -> None:
    prompts = load_prompts(f"emoji_geneval_{split}").prompts
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert Counter(prompt.metadata["tag"] for prompt in prompts) == SIZES[split]
    for prompt in prompts:
        scene = scene_of(prompt.text)
        included = prompt.metadata["include"]
        assert {one["class"] for one in included} == {figure.noun for figure in scene.figures}
        assert [one["count"] for one in included] == [scene.count] * len(scene.figures)
        assert prompt.metadata.get("background") == scene.ground


def test_training_and_held_out_prompts_share_no_thing() -> None:
    train, test = (
        {figure.noun for scene in scenes(split) for figure in scene.figures} for split in SIZES
    )
    assert not train & test
    lists = [load_prompts(f"emoji_geneval_{split}").prompts for split in SIZES]
    assert find_leaks(*lists) == []
    assert find_leaks(lists[0], [lists[0][100]]) != []


def test_a_position_is_that_of_the_second_thing_to_the_first() -> None:
    by_text = {row["prompt"]: row for row in prompt_rows("train")}
    position = next(row for row in by_text.values() if row["tag"] == "position")
    assert position["prompt"] == "a rat left of a white ball"
    assert position["include"] == [
        {"class": "ball", "count": 1, "color": "white"},
        {"class": "rat", "count": 1, "position": ["left of", 0]},
    ]
    assert by_text["four teapots"]["exclude"] == [{"class": "teapot", "count": 5}]
    assert by_text["a purple box on a green background"] == {
        "tag": "color_attr",
        "include": [{"class": "box", "count": 1, "color": "purple"}],
        "background": "green",
        "prompt": "a purple box on a green background",
    }
