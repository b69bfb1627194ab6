"""Small reports with known effects, built by the analysis functions of an evaluation.

Each archetype is a story of a model: the change of the trained reward on every list, the collapse
of its images, its checkpoints. Scores are seeded, and effects are in units of the scores' spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ddpo.eval.analysis.diversity import ImageFeatures, diversity_changes
from ddpo.eval.analysis.hacking import assess_hacking
from ddpo.eval.analysis.history import CheckpointAssessment, RunHistory, run_history
from ddpo.eval.analysis.people import People, match_choices, people_of
from ddpo.eval.analysis.prompt_dependence import explained_change
from ddpo.eval.analysis.tables import Pair, gain_table, transfer_table
from ddpo.eval.generate.samples import Sample
from ddpo.eval.inputs.judgements import JudgedImage, Judgement, JudgementFile
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.splits import LeakFacts, Role, Split, SplitFacts
from ddpo.eval.report.data import Report, RewardFacts
from ddpo.types import Prompt

PROMPTS: Final = 12
SEEDS: Final = 4
ROLES: Final[Mapping[str, Role]] = {
    "animals": "seen",
    "unseen_animals": "unseen_animals",
    "objects": "objects",
    "mine": "external",
}
JUDGES: Final = {"proxy": "trained", "witness": "heldout", "edges": "artefact"}


@dataclass(frozen=True)
class Story:
    """The effects that one model's scores and images are made with.

    Attributes:
        gains: list → gain of the trained reward.
        witness: change of the held-out reward; None without one.
        edges: change of a pixel statistic.
        kept: share of the base model's diversity and prompt dependence; None: not measured.
        history: iteration → gain and change of the held-out reward of an earlier checkpoint.
        best_of: gain of the best of four base images; None: not sampled.
        liked: choices of people for the tuned image among the four of each prompt; None: nobody
            judged.
    """

    name: str = "run"
    gains: Mapping[str, float] = field(default_factory=dict)
    witness: float | None = 0.3
    edges: float | None = 0.2
    kept: float | None = 0.95
    history: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    iteration: int = 8
    kind: str = "lora"
    prompts: int = PROMPTS
    leaked: Mapping[str, int] = field(default_factory=dict)
    is_scored: bool = True
    base_spread: float = 1.0
    liked: int | None = None


def report_of(*stories: Story) -> Report:
    """The report of one or several models on the same prompts."""
    first = stories[0]
    splits = [
        Split(name, ROLES[name], tuple(Prompt(f"{name} {i}") for i in range(first.prompts)))
        for name in first.gains
    ]
    judges = [
        name
        for name, there in zip(
            JUDGES, (True, first.witness is not None, first.edges is not None), strict=True
        )
        if there
    ]
    roles = {name: JUDGES[name] for name in judges}
    rewards = tuple(
        RewardFacts(name, name, {"id": name}, role, float("nan")) for name, role in roles.items()
    )
    models = [_model(story) for story in stories]
    pairs = [pair for story in stories for pair in _pairs(story, story.name, splits, story.gains)]
    gains = gain_table(pairs, models, splits, judges)
    changes = [_changes(story, split) for story in stories for split in splits]
    diversity = tuple(one for found, _ in changes for one in found)
    dependence = tuple(one for _, found in changes for one in found)
    people = _people(stories, splits, models)
    histories = {s.name: _history(s, splits, pairs, roles) for s in stories if s.history}
    readings = tuple(
        assess_hacking(
            s.name,
            gains,
            roles,
            diversity,
            dependence,
            histories.get(s.name),
            people.share_of(s.name) if people else None,
        )
        for s in stories
    )
    return Report(
        schema_version=2,
        ddpo_version="0",
        base="emoji",
        models=tuple(models),
        seeds=SEEDS,
        seed=7,
        sampler={},
        rewards=rewards,
        splits=tuple(_facts(split, first) for split in splits),
        gains=gains,
        transfers=transfer_table(pairs, models, splits, judges),
        runs=(),
        diversity=diversity,
        dependence=dependence,
        courses=tuple(histories.values()),
        readings=readings,
        curves=(),
        manifests={},
        notes=(),
        people=people,
    )


def _people(
    stories: Sequence[Story], splits: Sequence[Split], models: Sequence[ModelFacts]
) -> People | None:
    """One choice of one person for each pair of images of the models that were judged."""
    judged = [story for story in stories if story.liked is not None]
    samples = [
        Sample(name, split.name, prompt, index, f"{name} {prompt.text} {index}")
        for name in (BASE, *(story.name for story in judged))
        for split in splits
        for prompt in split.prompts
        for index in range(SEEDS)
    ]
    choices = [
        Judgement(
            float(index < (story.liked or 0)),
            "Ada",
            JudgedImage("", story.name, ""),
            JudgedImage("", BASE, ""),
            prompt.text,
            split.name,
            index,
        )
        for story in judged
        for split in splits
        for prompt in split.prompts
        for index in range(SEEDS)
    ]
    files = [JudgementFile("preferences.parquet", tuple(choices))] if choices else []
    names = [split.name for split in splits]
    return people_of(match_choices(files, samples, models), (), models, names, {})


def _model(story: Story) -> ModelFacts:
    is_run = story.kind != "images"
    return ModelFacts(
        story.name,
        f"runs/{story.name}",
        story.kind,
        story.name if is_run else "",
        story.iteration if is_run else -1,
        96 * story.iteration if is_run else -1,
        "proxy",
        -1,
        SEEDS,
        False,
        "",
    )


def _facts(split: Split, story: Story) -> SplitFacts:
    leaks = tuple(
        LeakFacts(f"held-out {i}", f"trained {i}", "the same words")
        for i in range(story.leaked.get(split.name, 0))
    )
    return SplitFacts(split.name, split.role, "", len(split.prompts), leaks)


def _pairs(
    story: Story,
    model: str,
    splits: Sequence[Split],
    gains: Mapping[str, float],
    witness: float | None = None,
) -> list[Pair]:
    """Pairs whose differences have exactly the story's means."""
    shift = story.witness if witness is None else witness
    pairs = []
    for place, split in enumerate(splits):
        random = np.random.default_rng(place)
        for number, prompt in enumerate(split.prompts):
            for index in range(SEEDS):
                noise = random.normal(0, 1, 3)
                wobble = 0.1 * (-1) ** index + 0.05 * (-1) ** number  # its mean is exactly 0
                base = {
                    "proxy": noise[0] if story.is_scored else float("nan"),
                    "witness": noise[1],
                    "edges": noise[2],
                }
                moved = {
                    "proxy": gains[split.name] + wobble,
                    "witness": (shift or 0.0) + wobble,
                    "edges": (story.edges or 0.0) + wobble,
                }
                tuned = {name: base[name] + moved[name] for name in base}
                pairs.append(
                    Pair(model, split.name, prompt.id, prompt.text, index, None, None, base, tuned)
                )
    return pairs


