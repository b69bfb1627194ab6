"""The program of each of two processes in test_processes.py, started by `accelerate launch`.

    python processes_worker.py SCENARIOS FOLDER

SCENARIOS is a JSON file of settings by name. The records of a run in process R go to
FOLDER/NAME-R.pt. A run whose name ends in "-resumed" stops after its first iteration and is resumed
up to the last.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ddpo.distributed import World
from ddpo.errors import DdpoError
from ddpo.trainer import config_from_dict, loop, resume, train, update
from ddpo.trainer.rollout import Collection
from ddpo.trainer.sharding import local, whole


def recorded(values: dict[str, Any], out: Path) -> dict[str, Any]:
    """Runs the settings; latents, rewards, gradients, parameters and counts of this process."""
    seen: dict[str, Any] = {
        "latents": [],
        "rewards": [],
        "gradients": [],
        "parameters": [],
        "idle": 0,
        "kept_back": 0,
        "error": None,
        "held": 0,
    }
    collect = Collection.rest
    gathered = loop.check_scorable
    idle = update._join_with_zeros
    sync_gradients = World.sync_gradients

    def spy_collect(self: Collection) -> Generator[Any, None, Any]:
        rollout = yield from collect(self)
        seen["latents"].append(rollout.trajectory.latents.clone())
        return rollout

    def spy_gathered(output: Any) -> Any:
        seen["rewards"].append(output.values.clone())
        return gathered(output)

    def spy_idle(*arguments: Any) -> None:
        seen["idle"] += 1
        idle(*arguments)

    def spy_sync_gradients(self: World, now: bool) -> Any:
        seen["kept_back"] += not now
        return sync_gradients(self, now)

    def flat(optimizer: torch.optim.Optimizer, gradient: bool) -> torch.Tensor:
        tensors = [
            p.grad if gradient else p for group in optimizer.param_groups for p in group["params"]
        ]
        return torch.cat([whole(tensor.detach()).flatten().clone() for tensor in tensors])

    def held(optimizer: torch.optim.Optimizer) -> None:
        """Counts the elements of parameters, gradients and moments that this process keeps."""
        kept = [
            tensor
            for group in optimizer.param_groups
            for p in group["params"]
            for tensor in (p, p.grad)
        ]
        kept += [
            state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")
        ]
        seen["held"] = sum(local(tensor).numel() for tensor in kept)

    hooks = [
        register_optimizer_step_pre_hook(
            lambda optimizer, *_: seen["gradients"].append(flat(optimizer, gradient=True))
        ),
        register_optimizer_step_post_hook(
            lambda optimizer, *_: seen["parameters"].append(flat(optimizer, gradient=False))
        ),
        register_optimizer_step_post_hook(lambda optimizer, *_: held(optimizer)),
    ]
    loop.check_scorable = spy_gathered
    update._join_with_zeros = spy_idle
    Collection.rest = spy_collect  # type: ignore[method-assign]
    World.sync_gradients = spy_sync_gradients  # type: ignore[method-assign]
    try:
        for _ in train(config_from_dict(values), out):
            pass
    except DdpoError as error:
        seen["error"] = f"{type(error).__name__}: {error}"
    finally:
        loop.check_scorable = gathered
        update._join_with_zeros = idle
        Collection.rest = collect  # type: ignore[method-assign]
        World.sync_gradients = sync_gradients  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()
    return seen


def left_alone(self: World, module: torch.nn.Module) -> torch.nn.Module:
    """In place of `World.wrap`: a module whose gradients stay with the process."""
    return module


def note_group(path: Path) -> None:
    """Writes "ended" to a file if this process has no process group any more."""
    path.write_text("open" if torch.distributed.is_initialized() else "ended")


def main() -> None:
    scenarios = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    atexit.register(note_group, folder / f"group-{os.environ['RANK']}")
    wrap = World.wrap
    for name, values in scenarios.items():
        os.environ["BREAK_IN"] = {"breaks": "1", "held-out-breaks": "0"}.get(name, "")
        World.wrap = left_alone if name == "unsynchronised" else wrap  # type: ignore[method-assign]
        first = values | ({"iterations": 1} if name.endswith("-resumed") else {})
        torch.save(recorded(first, folder / name), folder / f"{name}-{os.environ['RANK']}.pt")
        if name.endswith("-resumed"):
            list(resume(folder / name, iterations=values["iterations"]))


if __name__ == "__main__":
    main()
