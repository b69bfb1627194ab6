"""The plan of an evaluation: every setting is decided and checked before a model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from ddpo.devices import AUTO, resolve_device
from ddpo.eval.command import command_line
from ddpo.eval.config import EvalConfig, check_models_given, check_nothing_to_sample
from ddpo.eval.generate.probe import PROBE_CARDS
from ddpo.eval.inputs.checkpoints import (
    EvalCheckpoint,
    NamedCheckpoint,
    find_eval_checkpoints,
    find_named,
)
from ddpo.eval.inputs.image_folders import (
    ImageFolder,
    check_paired,
    find_images,
    leftover_split,
    without_prompts,
)
from ddpo.eval.inputs.judgements import JudgementFile, find_judgements
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.named_folders import named_folders
from ddpo.eval.inputs.rewards import (
    PlannedReward,
    plan_rewards,
    trained_rewards,
    unscored_rewards,
)
from ddpo.eval.inputs.runs import nested
from ddpo.eval.inputs.splits import Split, SplitFacts, load_splits, numbered_lists
from ddpo.eval.plan_notes import checkpoint_notes
from ddpo.policies.family import SAMPLED, chosen_sampler, default_dtype
from ddpo.policies.sampler import SamplerSettings
from ddpo.prompts import load_prompts
from ddpo.ranges import IMAGES
from ddpo.rewards.card import RewardCard
from ddpo.rewards.zoo import resolve
from ddpo.types import Prompt

__all__ = ["BestOfPlan", "Plan", "default_out", "plan", "planned_sampler", "training_prompts"]

BEST_OF_PROMPTS: Final = 12  # training prompts of best-of-n
BEST_OF_MOST: Final = 128  # largest n by default


@dataclass(frozen=True, slots=True)
class BestOfPlan:
    """The training prompts of best-of-n, and the number of images to choose from."""

    prompts: tuple[Prompt, ...]
    n: int
    training_prompts: int  # all of them; choosing for each costs n queries


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked evaluation.

    Attributes:
        base: the base model, or the folder of its images.
        checkpoints: compared and earlier checkpoints; empty for given images.
        folders: given images, the base model's first; empty for checkpoints.
        models: facts about every tuned model.
        splits: prompt lists with their roles.
        split_facts: facts about the splits for the report.
        rewards: rewards that scorers give.
        sampler: sampler settings of all images.
        seeds: images per prompt and model.
        seed: seed of the noise.
        best_of: plan of best-of-n; None without it.
        held_out: whether the denoising probe counts as held-out rewards.
        device: torch device.
        dtype: precision of the model.
        out: output folder.
        manifests: model → record of its run.
        notes: sentences for the report.
        config: settings as the caller gave them.
        command: command line that repeats the evaluation.
        people: files of people's choices.
    """

    base: str
    checkpoints: tuple[EvalCheckpoint, ...]
    folders: tuple[ImageFolder, ...]
    models: tuple[ModelFacts, ...]
    splits: tuple[Split, ...]
    split_facts: tuple[SplitFacts, ...]
    rewards: tuple[PlannedReward, ...]
    sampler: SamplerSettings
    seeds: int
    seed: int
    best_of: BestOfPlan | None
    held_out: bool
    device: str
    dtype: str
    out: Path
    manifests: Mapping[str, Any]
    notes: tuple[str, ...]
    config: EvalConfig
    command: str = ""
    people: tuple[JudgementFile, ...] = ()

    @property
    def reward_ids(self) -> tuple[str, ...]:
        """The ids of all rewards of the report."""
        return (*(reward.id for reward in self.rewards), *(card.id for card in self.probe_cards))

    @property
    def probe_cards(self) -> tuple[RewardCard, ...]:
        """The denoising probe's rewards; () for given images, which have no latents."""
        return PROBE_CARDS if self.held_out and not self.folders else ()

    @property
    def image_count(self) -> int:
        """The number of compared images, without those of the swap test and of best-of-n."""
        tuned = sum(
            (len(self.seen) if model.history else len(self.prompts)) * model.seeds
            for model in self.models
        )
        return len(self.prompts) * self.seeds + tuned

    @property
    def seen(self) -> tuple[Prompt, ...]:
        """The distinct prompts of the seen splits."""
        return _seen(self.splits)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The distinct prompts of all splits."""
        return _distinct(prompt for split in self.splits for prompt in split.prompts)


def plan(config: EvalConfig, named: Sequence[NamedCheckpoint] | None = None) -> Plan:
    """Decides every setting that `config` leaves open, and checks it.

    Args:
        config: settings of the evaluation.
        named: checkpoints of `config`, if they were found already.

    Raises:
        CheckpointError: a checkpoint is missing, of another base model, or in a damaged run.
        PromptError: a prompt list cannot be read.
        UnknownNameError, RewardLoadError: a reward cannot be found.
        UntrustedError: a run or checkpoint names code or a server that `config` does not name.
        ConfigError: a setting is out of range, or something needed is not known.
    """
    check_models_given(config.checkpoints, config.images, config.rewards)
    check_nothing_to_sample(asdict(config))
    command = command_line(config)
    if config.images:
        return replace(_with_people(_plan_images(config)), command=command)
    if named is None:
        named = find_named(config.checkpoints, config.base, config.trust)
    work = _plan_checkpoints(config, named)
    chosen_from = work.best_of.n * len(work.best_of.prompts) if work.best_of else 0
    IMAGES.checked("the number of images to sample", work.image_count + chosen_from)
    return replace(_with_people(work), command=command)


def _with_people(work: Plan) -> Plan:
    """The plan with people's choices: in the files that the user named, and in the run folders.

    Raises:
        ConfigError: a named file is missing, damaged, or empty.
    """
    runs = [
        one.info.run
        for one in work.checkpoints
        if one.info.run is not None and not one.facts.history
    ]
    found, notes = find_judgements(work.config.preferences, runs, work.prompts)
    return replace(work, people=found, notes=(*work.notes, *notes))


def _plan_checkpoints(config: EvalConfig, named: Sequence[NamedCheckpoint]) -> Plan:
    checkpoints = find_eval_checkpoints(
        named,
        seeds=config.seeds,
        history=config.history,
        history_seeds=config.history_seeds,
        trust=config.trust,
    )
    compared = [one for one in checkpoints if not one.facts.history]
    first = compared[0]
    model = first.info.model
    trained = training_prompts(config, checkpoints)
    loaded = load_splits(
        config.prompts, trained, model=model, leaks=config.leaks, limit=config.limit
    )
    splits = tuple(split for split, _ in loaded)
    split_facts = tuple(facts for _, facts in loaded)
    rewards = plan_rewards(config, trained_rewards(config, compared), model)
    settings = first.run.config
    device = resolve_device(config.device or str(settings.get("device", AUTO)))
    return Plan(
        base=model,
        checkpoints=checkpoints,
        folders=(),
        models=tuple(one.facts for one in checkpoints),
        splits=splits,
        split_facts=split_facts,
        rewards=rewards,
        sampler=planned_sampler(config, first),
        seeds=config.seeds,
        seed=config.seed,
        best_of=_best_of(config, splits, checkpoints, trained),
        held_out=config.held_out,
        device=device,
        dtype=str(settings.get("dtype") or default_dtype(model, device)),
        out=Path(config.out or default_out(compared)),
        manifests={one.facts.name: _manifest(one) for one in compared},
        notes=(
            *unscored_rewards(config, compared),
            *checkpoint_notes(compared, trained is not None, rewards, splits, split_facts),
        ),
        config=config,
    )


def _plan_images(config: EvalConfig) -> Plan:
    folders, splits, split_facts = _folders_and_splits(config)
    tuned = folders[1:]
    rewards = plan_rewards(config, [resolve(spec) for spec in config.rewards[:1]])
    per_prompt = Counter(file.prompt.id for file in folders[0].files)
    seeds = max(per_prompt.values(), default=1)
    partners = [check_paired(folders[0], folder) for folder in tuned]
    return Plan(
        base=str(folders[0].folder),
        checkpoints=(),
        folders=folders,
        models=tuple(_folder_facts(folder, rewards, seeds) for folder in tuned),
        splits=splits,
        split_facts=split_facts,
        rewards=rewards,
        sampler=SamplerSettings(),
        seeds=seeds,
        seed=-1,
        best_of=None,
        held_out=False,
        device=config.device or AUTO,
        dtype="float32",
        out=Path(config.out or "evaluations/" + "-".join(folder.name for folder in tuned)),
        manifests={},
        notes=(
            *(note for folder in folders for note in folder.notes),
            *(note for note in partners if note is not None),
            *(note for facts in split_facts for note in facts.notes),
        ),
        config=config,
    )


def _folders_and_splits(
    config: EvalConfig,
) -> tuple[tuple[ImageFolder, ...], tuple[Split, ...], tuple[SplitFacts, ...]]:
    """The given folders, the base model's first, and the splits of their prompts."""
    named = named_folders(config.images)
    trained = load_prompts(config.trained_prompts).prompts if config.trained_prompts else None
    loaded = (
        load_splits(config.prompts, trained, leaks=config.leaks, limit=config.limit)
        if config.prompts
        else ()
    )
    splits = [split for split, _ in loaded]
    split_facts = [facts for _, facts in loaded]
    lists = numbered_lists(config.prompts)
    names = [BASE, *(name for name in named if name != BASE)]
    folders = [find_images(name, named[name], lists) for name in names]
    if config.leaks == "drop" or config.limit is not None:
        kept = {prompt.id for split in splits for prompt in split.prompts}
        dropped = {prompt.id for prompts in lists.values() for prompt in prompts} - kept
        folders = [without_prompts(folder, dropped) for folder in folders]
    if config.limit is not None:
        listed = {prompt.id for prompts in lists.values() for prompt in prompts}
        others = dict.fromkeys(file.prompt.id for file in folders[0].files)
        beyond = [id for id in others if id not in listed][config.limit :]
        folders = [without_prompts(folder, beyond) for folder in folders]
    if (left := leftover_split(folders, splits)) is not None:
        splits.append(left)
        source = "the folders of images"
        split_facts.append(SplitFacts(left.name, left.role, source, len(left.prompts), ()))
    return tuple(folders), tuple(splits), tuple(split_facts)


