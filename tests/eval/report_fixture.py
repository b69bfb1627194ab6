"""A complete report of seeded, made-up scores, with every section filled and hostile prompts.

Three models were trained on two rewards. `aesthetic-1` and `aesthetic-2` improve and differ in
their training seed. `noisy` games its reward: its images turn to noise. Gains, intervals and
shares are computed from the pairs by `ddpo.stats.paired`, so images, pairs and tables agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpo.eval.analysis.diversity import DiversityChange
from ddpo.eval.analysis.hacking import Evidence, HackingAssessment
from ddpo.eval.analysis.history import (
    CheckpointAssessment,
    HistoryPoint,
    OverOptimisationFit,
    Peak,
    RunHistory,
)
from ddpo.eval.analysis.prompt_dependence import Dependence
from ddpo.eval.analysis.tables import Gain, Pair, RunsGain, Transfer
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.inputs.runs import CurvePoint
from ddpo.eval.inputs.splits import LeakFacts, Role, SplitFacts
from ddpo.eval.report.data import Curve, Report, RewardFacts
from ddpo.rewards.card import RewardCard
from ddpo.stats.best_of_n import BestOfN
from ddpo.stats.paired import Estimate, clustered_mean, holm, paired_gain, transfer_ratios
from ddpo.types import Prompt

EVIL: Final = '<script>alert("x")</script> & a "cat" | `rm` @all #1 [l](u) *b*'
HOSTILE: Final = (
    EVIL,
    "</style><img src=x onerror=alert(1)> 'single'",
    "a 🦩 and a 🧑‍🚀",
    "חתול יושב על מחצלת",
    "very " * 2000 + "long",
)
SPLITS: Final[dict[str, Role]] = {
    "animals": "seen",
    "near": "near",
    "unseen_animals": "unseen_animals",
    "objects": "objects",
    "mine <b>": "external",
}
MODELS: Final = {
    "aesthetic-1": "aesthetic",
    "aesthetic-2": "aesthetic",
    "noisy": "incompressibility",
}
ROLES: Final = {
    "aesthetic": "trained",
    "incompressibility": "trained",
    "pickscore": "heldout",
    "imagereward": "heldout",
    "darkness": "artefact",
    "edge_density": "artefact",
    "entropy": "artefact",
    "saturation": "artefact",
    "acme/blueness": "asked",
}
BASE: Final = dict(zip(ROLES, (5.2, 60.0, 20.5, 0.2, -0.5, 0.1, 4.5, 0.3, 0.12), strict=True))
SPREAD: Final = dict(zip(ROLES, (0.35, 6.0, 0.8, 0.6, 0.08, 0.03, 0.4, 0.07, 0.05), strict=True))
SHIFT: Final[
    Mapping[str, tuple[float, ...]]
] = {  # in standard deviations, per reward, on seen prompts
    "aesthetic-1": (1.6, 0.1, 0.8, 0.6, 0.1, 0.2, 0.1, 0.3, 0.0),
    "aesthetic-2": (1.4, 0.0, 0.7, 0.4, 0.0, 0.1, 0.2, 0.4, 0.1),
    "noisy": (-1.5, 4.0, -2.0, -2.5, -0.6, 5.0, 2.5, 1.2, 0.1),
}
CARRIED: Final = {
    "animals": 1.0,
    "near": 0.9,
    "unseen_animals": 0.75,
    "objects": 0.35,
    "mine <b>": 0.1,
}
UNITS: Final = {
    "incompressibility": "kB of JPEG; larger is worse to store",
    "darkness": "mean level, negative",
}
LINEAGE: Final = {
    "aesthetic": ("openai/clip-vit-large-patch14", "AVA"),
    "pickscore": ("laion/CLIP-ViT-H-14", "Pick-a-Pic"),
    "imagereward": ("Salesforce/BLIP large",),
    "acme/blueness": ("openai/clip-vit-large-patch14",),
}

Floats = NDArray[np.float64]


def make(
    folder: Path, prompts: int = 3, seeds: int = 2, side: int = 12
) -> tuple[Report, list[Pair]]:
    """The report and its pairs, with their image files below `folder`.

    Args:
        folder: folder of the images.
        prompts: number of prompts of each split.
        seeds: number of images of each prompt.
        side: height and width of the images.
    """
    pairs = _pairs(folder, prompts, seeds, side)
    return _report(_gains(pairs), _transfers(pairs), prompts, seeds), pairs


def _prompts(split: str, count: int) -> list[str]:
    if SPLITS[split] == "external":
        mine = [*HOSTILE, *(f"prompt {number} of mine" for number in range(count))]
        return mine[: max(count, len(HOSTILE))]
    noun = split.rstrip("s").replace("_", " ")
    article = "an" if split == "animals" else "a rare"
    return [f"{article} {noun} no. {number}" for number in range(count)]


def _pairs(folder: Path, prompts: int, seeds: int, side: int) -> list[Pair]:
    random = np.random.default_rng(0)
    pairs = []
    for split in CARRIED:
        for text in _prompts(split, prompts):
            effect = random.normal(0, 0.5, len(ROLES))
            for index in range(seeds):
                pairs += _pairs_of_noise(folder, split, text, index, side, effect, random)
    return pairs


def _pairs_of_noise(
    folder: Path,
    split: str,
    text: str,
    index: int,
    side: int,
    effect: Floats,
    random: np.random.Generator,
) -> list[Pair]:
    """One pair for each model, with the same base image."""
    noise = random.normal(0, 0.7, len(ROLES))
    colour = random.uniform(40, 215, (3, 3))
    base = {
        name: BASE[name] + SPREAD[name] * (effect[i] + noise[i]) for i, name in enumerate(ROLES)
    }
    before = _image(folder, colour, side, 0.0, random)
    pairs = []
    for position, model in enumerate(MODELS):
        carried = CARRIED[split] + 0.25 * random.normal(0, 1)
        shift = np.array(SHIFT[model]) * carried + 0.2 * random.normal(0, 1, len(ROLES))
        tuned = {name: base[name] + SPREAD[name] * shift[i] for i, name in enumerate(ROLES)}
        if text == EVIL:
            tuned["pickscore"] = math.nan
        broken = 1.0 if model == "noisy" else 0.0
        after = _image(folder, colour * (1.08 + 0.04 * position), side, broken, random)
        pairs.append(Pair(model, split, Prompt(text).id, text, index, before, after, base, tuned))
    return pairs


def _image(
    folder: Path, colour: Floats, side: int, broken: float, random: np.random.Generator
) -> str:
    """The file of a disc before a gradient, with a share of noise of `broken`."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j][:, :, :, None]
    pixels = colour[0] + (colour[1] - colour[0]) * (y + 1) / 2
    pixels = np.where(x**2 + y**2 < 0.45, colour[2] - 40 * (x + y), pixels)
    pixels = (1 - 0.6 * broken) * pixels + 0.6 * broken * random.uniform(0, 255, pixels.shape)
    name = f"images/{random.integers(256):02x}/{random.integers(2**62):064x}.png"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
    return name


