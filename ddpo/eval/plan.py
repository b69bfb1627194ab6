"""From what the user asked for to what will be done: everything is decided and checked before a model is loaded or a file written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.devices import AUTO, resolve_device
from ddpo.errors import CheckpointError, ConfigError
from ddpo.eval.config import EvalConfig
from ddpo.eval.generate.probe import VIEW_CARDS
from ddpo.eval.inputs.checkpoints import EvalCheckpoint, find_candidates
from ddpo.eval.inputs.image_folders import (
    ImageFolder,
    check_paired,
    find_images,
    leftover_split,
    without_prompts,
)
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.rewards import PlannedReward, plan_rewards
from ddpo.eval.inputs.runs import RunFacts, nested
from ddpo.eval.inputs.splits import Split, SplitFacts, load_splits, numbered_lists
from ddpo.policies.emoji.vocabulary import unknown_words_line
from ddpo.policies.family import default_dtype, sampler_defaults
from ddpo.policies.prompt_reader import check_prompts, find_reader
from ddpo.policies.sampler import SamplerSettings
from ddpo.prompts import load_prompts
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scoring.resolve import single_rewards
from ddpo.rewards.setting_paths import missing_files
from ddpo.rewards.zoo import ResolvedReward, resolve
from ddpo.types import Prompt

__all__ = ["BestOfPlan", "Plan", "plan"]

BEST_OF_PROMPTS: Final = 12  # training prompts for which the best of n is drawn
BEST_OF_MOST: Final = 128  # pictures of each of them, at most
SAMPLED: Final = ("steps", "guidance", "eta")


@dataclass(frozen=True, slots=True)
class BestOfPlan:
    """For which training prompts the best of how many pictures of the base model is chosen."""

    prompts: tuple[Prompt, ...]
    n: int
    training_prompts: int  # all of them: choosing for each costs n queries


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request."""

    base: str  # the base model, or the folder of its pictures
    candidates: tuple[EvalCheckpoint, ...]  # empty where pictures were given
    folders: tuple[ImageFolder, ...]  # the base model's first; empty where checkpoints were given
    models: tuple[ModelFacts, ...]
    splits: tuple[Split, ...]
    split_facts: tuple[SplitFacts, ...]
    rewards: tuple[PlannedReward, ...]
    sampler: SamplerSettings
    seeds: int
    seed: int
    best_of: BestOfPlan | None
    held_out: bool  # whether the base model's own view counts as held-out rewards
    device: str
    dtype: str
    out: Path
    manifests: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def reward_ids(self) -> tuple[str, ...]:
        """The rewards of the report."""
        return (*(reward.id for reward in self.rewards), *(card.id for card in self.views))

    @property
    def views(self) -> tuple[RewardCard, ...]:
        """What the base model itself says of the pictures, as held-out rewards; nothing of pictures that were given."""
        return VIEW_CARDS if self.held_out and not self.folders else ()

    @property
    def pictures(self) -> int:
        """How many pictures the comparison has in all, without those of the swap test and of best-of-n."""
        drawn = sum(
            (len(self.seen) if model.history else len(self.prompts)) * model.seeds
            for model in self.models
        )
        return len(self.prompts) * self.seeds + drawn

    @property
    def seen(self) -> tuple[Prompt, ...]:
        """The prompts of the seen splits, each once."""
        return tuple(
            {
                prompt.id: prompt
                for split in self.splits
                if split.role == "seen"
                for prompt in split.prompts
            }.values()
        )

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts, each once."""
        return tuple(
            {prompt.id: prompt for split in self.splits for prompt in split.prompts}.values()
        )


def plan(request: EvalConfig) -> Plan:
    """Decides everything that `request` leaves open and checks it.

    Raises:
        CheckpointError: no checkpoint there, it belongs to another base model, or the run's files are damaged.
        PromptError: a prompt list that cannot be read.
        UnknownNameError, RewardLoadError: a reward that cannot be found.
        ConfigError: a setting out of range, or something that is needed is not known.
    """
    _check(request)
    return _plan_pictures(request) if request.images else _plan_checkpoints(request)


def _plan_checkpoints(request: EvalConfig) -> Plan:
    candidates = find_candidates(
        request.checkpoints,
        base=request.base,
        seeds=request.seeds,
        history=request.history,
        history_seeds=request.history_seeds,
    )
    first = (
        candidates[-1]
        if len(candidates) == 1
        else next(c for c in candidates if not c.facts.history)
    )
    config, trained = first.run.config, _trained_prompts(request, candidates)
    loaded = load_splits(request.prompts, trained, model=first.info.model, leaks=request.leaks)
    splits = tuple(split for split, _ in loaded)
    reader = find_reader(first.info.model)
    texts = [prompt.text for split in splits for prompt in split.prompts]
    cut = check_prompts(reader, texts) if reader else None
    rewards = plan_rewards(request, _trained_rewards(request, candidates))
    chosen = {name: value for name in SAMPLED if (value := getattr(request, name)) is not None}
    sample = {**sampler_defaults(first.info.model), **nested(config, "sample"), **chosen}
    device = resolve_device(request.device or str(config.get("device", AUTO)))
    sampler = SamplerSettings(**{name: sample[name] for name in SAMPLED if name in sample})
    return Plan(
        base=first.info.model,
        candidates=candidates,
        folders=(),
        models=tuple(candidate.facts for candidate in candidates),
        splits=splits,
        split_facts=tuple(facts for _, facts in loaded),
        rewards=rewards,
        sampler=sampler,
        seeds=request.seeds,
        seed=request.seed,
        best_of=_best_of(request, splits, candidates, trained),
        held_out=request.held_out,
        device=device,
        dtype=str(config.get("dtype") or default_dtype(first.info.model, device)),
        out=request.out or _default_out(candidates),
        manifests={c.facts.name: _manifest(c) for c in candidates if not c.facts.history},
        notes=(
            *_notes(candidates, trained, rewards),
            *_unknown_words(first.info.model, splits),
            *([f"{cut}."] if cut else []),
            *(note for _, facts in loaded for note in facts.notes),
        ),
    )


def _unknown_words(model: str, splits: Sequence[Split]) -> list[str]:
    """A note for each split with words that the embedded model was never taught."""
    lines = {
        split.name: unknown_words_line(model, [prompt.text for prompt in split.prompts])
        for split in splits
    }
    return [f"Prompts of {name}: {line}." for name, line in lines.items() if line is not None]


def _plan_pictures(request: EvalConfig) -> Plan:
    named = dict(_named_folder(text) for text in request.images)
    if len(named) < len(request.images) or BASE not in named or len(named) < 2:
        raise ConfigError(
            "pictures are given as --images base=FOLDER --images NAME=FOLDER …, each name once"
        )
    trained = load_prompts(request.trained_prompts).prompts if request.trained_prompts else None
    loaded = load_splits(request.prompts, trained, leaks=request.leaks) if request.prompts else ()
    splits = [split for split, _ in loaded]
    lists = numbered_lists(request.prompts)
    folders = [
        find_images(name, named[name], lists)
        for name in (BASE, *(name for name in named if name != BASE))
    ]
    if request.leaks == "drop":
        kept = {prompt.id for split in splits for prompt in split.prompts}
        dropped = {prompt.id for prompts in lists.values() for prompt in prompts} - kept
        folders = [without_prompts(folder, dropped) for folder in folders]
    facts = [fact for _, fact in loaded]
    if (left := leftover_split(folders, splits)) is not None:
        splits.append(left)
        facts.append(
            SplitFacts(left.name, left.role, "the folders of pictures", len(left.prompts), ())
        )
    rewards = plan_rewards(request, [resolve(spec) for spec in request.rewards[:1]])
    seeds = max(
        Counter(file.prompt.id for folder in folders[:1] for file in folder.files).values(),
        default=1,
    )
    return Plan(
        base=str(named[BASE]),
        candidates=(),
        folders=tuple(folders),
        models=tuple(_pictured(folder, rewards, seeds) for folder in folders[1:]),
        splits=tuple(splits),
        split_facts=tuple(facts),
        rewards=rewards,
        sampler=SamplerSettings(),
        seeds=seeds,
        seed=-1,
        best_of=None,
        held_out=False,
        device=request.device or AUTO,
        dtype="float32",
        out=request.out or Path("evaluations") / "-".join(folder.name for folder in folders[1:]),
        manifests={},
        notes=(
            *(note for folder in folders for note in folder.notes),
            *(
                note
                for folder in folders[1:]
                if (note := check_paired(folders[0], folder)) is not None
            ),
            *(note for fact in facts for note in fact.notes),
        ),
    )


def _check(request: EvalConfig) -> None:
    if bool(request.images) == bool(request.checkpoints):
        raise ConfigError(
            "give either --checkpoint, one or several, or --images base=FOLDER and --images NAME=FOLDER"
        )
    if request.images and not request.rewards:
        raise ConfigError(
            "pictures do not say what their model was trained on: give --reward, the trained one first"
        )
    if (
        request.seeds < 1
        or request.history_seeds < 1
        or request.history < 0
        or (request.best_of or 0) < 0
    ):
        raise ConfigError(
            "seeds and history seeds must be at least 1, history and best-of at least 0"
        )


def _named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not Path(folder).exists():
        raise ConfigError(
            f"--images {text!r} is not NAME=FOLDER with a folder, table or archive that is there"
        )
    return name, Path(folder)


def _pictured(folder: ImageFolder, rewards: Sequence[PlannedReward], seeds: int) -> ModelFacts:
    trained = next((reward.id for reward in rewards if reward.role == "trained"), "")
    return ModelFacts(
        folder.name,
        str(folder.folder),
        "images",
        "",
        -1,
        -1,
        trained,
        -1,
        seeds,
        history=False,
        identity="",
    )


def _trained_prompts(
    request: EvalConfig, candidates: Sequence[EvalCheckpoint]
) -> tuple[Prompt, ...] | None:
    """All prompts that any of the runs was trained on; None if unknown."""
    if request.trained_prompts:
        return load_prompts(request.trained_prompts).prompts
    lists = [candidate.run.trained for candidate in candidates]
    if any(found is None for found in lists):
        return None
    return tuple({prompt.id: prompt for found in lists for prompt in found or ()}.values())


def _trained_rewards(
    request: EvalConfig, candidates: Sequence[EvalCheckpoint]
) -> list[ResolvedReward]:
    """The rewards of the runs, each once.

    Raises:
        CheckpointError: the file of one is not there, and no `--reward` has the same content.
    """
    runs = {
        str(candidate.run.config["reward"]): candidate.run
        for candidate in candidates
        if "reward" in candidate.run.config
    }
    return [_moved_reward(request, run) or resolve(spec) for spec, run in runs.items()]


def _moved_reward(request: EvalConfig, run: RunFacts) -> ResolvedReward | None:
    """The reward among those asked for that stands in for one whose file is gone; None while the run's own is there."""
    missing = missing_files({"reward": run.config["reward"]}).get("reward")
    if missing is None:
        return None
    before = nested(run.manifest, "reward")
    for found in map(resolve, request.rewards):
        files = [dict(one.files) for one in single_rewards(found) if one.files]
        if found.card.id == run.trained_on and files == before.get("files", files):
            return found
    raise CheckpointError(
        f"{run.name}: the file {missing} of its reward is not there; if it was moved, give its new place with --reward"
    )


