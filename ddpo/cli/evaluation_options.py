"""Options of `ddpo eval` and `ddpo compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpo.cli.completion import complete_model, complete_prompts, complete_reward
from ddpo.cli.options import (
    EVIDENCE,
    INPUT,
    MODEL,
    OUTPUT,
    limit_option,
    number_option,
    option,
    out_option,
)
from ddpo.eval.config import BEST_OF, HISTORY
from ddpo.ranges import ETA, GUIDANCE, IMAGES, SEED, STEPS

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="Run folder (its last checkpoint), checkpoint folder or hub id, one or several.",
    ),
]
ComparedRuns = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN", help="Two or more runs, checkpoints or hub ids, of one base model."
    ),
]
Checkpoints = Annotated[
    list[str] | None,
    option("The same as RUN; repeatable.", "--checkpoint", metavar="RUN", panel=INPUT),
]
Images = Annotated[
    list[str] | None,
    option(
        "Images from elsewhere: base=FOLDER, and NAME=FOLDER for each model; "
        "also tables and archives.",
        metavar="NAME=FOLDER",
        panel=INPUT,
    ),
]
Prompts = Annotated[
    list[str] | None,
    option(
        "A .txt file with one prompt a line, a table, a built-in list, or NAME=FILE; "
        "repeatable. Default: the lists that suit the model.",
        metavar="PROMPTS",
        panel=INPUT,
        complete=complete_prompts,
    ),
]
Limit = Annotated[int | None, limit_option("Number of first prompts of each list.")]
TrainedPrompts = Annotated[
    str | None,
    option(
        "Prompt list of the training, where the run does not record it.",
        metavar="PROMPTS",
        panel=INPUT,
        complete=complete_prompts,
    ),
]
Rewards = Annotated[
    list[str] | None,
    option(
        "Reward besides the run's own, or an expression such as "
        "'aesthetic + compressibility:0.2'; repeatable, each one is reported by itself.",
        metavar="REWARD",
        panel=EVIDENCE,
        complete=complete_reward,
    ),
]
HeldOut = Annotated[
    bool,
    option("Scores of independent rewards and pixel statistics too.", panel=EVIDENCE),
]
Leaks = Annotated[
    str,
    option(
        "Treatment of held-out prompts close to training: 'report' or 'drop'.",
        metavar="WORD",
        panel=EVIDENCE,
    ),
]
Preferences = Annotated[
    list[str] | None,
    option(
        "File of people's choices, as `ddpo label` writes it; repeatable. "
        "Those in a run folder are found.",
        metavar="FILE",
        panel=EVIDENCE,
    ),
]
PerPrompt = Annotated[
    int,
    number_option(IMAGES, "Number of images per prompt and model.", "--per-prompt", panel=EVIDENCE),
]
History = Annotated[
    int,
    number_option(
        HISTORY,
        "Number of earlier checkpoints of each run, for the run history.",
        panel=EVIDENCE,
    ),
]
HistoryPerPrompt = Annotated[
    int,
    number_option(
        IMAGES,
        "Number of images per prompt of an earlier checkpoint.",
        "--history-per-prompt",
        panel=EVIDENCE,
    ),
]
BestOf = Annotated[
    int | None,
    number_option(
        BEST_OF,
        "Number n of best-of-n sampling of the base model, a yardstick; 0 for none. "
        "Default: the run's number of queries per prompt.",
        panel=EVIDENCE,
    ),
]
Base = Annotated[
    str | None,
    option(
        "Base model, for checkpoints of other trainers.",
        "--model",
        metavar="MODEL",
        panel=MODEL,
        complete=complete_model,
    ),
]
Seed = Annotated[
    int | None,
    number_option(SEED, "Seed of the noise; default: one that training does not use.", panel=MODEL),
]
Steps = Annotated[
    int | None,
    number_option(STEPS, "Number of denoising steps; default: the run's.", panel=MODEL),
]
Guidance = Annotated[
    float | None,
    number_option(
        GUIDANCE,
        "Scale of classifier-free guidance, 1 for none; default: the run's.",
        panel=MODEL,
    ),
]
Eta = Annotated[float | None, number_option(ETA, "Stochasticity; default: the run's.", panel=MODEL)]
Transition = Annotated[
    str | None,
    option(
        "Kind of the denoising steps: ddim for U-Nets; flow_sde, dance_sde, cps or ode for flow "
        "models. Default: the run's.",
        metavar="WORD",
        panel=MODEL,
    ),
]
Grid = Annotated[
    str | None,
    option(
        "Noise levels of a flow model: diffusers or linspace; default: the run's.",
        metavar="WORD",
        panel=MODEL,
    ),
]
Out = Annotated[
    Path | None,
    out_option(
        "Folder for the report; default: RUN/eval/iteration-…, or evaluations/NAMES.", "FOLDER"
    ),
]
Format = Annotated[
    str,
    option(
        "Printed report: 'terminal', 'github' (Markdown for a job summary) or 'json'.",
        "--format",
        metavar="WORD",
        panel=OUTPUT,
    ),
]
FailIf = Annotated[
    list[str] | None,
    option(
        "Condition such as 'unseen_animals.gain < 0' or 'reading >= strong' that, if true, "
        "gives exit code 3, or 4 if it cannot be decided; repeatable.",
        metavar="CONDITION",
        panel=OUTPUT,
    ),
]
