"""From `ddpo eval` over `ddpo label` to the next report, on the model in closed form."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from analytic import AnalyticPolicy
from PIL import Image
from typer.testing import CliRunner, Result

from ddpo.cli.main import app
from ddpo.errors import ConfigError
from ddpo.eval.config import EvalConfig
from ddpo.eval.inputs.checkpoints import find_named
from ddpo.eval.report.data import load_report
from ddpo.eval.stages import sampling
from ddpo.inputs.tables import read_table
from ddpo.labelling.answers import Answers
from ddpo.labelling.folders import folder_pairs
from ddpo.labelling.pair import LabelPair
from ddpo.labelling.run_pairs import checkpoints_of, run_pairs
from ddpo.labelling.session import Session


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def label(
    answers: Answers, pairs: list[LabelPair], raters: dict[str, Callable[[LabelPair], str]]
) -> None:
    """Answers every pair as each rater would; a rater says "a", "b", "tie" or "bad" of a pair."""
    answers.place_pairs(pairs)
    session = Session(answers, pairs, 0)
    for rater, decide in raters.items():
        for place in range(session.total):
            view = session.show(rater)
            pair, letter = session.image(view["left"].removeprefix("/image/")) or (pairs[0], "")
            word = decide(pair)
            sides = {
                "a": "left" if letter == "a" else "right",
                "b": "left" if letter == "b" else "right",
            }
            session.answer(rater, place, sides.get(word, word), 1.0)
    session.close()


@pytest.fixture
def lists(tmp_path: Path) -> list[str]:
    (tmp_path / "seen.txt").write_text("a cat\na dog\na horse\na monkey\n")
    (tmp_path / "unseen.txt").write_text("a yak\nan otter\n")
    return [
        *("--prompts", f"animals={tmp_path / 'seen.txt'}"),
        *("--prompts", f"mine={tmp_path / 'unseen.txt'}"),
        *("--per-prompt", "2", "--no-held-out"),
    ]


def test_a_labelled_run_has_people_in_its_next_report(
    run_folder: Path, loaded: list[AnalyticPolicy], lists: list[str]
) -> None:
    assert call("eval", run_folder, *lists).exit_code == 0
    path = run_folder / "eval" / "iteration-000020" / "report.json"
    assert "people" not in json.loads(path.read_text())
    (advice,) = [one for one in load_report(path).advice if one.kind == "people"]
    assert advice.command == f"ddpo label {run_folder}"

    config = EvalConfig(checkpoints=(str(run_folder),))
    (checkpoint,) = checkpoints_of(config, find_named(config.checkpoints))
    out = run_folder / "preferences.parquet"
    with Answers(out) as answers:
        pairs = run_pairs(config, checkpoint, 12, 0, out, lambda *_: None)
        assert {pair.split for pair in pairs} == {"animals", "mine"}
        label(
            answers,
            pairs,
            {
                # Ada: cat bad, horse base, the rest tuned: 2 ties, 2 losses, 8 wins
                "Ada": lambda pair: {"a cat": "bad", "a horse": "a"}.get(str(pair.prompt), "b"),
                # Ben: yak tied, the rest tuned: 2 ties, 10 wins
                "Ben": lambda pair: "tie" if pair.prompt == "a yak" else "b",
            },
        )
    assert [pair.identity_b for pair in pairs] == [checkpoint.facts.identity] * 12

    result = call("eval", run_folder, *lists)
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    assert f"judged by people: 24 choices in {out}" in said
    report = load_report(path)
    people = report.people
    assert people is not None
    assert (people.choices, people.unmatched) == (24, 0)
    rates = {one.split: (one.share.mean, one.share.n, one.ties) for one in people.wins}
    assert rates == {
        "": ((8 + 10 + 2) / 24, 24, 4),
        "animals": ((4 + 8 + 1) / 16, 16, 2),  # Ada: 2 ties, 2 losses, 4 wins; Ben: 8 wins
        "mine": ((4 + 2 + 1) / 8, 8, 2),
    }
    # Both chose tuned for dog, monkey and otter: 6 of 12 pairs. Ada: base 2, tuned 8, tie 2;
    # Ben: tuned 10, tie 2. p_e = (8 · 10 + 2 · 2) / 144 = 84/144, so κ = (72 - 84) / (144 - 84).
    assert people.agreement is not None
    assert people.agreement.kappa == pytest.approx(-1 / 5)
    # Darkness prefers the base image wherever the tuned one is brighter, as all of them are.
    (judge,) = people.judges
    assert (judge.reward, judge.accuracy.value, judge.accuracy.n) == ("darkness", 2 / 20, 20)
    assert not [one for one in report.advice if one.kind == "people"]
    evidence = {one.kind: one.grade for one in report.readings[0].evidence}
    assert evidence["people"] == "no sign"
    assert "People's win rate of one: 83 %" in said.replace("\N{NO-BREAK SPACE}", " ")
    markdown = path.with_name("report.md").read_text(encoding="utf-8")
    assert "Agreement of 2 raters on 12 common pairs: Cohen's kappa −0.20" in markdown
    page = path.with_name("report.html").read_text(encoding="utf-8")
    assert '<h2 id="people">' in page
    assert "Ada" not in page + markdown + path.read_text(encoding="utf-8")

    before = path.read_bytes()
    assert call("eval", run_folder, *lists).exit_code == 0
    assert path.read_bytes() == before


def test_a_run_labelled_before_its_evaluation_is_matched_too(
    run_folder: Path,
    loaded: list[AnalyticPolicy],
    lists: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`ddpo label` samples the pairs with the noise of `ddpo eval`, so their pixels are equal."""
    monkeypatch.setattr("ddpo.labelling.run_pairs.load_policy", sampling.load_policy)
    config = EvalConfig(checkpoints=(str(run_folder),), prompts=tuple(lists[1:4:2]))
    (checkpoint,) = checkpoints_of(config, find_named(config.checkpoints))
    out = run_folder / "preferences.csv"
    with Answers(out) as answers:
        pairs = run_pairs(config, checkpoint, 9, 0, out, lambda *_: None)
        label(answers, pairs, {"Ada": lambda pair: "b"})
    result = call("eval", run_folder, *lists)
    assert result.exit_code == 0
    report = load_report(run_folder / "eval" / "iteration-000020" / "report.json")
    assert report.people is not None
    assert (report.people.choices, report.people.unmatched) == (9, 0)
    assert report.people.wins[0].share.mean == 1


