"""The named methods. An algorithm says how rewards become weights, what is made likelier, and by which loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from ddpo.errors import RewardLoadError, one_line
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

    `likelihood` says what an item of an update is. "transition": a denoising step x_t → x_{t-1} that the sampler took, with its
    log-prob; "denoising": a finished picture x_0 with fresh noise at a random level, with minus its denoising error.
    """

    summary: str
    defaults: Mapping[
        str, Any
    ]  # settings that a run of this method has unless it says otherwise, as plain nested values
    likelihood: Literal["transition", "denoising"]

    def check(self, config: TrainConfig) -> None:
        """Raises `ConfigError` where the settings contradict the method."""
        ...

    def weigh(
        self,
        rewards: Floats,
        prompt_ids: Sequence[str],
        statistics: PromptStatistics,
        config: TrainConfig,
    ) -> SampleWeights:
        """One weight per picture from rewards `[batch]`, NaN where unscorable; may change the running statistics.

        All that is remembered is in the statistics, which are kept in checkpoints: before a run it is also asked about made-up rewards.
        """
        ...

    def loss(
        self,
        log_likelihoods: Tensor,
        old_log_likelihoods: Tensor,
        weights: Tensor,
        config: TrainConfig,
    ) -> Tensor:
        """One loss per item, `[items]`; the tensors are float32 `[items]`. The old ones are those of the policy that sampled."""
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
"""Built-in algorithms and those of the entry-point group `ddpo.algorithms`; values follow `Algorithm`."""


def load_algorithm(name: str) -> tuple[Algorithm, str]:
    """The algorithm of a registered name, `./file.py:Object` or `package.module:Object` (a class is made without arguments); its origin.

    The origin is a line that changes when the code of a file or module does.

    Raises:
        UnknownNameError: no algorithm of that name; says the nearest.
        RewardLoadError: the file, module or plug-in is broken, or the object is no algorithm.
    """
    found, origin = find(name, algorithms)
    if inspect.isclass(found):
        try:
            found = found()
        except Exception as error:
            raise RewardLoadError(
                f"algorithm {name!r} of {origin} cannot be made without arguments: {one_line(error)}"
            ) from error
    if not isinstance(found, Algorithm):
        missing = [member for member in MEMBERS if not hasattr(found, member)]
        raise RewardLoadError(
            f"algorithm {name!r} of {origin} is a {type(found).__name__} without {', '.join(missing)}"
        )
    if found.likelihood not in KINDS:
        raise RewardLoadError(
            f"algorithm {name!r} of {origin}: its likelihood must be one of {', '.join(KINDS)}, got {found.likelihood!r}"
        )
    return found, origin
