"""`ddpo rewards check`."""

from __future__ import annotations

from typing import Annotated

from ddpo.cli.check_options import EACH_S, CheckTimeout, OnlyChecks, Timeout
from ddpo.cli.commands import examples
from ddpo.cli.conformance import report_conformance, say_progress
from ddpo.cli.console import quiet_libraries
from ddpo.cli.early import check_device_name, check_fetched
from ddpo.cli.options import AUTO, INPUT, AsJson, Device, RewardName, option, prompt_option


@examples(
    "ddpo rewards check compressibility",
    "ddpo rewards check ./my_reward.py:redness",
)
def check_command(
    reward: RewardName,
    expect: Annotated[
        list[str] | None,
        option(
            "Expected failure with its reason; repeatable.", metavar="CHECK=REASON", panel=INPUT
        ),
    ] = None,
    only: OnlyChecks = None,
    prompt: Annotated[
        str | None,
        prompt_option("Prompt of the probe images, for a reward that needs a certain one."),
    ] = None,
    device: Device = AUTO,
    timeout: Timeout = None,
    check_timeout: CheckTimeout = EACH_S,
    as_json: AsJson = False,
) -> None:
    """Report which promises a reward keeps, such as batch invariance, order and gradients.

    Exit code 1 if a check fails that was not expected to, or passes against expectation, or if all
    checks were skipped.
    """
    from ddpo.rewards.check.names import OF_THE_CARD, check_names
    from ddpo.rewards.check.run import iter_results, parse_expected
    from ddpo.rewards.zoo import resolve
    from ddpo.types import Prompt

    expected = parse_expected(expect or [])
    check_names(only, expected)
    check_device_name(device)
    probe = None if prompt is None else Prompt(prompt)
    found = resolve(reward)
    if not only or not set(only) <= set(OF_THE_CARD):
        check_fetched([found])
    if found.card.weights:
        quiet_libraries()  # takes seconds, so only for a reward that loads models
    results = iter_results(
        reward, expected, only or None, probe, device, timeout, say_progress, check_timeout
    )
    report_conformance(reward, results, as_json)
