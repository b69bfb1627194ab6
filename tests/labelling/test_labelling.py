"""Labelling without a browser: the design, the journal of answers, folders, and the file."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from ddpo.errors import ConfigError, ImageError
from ddpo.inputs.tables import read_table
from ddpo.labelling.answers import COLUMNS, Answer, Answers, journal_of
from ddpo.labelling.design import BLOCK, presentations
from ddpo.labelling.folders import folder_pairs, spread
from ddpo.labelling.pair import LabelPair
from ddpo.labelling.session import Session
from ddpo.reward_quality.preference_file import read_preferences

NOW = "2026-11-27T09:00:00+00:00"


def pair(number: int, model: str = "tuned", prompt: str | None = None) -> LabelPair:
    text = f"prompt {number}" if prompt is None else prompt
    digests = (f"{number:064x}", f"{number + 10**6:064x}")
    images = (f"base/{number}.png", f"{model}/{number}.png")
    return LabelPair(text, "", 0, "base", model, "", "", *images, *digests)


def answer(one: LabelPair, choice: str, rater: str = "Ada", left: str = "a") -> Answer:
    return Answer(rater, one.key, choice, left, 1.5, NOW)  # type: ignore[arg-type]


# --- the design ---


@pytest.mark.parametrize("count", [1, 2, 7, 10, 11, 25, 100])
def test_each_model_is_on_the_left_in_half_of_any_ten_pairs(count: int) -> None:
    """Two comparisons are shown in turn, and each is balanced by itself."""
    pairs = [pair(n, model) for n in range(count) for model in ("one", "other")]
    shown = presentations(pairs, "Ada", seed=3)
    assert Counter(one.pair.key for one in shown) == Counter(one.key for one in pairs)
    for model in ("one", "other"):
        lefts = [one.left for one in shown if one.pair.model_b == model]
        blocks = [lefts[start : start + BLOCK] for start in range(0, count, BLOCK)]
        for block in blocks:
            assert abs(block.count("a") - block.count("b")) == len(block) % 2
        assert all(one.right != one.left for one in shown)


def test_a_design_depends_on_rater_and_seed_and_not_on_the_order_of_pairs() -> None:
    pairs = [pair(n) for n in range(40)]

    def design(rater: str, seed: int, given: list[LabelPair] = pairs) -> list[tuple[str, str]]:
        return [(one.pair.key, one.left) for one in presentations(given, rater, seed)]

    assert design("Ada", 0) == design("Ada", 0, pairs[::-1])
    assert len({tuple(design(rater, seed)) for rater in ("Ada", "Ben") for seed in (0, 1)}) == 4
    by_key = [dict(design(rater, 0)) for rater in ("Ada", "Ben")]
    assert by_key[0] != by_key[1]  # the sides differ, not the order alone
    assert sum(by_key[0][key] == by_key[1][key] for key in by_key[0]) > 0


def test_pairs_are_spread_over_prompts_before_a_prompt_repeats() -> None:
    matched = [(f"prompt {n % 5}", n // 5, None, None) for n in range(20)]
    for seed in range(5):
        chosen = spread(matched, seed)  # type: ignore[arg-type]
        for start in range(0, 20, 5):
            assert len({prompt for prompt, *_ in chosen[start : start + 5]}) == 5
    assert spread(matched, 0) != spread(matched, 1)  # type: ignore[arg-type]


# --- the answers ---


def test_a_torn_last_line_loses_that_answer_alone(tmp_path: Path) -> None:
    out = tmp_path / "choices.csv"
    pairs = [pair(n) for n in range(3)]
    with Answers(out) as answers:
        answers.place_pairs(pairs)
        answers.add(answer(pairs[0], "a"))
        answers.add(answer(pairs[1], "tie"))
    journal = journal_of(out)
    whole = journal.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in (last + 1, len(whole) - 2, len(whole) - 1):
        journal.write_bytes(whole[:end])
        with Answers(out) as answers:
            kept = answers.of_rater("Ada")
            assert list(kept) == [pairs[0].key]
            session = Session(answers, pairs, 0)
            assert session.progress() == {"Ada": 1}
            answers.add(answer(pairs[1], "b"))
        with Answers(out) as answers:
            assert [one.choice for one in answers.of_rater("Ada").values()] == ["a", "b"]


def test_two_raters_keep_their_own_answers_and_may_change_them(tmp_path: Path) -> None:
    out = tmp_path / "choices.jsonl"
    pairs = [pair(n) for n in range(2)]
    with Answers(out) as answers:
        answers.place_pairs(pairs)
        answers.place_pairs(pairs)  # again: nothing new
        for one in (
            answer(pairs[0], "a"),
            answer(pairs[0], "b", "Ben", "b"),
            answer(pairs[1], "bad"),
            answer(pairs[0], "tie"),
        ):
            answers.add(one)
        assert (answers.raters(), len(answers)) == ({"Ada": 2, "Ben": 1}, 3)
        assert answers.write_table() == 3
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["rater"], row["image_a"], row["label"], row["both_bad"]) for row in rows] == [
        ("Ada", "base/0.png", "tie", "false"),
        ("Ben", "base/0.png", "b", "false"),
        ("Ada", "base/1.png", "tie", "true"),
    ]
    assert all(tuple(row) == COLUMNS for row in rows)
    journal_lines = journal_of(out).read_text().splitlines()
    assert len(journal_lines) == 2 + 4


def test_a_file_without_its_journal_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "choices.csv"
    out.write_text("mine\n")
    with pytest.raises(ConfigError, match=r"has no choices\.csv\.answers\.jsonl beside it"):
        Answers(out)
    assert out.read_text() == "mine\n"
    with pytest.raises(ConfigError, match="unknown table format"):
        Answers(tmp_path / "choices.txt")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_hostile_texts_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    """CSV is guarded from spreadsheets, and unguarded when it is read."""
    out = tmp_path / f"choices{suffix}"
    texts = ['=1+1 "x", y', "@home", "-minus", "'=quoted", "two\nlines", "plain"]
    pairs = [pair(number, prompt=text) for number, text in enumerate(texts)]
    with Answers(out) as answers:
        answers.place_pairs(pairs)
        for one in pairs:
            answers.add(answer(one, "a", "=Ada"))
        answers.write_table()
    rows = list(read_preferences(out, facts=("rater", "sha256_b")))
    assert [row.prompt.text for row in rows if row.prompt] == texts
    assert {row.facts["rater"] for row in rows} == {"=Ada"}
    assert [row.facts["sha256_b"] for row in rows] == [one.sha256_b for one in pairs]
    if suffix == ".csv":
        assert "\n=" not in out.read_text()
        assert ",=Ada" not in out.read_text()


# --- the session ---


def test_a_session_goes_back_and_refuses_what_was_not_shown(tmp_path: Path) -> None:
    pairs = [pair(n) for n in range(3)]
    with Answers(tmp_path / "choices.csv") as answers:
        answers.place_pairs(pairs)
        session = Session(answers, pairs, 0)
        first = session.show("Ada")
        assert (first["place"], first["done"], first["total"]) == (0, 0, 3)
        assert not any(word in json.dumps(first) for word in ("base", "tuned", ".png"))
        session.answer("Ada", 0, "left", 1)
        again = session.show(" Ada ", 0)
        assert (again["answer"], again["left"], again["right"]) == (
            "left",
            first["left"],
            first["right"],
        )
        session.answer("Ada", 0, "right", 1)
        (found,) = answers.of_rater("Ada").values()
        assert found.choice != found.left  # the right one
        for rater, place, choice, seconds in (
            ("Ada", 2, "left", 1),  # after the first without an answer
            ("Ada", True, "left", 1),
            ("Ada", -1, "left", 1),
            ("Ada", 1, "a", 1),
            ("Ada", 1, "left", float("nan")),
            ("Ada", 1, "left", "1"),
            ("", 0, "left", 1),
            ("two\nlines", 0, "left", 1),
            (None, 0, "left", 1),
        ):
            with pytest.raises(ConfigError):
                session.answer(rater, place, choice, seconds)
        assert len(answers) == 1
        assert session.image("base/0.png") is None


# --- folders ---


def paint(path: Path, level: int, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 0, 0)).save(path)
    return path


def test_folders_match_by_prompt_and_index_or_by_name(tmp_path: Path) -> None:
    out = tmp_path / "choices.csv"
    for place, name in enumerate(("one", "two")):
        for number, prompt in enumerate(("a cat", "a cat", "a dog", f"a {name}")):
            image = paint(tmp_path / name / f"{place}{number}.png", 50 * number + place)
            image.with_suffix(".txt").write_text(prompt)
        for stem in ("x", "sub/y", name):
            paint(tmp_path / f"bare {name}" / f"{stem}.{'jpg' if place else 'png'}", 9 * place)
    found = folder_pairs(tmp_path / "one", tmp_path / "two", 9, 0, out)
    assert sorted((one.prompt, one.index, one.image_a, one.image_b) for one in found) == [
        ("a cat", 0, "one/00.png", "two/10.png"),
        ("a cat", 1, "one/01.png", "two/11.png"),
        ("a dog", 0, "one/02.png", "two/12.png"),
    ]
    assert {(one.model_a, one.model_b) for one in found} == {("one", "two")}
    assert len(folder_pairs(tmp_path / "one", tmp_path / "two", 2, 0, out)) == 2
    assert found == folder_pairs(tmp_path / "one", tmp_path / "two", 9, 0, out)
    bare = folder_pairs(tmp_path / "bare one", tmp_path / "bare two", 9, 0, out)
    assert sorted((one.prompt, Path(one.image_b).name) for one in bare) == [
        (None, "x.jpg"),
        (None, "y.jpg"),
    ]


def test_folders_that_cannot_be_compared(tmp_path: Path) -> None:
    out = tmp_path / "choices.csv"
    for name in ("one", "two"):
        paint(tmp_path / name / "0.png", 5).with_suffix(".txt").write_text(f"a {name}")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    for other, reason in (("one", "the same images"), ("link", "the same"), ("two", "nothing can")):
        with pytest.raises(ConfigError, match=reason):
            folder_pairs(tmp_path / "one", tmp_path / other, 9, 0, out)
    with pytest.raises(ImageError):
        folder_pairs(tmp_path / "one", tmp_path / "none", 9, 0, out)


def test_images_of_an_archive_are_copied_beside_the_file(tmp_path: Path) -> None:
    paint(tmp_path / "one" / "0.png", 5)
    packed = io.BytesIO()
    Image.new("RGB", (6, 4), (90, 0, 0)).save(packed, format="PNG")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("0.png", packed.getvalue())
    (tmp_path / "one" / "0.txt").write_text("a cat")
    with zipfile.ZipFile(tmp_path / "two.zip", "a") as archive:
        archive.writestr("0.txt", "a cat")
    (found,) = folder_pairs(tmp_path / "one", tmp_path / "two.zip", 9, 0, tmp_path / "c.csv")
    assert found.image_b == f"c-images/{found.sha256_b}.png"
    with Image.open(tmp_path / found.image_b) as copy:
        assert copy.convert("RGB").getpixel((0, 0)) == (90, 0, 0)


def test_the_images_of_a_pair_have_one_size_and_no_metadata(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    from ddpo.labelling.app import blind_png

    notes = PngImagePlugin.PngInfo()
    notes.add_text("model", "secret-model")
    wide = tmp_path / "wide.png"
    Image.new("RGB", (40, 10), (1, 2, 3)).save(wide, pnginfo=notes)
    tall = paint(tmp_path / "tall.png", 7, (10, 20))
    for own, other in ((wide, tall), (tall, wide)):
        data = blind_png(own, other)
        assert b"secret-model" not in data
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (40, 20)
            assert image.info == {}


# --- the file and `ddpo rewards validate` ---


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_validate_reads_what_label_wrote(
    tmp_path: Path, ddpo: Callable[..., tuple[int, str, str]], suffix: str
) -> None:
    """Darkness against two raters, by hand.

    The second folder is darker in pairs 0 to 2 and brighter in pair 3. Ada chooses b, a, tie, a.
    Ben chooses b, b, bad (a tie), b. Of the six decided choices darkness agrees with 0 and 3 of
    Ada, and with 0 and 1 of Ben.
    """
    for number in range(4):
        paint(tmp_path / "one" / f"{number}.png", 100)
        paint(tmp_path / "two" / f"{number}.png", 200 if number == 3 else 50)
        for name in ("one", "two"):
            (tmp_path / name / f"{number}.txt").write_text(f"prompt {number}")
    out = tmp_path / f"choices{suffix}"
    choices = {"Ada": ["b", "a", "tie", "a"], "Ben": ["b", "b", "bad", "b"]}
    with Answers(out) as answers:
        pairs = folder_pairs(tmp_path / "one", tmp_path / "two", 9, 0, out)
        answers.place_pairs(pairs)
        for rater, given in choices.items():
            for one in pairs:
                answers.add(answer(one, given[int(str(one.prompt)[-1])], rater))
        assert answers.write_table() == 8
    report = tmp_path / "report.json"
    code, _, errors = ddpo("rewards", "validate", "darkness", "--preferences", out, "--out", report)
    assert code == 0, errors
    values = json.loads(report.read_text())
    counts = ("pairs", "excluded", "ties", "preferred_first", "preferred_second", "prompts")
    assert [values[name] for name in counts] == [8, 0, 2, 2, 4, 4]
    assert values["accuracy"]["imagereward"]["value"] == pytest.approx(4 / 6)
    # hpsv2: a tie is never wrong; means of the prompts 1, ½, 1, ½
    assert values["accuracy"]["hpsv2"]["value"] == pytest.approx((1 + 0.5 + 1 + 0.5) / 4)
    assert len(list(read_table(out))) == 8
