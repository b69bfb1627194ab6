"""The settings of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Final, Literal

from ddpo.errors import ConfigError
from ddpo.eval.options import SAMPLER, option_of
from ddpo.io.atomic import named_path
from ddpo.policies.image_size import OWN_SIZE, Size, checked_size
from ddpo.ranges import ETA, GUIDANCE, IMAGES, SEED, STEPS, Range, check_numbers
from ddpo.word_lists import listed

__all__ = [
    "BEST_OF",
    "EVAL_SEED",
    "HISTORY",
    "EvalConfig",
    "check_models_given",
    "check_nothing_to_sample",
]

HISTORY: Final = Range(low=0, high=100_000, whole=True)  # earlier checkpoints
BEST_OF: Final = Range(low=0, high=1_000_000, whole=True)  # images to choose from; 0: none

OF_SAMPLING: Final = (
    "base",
    "seeds",
    "seed",
    "history",
    "history_seeds",
    "best_of",
    *SAMPLER,
)
"""Fields of `EvalConfig` that say what is sampled."""

EVAL_SEED: Final = 1_000_003  # noise that no training run with an ordinary seed has seen


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """The settings of an evaluation; None and () stand for defaults, most of which the run sets.

    Either `checkpoints` are given, whose images are sampled here, or `images`: folders of images
    that another program made. One word counts as a list of one.

    Raises:
        ConfigError: a number is out of range, or a list holds something other than words.
    """

    checkpoints: tuple[str, ...] = ()  # run folders, checkpoint folders or hub ids
    images: tuple[str, ...] = ()  # "NAME=FOLDER"; one of them "base=FOLDER"
    base: str | None = None  # the base model, where a checkpoint does not name it
    prompts: tuple[str, ...] = ()  # lists or files, "NAME=FILE" to give the split a name
    limit: Annotated[int | None, IMAGES] = None  # first prompts of each list; None: all
    trained_prompts: str | None = None  # the training prompts, where the run does not list them
    rewards: tuple[str, ...] = ()
    held_out: bool = True  # add held-out rewards and pixel statistics
    preferences: tuple[str, ...] = ()  # files of people's choices, besides those of `ddpo label`
    leaks: Literal["report", "drop"] = "report"
    seeds: Annotated[int, IMAGES] = 4  # images per prompt and model
    seed: Annotated[int, SEED] = EVAL_SEED
    history: Annotated[int, HISTORY] = 6  # earlier checkpoints of each run
    history_seeds: Annotated[int, IMAGES] = 2  # images per prompt of each earlier checkpoint
    best_of: Annotated[int | None, BEST_OF] = None
    """n of best-of-n; None: the run's queries per prompt; 0: none."""
    steps: Annotated[int | None, STEPS] = None
    guidance: Annotated[float | None, GUIDANCE] = None
    eta: Annotated[float | None, ETA] = None
    transition: str | None = None  # kind of the denoising steps
    grid: str | None = None  # noise levels of a flow model
    size: Size = OWN_SIZE  # height and width in pixels; also one number, or a text
    out: Path | str | None = None
    device: str | None = None
    trust: tuple[str, ...] = ()  # code and servers that a run or checkpoint may name

    def __post_init__(self) -> None:
        check_numbers(self)
        from ddpo.policies.transitions import AUTO, check_words

        check_words(self.transition or AUTO, self.grid or AUTO)
        object.__setattr__(self, "size", checked_size(self.size or OWN_SIZE, "size"))
        if self.out is not None:
            object.__setattr__(self, "out", named_path(self.out))
        listed(self, "checkpoints", "images", "prompts", "rewards", "preferences", "trust")


def check_models_given(
    checkpoints: Sequence[str], images: Sequence[str], rewards: Sequence[str]
) -> None:
    """Checks that an evaluation has either checkpoints, or images and the trained reward.

    Raises:
        ConfigError: It has both, neither, or images without a reward.
    """
    if bool(images) == bool(checkpoints):
        raise ConfigError(
            "give either --checkpoint, one or several, "
            "or --images base=FOLDER and --images NAME=FOLDER"
        )
    if images and not rewards:
        raise ConfigError(
            "a folder of images does not state the trained reward: give --reward, the trained one "
            "first"
        )


def check_nothing_to_sample(options: Mapping[str, object]) -> None:
    """Checks that an evaluation of given images asks for nothing that would be sampled.

    Args:
        options: Fields of `EvalConfig` by name.

    Raises:
        ConfigError: A field of sampling has another value than its default.
    """
    if not options.get("images"):
        return
    defaults = {field.name: field.default for field in fields(EvalConfig)}
    found = [
        option_of(name)
        for name in OF_SAMPLING
        if name in options and options[name] != defaults[name]
    ]
    if found:
        raise ConfigError(
            f"--images compares images as they are, none is sampled: leave out {', '.join(found)}"
        )
