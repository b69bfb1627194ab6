"""Plug-ins that cannot be loaded, one way each."""

from ddpo.rewards.card import RewardCard

NOT_A_CARD = {"id": "broken/not-a-card"}


def _card(id: str, load: str = "ddpo_broken_plugin.needs_extra:Missing") -> RewardCard:
    return RewardCard(id=id, version="1", summary="", load=load, family="", flaws="", extra="gpu")


OTHER_ID = _card("broken/somebody-else")
CONTESTED = _card("broken/contested")  # ddpo-rival-plugin claims the id too

# Good cards of rewards that cannot be made:
LAZY = _card("broken/lazy")  # its own libraries are not installed
KILLS = _card("broken/kills", "ddpo_broken_plugin.kills:Reward")
NOTHING = _card("broken/nothing", "ddpo_broken_plugin:Nothing")
NO_CODE = _card("broken/no-code", "ddpo_broken_plugin:NOT_A_CARD")
