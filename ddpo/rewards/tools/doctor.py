"""Diagnosis of the installed rewards: each card and module is loaded, one process per distribution.

A plug-in that hangs, exits or crashes ends only that process; the next process continues after it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from ddpo.ranges import finite_or_none
from ddpo.registry import Entry
from ddpo.rewards.card import RewardCard
from ddpo.rewards.zoo import rewards

__all__ = ["STATES", "Diagnosis", "Status", "diagnose"]

Status = Literal["ok", "extra missing", "import error", "bad card", "newer API", "claimed twice"]

STATES: Final[tuple[Status, ...]] = (
    "ok",
    "extra missing",
    "import error",
    "bad card",
    "newer API",
    "claimed twice",
)
TIMEOUT: Final = 120.0
"""Seconds for all rewards of a distribution; torch and transformers load slowly from some disks."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """State of one reward of one distribution."""

    reward: str
    origin: str  # "ddpo", or distribution and version
    status: Status
    detail: str = ""  # cause and remedy

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)


def diagnose(timeout_s: float = TIMEOUT, names: Iterable[str] | None = None) -> Iterator[Diagnosis]:
    """The state of every registered reward, one distribution after the other, ddpo's own first.

    Args:
        timeout_s: time limit for the rewards of one distribution, in seconds.
        names: names of the rewards to diagnose; None for all.

    Raises:
        UnknownNameError: A name is not registered.
    """
    chosen = set(rewards.names()) if names is None else set(names)
    known = rewards.entries()
    for name in sorted(chosen - set(known)):
        rewards.get(name)  # raises, with the nearest name
    groups: dict[str, list[str]] = {}
    for name in known:
        if name not in chosen:
            continue
        claims = known[name]
        if len(claims) > 1:
            yield from _claimed_twice(claims)
        else:
            groups.setdefault(claims[0].origin, []).append(name)
    for entry in rewards.hidden():
        if entry.name in chosen:
            detail = "ddpo has a reward of this name, which is the one that is used"
            yield Diagnosis(entry.name, entry.origin, "claimed twice", detail)
    for origin in sorted(groups, key=lambda origin: (origin != "ddpo", origin)):
        yield from _examine(origin, groups[origin], timeout_s)


def _claimed_twice(claims: Sequence[Entry[RewardCard]]) -> Iterator[Diagnosis]:
    for entry in claims:
        others = " and ".join(other.origin for other in claims if other is not entry)
        detail = f"{others} claims it too: uninstall one of them"
        yield Diagnosis(entry.name, entry.origin, "claimed twice", detail)


def _examine(origin: str, names: Sequence[str], timeout_s: float) -> Iterator[Diagnosis]:
    """Diagnoses by child processes; where one dies, the reward is broken and the next continues."""
    left = list(names)
    while left:
        lines, end = _probe(left, timeout_s)
        for line in lines:
            found = json.loads(line)
            left.remove(found["reward"])
            yield Diagnosis(found["reward"], origin, found["status"], found["detail"])
        if left:
            yield Diagnosis(left.pop(0), origin, "import error", end)


def _probe(names: Sequence[str], timeout_s: float) -> tuple[list[str], str]:
    """The lines of a child process about `names`, and how it ended."""
    # -P: plug-ins import from the caller's folder only if the caller itself does
    command = [sys.executable, "-P", "-m", "ddpo.rewards.tools.doctor_probe", *names]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    with subprocess.Popen(  # noqa: S603  # our own module, with names of the registry
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        try:
            output, _ = child.communicate(timeout=finite_or_none(timeout_s))
            end = f"its import ended the process ({_how(child.returncode)})"
        except subprocess.TimeoutExpired:
            end = f"its import did not end within {timeout_s:g} s"
            _end(child)
            output, _ = child.communicate()
        except BaseException:
            _end(child)
            raise
    lines = output.decode("utf-8", "replace").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")], end


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and all its own children, which would keep its output open."""
    if hasattr(os, "killpg"):
        os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
