"""The page holds what the report holds, asks the network for nothing, and lets no prompt become markup."""

from __future__ import annotations

import base64
import io
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from analytic import EVIL
from PIL import Image
from rich.console import Console

from ddpo.eval.gallery import choose_gallery, choose_strip
from ddpo.eval.protocol import Evaluation
from ddpo.eval.render import html as page_module
from ddpo.eval.render.html import render_html
from ddpo.eval.render.markdown import render_markdown
from ddpo.eval.render.plots import reward_curve, ticks
from ddpo.eval.render.terminal import render_terminal
from ddpo.eval.render.words import answer, number
from ddpo.eval.report import CurvePoint, Report
from ddpo.eval.stats import TransferRatio, paired_gain
from ddpo.eval.tables import Pair

Evaluated = tuple[Evaluation, list[Pair], Path]
VOID = {"meta", "img", "line", "circle", "path", "br", "link", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on unbalanced tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def page(report: Report, evaluated: Evaluated) -> tuple[str, Page]:
    text = render_html(report, evaluated[1], evaluated[2])
    return text, Page(text)


def test_nothing_is_fetched_and_nothing_runs(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert parsed.tags["script"] == parsed.tags["link"] == parsed.tags["iframe"] == 0
    assert not re.search(r"url\(|@import|https?://", text)
    for tag, name, value in parsed.attributes:
        assert name not in ("href", "srcset", "action", "background")
        assert not name.startswith("on")
        if name == "src":
            assert tag == "img"
            assert value.startswith("data:image/")


def test_prompts_and_cards_are_shown_as_text(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert "<script>" not in text
    assert EVIL in parsed.text
    assert "<b>white</b>" in parsed.text  # the flaws of the card
    assert "file <mine>.txt" in parsed.text
    assert any(name == "alt" and value.startswith(EVIL) for _, name, value in parsed.attributes)


def test_every_split_reward_signature_and_leak_is_there(page: tuple[str, Page], report: Report) -> None:
    _, parsed = page
    for split in report.splits:
        assert split.name.replace("_", " ") in parsed.text
    for reward in report.rewards:
        assert reward.signature in parsed.text
    for gain in report.gains:
        assert number(gain.paired.gain.mean, signed=True) in parsed.text
    assert "“the cats”, trained on “a cat”" in parsed.text
    assert "A note & more." in parsed.text
    assert "3 of mine by brightness" in parsed.text
    assert parsed.tags["svg"] == 3  # two rewards and the curve


def test_pictures_are_the_files_to_the_pixel(page: tuple[str, Page], evaluated: Evaluated) -> None:
    text, parsed = page
    kept = {Image.open(path).convert("RGB").tobytes() for path in (evaluated[2] / "images").rglob("*.png")}
    shown = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(shown) >= 40
    for data in shown[:20]:
        assert Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").tobytes() in kept
    assert text.count('class="px"') == len(shown)
    images = [value for tag, name, value in parsed.attributes if tag == "img" and name == "alt"]
    assert len(images) == parsed.tags["img"]
    assert all(images)


def test_page_is_accessible_in_outline(page: tuple[str, Page]) -> None:
    _, parsed = page
    assert parsed.tags["h1"] == 1
    assert ("html", "lang", "en") in parsed.attributes
    scopes = Counter(value for tag, name, value in parsed.attributes if tag == "th" and name == "scope")
    assert scopes == {"col": 10, "row": 6, "rowgroup": 2}
    assert len([value for tag, name, value in parsed.attributes if tag == "svg" and name == "aria-label" and value]) == 3


def test_lost_pictures_do_not_stop_the_page(report: Report, evaluated: Evaluated, tmp_path: Path) -> None:
    assert "no picture" in Page(render_html(report, evaluated[1], tmp_path)).text


def test_page_stays_small(report: Report, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = len(render_html(report, evaluated[1], evaluated[2]))
    monkeypatch.setattr(page_module, "SIZE_LIMIT", whole // 2)
    smaller = render_html(report, evaluated[1], evaluated[2])
    assert len(smaller.encode()) <= whole // 2


def _with_gains(report: Report, shifts: dict[str, list[float]], ratio: TransferRatio) -> Report:
    gains = []
    for gain in report.gains:
        differences = shifts[gain.split] if gain.reward == "brightness" else [0.0]
        ids = [str(i) for i in range(len(differences))]
        gains.append(replace(gain, paired=paired_gain([0.0] * len(ids), differences, ids)))
    return replace(report, gains=tuple(gains), transfers=tuple(replace(t, share=ratio) for t in report.transfers))


def test_the_answer_follows_the_numbers(report: Report) -> None:
    up, flat, down, lone = [1.0, 1.1, 0.9], [1.0, -1.0, 0.1], [-1.0, -1.1, -0.9], [1.0]
    share, refused = TransferRatio(0.8, 0.7, 0.9), TransferRatio(math.nan, math.nan, math.nan, "no share can be given: because")
    seen, held, carried = answer(_with_gains(report, {"animals": up, "unseen_animals": up, "mine": up}, share))
    assert "rose by 1.00 (" in seen
    assert held.startswith("The gain carried over")
    assert "80\N{NO-BREAK SPACE}% (70 to 90)" in carried
    _, held, _ = answer(_with_gains(report, {"animals": up, "unseen_animals": flat, "mine": down}, share))
    assert held.startswith("The gain was not seen to carry over")
    assert "did not change measurably on unseen animals" in held
    assert "fell by 1.00 (" in held
    seen, held, carried = answer(_with_gains(report, {"animals": flat, "unseen_animals": up, "mine": lone}, refused))
    assert "did not change measurably, +" in seen
    assert "cannot be judged on mine (1 of 2 prompts leaked)" in held
    assert carried == "No share can be given: because."


def test_markdown_and_terminal_say_the_same(report: Report) -> None:
    markdown = render_markdown(report)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render_terminal(report))
    terminal = console.export_text()
    for sentence in answer(report):
        assert sentence.replace("<", "&lt;") in markdown
        assert " ".join(sentence.split()) in " ".join(terminal.split())
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert len(rows) == 2 + len(report.gains)
    assert "<" not in markdown.replace("`", "").split("### ")[1].split("reward:")[0]


def test_narrow_terminal_keeps_every_number_whole(report: Report) -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(render_terminal(report))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    for gain in report.gains:
        assert number(gain.paired.gain.mean, signed=True) in text
        assert number(gain.paired.gain.low, signed=True) in text
    assert "…" not in text


def test_number_by_hand() -> None:
    assert [number(x) for x in (0.0, 1234.5, -0.05, 12.345, 3e9, 2e-7)] == ["0.00", "1234", "−0.0500", "12.3", "3.00e+09", "2.00e-07"]
    assert [number(x, signed=True) for x in (1.5, -1.5, 0.0)] == ["+1.50", "−1.50", "0.00"]
    assert [number(x) for x in (math.nan, math.inf, -math.inf)] == ["–", "∞", "−∞"]


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.13, 0.94) == [0.0, 0.5]
    assert ticks(1, 40, 6) == [10, 20, 30, 40]
    assert ticks(5, 5) == [5]


def test_curve_needs_two_points_and_forgives_nan() -> None:
    points = [CurvePoint(1, 8, math.nan, math.nan), CurvePoint(2, 16, 1.0, 0.1), CurvePoint(3, 24, 2.0, math.nan)]
    assert reward_curve(points[:2], "x", "") == ""
    assert "nan" not in reward_curve(points, "x", "")


def test_gallery_shows_extremes_and_an_even_draw(evaluated: Evaluated) -> None:
    _, pairs, _ = evaluated
    animals = [pair for pair in pairs if pair.split == "animals"]
    found = choose_gallery(animals, "brightness", 4)
    values = sorted(pair.gain("brightness") for pair in animals)
    assert [pair.gain("brightness") for pair in found.losses] == values[:4]
    assert [pair.gain("brightness") for pair in found.gains] == values[::-1][:4]
    assert len({pair.prompt_id for pair in found.random}) == 4
    one = choose_gallery(animals[:1], "brightness", 4)
    assert (one.gains, one.losses, len(one.random)) == ((), (), 1)
    assert [pair.split for pair in choose_strip(pairs, ["animals", "unseen_animals"], 5)] == ["animals"] * 3 + ["unseen_animals"] * 2
