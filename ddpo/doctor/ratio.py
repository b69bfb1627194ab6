"""Check that the importance ratio is exactly 1 under the policy that sampled."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ddpo.devices import synchronize
from ddpo.doctor.budget import first_that_fits
from ddpo.doctor.row import Outcome
from ddpo.doctor.workload import Workload, run_config
from ddpo.policies.policy import TrainablePolicy
from ddpo.policies.sampler import coefficients_of
from ddpo.prompts import load_prompts
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.zoo import resolve
from ddpo.trainer.adapted import adapted_policy
from ddpo.trainer.algorithms import load_algorithm
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.likelihoods import TransitionLikelihood
from ddpo.trainer.monitoring.preflight import train_once
from ddpo.trainer.rollout import Collection, draw_keys
from ddpo.types import Context

__all__ = ["FirstBatch", "ratio_is_one", "sample_and_train_once"]


@dataclass(frozen=True, slots=True)
class FirstBatch:
    """Result of one batch that was sampled, scored and trained on without an optimizer step."""

    ratio_deviation: float  # largest |ratio - 1|
    sampling_s: float
    training_s: float


def sample_and_train_once(policy: TrainablePolicy, config: TrainConfig) -> FirstBatch:
    """Times the trainer's own first batch and first backward pass.

    Raises:
        RuntimeError: The algorithm has no importance ratio.
    """
    algorithm, _ = load_algorithm(config.algorithm)
    prompts = load_prompts(config.prompts).first(config.prompt_limit or None)
    keys = draw_keys(prompts.prompts, config.sample, config.seed, 1, prompts.weights)
    scorer = make_scorer(resolve(config.reward))
    start = time.perf_counter()
    collection = Collection(policy, keys, scorer, config.sample, config.seed, Context(progress=0.0))
    first = collection.first_batch()
    synchronize(policy.device)
    sampling_s = time.perf_counter() - start
    coefficients = coefficients_of(policy, config.sample)
    likelihood = TransitionLikelihood(policy, first, coefficients, config)
    deviation, training_s = train_once(policy, algorithm, likelihood, first, config, 1)
    if deviation is None:
        raise RuntimeError(f"{config.algorithm} has no importance ratio")
    return FirstBatch(deviation, sampling_s, training_s)


def ratio_is_one(model: str, device: str, dtype: str, work: Workload) -> Outcome:
    """Check that sampling and training see the same bits: the ratio before the first update.

    Args:
        model: Place of a policy factory.
        device: Torch device.
        dtype: Type of the frozen weights and of the stored latents.
        work: Number of steps, guidance, and the batch sizes to try; one batch is sampled.
    """

    def measure(batch: int) -> tuple[float, int]:
        config = run_config(model, device, dtype, work, batch)
        return sample_and_train_once(adapted_policy(config), config).ratio_deviation, batch

    (deviation, batch), note = first_that_fits(work.batches, measure)
    values = {"largest_ratio_deviation": deviation, "batch": batch}
    if deviation == 0:
        return Outcome("ok", values, note)
    note = "the ratio must be exactly 1 before the first update"
    return Outcome("failed", values, note)
