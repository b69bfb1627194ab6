"""`ddpo rewards download`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.commands import examples
from ddpo.cli.completion import complete_reward
from ddpo.cli.console import escape, new_console, note_console, print_json
from ddpo.cli.options import AsJson
from ddpo.cli.verbosity import is_quiet

if TYPE_CHECKING:
    from rich.console import Console

    from ddpo.rewards.tools.availability import WeightState


@examples("ddpo rewards download aesthetic", "ddpo rewards download pickscore clip_score")
def download_command(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="REWARD",
            help="Rewards of `ddpo rewards list`.",
            autocompletion=complete_reward,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Fetch and verify the weights of rewards; downloads from the hub resume."""

    from ddpo.rewards.cards.embedded import embedded_name, is_embedded
    from ddpo.rewards.scoring.resolve import single_rewards
    from ddpo.rewards.tools.availability import check_space_for, weight_state
    from ddpo.rewards.tools.needed_weights import needed_weights
    from ddpo.rewards.zoo import resolve

    console = note_console() if as_json else new_console()
    singles = [single for name in names for single in single_rewards(resolve(name))]
    needed = dict.fromkeys(
        (
            one.card.id,
            is_embedded(one.card),
            tuple(needed_weights(one.card, one.options, one.origin)),
        )
        for one in singles
    )
    states = {weight: weight_state(weight) for _, _, weights in needed for weight in weights}
    check_space_for(list(states.values()))
    fetched = []
    for reward, embedded, weights in needed:
        if not weights:
            console.print(f"{escape(reward)} needs no weights: nothing to download", soft_wrap=True)
        elif embedded:
            name = escape(embedded_name(reward))
            console.print(f"{name}: its weights are in ddpo, nothing to download", soft_wrap=True)
        fetched += [_fetch(states[weight], reward, console) for weight in weights]
    if as_json:
        print_json(fetched)


def _fetch(state: WeightState, reward: str, console: Console) -> dict[str, str | None]:
    """Fetches one file or repository, prints its path, and returns the facts about it."""

    from ddpo.rewards.hub_cache import hub_repository
    from ddpo.rewards.tools.availability import fetch_weight
    from ddpo.weights import hub_snapshot

    path = fetch_weight(state.weight, reward, progress=not is_quiet())
    repository = hub_repository(state.weight)
    folder = None if repository is None else hub_snapshot(repository, state.weight.revision)
    revision = state.weight.revision
    if folder is not None and folder.name != revision:
        revision = f"{revision}, today commit {folder.name}"
    checked = f"revision {revision}, the card gives no SHA-256"
    if state.weight.sha256:
        checked = "SHA-256 as on the card"
    console.print(f"{escape(reward)}: {escape(str(path))} ({checked})", soft_wrap=True)
    return {
        "reward": reward,
        "source": state.weight.source,
        "revision": state.weight.revision,
        "path": str(path),
        "sha256": state.weight.sha256 or None,
    }
