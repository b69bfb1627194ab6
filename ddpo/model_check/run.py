"""The conformance kit on one model: `check_model`, and `model_tests` for pytest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial

from ddpo.devices import AUTO, resolve_device
from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.model_check.names import FIRST, check_names
from ddpo.model_check.promises import CHECKS
from ddpo.rewards.check.definition import CheckResult, checks_table, demand_of, run_probe
from ddpo.rewards.check.global_state import preserved
from ddpo.rewards.check.testing import report_to_pytest
from ddpo.rewards.check.time_limits import TimeLimits

__all__ = ["CHECKS", "check_model", "iter_results", "model_tests", "render_checks_markdown"]


def iter_results(
    model: str,
    only: Collection[str] | None = None,
    device: str = AUTO,
    timeout_s: float | None = None,
    each_s: float | None = None,
) -> Iterator[CheckResult]:
    """The results of `check_model` one at a time; wrong arguments raise before the first.

    Without the model, that is if `construction` fails, all other checks are skipped.

    Args:
        model: As in `check_model`.
        only: As in `check_model`.
        device: Torch device.
        timeout_s: Seconds for all checks together; None for no limit. A check that exceeds it, and
            all after it, fail.
        each_s: Seconds for each check; None for no limit. A check that exceeds it fails.
    """
    check_names(only or ())
    names = [name for name in CHECKS if only is None or name in only or name == FIRST]
    tested = ModelUnderTest(model, resolve_device(device))
    return _results(names, tested, TimeLimits(timeout_s, each_s))


def check_model(
    model: str, only: Collection[str] | None = None, device: str = AUTO
) -> list[CheckResult]:
    """Runs the conformance kit on a model, which is loaded about twenty times.

    Args:
        model: Registered name, folder, hub id, `./file.py:Object` or `package.module:Object`.
        only: Names of the checks to run besides `construction`; None for all of them.
        device: Torch device; "auto" for this machine's accelerator, else the CPU.

    Returns:
        One result per check.

    Raises:
        UserError: A check or the device is unknown.
    """
    return list(iter_results(model, only, device))


def model_tests(model: str, device: str = AUTO) -> Callable[[str], None]:
    """A parametrised test function, for a name that starts with `test`.

        from ddpo.model_check import model_tests

        test_conforms = model_tests("mylab/tiny")

    Args:
        model: As in `check_model`; it is loaded in the first test.
        device: Torch device.
    """
    import pytest

    tested: list[ModelUnderTest] = []

    @pytest.mark.parametrize("check", list(CHECKS))
    def test_conforms(check: str) -> None:
        if not tested:
            tested.append(ModelUnderTest(model, resolve_device(device)))
        report_to_pytest(_run(check, tested[0]))

    return test_conforms


def _results(names: list[str], tested: ModelUnderTest, limits: TimeLimits) -> Iterator[CheckResult]:
    broken = False
    for name in names:
        if broken:
            yield CheckResult(name, "skipped", f"{FIRST} failed", 0.0)
            continue
        result = limits.run(name, partial(_run, name, tested))
        broken = name == FIRST and not result.ok
        yield result


def _run(name: str, tested: ModelUnderTest) -> CheckResult:
    """Runs one check and restores global state afterwards."""
    with preserved():
        return run_probe(name, partial(CHECKS[name], tested))


def render_checks_markdown() -> str:
    """A Markdown table with one row per check."""
    return checks_table({name: demand_of(probe) for name, probe in CHECKS.items()})
