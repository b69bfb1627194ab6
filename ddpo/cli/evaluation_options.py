"""Options of `ddpo eval` and `ddpo compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpo.cli.options import number_option
from ddpo.eval.config import BEST_OF, HISTORY
from ddpo.ranges import ETA, GUIDANCE, IMAGES, SEED, STEPS

Prompts = Annotated[
    list[str] | None,
    typer.Option(
        help="A .txt file with one prompt a line, a table, a built-in list, or NAME=FILE; "
        "repeatable. Default: the lists that suit the model."
    ),
]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        help="Reward besides the run's own, or an expression such as "
        "'aesthetic + compressibility:0.2'; repeatable, each one is reported by itself."
    ),
]
HeldOut = Annotated[
    bool, typer.Option(help="Scores of independent rewards and pixel statistics too.")
]
Leaks = Annotated[
    str,
    typer.Option(help="Treatment of held-out prompts close to training: 'report' or 'drop'."),
]
Seeds = Annotated[int, number_option(IMAGES, "Number of images per prompt and model.")]
Seed = Annotated[
    int | None,
    number_option(SEED, "Seed of the noise; default: one that training does not use."),
]
Steps = Annotated[
    int | None, number_option(STEPS, "Number of denoising steps; default: the run's.")
]
Guidance = Annotated[
    float | None,
    number_option(GUIDANCE, "Scale of classifier-free guidance, 1 for none; default: the run's."),
]
Eta = Annotated[float | None, number_option(ETA, "Stochasticity; default: the run's.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the report; default: RUN/eval/iteration-…, or evaluations/NAMES."
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="Printed report: 'terminal', 'github' (Markdown for a job summary) or 'json'.",
    ),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        help="Condition such as 'unseen_animals.gain < 0' or 'reading >= strong' that, if true, "
        "gives exit code 3; repeatable."
    ),
]
Base = Annotated[str | None, typer.Option(help="Base model, for checkpoints of other trainers.")]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option(help="Run folder (its last checkpoint), checkpoint folder or hub id; repeatable."),
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        help="Images from elsewhere: base=FOLDER, and NAME=FOLDER for each model; "
        "also tables and archives."
    ),
]
BestOf = Annotated[
    int | None,
    number_option(
        BEST_OF,
        "Number n of best-of-n sampling of the base model, a yardstick; 0 for none. "
        "Default: the run's number of queries per prompt.",
    ),
]
History = Annotated[
    int,
    number_option(HISTORY, "Number of earlier checkpoints of each run, for the run history."),
]
HistorySeeds = Annotated[
    int, number_option(IMAGES, "Number of images per prompt of an earlier checkpoint.")
]
TrainedPrompts = Annotated[
    str | None,
    typer.Option(help="Prompt list of the training, where the run does not record it."),
]
