"""Matched pairs as figures: the strip at the top of the page, and the grids of each split."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from ddpo.eval.gallery import choose_gallery, choose_strip
from ddpo.eval.render.pictures import inline_picture
from ddpo.eval.render.words import number, split_title
from ddpo.eval.tables import Pair

__all__ = ["galleries", "strip"]

STRIP_SIZE: Final = 8


def strip(splits: Sequence[str], pairs: Sequence[Pair], reward: str, folder: Path) -> str:
    """A row of pairs drawn at random from all splits, before above after; empty if there are no pairs."""
    chosen = choose_strip(pairs, splits, STRIP_SIZE)
    figures = "".join(f"<li>{_pair(pair, reward, folder)}</li>" for pair in chosen)
    told = (
        "Pairs drawn at random from all prompt lists. Upper picture: the base model. Lower picture: after training, from the same noise. "
        f"Below: the prompt and how {reward} changed."
    )
    return f'<figure><ul class="strip">{figures}</ul><figcaption>{escape(told)}</figcaption></figure>' if chosen else ""


def galleries(splits: Sequence[str], pairs: Sequence[Pair], reward: str, folder: Path, shown: int) -> str:
    """For each split the `shown` largest gains, smallest gains, and pairs drawn at random."""
    told = f"before left, after right, same noise; scores are {escape(reward)}"
    parts = [f'<section aria-labelledby="pictures"><h2 id="pictures">Pictures <small>{told}</small></h2>']
    if not shown:
        parts.append("<p>The pictures are too many or too large for this page; they are in the folder images.</p>")
    for split in splits if shown else ():
        found = choose_gallery([pair for pair in pairs if pair.split == split], reward, shown)
        kinds = {"largest gains": found.gains, "largest losses, or smallest gains": found.losses, "drawn at random": found.random}
        for kind, chosen in kinds.items():
            if chosen:
                figures = "".join(f"<li>{_pair(pair, reward, folder)}</li>" for pair in chosen)
                parts.append(f'<h3>{escape(split_title(split))} <small>{kind}</small></h3><ul class="pairs">{figures}</ul>')
    return "".join(parts) + "</section>"


def _pair(pair: Pair, reward: str, folder: Path) -> str:
    before, after, gain = pair.base[reward], pair.tuned[reward], pair.gain(reward)
    shots = _picture(pair, "before", before, folder, pair.base_image) + _picture(pair, "after", after, folder, pair.tuned_image)
    css = "up" if gain > 0 else "down" if gain < 0 else ""
    change = f'<span class="n">{number(before)} → {number(after)}</span> <span class="n {css}">{number(gain, signed=True)}</span>'
    told = "not scorable" if gain != gain else change
    return f'<figure><div class="shots">{shots}</div><figcaption><b>{escape(pair.prompt)}</b>{told}</figcaption></figure>'


def _picture(pair: Pair, when: str, score: float, folder: Path, file: str | None) -> str:
    inlined = inline_picture(folder / file) if file else None
    told = escape(f"{pair.prompt}, sample {pair.index}, {when} training, score {number(score)}")
    if inlined is None:
        return f'<div class="gone" role="img" aria-label="{told}: no picture">no picture</div>'
    css = ' class="px"' if inlined.pixelated else ""
    return f'<img src="{inlined.address}" width="{inlined.width}" height="{inlined.height}" alt="{told}"{css}>'
