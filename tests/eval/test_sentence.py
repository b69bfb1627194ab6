"""The report's sentence, spelled out by hand for models with known effects."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from archetypes import ARCHETYPES, BOTH, Story, report_of
from rich.console import Console

from ddpo.cli.evaluation_display import print_outcome
from ddpo.cli.terminal import Terminal
from ddpo.eval.analysis.hacking import assess_hacking
from ddpo.eval.command import command_line
from ddpo.eval.config import EvalConfig
from ddpo.eval.report.advice import Advice, Circumstances, advise
from ddpo.eval.report.answer import answer
from ddpo.eval.report.data import load_report, save_report
from ddpo.eval.report.fail_if import parse_condition
from ddpo.eval.report.html import render_html
from ddpo.eval.report.markdown import render_github, render_markdown
from ddpo.eval.report.selection import share_of
from ddpo.eval.report.terminal import render_terminal
from ddpo.eval.runner import Outcome
from ddpo.rounding import rounded
from ddpo.stats.paired import TransferRatio

ROOT = Path(__file__).parents[2]
SENTENCES = {
    "healthy": "The gain transfers (94 % / 85 %) and shows no sign of reward hacking.",
    "gamed, with an earlier good checkpoint": (
        "The gain transfers (94 % / 85 %), but the run games its reward from iteration "
        "6 on; use iteration 2."
    ),
    "gamed from the first checkpoint on": (
        "The gain transfers (94 % / 85 %), but the run games its reward from iteration "
        "2 on, the first that was examined; stop earlier."
    ),
    "gamed, earlier checkpoints not examined": (
        "The gain transfers (94 % / 85 %), but the run games its reward (held-out "
        "rewards); examine its earlier checkpoints."
    ),
    "gamed by one image for all prompts": (
        "The gain transfers (94 % / 85 %), but the run games its reward (diversity); "
        "examine its earlier checkpoints."
    ),
    "one held-out reward fell a little": (
        "The gain transfers (94 % / 85 %), but one kind of evidence is worth a look "
        "(held-out rewards)."
    ),
    "a held-out reward rose first and then fell": (
        "The gain transfers (94 % / 85 %), but witness declines from iteration 8 on; "
        "use iteration 4."
    ),
    "no gain": "There is no measurable gain and no sign of reward hacking.",
    "run too short": (
        "There is no measurable gain and no sign of reward hacking; train for more "
        "than 1 iteration."
    ),
    "fell": "The reward falls on its training prompts.",
    "fell, and the images are damaged": (
        "The reward falls on its training prompts, and there are strong signs of "
        "reward hacking (artefacts)."
    ),
    "does not transfer": "The gain does not transfer and shows no sign of reward hacking.",
    "falls elsewhere": (
        "The gain does not transfer (the reward falls on objects) and shows no sign of "
        "reward hacking."
    ),
    "transfers to one list": (
        "The gain transfers to unseen animals (94 %), not to objects, and shows no "
        "sign of reward hacking."
    ),
    "transfers in part": (
        "The gain transfers in part (30 % / 20 %) and shows no sign of reward hacking."
    ),
    "too little measured": (
        "The gain transfers (94 % / 85 %), but too little was measured to rule out reward hacking."
    ),
    "hacking not measured": (
        "The gain transfers (94 % / 85 %), but reward hacking was not measured."
    ),
    "leaked": (
        "The gain transfers (94 % / 85 %), but 6 of 12 prompts of unseen animals "
        "leaked from training; repeat with --leaks drop."
    ),
    "one prompt": "A single prompt cannot show a gain; evaluate two or more.",
    "unscorable": "Nothing can be said, since the trained reward scored no image.",
    "training prompts alone": (
        "The reward rises on its training prompts and shows no sign of reward hacking; "
        "add held-out prompts to judge transfer."
    ),
    "images from elsewhere": (
        "The reward rises on mine and shows no sign of reward hacking; name the "
        "training prompts to judge transfer."
    ),
    "gamed images from elsewhere": (
        "The reward rises on mine, but the images game the reward (artefacts); name "
        "the training prompts to judge transfer."
    ),
    "best of n is better": (
        "The gain transfers (94 % / 85 %), but the best of n base images scores higher "
        "at equal cost."
    ),
    "people agree with the gain": (
        "The gain transfers (94 % / 85 %), people prefer the tuned images (75 %), and "
        "there is no sign of reward hacking."
    ),
    "people prefer the base": (
        "The gain transfers (94 % / 85 %), but people prefer the base model's images (75 %)."
    ),
    "several models": (
        "a games its reward, b transfers its gain and c shows no measurable gain; use b."
    ),
}


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_every_archetype_has_a_sentence() -> None:
    assert set(SENTENCES) == set(ARCHETYPES)


@pytest.mark.parametrize("name", SENTENCES)
def test_the_sentence_by_hand(name: str) -> None:
    assert plain(report_of(*ARCHETYPES[name]).sentence) == SENTENCES[name]


def test_a_clause_with_but_is_set_apart() -> None:
    doubtful = Story("a", gains=BOTH, witness=-0.7)
    sound = Story("b", gains=BOTH)
    assert plain(report_of(doubtful, sound).sentence) == (
        "a transfers its gain but is worth a look, and b transfers its gain; use b."
    )


def test_the_guide_has_every_sentence() -> None:
    page = (ROOT / "docs" / "reading-a-report.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE))
    assert {name: text for name, text in table.items() if name in SENTENCES} == SENTENCES


def shown(report) -> str:  # type: ignore[no-untyped-def]
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(render_terminal(report))
    return console.export_text()


def test_the_sentence_stands_first_in_every_output(tmp_path: Path) -> None:
    report = report_of(*ARCHETYPES["gamed, with an earlier good checkpoint"])
    sentence = report.sentence
    save_report(tmp_path / "report.json", report)
    values = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert values["answer"]["sentence"] == sentence
    assert values["answer"]["models"] == [
        {"model": "run", "sentence": sentence, "hacking_from": 6, "use_iteration": 2}
    ]
    assert load_report(tmp_path / "report.json").sentence == sentence
    assert shown(report).splitlines()[0].strip() == sentence
    assert render_markdown(report).splitlines()[0] == f"## {sentence}"
    assert render_github(report).splitlines()[0] == f"## {sentence}"
    assert f"<h1>{sentence}</h1>" in render_html(report, [], tmp_path)
    assert sentence in repr(report)
    assert report._repr_html_().startswith(f"<p><strong>{sentence}</strong></p>")


def test_markup_in_a_name_stays_text(tmp_path: Path) -> None:
    story = replace(ARCHETYPES["images from elsewhere"][0], name="<b>|x")
    report = report_of(story, replace(story, name="other"))
    assert report.sentence.startswith("<b>|x and other")
    assert "<b>|x" not in render_html(report, [], tmp_path)
    assert "&lt;b&gt;\\|x and other" in render_markdown(report).splitlines()[0]


def test_advice_stands_in_every_output(tmp_path: Path) -> None:
    command = "ddpo eval --checkpoint runs/run --history 6"
    advice = Advice("run", "run history", "earlier checkpoints of the run", command)
    report = replace(report_of(*ARCHETYPES["healthy"]), advice=(advice,))
    save_report(tmp_path / "report.json", report)
    assert load_report(tmp_path / "report.json").advice == (advice,)
    for text in (shown(report), render_markdown(report), render_github(report)):
        assert "What would tell more" in text
        assert command in text
    assert f"<code>{command}</code>" in render_html(report, [], tmp_path)
    without = replace(report, advice=())
    assert "What would tell more" not in shown(without) + render_markdown(without)


@pytest.mark.parametrize("width", [40, 80])
def test_a_command_is_one_line_of_the_terminal(width: int, tmp_path: Path) -> None:
    """However long it is: a wrapped command would be pasted as several."""
    long = "ddpo eval --checkpoint 'runs/a long name' " + "--prompts list.txt " * 12 + "[bold]x"
    lines = [long, "ddpo rewards download small && ddpo eval runs/run", "ddpo label runs/run"]
    advice = tuple(Advice("run", "run history", "earlier checkpoints", line) for line in lines)
    report = replace(report_of(*ARCHETYPES["healthy"]), advice=advice)
    console = Terminal(width=width, file=io.StringIO())
    outcome = Outcome(report, *(tmp_path / name for name in ("r.html", "r.json", "samples")))
    print_outcome(outcome, "terminal", console)
    assert isinstance(console.file, io.StringIO)
    printed = [line.strip() for line in console.file.getvalue().splitlines()]
    assert [line for line in printed if line.startswith("ddpo ")] == lines
    others = [line for line in printed if line not in lines and not line.startswith("Report:")]
    assert max(map(len, others)) <= width


@pytest.mark.parametrize(
    ("story", "config", "commands"),
    [
        (
            Story(gains=BOTH),
            {"checkpoints": ("runs/run",), "history": 0, "best_of": 0},
            ["ddpo eval --checkpoint runs/run --history 6", "ddpo label runs/run"],
        ),
        (
            Story(gains=BOTH, witness=None),
            {"checkpoints": ("my run",), "history": 2, "seeds": 8},
            [
                "ddpo rewards download small && "
                "ddpo eval --checkpoint 'my run' --per-prompt 8 --history 2",
                "ddpo label runs/run",
            ],
        ),
        (
            Story(gains=BOTH, witness=None, edges=None),
            {"checkpoints": ("runs/run",), "held_out": False},
            ["ddpo eval --checkpoint runs/run", "ddpo label runs/run"],
        ),
        (
            Story(gains=BOTH, kept=None),
            {"checkpoints": ("runs/run",), "seeds": 1},
            ["ddpo eval --checkpoint runs/run", "ddpo label runs/run"],
        ),
    ],
)
def test_advice_has_commands_that_add_the_evidence(
    story: Story, config: dict[str, object], commands: list[str]
) -> None:
    report = report_of(story)
    facts = Circumstances(
        EvalConfig(**config),  # type: ignore[arg-type]
        {"run": 3},
        ("small", "large"),
        has_training_prompts=True,
        prompts=12,
    )
    found = advise(report.models[0], report.readings[0], facts)
    assert [one.command for one in found] == commands
    assert not any("--no-held-out" in one.text for one in found)


@pytest.mark.parametrize(
    ("kind", "config", "judged", "command"),
    [
        (
            "lora",
            {"checkpoints": ("a b", "c"), "prompts": ("p q.txt",)},
            (),
            "runs/run --prompts 'p q.txt'",
        ),
        ("lora", {"checkpoints": ("runs/run",), "prompts": ("p.txt",)}, (), "runs/run"),
        ("images", {"images": ("base=old=1", "run=new"), "rewards": ("x",)}, (), "old=1 runs/run"),
        ("lora", {"checkpoints": ("runs/run",)}, ("run",), None),
    ],
)
def test_advice_names_the_labelling_that_nobody_did(
    kind: str, config: dict[str, object], judged: tuple[str, ...], command: str | None
) -> None:
    report = report_of(Story(gains=BOTH, kind=kind))
    facts = Circumstances(EvalConfig(**config), {}, (), False, 12, judged)  # type: ignore[arg-type]
    found = advise(report.models[0], report.readings[0], facts)
    labels = [one for one in found if one.kind == "people"]
    assert [one.command for one in labels] == ([] if command is None else [f"ddpo label {command}"])
    named = "people as judges, then the same command with --preferences preferences.parquet"
    assert all((one.text == named) == (kind == "images") for one in labels)


def test_people_against_the_reward_are_one_kind_of_evidence() -> None:
    """The interval decides; without a rise of the reward there is no sign of hacking."""
    grades = {}
    for name, gains, liked in (
        ("for", BOTH, 4),
        ("undecided", BOTH, 2),
        ("against", BOTH, 1),
        ("against, no rise", dict.fromkeys(BOTH, 0.0), 0),
    ):
        reading = report_of(Story(gains=gains, liked=liked)).readings[0]
        (evidence,) = [one for one in reading.evidence if one.kind == "people"]
        grades[name] = (evidence.grade, reading.grade)
        assert len(reading.evidence) == 8
    assert grades == {
        "for": ("no sign", "no sign"),
        "undecided": ("no sign", "no sign"),
        "against": ("watch", "watch"),
        "against, no rise": ("no sign", "no sign"),
    }


def test_people_are_other_eyes_than_the_trained_reward() -> None:
    """Diversity and prompt dependence alone are too little; with people they are three kinds."""
    story = Story(gains=BOTH, witness=None, edges=None)
    grades = [report_of(replace(story, liked=n)).readings[0].grade for n in (None, 2, 4, 1)]
    assert grades == ["too little measured", "no sign", "no sign", "watch"]
    alone = report_of(replace(story, kept=None, liked=1))
    assert alone.readings[0].grade == "too little measured"
    assert "but people prefer the base model's images" in alone.sentence


def test_a_stronger_doubt_than_people_stands_first() -> None:
    gamed = report_of(Story(gains=BOTH, witness=-2.0, liked=1)).sentence
    assert "the run games its reward (held-out rewards)" in gamed
    leaked = report_of(Story(gains=BOTH, leaked={"unseen_animals": 6}, liked=1)).sentence
    assert "but people prefer the base model's images" in leaked
    several = report_of(Story("a", gains=BOTH, liked=1), Story("b", gains=BOTH)).sentence
    assert several == (
        "a raises its reward against people's preference and b transfers its gain; use b."
    )


def test_no_evidence_has_a_raw_id_of_the_base_model() -> None:
    report = report_of(*ARCHETYPES["a held-out reward rose first and then fell"])
    names = {"witness": "base_fit", "edges": "prompt_evidence"}
    roles = {"proxy": "trained", "base_fit": "heldout", "prompt_evidence": "heldout"}
    gains = [replace(one, reward=names.get(one.reward, one.reward)) for one in report.gains]
    peaks = [
        replace(one, reward=names.get(one.reward, one.reward)) for one in report.courses[0].peaks
    ]
    history = replace(report.courses[0], peaks=tuple(peaks))
    found = assess_hacking("run", gains, roles, (), (), history)
    texts = " ".join([found.text, *(one.text for one in found.evidence)])
    assert "By plausibility to the base model, iteration 4 was best" in texts
    assert not re.search("base_fit|prompt_evidence", texts)
    renamed = replace(
        report,
        rewards=tuple(replace(one, id=names.get(one.id, one.id)) for one in report.rewards),
        gains=tuple(gains),
        courses=(history,),
    )
    assert "but plausibility to the base model declines from iteration 8 on" in renamed.sentence


def test_the_readme_prints_what_the_terminal_prints() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.partition("```text\n")[2].partition("```")[0]
    words = re.compile(r"^([a-z ]+?) +(\S+) +(\S+) to (\S+) +\S+ +\d+ %  +.*$", re.MULTILINE)
    rows = words.findall(block)
    assert [row[0] for row in rows] == [
        "seen pairings",
        "unseen pairings",
        "new pairings",
        "objects",
    ]
    risen = []
    for name, mean, low, high in rows:
        values = [float(text.replace("−", "-")) for text in (mean, low, high)]
        assert [mean, low, high] == [rounded(one, *values[1:], signed=True) for one in values]
        if values[1] > 0:
            risen.append(name)
    assert risen == ["seen pairings", "unseen pairings", "new pairings"]
    assert block.startswith(f"The gain transfers to {' and '.join(risen[1:])}, not to objects, but")


def test_the_command_of_a_configuration() -> None:
    config = EvalConfig(
        images=("base=a b", "mine=c"), rewards=("x:token=secret",), held_out=False, leaks="drop"
    )
    command = command_line(config)
    assert command.startswith("ddpo eval --images 'base=a b' --images mine=c --reward ")
    assert command.endswith(" --no-held-out --leaks drop")
    assert "secret" not in command


@pytest.mark.parametrize(
    ("ratio", "shift", "is_shown"),
    [
        ((0.9, 0.8, 1.0), 1.0, True),
        ((2.9, 2.8, 3.0), 1.0, True),
        ((3.1, 2.9, 3.3), 1.0, False),
        ((0.9, -3.4, 2.0), 1.0, False),  # a wide interval
        ((0.9, 0.8, 1.0), -1.0, False),  # of a fall
        ((math.nan, math.nan, math.nan), 1.0, False),
    ],
)
def test_a_share_that_means_nothing_is_hidden(
    ratio: tuple[float, float, float], shift: float, is_shown: bool
) -> None:
    report = report_of(Story(gains={name: gain * shift for name, gain in BOTH.items()}))
    share = TransferRatio(*ratio)
    report = replace(report, transfers=tuple(replace(t, share=share) for t in report.transfers))
    gain = next(one for one in report.gains if (one.split, one.reward) == ("objects", "proxy"))
    assert (share_of(report, gain) is not None) == is_shown
    (decision,) = parse_condition("objects.share < 9").decisions(report)
    assert decision.is_met == is_shown  # a hidden share decides nothing


def test_a_gain_within_the_noise_floor_has_no_share() -> None:
    report = report_of(Story(gains=BOTH))
    gain = next(one for one in report.gains if (one.split, one.reward) == ("objects", "proxy"))
    assert share_of(report, gain) is not None
    noisy = replace(report, rewards=tuple(replace(r, noise_floor=1.5) for r in report.rewards))
    assert share_of(noisy, gain) is None


@pytest.mark.parametrize(
    ("name", "condition", "is_met"),
    [
        ("too little measured", "reading >= strong", False),
        ("hacking not measured", "reading >= watch", False),
        ("unscorable", "animals.gain < 0", False),
        ("gamed by one image for all prompts", "reading >= strong", True),
        ("fell", "objects.gain < 0", True),
    ],
)
def test_a_condition_is_met_or_cannot_be_decided(name: str, condition: str, is_met: bool) -> None:
    (decision,) = parse_condition(condition).decisions(report_of(*ARCHETYPES[name]))
    assert decision.is_met == is_met


def test_the_answer_about_nothing_scored_counts_no_prompts() -> None:
    training, held_out, _ = answer(report_of(*ARCHETYPES["unscorable"]), "run")
    assert training == "On the training prompts of animals, proxy could not be scored."
    assert held_out == (
        "On held-out prompts, proxy could not be scored on unseen animals and on objects."
    )
    training = answer(report_of(*ARCHETYPES["one prompt"]), "run")[0]
    assert training.startswith("On the only training prompt of animals, proxy cannot be judged")
    assert "(no interval: one prompt)" in training
