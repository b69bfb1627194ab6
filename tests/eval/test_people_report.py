"""People in every rendering of the report, and their absence where nobody judged."""

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
from test_render import Page

from ddpo.errors import ConfigError
from ddpo.eval.analysis.people import People, PeopleWins, RaterAgreement, RewardAgreement
from ddpo.eval.report.data import Report, load_report, save_report
from ddpo.eval.report.html import render_html
from ddpo.eval.report.markdown import render_github, render_markdown
from ddpo.eval.report.people import people_lines
from ddpo.eval.report.terminal import render_terminal
from ddpo.stats.estimate import Estimate
from ddpo.stats.pairwise import Accuracy

NAN = math.nan
PEOPLE = People(
    choices=40,
    unmatched=2,
    wins=(
        PeopleWins("run", "", Estimate(0.7, 0.05, 0.6, 0.8, 40, 12), 4),
        PeopleWins("run", "animals", Estimate(0.75, 0.06, 0.62, 0.86, 30, 11), 3),
        PeopleWins("run", "objects", Estimate(0.55, NAN, NAN, NAN, 10, 1), 1),
    ),
    judges=(
        RewardAgreement("proxy", Accuracy(0.4, 0.3, 0.5, 36, NAN)),
        RewardAgreement("witness", Accuracy(0.8, NAN, NAN, 36, NAN)),
    ),
    agreement=RaterAgreement(2, 18, 0.6249, NAN),
)
LINES = [
    "People's win rate of run: 70 % (60 to 80) of 40 choices; animals 75 % (62 to 86), objects "
    "55 % (no interval: fewer than two prompts).",
    "Agreement of rewards with people's decided choices: proxy 40 % (30 to 50) of 36, witness 80 % "
    "(no interval: fewer than two prompts) of 36.",
    "Agreement of 2 raters on 18 common pairs: Cohen's kappa 0.62, Krippendorff's alpha not "
    "measured.",
]


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def judged(people: People | None = PEOPLE) -> Report:
    return replace(report_of(Story(gains=BOTH)), people=people)


def test_the_lines_stand_in_every_output(tmp_path: Path) -> None:
    report = judged()
    assert [plain(line) for line in people_lines(report)] == LINES
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(render_terminal(report))
    for text in (console.export_text(), render_markdown(report), render_github(report)):
        assert all(line in plain(text) for line in LINES)
    page = render_html(report, [], tmp_path)
    assert '<h2 id="people">People</h2>' in page
    assert '<a href="#people">People</a>' in page
    section = plain(page.split('<h2 id="people">People</h2>')[1].split("</section>")[0])
    shown = " ".join(Page(section).text.split())
    for words in ("40 choices of people", "all lists", "70 % (60 to 80)", "40 % (30 to 50)"):
        assert words in shown
    assert LINES[2] in shown
    assert section.count("<svg") == 3 + 1 + 2 + 1  # an interval a row, and two axes


def test_without_judges_nothing_is_there(tmp_path: Path) -> None:
    report = judged(None)
    save_report(tmp_path / "report.json", report)
    assert "people" not in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert load_report(tmp_path / "report.json").people is None
    assert people_lines(report) == []
    assert 'id="people"' not in render_html(report, [], tmp_path)
    for text in (render_markdown(report), render_github(report)):
        assert "win rate of" not in text
        assert "raters" not in text


def test_people_come_back_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    save_report(path, judged())
    values = json.loads(path.read_text(encoding="utf-8"))["people"]
    assert values["wins"][2]["share"]["low"] is None
    assert values["agreement"] == {"raters": 2, "pairs": 18, "kappa": 0.6249, "alpha": None}
    assert repr(load_report(path).people) == repr(PEOPLE)
    for wrong in (3, [], {"choices": "x"}):
        content = json.loads(path.read_text(encoding="utf-8")) | {"people": wrong}
        (tmp_path / "wrong.json").write_text(json.dumps(content))
        with pytest.raises(ConfigError, match="people"):
            load_report(tmp_path / "wrong.json")


@pytest.mark.parametrize(
    ("agreement", "line"),
    [
        (None, "The agreement of raters was not measured, since it takes two named raters."),
        (RaterAgreement(3, 0, NAN, NAN), "The 3 raters judged no pair in common."),
        (
            RaterAgreement(3, 1, NAN, -0.25),
            "Agreement of 3 raters on 1 common pair: Krippendorff's alpha −0.25.",
        ),
    ],
)
def test_an_agreement_that_is_not_defined_is_no_number(
    agreement: RaterAgreement | None, line: str, tmp_path: Path
) -> None:
    report = judged(replace(PEOPLE, agreement=agreement))
    assert people_lines(report)[-1] == line
    assert line in Page(render_html(report, [], tmp_path)).text


def test_choices_between_tuned_models_alone_have_no_win_rate(tmp_path: Path) -> None:
    report = judged(replace(PEOPLE, wins=(), judges=()))
    assert len(people_lines(report)) == 1
    section = render_html(report, [], tmp_path).split('<h2 id="people">')[1]
    assert "<table" not in section.split("</section>")[0]


def test_a_chosen_model_hides_the_others_and_shows_its_checkpoints(tmp_path: Path) -> None:
    stories = (Story("a", gains=BOTH), Story("b", gains=BOTH))
    report = report_of(*stories)
    earlier = replace(report.models[1], name="b@2", iteration=2, history=True)
    wins = tuple(replace(PEOPLE.wins[0], model=name) for name in ("a", "b", "b@2"))
    lists = tuple(replace(one, split="animals") for one in wins)
    people = replace(PEOPLE, wins=lists)
    report = replace(report, models=(*report.models, earlier), people=people)
    section = render_html(report, [], tmp_path).split('<h2 id="people">')[1].split("</section>")[0]
    classes = {
        name: css
        for css, name in re.findall(
            r'<tr class="(m[^"]*)">.*?<th scope="row">([^<]+)</th>', section
        )
    }
    assert classes == {"a": "m m0", "b": "m m1", "b@2": "m m1"}


def test_archetypes_with_people_have_their_section(tmp_path: Path) -> None:
    report = report_of(*ARCHETYPES["people prefer the base"])
    assert report.people is not None
    # 3 lists of 12 prompts with 4 choices each, of which one is for the tuned image
    total = report.people.wins[0].share
    assert (total.mean, total.n, total.clusters) == (0.25, 144, 36)
    # two added prompts of 4 choices: 36 + 4 of 152; every prompt's sum is 1
    centre = 40 / 152
    squares = 36 * (1 - 4 * centre) ** 2 + (4 - 4 * centre) ** 2 + (4 * centre) ** 2
    half = 2.026192 * math.sqrt(38 / 37 * squares) / 152  # Student's t with 37 degrees of freedom
    assert (total.low, total.high) == (
        pytest.approx(centre - half, abs=1e-6),
        pytest.approx(centre + half, abs=1e-6),
    )
    assert '<h2 id="people">' in render_html(report, [], tmp_path)
