"""`ddpo rewards list`, `show` and `score`. Nothing heavy is imported before `score` runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpo.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.card import RewardCard
    from ddpo.rewards.scored_files import ScoreRow
    from ddpo.rewards.zoo import ResolvedReward

app = typer.Typer(help="The reward zoo: what there is, what each one measures, and scores of your pictures.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """All rewards, built in and of installed packages; broken ones with their cause."""
    from ddpo.rewards.zoo import rewards

    cards, failures = rewards.available()
    if as_json:
        records: list[dict[str, Any]] = [{**card.to_dict(), "origin": rewards.origin(name)} for name, card in cards.items()]
        records += [{"id": name, "origin": rewards.origin(name), "broken": str(error)} for name, error in failures.items()]
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    console.print(_list_table([(card, rewards.origin(name)) for name, card in cards.items()]))
    for error in failures.values():
        console.print(f"[red]broken[/red]  {_escape(str(error))}", soft_wrap=True)


def _list_table(cards: list[tuple[RewardCard, str]]) -> Table:
    from rich import box
    from rich.table import Table

    from ddpo.rewards.table import needs

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("reward", no_wrap=True, style="bold")
    table.add_column("measures", ratio=3)
    table.add_column("unit", ratio=2)
    table.add_column("needs", ratio=1)
    with_origin = any(origin != "ddpo" for _, origin in cards)
    if with_origin:
        table.add_column("from", ratio=1)
    for card, origin in cards:
        cells = [card.id, _escape(card.summary), _escape(card.unit), _escape(needs(card))]
        table.add_row(*cells, *([_escape(origin)] if with_origin else []))
    return table


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object.")],
    as_json: Json = False,
) -> None:
    """Everything that is known about one reward: scale, flaws, licences, options, known scores."""
    from ddpo.rewards.zoo import resolve

    found = resolve(name)
    if as_json:
        typer.echo(json.dumps({**found.card.to_dict(), "origin": found.origin, "signature": found.signature}, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _facts(found):
        table.add_row(label, _escape(text))
    Console().print(table)


def _facts(found: ResolvedReward) -> list[tuple[str, str]]:
    from ddpo.rewards.table import needs, scale

    card = found.card
    typical = "not stated"
    if card.typical:
        typical = " / ".join(f"{value:g}" for value in card.typical) + f"   (5th / 50th / 95th percentile; {card.typical_source})"
    facts = [
        ("reward", f"{card.id}, version {card.version}, from {found.origin}"),
        ("measures", card.summary),
        ("known flaws", card.flaws),
        ("scale", scale(card)),
        ("better", card.direction),
        ("typical", typical),
        ("judges", " + ".join(card.inputs)),
        ("needs", needs(card)),
        ("pixels", f"{card.pixels}; {card.preprocessing or 'preprocessing not stated'}"),
        ("computed in", f"{card.dtype}, on {'any device' if card.device == 'any' else 'the CPU'}, about {card.memory_mb} MB"),
        ("properties", ", ".join(_properties(card))),
        ("code licence", card.code_licence),
        ("paper", card.paper or "none"),
        ("lineage", ", ".join(card.lineage) or "none"),
    ]
    facts += [
        ("weights", f"{w.source} @ {w.revision[:12]}, {w.megabytes:g} MB, {w.licence}, SHA-256 {w.sha256 or 'none'}") for w in card.weights
    ]
    facts += [("option", f"{option.name}={option.default}   {option.help}") for option in card.options]
    sources = dict.fromkeys((golden.source, golden.tolerance) for golden in card.golden)
    for source, tolerance in sources:
        scores = ", ".join(f"{g.fixture} {g.score:.9g}" for g in card.golden if (g.source, g.tolerance) == (source, tolerance))
        facts.append(("known scores", f"{scores}, ± {tolerance:g}   ({source})"))
    return [*facts, ("signature", found.signature)]


def _properties(card: RewardCard) -> list[str]:
    named = {"differentiable": card.differentiable, "deterministic": card.deterministic, "independent of batch mates": card.batch_invariant}
    return [name if holds else f"not {name}" for name, holds in named.items()]


@app.command("score")
def score_command(
    name: Annotated[str, typer.Argument(help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures, and folders of pictures.")],
    prompts: Annotated[Path | None, typer.Option(help=".txt with one line per picture, or .jsonl with 'file' and 'prompt'.")] = None,
    prompt: Annotated[str | None, typer.Option(help="The one prompt of all pictures.")] = None,
    out: Annotated[Path | None, typer.Option(help="A table to write: .parquet, .csv or .jsonl. Replaces an older one.")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures per call of the reward.")] = 16,
) -> None:
    """Scores pictures; prints a summary and the signature, and writes one line per picture."""
    from rich.console import Console

    from ddpo.rewards.zoo import resolve

    found = resolve(name)
    if prompts is not None and prompt is not None:
        raise ConfigError("give --prompts or --prompt, not both")
    from ddpo.images import find_images
    from ddpo.rewards.score_table import check_table_path, read_image_prompts, write_table
    from ddpo.types import Prompt

    if out is not None:
        check_table_path(out)
    paths = find_images(images)
    texts = read_image_prompts(prompts, paths) if prompts is not None else [Prompt(prompt)] * len(paths) if prompt is not None else None
    rows = _score(found, paths, texts, batch_size)
    console = Console()
    if out is not None:
        write_table(rows, out, found.signature)
    _print_scores(console, rows, found, out)


def _score(found: ResolvedReward, paths: list[Path], prompts: Any, batch_size: int) -> list[ScoreRow]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ddpo.rewards.scored_files import score_files

    reward = found.make()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(found.card.id, total=len(paths))
        return score_files(reward, paths, prompts, batch_size, lambda done: progress.advance(task, done))


def _print_scores(console: Any, rows: list[ScoreRow], found: ResolvedReward, out: Path | None) -> None:
    from rich import box
    from rich.table import Table

    from ddpo.rewards.scored_files import summarize

    if out is None:
        for row in rows:
            score = "–" if row.score is None else f"{row.score:.4f}"
            console.print(f"{score:>10}  {_escape(row.file)}", soft_wrap=True)
    for row in [row for row in rows if row.error is not None][:10]:
        console.print(f"[yellow]unscorable[/yellow]  {_escape(str(row.error))}", soft_wrap=True)
    summary = summarize(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("scored", "unscorable", "mean", "sd", "p5", "p50", "p95"):
        table.add_column(column, justify="right", no_wrap=True)
    figures = (f"{value:.5g}" for value in (summary.mean, summary.sd, summary.p5, summary.p50, summary.p95))
    table.add_row(str(summary.scored), str(summary.unscorable), *figures)
    console.print(table)
    console.print(_escape(found.signature), soft_wrap=True)
    if out is not None:
        console.print(f"wrote {_escape(str(out))}", soft_wrap=True)
