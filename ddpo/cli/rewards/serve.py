"""`ddpo rewards serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from ddpo.cli.device import AUTO, Device
from ddpo.cli.markup import escape
from ddpo.errors import ConfigError, MissingResourceError

MIB = 1024 * 1024


def serve_command(
    names: Annotated[
        list[str],
        typer.Argument(help="Rewards, as for the other commands; each is served under its id."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Other than loopback needs a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 for a free one.", min=0, max=65535)
    ] = 8712,
    token: Annotated[
        str | None,
        typer.Option(envvar="DDPO_REWARD_TOKEN", help="Without which no request is answered."),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            help="Pictures per call of a reward, at most, from all requests that wait.", min=1
        ),
    ] = 16,
    max_body_mb: Annotated[int, typer.Option(help="Largest request, in MiB.", min=1)] = 128,
    max_pixels: Annotated[
        int, typer.Option(help="Height times width of all pictures of a request, at most.", min=1)
    ] = 64 * MIB,
    device: Device = AUTO,
) -> None:
    """Serves rewards over HTTP, to be used elsewhere as http://HOST:PORT/NAME wherever a reward is named. JSON and PNG, no pickle."""
    try:
        from ddpo.rewards.serve.app import bind, check_token, make_app, make_server
    except ModuleNotFoundError as error:
        raise MissingResourceError(
            f'serving rewards needs {error.name!r}: pip install "ddpo[serve]"'
        ) from error
    from rich.console import Console

    from ddpo.cli.quiet import quiet_libraries
    from ddpo.cli.rewards.arguments import named_rewards
    from ddpo.devices import resolve_device
    from ddpo.rewards.serve.wire import Limits

    check_token(host, token)
    place = resolve_device(device)
    found = {reward.card.id: reward.on(place) for reward in named_rewards(names).values()}
    if len(found) < len(names):
        raise ConfigError(
            "two of the rewards have the same id, under which each is served: serve one of them on another port"
        )
    if any(reward.card.weights for reward in found.values()):
        quiet_libraries()
    with bind(host, port) as listening:
        app = make_app(
            found, token=token, batch_size=batch_size, limits=Limits(max_body_mb * MIB, max_pixels)
        )
        console, address = Console(), f"[{host}]" if ":" in host else host
        for name, reward in found.items():
            url = f"http://{address}:{listening.getsockname()[1]}/{name}"
            console.print(
                f"{escape(url)}  {escape(reward.signature)}", soft_wrap=True, highlight=False
            )
        make_server(app).run(sockets=[listening])