def _changes(story: Story, split: Split):  # type: ignore[no-untyped-def]
    """Diversity and prompt dependence of images whose distances shrink to the kept share."""
    if story.kept is None:
        return (), ()
    random = np.random.default_rng(3)
    centre = random.normal(0, 1, 8)
    base = {}
    tuned = {}
    for prompt in split.prompts:
        mean = random.normal(0, 3, 8)
        rows = random.normal(0, 1, (SEEDS, 8))
        base[prompt.id] = centre + mean + rows
        tuned[prompt.id] = centre + story.kept * mean + story.kept * rows
    return (
        diversity_changes(story.name, split.name, ImageFeatures(base), ImageFeatures(tuned)),
        (explained_change(story.name, split.name, base, tuned),),
    )


def _history(
    story: Story, splits: Sequence[Split], pairs: Sequence[Pair], roles: Mapping[str, str]
) -> RunHistory:
    """The run history on the training prompts, with an assessment of every checkpoint."""
    seen = [split for split in splits if split.role == "seen"]
    last = _model(story)
    models = [
        replace(last, name=f"{story.name}@{i}", iteration=i, queries=96 * i) for i in story.history
    ]
    earlier = [
        pair
        for model in models
        for pair in _pairs(
            story,
            model.name,
            seen,
            {seen[0].name: story.history[model.iteration][0]},
            story.history[model.iteration][1],
        )
    ]
    every = [*pairs, *earlier]
    base = {
        prompt.id: {
            name: list(np.random.default_rng(9).normal(0, story.base_spread, 32)) for name in roles
        }
        for prompt in seen[0].prompts
    }
    found = run_history(
        [*models, last],
        every,
        split=seen[0].name,
        roles=roles,
        kl={},
        base=base,
        ns=(8,),
        training_prompts=PROMPTS * 8,
    )
    gains = gain_table(every, [*models, last], seen, list(roles))
    diversity, dependence = _changes(story, seen[0])
    signs = []
    for model in [*models, last]:
        own = [replace(one, model=model.name) for one in diversity]
        swaps = [replace(one, model=model.name) for one in dependence]
        grade = assess_hacking(model.name, gains, roles, own, swaps, None).grade
        signs.append(CheckpointAssessment(model.name, model.iteration, grade, ""))
    return replace(found, signs=tuple(signs))


