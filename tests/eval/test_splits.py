"""Splits: default lists of a model, roles, leaks, and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ddpo.errors import PromptError
from ddpo.eval.inputs.splits import (
    CLOSED_LISTS,
    DEFAULT_LISTS,
    PAIRING_LISTS,
    SplitFacts,
    default_lists,
    load_splits,
)
from ddpo.eval.plan_notes import _unknown_words
from ddpo.prompts import load_prompts
from ddpo.rewards.scenes.world import NOUNS
from ddpo.types import Prompt

ANIMALS = load_prompts("animals").prompts


def roles(*names: str, trained: object = ANIMALS, model: str = "a/model") -> dict[str, str]:
    loaded = load_splits(names, trained, model=model)  # type: ignore[arg-type]
    return {split.name: split.role for split, _ in loaded}


def facts(name: str, trained: list[Prompt] | tuple[Prompt, ...], **options: str) -> SplitFacts:
    return load_splits([name], trained, **options)[0][1]  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests write their lists into the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(name: str, *texts: str) -> str:
    Path(name).write_text("\n".join(texts), encoding="utf-8")
    return name


def test_the_embedded_model_gets_the_lists_of_which_it_knows_every_word() -> None:
    assert default_lists("emoji") == CLOSED_LISTS
    assert default_lists("emoji-scenes", load_prompts("animals").prompts) == CLOSED_LISTS
    paired = load_prompts("animals_activities").prompts
    assert default_lists("emoji-scenes", paired) == PAIRING_LISTS
    assert default_lists("org/model", paired) == DEFAULT_LISTS
    known = {word for noun in NOUNS for word in noun.split()}
    nouns = {
        name: {word for prompt in load_prompts(name).prompts for word in prompt.text.split()[1:]}
        for name in DEFAULT_LISTS
    }
    assert [name for name in DEFAULT_LISTS if nouns[name] <= known] == list(CLOSED_LISTS)
    assert roles(model="emoji") == {
        "animals": "seen",
        "unseen_animals": "unseen_animals",
        "objects": "objects",
    }


def test_a_run_on_prompts_of_geneval_is_judged_on_its_unseen_nouns() -> None:
    """The nouns of its training list are of `unseen_animals` and `objects` too."""
    listed = load_prompts("emoji_geneval_train").prompts
    expected = {"training": 64, "emoji_geneval_test": 190}
    for trained in (listed, listed[:4]):
        found = load_splits([], trained, model="emoji-flow")
        sizes = {split.name: len(split.prompts) for split, _ in found}
        assert sizes == expected | {"training": min(len(trained), 64)}
        assert not any(facts.leaks for _, facts in found)
    assert default_lists("emoji-flow", ANIMALS[:3]) == CLOSED_LISTS
    assert default_lists("org/model", listed) == DEFAULT_LISTS


def test_roles_follow_what_was_trained_on() -> None:
    usual = {
        "animals": "seen",
        "unseen_animals": "unseen_animals",
        "objects": "objects",
        "activities": "activities",
        "near": "near",
    }
    assert roles() == usual
    assert roles(trained=None) == usual | {"near": "external"}  # near to what is not known
    on_objects = roles(trained=load_prompts("objects").prompts)
    assert (on_objects["animals"], on_objects["objects"], on_objects["near"]) == (
        "external",
        "seen",
        "external",
    )
    written("mine.txt", "a cat", "a dog")
    assert roles("mine.txt") == {"mine": "seen"}
    assert roles("mine.txt", trained=[Prompt("a cat")]) == {"mine": "external"}


def test_other_training_prompts_take_the_place_of_the_animals() -> None:
    trained = [Prompt(f"a house with {number} doors") for number in range(1000)]
    (split, reported), *others = load_splits((), trained)
    assert (split.name, split.role, reported.source) == (
        "training",
        "seen",
        "64 of the run's 1,000 training prompts",
    )
    numbers = [int(re.findall(r"\d+", prompt.text)[0]) for prompt in split.prompts]
    assert numbers[:3] == [0, 15, 31]  # 1000/64 = 15.625 apart
    assert len(set(numbers)) == 64
    assert [split.name for split, _ in others] == [
        "unseen_animals",
        "objects",
        "activities",
        "near",
    ]


def test_a_name_can_be_given_and_claims_a_role_but_not_that_of_the_seen() -> None:
    written("list.txt", "a beagle", "a yak")
    assert roles("breeds=list.txt", "near=list.txt", "seen=list.txt") == {
        "breeds": "external",
        "near": "near",
        "seen": "external",
    }
    assert roles("held=unseen_animals") == {"held": "unseen_animals"}
    written("a=b.txt", "a yak")
    assert roles("a=b.txt") == {"a=b": "external"}  # a file of that name wins


def test_leaks_are_reported_or_dropped() -> None:
    written("mine.txt", "the cats", "a poodle", "a lighthouse")
    reported = facts("mine.txt", ANIMALS)
    assert (reported.prompts, reported.dropped) == (3, 0)
    assert [(leak.heldout, leak.train) for leak in reported.leaks] == [
        ("the cats", "a cat"),
        ("a poodle", "a dog"),
    ]
    ((split, dropped),) = load_splits(["mine.txt"], ANIMALS, leaks="drop")
    assert [prompt.text for prompt in split.prompts] == ["a lighthouse"]
    assert (dropped.prompts, dropped.dropped, dropped.leaks) == (1, 2, reported.leaks)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("near", "40 of the 40 prompts of near show a kind"),
        ("seen_activities", "36 of the 36 prompts of seen activities show"),
    ],
)
def test_what_is_near_by_design_is_no_alarm_and_stays(name: str, says: str) -> None:
    reported = facts(name, ANIMALS, leaks="drop")
    assert (reported.leaks, reported.dropped) == ((), 0)
    assert reported.notes[0].startswith(says)
    written("breeds.txt", "a beagle", "a dog")
    near = facts("near=breeds.txt", ANIMALS, leaks="drop")
    assert ([leak.heldout for leak in near.leaks], near.prompts) == (
        ["a dog"],
        1,
    )  # the very prompt that was trained on


def test_unseen_things_of_a_wider_kind_are_noted() -> None:
    (note,) = facts("unseen_animals", ANIMALS).notes
    assert note == (
        "Counted as unseen, since only a wider kind was trained on: "
        "13 of the 38 prompts of unseen animals (a panda, a penguin, an owl, an eagle, …)."
    )


def test_a_prompt_may_stand_in_two_splits_and_a_note_says_so() -> None:
    written("one.txt", "a lamp", "a kettle")
    written("two.txt", "a kettle", "a spoon")
    first, second = (reported for _, reported in load_splits(["one.txt", "two.txt"], ANIMALS))
    assert first.notes == ()
    assert second.notes == (
        "1 prompt is both in one and in two: the images are the same and count in each.",
    )


def test_notes_have_the_words_of_a_list_and_not_its_file_name() -> None:
    written("my_lamps.txt", "a lamp", "a qzxwv")
    written("more_lamps.txt", "a lamp", "a qzxwv")
    loaded = load_splits(["my_lamps.txt", "more_lamps.txt"], ANIMALS)
    (note,) = loaded[1][1].notes
    assert note.startswith("2 prompts are both in my lamps and in more lamps: ")
    lines = _unknown_words("emoji", [split for split, _ in loaded])
    assert [line.partition(":")[0] for line in lines] == [
        "Prompts of my lamps",
        "Prompts of more lamps",
    ]


def test_markup_and_emoji_and_very_long_prompts_pass_as_they_are() -> None:
    texts = [
        '<script>alert("x")</script> & a cat',
        "🐱🐶",
        "\u202e reversed",
        "word " * 2500 + "end",
    ]
    written("odd.txt", *texts)
    ((split, reported),) = load_splits(["odd.txt"], [Prompt("🐶"), Prompt("a house " * 2000)])
    assert [prompt.text for prompt in split.prompts] == texts
    assert reported.leaks == ()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["empty.txt"], r"empty\.txt holds no prompt"),
        (["latin.txt"], r"latin\.txt:1 is not UTF-8 text"),
        (
            ["objects", "objects"],
            "two splits have the name 'objects': give one of them another with NAME=FILE",
        ),
        (["sub/one.txt", "one=objects"], "two splits have the name 'one'"),
        (["unseen_animal"], "did you mean 'unseen_animals'"),
        (["=objects"], "expected a list, a file, or NAME=FILE"),
        (["x="], "expected a list, a file, or NAME=FILE"),
        (
            ["a.jsonl", "b.jsonl"],
            "the prompt 'two cats' has one metadata in 'a' and another in 'b'",
        ),
    ],
)
def test_unusable_lists_are_reported_in_one_line(here: Path, names: list[str], says: str) -> None:
    Path("sub").mkdir()
    written("sub/one.txt", "a lamp")
    written("empty.txt", " ", "")
    (here / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    for number, name in enumerate("ab"):
        written(
            f"{name}.jsonl",
            json.dumps({"prompt": "two cats", "metadata": {"questions": [str(number)]}}),
        )
    with pytest.raises(PromptError, match=says) as caught:
        load_splits(names, ANIMALS)
    assert "\n" not in str(caught.value)


def test_columns_of_two_tables_do_not_contradict_each_other(here: Path) -> None:
    """A prompt in two tables keeps the metadata of both; values under "metadata" win."""
    written(
        "parti.csv",
        "prompt,Category,Challenge",
        "a lamp,Artifacts,Basic",
        "a kettle,Artifacts,Basic",
    )
    written("draw.csv", "Prompts,Category,by", "a lamp,Colors,x")
    written("plain.txt", "a lamp", "a spoon")
    written("own.jsonl", '{"prompt": "a kettle", "metadata": {"Category": "own"}}')
    loaded = load_splits(["parti.csv", "draw.csv", "plain.txt", "own.jsonl"], ANIMALS)
    found = [
        {prompt.text: dict(prompt.metadata) for prompt in split.prompts} for split, _ in loaded
    ]
    lamp = {"Challenge": "Basic", "by": "x"}
    kettle = {"Category": "own", "Challenge": "Basic"}
    assert found == [
        {"a lamp": lamp, "a kettle": kettle},
        {"a lamp": lamp},
        {"a lamp": lamp, "a spoon": {}},
        {"a kettle": kettle},
    ]


def test_a_list_that_leaked_as_a_whole_cannot_be_dropped_away() -> None:
    written("all.txt", "the cats", "two dogs")
    with pytest.raises(
        PromptError,
        match="every prompt of 'all' leaked into training: report the leaks, or leave the list out",
    ):
        load_splits(["all.txt"], ANIMALS, leaks="drop")
    known = [
        *ANIMALS,
        *(
            Prompt(f"the {prompt.text.split()[1]}")
            for prompt in load_prompts("unseen_animals").prompts
        ),
    ]
    assert "unseen_animals" not in [split.name for split, _ in load_splits((), known, leaks="drop")]
