"""The images that a plan requests of each model."""

from __future__ import annotations

from ddpo.eval.analysis.prompt_dependence import swap_partners
from ddpo.eval.generate.sampling import ImageRequest, Source
from ddpo.eval.inputs.checkpoints import EvalCheckpoint
from ddpo.eval.inputs.models import BASE
from ddpo.eval.plan import Plan

__all__ = [
    "best_of_requests",
    "compared_requests",
    "model_name",
    "model_seeds",
    "source_of",
    "swap_requests",
]


def model_name(checkpoint: EvalCheckpoint | None) -> str:
    """The name of a model in tables; that of the base model for None."""
    return checkpoint.facts.name if checkpoint else BASE


def model_seeds(plan: Plan, checkpoint: EvalCheckpoint | None) -> int:
    """The number of images per prompt of a model; of the base model for None."""
    return checkpoint.facts.seeds if checkpoint else plan.seeds


def source_of(plan: Plan, checkpoint: EvalCheckpoint | None) -> Source:
    """The settings that fix the pixels of a model's images; of the base model for None."""
    weights = checkpoint.facts.identity if checkpoint else ""
    return Source(plan.base, weights, plan.dtype, plan.sampler, plan.seed)


def compared_requests(plan: Plan, checkpoint: EvalCheckpoint | None) -> list[ImageRequest]:
    """The distinct compared images of a model; of an earlier checkpoint those of seen prompts."""
    prompts = plan.seen if checkpoint and checkpoint.facts.history else plan.prompts
    seeds = model_seeds(plan, checkpoint)
    return [ImageRequest(prompt, index) for prompt in prompts for index in range(seeds)]


def swap_requests(plan: Plan) -> list[ImageRequest]:
    """The images of the swap test: each prompt's first noise with another prompt of its split."""
    requests = []
    for split in plan.splits:
        by_id = {prompt.id: prompt for prompt in split.prompts}
        partners = swap_partners(list(by_id))
        requests += [ImageRequest(by_id[own], 0, by_id[other]) for own, other in partners.items()]
    return requests


def best_of_requests(plan: Plan) -> list[ImageRequest]:
    """The images of the base model for best-of-n, including those of the comparison."""
    if plan.best_of is None:
        return []
    count = max(plan.seeds, plan.best_of.n)
    return [
        ImageRequest(prompt, index) for prompt in plan.best_of.prompts for index in range(count)
    ]
