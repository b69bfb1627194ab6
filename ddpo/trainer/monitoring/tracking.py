"""Trackers of a run: TensorBoard and Weights & Biases, optional packages imported on request.

Each package is used directly. The trackers of accelerate need accelerate's process state, which a
run of one process lacks. They also write hyper-parameters to a folder of their own at each start.
"""

from __future__ import annotations

import configparser
import importlib
import json
import netrc
import os
import re
import secrets
import shlex
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from ddpo.errors import MissingResourceError, UserError, one_line
from ddpo.io.atomic import write_text
from ddpo.io.finite import finite
from ddpo.trainer.monitoring.events import Event, GridSaved, IterationDone, Metrics, Started

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TRACKERS", "RunTracker", "Tracker", "check_tracker", "open_tracker", "scalars"]

TRACKERS: Final = ("tensorboard", "wandb")
PROJECT: Final = "ddpo"  # in Weights & Biases, unless WANDB_PROJECT names another
MODULES: Final = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
ENTRY_POINTS: Final = {"tensorboard": "SummaryWriter", "wandb": "init"}
WANDB_SERVER: Final = "https://api.wandb.ai"  # the default of the package wandb
WITHOUT_ACCOUNT: Final = ("offline", "dryrun", "disabled")  # values of WANDB_MODE


class Tracker(Protocol):
    """The service that shows a run."""

    address: str  # where a person finds the run

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Records the settings of the run under flat names."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Records the scalars of an iteration."""

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """Records an image, uint8 `[height, width, 3]`."""

    def close(self) -> None:
        """Writes or sends what is pending."""

    def abandon(self) -> None:
        """Lets go of a service that has failed, and of its exit hooks."""


def check_tracker(name: str) -> None:
    """Makes sure, before a run starts, that a tracker can be used.

    Args:
        name: One of `TRACKERS`.

    Raises:
        MissingResourceError: The package is missing or broken; the message says how to install it.
        UserError: Weights & Biases is online and has no API key, or refuses it.
    """
    try:
        module = importlib.import_module(MODULES[name])
    except ModuleNotFoundError as error:
        raise _not_installed(name) from error
    except Exception as error:
        raise MissingResourceError(
            f"--track {name}: the package {name} cannot be imported ({one_line(error)}): "
            f"pip install {name}"
        ) from error
    # a folder of that name, such as the ./wandb of another run, imports as an empty package
    if not hasattr(module, ENTRY_POINTS[name]):
        raise _not_installed(name)
    if name == "wandb":
        _check_wandb_account(module)


def _not_installed(name: str) -> MissingResourceError:
    return MissingResourceError(
        f"--track {name} needs the package {name}, which is not installed: pip install {name}"
    )


def _check_wandb_account(wandb: Any) -> None:
    """Raises `UserError` unless Weights & Biases is offline or accepts the credentials."""
    _refuse_other_server(Path())
    try:
        wandb.setup(wandb.Settings(silent=True, console="off"))
        settings = wandb.setup().settings
        if settings.mode in WITHOUT_ACCOUNT or os.environ.get("WANDB_MODE") in WITHOUT_ACCOUNT:
            return
        if not (settings.api_key or _has_credentials(str(settings.base_url))):
            raise UserError(
                "--track wandb: no API key. Run `wandb login`, set WANDB_API_KEY, "
                "or set WANDB_MODE=offline and upload later with `wandb sync`"
            )
        wandb.login()  # asks the server whether it knows the key
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"--track wandb: {one_line(error)}; WANDB_MODE=offline needs no server"
        ) from error


def _refuse_other_server(folder: Path) -> None:
    """Refuses a server that a folder's `wandb/settings` names: it would get the user's key.

    Raises:
        UserError: the file names one, and WANDB_BASE_URL does not take precedence.
    """
    file = folder / "wandb" / "settings"
    if os.environ.get("WANDB_BASE_URL") or not file.is_file():
        return
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        named = [parser[section].get("base_url", WANDB_SERVER) for section in parser]
    except (OSError, ValueError, configparser.Error) as error:
        raise UserError(f"--track wandb: {file} cannot be read: {one_line(error)}") from error
    if other := [address for address in named if address.strip("'\"/ ") != WANDB_SERVER]:
        raise UserError(
            f"--track wandb: {file} names the server {other[0]}, which would get your key; "
            "if that is right, set WANDB_BASE_URL"
        )


