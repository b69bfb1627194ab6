"""The cost of a command that needs no model: no torch, and little CPU time."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "pandas", "PIL", "transformers", "diffusers", "scipy", "jinja2", "wandb")


def loaded_by(*arguments: str) -> set[str]:
    """The heavy packages that `ddpo ARGUMENTS` imports."""
    script = (
        "import sys\n"
        f"sys.argv = ['ddpo', *{list(arguments)!r}]\n"
        "from ddpo.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    return set(output.splitlines()[-1].split()[1:])


def cpu_seconds(*arguments: str) -> float:
    """User and system time of `ddpo ARGUMENTS`, the least of three runs.

    Other work on the machine only adds to it.
    """
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "ddpo", *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(found)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["rewards", "list"],
        ["models", "list"],
        ["rewards", "show", "darkness"],
        ["train", "--help"],
        ["eval", "--help"],
        ["doctor", "--help"],
    ],
)
def test_commands_without_a_model_load_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(*arguments) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--reward", "nonsense"],
        ["train", "--track", "wandb", "--reward", "nonsense"],
        ["train", "--track", "wandb", "--prompts", "nonsense"],
        ["train", "--track", "wandb", "--set", "nonsense=1"],
        ["train", "--algorithm", "rwr", "--set", "nonsense=1"],
        ["train", "--algorithm", "flow_dppo", "--set", "nonsense=1"],
    ],
)
def test_a_typo_of_a_training_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(*arguments) == set()


def test_showing_a_reward_that_writes_jpeg_loads_pillow_alone() -> None:
    """Its signature names Pillow's JPEG codec, which Pillow itself reports."""
    assert loaded_by("rewards", "show", "compressibility") == {"PIL"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, ddpo, ddpo.trainer, ddpo.rewards.cards\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_help_and_list_are_quick() -> None:
    """0.3 s and 0.5 s of CPU time are promised; an old or loaded machine may take twice as long."""
    assert cpu_seconds("--help") <= 0.75
    assert cpu_seconds("rewards", "list") <= 1.1
