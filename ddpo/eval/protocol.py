"""The protocol: base against tuned on the same prompts, seeds and noise, every picture scored by every reward.

Pictures are kept once as PNG, so an interrupted evaluation goes on where it stopped; and what is scored is always the picture
rounded to uint8, so that going on gives the same scores as never having stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpo.errors import ConfigError, ImageError, RunExistsError
from ddpo.files import write_json
from ddpo.images import load_image, save_png
from ddpo.policies.policy import Policy
from ddpo.policies.sample import SampleKey, SamplerSettings, sample_images
from ddpo.rewards.base import Reward
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scorer import Scorer
from ddpo.rewards.signature import signature
from ddpo.types import ImageBatch, Prompt

__all__ = ["ROLES", "EvalProgress", "Evaluation", "Observer", "PolicyName", "Role", "Row", "Split", "evaluate"]

Role = Literal["seen", "near", "unseen_animals", "objects", "activities", "external"]
PolicyName = Literal["base", "tuned"]
ROLES: Final[tuple[Role, ...]] = ("seen", "near", "unseen_animals", "objects", "activities", "external")
POLICIES: Final[tuple[PolicyName, ...]] = ("base", "tuned")
PLAN_FILE: Final = "plan.json"


@dataclass(frozen=True, slots=True)
class Split:
    """A named list of prompts and what it is for: `seen` in training, or held out from it in some way."""

    name: str
    role: Role
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class EvalProgress:
    """One batch of pictures is done."""

    split: str
    policy: PolicyName
    done: int  # pictures of the whole evaluation so far
    total: int
    resumed: int  # of `done`, found on disk


Observer = Callable[[EvalProgress], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One score of one picture. `score` is NaN, with a reason in `error`, where the picture could not be scored."""

    policy: PolicyName
    split: str
    prompt_id: str
    prompt: str
    index: int  # which picture of the prompt; base and tuned with the same index share all noise
    image_sha256: str  # of the decoded pixels, uint8 `[height, width, 3]`
    image: str | None  # file, relative to the output folder; None if pictures were not kept
    reward: str
    signature: str
    score: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was sampled and scored."""

    splits: tuple[Split, ...]
    cards: Mapping[str, RewardCard]  # reward id → card, in the order asked for
    signatures: Mapping[str, str]  # reward id → the line that fixes its scores
    sampler: SamplerSettings
    seeds: int  # pictures per prompt and policy
    seed: int
    rows: tuple[Row, ...]


def evaluate(
    policy: Policy, splits: Sequence[Split], scorers: Sequence[Scorer], *, seeds: int, sampler: SamplerSettings, seed: int,
    observe: Observer | None = None, out: Path | None = None, identity: Mapping[str, Any] | None = None,
    signatures: Mapping[str, str] | None = None,
) -> Evaluation:  # fmt: skip
    """Samples `seeds` pictures per prompt from the reference policy and from the policy as it is, and scores them.

    Args:
        policy: the tuned policy; `policy.reference()` must give the base model.
        splits: prompt lists with distinct names.
        scorers: of rewards with distinct ids.
        seeds: pictures per prompt.
        sampler: how pictures are sampled, the same for both.
        seed: of the noise. Use one that training did not use.
        observe: called after every batch of pictures.
        out: folder under which pictures are kept as `images/<split>/<prompt id>-<index>-<policy>.png`, and found again.
        identity: JSON values that fix the weights of `policy`; pictures in `out` made with others are refused.
        signatures: reward id → the line that fixes its scores, for rewards with options; else the signature of the card.

    Raises:
        ConfigError: nothing to evaluate, or a name twice.
        RunExistsError: `out` holds the pictures of another evaluation.
        RewardFailure: a reward broke while scoring. The pictures are kept.
    """
    rewards = [scorer.reward for scorer in scorers]
    _check(splits, rewards, seeds)
    if out is not None:
        _claim(out / "images", {"seed": seed, "sampler": _density(sampler), **(identity or {})})
    by_id = {scorer.reward.card.id: scorer for scorer in scorers}
    lines = {reward.card.id: signature(reward.card) for reward in rewards} | dict(signatures or {})
    rows: list[Row] = []
    done = resumed = 0
    total = sum(len(split.prompts) for split in splits) * seeds * len(POLICIES)
    for split in splits:
        keys = [SampleKey(prompt, index) for prompt in split.prompts for index in range(seeds)]
        for name in POLICIES:
            for batch, pixels, found in _pictures(policy, name, split, keys, sampler, seed, out):
                done, resumed = done + len(batch), resumed + found
                rows += _score(by_id, lines, batch, pixels, split, name, out is not None)
                if observe is not None:
                    observe(EvalProgress(split.name, name, done, total, resumed))
    cards = {reward.card.id: reward.card for reward in rewards}
    return Evaluation(tuple(splits), cards, lines, sampler, seeds, seed, tuple(rows))


def picture_path(split: str, key: SampleKey, policy: PolicyName) -> str:
    """Where a picture is kept, relative to the output folder."""
    return f"images/{re.sub(r'[^A-Za-z0-9_-]+', '_', split)}/{key.prompt.id}-{key.index}-{policy}.png"


def _density(sampler: SamplerSettings) -> dict[str, Any]:
    """The settings that change pictures; the batch size does not."""
    return {name: value for name, value in asdict(sampler).items() if name != "batch"}


def _check(splits: Sequence[Split], rewards: Sequence[Reward], seeds: int) -> None:
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    if not splits or not rewards:
        raise ConfigError("an evaluation needs at least one prompt list and one reward")
    for kind, names in (("prompt lists", [split.name for split in splits]), ("rewards", [reward.card.id for reward in rewards])):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two {kind} are called {twice!r}: give each its own name")


def _claim(folder: Path, plan: Mapping[str, Any]) -> None:
    """Writes down what fixes the pixels of `folder`, or checks that it is what made the pictures already there."""
    file = folder / PLAN_FILE
    wanted = json.loads(json.dumps(plan))
    if file.is_file():
        try:
            present = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            present = None
        if present != wanted:
            known = present if isinstance(present, dict) else {}
            keys = [key for key in wanted if known.get(key) != wanted[key]]
            raise RunExistsError(
                f"{folder} holds pictures of another evaluation (different {', '.join(keys) or 'plan'}): choose another folder (--out)"
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise RunExistsError(f"{folder} is not empty and was not made by an evaluation: choose another folder (--out)")
    write_json(file, wanted)


def _pictures(
    policy: Policy, name: PolicyName, split: Split, keys: Sequence[SampleKey], sampler: SamplerSettings, seed: int, out: Path | None
) -> Iterator[tuple[Sequence[SampleKey], NDArray[np.uint8], int]]:
    """Keys, pixels uint8 `[batch, height, width, 3]` and how many of them were found on disk, batch by batch."""
    for start in range(0, len(keys), sampler.batch):
        batch = keys[start : start + sampler.batch]
        paths = [None if out is None else out / picture_path(split.name, key, name) for key in batch]
        known = {position: array for position, path in enumerate(paths) if (array := _kept(path)) is not None}
        found, missing = len(known), [position for position in range(len(batch)) if position not in known]
        with policy.reference() if name == "base" else nullcontext():
            sampled = [images.uint8 for images in sample_images(policy, [batch[i] for i in missing], sampler, seed)]
        for position, array in zip(missing, np.concatenate(sampled) if sampled else (), strict=True):
            known[position] = array
            if (path := paths[position]) is not None:
                save_png(Image.fromarray(array), path)
        yield batch, np.stack([known[position] for position in range(len(batch))]), found


def _kept(path: Path | None) -> NDArray[np.uint8] | None:
    """The pixels of a picture that an earlier, interrupted evaluation left whole; None if there is none or it does not decode."""
    if path is None or not path.is_file():
        return None
    try:
        return np.asarray(load_image(path))
    except ImageError:
        return None


def _score(
    scorers: Mapping[str, Scorer], signatures: Mapping[str, str], keys: Sequence[SampleKey], pixels: NDArray[np.uint8],
    split: Split, policy: PolicyName, kept: bool,
) -> list[Row]:  # fmt: skip
    """One row per picture and reward."""
    batch = ImageBatch.of_uint8(pixels, [key.prompt for key in keys])
    hashes = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in pixels]
    rows: list[Row] = []
    for reward, scorer in scorers.items():
        output = scorer.score(batch)
        for key, digest, value, error in zip(keys, hashes, output.values.tolist(), output.errors, strict=True):
            image = picture_path(split.name, key, policy) if kept else None
            row = Row(
                policy, split.name, key.prompt.id, key.prompt.text, key.index, digest, image, reward, signatures[reward], value, error
            )
            rows.append(row)
    return rows