def _has_credentials(url: str) -> bool:
    """True if the environment or the user's netrc file has credentials for the server at `url`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    files = [named] if named else [os.path.expanduser(f"~/{name}") for name in (".netrc", "_netrc")]
    for file in files:
        try:
            if netrc.netrc(file).authenticators(urlsplit(url).hostname or ""):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def open_tracker(name: str, folder: Path, done: int) -> Tracker:
    """Opens the tracker of a run; a resumed run continues in the one that it had.

    Args:
        name: One of `TRACKERS`.
        folder: The run folder.
        done: Number of iterations that are finished. Later records in TensorBoard are hidden.

    Raises:
        UserError: The service refuses, or its files cannot be written.
    """
    if name == "wandb":
        _refuse_other_server(folder)
    try:
        if name == "tensorboard":
            return TensorBoardTracker(folder / "tensorboard", done)
        return WandbTracker(folder)
    except Exception as error:
        hint = "; WANDB_MODE=offline needs no server" if name == "wandb" else ""
        raise UserError(f"{name} cannot be used: {one_line(error)}{hint}") from error


class TensorBoardTracker:
    """Event files of TensorBoard.

    Args:
        folder: Folder of the event files.
        done: Number of iterations that are finished.
    """

    def __init__(self, folder: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.address = f"tensorboard --logdir {shlex.quote(str(folder))}"
        self._configured = any(folder.glob("events.out.tfevents.*"))
        self._writer: Any = SummaryWriter(str(folder), purge_step=done + 1)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Records the settings once per run, as texts, numbers and booleans."""
        if not self._configured:
            values = {name: _plain(value) for name, value in settings.items()}
            self._writer.add_hparams(values, metric_dict={}, run_name=".")
            self._writer.flush()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Records the scalars of an iteration."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=step)
        self._writer.flush()

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """Records an image, uint8 `[height, width, 3]`."""
        self._writer.add_image(name, image, global_step=step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Writes what is pending."""
        self._writer.close()

    def abandon(self) -> None:
        """Ends the writer thread."""
        self._writer.close()


def _plain(value: Any) -> str | int | float | bool:
    """A number or boolean as it is, a text without lone surrogates, anything else as JSON."""
    if isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else ""
    if not isinstance(value, str):
        text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, default=str)
    return text.encode(errors="replace").decode()


class WandbTracker:
    """A run of Weights & Biases, whose id is kept in the run folder for resumed or renamed runs.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=_wandb_id(folder / "wandb" / "run_id.txt"),
            name=os.environ.get("WANDB_NAME") or folder.resolve().name,
            dir=str(folder),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        sync = f"offline; upload with: wandb sync {shlex.quote(str(Path(self._run.dir).parent))}"
        self.address = self._run.url or sync

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Records the settings; those of a resumed run may differ from before."""
        self._run.config.update(dict(settings), allow_val_change=True)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Records the scalars of an iteration."""
        self._run.log(dict(values), step=step)

    def log_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """Records an image, uint8 `[height, width, 3]`."""
        import wandb

        self._run.log({name: [wandb.Image(image)]}, step=step)

    def close(self) -> None:
        """Sends what is pending."""
        self._run.finish()

    def abandon(self) -> None:
        """Ends the package's own process; its exit hook would end in a traceback."""
        import wandb

        wandb.teardown()


def _wandb_id(file: Path) -> str:
    """The run's id in Weights & Biases, read from `file`, or made and written there."""
    if file.is_file():
        known = file.read_text(encoding="utf-8", errors="replace").strip()
        if re.fullmatch(r"[\w-]{1,64}", known, re.ASCII):
            return known
    identity = secrets.token_hex(8)
    write_text(file, identity + "\n")
    return identity


class RunTracker:
    """Passes a run's settings, the scalars of each iteration and the image grids to a tracker.

    A tracker that fails ends with a warning; the run does not.

    Args:
        name: Name of the tracker, for the warning.
        tracker: The open tracker.
        settings: Nested plain values, such as `config.json` holds.
    """

    def __init__(self, name: str, tracker: Tracker, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.tracker: Tracker | None = tracker
        self.settings = settings
        self.iteration = 0

    def show(self, event: Event) -> None:
        """Passes one event to the tracker."""
        if self.tracker is None:
            return
        try:
            self._pass_on(event, self.tracker)
        except Exception as error:  # noqa: BLE001  # whatever it is, training matters more
            self._give_up(self.tracker, error)

    def _pass_on(self, event: Event, tracker: Tracker) -> None:
        if isinstance(event, Started):
            self.iteration = event.iteration
            tracker.configure(_flat(self.settings))
        elif isinstance(event, IterationDone):
            self.iteration = event.metrics.iteration
            tracker.log({**scalars(event.metrics), "memory_bytes": event.memory}, self.iteration)
        elif isinstance(event, GridSaved):
            import numpy as np

            from ddpo.images import load_image

            tracker.log_image("samples", np.asarray(load_image(event.path)), self.iteration)

    def _give_up(self, tracker: Tracker, error: Exception) -> None:
        self.tracker = None
        warnings.warn(
            f"{self.name} failed and gets no more of this run ({one_line(error)}); "
            "metrics.jsonl has all of it",
            stacklevel=3,
        )
        with suppress(Exception):  # the failure was reported above
            tracker.abandon()

    def close(self) -> None:
        """Writes or sends what is pending."""
        if self.tracker is None:
            return
        tracker = self.tracker
        self.tracker = None
        try:
            tracker.close()
        except Exception as error:  # noqa: BLE001  # the run is finished, and saved
            with suppress(Exception):
                tracker.abandon()
            warnings.warn(
                f"{self.name} failed at its end and may lack some of this run "
                f"({one_line(error)}); metrics.jsonl has all of it",
                stacklevel=2,
            )


def scalars(metrics: Metrics) -> dict[str, float]:
    """The numbers of an iteration, under flat names such as `ratio_deviation/step_03`."""
    values = asdict(metrics)
    steps = values.pop("by_step")
    parts = values.pop("reward_parts")
    values |= {f"reward_parts/{name}": value for name, value in parts.items()}
    for step in steps:
        for name in ("ratio_deviation", "clip_fraction"):
            values[f"{name}/step_{step['step']:02d}"] = step[name]
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and name != "iteration"
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 1}}` as `{"optim.lr": 1}`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
