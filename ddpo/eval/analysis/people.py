"""People as judges: win rates of tuned models, agreement with rewards, and agreement of raters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from ddpo.errors import ConfigError
from ddpo.eval.inputs.judgements import JudgedImage, Judgement, JudgementFile, prompt_key
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.stats.estimate import Estimate
from ddpo.stats.pairwise import CONVENTIONS, Accuracy, pairwise_accuracy
from ddpo.stats.raters import cohen_kappa, krippendorff_alpha
from ddpo.stats.win_rate import clustered_share
from ddpo.text import count

if TYPE_CHECKING:  # reading a report loads no torch
    from ddpo.eval.generate.samples import Row, Sample

__all__ = [
    "ALL_LISTS",
    "MatchedChoices",
    "People",
    "PeopleWins",
    "RaterAgreement",
    "RewardAgreement",
    "match_choices",
    "people_of",
]

ALL_LISTS: Final = ""
"""The split of a win rate over all prompt lists."""
CONVENTION: Final = CONVENTIONS["imagereward"]
"""Pairs that people tied are left out; equal scores are wrong."""


@dataclass(frozen=True, slots=True)
class PeopleWins:
    """The share of people's choices for a tuned model over the base model, ties counted half."""

    model: str
    split: str  # "" for all prompt lists together
    share: Estimate  # clustered by prompt, see `clustered_share`
    ties: int


@dataclass(frozen=True, slots=True)
class RewardAgreement:
    """The share of people's decided choices in which a reward prefers the same image."""

    reward: str
    accuracy: Accuracy


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """The agreement of several raters beyond chance, over pairs that two or more of them judged."""

    raters: int
    pairs: int
    kappa: float  # Cohen's, of exactly two raters; NaN where it is not defined
    alpha: float  # Krippendorff's, nominal; NaN where it is not defined


@dataclass(frozen=True, slots=True)
class People:
    """Everything that people's choices say about the models and rewards of a report."""

    choices: int  # that match images of the evaluation
    unmatched: int
    wins: tuple[PeopleWins, ...]
    judges: tuple[RewardAgreement, ...]  # rewards that have a better and a worse
    agreement: RaterAgreement | None = None  # None with fewer than two named raters

    def share_of(self, model: str) -> Estimate | None:
        """The win rate of a model over all prompt lists; None if nobody judged it."""
        for one in self.wins:
            if (one.model, one.split) == (model, ALL_LISTS):
                return one.share
        return None


@dataclass(frozen=True, slots=True)
class MatchedChoice:
    """A choice with the images of the evaluation that it is about.

    Attributes:
        rater: name of the person; "" if unknown.
        choice: 1 for the first image, 0 for the second, 0.5 for a tie.
        sides: first and second image, once for each list and model that they belong to.
    """

    rater: str
    choice: float
    sides: tuple[tuple[Sample, Sample], ...]

    @property
    def prompt(self) -> str:
        """The id of the prompt of both images."""
        return self.sides[0][0].prompt.id

    @property
    def pair(self) -> tuple[str, frozenset[str]]:
        """The prompt and the pixels that were judged, in either order."""
        first, second = self.sides[0]
        return self.prompt, frozenset((first.sha256, second.sha256))

    def share_of(self, model: str, split: str) -> float:
        """1 for a choice of the tuned image over the base image, 0.5 for a tie, otherwise 0.

        NaN if the choice is not about this model and split. Images that both models made count as
        a tie, unless the file names their models.
        """
        values = set()
        for first, second in self.sides:
            if split in (ALL_LISTS, first.split):
                if (first.model, second.model) == (BASE, model):
                    values.add(1 - self.choice)
                elif (first.model, second.model) == (model, BASE):
                    values.add(self.choice)
        return sum(values) / len(values) if values else math.nan

    @property
    def category(self) -> str:
        """The chosen model or "tie": the same name for the same choice, whatever the order."""
        if self.choice == 0.5:
            return "tie"
        chosen, other = self.sides[0] if self.choice == 1 else self.sides[0][::-1]
        is_first = (chosen.model != BASE, chosen.model, chosen.sha256) <= (
            other.model != BASE,
            other.model,
            other.sha256,
        )
        return "first" if is_first else "second"


@dataclass(frozen=True, slots=True)
class MatchedChoices:
    """The choices of all files that are about images of an evaluation."""

    choices: tuple[MatchedChoice, ...] = ()
    unmatched: int = 0
    notes: tuple[str, ...] = field(default=())  # sentences for the report


def match_choices(
    files: Sequence[JudgementFile], samples: Sequence[Sample], models: Sequence[ModelFacts]
) -> MatchedChoices:
    """The choices whose two images are images of one prompt of the evaluation.

    An image is known by the digest of its pixels, or without one by prompt, number and model. A
    later choice of one rater for the same pair replaces the earlier one.

    Args:
        files: preference files, in order.
        samples: images of all models.
        models: facts about the tuned models.

    Raises:
        ConfigError: no choice of a named file matches.
    """
    known = _Known(samples, models)
    found: dict[object, MatchedChoice] = {}
    unmatched = 0
    notes = []
    for file in files:
        lost = 0
        for number, judgement in enumerate(file.judgements):
            sides = tuple(known.sides(judgement))
            if not sides:
                lost += 1
                continue
            one = MatchedChoice(judgement.rater, judgement.choice, sides)
            key = (one.rater, one.pair) if one.rater else (file.path, number)
            found[key] = one
        unmatched += lost
        notes += _unmatched_note(file, lost)
    return MatchedChoices(tuple(found.values()), unmatched, tuple(notes))


