"""Makes the fixtures of `tests/test_old_versions.py` with a checkout of an earlier commit.

    git worktree add --detach ../old d399994
    python tests/fixtures_of_old_versions/make.py ../old
    git worktree remove ../old

Each command below runs in a folder of its own, with that checkout first among Python's modules.
It names its files relative to that folder. Some runs, evaluations and scorings are killed by
SIGKILL. The tests expect the results with which the commit itself resumes the killed runs.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
COMMIT = "d399994"
PUBLIC = (
    "ddpo.errors",
    "ddpo.eval",
    "ddpo.rewards.adapters",
    "ddpo.rewards.base",
    "ddpo.rewards.card",
    "ddpo.rewards.check",
    "ddpo.rewards.fixtures",
    "ddpo.rewards.zoo",
    "ddpo.trainer",
    "ddpo.types",
    "ddpo.weights",
)
"""Modules of which users may import every name that `__all__` lists."""
IMAGE_TIME = 1_700_000_000_000_000_000  # of modification, in nanoseconds, which a journal compares
SMALL = {
    "iterations": 2,
    "checkpoint_every": 1,
    "grid_every": 9,
    "sample.samples": 8,
    "sample.per_prompt": 4,
    "sample.steps": 3,
    "optim.updates": 2,
    "optim.timesteps": 2,
    "adapt.rank": 1,
    "adapt.alpha": 1,
}
RUNS: dict[str, dict[str, Any]] = {
    "catalogue": {"reward": "compressibility"},
    "composed": {"reward": "compressibility:z=reference.json,clamp=-3..3 + darkness:0.5"},
    "user_file": {"reward": "./redness.py:redness"},
    "group": {"reward": "colorfulness + vendi:10:features=pixels", "sample.batch": 4},
    "rwr": {"reward": "symmetry", "algorithm": "rwr"},
    "keeping": {
        "reward": "colorfulness",
        "checkpoint_keep": 1,
        "held_out": "darkness",
        "held_out_prompts": "two_prompts.txt",
    },
    "plugin": {
        "reward": "test/sharpness",
        "model": "test/tiny",
        "algorithm": "test/raft",
        "adapt.kind": "full",
        "optim.updates": 1,
        "optim.skip_last": 0,
    },
}
KILLED_RUN = """
import json, os, signal, sys
from pathlib import Path
from ddpo.trainer import config_for, train
from ddpo.trainer.events import IterationDone, Progress
done = 0
for event in train(config_for(json.loads(sys.argv[1])), Path(sys.argv[2])):
    done += isinstance(event, IterationDone)
    if done and isinstance(event, Progress):  # in the second iteration
        os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_EVALUATION = """
import os, signal
from pathlib import Path
from ddpo.eval.job import carry_out
from ddpo.eval.models import BASE
from ddpo.eval.planning import plan
from ddpo.eval.request import Request
def observe(event):
    if event.stage == "drawing" and event.what != BASE and event.done > event.found:
        os.kill(os.getpid(), signal.SIGKILL)
asked = {"prompts": ("two_prompts.txt",), "trained_prompts": "animals", "seeds": 2}
asked |= {"history": 0, "best_of": 0, "held_out": False, "steps": 3}
asked |= {"checkpoints": ("resumed/user_file",), "out": Path("stopped_sampling")}
carry_out(plan(Request(**asked)), observe)
"""
IDENTITIES = """
import json
from ddpo.rewards.catalog import CARDS
from ddpo.rewards.zoo import resolve
found = {name: resolve(name).identity for name, card in CARDS.items() if card.cache}
print(json.dumps(found, indent=1))
"""


def main(checkout: Path) -> None:
    """Replaces the folder of the commit by new fixtures."""
    target = HERE / COMMIT
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) / "work"
        work.mkdir()
        site = install(checkout, Path(temporary))
        make_inputs(work)
        make_runs(work, checkout, site)
        make_scorings(work, checkout, site)
        make_evaluations(work, checkout, site)
        make_packages(work, checkout)
        leave_out(work)
        (work / "versions.json").write_text(json.dumps(versions(), indent=1))
        (work / "import_paths.json").write_text(json.dumps(import_paths(checkout), indent=1))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(work, target)


def install(checkout: Path, temporary: Path) -> Path:
    """A folder with the plug-in package of the commit, installed by pip."""
    shutil.copytree(checkout / "tests" / "plugin_package", temporary / "plugin_package")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--target",
    ]
    subprocess.run(
        [*command, str(temporary / "site"), str(temporary / "plugin_package")], check=True
    )
    return temporary / "site"


