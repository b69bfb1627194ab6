"""Matched pictures of the same noise, base and every model side by side: the strip at the top of the page, and the grids of each split.

A figure opens enlarged without a script: its prompt is a link that leads to the figure itself, and covers the pictures; the style sheet
lays a figure that is the target over the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from ddpo.eval.analysis.tables import Pair
from ddpo.eval.report.album import Album
from ddpo.eval.report.choice import model_class, primary_reward
from ddpo.eval.report.data import Report
from ddpo.eval.report.gallery import choose_gallery, choose_strip
from ddpo.eval.report.tags import details, key, section
from ddpo.eval.report.wording import listed, number, shortened, split_title

__all__ = ["Noise", "by_noise", "galleries", "strip"]

STRIP_SIZE: Final = 8
ALT_LENGTH, CAPTION_LENGTH = 80, 160

Noise = Mapping[tuple[str, str, int], Mapping[str, Pair]]
"""(split, prompt id, index) → model → pair: what was drawn from one noise."""


def by_noise(report: Report, pairs: Sequence[Pair]) -> Noise:
    """The pairs of the compared models, together where they share prompt and noise."""
    compared = {model.name for model in report.compared}
    found: dict[tuple[str, str, int], dict[str, Pair]] = {}
    for pair in pairs:
        if pair.model in compared:
            found.setdefault((pair.split, pair.prompt_id, pair.index), {})[pair.model] = pair
    return found


def strip(report: Report, pairs: Sequence[Pair], noise: Noise, album: Album) -> str:
    """A row of pictures drawn at random from all splits, base above tuned; empty if there are no pairs."""
    first = next(
        (
            model.name
            for model in report.compared
            if any(pair.model == model.name for pair in pairs)
        ),
        "",
    )
    chosen = choose_strip(
        [pair for pair in pairs if pair.model == first],
        [split.name for split in report.splits],
        STRIP_SIZE,
    )
    figures = "".join(
        _figure(report, noise, pair, primary_reward(report, first), album) for pair in chosen
    )
    names = listed(["the base model", *(model.name for model in report.compared)])
    told = f"Drawn at random from all prompt lists. From top to bottom, from the same noise: {names}. A picture opens large."
    return (
        f'<div class="stripbox"><ul class="strip">{figures}</ul><p class="soft">{escape(told)}</p></div>'
        if chosen
        else ""
    )


def galleries(report: Report, pairs: Sequence[Pair], noise: Noise, album: Album, shown: int) -> str:
    """For each split and model the `shown` largest losses and gains, and pictures drawn at random."""
    if not shown:
        return section(
            "pictures",
            "Pictures",
            "<p>The pictures are too many or too large for this page; they are in the folder images.</p>",
        )
    parts = []
    for position, split in enumerate(report.splits):
        body = _split(
            report, [pair for pair in pairs if pair.split == split.name], noise, album, shown
        )
        heading = f"<h3>{key(split.role)} {escape(split_title(split.name))}</h3>"
        parts.append(
            details(heading, body, position < (2 if len(report.compared) == 1 else 1), "reward")
            if body
            else ""
        )
    told = "Same prompt, same noise: the base model first, then what was trained. Look at the losses first. A picture opens large."
    return section("pictures", "Pictures", "".join(parts), told)


def _split(report: Report, pairs: Sequence[Pair], noise: Noise, album: Album, shown: int) -> str:
    parts = []
    for model in report.compared:
        reward, own = (
            primary_reward(report, model.name),
            [pair for pair in pairs if pair.model == model.name],
        )
        found = choose_gallery(own, reward, shown)
        whose = f" of {model.name}" if len(report.compared) > 1 else ""
        fell = any(pair.gain(reward) < 0 for pair in found.losses)
        kinds = {
            f"{'Largest losses' if fell else 'Smallest gains'}{whose} by {reward}": found.losses,
            f"Largest gains{whose} by {reward}": found.gains,
        }
        if model is report.compared[0]:
            drawn = _grid(report, noise, found.random, reward, album)
        lists = [
            f"<h4>{escape(kind)}</h4>{_grid(report, noise, chosen, reward, album)}"
            for kind, chosen in kinds.items()
            if chosen
        ]
        parts.append(
            f'<div class="{model_class(report, model.name)}">{"".join(lists)}</div>'
            if lists
            else ""
        )
    return "".join(parts) + (
        f"<h4>Drawn at random, scores by {escape(primary_reward(report, report.compared[0].name))}</h4>{drawn}"
        if pairs and drawn
        else ""
    )


def _grid(report: Report, noise: Noise, chosen: Sequence[Pair], reward: str, album: Album) -> str:
    figures = "".join(_figure(report, noise, pair, reward, album) for pair in chosen)
    return f'<ul class="pairs n{min(len(report.compared), 4)}">{figures}</ul>' if figures else ""


def _figure(report: Report, noise: Noise, pair: Pair, reward: str, album: Album) -> str:
    """All pictures of the noise of `pair`, with their scores by `reward`."""
    number_of = album.number()
    same = noise[pair.split, pair.prompt_id, pair.index]
    shots = [
        _shot(pair, "base", pair.base_image, pair.base.get(reward, math.nan), math.nan, album, "")
    ]
    for model in report.compared:
        if other := same.get(model.name):
            after = other.tuned.get(reward, math.nan)
            gain = after - other.base.get(reward, math.nan)
            shots.append(
                _shot(
                    other,
                    model.name,
                    other.tuned_image,
                    after,
                    gain,
                    album,
                    model_class(report, model.name),
                )
            )
    prompt = f"<bdi><b>{escape(shortened(pair.prompt, CAPTION_LENGTH))}</b></bdi>"
    return (
        f'<li id="w{number_of}"><figure id="f{number_of}"><div class="shots">{"".join(shots)}</div>'
        f'<figcaption><a class="open" href="#f{number_of}">{prompt}</a> <small class="by">scores by {escape(reward)}</small></figcaption>'
        f'<a class="close" href="#w{number_of}">Close</a></figure></li>'
    )


def _shot(
    pair: Pair, who: str, file: str | None, score: float, gain: float, album: Album, css: str
) -> str:
    inlined = album.picture(file)
    told = escape(
        f"{shortened(pair.prompt, ALT_LENGTH)}, sample {pair.index}, {who}, score {number(score)}"
    )
    if inlined is None:
        picture = f'<span class="gone" role="img" aria-label="{told}: no picture">no picture</span>'
    else:
        sharp = ' class="px"' if inlined.pixelated else ""
        picture = f'<img src="{inlined.address}" width="{inlined.width}" height="{inlined.height}" alt="{told}" loading="lazy"{sharp}>'
    words = f'<small><span class="who">{escape(who)}</span> {_score(score, gain, who == "base")}</small>'
    return f'<span class="shot {css}">{picture}{words}</span>'


def _score(score: float, gain: float, base: bool) -> str:
    if math.isnan(score):
        return "not scorable"
    if base or math.isnan(gain):
        return f'<span class="n">{number(score)}</span>'
    css, sign = ("up", "▲") if gain > 0 else ("down", "▼") if gain < 0 else ("", "=")
    return f'<span class="n">{number(score)}</span> <span class="n {css}">{sign}{number(abs(gain))}</span>'
