"""`pytest --ddpo-reward mylab/contrast`: the kit without a test file. Loaded by every pytest session, so it imports nothing until used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ddpo.rewards.check.definition import Check
    from ddpo.rewards.check.subject import Subject

__all__ = ["RewardCheckItem", "RewardCollector"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--ddpo-reward` and `--ddpo-expect`."""
    group = parser.getgroup("ddpo", "checks of reward models")
    group.addoption(
        "--ddpo-reward",
        action="append",
        default=[],
        metavar="SPEC",
        help="Check this reward: NAME, ./file.py:Object or module:Object.",
    )
    group.addoption(
        "--ddpo-expect",
        action="append",
        default=[],
        metavar="CHECK=REASON",
        help="A check that is expected to fail, and why.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Adds one item per check of each `--ddpo-reward`."""
    specs: list[str] = config.getoption("--ddpo-reward")
    if not specs:
        return
    from ddpo.errors import UserError, one_line
    from ddpo.rewards.check.run import parse_expected

    try:
        expected = parse_expected(config.getoption("--ddpo-expect"))
        for spec in specs:
            collector = RewardCollector.from_parent(
                session, name=spec, nodeid=spec, expected=expected
            )
            items.extend(collector.collect())
    except UserError as error:
        raise pytest.UsageError(one_line(error)) from error


class RewardCollector(pytest.Collector):
    """One reward; its items are the checks."""

    def __init__(self, *, expected: dict[str, str], **keywords: Any) -> None:
        super().__init__(**keywords)
        self.expected = expected

    def collect(self) -> Iterator[pytest.Item]:
        """One item per check; raises as `ddpo.rewards.check.check_reward`."""
        from ddpo.rewards.check.run import choose_checks, subject_of

        checks, subject = choose_checks(None, self.expected), subject_of(self.name)
        for check in checks:
            yield RewardCheckItem.from_parent(
                self,
                name=check.name,
                check=check,
                subject=subject,
                expected=self.expected.get(check.name),
            )


class RewardCheckItem(pytest.Item):
    """One check of one reward."""

    def __init__(
        self, *, check: Check, subject: Subject, expected: str | None, **keywords: Any
    ) -> None:
        super().__init__(**keywords)
        self.check, self.subject, self.expected = check, subject, expected

    def runtest(self) -> None:
        """Runs the check."""
        from ddpo.rewards.check.run import run_check
        from ddpo.rewards.check.testing import tell_pytest

        tell_pytest(run_check(self.check, self.subject, self.expected))

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where it is shown."""
        return self.path, None, f"{self.parent.name if self.parent else ''}: {self.name}"