def test_a_named_file_must_be_about_the_images(
    run_folder: Path, loaded: list[AnalyticPolicy], lists: list[str], tmp_path: Path
) -> None:
    for name, reason in (("none.csv", "no such file"), ("seen.txt", "must be one of")):
        with pytest.raises(ConfigError, match=reason):
            call("eval", run_folder, *lists, "--preferences", tmp_path / name)
    assert loaded == []
    other = tmp_path / "other.csv"
    other.write_text("image_a,image_b,label,prompt\na.png,b.png,a,a cat\n")
    with pytest.raises(ConfigError, match=r"no choice in .*other\.csv \(1 in all\) is about"):
        call("eval", run_folder, *lists, "--preferences", other)
    assert not (run_folder / "eval" / "iteration-000020" / "report.json").exists()
    other.rename(run_folder / "preferences.csv")  # found, not named: a note
    assert call("eval", run_folder, *lists).exit_code == 0
    report = load_report(run_folder / "eval" / "iteration-000020" / "report.json")
    assert report.people is None
    assert [note for note in report.notes if "0 of 1 choice of people" in note]


def test_labelled_folders_and_a_table_trimmed_by_hand(tmp_path: Path) -> None:
    """Two models' folders; in a spreadsheet somebody kept four columns of the choices."""
    for name, step in (("before", 0), ("after", 40)):
        folder = tmp_path / name
        folder.mkdir()
        rows = []
        for number, prompt in enumerate(("a cat", "a dog", "a yak")):
            Image.new("RGB", (8, 8), (60 * number + step, 0, 0)).save(folder / f"{number}.png")
            rows.append({"file_name": f"{number}.png", "prompt": prompt, "index": 0})
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "choices.csv"
    with Answers(out) as answers:
        pairs = folder_pairs(tmp_path / "before", tmp_path / "after", 9, 0, out)
        label(answers, pairs, {"Ada": lambda pair: "tie" if pair.prompt == "a dog" else "b"})
    trimmed = tmp_path / "trimmed.csv"
    with trimmed.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ["image_a", "image_b", "label", "prompt"], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(dict(row) for _, row in read_table(out))
    for preferences, raters in ((out, 1), (trimmed, 0)):
        result = call(
            "eval",
            *("--images", f"base={tmp_path / 'before'}", "--images", f"new={tmp_path / 'after'}"),
            *("--reward", "darkness", "-o", tmp_path / "report", "--preferences", preferences),
        )
        assert result.exit_code == 0, raters
        people = load_report(tmp_path / "report" / "report.json").people
        assert people is not None
        assert (people.wins[0].model, people.wins[0].share.mean) == ("new", 2.5 / 3)
        assert people.wins[0].share.clusters == 3
