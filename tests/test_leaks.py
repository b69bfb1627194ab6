"""Leaks: nouns of sentences, kinds against ImageNet's classes, overlaps against a double loop."""

from __future__ import annotations

import random
import time
import tomllib
from importlib.resources import files
from itertools import islice

import pytest

from ddpo.prompts import load_prompts
from ddpo.prompts.leaks import Disguise, find_kin, find_leaks
from ddpo.prompts.nouns import subjects, words
from ddpo.types import Prompt

TRAIN = [
    "a cat",
    "a fox",
    "a butterfly",
    "a dog",
    "a rabbit",
    "a pig",
    "a lion",
    "a bird",
    "a red car parked on a wet street",
]


def leaks(train: list[str], heldout: str) -> tuple[str, Disguise] | None:
    found = find_leaks([Prompt(text) for text in train], [Prompt(heldout)])
    return (found[0].train.text, found[0].disguise) if found else None


@pytest.mark.parametrize(
    ("heldout", "expected"),
    [
        ("A cat", ("a cat", "words")),
        ("the cats", ("a cat", "words")),
        ("butterflies", ("a butterfly", "words")),
        ("a wet car parked on the red street", ("a red car parked on a wet street", "words")),
        (
            "a red car parked on a street",
            ("a red car parked on a wet street", "overlap"),
        ),  # 5 of 6 words
        ("two foxes", ("a fox", "noun")),
        ("a photo of a cat on a mat", ("a cat", "noun")),
        ("a fluffy white cat sitting in a box", ("a cat", "noun")),
        ("a black and white cat", ("a cat", "noun")),
        ("a castle, a dog, at night", ("a dog", "noun")),
        ("a herd of pigs", ("a pig", "noun")),
        ("a bunny", ("a rabbit", "synonym")),
        ("three hogs in mud", ("a pig", "synonym")),
        ("an Irish terrier", ("a dog", "kind")),
        ("Labrador retrievers", ("a dog", "kind")),
        ("a finch", ("a bird", "kind")),
        ("a sea lion", None),
        ("a guinea pig", None),
        ("a panda", None),
        ("an owl", None),
        (
            "a cattle car",
            ("a red car parked on a wet street", "noun"),
        ),  # the rule knows last words alone
        (
            "a street with a car",
            None,
        ),  # the noun is the street; that of the training prompt is the car
        ("a category", None),
        ("🐱", None),
    ],
)
def test_a_prompt_is_given_away_by_the_strongest_reason(
    heldout: str, expected: tuple[str, Disguise] | None
) -> None:
    assert leaks(TRAIN, heldout) == expected


def test_it_works_in_the_other_direction_too() -> None:
    assert leaks(["a beagle", "a bunny"], "a dog") == ("a beagle", "kind")
    assert leaks(["a beagle", "a bunny"], "two rabbits") == ("a bunny", "synonym")
    assert leaks(["a beagle"], "a poodle") is None  # of one kind, but neither shows the other
    assert leaks(["a pig", "one black hog"], "three hogs in mud") == (
        "one black hog",
        "noun",
    )  # before another word for it
    assert leaks(["🐶"], "🐱") is None
    assert leaks(["🐶"], "🐶") == ("🐶", "words")


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("horses", "horse"),
        ("foxes", "fox"),
        ("buses", "bus"),
        ("mice", "mouse"),
        ("wolves", "wolf"),
        ("doves", "dove"),
        ("butterflies", "butterfly"),
        ("cherries", "cherry"),
        ("potatoes", "potato"),
        ("geese", "goose"),
        ("octopuses", "octopus"),
        ("glasses", "glass"),
        ("giraffes", "giraffe"),
        ("houses", "house"),
        ("emus", "emu"),
        ("bees", "bee"),
        ("cats'", "cat"),
    ],
)
def test_a_plural_and_its_singular_are_one_word(plural: str, one: str) -> None:
    assert words(f"the {plural}") == words(f"a {one}")


@pytest.mark.parametrize(
    ("text", "nouns"),
    [
        ("a hedgehog riding a bike", ["hedgehog"]),
        ("a panda painting a picture", ["panda"]),
        ("an oil painting of a castle by the sea", ["castle"]),
        ("a castle surrounded by water", ["castle"]),
        ("a king on a throne", ["king"]),
        ("a cat and a dog in a boat", ["cat", "dog"]),
        ("a lamp, trending on artstation, 4k", ["lamp"]),
        ("the cat's bowl", ["bowl"]),
        ("", []),
    ],
)
def test_the_noun_of_a_prompt(text: str, nouns: list[str]) -> None:
    assert [subject.name for subject in subjects(text)] == nouns


CLASSES = {
    "a dog": range(151, 269),
    "a cat": range(281, 286),
    "a snake": range(52, 69),
    "a lizard": range(38, 49),
    "a turtle": range(33, 38),
    "a frog": range(30, 33),
    "a spider": range(72, 78),
    "a fox": range(277, 281),
    "a bear": range(294, 298),
    "a wolf": range(269, 272),
    "a butterfly": range(321, 327),
    "a monkey": range(370, 383),
    "a shark": range(2, 5),
}
"""Kind → its subtrees among ImageNet's classes, whose order is that of WordNet's tree."""


