"""Advice on further evidence, from the plan of an evaluation and this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ddpo.eval.analysis.hacking import HackingAssessment
from ddpo.eval.analysis.people import People
from ddpo.eval.command import quoted
from ddpo.eval.inputs.held_out import choose_held_out
from ddpo.eval.plan import Plan
from ddpo.eval.report.advice import CHECKPOINTS, Advice, Circumstances, advise
from ddpo.policies.checkpoints.folder import checkpoint_folders
from ddpo.rewards.card import RewardCard
from ddpo.rewards.tools.availability import availability
from ddpo.rewards.zoo import rewards

__all__ = ["plan_advice"]

ALWAYS: Final = ("reward", "prompts", "model")
LEFT_OUT: Final = ("checkpoint_every", "low_memory", "device")
"""Settings that the command has otherwise, or that belong to the machine."""
OPTIONS: Final = {
    "reward": "--reward",
    "prompts": "--prompts",
    "prompt_limit": "--limit",
    "model": "--model",
    "algorithm": "--algorithm",
    "iterations": "--iterations",
    "seed": "--seed",
    "held_out": "--held-out",
    "stop_when": "--stop-when",
}
"""Setting → option of `ddpo train`."""


def plan_advice(
    plan: Plan, assessments: Sequence[HackingAssessment], people: People | None
) -> tuple[Advice, ...]:
    """The advice on every compared model.

    Args:
        plan: plan of the evaluation.
        assessments: graded evidence about each compared model.
        people: people's choices; None if nobody judged the images.
    """
    facts = Circumstances(
        config=plan.config,
        earlier=_earlier(plan),
        offers=_offers(plan),
        has_training_prompts=bool(plan.seen),
        prompts=max((len(split.prompts) for split in plan.splits), default=0),
        judged=frozenset(one.model for one in people.wins) if people else frozenset(),
        trainings=dict(_trainings(plan)),
    )
    models = {model.name: model for model in plan.models}
    return tuple(advice for one in assessments for advice in advise(models[one.model], one, facts))


def _earlier(plan: Plan) -> dict[str, int]:
    """Model → number of earlier checkpoints in its run folder."""
    found = {}
    for one in plan.checkpoints:
        if not one.facts.history and one.info.run is not None:
            folders = checkpoint_folders(one.info.run / "checkpoints")
            found[one.facts.name] = sum(folder.name < one.info.folder.name for folder in folders)
    return found


def _trainings(plan: Plan) -> Iterator[tuple[str, str]]:
    """Model and the command of its training with more checkpoints, of each run of two iterations.

    The command has the settings that the user gave; other settings have their sources still.
    """
    for one in plan.checkpoints:
        config = one.run.config
        iterations = int(config.get("iterations", 0))
        if one.facts.history or iterations < 2:
            continue
        every = max(1, iterations // (CHECKPOINTS + 1))
        words = ["ddpo", "train"]
        for name, value in _given(config):
            option = OPTIONS.get(name)
            words += [option, value] if option else ["--set", f"{name}={value}"]
        yield one.facts.name, quoted([*words, "--set", f"checkpoint_every={every}"])


def _given(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of the settings of a run that its user gave, and of its reward and model."""
    sources = config.get("sources", {})
    for name in dict.fromkeys([*ALWAYS, *sources]):
        source = sources.get(name, "")
        if name in LEFT_OUT or not (name in ALWAYS or source.startswith("--") or source == "given"):
            continue
        value: Any = config
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            yield name, value if isinstance(value, str) else json.dumps(value)


def _offers(plan: Plan) -> list[str]:
    """Independent rewards of which only the weights are missing here, the smallest first."""
    cards = [one.resolved.card for one in plan.rewards]
    chosen = choose_held_out(cards, available=_lacks_weights_alone, most=len(cards) + 100)
    known = rewards.available()[0]
    return sorted((one.id for one in chosen), key=lambda id: _megabytes(known[id]))


def _lacks_weights_alone(card: RewardCard) -> bool:
    found = availability(card, rewards.origin(card.id))
    return not found.missing_libraries and not found.complete


def _megabytes(card: RewardCard) -> float:
    return sum(weight.megabytes for weight in card.weights)
