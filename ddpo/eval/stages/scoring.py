"""Second stage: the scores of all images by all rewards, and the rewards' noise floors."""

from __future__ import annotations

from contextlib import closing

from ddpo.distributed import World
from ddpo.eval.analysis.noise_floor import NoiseFloors
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.samples import EvalImages
from ddpo.eval.generate.scoring import ScoreJournal, score, unscored
from ddpo.eval.inputs.models import BASE
from ddpo.eval.plan import Plan
from ddpo.eval.stages.progress import EvalProgress, Observer
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.tools.availability import availability

__all__ = ["check_rewards", "score_images"]


def check_rewards(plan: Plan, device: str) -> None:
    """Loads each reward with missing files once, before hours of sampling.

    Args:
        plan: plan of the evaluation.
        device: torch device of this process.

    Raises:
        MissingResourceError: a reward's weights are missing and cannot be downloaded.
    """
    for reward in plan.rewards:
        if not availability(reward.resolved.card, reward.resolved.origin).complete:
            make_scorer(reward.resolved.on(device)).close()


def score_images(
    plan: Plan,
    images: EvalImages,
    store: ImageStore,
    journal: ScoreJournal,
    world: World,
    observe: Observer,
) -> dict[str, float]:
    """Scores the images that the journal lacks; one reward is in memory at a time.

    The journal is the only cache: scores from elsewhere would change the batches of a call.

    Args:
        plan: plan of the evaluation.
        images: images of all models.
        store: store of the images.
        journal: journal of the scores.
        world: processes of the evaluation.
        observe: receiver of progress.

    Returns:
        Reward id → noise floor; NaN if not measured.

    Raises:
        RewardFailure: a reward failed; scores so far are kept.
        StorageFailure: the journal cannot be written.
    """
    items = [(one.sha256, one.prompt) for one in (*images.compared, *images.choice) if one.sha256]
    base = [one for one in images.compared if one.model == BASE and one.sha256]
    floors = NoiseFloors(plan.out, [(one.sha256, one.prompt) for one in base])
    for reward in plan.rewards:
        card = reward.resolved.card
        identity = reward.resolved.identity
        if not unscored(identity, card, journal, items) and floors.known(reward.resolved):
            continue
        with closing(make_scorer(reward.resolved.on(world.device))) as scorer:
            for event in score(scorer, identity, store, journal, items, world=world):
                observe(EvalProgress("scoring", reward.id, event.done, event.total, event.found))
            if world.is_main:
                floors.measure(reward.resolved, scorer, store)
        del scorer
    return {reward.id: floors.value(reward.resolved) for reward in plan.rewards}