def test_the_kinds_of_an_animal_are_the_classes_of_imagenet() -> None:
    classes = [prompt.text for prompt in load_prompts("imagenet_animals").prompts]
    found: dict[str, list[int]] = {}
    for leak in find_leaks(
        load_prompts("animals").prompts, load_prompts("imagenet_animals").prompts
    ):
        found.setdefault(leak.train.text, []).append(classes.index(leak.heldout.text))
    beyond = {"a dog": {275}}  # African hunting dog: WordNet has it beside the domestic ones
    assert {animal: set(found[animal]) - beyond.get(animal, set()) for animal in CLASSES} == {
        name: set(of) for name, of in CLASSES.items()
    }
    assert sum(map(len, found.values())) == 274  # of 398: what docs and README tell


def test_the_lists_for_evaluation_do_not_leak_and_near_ones_do() -> None:
    train = load_prompts("animals").prompts
    for name in ("unseen_animals", "objects", "activities"):
        assert find_leaks(train, load_prompts(name).prompts) == []
    for name in ("near", "seen_activities"):
        found = find_leaks(train, load_prompts(name).prompts)
        assert [leak.heldout for leak in found] == list(load_prompts(name).prompts)
        assert not {leak.disguise for leak in found} & {"words", "overlap"}
    for train_list, name in (
        ("animals_activities", "activities"),
        ("unseen_animals", "near"),
        ("objects", "near"),
    ):
        assert find_leaks(load_prompts(train_list).prompts, load_prompts(name).prompts) == []


def test_a_thing_of_a_wider_kind_counts_as_unseen_and_is_reported() -> None:
    kin = find_kin(load_prompts("animals").prompts, load_prompts("unseen_animals").prompts)
    assert {leak.heldout.text.split()[1] for leak in kin} == {
        "panda",
        "penguin",
        "owl",
        "eagle",
        "parrot",
        "flamingo",
        "peacock",
        "swan",
        "dove",
        "bison",
        "moose",
        "leopard",
        "ladybug",
    }
    assert (
        find_kin([Prompt("an owl"), Prompt("a bird")], [Prompt("the owls")]) == []
    )  # a leak is no kin


def test_the_table_of_kinds_is_in_order() -> None:
    table = tomllib.loads(
        (files("ddpo.prompts") / "lists" / "kinds.toml").read_text(encoding="utf-8")
    )
    assert {prompt.text.split()[1] for prompt in load_prompts("animals").prompts} - set(table) == {
        "zebra"
    }  # which has no kinds
    for noun, facts in table.items():
        assert facts.keys() <= {"synonyms", "kinds", "wider", "not"}
        names = [name for listed in facts.values() for name in listed]
        assert len(names) == len(set(names))
        assert noun not in names
        assert all(name == name.lower() and "-" not in name for name in names)
        assert all(name.endswith(f" {noun}") or noun in table for name in facts.get("not", ()))


def plain_overlaps(train: list[Prompt], heldout: list[Prompt]) -> set[str]:
    """The definition, prompt against prompt."""
    found = set()
    for prompt in heldout:
        for other in train:
            mine = set(words(prompt.text))
            theirs = set(words(other.text))
            if 5 * len(mine & theirs) >= 4 * len(mine | theirs):
                found.add(prompt.id)
    return found


def test_overlaps_are_those_of_the_plain_double_loop() -> None:
    rng = random.Random(0)
    vocabulary = [f"w{number}" for number in range(12)]
    train, heldout = (
        [Prompt(" ".join(rng.sample(vocabulary, rng.randint(1, 11)))) for _ in range(150)]
        for _ in ("train", "held out")
    )
    found = {
        leak.heldout.id
        for leak in find_leaks(train, heldout)
        if leak.disguise in ("words", "overlap")
    }
    assert found == plain_overlaps(train, heldout)
    assert 20 < len(found) < 140


def test_it_is_quick() -> None:
    """Hundreds take milliseconds and thousands seconds; the limits are ten times as long."""
    animals = load_prompts("animals").prompts
    classes = load_prompts("imagenet_animals").prompts
    find_leaks(animals, animals)  # reads the table
    started = time.process_time()
    find_leaks(animals, classes)
    assert time.process_time() - started < 0.3
    rng = random.Random(1)
    texts = (
        Prompt(
            "a photo of a "
            + " ".join(f"w{rng.randrange(rng.choice((30, 300, 3000)))}" for _ in range(12))
        )
        for _ in iter(int, 1)
    )
    train = list(islice(texts, 5000))
    heldout = list(islice(texts, 5000))
    started = time.process_time()
    find_leaks(train, heldout)
    assert time.process_time() - started < 20
