"""Plug-ins that cannot be loaded, one way each."""

from ddpo.rewards.card import RewardCard

NOT_A_CARD = {"id": "broken/not-a-card"}


def _card(id: str) -> RewardCard:
    return RewardCard(id=id, version="1", summary="", load="ddpo_broken_plugin.needs_extra:Missing", family="", flaws="", extra="gpu")


OTHER_ID = _card("broken/somebody-else")
LAZY = _card("broken/lazy")  # a good card of a reward whose own libraries are not installed
