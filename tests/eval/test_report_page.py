"""The page of a report: contents, run history in images, data links, command, date and words."""

from __future__ import annotations

import base64
import io
import math
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from archetypes import ARCHETYPES, report_of
from PIL import Image
from report_fixture import make
from test_render import Page
from test_render import _only as only

from ddpo.cli.evaluate import compare_command, evaluate_command
from ddpo.eval.analysis.history import RunHistory
from ddpo.eval.analysis.tables import Pair
from ddpo.eval.command import command_line
from ddpo.eval.config import EvalConfig
from ddpo.eval.report import image_grids
from ddpo.eval.report.data import Report, dated, save_report
from ddpo.eval.report.findings import answer_values
from ddpo.eval.report.history_strip import Milestones, milestones
from ddpo.eval.report.html import render_html
from ddpo.eval.report.interval_plots import Axis, Mark, axis_plot
from ddpo.eval.report.svg import tick_text
from ddpo.eval.report.templating import code_spans
from ddpo.eval.report.terms import TERMS

DAY = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
BUDGET = 3_000_000  # bytes of a page with default settings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, list[Pair], Path]:
    """A report with the pairs of earlier checkpoints, as an evaluation gives them."""
    folder = tmp_path_factory.mktemp("report")
    report, pairs = make(folder)
    earlier = [
        replace(pair, model=f"{pair.model}@{iteration}")
        for pair in pairs
        for iteration in (10, 20)
        if pair.split == "animals"
    ]
    for name in ("report.json", "report.md", "samples.parquet"):
        (folder / name).write_text("")
    return replace(report, command="ddpo eval 'a b'", made=DAY.isoformat()), pairs + earlier, folder


@pytest.fixture(scope="module")
def page(made: tuple[Report, list[Pair], Path]) -> str:
    return render_html(*made)


def test_contents_lead_to_every_section_in_order(page: str) -> None:
    parsed = Page(page)
    contents = page.split("<nav")[1].split("</nav>")[0]
    links = re.findall(r'href="#([^"]+)"', contents)
    assert links == ["answer", *(one["id"] for one in parsed.all("h2") if "id" in one)]


def test_links_to_data_lead_to_files(page: str, made: tuple[Report, list[Pair], Path]) -> None:
    hrefs = [one["href"] for one in Page(page).all("a") if not one["href"].startswith("#")]
    assert hrefs == ["report.json", "report.md", "samples.parquet", "images/"]
    assert all((made[2] / href).exists() for href in hrefs)


def test_a_file_that_is_missing_has_no_link(
    made: tuple[Report, list[Pair], Path], tmp_path: Path
) -> None:
    parsed = Page(render_html(made[0], [], tmp_path))
    assert all(one["href"].startswith("#") for one in parsed.all("a"))


def test_command_and_date_stand_on_the_page(page: str) -> None:
    assert "<code>ddpo eval &#39;a b&#39;</code>" in page
    assert '<time datetime="2026-02-03T04:05:06+00:00">2026-02-03 04:05 UTC</time>' in page


def test_the_strip_shows_the_checkpoints_in_order_on_one_noise(
    page: str, made: tuple[Report, list[Pair], Path]
) -> None:
    _, pairs, folder = made
    strips = re.findall(r'<div class="timeline">(.*?)</ul>', page, re.DOTALL)
    assert len(strips) == 3
    noisy = strips[2]
    names = re.findall(r'<span class="visually-hidden">([^<]+)</span>', noisy)
    assert names == ["base model", "iteration 10", "iteration 20", "iteration 30"]
    of_base = {
        Image.open(folder / str(pair.base_image)).convert("RGB").tobytes(): pair.prompt
        for pair in pairs
        if pair.split == "animals"
    }
    figures = re.findall(r"<figure id=.*?</figure>", noisy, re.DOTALL)
    assert len(figures) == 4
    for figure in figures:
        alts = re.findall(r'alt="([^"]+)"', figure)
        first = re.findall(r'src="data:image/png;base64,([^"]+)"', figure)[0]
        pixels = Image.open(io.BytesIO(base64.b64decode(first))).convert("RGB").tobytes()
        assert all(alt.startswith(of_base[pixels]) for alt in alts)
        assert [alt.split(", ")[2] for alt in alts] == names


def test_milestones_are_marked_at_their_columns(page: str) -> None:
    noisy = re.findall(r'<ol class="milestones".*?</ol>', page, re.DOTALL)[2]
    columns = re.findall(r"<li.*?</li>", noisy, re.DOTALL)
    assert ["use this" in column for column in columns] == [False, True, False, False]
    assert ["hacking starts" in column for column in columns] == [False, False, True, False]


def test_a_decline_is_not_called_hacking(tmp_path: Path) -> None:
    report = report_of(*ARCHETYPES["a held-out reward rose first and then fell"])
    history = report.courses[0]
    assert milestones(report, history) == Milestones(hacking=-1, decline=8, recommended=4)
    gamed = report_of(*ARCHETYPES["gamed, with an earlier good checkpoint"])
    assert milestones(gamed, gamed.courses[0]) == Milestones(hacking=6, decline=-1, recommended=2)
    pairs = _pairs_of_points(history, tmp_path)
    page = render_html(report, pairs, tmp_path)
    columns = re.findall(r"<li.*?</li>", page.split('<ol class="milestones"')[1], re.DOTALL)
    assert ["decline starts" in column for column in columns[:4]] == [False, False, False, True]
    assert "hacking starts" not in page


def _pairs_of_points(history: RunHistory, folder: Path) -> list[Pair]:
    """One pair for every checkpoint, with the same grey image."""
    Image.new("RGB", (8, 8), "grey").save(folder / "image.png")
    scores = {"proxy": 0.5}
    return [
        Pair(point.model, "animals", "id", "a cat", 0, "image.png", "image.png", scores, scores)
        for point in history.points[1:]
    ]


