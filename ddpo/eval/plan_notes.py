"""Notes for the reader of a report: what the evaluation had to assume about runs and prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddpo.eval.inputs.checkpoints import EvalCheckpoint
from ddpo.eval.inputs.rewards import PlannedReward
from ddpo.eval.inputs.runs import nested
from ddpo.eval.inputs.splits import Split, SplitFacts
from ddpo.eval.inputs.titles import split_title
from ddpo.policies.family import SAMPLED
from ddpo.policies.prompt_reader import check_prompts, find_reader
from ddpo.policies.transitions import AUTO
from ddpo.policies.vocabulary import unknown_words_line

__all__ = ["checkpoint_notes"]


def checkpoint_notes(
    compared: Sequence[EvalCheckpoint],
    trained_known: bool,
    rewards: Sequence[PlannedReward],
    splits: Sequence[Split],
    split_facts: Sequence[SplitFacts],
) -> tuple[str, ...]:
    """All notes on an evaluation of checkpoints.

    Args:
        compared: compared checkpoints, without earlier ones.
        trained_known: whether the training prompts are known.
        rewards: rewards of the evaluation.
        splits: splits of the evaluation.
        split_facts: facts about the splits, with notes of their own.
    """
    model = compared[0].info.model
    return (
        *_run_notes(compared, trained_known),
        *(note for checkpoint in compared for note in _reward_notes(checkpoint, rewards)),
        *_unknown_words(model, splits),
        *_long_prompts(model, splits),
        *(note for facts in split_facts for note in facts.notes),
    )


def _run_notes(compared: Sequence[EvalCheckpoint], trained_known: bool) -> list[str]:
    notes = []
    if not trained_known:
        notes.append(
            "The training prompts are not known: the built-in list of animals stands for them, "
            "and prompts could not be checked for leaks."
        )
    lists = {frozenset(prompt.id for prompt in one.run.trained or ()) for one in compared}
    if len(lists) > 1:
        notes.append(
            "The runs were trained on different prompts: a prompt counts as seen if any of them "
            "was trained on it."
        )
    samplers = {_sampler(nested(one.run.config, "sample")) for one in compared}
    if len(samplers) > 1:
        notes.append(
            "The runs were trained with different sampler settings: all images here were sampled "
            "with those of the first."
        )
    return notes


def _sampler(sample: Mapping[str, Any]) -> tuple[Any, ...]:
    """The sampler of a run; what a run of an older version lacks has its default."""
    defaults = {"transition": AUTO, "grid": AUTO}
    size = tuple(sample.get("size", ()))
    return (*(sample.get(name, defaults.get(name)) for name in SAMPLED), size)


def _reward_notes(checkpoint: EvalCheckpoint, rewards: Sequence[PlannedReward]) -> list[str]:
    before = nested(checkpoint.run.manifest, "reward").get("signature")
    return [
        f"The reward {one.id} differs from the one in the training of {checkpoint.facts.name}: "
        f"its signature was {before}, now it is {one.resolved.signature}."
        for one in rewards
        if one.id == checkpoint.run.trained_on and before not in (None, one.resolved.signature)
    ]


def _unknown_words(model: str, splits: Sequence[Split]) -> list[str]:
    """A note for each split with words that the embedded model was never taught."""
    lines = {
        split.name: unknown_words_line(model, [prompt.text for prompt in split.prompts])
        for split in splits
    }
    return [
        f"Prompts of {split_title(name)}: {line}."
        for name, line in lines.items()
        if line is not None
    ]


def _long_prompts(model: str, splits: Sequence[Split]) -> list[str]:
    """A note on prompts of which the text encoder cuts off the end."""
    reader = find_reader(model)
    texts = [prompt.text for split in splits for prompt in split.prompts]
    cut = check_prompts(reader, texts) if reader else None
    return [f"{cut}."] if cut else []
