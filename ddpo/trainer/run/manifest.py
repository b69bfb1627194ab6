"""The facts that identify a run, written when it starts and compared when it resumes."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from ddpo.errors import ConfigError
from ddpo.policies.model_place import facts_of
from ddpo.prompts import PromptSet
from ddpo.rewards.scoring.resolve import ResolvedReward, single_rewards
from ddpo.rewards.setting_paths import absolute_path, storable
from ddpo.rewards.spec import redacted
from ddpo.trainer.config import TrainConfig

__all__ = ["check_unchanged", "describe", "placed"]

PACKAGES: Final = ("ddpo", "torch", "diffusers", "transformers", "peft", "pillow", "numpy")
IGNORED: Final = (
    "calls",
    "thread_safe",
    "cache",
    "lineage",
    "load",
    "for_options",
    "summary",
    "flaws",
    "typical",
    "typical_source",
    "paper",
    "memory_mb",
    "libraries",
    "golden",
)
"""The fields of a card that no score depends on. `load` and `for_options` say where the code is."""
REWORDED_UNITS: Final = {r"effective number of pictures": "effective number of images"}
"""Unit of a card in earlier versions → the same unit in today's words."""


def describe(
    config: TrainConfig,
    reward: ResolvedReward,
    prompts: PromptSet,
    origins: Mapping[str, str],
    processes: int,
) -> dict[str, Any]:
    """The facts that tell two runs apart, and that are needed to repeat one.

    Args:
        config: settings of the run.
        reward: reward that is trained on.
        prompts: prompts that are trained on.
        origins: origins of "algorithm" and "model"; that of a file has its hash.
        processes: number of processes.
    """
    versions = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    return {
        "schema": 1,
        "versions": versions,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "config": storable(config.to_dict()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "reward": _reward(config, reward),
        "prompts": {
            "source": prompts.source,
            "sha256": prompts.digest,
            "list": [prompt.text for prompt in prompts.prompts],
        },
        "origins": dict(origins),
        "base": facts_of(config.model),
    }


def placed(facts: dict[str, Any], folder: Path, reward: str) -> dict[str, Any]:
    """The facts with the place of the run and the reward as its user wrote it.

    Args:
        facts: those of `describe`.
        folder: the run folder.
        reward: expression of the reward.
    """
    facts["reward"]["spec"] = storable({"reward": reward})["reward"]
    return facts | {"folder": str(absolute_path(folder))}


def _reward(config: TrainConfig, reward: ResolvedReward) -> dict[str, Any]:
    """The facts about the reward, as plain values."""
    return {
        "spec": redacted(config.reward),
        "card": reward.card.to_dict(),
        "signature": reward.signature,
        "origin": reward.origin,
        "files": [dict(one.files) for one in single_rewards(reward) if one.files],
        "commits": reward.commits,
    }


def check_unchanged(
    before: Mapping[str, Any],
    config: TrainConfig,
    reward: ResolvedReward,
    prompts: PromptSet,
    origins: Mapping[str, str],
) -> None:
    """Compares prompts, reward, algorithm and model with those of a manifest, by content.

    The origin of a served reward has all that the server reports, weights and options included.

    Args:
        before: the manifest.
        config: settings of the run.
        reward: reward that is trained on.
        prompts: prompts that are trained on.
        origins: origins of "algorithm" and "model".

    Raises:
        ConfigError: one of them differs; names it, and the file of a reward that changed.
    """
    known = before["prompts"]
    texts = [prompt.text for prompt in prompts.prompts]
    if known["list"] != texts or (known.get("sha256") or prompts.digest) != prompts.digest:
        raise ConfigError(
            f"the run cannot be resumed: the prompts of {prompts.source} "
            "are not those that it was started with"
        )
    then = before["reward"]
    now = json.loads(json.dumps(_reward(config, reward)))
    refused = (
        f"the run cannot be resumed: the reward {redacted(config.reward)!r} "
        "is not the one that it was started with"
    )
    if changed := _changed_files(then, now):
        raise ConfigError(f"{refused}: {' and '.join(changed)}")
    if changed := _changed_commits(then, now):
        raise ConfigError(f"{refused}: {' and '.join(changed)}")
    origin = now["origin"]
    served_otherwise = origin.startswith("server ") and (then.get("origin") or origin) != origin
    if served_otherwise or _other_card(then, now):
        raise ConfigError(refused)
    _check_origins(before.get("origins") or {}, origins, config)


def _check_origins(
    before: Mapping[str, str], origins: Mapping[str, str], config: TrainConfig
) -> None:
    """Compares the origins of algorithm and model with those of a manifest.

    Raises:
        ConfigError: one differs.
    """
    for kind, origin in origins.items():
        first = before.get(kind, origin)
        if first not in (origin, _own_source(origin)):
            raise ConfigError(
                f"the run cannot be resumed: the {kind} {getattr(config, kind)!r} "
                f"was that of {first} when it was started, and is now {origin}"
            )


def _changed_files(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The files of user code that have changed, in words; a reward's own file may be renamed."""
    changed: list[str] = []
    for before, after in zip(then.get("files") or (), now["files"], strict=False):
        (_, own_before), *rest_before = before.items()
        (name, own_after), *rest_after = after.items()
        if own_before != own_after:
            changed.append(f"{name} has changed")
        old = dict(rest_before)
        new = dict(rest_after)
        changed += [f"{name} has changed" for name in old if name in new and old[name] != new[name]]
        changed += [f"{name} is gone" for name in old if name not in new]
        changed += [f"{name} is new" for name in new if name not in old]
    return changed


def _changed_commits(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The weights whose branch of the hub stands for another commit than before, in words."""
    before = then.get("commits") or {}
    return [
        f"{name} was at commit {before[name][:12]} and is now at {commit[:12]}"
        for name, commit in now["commits"].items()
        if before.get(name, commit) != commit
    ]


def _other_card(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """True if a card differs in a field that scores depend on; later fields do not count."""
    before = dict(then["card"])
    after = dict(now["card"])
    if (
        then.get("files") is None
    ):  # of a version that did not read the files beside a function's own
        after["version"] = str(after["version"]).partition("+")[0]
    before["unit"] = REWORDED_UNITS.get(before["unit"], before["unit"])
    before["options"] = _defaults(before["options"])
    after["options"] = {
        name: value
        for name, value in _defaults(after["options"]).items()
        if name in before["options"]
    }
    return any(
        before[name] != value
        for name, value in after.items()
        if name in before and name not in IGNORED
    )


def _defaults(options: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Default of each option of a card. One that a later version added changes no score."""
    return {str(option["name"]): option["default"] for option in options}


def _own_source(origin: str) -> str:
    """The origin as written by versions that read no file other than the named one."""
    return origin.partition(" files:")[0]
