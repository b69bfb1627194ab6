"""Windows: the few denoising steps that have noise and are trained, shared by a prompt's images.

Outside its window an image takes the deterministic step of the same sampler (η = 0): DDIM's, or the
Euler step of a flow's ODE. That step has no density, so it is never trained. With the same window
for all images of a prompt, their rewards differ by what the trained steps did. With a window for
each image they would also differ by where the noise was.

| kind | the window | source |
|---|---|---|
| `random` | consecutive steps, at random for each prompt and iteration | Flow-GRPO-Fast |
| `scattered` | any steps, at random for each prompt and iteration | Flow-Factory; UniRL |
| `progressive` | consecutive, the same for all; moves to less noise, then starts again | MixGRPO |

Sources: yifan123/flow_grpo, sd3_pipeline_with_logprob_fast.py; X-GenGroup/Flow-Factory, `sde_steps`
and `num_sde_steps`; Tencent-Hunyuan/MixGRPO, finetune_flux_grpo_MixGRPO.sh (`roll_back`). That
windows must be shared: verl-project/verl-omni, docs/contributing/common_pitfalls.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ddpo.errors import ConfigError
from ddpo.trainer.config import TrainConfig

__all__ = ["check_window", "noisy_steps", "window_steps"]

STREAM: Final = 2  # of the random numbers keyed by (seed, stream, iteration, prompt)


def check_window(config: TrainConfig, likelihood: str) -> None:
    """Checks that a window has steps to choose from.

    Raises:
        ConfigError: the algorithm trains on noise levels, not on denoising steps.
    """
    if config.window.steps and likelihood == "denoising":
        raise ConfigError(
            f"{config.algorithm} trains on noise levels, not on denoising steps: "
            f"set window.steps=0 (it is {config.window.steps})"
        )


def window_steps(
    config: TrainConfig, iteration: int, prompt_ids: Sequence[str]
) -> NDArray[np.int64] | None:
    """The steps of each image's window, ascending, int64 `[images, window.steps]`.

    They depend on the seed, the iteration and the prompt alone, so a resumed run and any number of
    processes have the same.

    Args:
        config: settings of the run.
        iteration: 1-based iteration number.
        prompt_ids: prompt id of each image, in hexadecimal digits.

    Returns:
        None if the run has no windows.
    """
    if not config.window.steps:
        return None
    windows = {
        prompt_id: _window(config, iteration, prompt_id) for prompt_id in dict.fromkeys(prompt_ids)
    }
    return np.stack([windows[prompt_id] for prompt_id in prompt_ids])


def noisy_steps(windows: NDArray[np.int64], steps: int) -> NDArray[np.bool_]:
    """True where a step has noise, `[images, steps]`.

    Args:
        windows: steps of each image's window, `[images, window.steps]`.
        steps: number of denoising steps.
    """
    noisy = np.zeros((len(windows), steps), dtype=bool)
    np.put_along_axis(noisy, windows, True, axis=1)
    return noisy


def _window(config: TrainConfig, iteration: int, prompt_id: str) -> NDArray[np.int64]:
    """The steps of one prompt's window, ascending, int64 `[window.steps]`."""
    window = config.window
    room = config.window_range
    places = len(room) - window.steps + 1
    if window.kind == "progressive":
        start = (iteration - 1) // window.every * window.stride % places
        return room.start + start + np.arange(window.steps)
    rng = np.random.default_rng([config.seed, STREAM, iteration, int(prompt_id, 16)])
    if window.kind == "random":
        return room.start + int(rng.integers(places)) + np.arange(window.steps)
    return room.start + np.sort(rng.permutation(len(room))[: window.steps])
