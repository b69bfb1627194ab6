"""Splits: named prompt lists with their roles, checked for prompts that leaked into training.

The default lists depend on the vocabulary of the model. A model with an open vocabulary gets
`DEFAULT_LISTS`. The embedded models know the 133 nouns of `animals`, `unseen_animals` and
`objects`. Prompts of other words would measure their tokenizer, so they get `CLOSED_LISTS`. After
training on `seen_pairings` they get `PAIRING_LISTS`, and after training on prompts of
`emoji_geneval_train`, whose nouns are of all three lists, `GENEVAL_LISTS`. Any list can be
requested by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from ddpo.errors import PromptError
from ddpo.eval.inputs.titles import split_title
from ddpo.policies import EMBEDDED
from ddpo.prompts import (
    PromptSet,
    builtin_prompts,
    listed_prompts,
    load_prompts,
    with_shared_metadata,
)
from ddpo.prompts.leaks import Disguise, Leak, find_kin, find_leaks
from ddpo.types import Prompt

__all__ = [
    "CLOSED_LISTS",
    "DEFAULT_LISTS",
    "PAIRING_LISTS",
    "ROLES",
    "LeakFacts",
    "Role",
    "Split",
    "SplitFacts",
    "default_lists",
    "load_splits",
    "numbered_lists",
]

Role = Literal["seen", "near", "unseen_animals", "objects", "activities", "external"]
ROLES: Final[tuple[Role, ...]] = (
    "seen",
    "near",
    "unseen_animals",
    "objects",
    "activities",
    "external",
)
LIST_ROLES: Final[Mapping[str, Role]] = {
    "unseen_animals": "unseen_animals",
    "objects": "objects",
    "near": "near",
    "activities": "activities",
    "seen_activities": "activities",
    "animals_activities": "activities",
    "seen_pairings": "activities",
    "new_pairings": "activities",
    "unseen_pairings": "unseen_animals",
}
"""The roles of built-in lists that were not trained on."""
CLOSED_LISTS: Final = ("animals", "unseen_animals", "objects")
PAIRING_LISTS: Final = ("seen_pairings", "unseen_pairings", "new_pairings", "objects")
GENEVAL_TRAINED: Final = "emoji_geneval_train"
GENEVAL_LISTS: Final = (CLOSED_LISTS[0], "emoji_geneval_test")
DEFAULT_LISTS: Final = (*CLOSED_LISTS, "activities", "near")
TRAINING: Final = "training"  # the name of the split of a run's own prompts
MOST_TRAINING: Final = 64  # prompts of that split, evenly spread over the training prompts
MOST_KIN: Final = 4  # prompts that a note names
BY_DESIGN: Final[tuple[Disguise, ...]] = ("noun", "synonym", "kind")
"""Leaks that define `near` and `activities`: a kind of a trained noun, or a new activity of one."""


@dataclass(frozen=True, slots=True)
class Split:
    """A named list of prompts and its role: `seen` in training, or a kind of held-out prompts."""

    name: str
    role: Role
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class LeakFacts:
    """A held-out prompt that a training prompt gives away."""

    heldout: str
    train: str
    reason: str


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """The facts about a split: its role, its source, and its leaks into training."""

    name: str
    role: str
    source: str
    prompts: int  # number of prompts in use
    leaks: tuple[LeakFacts, ...]  # including those of dropped prompts
    dropped: int = 0  # prompts left out because they leaked
    notes: tuple[str, ...] = ()  # sentences for the reader of the report


def default_lists(model: str, trained: Sequence[Prompt] | None = None) -> tuple[str, ...]:
    """The default built-in lists of a model: those whose words it can know.

    Args:
        model: Id of the base model.
        trained: Training prompts; None if they are unknown.
    """
    if model not in EMBEDDED:
        return DEFAULT_LISTS
    if trained and _all_trained(builtin_prompts(PAIRING_LISTS[0]), trained):
        return PAIRING_LISTS
    if trained and _all_from(GENEVAL_TRAINED, trained) and not _all_from(CLOSED_LISTS[0], trained):
        return GENEVAL_LISTS
    return CLOSED_LISTS


def load_splits(
    names: Sequence[str],
    trained: Sequence[Prompt] | None,
    *,
    model: str = "",
    leaks: Literal["report", "drop"] = "report",
    limit: int | None = None,
) -> tuple[tuple[Split, SplitFacts], ...]:
    """The splits of an evaluation, each checked against the training prompts.

    A prompt may belong to several splits, as a note then says. Its images are sampled and scored
    once and count in each. Prompts with the same text are the same.

    Default lists: the training prompts replace `animals` unless every prompt of a default list was
    trained on. A default list that consists of leaks is not used if leaks are dropped.

    Args:
        names: built-in lists or files, "NAME=FILE" to give the split a name; empty for the default
            lists. A split named after a role other than `seen`, as in "near=breeds.txt", has that
            role.
        trained: training prompts; None if unknown: nothing is checked, and `animals` is `seen`.
        model: id of the base model, for the default lists.
        leaks: "report" leaves leaked held-out prompts in their split, "drop" leaves them out.
            Prompts that are near by design stay.
        limit: largest number of prompts of each list, the first of it; None for all.

    Raises:
        PromptError: a list cannot be read or is empty, a name is given twice, one prompt has two
            metadata, or a requested list consists of leaks that are to be dropped.
    """
    sets = [_named(name) for name in names]
    if not sets:
        sets = [(found, None) for found in _default_sets(model, trained)]
    _check_names([found.name for found, _ in sets])
    shared = with_shared_metadata([found for found, _ in sets])
    splits: list[tuple[Split, SplitFacts]] = []
    for found, (_, role) in zip(shared, sets, strict=True):
        first = found.first(limit)
        loaded = _noting_limit(_loaded(first, role, trained, drop=leaks == "drop"), found, first)
        if loaded[0].prompts:
            splits.append(_noting_shared(loaded, [split for split, _ in splits]))
        elif names:
            raise PromptError(
                f"every prompt of {found.name!r} leaked into training: "
                "report the leaks, or leave the list out"
            )
    return tuple(splits)


def numbered_lists(names: Sequence[str]) -> dict[str, list[Prompt]]:
    """Name → prompts of each list in order, with repetitions, as numbers in file names count them.

    Args:
        names: as for `load_splits`.

    Raises:
        PromptError: a list that cannot be read.
    """
    lists: dict[str, list[Prompt]] = {}
    for text in names:
        name, equals, file = text.partition("=")
        if not equals or Path(text).is_file():
            name = Path(text).stem
            file = text
        path = Path(file)
        lists[name.strip()] = (
            listed_prompts(path) if path.is_file() else list(load_prompts(file).prompts)
        )
    return lists


def _named(text: str) -> tuple[PromptSet, Role | None]:
    """A list by its name, its file, or NAME=FILE; and the role that its name claims."""
    name, equals, file = text.partition("=")
    if not equals or os.path.isfile(text):
        return load_prompts(text), None
    if not name.strip() or "/" in name or not file:
        raise PromptError(
            f"prompts {text!r}: expected a list, a file, or NAME=FILE with a name without slashes"
        )
    role = next((role for role in ROLES if role == name and role != "seen"), None)
    return replace(load_prompts(file), name=name.strip()), role


def _default_sets(model: str, trained: Sequence[Prompt] | None) -> list[PromptSet]:
    sets = [builtin_prompts(name) for name in default_lists(model, trained)]
    if trained and not any(_all_trained(found, trained) for found in sets):
        sets[0] = _training_set(trained)
    return sets


def _training_set(trained: Sequence[Prompt]) -> PromptSet:
    """The training prompts, at most `MOST_TRAINING` of them, evenly spread."""
    count = min(len(trained), MOST_TRAINING)
    chosen = tuple(trained[place * len(trained) // count] for place in range(count))
    source = (
        "the training prompts of the run"
        if count == len(trained)
        else f"{count} of the run's {len(trained):,} training prompts"
    )
    return PromptSet(TRAINING, source, chosen, (1,) * count)


def _all_trained(found: PromptSet, trained: Iterable[Prompt]) -> bool:
    return {prompt.id for prompt in found.prompts} <= {prompt.id for prompt in trained}


def _all_from(name: str, trained: Iterable[Prompt]) -> bool:
    """True if every training prompt is one of a built-in list."""
    return {prompt.id for prompt in trained} <= {one.id for one in builtin_prompts(name).prompts}


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise PromptError(
                f"two splits have the name {name!r}: give one of them another with NAME=FILE"
            )


def _loaded(
    found: PromptSet, claimed: Role | None, trained: Sequence[Prompt] | None, *, drop: bool
) -> tuple[Split, SplitFacts]:
    """A list as a split, checked against the training prompts."""
    assumed = (
        trained is None
        and claimed is None
        and found.source == builtin_prompts(DEFAULT_LISTS[0]).source
    )
    if assumed or _all_trained(found, trained or ()):
        facts = SplitFacts(found.name, "seen", found.source, len(found), ())
        return Split(found.name, "seen", found.prompts), facts
    every = find_leaks(trained or (), found.prompts)
    role = claimed or _role(found, every)
    alarms = [
        leak
        for leak in every
        if role not in ("near", "activities") or leak.disguise not in BY_DESIGN
    ]
    gone = {leak.heldout.id for leak in alarms} if drop else set()
    kept = tuple(prompt for prompt in found.prompts if prompt.id not in gone)
    notes = tuple(_notes(found.name, role, kept, every, find_kin(trained or (), kept)))
    reported = tuple(LeakFacts(leak.heldout.text, leak.train.text, leak.reason) for leak in alarms)
    facts = SplitFacts(found.name, role, found.source, len(kept), reported, len(gone), notes)
    return Split(found.name, role, kept), facts


def _role(found: PromptSet, leaks: Sequence[Leak]) -> Role:
    """A built-in list's own role; `near` only if at least half of it is near to trained prompts."""
    roles = {builtin_prompts(name).source: role for name, role in LIST_ROLES.items()}
    role = roles.get(found.source, "external")
    near = sum(leak.disguise in BY_DESIGN for leak in leaks)
    return "external" if role == "near" and 2 * near < len(found) else role