def _unmatched_note(file: JudgementFile, lost: int) -> list[str]:
    """A sentence about the choices of a file that match no image, if there are any.

    Raises:
        ConfigError: the user named the file, and no choice matches.
    """
    total = len(file.judgements)
    if lost == total and not file.is_discovered:
        raise ConfigError(
            f"no choice in {file.path} ({total} in all) is about two images of this evaluation: "
            "label images of the same checkpoints, prompts and seed"
        )
    if not lost:
        return []
    found = f"{total - lost} of {count(total, 'choice')} of people in {file.path}"
    return [f"{found} could be matched with images of this evaluation."]


class _Known:
    """The images of an evaluation by their pixels, and by prompt, number and model."""

    def __init__(self, samples: Sequence[Sample], models: Sequence[ModelFacts]) -> None:
        self._by_pixels: dict[str, list[Sample]] = {}
        self._by_name: dict[tuple[str, int, str], list[Sample]] = {}
        for sample in samples:
            if sample.sha256:
                prompt = prompt_key(sample.prompt.text)
                self._by_pixels.setdefault(sample.sha256, []).append(sample)
                self._by_name.setdefault((prompt, sample.index, sample.model), []).append(sample)
        self._names = {BASE: BASE}
        for model in models:
            if model.run and model.iteration >= 0:  # as `ddpo label` names a checkpoint
                self._names.setdefault(f"{model.run}@{model.iteration}", model.name)
        self._names |= {model.name: model.name for model in models}
        self._identities = {model.identity: model.name for model in models if model.identity}

    def sides(self, judgement: Judgement) -> Iterator[tuple[Sample, Sample]]:
        """The first and second image of a choice, in every list and model that has both."""
        firsts = self._found(judgement.first, judgement)
        seconds = self._found(judgement.second, judgement)
        for first in firsts:
            for second in seconds:
                is_pair = (first.split, first.prompt.id) == (second.split, second.prompt.id)
                if is_pair and first.model != second.model:
                    yield first, second

    def _found(self, image: JudgedImage, judgement: Judgement) -> list[Sample]:
        model = self._identities.get(image.identity) or self._names.get(image.model, "")
        if not image.sha256:
            key = (judgement.prompt, judgement.index, model)
            named = self._by_name.get(key, [])
            return [one for one in named if judgement.split in ("", one.split)]
        samples = [
            one
            for one in self._by_pixels.get(image.sha256, [])
            if judgement.prompt in ("", prompt_key(one.prompt.text))
        ]
        return [one for one in samples if one.model == model] or samples


def people_of(
    matched: MatchedChoices,
    rows: Sequence[Row],
    models: Sequence[ModelFacts],
    splits: Sequence[str],
    directions: Mapping[str, int],
) -> People | None:
    """The win rates and agreements of people; None without a choice.

    Args:
        matched: choices with their images.
        rows: scores of the images.
        models: facts about the tuned models.
        splits: names of the prompt lists.
        directions: reward → 1 if a higher score is better, -1 if a lower one is.
    """
    choices = matched.choices
    if not choices:
        return None
    wins = [
        found
        for model in models
        for split in (ALL_LISTS, *splits)
        if (found := _wins(choices, model.name, split)).share.n
    ]
    return People(
        choices=len(choices),
        unmatched=matched.unmatched,
        wins=tuple(wins),
        judges=tuple(_reward_agreements(choices, rows, directions)),
        agreement=_rater_agreement(choices),
    )


def _wins(choices: Sequence[MatchedChoice], model: str, split: str) -> PeopleWins:
    shares = [(one.share_of(model, split), one.prompt) for one in choices]
    about = [(share, prompt) for share, prompt in shares if not math.isnan(share)]
    values = [share for share, _ in about]
    share = clustered_share(values, [prompt for _, prompt in about])
    return PeopleWins(model, split, share, values.count(0.5))


def _reward_agreements(
    choices: Sequence[MatchedChoice], rows: Iterable[Row], directions: Mapping[str, int]
) -> Iterator[RewardAgreement]:
    """The agreement with each reward that scored both images of a decided choice."""
    scores = {
        (row.model, row.split, row.prompt_id, row.index, row.reward): row.score for row in rows
    }
    prompts = [one.prompt for one in choices]
    decided = np.array([one.choice for one in choices], dtype=np.float64)

    def score(sample: Sample, reward: str) -> float:
        place = (sample.model, sample.split, sample.prompt.id, sample.index, reward)
        return scores.get(place, math.nan)

    for reward, sign in directions.items():
        both = [[score(sample, reward) for sample in one.sides[0]] for one in choices]
        differences = sign * np.array([first - second for first, second in both])
        kept = np.flatnonzero(~np.isnan(differences))
        labels = [prompts[place] for place in kept]
        found = pairwise_accuracy(CONVENTION, decided[kept], differences[kept], labels)
        if found.n:
            yield RewardAgreement(reward, found)


def _rater_agreement(choices: Sequence[MatchedChoice]) -> RaterAgreement | None:
    """The agreement of all named raters; None with fewer than two."""
    raters = list(dict.fromkeys(one.rater for one in choices if one.rater))
    if len(raters) < 2:
        return None
    units: dict[object, dict[str, str]] = {}
    for one in choices:
        if one.rater:
            units.setdefault(one.pair, {})[one.rater] = one.category
    shared = [unit for unit in units.values() if len(unit) > 1]
    kappa = math.nan
    if len(raters) == 2:
        kappa = cohen_kappa(*([unit[rater] for unit in shared] for rater in raters))
    alpha = krippendorff_alpha([list(unit.values()) for unit in shared])
    return RaterAgreement(len(raters), len(shared), kappa, alpha)