def call(
    work: Path,
    checkout: Path,
    site: Path,
    *arguments: str,
    limit: int = 10**6,
    calls: str = "calls",
    killed: bool = False,
) -> str:
    """Standard output of Python with the checkout's `ddpo`; it must succeed, or be killed."""
    environment = os.environ | {
        "PYTHONPATH": f"{checkout.absolute()}{os.pathsep}{site}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
        "DDPO_CACHE": str(work / "cache"),
        "REDNESS_CALLS": str(work.parent / calls),
        "REDNESS_LIMIT": str(limit),
    }
    print(*(argument for argument in arguments if "\n" not in argument))  # noqa: T201
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != (-signal.SIGKILL if killed else 0):
        sys.exit(f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def make_inputs(work: Path) -> None:
    """Six images, prompts, choices between the images, and the user's reward."""
    (work / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        coarse = random.integers(0, 256, (3 + number, 3, 3), dtype=np.uint8)
        file = work / "images" / f"{number}.png"
        Image.fromarray(coarse).resize((32, 32), Image.Resampling.NEAREST).save(file)
        os.utime(file, ns=(IMAGE_TIME, IMAGE_TIME))
    pairs = [
        {"image_a": f"{a}.png", "image_b": f"{b}.png", "label": label, "prompt": "a cat"}
        for a, b, label in CHOICES
    ]
    (work / "choices.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (work / "two_prompts.txt").write_text("a cat\na teapot\n")
    shutil.copy(HERE / "redness.py", work / "redness.py")


CHOICES = ((0, 1, "a"), (2, 3, "b"), (4, 5, "a"), (1, 4, "tie"), (0, 5, "b"))


def make_runs(work: Path, checkout: Path, site: Path) -> None:
    """Runs that were killed in their second iteration, and what the commit itself makes of them."""
    call(
        work,
        checkout,
        site,
        "-m",
        "ddpo",
        "rewards",
        "calibrate",
        "compressibility",
        "images",
        "--out",
        "reference.json",
    )
    expected = {}
    for name, settings in RUNS.items():
        call(
            work,
            checkout,
            site,
            "-c",
            KILLED_RUN,
            json.dumps(nested(SMALL | settings)),
            f"runs/{name}",
            killed=True,
        )
        shutil.copytree(work / "runs" / name, work / "resumed" / name)
        call(work, checkout, site, "-m", "ddpo", "train", "--resume", f"resumed/{name}")
        expected[name] = outcome(work / "resumed" / name)
    (work / "resumed_runs.json").write_text(json.dumps(expected, indent=1))


def leave_out(work: Path) -> None:
    """Removes files that no test reads: image grids, and resumed runs without an evaluation."""
    for grid in [*work.glob("runs/*/samples/*.png"), *work.glob("resumed/*/samples/*.png")]:
        grid.unlink()
    for run in (work / "resumed").iterdir():
        if run.name != "user_file":
            shutil.rmtree(run)


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted names as nested ones."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        *above, last = name.split(".")
        place = found
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return found


def outcome(run: Path) -> dict[str, Any]:
    """Metrics and last weights of a finished run: a hash, and size and sum of each tensor."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [
        {name: value for name, value in row.items() if not name.startswith("seconds")}
        for row in rows
    ]
    from safetensors.numpy import load_file

    (file,) = (run / "checkpoints" / "iteration-000002").glob("*.safetensors")
    tensors = {name: value.astype(np.float64) for name, value in sorted(load_file(file).items())}
    digest = hashlib.sha256(
        b"".join(name.encode() + value.tobytes() for name, value in tensors.items())
    ).hexdigest()
    sizes = {
        name: [float(np.abs(value).mean()), float(value.mean())] for name, value in tensors.items()
    }
    return {"metrics": rows, "sha256": digest, "tensors": sizes}


def make_scorings(work: Path, checkout: Path, site: Path) -> None:
    """A cache, tables of scores, finished and killed, and a comparison with choices of people."""
    score = ("-m", "ddpo", "rewards", "score")
    call(
        work,
        checkout,
        site,
        *score,
        "./redness.py:redness",
        "test/sharpness",
        "images",
        "--out",
        "scores.jsonl",
    )
    call(work, checkout, site, *score, "compressibility", "images", "--out", "scores.parquet")
    call(
        work,
        checkout,
        site,
        *score,
        "vendi:features=pixels",
        "images",
        "--prompt",
        "a cat",
        "--out",
        "group_scores.csv",
    )
    stopped = ("--out", "stopped.jsonl", "--no-cache", "--batch-size", "1")
    call(
        work,
        checkout,
        site,
        *score,
        "./redness.py:redness",
        "images",
        *stopped,
        limit=3,
        calls="stopped",
        killed=True,
    )
    (work / "identities.json").write_text(call(work, checkout, site, "-c", IDENTITIES))
    choices = ("--preferences", "choices.jsonl", "--images", "images", "--out", "validation.json")
    call(work, checkout, site, "-m", "ddpo", "rewards", "validate", "compressibility", *choices)


def make_evaluations(work: Path, checkout: Path, site: Path) -> None:
    """A finished evaluation of a run, and two killed ones.

    One was killed while it sampled images, the other while it scored edited images.
    """
    evaluate = [
        "-m",
        "ddpo",
        "eval",
        "--checkpoint",
        "resumed/user_file",
        "--prompts",
        "two_prompts.txt",
        "--trained-prompts",
        "animals",
    ]
    evaluate += [
        "--per-prompt",
        "2",
        "--history",
        "0",
        "--best-of",
        "0",
        "--no-held-out",
        "--steps",
        "3",
        "--out",
    ]
    call(work, checkout, site, *evaluate, "evaluation", calls="evaluation")
    images = len((work.parent / "evaluation").read_text())
    call(
        work,
        checkout,
        site,
        *evaluate,
        "stopped_scoring",
        calls="stopped_scoring",
        limit=images - 1,
        killed=True,
    )
    call(work, checkout, site, "-c", KILLED_EVALUATION, calls="stopped_sampling", killed=True)


def make_packages(work: Path, checkout: Path) -> None:
    """Packages by the patterns of the commit: plug-in package, example and scaffolds."""
    shutil.copytree(
        checkout / "tests" / "plugin_package",
        work / "plugin_package",
        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )
    shutil.copy(checkout / "examples" / "reward_plugin" / "my_reward.py", work / "my_reward.py")
    for kind in ("function", "class", "model"):
        command = (
            "-m",
            "ddpo",
            "rewards",
            "new",
            f"mylab/{kind}",
            "--kind",
            kind,
            "--out",
            f"scaffolds/{kind}",
        )
        call(work, checkout, work, *command)


def import_paths(checkout: Path) -> list[str]:
    """`module` and `module:name` of all public names, and of those in documents and examples."""
    files = [
        checkout / "README.md",
        *sorted((checkout / "docs").rglob("*.md")),
        *sorted((checkout / "examples").rglob("*.py")),
    ]
    files += [
        *sorted((checkout / "tests" / "plugin_package").rglob("*.py")),
        *sorted((checkout / "recipes").rglob("*.toml")),
    ]
    files += sorted((checkout / "ddpo" / "rewards" / "scaffold").rglob("*.template"))
    found = {f"{module}:{name}" for module in PUBLIC for name in exported(checkout, module)}
    for file in files:
        text = file.read_text(encoding="utf-8")
        for module, names in re.findall(
            r"^\s*from (ddpo[\w.]*) import ([\w, ]+)", text, re.MULTILINE
        ):
            found |= {f"{module}:{name.split(' as ')[0].strip()}" for name in names.split(",")}
        found |= set(re.findall(r"^\s*import (ddpo[\w.]*)", text, re.MULTILINE))
        found |= set(re.findall(r"`(ddpo(?:\.\w+)+)[`(]", text))
        found |= set(re.findall(r"python -m (ddpo[\w.]*)", text))
    return sorted(found)


def exported(checkout: Path, module: str) -> list[str]:
    """The names in a module's `__all__`, read from its source."""
    place = checkout / module.replace(".", "/")
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "__all__"
        ):
            return list(ast.literal_eval(node.value))
    sys.exit(f"{module} has no __all__")


def versions() -> dict[str, str]:
    """What the last digits depend on."""
    from importlib.metadata import version

    import torch

    names = ("torch", "diffusers", "transformers", "peft", "pillow", "numpy", "safetensors")
    return {name: version(name) for name in names} | {
        "cpu": torch.backends.cpu.get_cpu_capability()
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