def _notes(
    name: str, role: Role, kept: Sequence[Prompt], leaks: Sequence[Leak], kin: Sequence[Leak]
) -> Iterable[str]:
    title = split_title(name)
    left = {prompt.id for prompt in kept}
    near = sum(leak.disguise in BY_DESIGN and leak.heldout.id in left for leak in leaks)
    if role == "near" and near:
        yield (
            f"{near} of the {len(kept)} prompts of {title} show a kind of something that was "
            "trained on, by design."
        )
    if role == "activities" and near:
        yield (
            f"{near} of the {len(kept)} prompts of {title} show something that was trained on; "
            "only its activity is new."
        )
    if kin:
        named = [leak.heldout.text for leak in kin[:MOST_KIN]]
        some = ", ".join([*named, "…"] if len(kin) > MOST_KIN else named)
        yield (
            "Counted as unseen, since only a wider kind was trained on: "
            f"{len(kin)} of the {len(kept)} prompts of {title} ({some})."
        )


def _noting_limit(
    loaded: tuple[Split, SplitFacts], found: PromptSet, first: PromptSet
) -> tuple[Split, SplitFacts]:
    """The split, whose source says how many prompts of its list were taken."""
    split, facts = loaded
    if len(first) == len(found):
        return loaded
    return split, replace(facts, source=f"{facts.source}, its first {len(first)} of {len(found)}")


def _noting_shared(
    loaded: tuple[Split, SplitFacts], before: Sequence[Split]
) -> tuple[Split, SplitFacts]:
    """The split, with a note for each earlier split that shares prompts with it."""
    split, facts = loaded
    mine = {prompt.id for prompt in split.prompts}
    notes = list(facts.notes)
    for other in before:
        shared = [prompt for prompt in other.prompts if prompt.id in mine]
        if shared:
            count = f"{len(shared)} prompts are" if len(shared) > 1 else "1 prompt is"
            notes.append(
                f"{count} both in {split_title(other.name)} and in {split_title(split.name)}: "
                "the images are the same and count in each."
            )
    return split, replace(facts, notes=tuple(notes))
