"""Options of `ddpo train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ddpo.cli.completion import (
    complete_algorithm,
    complete_model,
    complete_prompts,
    complete_recipe,
    complete_reward,
)
from ddpo.cli.options import (
    DEVICE_HELP,
    EXECUTION,
    INPUT,
    OUTPUT,
    limit_option,
    number_option,
    option,
    out_option,
)
from ddpo.ranges import ITERATIONS, SEED

SETTINGS = "Settings"
"""Panel of the options that set how the run trains."""

Rewards = Annotated[
    list[str] | None,
    option(
        "Reward of `ddpo rewards list`, ./file.py:Object or package.module:Object, "
        "with :weight and :option=value,…; several are combined. Default: compressibility.",
        metavar="REWARD",
        panel=INPUT,
        complete=complete_reward,
    ),
]
Combination = Annotated[
    str | None,
    option(
        "Combination of several --reward: sum (the default), min or pareto.",
        metavar="WORD",
        panel=INPUT,
    ),
]
HeldOut = Annotated[
    str | None,
    option(
        "Reward that is not trained on, or none; its scores at each checkpoint choose RUN/best.",
        metavar="REWARD",
        panel=INPUT,
        complete=complete_reward,
    ),
]
StopWhen = Annotated[
    str | None,
    option(
        "held-out-falls: end once the --held-out reward has fallen at stop_patience checkpoints "
        "in a row. Default: never.",
        metavar="WORD",
        panel=SETTINGS,
    ),
]
Prompts = Annotated[
    str | None,
    option(
        "A .txt file with one prompt a line, a table, or a built-in list. Default: animals.",
        metavar="PROMPTS",
        panel=INPUT,
        complete=complete_prompts,
    ),
]
Limit = Annotated[int | None, limit_option("Number of first prompts of the list.")]
Model = Annotated[
    str | None,
    option(
        "A name of `ddpo models list` (default: 'emoji'), a folder or hub id of Stable Diffusion, "
        "FLUX or Z-Image in diffusers' format, ./file.py:Object or package.module:Object.",
        metavar="MODEL",
        panel=INPUT,
        complete=complete_model,
    ),
]
Recipe = Annotated[
    str | None,
    option(
        "TOML file of settings, or a name of `ddpo recipes list`.",
        metavar="RECIPE",
        panel=SETTINGS,
        complete=complete_recipe,
    ),
]
Algorithm = Annotated[
    str | None,
    option(
        "ddpo_is (the default), ddpo_sf, rwr, rwr_sparse, grpo, grpo_fast, mix_grpo, grpo_guard, "
        "tempflow_grpo, flow_dppo, one of an installed package, ./file.py:Object or "
        "package.module:Object.",
        metavar="ALGORITHM",
        panel=SETTINGS,
        complete=complete_algorithm,
    ),
]
Iterations = Annotated[
    int | None,
    number_option(
        ITERATIONS,
        "Number of rollouts; with --resume the new total. Default: 10.",
        panel=SETTINGS,
    ),
]
Seed = Annotated[
    int | None,
    number_option(SEED, "Seed of prompts, noise and adapters. Default: 0.", panel=SETTINGS),
]
Settings = Annotated[
    list[str] | None,
    option(
        "Any setting, such as optim.lr=1e-4; repeatable.",
        "--set",
        metavar="KEY=VALUE",
        panel=SETTINGS,
    ),
]
Out = Annotated[Path | None, out_option("Run folder; default: runs/REWARD-TIME.", "FOLDER")]
Resume = Annotated[
    Path | None,
    option("Run folder to resume, with the settings that it has.", metavar="RUN", panel=OUTPUT),
]
DryRun = Annotated[
    bool,
    option(
        "Check of ratio, reward, memory, time and disk only; leaves nothing behind.",
        "--dry-run",
        panel=OUTPUT,
    ),
]
PrintConfig = Annotated[
    bool,
    option(
        "All settings of the run as a recipe on standard output; nothing is trained.",
        "--print-config",
        panel=OUTPUT,
    ),
]
Trackers = Annotated[
    list[str] | None,
    option(
        "tensorboard or wandb, besides metrics.jsonl; repeatable.", metavar="NAME", panel=OUTPUT
    ),
]
AsJsonLines = Annotated[
    bool,
    option(
        "Events of the run as JSON on standard output, one object a line; "
        "with --print-config the settings.",
        "--json",
        panel=OUTPUT,
    ),
]
LowMemory = Annotated[
    bool,
    option(
        "Less memory, less speed: gradient checkpointing, 8-bit AdamW where installed.",
        "--low-memory",
        panel=EXECUTION,
    ),
]
TrainDevice = Annotated[
    str | None, option(f"{DEVICE_HELP} Rewards follow.", metavar="DEVICE", panel=EXECUTION)
]
