"""`ddpo rewards serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ddpo.cli.commands import examples
from ddpo.cli.completion import complete_reward
from ddpo.cli.console import escape, new_console, quiet_libraries
from ddpo.cli.early import check_device_name, check_fetched
from ddpo.cli.options import AUTO, EXECUTION, Device, number_option, option
from ddpo.cli.rewards.arguments import named_rewards
from ddpo.errors import ConfigError, MissingResourceError
from ddpo.ranges import BATCH, PORT, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ddpo.rewards.scoring.resolve import ResolvedReward

ADDRESS: Final = "Address"
LIMITS: Final = "Limits"
MIB = 1024 * 1024
BODY_MB: Final = Range(low=1, high=65_536, whole=True)
CONNECTIONS: Final = Range(low=1, high=65_536, whole=True)
TIMEOUT: Final = Range(low=1, high=86_400, whole=True)
PIXELS: Final = Range(low=1, high=2**36, whole=True)

MaxPixels = Annotated[
    int,
    number_option(PIXELS, "Largest sum of height × width over a request's images.", panel=LIMITS),
]
MaxConnections = Annotated[
    int,
    number_option(
        CONNECTIONS,
        "Greatest number of connections; idle ones make room for new ones.",
        panel=LIMITS,
    ),
]
Timeout = Annotated[
    int,
    number_option(
        TIMEOUT,
        "Longest time for a request's body, and again for its scores, in seconds.",
        panel=LIMITS,
    ),
]


@examples(
    "ddpo rewards serve aesthetic",
    "ddpo rewards serve aesthetic clip_score --port 9000",
)
def serve_command(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="REWARD",
            help="Rewards, as for the other commands; each is served under its id.",
            autocompletion=complete_reward,
        ),
    ],
    host: Annotated[
        str,
        option(
            "Address to listen on; one other than loopback needs a token.",
            metavar="HOST",
            panel=ADDRESS,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, number_option(PORT, "Port to listen on; 0 for a free one.", panel=ADDRESS)
    ] = 8712,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="DDPO_REWARD_TOKEN",
            help="Token that every request must carry.",
            metavar="TEXT",
            rich_help_panel=ADDRESS,
        ),
    ] = None,
    max_body_mb: Annotated[
        int, number_option(BODY_MB, "Largest request, in MiB.", panel=LIMITS)
    ] = 128,
    max_pixels: MaxPixels = 64 * MIB,
    max_connections: MaxConnections = 256,
    timeout: Timeout = 120,
    batch_size: Annotated[
        int,
        number_option(
            BATCH,
            "Largest number of images in a call of a reward, from all waiting requests.",
            panel=EXECUTION,
        ),
    ] = 16,
    device: Device = AUTO,
) -> None:
    """Serve rewards over HTTP, each under http://HOST:PORT/NAME, as JSON and PNG without pickle.

    Such an address is accepted wherever a reward is named.
    """
    from ddpo.rewards.serve.token import check_token

    check_token(host, token)
    check_device_name(device)
    check_fetched(named_rewards(names).values())
    try:
        from ddpo.rewards.serve.app import bind, make_app, make_server
    except ModuleNotFoundError as error:
        raise MissingResourceError(
            f'serving rewards needs {error.name!r}: pip install "ddpo[serve]"'
        ) from error

    from ddpo.rewards.serve.wire import Limits

    found = _rewards_by_id(names, device)
    limits = Limits(max_body_mb * MIB, max_pixels)
    with bind(host, port) as listening:
        app = make_app(
            found, token=token, batch_size=batch_size, limits=limits, seconds=float(timeout)
        )
        server = make_server(app, max_connections)
        _print_addresses(found, host, listening.getsockname()[1])
        server.run(sockets=[listening])


def _print_addresses(found: Mapping[str, ResolvedReward], host: str, port: int) -> None:
    """Prints the address of each reward, and its signature."""
    console = new_console()
    address = f"[{host}]" if ":" in host else host
    for name, reward in found.items():
        url = f"http://{address}:{port}/{name}"
        console.print(f"{escape(url)}  {escape(reward.signature)}", soft_wrap=True, highlight=False)


def _rewards_by_id(names: list[str], device: str) -> dict[str, ResolvedReward]:
    """The rewards on their device, by id.

    Raises:
        ConfigError: Two rewards have the same id.
    """
    from ddpo.devices import resolve_device

    place = resolve_device(device)
    found = {reward.card.id: reward.on(place) for reward in named_rewards(names).values()}
    if len(found) < len(names):
        raise ConfigError(
            "two of the rewards have the same id, under which each is served: "
            "serve one of them on another port"
        )
    if any(reward.card.weights for reward in found.values()):
        quiet_libraries()
    return found
