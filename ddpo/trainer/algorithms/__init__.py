"""The named methods: from rewards to weights, from log-likelihoods to a loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from ddpo.author_errors import author_error_as, author_line
from ddpo.errors import RewardLoadError
from ddpo.registry import Registry
from ddpo.trainer.config import TrainConfig
from ddpo.user_code import find

if TYPE_CHECKING:
    from torch import Tensor

    from ddpo.trainer.advantages import Floats, PromptStatistics, SampleWeights

__all__ = ["Algorithm", "algorithms", "load_algorithm"]


MEMBERS: Final = ("summary", "defaults", "likelihood", "check", "weigh", "loss")
KINDS: Final = ("transition", "denoising")


@runtime_checkable
class Algorithm(Protocol):
    """One method of turning a rollout into updates.

    Attributes:
        summary: the method in a few words.
        defaults: the method's own default settings, as plain nested values.
        likelihood: the kind of items. "transition": a denoising step x_t → x_{t-1} that the sampler
            took, with its log-prob. "denoising": a finished image x_0 with fresh noise at a random
            level, with minus its denoising error.
    """

    summary: str
    defaults: Mapping[str, Any]
    likelihood: Literal["transition", "denoising"]

    def check(self, config: TrainConfig) -> None:
        """Checks that the settings fit the method.

        Raises:
            ConfigError: they contradict it.
        """
        ...

    def weigh(
        self,
        rewards: Floats,
        prompt_ids: Sequence[str],
        statistics: PromptStatistics,
        config: TrainConfig,
    ) -> SampleWeights:
        """One weight per image; may change the running statistics.

        All memory of the method is in the statistics, which checkpoints keep. The check before a
        run calls this method too, with made-up rewards.

        Args:
            rewards: rewards of the iteration, float64 `[batch]`, NaN where unscorable.
            prompt_ids: prompt id of each image, `[batch]`.
            statistics: running statistics of the prompts.
            config: settings of the run.
        """
        ...

    def loss(
        self,
        log_likelihoods: Tensor,
        old_log_likelihoods: Tensor,
        weights: Tensor,
        config: TrainConfig,
    ) -> Tensor:
        """One loss per item, `[items]`.

        Args:
            log_likelihoods: under the policy as it is now, float32 `[items]`, with gradient.
            old_log_likelihoods: under the policy that sampled, float32 `[items]`.
            weights: weights of the items' images, float32 `[items]`.
            config: settings of the run.
        """
        ...


algorithms: Registry[Algorithm] = Registry(
    "algorithm",
    "ddpo.algorithms",
    None,
    {
        "ddpo_is": "ddpo.trainer.algorithms.ddpo_is:DDPO_IS",
        "ddpo_sf": "ddpo.trainer.algorithms.ddpo_sf:DDPO_SF",
        "rwr": "ddpo.trainer.algorithms.rwr:RWR",
        "rwr_sparse": "ddpo.trainer.algorithms.rwr_sparse:RWR_SPARSE",
    },
)
"""Built-in algorithms and those of the entry-point group `ddpo.algorithms`, each an `Algorithm`."""


def load_algorithm(name: str) -> tuple[Algorithm, str]:
    """The algorithm of a name, and its origin: a line that changes with the code of its file.

    Args:
        name: a registered name, `./file.py:Object` or `package.module:Object`. A class is made
            without arguments.

    Raises:
        UnknownNameError: no algorithm has that name; the message has the nearest.
        RewardLoadError: the file, module or plug-in is broken, or the object is no algorithm.
    """
    found, origin = find(name, algorithms)
    if inspect.isclass(found):
        what = f"algorithm {name!r} of {origin} cannot be made without arguments"
        with author_error_as(lambda error: RewardLoadError(f"{what}: {author_line(error)}")):
            found = found()
    if not isinstance(found, Algorithm):
        missing = [member for member in MEMBERS if not hasattr(found, member)]
        raise RewardLoadError(
            f"algorithm {name!r} of {origin} is a {type(found).__name__} "
            f"without {', '.join(missing)}"
        )
    if found.likelihood not in KINDS:
        raise RewardLoadError(
            f"algorithm {name!r} of {origin}: its likelihood must be one of {', '.join(KINDS)}, "
            f"got {found.likelihood!r}"
        )
    return found, origin