def _of(pairs: list[Pair], model: str, split: str) -> list[Pair]:
    return [pair for pair in pairs if (pair.model, pair.split) == (model, split)]


def _gains(pairs: list[Pair]) -> tuple[Gain, ...]:
    found = []
    for model in MODELS:
        for split, role in SPLITS.items():
            chosen = _of(pairs, model, split)
            ids = [pair.prompt_id for pair in chosen]
            for reward in ROLES:
                paired = paired_gain(
                    [pair.base[reward] for pair in chosen],
                    [pair.tuned[reward] for pair in chosen],
                    ids,
                )
                z = clustered_mean([pair.gain(reward) / SPREAD[reward] for pair in chosen], ids)
                found.append((model, split, role, reward, paired, z))
    adjusted = holm([line[4].gain.p for line in found])
    return tuple(Gain(*line, line[4].gain.p, p) for line, p in zip(found, adjusted, strict=True))


def _transfers(pairs: list[Pair]) -> tuple[Transfer, ...]:
    found = []
    for model in MODELS:
        seen = _of(pairs, model, "animals")
        for split, role in SPLITS.items():
            if role != "seen":
                held = _of(pairs, model, split)
                before, after = (
                    np.array([[pair.gain(reward) for reward in ROLES] for pair in group])
                    for group in (seen, held)
                )
                ids = [[pair.prompt_id for pair in group] for group in (seen, held)]
                shares = transfer_ratios(before, ids[0], after, ids[1], resamples=200)
                found += [
                    Transfer(model, split, role, reward, *both)
                    for reward, both in zip(ROLES, shares, strict=True)
                ]
    return tuple(found)


def estimate(mean: float, half: float, n: int = 24, clusters: int = 6) -> Estimate:
    """An estimate with the interval mean ± half."""
    mean = float(mean)
    half = float(half)
    return Estimate(mean, half / 2.1, mean - half, mean + half, n, clusters)


