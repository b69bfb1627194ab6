"""Prompt lists: the built-in ones are disjoint, files are read strictly, leaks are found."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from ddpo.errors import PromptError
from ddpo.prompts import builtin_names, load_prompts
from ddpo.types import Prompt

IMAGENET_ANIMALS = "8d356a5fcbea73e8a0cd6854ac02ada9c286c048a34cdcfadd6a1cbcad06224d"


DIGESTS = {
    "animals": "b36ff39eb21d",
    "unseen_animals": "04cb190da385",
    "objects": "f22b68538f3c",
    "near": "6c83da7b2c16",
    "activities": "d61d852da92c",
    "seen_activities": "2fa94e795d60",
    "animals_activities": "457f549d93ec",
}
SIZES = {
    "animals": 45, "unseen_animals": 38, "objects": 50, "near": 40, "activities": 36, "seen_activities": 36, "animals_activities": 135,
}  # fmt: skip


def test_builtin_lists_have_the_promised_sizes_and_are_disjoint() -> None:
    lists = {name: {prompt.id for prompt in load_prompts(name).prompts} for name in SIZES}
    assert {name: len(prompts) for name, prompts in lists.items()} == SIZES
    assert len(set().union(*lists.values())) == sum(SIZES.values())


def test_lists_for_evaluation_are_versioned() -> None:
    """Results of two versions of a list do not compare: a list that changes needs a new version in the README, and a new digest here."""
    readme = (Path(__file__).parents[1] / "ddpo" / "prompt_lists" / "README.md").read_text(encoding="utf-8")
    assert "Version 1 of the lists" in readme
    assert {name: load_prompts(name).digest[:12] for name in SIZES} == DIGESTS


def test_held_out_activities_are_in_no_training_list() -> None:
    def doing(name: str) -> set[str]:
        return {" ".join(prompt.text.split()[2:]) for prompt in load_prompts(name).prompts}

    assert doing("activities") == doing("seen_activities")
    assert len(doing("activities")) == 12
    assert not doing("activities") & doing("animals_activities")
    for name, animals in (("activities", "unseen_animals"), ("seen_activities", "animals")):
        subjects = [" ".join(prompt.text.split()[:2]) for prompt in load_prompts(name).prompts]
        assert len(set(subjects)) == 36
        assert set(subjects) <= {prompt.text for prompt in load_prompts(animals).prompts}


def test_every_builtin_list_is_in_the_table_with_its_size() -> None:
    readme = (Path(__file__).parents[1] / "ddpo" / "prompt_lists" / "README.md").read_text()
    table = {name: int(size) for name, size in re.findall(r"^\| `(\w+)` \| (\d+) \|", readme, re.MULTILINE)}
    assert table == {name: len(load_prompts(name)) for name in builtin_names()}
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \| ([\d, ]+) \|", page, re.MULTILINE)
    told = {name: int(size) for names, sizes in rows for name, size in zip(re.findall(r"`(\w+)`", names), sizes.split(", "), strict=True)}
    assert told == table


def test_the_imagenet_animals_are_the_first_398_classes() -> None:
    """The digest is that of the first 398 lines of ddpo-pytorch's imagenet_classes.txt at 1958463, which says the same."""
    texts = [prompt.text for prompt in load_prompts("imagenet_animals").prompts]
    assert [texts[0], texts[151], texts[268], texts[397]] == [
        "tench, Tinca tinca", "Chihuahua", "Mexican hairless", "puffer, pufferfish, blowfish, globefish",
    ]  # fmt: skip
    assert hashlib.sha256("".join(text + "\n" for text in texts).encode()).hexdigest() == IMAGENET_ANIMALS


def test_activities_are_the_product_of_animals_and_activities() -> None:
    animals = [prompt.text for prompt in load_prompts("animals").prompts]
    expected = [f"{animal} {activity}" for animal in animals for activity in ("washing the dishes", "riding a bike", "playing chess")]
    assert [prompt.text for prompt in load_prompts("animals_activities").prompts] == expected
    assert "an ant riding a bike" in expected


def test_counting_asks_for_what_its_prompts_say() -> None:
    prompts = load_prompts("counting").prompts
    words = Counter(prompt.text.split()[0] for prompt in prompts)
    assert words == dict.fromkeys(("two", "three", "four", "five", "six", "seven", "eight"), 22)
    for prompt in prompts:
        number, plural = prompt.text.split()
        how_many, which = prompt.metadata["questions"]
        assert f" {plural} " in how_many
        assert which == "What animal is in this image?"
        assert prompt.metadata["answers"][0] == number
        assert prompt.metadata["answers"][1][:3] == plural[:3]
    assert {"two wolves", "two sheep", "two fish", "two foxes", "two monkeys", "eight spiders"} <= {prompt.text for prompt in prompts}


def test_weights_have_no_common_divisor_and_are_part_of_the_digest(tmp_path: Path) -> None:
    def written(*weights: object) -> Path:
        path = tmp_path / "w.jsonl"
        path.write_text(
            "".join(
                f'{{"prompt": "{place}"{"" if w is None else f", {chr(34)}weight{chr(34)}: {w}"}}}\n' for place, w in enumerate(weights)
            )
        )
        return path

    assert load_prompts(str(written(None, 3, None))).weights == (1, 3, 1)
    assert load_prompts(str(written(4, 6, 2))).weights == (2, 3, 1)
    assert load_prompts(str(written(5, 5))).weights == (1, 1) == load_prompts("animals").weights[:2]
    digests = {load_prompts(str(written(*weights))).digest for weights in ((1, 2), (2, 1), (2, 4), (1, 1), (3, 3))}
    assert len(digests) == 3
    for wrong in (0, -1, 1001, 1.5, '"two"', "true"):
        with pytest.raises(PromptError, match=r'w\.jsonl:2: "weight" must be a whole number from 1 to 1000'):
            load_prompts(str(written(1, wrong)))


def test_a_file_wins_over_a_builtin_list_and_the_source_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_prompts("objects.txt").source == "built-in list 'objects'"
    Path("objects.txt").write_text("a lamp\n\n  a desk \n", encoding="utf-8")
    found = load_prompts("objects.txt")
    assert [prompt.text for prompt in found.prompts] == ["a lamp", "a desk"]
    assert found.source == "file objects.txt"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.txt", b"\n \n", "holds no prompt"),
        ("l.txt", "caf\xe9".encode("latin-1"), "not UTF-8"),
        ("d.txt", b"a cat\na dog\na cat\n", ":3: the prompt 'a cat' stands there twice"),
        ("b.jsonl", b'{"prompt": "x"}\n{nope\n', ":2: not JSON"),
        ("w.jsonl", b'{"text": "x"}\n', 'expected an object with "prompt"'),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptError, match=message):
        load_prompts(str(tmp_path / name))


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(PromptError, match="did you mean 'unseen_animals'"):
        load_prompts("unseen_animal.txt")


def test_metadata_comes_from_jsonl(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "two cats", "metadata": {"questions": ["How many cats?"], "answers": ["two"]}}\n')
    (prompt,) = load_prompts(str(tmp_path / "p.jsonl")).prompts
    assert prompt.metadata["answers"] == ["two"]


def test_ids_are_stable_and_unicode_normal() -> None:
    assert Prompt("a cat").id == "51e467415607"  # sha256("a cat")[:12]
    assert Prompt("cafe\u0301").id == Prompt("caf\u00e9").id