def _folder_facts(folder: ImageFolder, rewards: Sequence[PlannedReward], seeds: int) -> ModelFacts:
    return ModelFacts(
        name=folder.name,
        checkpoint=str(folder.folder),
        kind="images",
        run="",
        iteration=-1,
        queries=-1,
        trained_on=next((reward.id for reward in rewards if reward.role == "trained"), ""),
        training_seed=-1,
        seeds=seeds,
        history=False,
        identity="",
    )


def planned_sampler(config: EvalConfig, first: EvalCheckpoint) -> SamplerSettings:
    """The requested settings, then those of the first run, then those of the model."""
    given = {name: getattr(config, name) for name in SAMPLED} | {"size": config.size or None}
    of_run = nested(first.run.config, "sample")
    return SamplerSettings(**chosen_sampler(first.info.model, of_run, given))


def training_prompts(
    config: EvalConfig, checkpoints: Sequence[EvalCheckpoint]
) -> tuple[Prompt, ...] | None:
    """All prompts that any of the runs was trained on; None if unknown."""
    if config.trained_prompts:
        return load_prompts(config.trained_prompts).prompts
    lists = [checkpoint.run.trained for checkpoint in checkpoints]
    if any(found is None for found in lists):
        return None
    return _distinct(prompt for found in lists for prompt in found or ())


