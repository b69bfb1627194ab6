"""Arguments of the commands on rewards and images, and checks of their output files and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ddpo.errors import ConfigError, RewardFailure, UnknownNameError
from ddpo.inputs.address import names_image_elsewhere, refuse_address

if TYPE_CHECKING:
    from ddpo.rewards.scoring.resolve import ResolvedReward

__all__ = ["check_output", "check_scored", "named_rewards", "own_output", "split_arguments"]


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Separates the rewards from the places of images.

    An existing file or folder is a place, unless it ends in .py or is the bare name of a reward. A
    folder with the name of a reward is given as ./name.

    Raises:
        ImageError: An argument is the address of an image elsewhere.
    """
    from ddpo.rewards.zoo import rewards

    known = set(rewards.names())
    specs: list[str] = []
    places: list[Path] = []
    for argument in arguments:
        if names_image_elsewhere(argument):
            refuse_address(argument)
        place = Path(argument)
        if argument not in known and place.suffix != ".py" and place.exists():
            places.append(place)
        else:
            specs.append(argument)
    return specs, places


def named_rewards(specs: Sequence[str]) -> dict[str, ResolvedReward]:
    """The rewards by their name in tables.

    The name is the reward's id, or the whole specification where two rewards have the same id.

    Raises:
        UnknownNameError: An argument is neither a place nor a reward.
        ConfigError: The same reward is given twice.
        UserError: As for `resolve`.
    """
    from ddpo.rewards.spec import redacted
    from ddpo.rewards.zoo import resolve

    found: list[ResolvedReward] = []
    for spec in specs:
        try:
            found.append(resolve(spec))
        except UnknownNameError as error:
            reason = str(error).partition("; known: ")[0]
            hint = "" if "did you mean" in reason else "; `ddpo rewards list` names the rewards"
            raise UnknownNameError(f"{spec}: no such file or folder, and {reason}{hint}") from error
    ids = [reward.card.id for reward in found]
    named = {
        reward.card.id if ids.count(reward.card.id) == 1 else redacted(spec): reward
        for spec, reward in zip(specs, found, strict=True)
    }
    if len(named) < len(specs):
        twice = next(spec for spec in specs if specs.count(spec) > 1)
        raise ConfigError(f"reward {twice!r} is given twice")
    return named


def check_output(path: Path, suffix: str) -> None:
    """Checks that a file can be written to `path` before time is spent on its contents.

    Raises:
        ConfigError: The suffix is another one, or the place is a folder or not writable.
    """
    from ddpo.io.atomic import check_writable

    if path.suffix.lower() != suffix:
        raise ConfigError(f"{path}: its name must end in {suffix}")
    check_writable(path)


def check_scored(scored: Mapping[str, int]) -> None:
    """Checks that each reward gave a score, since a result without scores must not pass as one.

    Args:
        scored: Name of a reward → number of images with a score.

    Raises:
        RewardFailure: A reward scored no image.
    """
    empty = [name for name, number in scored.items() if not number]
    if len(empty) == len(scored):
        raise RewardFailure("no image could be scored; the reasons are above")
    if empty:
        raise RewardFailure(
            f"reward {empty[0]!r} could score no image; the reasons are above, "
            "and the scores of the others stand"
        )


def own_output(
    context: typer.Context, path: Path | None, command: str, inputs: Iterable[Path | None] = ()
) -> None:
    """Makes a command the only one that writes a file, until it ends.

    Args:
        context: Context of the command.
        path: File to write, which was checked; None for none.
        command: Command, for the error of others.
        inputs: Files that the command reads.

    Raises:
        ConfigError: The file is one of the inputs.
        RunExistsError: Another process writes it; the message names that process.
    """
    from ddpo.io.lock import owned_file

    if path is None:
        return
    for given in inputs:
        if given is not None and path.exists() and given.exists() and path.samefile(given):
            raise ConfigError(f"{path} would replace an input of this command: choose another name")
    context.with_resource(owned_file(path, command))
