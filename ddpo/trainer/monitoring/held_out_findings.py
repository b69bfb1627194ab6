"""Findings before the first iteration about the held-out reward and early stopping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ddpo.prompts.leaks import find_leaks
from ddpo.rewards.lineage import related, shared_lineage
from ddpo.rewards.scoring.resolve import ResolvedReward, single_rewards
from ddpo.text import shortened
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.events import Finding
from ddpo.types import Prompt

__all__ = ["held_out_findings"]


def held_out_findings(
    config: TrainConfig,
    reward: ResolvedReward,
    training: ResolvedReward,
    prompts: Sequence[Prompt],
    trained: Sequence[Prompt],
) -> list[Finding]:
    """The reasons why the held-out reward says less than it should; none if all is well.

    Args:
        config: settings of the run.
        reward: the held-out reward.
        training: the reward that is trained on.
        prompts: the held-out prompts.
        trained: the prompts of the training.
    """
    reasons = [
        *_relatives(reward, training),
        *_trained_prompts(prompts, trained),
        *_no_stop(config),
    ]
    return [Finding("held-out", reason, good=False) for reason in reasons]


def _relatives(reward: ResolvedReward, training: ResolvedReward) -> Iterator[str]:
    """A line for each held-out reward that shares a model or data with a trained one."""
    for one in single_rewards(reward):
        for other in single_rewards(training):
            if related(one.card, other.card):
                shared = ", ".join(shared_lineage(one.card, other.card)) or one.card.backbone
                yield (
                    f"{one.card.id} shares {shared} with {other.card.id}, which is trained on: "
                    "what games one may fool the other, so it is no independent witness"
                )


def _trained_prompts(prompts: Sequence[Prompt], trained: Sequence[Prompt]) -> Iterator[str]:
    """A line about held-out prompts that are trained on, if there are any."""
    leaks = [leak for leak in find_leaks(trained, prompts) if leak.disguise == "words"]
    if leaks:
        yield (
            f"{len(leaks)} of {len(prompts)} held-out prompts are trained on, such as "
            f"{shortened(leaks[0].heldout.text)!r}: name others with --set held_out_prompts=LIST"
        )


def _no_stop(config: TrainConfig) -> Iterator[str]:
    """A line about early stopping that can only come at the last checkpoint, if that is so."""
    before_the_last = (config.iterations - 1) // config.checkpoint_every
    if config.stop_when != "never" and before_the_last <= config.stop_patience:
        yield (
            f"stop_when = {config.stop_when!r} cannot end this run early: it compares "
            f"{config.stop_patience + 1} checkpoints, and there are {before_the_last} before the "
            "last iteration; lower checkpoint_every or stop_patience"
        )
