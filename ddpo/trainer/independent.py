"""The independence of a run's held-out reward from the reward that is trained on."""

from __future__ import annotations

from ddpo.errors import ConfigError, UserError
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards.embedded import EMBEDDED_REWARDS, embedded_name, is_embedded
from ddpo.rewards.lineage import related
from ddpo.rewards.scoring.resolve import ResolvedReward, single_rewards
from ddpo.rewards.spec import parse_expression
from ddpo.rewards.zoo import resolve

__all__ = ["check_not_trained", "independent_judge"]


def check_not_trained(
    reward: ResolvedReward, training: ResolvedReward, held_out: str, trained: str
) -> None:
    """Refuses a held-out reward that is trained on, even as a part of a sum.

    Args:
        reward: the held-out reward.
        training: the reward that is trained on.
        held_out: expression of the held-out reward, for the message.
        trained: expression of the reward that is trained on, for the message.

    Raises:
        ConfigError: it is trained on.
    """
    if _names(reward) & _names(training):
        raise ConfigError(
            f"held_out = {held_out!r} is trained on ({trained!r}): the best checkpoint by the "
            "training reward is the one that games it most; name another reward"
        )


def _names(reward: ResolvedReward) -> set[tuple[str, str, bool]]:
    """Id, origin and variant of each reward that a reward combines, or of the reward itself.

    An embedded variant is another model than the big one, with weights of its own.
    """
    return {(one.card.id, one.origin, is_embedded(one.card)) for one in single_rewards(reward)}


def independent_judge(held_out: str, reward: str) -> str:
    """The held-out reward of a recipe, or an embedded judge in its place; "" if none is fit.

    A judge is fit if it shares neither model nor data with the trained reward. Rewards of files
    and servers state nothing that could be compared.

    Args:
        held_out: expression of the recipe's held-out reward; "" if it has none.
        reward: expression of the trained reward.
    """
    try:
        trained = _cards(reward)
    except UserError:  # reported where the run looks for its reward
        return held_out
    judges = [held_out, *map(embedded_name, EMBEDDED_REWARDS)]
    for judge in filter(None, judges):
        if not any(related(card, other) for card in _cards(judge) for other in trained):
            return judge
    return ""


def _cards(expression: str) -> list[RewardCard]:
    """The cards of the named rewards of an expression."""
    _, terms = parse_expression(expression)
    found = [resolve(term.target, **term.options) for term in terms if term.kind == "name"]
    return [single.card for one in found for single in single_rewards(one)]
