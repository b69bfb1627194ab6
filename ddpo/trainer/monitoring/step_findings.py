"""Findings before the first iteration about the denoising steps: their weight, noise and clipping.

b² / k² of a step is the weight of a change of the denoiser's output in its log-prob. Where it
differs a thousandfold, one clip range cannot suit all steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ddpo.policies.flow_schedule import FlowSchedule
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import schedule_of
from ddpo.policies.schedule import StepCoefficients
from ddpo.text import count
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.monitoring.clip_fraction import USUAL_SOURCE, usual_text
from ddpo.trainer.monitoring.events import Finding

__all__ = ["step_findings"]

SHOWN: Final = 10  # steps whose weight is shown
NOISY: Final = ("flow_sde", "dance_sde")
MOST_DISTILLED: Final = 0.3
"""Highest noise level at which guidance-distilled models are known to train well.

0.7 destroyed one and 0.2 worked (Tencent-Hunyuan/UniRL pull request 347). DanceGRPO trains FLUX.1
at 0.3 (XueZeyue/DanceGRPO, finetune_flux_grpo.sh).
"""


def step_findings(
    policy: Policy, config: TrainConfig, coefficients: StepCoefficients
) -> list[Finding]:
    """The weight of each step, its noise, its window, and the range that clips its ratio.

    Args:
        policy: the policy, adapted.
        config: settings of the run.
        coefficients: coefficients of the sampler's steps.
    """
    found = [_weights(config, coefficients), *_too_much_noise(policy, config)]
    if config.window.steps:
        found.append(_window(config))
    if config.optim.updates * config.optim.epochs > 1:
        found.append(_clipping(config))
    return found


def _weights(config: TrainConfig, coefficients: StepCoefficients) -> Finding:
    """The weights b² / k² of the steps, and how far those of trained steps differ."""
    b = coefficients.b.cpu().double()
    weights: list[float] = (b / coefficients.std.cpu().double()).square().tolist()
    last = len(weights) - 1
    shown = sorted({round(place * last / (SHOWN - 1)) for place in range(SHOWN)})
    if last < SHOWN:
        shown = list(range(last + 1))
    text = " ".join(_short(weights[step]) for step in shown)
    which = "by step" if len(shown) == len(weights) else f"at steps {_numbers(shown)}"
    trained = _trained(config)
    own = [weights[step] for step in trained]
    apart = f"{_short(max(own) / min(own))}-fold" if min(own) > 0 else "without bound"
    return Finding(
        "steps",
        f"b²/k² {which}, the weight of the output in the log-prob: {text}; "
        f"the trained steps {trained[0]} to {trained[-1]} differ {apart}",
    )


def _trained(config: TrainConfig) -> Sequence[int]:
    """The steps that may be trained."""
    if config.window.steps:
        return config.window_range
    return range(config.optim.skip_first, config.sample.steps - config.optim.skip_last)


def _too_much_noise(policy: Policy, config: TrainConfig) -> list[Finding]:
    """A warning for a guidance-distilled flow model with much noise; else nothing."""
    schedule = schedule_of(policy, config.sample)
    distilled = getattr(policy, "guidance_distilled", False)
    if not distilled or not isinstance(schedule, FlowSchedule) or schedule.step not in NOISY:
        return []
    if config.sample.eta <= MOST_DISTILLED:
        return []
    text = (
        f"sample.eta={config.sample.eta:g} is much noise for a guidance-distilled model: 0.7 "
        "destroyed one where 0.2 worked (Tencent-Hunyuan/UniRL pull request 347), and 0.9 trained "
        "FLUX.1-dev (Flow-GRPO); look at the first image grid"
    )
    return [Finding("noise", text, good=False)]


def _window(config: TrainConfig) -> Finding:
    """The window in words."""
    window = config.window
    room = config.window_range
    where = {
        "random": "consecutive, at random for each prompt",
        "scattered": "at random for each prompt",
        "progressive": f"consecutive, moving by {window.stride} every "
        f"{count(window.every, 'iteration')}",
    }[window.kind]
    return Finding(
        "window",
        f"{count(window.steps, 'step')} of {room.start} to {room.stop - 1} with noise and "
        f"training, {where}, the same for all images of a prompt; the other steps are "
        "deterministic (eta 0)",
    )


def _clipping(config: TrainConfig) -> Finding:
    """The clip range, and the clip fraction that works."""
    clip_range = config.optim.clip_range
    text = "no clip range" if math.isinf(clip_range) else f"range {clip_range:g}"
    return Finding("clip", f"{text}; {usual_text()} of the items beyond it {USUAL_SOURCE}")


def _short(number: float) -> str:
    """A positive number in two digits, or as a whole one."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def _numbers(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))