def test_backticks_of_a_word_are_code_and_markup_stays_text() -> None:
    assert code_spans("a `b` <i> `c<`") == "a <code>b</code> &lt;i&gt; <code>c&lt;</code>"


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (-2.01, -1.951, ("▲0.06", "up")),
        (26.1, 24.0, ("▼2.1", "down")),
        (7.71, 58.04, ("▲50.3", "up")),
        (0.5, 0.5, ("=0.000", "")),
        (2.0, 2.0004, ("▲0.0004", "up")),  # smaller than the decimals of its scores
        (1e-7, 3e-7, ("▲2e-07", "up")),
        (math.nan, 1.0, ("", "")),
    ],
)
def test_a_change_has_the_decimals_of_its_scores(
    before: float, after: float, shown: tuple[str, str]
) -> None:
    assert image_grids._change(before, after) == shown


@pytest.mark.parametrize(("low", "high"), [(-0.42, 0.45), (-2.1, 1.9), (-0.106, 0.0), (0.4, 2.1)])
def test_an_axis_has_three_numbers_or_more_that_do_not_touch(low: float, high: float) -> None:
    axis = Axis.over([Mark((low + high) / 2, low, high, "seen")], 0.0, "gain")
    drawn = re.findall(r'<text x="([\d.]+)" y="18.0"[^>]*>([^<]+)<', axis_plot(axis))
    assert len(drawn) >= 3
    for (left, number), (right, other) in zip(drawn, drawn[1:], strict=False):
        assert float(right) - float(left) > 6.5 * (len(number) + len(other)) / 2


def test_zero_has_no_exponent() -> None:
    assert [tick_text(value, [0.0, 2e-5]) for value in (0.0, 2e-5)] == ["0", "2e−05"]
    assert tick_text(0.0, [0.0]) == "0"


def test_milestones_are_those_of_the_answer(made: tuple[Report, list[Pair], Path]) -> None:
    report = made[0]
    answers = {one["model"]: one for one in answer_values(report)["models"]}
    for history in report.courses:
        answer = answers[history.points[-1].model]
        found = milestones(report, history)
        assert found.recommended == answer["use_iteration"]
        if answer["hacking_from"] >= 0:
            assert found.hacking == answer["hacking_from"]


def test_without_history_there_is_no_strip(made: tuple[Report, list[Pair], Path]) -> None:
    assert 'class="timeline"' not in render_html(replace(made[0], courses=()), made[1], made[2])


def test_words_of_page_and_glossary_are_the_same(page: str) -> None:
    section = GLOSSARY.read_text(encoding="utf-8").split("## In the report")[1]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", section, re.MULTILINE)[1:]
    assert dict(rows) == TERMS
    parsed = Page(page)
    ids = {attributes.get("id") for _, attributes in parsed.elements}
    targets = [one["popovertarget"] for one in parsed.all("button")]
    assert len(targets) > len(TERMS)
    assert set(targets) <= ids
    for number, (name, text) in enumerate(TERMS.items(), 1):
        assert f'id="term-{number}"' in page
        assert parsed.text.count(f"{name}: {text.replace('`', '')}.") == 1


def test_a_page_of_the_default_size_fits_its_budget(tmp_path: Path) -> None:
    report, pairs = make(tmp_path, prompts=24, seeds=4, side=64)
    report = only(report, "aesthetic-1")
    assert len(render_html(report, pairs, tmp_path).encode()) < BUDGET


def test_the_date_is_that_of_the_findings(
    made: tuple[Report, list[Pair], Path], tmp_path: Path
) -> None:
    report = replace(made[0], made="")
    path = tmp_path / "report.json"
    first = dated(report, path, DAY)
    assert first.made == "2026-02-03T04:05:06+00:00"
    save_report(path, first)
    later = DAY.replace(year=2027)
    assert dated(report, path, later) == first
    assert dated(replace(report, seeds=9), path, later).made == "2027-02-03T04:05:06+00:00"


@pytest.mark.parametrize(
    "settings",
    [
        {"checkpoints": ("runs/a",)},
        {"checkpoints": ("runs/it's a", "b"), "prompts": ("x=a b.txt", "objects"), "seeds": 2},
        {"checkpoints": ("a", "b"), "history": 0, "best_of": 0, "held_out": False, "seed": 3},
        {"images": ("base=a", "b=c;d"), "rewards": ("darkness", "$(x)"), "out": Path("o o")},
        {"checkpoints": ("a",), "best_of": 8, "guidance": 2.5, "leaks": "drop", "trust": ("m:A",)},
    ],
)
def test_the_command_gives_the_same_settings(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpo.eval import plan as plan_module

    config = EvalConfig(**settings)  # type: ignore[arg-type]
    app = typer.Typer()
    app.command("eval")(evaluate_command)
    app.command("compare")(compare_command)
    given: list[EvalConfig] = []

    def stop(read: EvalConfig, named: object = None) -> None:
        given.append(read)
        raise typer.Exit

    monkeypatch.setattr(plan_module, "plan", stop)
    monkeypatch.setattr("ddpo.cli.evaluate.check_evaluation", lambda options, conditions: None)
    words = shlex.split(command_line(config))
    assert words[0] == "ddpo"
    typer.main.get_command(app).main(words[1:], standalone_mode=False)
    assert given == [config]


def test_the_command_holds_no_secret() -> None:
    config = EvalConfig(checkpoints=("a",), rewards=("./a.py:f:api_key=sk-very-secret-1",))
    assert "sk-very" not in command_line(config)
    assert "***" in command_line(config)
