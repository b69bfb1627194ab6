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
    from ddpo.trainer.items import Items

__all__ = ["Algorithm", "AnyAlgorithm", "ItemAlgorithm", "algorithms", "load_algorithm", "needs_of"]


MEMBERS: Final = ("summary", "defaults", "likelihood", "check", "weigh")
KINDS: Final = ("transition", "denoising")
NEEDS: Final = ("old_output", "reference_output", "target")
"""Fields of the items that cost memory or a call of the denoiser."""


class _Method(Protocol):
    """The members that all methods have in common.

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


@runtime_checkable
class Algorithm(_Method, Protocol):
    """One method of turning a rollout into updates, with a loss on log-likelihoods."""

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


@runtime_checkable
class ItemAlgorithm(_Method, Protocol):
    """One method of turning a rollout into updates, with a loss on all that items have.

    It may also have a method `outside(items, config)`, which returns bool `[items]`, True for items
    beyond the method's own trust region. They are the clip fraction. Without it, these are the
    items whose ratio is outside 1 ± `optim.clip_range`.

    Attributes:
        needs: those of `NEEDS` that the loss reads, such as `("old_output",)`.
    """

    needs: Sequence[str]

    def item_loss(self, items: Items, weights: Tensor, config: TrainConfig) -> Tensor:
        """One loss per item, float32 `[items]`.

        Args:
            items: the items; `items.output` and `items.new_log_probs` have gradients.
            weights: weights of the items' images, float32 `[items]`.
            config: settings of the run.
        """
        ...


AnyAlgorithm = Algorithm | ItemAlgorithm

algorithms: Registry[AnyAlgorithm] = Registry(
    "algorithm",
    "ddpo.algorithms",
    None,
    {
        "ddpo_is": "ddpo.trainer.algorithms.ddpo_is:DDPO_IS",
        "ddpo_sf": "ddpo.trainer.algorithms.ddpo_sf:DDPO_SF",
        "grpo": "ddpo.trainer.algorithms.grpo:GRPO",
        "grpo_fast": "ddpo.trainer.algorithms.grpo:GRPO_FAST",
        "mix_grpo": "ddpo.trainer.algorithms.grpo:MIX_GRPO",
        "grpo_guard": "ddpo.trainer.algorithms.grpo_guard:GRPO_GUARD",
        "tempflow_grpo": "ddpo.trainer.algorithms.tempflow_grpo:TEMPFLOW_GRPO",
        "flow_dppo": "ddpo.trainer.algorithms.flow_dppo:FLOW_DPPO",
        "awm": "ddpo.trainer.algorithms.awm:AWM",
        "rwr": "ddpo.trainer.algorithms.rwr:RWR",
        "rwr_sparse": "ddpo.trainer.algorithms.rwr_sparse:RWR_SPARSE",
    },
)
"""Built-in algorithms and those of the entry-point group `ddpo.algorithms`."""


def load_algorithm(name: str) -> tuple[AnyAlgorithm, str]:
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
    if not isinstance(found, Algorithm | ItemAlgorithm):
        missing = [member for member in MEMBERS if not hasattr(found, member)]
        if not hasattr(found, "loss"):
            missing.append("needs" if hasattr(found, "item_loss") else "loss")
        raise RewardLoadError(
            f"algorithm {name!r} of {origin} is a {type(found).__name__} "
            f"without {', '.join(missing)}"
        )
    if found.likelihood not in KINDS:
        raise RewardLoadError(
            f"algorithm {name!r} of {origin}: its likelihood must be one of {', '.join(KINDS)}, "
            f"got {found.likelihood!r}"
        )
    _check_needs(found, f"algorithm {name!r} of {origin}")
    return found, origin


def needs_of(algorithm: AnyAlgorithm) -> Sequence[str] | None:
    """The fields that the loss of an algorithm needs; None for a loss on log-likelihoods."""
    return algorithm.needs if isinstance(algorithm, ItemAlgorithm) else None


def _check_needs(algorithm: AnyAlgorithm, who: str) -> None:
    """Raises `RewardLoadError` unless the items can have the fields that an algorithm needs."""
    if not isinstance(algorithm, ItemAlgorithm):
        return
    needs: Any = algorithm.needs
    if isinstance(needs, str) or not isinstance(needs, Sequence):
        raise RewardLoadError(f"{who}: its needs must be names in brackets, got {needs!r}")
    unknown = [name for name in needs if name not in NEEDS]
    if unknown:
        raise RewardLoadError(f"{who}: its needs must be of {', '.join(NEEDS)}, got {unknown[0]!r}")
    if algorithm.likelihood == "denoising" and "old_output" in needs:
        raise RewardLoadError(
            f"{who}: it needs old_output, which items of the kind 'denoising' do not have"
        )
