"""`ddpo label`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ddpo.cli.commands import examples
from ddpo.cli.console import echo, quiet_libraries
from ddpo.cli.early import check_checkpoint, check_device_name, check_places, check_prompt_list
from ddpo.cli.options import EXECUTION, INPUT, RunDevice, Trust, number_option, option, out_option
from ddpo.errors import ConfigError, MissingResourceError
from ddpo.io.tables import check_table_path
from ddpo.ranges import IMAGES, PORT, SEED
from ddpo.text import count

if TYPE_CHECKING:
    from ddpo.eval.inputs.checkpoints import NamedCheckpoint
    from ddpo.labelling.answers import Answers
    from ddpo.labelling.pair import LabelPair
    from ddpo.labelling.session import Session

DEFAULT_OUT: Final = "preferences.parquet"
STOPPED: Final = 130

Places = Annotated[
    list[str],
    typer.Argument(
        help="A run or checkpoint, whose images are compared with the base model's; or two "
        "folders, tables or archives of images.",
        metavar="RUN | FOLDER_A FOLDER_B",
    ),
]


@examples("ddpo label runs/demo", "ddpo label old_images new_images --rater Ada")
def label_command(
    places: Places,
    rater: Annotated[
        str | None,
        option(
            "Name of the person who labels; default: the page asks.", metavar="NAME", panel=INPUT
        ),
    ] = None,
    pairs: Annotated[int, number_option(IMAGES, "Number of pairs.", panel=INPUT)] = 100,
    checkpoint: Annotated[
        list[str] | None,
        option(
            "Checkpoint of the run to compare with the base model; repeatable. "
            "Default: the last one.",
            metavar="RUN",
            panel=INPUT,
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        option(
            "Prompts of a run's pairs: a .txt file, table, built-in list or NAME=FILE; "
            "repeatable. Default: those of its evaluation.",
            metavar="PROMPTS",
            panel=INPUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        out_option(
            "Preference file, .parquet, .csv or .jsonl; default: preferences.parquet in the "
            "run folder, or here."
        ),
    ] = None,
    seed: Annotated[
        int, number_option(SEED, "Seed of the choice, order and sides of the pairs.", panel=INPUT)
    ] = 0,
    port: Annotated[
        int, number_option(PORT, "Port of the page; 0 for a free one.", panel=EXECUTION)
    ] = 0,
    browser: Annotated[bool, option("Open the page in the browser.", panel=EXECUTION)] = True,
    device: RunDevice = None,
    trust: Trust = None,
) -> None:
    """Show pairs of images blind on a local page, and write which ones people prefer.

    The page answers to this machine alone. Each choice is saved at once; a stopped labelling
    resumes when its command is repeated. `ddpo eval` and `ddpo rewards validate` read the file.
    """
    _check_places(places, checkpoint, prompts)
    check_device_name(device)
    if out is not None:
        check_table_path(out)
    named = _check_sources(places, checkpoint or [], prompts or [], trust or [])
    target = out or _default_out(places, named)
    _check_server()
    from ddpo.io.lock import owned_file
    from ddpo.labelling.answers import Answers
    from ddpo.labelling.session import Session, rater_name

    name = None if rater is None else rater_name(rater)
    with owned_file(target, "ddpo label"), Answers(target) as answers:
        found = _pairs(places, named, prompts or [], pairs, seed, answers, device, trust)
        answers.place_pairs(found)
        session = Session(answers, found, seed, echo)
        if len(found) < pairs:
            echo(f"note: there are only {count(len(found), 'pair')}", err=True)
        _serve(session, answers.folder, name, port, browser=browser)
        echo(_last_line(session.progress(), session.total, target))
        if any(done < session.total for done in session.progress().values()) or not len(answers):
            raise typer.Exit(STOPPED)


def _check_server() -> None:
    """Checks that the packages of the page's server are installed.

    Raises:
        MissingResourceError: They are not.
    """
    try:
        import ddpo.web.frame  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingResourceError(
            f'labelling needs {error.name!r}: pip install "ddpo[serve]"'
        ) from error


def _serve(session: Session, folder: Path, rater: str | None, port: int, *, browser: bool) -> None:
    """Serves the page of a session until it is stopped, and closes the session.

    Args:
        session: Pairs and choices.
        folder: Folder of the images.
        rater: Name of the person; None if the page asks.
        port: Port of the page; 0 for a free one.
        browser: True to open the page.
    """
    from ddpo.labelling.app import make_app
    from ddpo.web.frame import new_token, serve_page

    token = new_token()
    app = make_app(session, folder, token, rater)
    try:
        serve_page(app, token, port, _announcer(session.total), browser=browser)
    finally:
        session.close()


def _check_places(
    places: list[str], checkpoints: list[str] | None, prompts: list[str] | None
) -> None:
    """Refuses anything but one run, or two folders without options of a run.

    Raises:
        ConfigError: the arguments do not fit together.
    """
    if len(places) > 2:
        raise ConfigError("give one run, or two folders of images")
    if len(places) == 2 and (checkpoints or prompts):
        raise ConfigError("--checkpoint and --prompts belong to a run, not to two folders")


def _check_sources(
    places: list[str], checkpoints: list[str], prompts: list[str], trust: list[str]
) -> list[NamedCheckpoint]:
    """Finds folders, or checkpoints with their base model and prompts, before torch is imported.

    Returns:
        The checkpoints; [] for two folders.

    Raises:
        UserError: One cannot be found.
    """
    if len(places) == 2:
        check_places(map(Path, places))
        return []
    from ddpo.eval.inputs.checkpoints import find_named

    named = find_named(_checkpoint_paths(places[0], checkpoints), trust=trust)
    for one in named:
        check_checkpoint(one.info)
    for text in prompts:
        check_prompt_list(text if os.path.exists(text) else text.rpartition("=")[2])
    return named


def _default_out(places: list[str], named: Sequence[NamedCheckpoint]) -> Path:
    """The preference file in the run folder, or in the working folder."""
    if len(places) == 2:
        return Path(DEFAULT_OUT)
    if named[0].path == places[0]:
        run = named[0].info.run
    else:
        from ddpo.policies.checkpoints.folder import find_checkpoint

        run = find_checkpoint(places[0]).run
    return (run or Path()) / DEFAULT_OUT


def _pairs(
    places: list[str],
    named: Sequence[NamedCheckpoint],
    prompts: list[str],
    number: int,
    seed: int,
    answers: Answers,
    device: str | None,
    trust: list[str] | None,
) -> list[LabelPair]:
    """The pairs to show: first those that an earlier call recorded, then new ones."""
    if len(places) == 2:
        from ddpo.labelling.folders import folder_pairs

        return folder_pairs(Path(places[0]), Path(places[1]), number, seed, answers.out)
    quiet_libraries()
    from ddpo.eval.config import EvalConfig
    from ddpo.labelling.run_pairs import checkpoints_of, run_pairs

    config = EvalConfig(
        checkpoints=tuple(one.path for one in named),
        prompts=tuple(prompts),
        device=device,
        trust=tuple(trust or ()),
    )
    tuned = checkpoints_of(config, named)
    found: list[LabelPair] = []
    with _progress() as observe:
        for place, one in enumerate(tuned):
            quota = number // len(tuned) + (place < number % len(tuned))
            before = [
                pair
                for pair in answers.pairs.values()
                if pair.identity_b == one.facts.identity and _is_whole(pair, answers.folder)
            ][:quota]
            if len(before) < quota:
                known = {pair.key for pair in before}
                new = run_pairs(config, one, quota, seed, answers.out, observe)
                before += [pair for pair in new if pair.key not in known][: quota - len(before)]
            found += before
    return found


def _checkpoint_paths(run: str, checkpoints: list[str]) -> list[str]:
    """The checkpoints as given, or as names in the run's folder of checkpoints."""
    inside = [Path(run) / "checkpoints" / name for name in checkpoints]
    paths = [
        str(place) if place.exists() else name
        for place, name in zip(inside, checkpoints, strict=True)
    ]
    return paths or [run]


def _is_whole(pair: LabelPair, folder: Path) -> bool:
    """True if both images are there as they were."""
    from ddpo.errors import ImageError
    from ddpo.labelling.pair import digest_of_file

    try:
        found = tuple(digest_of_file(path) for path in pair.files(folder))
    except ImageError:
        return False
    return found == (pair.sha256_a, pair.sha256_b)


def _announcer(number: int) -> Callable[[str], None]:
    def announce(address: str) -> None:
        echo(f"{count(number, 'pair')} to label at {address}")
        echo("Ctrl-C stops; the same command resumes.", err=True)

    return announce


def _last_line(progress: dict[str, int], total: int, out: Path) -> str:
    if not progress:
        return "Stopped. Nothing was labelled."
    done = ", ".join(f"{rater}: {number} of {total}" for rater, number in progress.items())
    return f"Stopped. {done}, in {out}"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A receiver of sampling progress, which reports each model once."""
    seen: set[str] = set()

    def observe(model: str, done: int, total: int) -> None:
        if model not in seen and done < total:
            seen.add(model)
            echo(f"sampling {count(total - done, 'image')} of {model}", err=True)

    yield observe