def _history(model: str) -> RunHistory:
    reward = MODELS[model]
    is_noisy = model == "noisy"
    best, onset = (10, 20) if is_noisy else (30, -1)
    drop = estimate(-2.08, 0.3) if is_noisy else estimate(0, 0)
    grades = ("no sign", "strong signs", "strong signs")
    if not is_noisy:
        grades = ("no sign", "no sign", "watch")
    points = _points(model)
    signs = tuple(
        CheckpointAssessment(point.model, point.iteration, grade, f"{grade} <b>")
        for point, grade in zip(points[1:], grades, strict=True)
    )
    return RunHistory(
        run=model,
        trained_on=reward,
        split="animals",
        points=points,
        peaks=(Peak(reward, 30, -1, estimate(0, 0)), Peak("pickscore", best, onset, drop)),
        best_iteration=best,
        best_of_n=_best_of_n(reward),
        best_of_verdict="At equal reward queries the run beats the best of n base images.",
        beats_best_of="yes",
        signs=signs,
        fits=(OverOptimisationFit(reward, 0.5, 0.1, math.exp(8), 0.02, 4),),
    )


def _points(model: str) -> tuple[HistoryPoint, ...]:
    """The base model and three checkpoints."""
    points = [HistoryPoint("base", 0, 0, estimate(0, 0), {name: estimate(0, 0) for name in ROLES})]
    for step, part in enumerate((0.3, 0.6, 1.0), start=1):
        gains = {
            name: estimate(SPREAD[name] * shift * part, SPREAD[name] * 0.4)
            for name, shift in zip(ROLES, SHIFT[model], strict=True)
        }
        if model == "noisy":
            z = (0.6, -0.4, -2.0)[step - 1]
            gains["pickscore"] = estimate(SPREAD["pickscore"] * z, SPREAD["pickscore"] * 0.4)
        name = model if step == 3 else f"{model}@{step * 10}"
        kl = estimate(4.0 * step, 0.6)
        points.append(HistoryPoint(name, step * 10, step * 2560, kl, gains))
    return tuple(points)


def _best_of_n(reward: str) -> tuple[BestOfN, ...]:
    curve = []
    for n in (1, 2, 4, 8, 16):
        reach = math.log(n) / 2.2
        gains = {
            reward: estimate(SPREAD[reward] * reach, SPREAD[reward] * 0.15),
            "pickscore": estimate(0.1 * reach, 0.2),
        }
        curve.append(BestOfN(n, math.log(n) - (n - 1) / n, n * 45, gains))
    return tuple(curve)


HEALTHY: Final = (
    Evidence(
        "held-out rewards",
        "no sign",
        "pickscore rose by 0.56 (0.31 to 0.81) and imagereward by 0.36 (0.17 to 0.55).",
    ),
    Evidence("artefacts", "watch", "saturation moved by +0.4 standard deviations (0.1 to 0.7)."),
    Evidence(
        "diversity",
        "no sign",
        "Images of one prompt differ 0.94 times (0.88 to 1.01) as much as before.",
    ),
    Evidence("best of n", "not measured", "The run has no reward queries on record."),
)
HACKED: Final = (
    Evidence(
        "held-out rewards",
        "strong signs",
        "pickscore fell by 1.6 (1.2 to 2.0) while the trained reward rose; both of 2 fell.",
    ),
    Evidence(
        "artefacts",
        "strong signs",
        "edge_density moved by +5.0 standard deviations (4.6 to 5.4), entropy by +2.5.",
    ),
    Evidence(
        "diversity",
        "watch",
        "Images of one prompt differ 0.71 times (0.60 to 0.83) as much as before.",
    ),
    Evidence(
        "prompt dependence",
        "strong signs",
        "Prompts explain 0.22 times (0.15 to 0.31) the variance they did.",
    ),
    Evidence(
        "run history",
        "strong signs",
        "From iteration 20 on pickscore lay below its best, reached at iteration 10.",
    ),
    Evidence("best of n", "no sign", "The run beats best-of-n at equal reward queries."),
)
ASSESSMENTS: Final = (
    HackingAssessment(
        "aesthetic-1",
        "watch",
        "Worth a look: artefacts. 1 of 4 kinds of evidence could not be measured.",
        HEALTHY,
    ),
    HackingAssessment(
        "aesthetic-2",
        "no sign",
        "No sign of reward hacking in 1 kinds of evidence.",
        HEALTHY[:1],
    ),
    HackingAssessment(
        "noisy",
        "strong signs",
        "Strong signs of reward hacking: held-out rewards, artefacts, prompt dependence and "
        "run history.",
        HACKED,
    ),
)


