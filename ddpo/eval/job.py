"""The evaluation of a checkpoint from end to end: what it was trained on, prompts, rewards, the protocol, the report.

`plan` reads and checks everything that can be wrong before a model is loaded; `carry_out` does the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ddpo.errors import CheckpointError, ConfigError
from ddpo.eval.protocol import ROLES, Observer, Role, Split, evaluate
from ddpo.eval.render.html import render_html
from ddpo.eval.render.markdown import render_markdown
from ddpo.eval.report import LeakFacts, Report, build_report, read_curve, save_report
from ddpo.eval.samples import write_samples
from ddpo.eval.tables import matched_pairs
from ddpo.files import write_text
from ddpo.policies import load_policy
from ddpo.policies.checkpoint import CheckpointInfo, find_checkpoint
from ddpo.policies.sample import SamplerSettings
from ddpo.prompts import PromptSet, find_leaks, load_prompts
from ddpo.rewards.cache import ScoreCache
from ddpo.rewards.scorer import Scorer, make_scorer
from ddpo.rewards.zoo import ResolvedReward, resolve
from ddpo.types import Prompt

__all__ = ["DEFAULT_PROMPTS", "EVAL_SEED", "Outcome", "Plan", "Request", "carry_out", "plan"]

DEFAULT_PROMPTS: Final = ("animals", "unseen_animals", "objects")
DEFAULT_SEEDS: Final = 4
EVAL_SEED: Final = 1_000_003  # noise that no training run with an ordinary seed has seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for; None and () stand for the defaults, which come from the run."""

    checkpoint: Path
    prompts: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    seeds: int = DEFAULT_SEEDS
    seed: int = EVAL_SEED
    steps: int | None = None
    guidance: float | None = None
    eta: float | None = None
    out: Path | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request: everything is decided, nothing is loaded or written."""

    checkpoint: CheckpointInfo
    name: str  # of the checkpoint, as the user gave it
    splits: tuple[Split, ...]
    sources: Mapping[str, str]  # split name → which file or built-in list
    leaks: Mapping[str, tuple[LeakFacts, ...]]  # split name → prompts that training gives away
    rewards: tuple[ResolvedReward, ...]
    trained_on: str  # id of the run's reward, "" if unknown
    sampler: SamplerSettings
    seeds: int
    seed: int
    device: str
    dtype: str
    out: Path
    manifest: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def pictures(self) -> int:
        """How many pictures have to be sampled in all, base and tuned."""
        return 2 * self.seeds * sum(len(split.prompts) for split in self.splits)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report and its files."""

    report: Report
    html: Path
    json: Path
    samples: Path


def plan(request: Request) -> Plan:
    """Decides everything that `request` leaves open and checks it.

    Raises:
        CheckpointError: no checkpoint there, or the run's files are damaged.
        PromptError: a prompt list that cannot be read.
        UnknownNameError, RewardLoadError: a reward that cannot be found.
        ConfigError: a setting out of range, or no reward is known.
    """
    info = find_checkpoint(request.checkpoint)
    config, manifest = _read(info.run, "config.json"), _read(info.run, "manifest.json")
    trained_on = str(_at(manifest, "reward", "card").get("id", ""))
    specs = request.rewards or ((str(config["reward"]),) if "reward" in config else ())
    if not specs:
        raise ConfigError(f"{request.checkpoint} does not lie in a run folder, so its reward is not known: give --reward")
    rewards = _of_single_pictures([resolve(spec) for spec in specs])
    trained = _trained_prompts(config, manifest)
    sets = [load_prompts(name) for name in request.prompts or DEFAULT_PROMPTS]
    splits = tuple(Split(found.name, _role(found, trained), found.prompts) for found in sets)
    leaks = {split.name: _leaks(trained, split) for split in splits if split.role != "seen"}
    sample = {**_at(config, "sample"), **{k: v for k in ("steps", "guidance", "eta") if (v := getattr(request, k)) is not None}}
    sampler = SamplerSettings(**{name: sample[name] for name in ("steps", "guidance", "eta", "batch") if name in sample})
    return Plan(
        checkpoint=info,
        name=str(request.checkpoint),
        splits=splits,
        sources={found.name: found.source for found in sets},
        leaks=leaks,
        rewards=rewards,
        trained_on=trained_on,
        sampler=sampler,
        seeds=request.seeds,
        seed=request.seed,
        device=request.device or str(config.get("device", "cpu")),
        dtype=str(config.get("dtype", "float32")),
        out=request.out or (info.run / "eval" / info.folder.name if info.run else request.checkpoint / "eval"),
        manifest={"config": config, **{name: value for name, value in manifest.items() if name != "reward"}},
        notes=tuple(_notes(trained, rewards, manifest)),
    )


