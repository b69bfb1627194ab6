"""Further evidence that an evaluation could measure, with the command that measures it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ddpo.eval.analysis.hacking import (
    BASE_VIEW,
    BEST_OF_N,
    DIVERSITY,
    HELD_OUT,
    PEOPLE,
    PROMPT_DEPENDENCE,
    RUN_HISTORY,
    HackingAssessment,
)
from ddpo.eval.command import command_line, quoted
from ddpo.eval.config import EvalConfig
from ddpo.eval.inputs.models import BASE, ModelFacts

__all__ = ["Advice", "Circumstances", "advise"]

SEEDS: int = 4  # images per prompt that show a collapse
CHECKPOINTS: int = 6  # earlier checkpoints of a run history


@dataclass(frozen=True, slots=True)
class Advice:
    """One source of further evidence about a model."""

    model: str
    kind: str  # kind of evidence that it adds
    text: str
    command: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The settings of an evaluation, and further evidence that this machine could give.

    Attributes:
        config: settings of the evaluation.
        earlier: model → number of earlier checkpoints of its run on this machine.
        offers: ids of held-out rewards whose weights can be downloaded, the smallest first.
        has_training_prompts: whether a list of training prompts was evaluated.
        prompts: number of prompts of the longest list.
        judged: names of the models that people judged.
        trainings: model → command of its training with more checkpoints, where that can be had.
    """

    config: EvalConfig
    earlier: Mapping[str, int]
    offers: Sequence[str]
    has_training_prompts: bool
    prompts: int
    judged: Collection[str] = ()
    trainings: Mapping[str, str] = field(default_factory=dict)


def advise(
    model: ModelFacts, assessment: HackingAssessment, facts: Circumstances
) -> tuple[Advice, ...]:
    """The sources of evidence about one model that were not measured and can be.

    Args:
        model: compared model.
        assessment: graded evidence about it.
        facts: circumstances of the evaluation.
    """
    missing = [one.kind for one in assessment.evidence if one.grade == "not measured"]
    found = [
        *_more_prompts(missing, facts),
        *_judges(missing, facts),
        *_more_images(missing, facts),
        *_earlier_checkpoints(model, missing, facts),
        *_people(model, facts),
    ]
    return tuple(Advice(model.name, *one) for one in found)


_Source = tuple[str, str, str]
"""Kind of evidence, text and command."""


def _more_prompts(missing: Sequence[str], facts: Circumstances) -> list[_Source]:
    if PROMPT_DEPENDENCE not in missing or facts.prompts > 1:
        return []
    command = command_line(facts.config, prompts=(*facts.config.prompts, "PROMPTS.txt"))
    return [(PROMPT_DEPENDENCE, "a list of two or more prompts", command)]


def _judges(missing: Sequence[str], facts: Circumstances) -> list[_Source]:
    """Held-out rewards, pixel statistics and the base model."""
    config = facts.config
    if not config.held_out:
        kinds = "pixel statistics" if config.images else "pixel statistics and the base model"
        text = f"held-out rewards, {kinds} as judges"
        return [(HELD_OUT, text, command_line(config, held_out=True))]
    found: list[_Source] = []
    if HELD_OUT in missing and facts.offers and facts.prompts > 1:
        command = f"ddpo rewards download {facts.offers[0]} && {command_line(config)}"
        found.append((HELD_OUT, "a reward that training never used", command))
    if BASE_VIEW in missing and config.images:
        text = "the base model's view, if the images come from a checkpoint"
        found.append((BASE_VIEW, text, "ddpo eval --checkpoint CHECKPOINT"))
    return found


def _more_images(missing: Sequence[str], facts: Circumstances) -> list[_Source]:
    if DIVERSITY not in missing:
        return []
    if facts.config.images:
        text = "two or more images of each prompt in every folder, then the same command"
        return [(DIVERSITY, text, command_line(facts.config))]
    if facts.config.seeds > 1:
        return []
    return [(DIVERSITY, "several images of each prompt", command_line(facts.config, seeds=SEEDS))]


def _earlier_checkpoints(
    model: ModelFacts, missing: Sequence[str], facts: Circumstances
) -> list[_Source]:
    """The run history, and best-of-n, which is measured beside it."""
    config = facts.config
    if not model.run or not facts.has_training_prompts:
        return []
    if RUN_HISTORY in missing and facts.earlier.get(model.name, 0) and not config.history:
        text = "earlier checkpoints of the run, which date a decline"
        alone = {"checkpoints": (model.checkpoint,), "out": None, "best_of": None}
        command = command_line(config, history=CHECKPOINTS, **alone)
        return [(RUN_HISTORY, text, f"{command} --history {CHECKPOINTS}")]
    if RUN_HISTORY in missing and not facts.earlier.get(model.name, 0):
        training = facts.trainings.get(model.name)
        text = "a training that keeps more checkpoints"
        return [(RUN_HISTORY, text, training)] if training else []
    if BEST_OF_N in missing and RUN_HISTORY not in missing and config.best_of == 0:
        return [(BEST_OF_N, "best-of-n of the base model", command_line(config, best_of=None))]
    return []


def _people(model: ModelFacts, facts: Circumstances) -> list[_Source]:
    """The labelling of a model that nobody judged."""
    config = facts.config
    if model.name in facts.judged:
        return []
    words = ["ddpo", "label"]
    if config.images:
        folders = dict(text.split("=", 1) for text in config.images)
        words += [folders[BASE], model.checkpoint]
    else:
        words.append(model.checkpoint)
    if config.out is not None or len(config.checkpoints) > 1:
        words += [word for name in config.prompts for word in ("--prompts", name)]
    text = "people as judges, then the same command"
    if not model.run:
        text += " with --preferences preferences.parquet"
    return [(PEOPLE, text, quoted(words))]