BOTH: Final = {"animals": 1.0, "unseen_animals": 0.94, "objects": 0.85}
FALLING: Final = {2: (0.4, 0.3), 4: (0.7, -0.7), 6: (0.9, -1.4)}
ARCHETYPES: Final[Mapping[str, tuple[Story, ...]]] = {
    "healthy": (Story(gains=BOTH),),
    "gamed, with an earlier good checkpoint": (Story(gains=BOTH, witness=-2.0, history=FALLING),),
    "gamed from the first checkpoint on": (
        Story(gains=BOTH, witness=-2.0, history={2: (0.4, -1.5), 4: (0.7, -1.7)}),
    ),
    "gamed, earlier checkpoints not examined": (Story(gains=BOTH, witness=-2.0),),
    "gamed by one image for all prompts": (Story(gains=BOTH, kept=0.2),),
    "one held-out reward fell a little": (Story(gains=BOTH, witness=-0.7),),
    "a held-out reward rose first and then fell": (
        Story(gains=BOTH, witness=0.4, history={2: (0.4, 0.5), 4: (0.7, 0.9)}),
    ),
    "no gain": (Story(gains=dict.fromkeys(BOTH, 0.0), iteration=20),),
    "run too short": (Story(gains=dict.fromkeys(BOTH, 0.0), iteration=1),),
    "fell": (Story(gains=dict.fromkeys(BOTH, -0.5)),),
    "fell, and the images are damaged": (Story(gains=dict.fromkeys(BOTH, -0.5), edges=6.0),),
    "does not transfer": (Story(gains={**BOTH, "unseen_animals": 0.0, "objects": 0.0}),),
    "falls elsewhere": (Story(gains={**BOTH, "unseen_animals": 0.0, "objects": -0.4}),),
    "transfers to one list": (Story(gains={**BOTH, "objects": 0.0}),),
    "transfers in part": (Story(gains={**BOTH, "unseen_animals": 0.3, "objects": 0.2}),),
    "too little measured": (Story(gains=BOTH, witness=None, edges=None),),
    "hacking not measured": (Story(gains=BOTH, witness=None, edges=None, kept=None),),
    "leaked": (Story(gains=BOTH, leaked={"unseen_animals": 6}),),
    "one prompt": (Story(gains=BOTH, prompts=1, kept=None),),
    "unscorable": (Story(gains=BOTH, is_scored=False),),
    "training prompts alone": (Story(gains={"animals": 1.0}),),
    "images from elsewhere": (Story("mine", gains={"mine": 1.0}, kind="images", witness=None),),
    "gamed images from elsewhere": (
        Story("mine", gains={"mine": 1.0}, kind="images", witness=None, edges=6.0),
    ),
    "best of n is better": (Story(gains=BOTH, history={4: (0.7, 0.3)}, base_spread=3.0),),
    "people agree with the gain": (Story(gains=BOTH, liked=3),),
    "people prefer the base": (Story(gains=BOTH, liked=1),),
    "several models": (
        Story("a", gains=BOTH, witness=-2.0),
        Story("b", gains=BOTH),
        Story("c", gains=dict.fromkeys(BOTH, 0.0)),
    ),
}
