"""GRPO for image models: rewards compared in the group, clipped ratios, KL to the reference.

One loss, three ways of sampling: with noise at every step (Flow-GRPO), in a short random window
(Flow-GRPO-Fast) or in a window that moves to less noise (MixGRPO).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ddpo.trainer.algorithms.ddpo_is import DdpoIs
from ddpo.trainer.recipe import merged

__all__ = ["FLOW_GRPO", "GRPO", "GRPO_FAST", "MIX_GRPO", "Grpo"]

FLOW_GRPO: Final[Mapping[str, Any]] = {
    "sample": {"samples": 48 * 24, "per_prompt": 24},
    "optim": {
        "updates": 2,
        "timesteps": 0,
        "skip_last": 1,  # int(0.99 · steps) are trained
        "kl": 0.04,  # of GenEval and OCR; 0.01 for PickScore
        "kl_of": "time",
        "ema": 0.9,
        "ema_every": 8,
    },
    "advantage": {"kind": "group", "std": "iteration", "clip": 5.0},
}
"""Settings of Stable Diffusion 3.5 medium.

Sources: yifan123/flow_grpo, config/grpo.py (groups, updates, timestep_fraction, beta);
stat_tracking.py (global_std); train_sd3.py (clip of advantages, KL); ema.py.
"""

FAST: Final[Mapping[str, Any]] = merged(
    FLOW_GRPO, {"optim": {"kl": 0.0}, "window": {"steps": 2, "kind": "random", "within": 0.5}}
)
"""Settings of the fast variant.

Source: yifan123/flow_grpo, config/grpo.py (beta 0) and sd3_pipeline_with_logprob_fast.py (width 2
in the first half of the steps; width 3 without guidance).
"""

MIXED: Final[Mapping[str, Any]] = {
    "sample": {"samples": 32 * 12, "per_prompt": 12, "branches": 12},
    "optim": {"updates": 4, "timesteps": 0, "skip_last": 1},
    "advantage": {"kind": "group", "std": "group", "clip": 5.0},
    "window": {"steps": 4, "kind": "progressive", "every": 25, "stride": 1},
}
"""Settings of FLUX.1 on 32 GPUs.

Source: Tencent-Hunyuan/MixGRPO, finetune_flux_grpo_MixGRPO.sh (num_generations, init_same_noise,
gradient_accumulation_steps, group_size, iters_per_group, prog_overlap_step, ignore_last).
"""


@dataclass(frozen=True, slots=True)
class Grpo(DdpoIs):
    """Group relative policy optimisation on denoising steps: the loss of DDPO-IS, other defaults.

    Sources: Liu et al., Flow-GRPO, arXiv 2505.05470; Shao et al., arXiv 2402.03300, section 4.1.
    """


GRPO = Grpo("Flow-GRPO: group mean, std of all rewards, KL, average of the weights", FLOW_GRPO)
GRPO_FAST = Grpo("Flow-GRPO-Fast: noise and training at two random steps of each prompt", FAST)
MIX_GRPO = Grpo("MixGRPO: noise and training in a window that moves to less noise", MIXED)