def _best_of(
    config: EvalConfig,
    splits: Sequence[Split],
    checkpoints: Sequence[EvalCheckpoint],
    trained: Sequence[Prompt] | None,
) -> BestOfPlan | None:
    """Best-of-n for some training prompts, by default with the reward queries of the longest run.

    None if it is switched off, or the training prompts or queries are unknown.
    """
    seen = _seen(splits)
    queries = max((checkpoint.facts.queries for checkpoint in checkpoints), default=-1)
    if config.best_of == 0 or not seen or not trained or (config.best_of is None and queries < 1):
        return None
    n = config.best_of or max(1, min(BEST_OF_MOST, round(queries / len(trained))))
    if n < 2:
        return None
    count = min(BEST_OF_PROMPTS, len(seen))
    places = sorted({place * len(seen) // count for place in range(count)})
    return BestOfPlan(tuple(seen[place] for place in places), n, len(trained))


def _seen(splits: Sequence[Split]) -> tuple[Prompt, ...]:
    return _distinct(prompt for split in splits if split.role == "seen" for prompt in split.prompts)


def _distinct(prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
    return tuple({prompt.id: prompt for prompt in prompts}.values())


def default_out(compared: Sequence[EvalCheckpoint]) -> Path:
    """A folder inside the run of a single checkpoint, otherwise a folder named after the models."""
    info = compared[0].info
    if len(compared) == 1 and info.run is not None:
        return info.run / "eval" / info.folder.name
    names = [checkpoint.facts.name for checkpoint in compared]
    title = "-".join(names[:3])
    if len(names) > 3:
        title += f"-and-{len(names) - 3}-more"
    return Path("evaluations") / title.replace("/", "_")


def _manifest(checkpoint: EvalCheckpoint) -> dict[str, Any]:
    """The record of a run, without its folder and without the reward, which the report has."""
    run = checkpoint.run
    manifest = {
        name: value for name, value in run.manifest.items() if name not in ("reward", "folder")
    }
    return {"config": dict(run.config), **manifest, "weights": checkpoint.facts.identity}
