"""Every command on every hostile run folder of `tools/hostile_folders.py`, each in a process.

An honest run is trained once. Each trick gets a copy, which is the current folder of the commands,
and the environment has tokens that must not leave.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from outcome import Outcome

sys.path.append(str(Path(__file__).parents[1]))

from hostile_folders import TRICKS, Bait

ROOT = Path(__file__).parents[2]
TOKENS = {"DDPO_REWARD_TOKEN": "token-of-the-user", "OPENAI_API_KEY": "key-of-the-user"}
SECONDS = 300  # of one command
SETTINGS = (
    *("--set", "sample.samples=4", "--set", "sample.per_prompt=2", "--set", "sample.steps=2"),
    *("--set", "sample.batch=4", "--set", "optim.timesteps=1", "--set", "optim.updates=1"),
    *("--set", "optim.skip_last=0", "--set", "checkpoint_every=1", "--iterations", "2"),
)
QUICK = ("--seeds", "1", "--best-of", "0", "--no-held-out", "--prompts", "unseen.txt")
COMMANDS = {
    "sample": ("sample", "a cat", "--count", "1", "--checkpoint", ".", "--out", "OUT"),
    "export": ("export", ".", "--to", "OUT"),
    "export of the best": ("export", "best", "--to", "OUT"),
    "eval": ("eval", "--checkpoint", ".", *QUICK, "--history", "1", "--out", "OUT"),
    "compare": ("compare", ".", "../honest", *QUICK, "--out", "OUT"),
    "resume": ("train", "--resume", ".", "--iterations", "3"),
    "score": ("rewards", "score", "darkness", "samples", "--out", "OUT.csv"),
}


def run(size: float, seed: int, folder: Path) -> list[Outcome]:
    """Runs all commands on a share of the tricks, at least one."""
    outcome = Outcome("commands on hostile run folders")
    honest = folder / "honest"
    made = _ddpo(folder, "train", "--reward", "darkness", "--out", str(honest), *SETTINGS)
    if made.returncode:
        outcome.count(f"the honest run failed: {made.stderr}")
        return [outcome]
    (honest / "unseen.txt").write_text("a fox\n")
    chosen = random.Random(seed).sample(sorted(TRICKS), max(1, round(size * len(TRICKS))))
    for number, trick in enumerate(chosen):
        for name, words in COMMANDS.items():
            outcome.count(_fault(folder / f"{number} {name}", honest, trick, words))
    return [outcome]


def _fault(place: Path, honest: Path, trick: str, words: tuple[str, ...]) -> str | None:
    """The fault of one command on a fresh copy with one trick; None if there is none."""
    there = place / "run"
    shutil.copytree(honest, there)
    shutil.copytree(honest, place / "honest")
    bait = Bait(place / "bait")
    try:
        TRICKS[trick](there, bait)
        done = _ddpo(there, *(word.replace("OUT", str(place / "out")) for word in words))
        text = done.stdout + done.stderr
        faults = [bait.taken] if bait.taken else []
        faults += ["a traceback"] if "Traceback" in text else []
        faults += ["a token was shown"] if any(one in text for one in TOKENS.values()) else []
        faults += [f"exit code {done.returncode}"] if done.returncode not in (0, 1, 2) else []
        return f"{trick}, {words[0]}: {'; '.join(faults)}" if faults else None
    except subprocess.TimeoutExpired:
        return f"{trick}, {words[0]}: no end after {SECONDS} s"
    finally:
        bait.close()
        shutil.rmtree(place)


def _ddpo(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | TOKENS | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "ddpo", *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