def _best_of(
    request: EvalConfig,
    splits: Sequence[Split],
    candidates: Sequence[EvalCheckpoint],
    trained: Sequence[Prompt] | None,
) -> BestOfPlan | None:
    """As many pictures per training prompt as the longest of the runs had reward queries for each, of some of the prompts."""
    seen = tuple(
        {
            prompt.id: prompt
            for split in splits
            if split.role == "seen"
            for prompt in split.prompts
        }.values()
    )
    queries = max((candidate.facts.queries for candidate in candidates), default=-1)
    if request.best_of == 0 or not seen or not trained or (request.best_of is None and queries < 1):
        return None
    n = request.best_of or max(1, min(BEST_OF_MOST, round(queries / len(trained))))
    if n < 2:
        return None
    places = sorted(
        {
            place * len(seen) // min(BEST_OF_PROMPTS, len(seen))
            for place in range(min(BEST_OF_PROMPTS, len(seen)))
        }
    )
    return BestOfPlan(tuple(seen[place] for place in places), n, len(trained))


def _default_out(candidates: Sequence[EvalCheckpoint]) -> Path:
    """Inside the run for one checkpoint of it; else a folder that carries the names."""
    compared = [candidate for candidate in candidates if not candidate.facts.history]
    info = compared[0].info
    if len(compared) == 1 and info.run is not None:
        return info.run / "eval" / info.folder.name
    names = [candidate.facts.name for candidate in compared]
    return Path("evaluations") / (
        "-".join(names[:3]) + (f"-and-{len(names) - 3}-more" if len(names) > 3 else "")
    ).replace("/", "_")