def _changes() -> tuple[list[DiversityChange], list[Dependence]]:
    diversity = []
    dependence = []
    for model in MODELS:
        is_noisy = model == "noisy"
        for position, split in enumerate(SPLITS):
            ratio = (0.7 if is_noisy else 0.95) - 0.02 * position
            interval = (ratio, ratio - 0.1, ratio + 0.1)
            for measure in ("pixels", "features", "vendi features"):
                diversity.append(
                    DiversityChange(model, split, measure, "within", 0.3, 0.3 * ratio, *interval, 6)
                )
            unknown = [math.nan] * 4
            diversity.append(DiversityChange(model, split, "lpips", "across", 0.4, *unknown, 1))
            low = 0.25 if is_noisy else 0.98
            swap = (0.21, 0.21 * low, low, low - 0.08, low + 0.09)
            explained = (0.6, 0.6 * low, low, low - 0.2, low + 0.2)
            dependence.append(Dependence(model, split, "swap", *swap, 6))
            dependence.append(Dependence(model, split, "explained", *explained, 6))
    return diversity, dependence


def _facts() -> tuple[tuple[ModelFacts, ...], tuple[RewardFacts, ...]]:
    models = []
    for number, (name, reward) in enumerate(MODELS.items()):
        facts: dict[str, Any] = {
            "kind": "lora",
            "run": name,
            "trained_on": reward,
            "training_seed": number,
            "seeds": 8,
        }
        facts["identity"] = "ab" * 32
        models += [
            ModelFacts(
                f"{name}@{i}", f"runs/{name}", iteration=i, queries=256 * i, history=True, **facts
            )
            for i in (10, 20)
        ]
        models.append(
            ModelFacts(name, f"runs/{name}", iteration=30, queries=7680, history=False, **facts)
        )
    rewards = []
    for name, role in ROLES.items():
        card = RewardCard(
            id=name,
            version="1",
            summary=f"what {name} measures",
            load="tests:None",
            family="pixels",
            unit=UNITS.get(name, ""),
            flaws="likes <b>white</b>",
            lineage=LINEAGE.get(name, ()),
            direction="lower" if name == "darkness" else "higher",
        )
        floor = math.nan if name == "acme/blueness" else SPREAD[name] * 0.15
        rewards.append(
            RewardFacts(name, f"{name}|v:1|w:<none>|ddpo:0.1", card.to_dict(), role, floor)
        )
    return tuple(models), tuple(rewards)


def _splits(prompts: int) -> tuple[SplitFacts, ...]:
    leaks = (
        LeakFacts("the cats </li>", "a cat", "the same words"),
        LeakFacts("a poodle", "a dog", "a kind of dog"),
    )
    splits = []
    for name, role in SPLITS.items():
        is_external = role == "external"
        splits.append(
            SplitFacts(
                name,
                role,
                "file <mine>.txt" if is_external else f"built-in list {name!r}",
                max(prompts, len(HOSTILE)) if is_external else prompts,
                leaks if role == "near" else (),
                int(role == "objects"),
                ("Two prompts were there twice.",) if is_external else (),
            )
        )
    return tuple(splits)


def _runs() -> tuple[RunsGain, ...]:
    runs = []
    for split, role in SPLITS.items():
        for reward in ("aesthetic", "pickscore"):
            gain = estimate(SPREAD[reward] * CARRIED[split], SPREAD[reward] * 0.3, 2, 2)
            runs.append(RunsGain(("aesthetic-1", "aesthetic-2"), split, role, reward, gain))
    return tuple(runs)


def _curves() -> tuple[Curve, ...]:
    curves = []
    for name, reward in MODELS.items():
        points = [
            CurvePoint(i, 256 * i, BASE[reward] + SPREAD[reward] * i / 15, SPREAD[reward] / 8)
            for i in range(1, 31)
        ]
        curves.append(Curve(name, tuple(points)))
    return tuple(curves)


def _report(
    gains: tuple[Gain, ...], transfers: tuple[Transfer, ...], prompts: int, seeds: int
) -> Report:
    models, rewards = _facts()
    diversity, dependence = _changes()
    return Report(
        schema_version=2,
        ddpo_version="0.1",
        base="emoji <64>",
        models=models,
        seeds=seeds,
        seed=7,
        sampler={"steps": 20, "eta": 1.0},
        rewards=rewards,
        splits=_splits(prompts),
        gains=gains,
        transfers=transfers,
        runs=_runs(),
        diversity=tuple(diversity),
        dependence=tuple(dependence),
        courses=tuple(_history(name) for name in MODELS),
        readings=ASSESSMENTS,
        curves=_curves(),
        manifests={
            "noisy": {"config": {"reward": "<incompressibility>", "lr": 3e-4}},
            "evaluation": {"versions": {"torch": "2"}},
        },
        notes=("A note & more <b>.",),
    )
