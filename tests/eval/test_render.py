"""The renderings of a report.

The page holds the whole report, sends no request, shows hostile text as text and draws every number
at its place. Markdown and terminal say the same.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_fixture import EVIL, HOSTILE, MODELS, estimate, make
from rich.console import Console

from ddpo.eval.analysis.hacking import HackingAssessment
from ddpo.eval.analysis.tables import Pair
from ddpo.eval.inputs.runs import CurvePoint
from ddpo.eval.inputs.splits import LeakFacts
from ddpo.eval.report import html as page_module
from ddpo.eval.report.answer import answer
from ddpo.eval.report.data import Report
from ddpo.eval.report.gallery import choose_gallery, choose_strip
from ddpo.eval.report.html import render_html
from ddpo.eval.report.interval_plots import WIDTH, Axis, Mark, interval_plot
from ddpo.eval.report.markdown import render_github, render_markdown
from ddpo.eval.report.svg import ticks
from ddpo.eval.report.templating import stylesheet
from ddpo.eval.report.terminal import render_terminal
from ddpo.eval.report.training_plots import RootScale, reward_curve
from ddpo.eval.report.wording import number, rounded, shortened
from ddpo.stats.paired import TransferRatio, paired_gain

Made = tuple[Report, list[Pair], Path]
VOID = {"meta", "img", "line", "circle", "path", "rect", "br", "input"}
ORDER = [
    "gains",
    "images",
    "hacking",
    "history",
    "artefacts",
    "diversity",
    "matrix",
    "seeds",
    "curves",
    "rewards",
    "leaks",
    "manifests",
    "method",
    "words",
]
DATA = ("report.json", "report.md", "samples.parquet", "images/")  # links that leave the page


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on unbalanced tags.

    `rows` holds the cells of every table row, by the caption of the table.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.caption = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "caption":
            self.caption = ""
        if tag == "tr":
            self.rows.setdefault(self.caption, []).append([])
        if tag in ("td", "th"):
            self.rows[self.caption][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] == "style":
            return
        self.text += data
        if "caption" in self.open:
            self.caption += data
        elif "tr" in self.open and self.rows[self.caption][-1]:
            self.rows[self.caption][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("report")
    return (*make(folder), folder)


@pytest.fixture(scope="module")
def report(made: Made) -> Report:
    return made[0]


@pytest.fixture(scope="module")
def page(made: Made) -> tuple[str, Page]:
    text = render_html(*made)
    return text, Page(text)


def _only(report: Report, name: str) -> Report:
    """The report of one of the models."""
    lists = ("gains", "transfers", "diversity", "dependence", "readings", "curves")
    kept: dict[str, Any] = {
        field: tuple(item for item in getattr(report, field) if item.model == name)
        for field in lists
    }
    models = tuple(model for model in report.models if model.run == name)
    return replace(
        report,
        models=models,
        runs=(),
        courses=tuple(history for history in report.courses if history.run == name),
        **kept,
    )


def test_nothing_is_fetched_and_nothing_runs(page: tuple[str, Page]) -> None:
    text, parsed = page
    tags = Counter(tag for tag, _ in parsed.elements)
    assert tags["script"] == tags["link"] == tags["iframe"] == tags["form"] == 0
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in next(
        meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv")
    )
    for tag, attributes in parsed.elements:
        assert not {"srcset", "action", "background"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#").startswith(("#", *DATA))
        assert tag != "img" or attributes["src"].startswith("data:image/")


def test_prompts_names_and_cards_are_shown_as_text(page: tuple[str, Page], report: Report) -> None:
    text, parsed = page
    for word in (
        "<script",
        "</style><img",
        "<img src=x",
        "<b>white",
        "emoji <64>",
        "<mine>",
        "mine <b>",
        "<incompressibility>",
    ):
        assert word not in text
    for word in (
        EVIL,
        HOSTILE[1],
        "<b>white</b>",
        "emoji <64>",
        "file <mine>.txt",
        "A note & more <b>.",
        "the cats </li>",
        HOSTILE[3],
    ):
        assert word in parsed.text
    assert "very " * 60 not in text
    assert "(10004 characters)" in parsed.text
    assert len(text) < 1_500_000


def test_outline_is_accessible(page: tuple[str, Page]) -> None:
    _, parsed = page
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    ids = Counter(attributes["id"] for _, attributes in parsed.elements if "id" in attributes)
    assert max(ids.values()) == 1
    for _, attributes in parsed.elements:
        assert attributes.get("aria-labelledby", "gains") in ids
        href = attributes.get("href", "#gains")
        assert href in DATA or href[1:] in ids
    assert ("html", {"lang": "en"}) in parsed.elements
    assert all(image["alt"] for image in parsed.all("img"))
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all(
        svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-label"])
        for svg in parsed.all("svg")
    )
    regions = Counter(a["aria-label"] for _, a in parsed.elements if a.get("role") == "region")
    assert max(regions.values()) == 1


def test_sections_stand_in_order(page: tuple[str, Page], report: Report) -> None:
    _, parsed = page
    assert [attributes["id"] for attributes in parsed.all("h2") if "id" in attributes] == ORDER
    for reward in report.rewards:
        assert reward.signature in parsed.text
    for facts in report.splits:
        assert facts.name.replace("_", " ") in parsed.text
    assert "Two prompts were there twice." in parsed.text


def test_an_empty_report_has_no_empty_sections(report: Report, tmp_path: Path) -> None:
    bare = replace(
        _only(report, "noisy"),
        diversity=(),
        dependence=(),
        courses=(),
        readings=(),
        curves=(),
        transfers=(),
        manifests={},
        notes=(),
    )
    bare = replace(
        bare, rewards=tuple(r for r in report.rewards if r.role == "trained"), sampler={}, seed=-1
    )
    parsed = Page(render_html(bare, [], tmp_path))
    found = [attributes["id"] for attributes in parsed.all("h2") if "id" in attributes]
    assert found == ["gains", "images", "rewards", "leaks", "manifests", "method", "words"]
    assert "Signs of reward hacking were not measured." in parsed.text
    assert "nan" not in parsed.text.lower()


def test_every_gain_stands_in_its_row_and_is_drawn_to_scale(
    page: tuple[str, Page], report: Report
) -> None:
    text, parsed = page
    for reward in ("aesthetic", "pickscore", "acme/blueness"):
        wanted = [
            gain
            for split in report.splits
            for gain in report.gains
            if (gain.split, gain.reward) == (split.name, reward)
        ]
        rows = [row for row in parsed.rows[f"Gains by {reward}"] if row[0] in MODELS]
        assert [row[0] for row in rows] == [gain.model for gain in wanted]
        for row, gain in zip(rows, wanted, strict=True):
            estimate = gain.paired.gain
            for value in (estimate.mean, estimate.low, estimate.high):
                assert rounded(value, estimate.low, estimate.high, signed=True) in row[2]
        table = text[
            text.index(f'<caption class="visually-hidden">Gains by {reward}</caption>') :
        ].split("</table>")[0]
        disc = r'<circle cx="([\d.]+)"[^>]*class="mark seen'
        diamond = r'<path d="M([\d.]+) [\d.]+l[^>]*class="mark heldout'
        drawn = re.findall(f"{disc}|{diamond}", table)
        places = [float(first or second) for first, second in drawn]
        means = [gain.paired.gain.mean for gain in wanted]
        marks = re.findall(r'<text x="([\d.]+)"[^>]*class="tick"[^>]*>([^<]+)<', table)
        (first, start), *_, (last, end) = [
            (float(x), float(words.replace("−", "-"))) for x, words in marks
        ]
        for place, mean in zip(places, means, strict=True):
            assert place == pytest.approx(
                first + (last - first) * (mean - start) / (end - start), abs=0.3
            )


def test_gains_within_the_noise_are_marked(page: tuple[str, Page], report: Report) -> None:
    _, parsed = page
    floors = {reward.id: reward.noise_floor for reward in report.rewards}
    for reward in ("aesthetic", "incompressibility", "pickscore", "acme/blueness"):
        wanted = [
            g
            for split in report.splits
            for g in report.gains
            if (g.split, g.reward) == (split.name, reward)
        ]
        rows = [row for row in parsed.rows[f"Gains by {reward}"] if row[0] in MODELS]
        assert ["~" in row[2] for row in rows] == [
            abs(g.paired.gain.mean) < floors[reward] for g in wanted
        ]
    assert any(
        "within noise" in row[2] for row in parsed.rows["Gains by aesthetic"] if len(row) > 2
    )


def test_one_wide_interval_does_not_squeeze_the_others() -> None:
    marks = [
        Mark(1.0, 0.9, 1.1, "seen"),
        Mark(0.8, 0.7, 0.9, "heldout"),
        Mark(0.5, -400.0, 401.0, "heldout"),
    ]
    axis = Axis.over(marks, 0.0, "gain")
    assert axis.scale(1.0) - axis.scale(0.8) > WIDTH / 30
    cell = interval_plot(axis, marks)
    # both ends of the wide interval are arrows of two lines each, the others have caps
    assert cell.count("L") == 4
    assert all(-1 <= float(x) <= WIDTH + 1 for x in re.findall(r' x[12]="([-\d.]+)"', cell))


def test_best_and_onset_stand_at_their_checkpoints(page: tuple[str, Page], report: Report) -> None:
    text, _ = page
    history = next(history for history in report.courses if history.run == "noisy")
    plots = re.findall(r'aria-label="pickscore of noisy against ([^:]*):[^"]*">(.*?)</svg>', text)
    assert [axis.split()[0] for axis, _ in plots] == ["√KL", "reward"]
    for axis, plot in plots:
        places = [
            float(x)
            for x in re.findall(r'<path d="M([\d.]+) [\d.]+l[^>]*class="mark heldout', plot)
        ]
        assert len(places) == len(history.points)
        assert (
            float(re.findall(r'<circle cx="([\d.]+)"[^>]*class="ring"', plot)[0]) == places[1]
        )  # best at iteration 10
        assert (
            float(re.findall(r'<line x1="([\d.]+)"[^>]*class="onset"', plot)[0]) == places[2]
        )  # onset at iteration 20
        values = [
            point.kl.mean if axis.startswith("√") else point.queries for point in history.points
        ]  # both axes go by a square root
        for place, value in zip(places, values, strict=True):
            assert (place - places[0]) / (places[-1] - places[0]) == pytest.approx(
                math.sqrt(value / values[-1]), abs=1e-3
            )
    start = "From <b>iteration 20</b> on, every examined checkpoint has strong signs"
    assert text.count(start) == text.count("every examined checkpoint has strong signs") == 1
    assert "onset: iteration 20" in plots[0][1]
    assert "best: iteration 10" in plots[0][1]


def test_root_scale_has_round_ticks_with_room() -> None:
    scale = RootScale(0.0, 8000.0, 58.0, 426.0)
    assert scale(2000.0) == pytest.approx((58 + 426) / 2)
    assert scale.ticks() == [0.0, 200.0, 1000.0, 2000.0, 5000.0]


def test_images_of_a_figure_share_their_noise_to_the_pixel(
    page: tuple[str, Page], made: Made
) -> None:
    text, _ = page
    _, pairs, folder = made
    owners: dict[bytes, tuple[str, tuple[str, str, int]]] = {}
    for pair in pairs:
        for who, file in (("base", pair.base_image), (pair.model, pair.tuned_image)):
            owners[Image.open(folder / str(file)).convert("RGB").tobytes()] = (
                who,
                (pair.split, pair.prompt_id, pair.index),
            )
    figures = re.findall(r"<figure id=.*?</figure>", text, re.DOTALL)
    assert len(figures) > 40
    for figure in figures:
        shown = [
            owners[Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").tobytes()]
            for data in re.findall(r'src="data:image/png;base64,([^"]+)"', figure)
        ]
        assert [who for who, _ in shown] == ["base", *MODELS]
        assert len({noise for _, noise in shown}) == 1


def test_one_model_needs_no_choice(made: Made, page: tuple[str, Page]) -> None:
    report, pairs, folder = made
    choices = page[1].all("input")
    assert [choice["id"] for choice in choices] == ["show0", "show1", "show2", "show3"]
    for position in range(3):
        assert (
            f"main:has(#show{position + 1}:checked) .m:not(.m{position}){{display:none}}" in page[0]
        )
    single = render_html(_only(report, "noisy"), pairs, folder)
    parsed = Page(single)
    assert not parsed.all("input")
    assert "aesthetic-1" not in parsed.text
    rows = [row for row in parsed.rows["Gains by aesthetic"] if len(row) > 4]
    assert [row[0].split(maxsplit=1)[-1] for row in rows[1:]] == [
        "animals",
        "near",
        "unseen animals",
        "objects",
        "mine <b>",
    ]


def test_every_grade_has_its_word_and_shape(page: tuple[str, Page], report: Report) -> None:
    text, _ = page
    grades = [str(item.grade) for one in report.readings for item in one.evidence]
    grades += [one.grade for one in report.readings] * 2
    grades += [signs.grade for history in report.courses for signs in history.signs]
    shapes = {}
    for grade, times in Counter(grades).items():
        found = re.findall(rf'<span class="grade [^"]*"><svg [^>]*>(.*?)</svg>{grade}</span>', text)
        assert len(found) == times
        shapes[grade] = found[0]
    assert len(set(shapes.values())) == 4


def test_lost_images_and_large_pages(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report, pairs, folder = made
    assert "no image" in Page(render_html(report, pairs, tmp_path)).text
    whole = len(render_html(report, pairs, folder).encode())
    monkeypatch.setattr(page_module, "SIZE_LIMIT", whole - 1)
    assert len(render_html(report, pairs, folder).encode()) < whole


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_colours_have_contrast(scheme: str) -> None:
    light, dark, paper = re.findall(r":root \{(.*?)\}", stylesheet(), re.DOTALL)
    colours: dict[str, str] = {}
    for block in {"light": [light], "dark": [light, dark], "print": [light, paper]}[scheme]:
        for name, value in re.findall(r"--([\w-]+): (#\w+)", block):
            colours[name] = (
                value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])
            )
    pairs = [
        (text, ground)
        for text in ("ink", "soft", "accent", "seen", "held", "best", "up", "down", "watch")
        for ground in ("bg", "panel")
    ]
    for text, ground in [
        *pairs,
        ("on-accent", "accent"),
        ("ink", "notice"),
        ("up", "rise-bg"),
        ("down", "fall-bg"),
        ("soft", "rise-bg"),
        ("soft", "fall-bg"),
    ]:
        bright, dim = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)
    for shape in ("seen", "held"):  # a mark inside the band of the noise floor
        bright, dim = sorted(
            (_luminance(colours[shape]), _luminance(colours["noise"])), reverse=True
        )
        assert (bright + 0.05) / (dim + 0.05) >= 3


def _with_gains(report: Report, shifts: dict[str, list[float]], ratio: TransferRatio) -> Report:
    gains = []
    for gain in report.gains:
        differences = shifts.get(gain.split, [])
        ids = [str(i) for i in range(len(differences))]
        gains.append(replace(gain, paired=paired_gain([0.0] * len(ids), differences, ids)))
    splits = tuple(split for split in report.splits if split.name in shifts)
    gains = [gain for gain in gains if gain.split in shifts]
    return replace(
        report,
        splits=splits,
        gains=tuple(gains),
        transfers=tuple(replace(t, share=ratio) for t in report.transfers),
    )


UP = [1.0, 1.1, 0.9]
FLAT = [1.0, -1.0, 0.1]
DOWN = [-1.0, -1.1, -0.9]
SHARE = TransferRatio(0.8, 0.7, 0.9)


def test_a_gain_that_carries_over_is_given_as_shares(report: Report) -> None:
    shifts = {"animals": UP, "unseen_animals": UP, "objects": FLAT}
    training, held_out, _ = answer(_with_gains(report, shifts, SHARE), "noisy")
    assert "incompressibility rose by 1.00 (" in training
    assert held_out.startswith(
        "These shares of the gain carried over to held-out prompts: "
        "80\N{NO-BREAK SPACE}% (70 to 90) on unseen animals; incompressibility did"
    )


def test_a_gain_without_a_share_is_given_on_the_scale_of_the_reward(report: Report) -> None:
    """The training gain is clear, but no share can be given, as within the noise floor."""
    refused = TransferRatio(math.nan, math.nan, math.nan, "no share can be given: because")
    shifts = {"animals": UP, "unseen_animals": UP, "objects": FLAT}
    _, held_out, _ = answer(_with_gains(report, shifts, refused), "noisy")
    assert "shares" not in held_out
    assert held_out.startswith(
        "On held-out prompts, incompressibility rose on unseen animals by 1.00"
    )


def test_a_gain_that_does_not_carry_over_is_said_first(report: Report) -> None:
    shifts = {"animals": UP, "unseen_animals": FLAT, "mine <b>": DOWN}
    _, held_out, _ = answer(_with_gains(report, shifts, SHARE), "noisy")
    assert held_out.startswith("The gain was not seen to carry over")
    assert "did not change measurably on unseen animals" in held_out
    assert "fell on mine <b> by 1.00 (" in held_out


def test_without_a_gain_there_is_no_share(report: Report) -> None:
    refused = TransferRatio(math.nan, math.nan, math.nan, "no share can be given: because")
    shifts = {"animals": FLAT, "unseen_animals": UP, "near": [1.0]}
    training, held_out, _ = answer(_with_gains(report, shifts, refused), "noisy")
    assert "did not change measurably, 0.0 (−2.5 to +2.5)" in training
    assert "cannot be judged on near (2 of 3 prompts leaked)" in held_out
    assert held_out.endswith("No share can be given: because.")


def test_the_answer_gives_the_grade_with_its_strongest_evidence(report: Report) -> None:
    hacked = answer(report, "noisy")[2]
    assert hacked.startswith(
        "Strong signs of reward hacking: held-out rewards, artefacts, prompt dependence and "
        "run history. Strongest"
    )
    assert " Strongest evidence (held-out rewards): pickscore fell by 1.6 (1.2 to 2.0)" in hacked
    assert " Strongest evidence (artefacts): saturation moved" in answer(report, "aesthetic-1")[2]
    healthy = answer(report, "aesthetic-2")[2]
    assert healthy == "No sign of reward hacking in 1 kinds of evidence."
    nothing = HackingAssessment("noisy", "not measured", "Nothing was.", ())
    unmeasured = replace(report, readings=(nothing,))
    assert answer(unmeasured, "noisy")[2] == "Nothing was."
    assert answer(unmeasured, "aesthetic-1")[2] == "Signs of reward hacking were not measured."


def test_leaks_that_were_left_out_are_not_in_the_numbers(report: Report) -> None:
    splits = tuple(
        replace(split, dropped=2) if split.name == "near" else split for split in report.splits
    )
    assert "leaked" in answer(report, "noisy")[1]
    assert "leaked" not in answer(replace(report, splits=splits), "noisy")[1]


def _plain(markdown: str) -> str:
    """Markdown as its reader sees it."""
    text = re.sub(r"\\([\\`*_\[\]|])", r"\1", markdown).replace("\N{ZERO WIDTH NON-JOINER}", "")
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


@pytest.mark.parametrize("render", [render_markdown, render_github])
def test_markdown_says_the_same_and_stays_text(
    report: Report, render: Callable[[Report], str]
) -> None:
    leak = replace(
        report.splits[1], leaks=(LeakFacts("a | `rm` @all #1 <b>", "a\ncat", "@all <i> [x](y)"),)
    )
    report = replace(report, splits=(report.splits[0], leak, *report.splits[2:]))
    markdown = render(report)
    for model in MODELS:
        for sentence in answer(report, model):
            assert sentence in _plain(markdown)
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {12}
    count = {render_markdown: 5 * 5, render_github: 9 * 5}[render]  # type: ignore[index]
    assert len([row for row in rows if "noisy" in row]) == count
    text = re.sub(r"`[^`\n]*`", "", markdown)  # without code
    assert set(re.findall(r"<[^>]*>", text)) <= {
        "<details>",
        "<summary>",
        "</summary>",
        "</details>",
    }
    folded = {render_markdown: 0, render_github: 4}[render]  # type: ignore[index]
    assert markdown.count("<details>") == markdown.count("</details>") == folded
    assert not re.search(r"[@#]\w|(?<!\\)\[", text)
    assert "`a | ˋrmˋ @all #1 <b>`" in markdown
    assert all(f"`{reward.signature}`" in markdown for reward in report.rewards)


@pytest.mark.parametrize("width", [80, 200])
def test_terminal_says_the_same_and_keeps_every_number_whole(report: Report, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render_terminal(report))
    text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines())
    for model in MODELS:
        for sentence in answer(report, model):
            assert "".join(sentence.split()) in "".join(text.split())
    for gain in report.gains:
        if gain.reward in (
            "aesthetic",
            "incompressibility",
            "pickscore",
            "imagereward",
            "acme/blueness",
        ):
            estimate = gain.paired.gain
            for value in (estimate.mean, estimate.low, estimate.high):
                assert rounded(value, estimate.low, estimate.high, signed=True) in text
    assert "…" not in text


def test_number_by_hand() -> None:
    assert [number(x) for x in (0.0, 1234.5, -0.05, 12.345, 3e9, 2e-7)] == [
        "0.00",
        "1234",
        "−0.0500",
        "12.3",
        "3.00e+09",
        "2.00e-07",
    ]
    assert [number(x, signed=True) for x in (1.5, -1.5, 0.0)] == ["+1.50", "−1.50", "0.00"]
    assert [number(x) for x in (math.nan, math.inf, -math.inf)] == ["–", "∞", "−∞"]
    assert [shortened(text, 3) for text in ("ab", "a\n b", "abcd")] == [
        "ab",
        "a b",
        "abc… (4 characters)",
    ]


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.13, 0.94) == [0.0, 0.5]
    assert ticks(1, 40, 6) == [10, 20, 30, 40]
    assert ticks(5, 5) == [5]


def test_curve_needs_two_points_and_forgives_nan() -> None:
    points = [
        CurvePoint(1, 8, math.nan, math.nan),
        CurvePoint(2, 16, 1.0, 0.1),
        CurvePoint(3, 24, 2.0, math.nan),
    ]
    assert reward_curve(points[:2], "x", "") == ""
    assert "nan" not in reward_curve(points, "x", "")


def test_unknown_kl_leaves_the_queries(made: Made) -> None:
    report, _, folder = made
    courses = tuple(
        replace(c, points=tuple(replace(p, kl=estimate(math.nan, math.nan)) for p in c.points))
        for c in report.courses
    )
    parsed = Page(render_html(replace(report, courses=courses), [], folder))
    assert "The KL divergence from the base model is not known." in parsed.text
    assert "√KL to the base model" not in parsed.text
    assert "reward queries (square-root scale)" in parsed.text


def test_gallery_shows_extremes_and_an_even_draw(made: Made) -> None:
    pairs = [pair for pair in made[1] if pair.model == "noisy"]
    animals = [pair for pair in pairs if pair.split == "animals"]
    found = choose_gallery(animals, "aesthetic", 2)
    values = sorted(pair.gain("aesthetic") for pair in animals)
    assert [pair.gain("aesthetic") for pair in found.losses] == values[:2]
    assert [pair.gain("aesthetic") for pair in found.gains] == values[::-1][:2]
    assert len({pair.prompt_id for pair in found.random}) == 2
    one = choose_gallery(animals[:1], "aesthetic", 4)
    assert (one.gains, one.losses, len(one.random)) == ((), (), 1)
    assert [pair.split for pair in choose_strip(pairs, ["animals", "objects"], 5)] == [
        "animals"
    ] * 3 + ["objects"] * 2


def test_the_page_is_a_pure_function_of_its_data(made: Made, page: tuple[str, Page]) -> None:
    report, pairs, folder = made
    assert render_html(report, pairs, folder) == page[0]
    again = (
        "import sys\nfrom pathlib import Path\nfrom report_fixture import make\n"
        "from ddpo.eval.report.html import render_html\n"
        "folder = Path(sys.argv[1])\n"
        "sys.stdout.buffer.write(render_html(*make(folder), folder).encode())\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for seed in ("1", "2"):  # the order of sets differs
        other = subprocess.run(
            [sys.executable, "-c", again, str(folder)],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed},
        ).stdout
        assert other == page[0].encode()


def test_templates_are_loaded_by_the_first_page_alone() -> None:
    """An evaluation that fails before its report pays nothing for the template engine."""
    script = (
        "import sys, ddpo.eval.runner, ddpo.eval.report.markdown, ddpo.eval.report.terminal\n"
        "print('jinja2' in sys.modules)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "False"


def _renamed(report: Report, names: dict[str, str]) -> Report:
    """The report with other ids for its held-out rewards."""

    def rename(items: Any, field: str) -> Any:
        return tuple(
            replace(item, **{field: names.get(getattr(item, field), getattr(item, field))})
            for item in items
        )

    return replace(
        report,
        rewards=rename(report.rewards, "id"),
        gains=rename(report.gains, "reward"),
        transfers=rename(report.transfers, "reward"),
        courses=(),
        runs=(),
    )


def test_scores_of_the_base_model_have_names_for_readers(made: Made) -> None:
    report, _, folder = made
    names = {"imagereward": "base_fit", "pickscore": "prompt_evidence"}
    shown = _renamed(report, names)
    html = Page(render_html(shown, [], folder)).text
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(render_terminal(shown))
    terminal = console.export_text()
    for text in (html, render_markdown(shown), terminal):
        assert "plausibility to the base model" in text
        assert "prompt recognisability" in text
    # conditions of --fail-if take the ids
    assert "base_fit · held-out reward" in html
    assert "prompt recognisability (prompt_evidence), held-out reward" in terminal


def test_the_report_speaks_the_language_of_the_field(
    report: Report, page: tuple[str, Page]
) -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(render_terminal(report))
    texts = (page[1].text, render_markdown(report), render_github(report), console.export_text())
    for text in texts:
        assert not re.findall(
            r"(?i)\bpictures?\b|\bgaming\b|\btold\b|\bcourses?\b|\bunseen in\b", text
        )