def carry_out(work: Plan, observe: Observer | None = None) -> Outcome:
    """Samples, scores and writes `report.html`, `.md` and `.json`, `samples.parquet` and `images/`.

    Interrupted, it goes on when called again.

    Raises:
        RunExistsError: the folder holds pictures of another evaluation.
        MissingResourceError: the base model, or a reward's weights, are not here.
        RewardFailure: a reward broke while scoring; the pictures are kept.
    """
    with ScoreCache() as cache, ExitStack() as stack:
        scorers = [make_scorer(reward, cache=cache) for reward in work.rewards]
        for scorer in scorers:
            stack.callback(scorer.close)
        return _carried_out(work, scorers, observe)


def _carried_out(work: Plan, scorers: Sequence[Scorer], observe: Observer | None) -> Outcome:
    info = work.checkpoint
    policy = load_policy(info.model, info.folder, device=work.device, dtype=work.dtype)
    identity = {"model": info.model, "iteration": info.iteration, "weights": _weights_hash(info.folder), "dtype": work.dtype}
    evaluation = evaluate(
        policy, work.splits, scorers, seeds=work.seeds, sampler=work.sampler, seed=work.seed, observe=observe, out=work.out,
        identity=identity, signatures={reward.card.id: reward.signature for reward in work.rewards},
    )  # fmt: skip
    pairs = matched_pairs(evaluation.rows)
    report = build_report(
        evaluation, pairs, model=info.model, checkpoint=work.name, kind=info.kind, iteration=info.iteration, trained_on=work.trained_on,
        sources=work.sources, leaks=work.leaks, curve=read_curve(info.run / "metrics.jsonl") if info.run else (),
        manifest={**work.manifest, "checkpoint": identity}, notes=work.notes,
    )  # fmt: skip
    outcome = Outcome(report, work.out / "report.html", work.out / "report.json", work.out / "samples.parquet")
    write_samples(outcome.samples, evaluation.rows, run=info.run.name if info.run else "", checkpoint=info.folder.name)
    save_report(outcome.json, report)
    write_text(work.out / "report.md", render_markdown(report))
    write_text(outcome.html, render_html(report, pairs, work.out))
    return outcome


def _of_single_pictures(found: Sequence[ResolvedReward]) -> tuple[ResolvedReward, ...]:
    """The rewards; in place of one that judges a group, whose scores mean nothing between two models, its parts that judge pictures."""
    chosen = {reward.card.id: reward for one in found for reward in _singles(one)}
    if not chosen:
        names = ", ".join(repr(reward.card.id) for reward in found)
        raise ConfigError(f"reward {names} judges pictures as a group and cannot compare two models: give --reward")
    return tuple(chosen.values())


def _singles(reward: ResolvedReward) -> list[ResolvedReward]:
    if "group" not in reward.card.inputs:
        return [reward]
    return [single for part in reward.parts for single in _singles(part.reward)]


def _read(run: Path | None, name: str) -> dict[str, Any]:
    """A JSON object of the run folder; empty if there is none."""
    if run is None or not (run / name).is_file():
        return {}
    try:
        values = json.loads((run / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{run / name} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{run / name} is damaged: not a JSON object")
    return values


def _at(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A nested object; empty if it is not there."""
    for key in keys:
        found = values.get(key)
        values = found if isinstance(found, Mapping) else {}
    return dict(values)


def _trained_prompts(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> tuple[Prompt, ...] | None:
    """The prompts of the training: as the manifest lists them, else from the list that the configuration names; None if unknown."""
    listed = _at(manifest, "prompts").get("list")
    if isinstance(listed, list) and listed:
        return tuple(Prompt(str(text)) for text in listed)
    return load_prompts(str(config["prompts"])).prompts if "prompts" in config else None


def _role(found: PromptSet, trained: Sequence[Prompt] | None) -> Role:
    """`seen` if all of it was trained on; a built-in list's own role; else `external`."""
    built_in = found.source.startswith("built-in")
    if trained is None:
        if built_in and found.name == DEFAULT_PROMPTS[0]:
            return "seen"
    elif {prompt.id for prompt in found.prompts} <= {prompt.id for prompt in trained}:
        return "seen"
    return next((role for role in ROLES if built_in and role == found.name), "external")


def _leaks(trained: Sequence[Prompt] | None, split: Split) -> tuple[LeakFacts, ...]:
    return tuple(LeakFacts(leak.heldout.text, leak.train.text, leak.reason) for leak in find_leaks(trained or (), split.prompts))


def _notes(trained: Sequence[Prompt] | None, rewards: Sequence[ResolvedReward], manifest: Mapping[str, Any]) -> list[str]:
    notes = []
    if trained is None:
        notes.append(
            "The prompts of the training are not known: the built-in list of animals is taken for them, and no leaks could be looked for."
        )
    then = _at(manifest, "reward")
    known = (_at(then, "card").get("id"), then.get("signature"))
    notes += [
        f"The reward {reward.card.id} is not quite the one of the training: its signature was {known[1]}, now it is {reward.signature}."
        for reward in rewards
        if reward.card.id == known[0] and known[1] not in (None, reward.signature)
    ]
    return notes


def _weights_hash(folder: Path) -> str:
    """SHA-256 over the checkpoint's weight files in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
