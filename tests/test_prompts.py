"""Prompt lists: the built-in ones are disjoint, files are read strictly, leaks are found."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from ddpo.errors import PromptError
from ddpo.prompts import builtin_names, listed_prompts, load_prompts
from ddpo.rewards.scenes.grammar import caption
from ddpo.types import Prompt
from pretraining.scene_sampling import activity_scenes

IMAGENET_ANIMALS = "8d356a5fcbea73e8a0cd6854ac02ada9c286c048a34cdcfadd6a1cbcad06224d"


DIGESTS = {
    "animals": "b36ff39eb21d",
    "unseen_animals": "04cb190da385",
    "objects": "f22b68538f3c",
    "near": "6c83da7b2c16",
    "activities": "d61d852da92c",
    "seen_activities": "2fa94e795d60",
    "animals_activities": "457f549d93ec",
    "seen_pairings": "b30e2cb61872",
    "new_pairings": "91514273c080",
    "unseen_pairings": "d0639578d51c",
    "counting": "9f20d3c3eea8",
    "imagenet_animals": "612cf0f6d775",
    "emoji_geneval_train": "3ad7af4d3b09",
    "emoji_geneval_test": "e272d499762b",
}
SIZES = {
    "animals": 45,
    "unseen_animals": 38,
    "objects": 50,
    "near": 40,
    "activities": 36,
    "seen_activities": 36,
    "animals_activities": 135,
}


def test_builtin_lists_have_the_promised_sizes_and_are_disjoint() -> None:
    lists = {name: {prompt.id for prompt in load_prompts(name).prompts} for name in SIZES}
    assert {name: len(prompts) for name, prompts in lists.items()} == SIZES
    assert len(set().union(*lists.values())) == sum(SIZES.values())


def test_lists_for_evaluation_are_versioned() -> None:
    """A list that changes needs a new version in the README, and a new digest here."""
    readme = (Path(__file__).parents[1] / "ddpo" / "prompts" / "lists" / "README.md").read_text(
        encoding="utf-8"
    )
    assert "Version 1 of the lists" in readme
    assert "version 2 of the two lists of GenEval" in readme
    assert {name: load_prompts(name).digest[:12] for name in builtin_names()} == DIGESTS


def test_pairings_are_those_of_the_data_of_emoji_scenes() -> None:
    texts = {
        name: [prompt.text for prompt in load_prompts(f"{name}_pairings").prompts]
        for name in ("seen", "new", "unseen")
    }
    splits = {"seen": "seen", "new": "held_out", "unseen": "unseen"}
    for name, split in splits.items():
        assert texts[name] == [caption(scene) for scene in activity_scenes(split)]
    paper = [prompt.text for prompt in load_prompts("animals_activities").prompts]
    assert sorted([*texts["seen"], *texts["new"]]) == sorted(paper)
    assert len(texts["new"]) == 15
    assert len(texts["unseen"]) == 3 * 38


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
    readme = (Path(__file__).parents[1] / "ddpo" / "prompts" / "lists" / "README.md").read_text()
    table = {
        name: int(size)
        for name, size in re.findall(r"^\| `(\w+)` \| (\d+) \|", readme, re.MULTILINE)
    }
    assert table == {name: len(load_prompts(name)) for name in builtin_names()}
    page = (Path(__file__).parents[1] / "docs" / "training-prompts.md").read_text()
    table_of_lists = page.partition("| list | prompts |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?`) \| ([\d, ]+) \|", table_of_lists, re.MULTILINE)
    stated = {
        name: int(size)
        for names, sizes in rows
        for name, size in zip(re.findall(r"`(\w+)`", names), sizes.split(", "), strict=True)
    }
    assert stated == table


def test_the_imagenet_animals_are_the_first_398_classes() -> None:
    """The digest of the first 398 lines of imagenet_classes.txt in ddpo-pytorch at 1958463."""
    texts = [prompt.text for prompt in load_prompts("imagenet_animals").prompts]
    assert [texts[0], texts[151], texts[268], texts[397]] == [
        "tench, Tinca tinca",
        "Chihuahua",
        "Mexican hairless",
        "puffer, pufferfish, blowfish, globefish",
    ]
    assert (
        hashlib.sha256("".join(text + "\n" for text in texts).encode()).hexdigest()
        == IMAGENET_ANIMALS
    )


def test_activities_are_the_product_of_animals_and_activities() -> None:
    animals = [prompt.text for prompt in load_prompts("animals").prompts]
    expected = [
        f"{animal} {activity}"
        for animal in animals
        for activity in ("washing the dishes", "riding a bike", "playing chess")
    ]
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
    assert {"two wolves", "two sheep", "two fish", "two foxes", "two monkeys", "eight spiders"} <= {
        prompt.text for prompt in prompts
    }


def test_weights_have_no_common_divisor_and_are_part_of_the_digest(tmp_path: Path) -> None:
    def written(*weights: object) -> Path:
        path = tmp_path / "w.jsonl"
        path.write_text(
            "".join(
                json.dumps({"prompt": str(place)} | ({} if w is None else {"weight": w})) + "\n"
                for place, w in enumerate(weights)
            )
        )
        return path

    assert load_prompts(str(written(None, 3, None))).weights == (1, 3, 1)
    assert load_prompts(str(written(4, 6, 2))).weights == (2, 3, 1)
    assert load_prompts(str(written(5, 5))).weights == (1, 1) == load_prompts("animals").weights[:2]
    digests = {
        load_prompts(str(written(*weights))).digest
        for weights in ((1, 2), (2, 1), (2, 4), (1, 1), (3, 3))
    }
    assert len(digests) == 3
    for wrong in (0, -1, 1001, 1.5, '"two"', "true"):
        with pytest.raises(
            PromptError, match=r'w\.jsonl:2: "weight" must be a whole number from 1 to 1000'
        ):
            load_prompts(str(written(1, wrong)))


def test_a_file_wins_over_a_builtin_list_and_the_source_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        ("b.jsonl", b'{"prompt": "x"}\n{nope\n', ":2: not JSON"),
        (
            "w.jsonl",
            b'{"words": "x"}\n',
            ":1: no prompt; the columns are words; expected one of prompt, prompts, text, caption",
        ),
    ],
)
def test_bad_files_are_reported_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptError, match=message):
        load_prompts(str(tmp_path / name))


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(PromptError, match="did you mean 'unseen_animals'"):
        load_prompts("unseen_animal.txt")


def test_metadata_comes_from_jsonl(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "two cats", '
        '"metadata": {"questions": ["How many cats?"], "answers": ["two"]}}\n'
    )
    (prompt,) = load_prompts(str(tmp_path / "p.jsonl")).prompts
    assert prompt.metadata["answers"] == ["two"]


def test_ids_are_stable_and_unicode_normal() -> None:
    assert Prompt("a cat").id == "51e467415607"  # sha256("a cat")[:12]
    assert Prompt("cafe\u0301").id == Prompt("caf\u00e9").id


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


PARTI = (
    "Prompt\tCategory\tChallenge\tNote\n"
    "bond\tAbstract\tBasic\t\n"
    '"GIGGLE" on a wall\tArts\tBasic\tx\n'
)
GENEVAL = (
    '{"tag": "counting", "include": [{"class": "bench", "count": 2}], '
    '"exclude": [{"class": "bench", "count": 3}], "prompt": "two benches"}\n'
)


@pytest.mark.parametrize(
    ("name", "content", "texts", "metadata"),
    [
        (
            "parti.tsv",
            PARTI,
            ["bond", '"GIGGLE" on a wall'],
            {"Category": "Abstract", "Challenge": "Basic"},
        ),
        (
            "drawbench.csv",
            'Prompts,Category\nA red car.,Colors\n"A dog, a cat",DALL-E\n',
            ["A red car.", "A dog, a cat"],
            {"Category": "Colors"},
        ),
        (
            "anime.json",
            '["a cat in the rain", "a dog, in the snow"]',
            ["a cat in the rain", "a dog, in the snow"],
            {},
        ),
        ("up.JSONL", '{"prompt": "a cat"}\n{"prompt": "a dog"}\n', ["a cat", "a dog"], {}),
        (
            "geneval.jsonl",
            GENEVAL,
            ["two benches"],
            {
                "tag": "counting",
                "include": [{"class": "bench", "count": 2}],
                "exclude": [{"class": "bench", "count": 3}],
            },
        ),
        (
            "benchmark-prompts.json",
            '[{"id": "005695-0057", "prompt": "a concept art"}]',
            ["a concept art"],
            {"id": "005695-0057"},
        ),
        (
            "compbench.txt",
            "a green bench and a blue bowl\r\na dog\r\n",
            ["a green bench and a blue bowl", "a dog"],
            {},
        ),
        ("laion.csv", "URL,TEXT\nhttp://a,a cat\n", ["a cat"], {"URL": "http://a"}),
        ("coco.csv", ",caption\n0,a cat\n", ["a cat"], {}),
        ("one.csv", "prompt\na cat\n", ["a cat"], {}),
        ("both.jsonl", '{"caption": "long", "prompt": "short"}\n', ["short"], {"caption": "long"}),
        ("meta.csv", 'prompt,metadata,extra\na cat,"{""n"": 2}",x\n', ["a cat"], {"n": 2}),
        (
            "some.csv",
            'prompt,metadata,extra\na cat,,x\na dog,"{""n"": 2}",y\n',
            ["a cat", "a dog"],
            {},
        ),
        (
            "wild.txt",
            "{red|blue} car\n[[masterpiece]], cat\n# 5, oil\ntext: a, b\n",
            ["{red|blue} car", "[[masterpiece]], cat", "# 5, oil", "text: a, b"],
            {},
        ),
        ("utf16.txt", "un café\nein Bär\n".encode("utf-16"), ["un café", "ein Bär"], {}),
        ("prompts", "a cat\n", ["a cat"], {}),
        ("P.TXT", "a cat\n", ["a cat"], {}),
        (
            "joiner.txt",
            "a family \U0001f468\u200d\U0001f469\n",
            ["a family \U0001f468\u200d\U0001f469"],
            {},
        ),
    ],
)
def test_lists_as_they_are_published(
    tmp_path: Path, name: str, content: str | bytes, texts: list[str], metadata: dict[str, object]
) -> None:
    found = load_prompts(written(tmp_path, name, content)).prompts
    assert [prompt.text for prompt in found] == texts
    assert dict(found[0].metadata) == metadata


def test_prompts_of_parquet_without_its_images(tmp_path: Path) -> None:
    rows = [
        {
            "image": {"bytes": b"1", "path": "a.png"},
            "text": "a cat",
            "jpg_0": b"2",
            "at": pd.Timestamp("2024-01-02"),
            "score": float("nan"),
        },
        {
            "image": {"bytes": b"3", "path": "b.png"},
            "text": "a dog",
            "jpg_0": b"4",
            "at": pd.Timestamp("2024-01-03"),
            "score": 0.5,
        },
    ]
    pd.DataFrame(rows, index=[7, 9]).to_parquet(tmp_path / "hf.parquet")
    found = load_prompts(str(tmp_path / "hf.parquet"))
    assert [(prompt.text, dict(prompt.metadata)) for prompt in found.prompts] == [
        ("a cat", {"at": "2024-01-02T00:00:00"}),
        ("a dog", {"at": "2024-01-03T00:00:00", "score": 0.5}),
    ]
    assert len(found.digest) == 64  # the metadata are plain JSON values


@pytest.mark.parametrize(
    ("name", "content", "weights"),
    [
        ("r.txt", "crane\ncat\ncrane\n", (2, 1)),
        ("r.json", '["crane", "cat", "crane", "crane"]', (3, 1)),
        (
            "r.jsonl",
            '{"prompt": "crane", "weight": 2}\n{"prompt": "cat"}\n{"prompt": "crane"}\n',
            (3, 1),
        ),
        ("r.csv", "prompt,weight\ncrane,4\ncat,2\n", (2, 1)),
        ("nfc.txt", "cafe\u0301\ncat\ncaf\u00e9\n", (2, 1)),
        ("same.jsonl", '{"prompt": "a", "metadata": {"n": 1}}\n' * 2 + '{"prompt": "b"}\n', (2, 1)),
        ("twice.txt", "a\nb\na\nb\n", (1, 1)),
    ],
)
def test_repeated_prompts_are_drawn_as_often_as_they_are_named(
    tmp_path: Path, name: str, content: str, weights: tuple[int, ...]
) -> None:
    assert load_prompts(written(tmp_path, name, content)).weights == weights


def test_repeats_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = Path(written(tmp_path, "r.txt", "crane\ncat\ncrane\n"))
    assert [prompt.text for prompt in listed_prompts(path)] == ["crane", "cat", "crane"]


def test_columns_that_differ_for_one_prompt_describe_the_rows(tmp_path: Path) -> None:
    content = "caption,style,user\na cat,oil,1\na dog,ink,2\na cat,oil,3\na cat,oil,1\n"
    found = load_prompts(written(tmp_path, "p.csv", content))
    assert [dict(prompt.metadata) for prompt in found.prompts] == [
        {"style": "oil"},
        {"style": "ink", "user": "2"},
    ]
    assert found.weights == (3, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "m.jsonl",
            '{"prompt": "a", "metadata": {"n": 1}}\n{"prompt": "a", "metadata": {"n": 2}}\n',
            r"m\.jsonl:2: 'a' has other metadata than at .*m\.jsonl:1",
        ),
        (
            "m.jsonl",
            '{"prompt": "a", "metadata": {"n": 1}}\n{"prompt": "a"}\n',
            r"m\.jsonl:2: 'a' has other metadata",
        ),
        ("m.jsonl", '{"prompt": "a", "metadata": [1]}\n', "m.jsonl:1: metadata must be an object"),
        ("m.csv", "prompt,metadata\na,n=1\n", r"m\.csv:2: metadata: not JSON"),
        ("t.txt", "a cat\nprompt\tn\n", "t.txt:2: a tab in a prompt"),
        ("t.txt", PARTI, "t.txt:1: a tab in a prompt"),
        (
            "t.txt",
            "Prompts,Category\nA red car.,Colors\n",
            "t.txt:1: a line of a table, not a prompt: 'Prompts,Category'",
        ),
        ("t.txt", "file_name,text\na.png,a cat\n", "t.txt:1: a line of a table"),
        ("t.txt", '"id";"caption"\n1;"a cat"\n', "t.txt:1: a line of a table"),
        ("t.txt", "prompt\na cat\n", "t.txt:1: a line of a table"),
        ("t.txt", 'a cat\n"A black dog, a white cat",Colors\n', "t.txt:2: a line of a table"),
        ("t.txt", '{"prompt": "a cat"}\n', "t.txt:1: JSON, not a prompt"),
        ("t.txt", '["a cat", "a dog"]\n', "t.txt:1: JSON, not a prompt"),
        ("t.txt", '[\n"a cat",\n"a dog"\n]\n', "t.txt:1: JSON, not a prompt"),
        (
            "t.csv",
            "a red car,Colors\na dog,Animals\n",
            "t.csv:2: no prompt; the columns are a red car, Colors; expected one of",
        ),
        ("t.csv", "prompt,n\n,2\n", "t.csv:2: an empty prompt"),
        (
            "t.csv",
            "prompt,Prompt\na,b\n",
            "t.csv:2: two columns of one name: 'prompt' and 'Prompt'",
        ),
        ("t.csv", "prompt,n\n", "t.csv holds no prompt"),
        ("t.json", "[]", "t.json holds no prompt"),
        ("t.json", '["a cat", ""]', "t.json:1: an empty prompt"),
        ("t.jsonl", '{"prompt": "a"}\n{"prompt": "  "}\n', "t.jsonl:2: an empty prompt"),
        ("t.jsonl", '{"prompt": null}\n', "t.jsonl:1: an empty prompt"),
        ("t.jsonl", '{"prompt": 7}\n', 't.jsonl:1: expected "prompt" to be a text, got 7'),
        ("t.jsonl", '{"prompt": ["a", "b"]}\n', 't.jsonl:1: expected "prompt" to be a text'),
        ("t.jsonl", '{"prompt": "a cat \\ud83d"}\n', "t.jsonl:1: half a surrogate pair"),
        (
            "t.jsonl",
            '{"prompt": "a", "metadata": {"q": "\\udc00"}}\n',
            "t.jsonl:1: half a surrogate pair",
        ),
        ("t.txt", "a cat\na \x1b[31mdog\n", r"t.txt:2: a control character \(U\+001B\)"),
        ("t.txt", "a cat\u2028a dog\n", r"t.txt:1: a control character \(U\+2028\)"),
        (
            "t.txt",
            "a cat\n" + "x" * 20_001 + "\n",
            "t.txt:2: a prompt of 20001 characters, more than 20000",
        ),
        ("t.txt", "a cat\nun caf\u00e9\n".encode("latin-1"), "t.txt:2 is not UTF-8 text"),
        ("t.txt", "a cat\n".encode("utf-16-le"), "t.txt:1: a NUL character"),
        ("t.yaml", "- a cat\n", "a prompt list must be one of .txt, .csv"),
        ("t.csv.gz", b"\x1f\x8b", "a prompt list must be one of .txt, .csv"),
        ("t.parquet", b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_a_prompt_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        load_prompts(written(tmp_path, name, content))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["a cat \ud83d", "\udcff", json.loads('"x\\udfff"')])
def test_no_prompt_has_half_a_surrogate_pair(text: str) -> None:
    with pytest.raises(PromptError, match="half a character"):
        Prompt(text)


def test_a_folder_of_shards_is_one_list(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="a folder without Parquet files"):
        load_prompts(str(tmp_path))
    for number in range(2):
        frame = pd.DataFrame({"caption": ["a cat", f"a dog {number}"], "jpg_0": [b"1", b"2"]})
        frame.to_parquet(tmp_path / f"train-0000{number}-of-00002.parquet")
    found = load_prompts(str(tmp_path))
    assert [prompt.text for prompt in found.prompts] == ["a cat", "a dog 0", "a dog 1"]
    assert (found.weights, found.name) == ((2, 1, 1), tmp_path.name)


@pytest.mark.parametrize("name", ["", "x" * 5000, "a cat\0", "a cat, a dog"])
def test_what_is_no_name_of_a_list_is_reported_in_one_short_line(name: str) -> None:
    with pytest.raises(PromptError, match="no prompt file and no built-in list") as caught:
        load_prompts(name)
    assert len(str(caught.value)) < 500
