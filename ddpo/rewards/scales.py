"""Divisors by which other projects scale the scores of a reward, to repeat their settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from ddpo.errors import ConfigError
from ddpo.registry import unknown_name

__all__ = ["SCALES", "divisor_of"]

SCALES: Final[Mapping[tuple[str, str], float]] = {
    ("ddpo_pytorch", "compressibility"): 1.0,
    ("ddpo_pytorch", "incompressibility"): 1.0,
    ("ddpo_pytorch", "aesthetic"): 1.0,
    ("ddpo_pytorch", "alignment"): 1.0,
    ("trl", "aesthetic"): 1.0,
    ("flow_grpo", "compressibility"): 500.0,
    ("flow_grpo", "incompressibility"): 1.0,
    ("flow_grpo", "aesthetic"): 1.0,
    ("flow_grpo", "pickscore"): 26.0,
    ("flow_grpo", "imagereward"): 1.0,
    ("flow_grpo", "ocr"): 1.0,
    ("diffusion_nft", "compressibility"): 500.0,
    ("diffusion_nft", "incompressibility"): 1.0,
    ("diffusion_nft", "aesthetic"): 1.0,
    ("diffusion_nft", "pickscore"): 26.0,
    ("diffusion_nft", "imagereward"): 1.0,
    ("diffusion_nft", "hpsv2"): 1.0,
    ("diffusion_nft", "ocr"): 1.0,
    ("flow_factory", "pickscore"): 26.0,
}
"""(project, reward id) → divisor of the reward's own scale in that project.

The own scale of PickScore is logit scale × cosine. `ocr` of flow_grpo and of DiffusionNFT is
undivided, 0 … 1. Both read with PaddleOCR and count otherwise; their count is the part `flow_grpo`
of `ocr`. `hpsv2` of DiffusionNFT is v2.1. The `clipscore` of both is another reward, ViT-L/14 with
the cosine and no prefix.

Source, read in the code: kvablack/ddpo-pytorch 1958463 rewards.py; huggingface/trl v0.22.2
examples/scripts/ddpo.py; yifan123/flow_grpo ac4c86e rewards.py, pickscore_scorer.py,
imagereward_scorer.py and ocr.py; NVlabs/DiffusionNFT 24af555, the same files and hpsv2_scorer.py;
X-GenGroup/Flow-Factory a0b2bc5 rewards/pick_score.py.
"""


def divisor_of(reward: str, scale: str | float) -> float:
    """The divisor of the scores of a reward id.

    Args:
        reward: Id of the reward.
        scale: Project of `SCALES`, or the divisor itself.

    Raises:
        UnknownNameError: `SCALES` does not know the project.
        ConfigError: The project has no such reward, or the divisor is not finite and positive.
    """
    if isinstance(scale, str):
        projects = {project for project, _ in SCALES}
        if scale not in projects:
            raise unknown_name("scale", scale, projects)
        if (scale, reward) not in SCALES:
            known = ", ".join(name for project, name in SCALES if project == scale)
            raise ConfigError(
                f"{scale} has no reward {reward!r} (it has {known}): "
                "give a number, 1 for the reward's own scale"
            )
        return SCALES[scale, reward]
    if isinstance(scale, bool) or not math.isfinite(scale) or scale <= 0:
        raise ConfigError(
            f"scale must be a project's name or a finite number above 0, got {scale!r}"
        )
    return float(scale)