def _manifest(candidate: EvalCheckpoint) -> dict[str, Any]:
    """What the run's folder says of it, without the reward's card, which the report has."""
    manifest = {
        name: value
        for name, value in candidate.run.manifest.items()
        if name not in ("reward", "folder")
    }
    return {"config": dict(candidate.run.config), **manifest, "weights": candidate.facts.identity}


def _notes(
    candidates: Sequence[EvalCheckpoint],
    trained: Sequence[Prompt] | None,
    rewards: Sequence[PlannedReward],
) -> list[str]:
    notes = []
    if trained is None:
        notes.append(
            "The prompts of the training are not known: the built-in list of animals is taken for them, and no leaks could be looked for."
        )
    compared = [candidate for candidate in candidates if not candidate.facts.history]
    lists = {frozenset(prompt.id for prompt in c.run.trained or ()) for c in compared}
    if len(lists) > 1:
        notes.append(
            "The runs were trained on different prompts: a prompt counts as seen if any of them was trained on it."
        )
    samplers = {
        tuple(nested(c.run.config, "sample").get(name) for name in SAMPLED) for c in compared
    }
    if len(samplers) > 1:
        notes.append(
            "The runs were trained with different sampler settings: all pictures here were drawn with those of the first."
        )
    for candidate in compared:
        known = (
            candidate.run.trained_on,
            nested(candidate.run.manifest, "reward").get("signature"),
        )
        notes += [
            f"The reward {one.id} is not quite the one of the training of {candidate.facts.name}: its signature was {known[1]}, "
            f"now it is {one.resolved.signature}."
            for one in rewards
            if one.id == known[0] and known[1] not in (None, one.resolved.signature)
        ]
    return notes
