"""Made for a ddpo that is still to come: its card refuses to exist."""

from ddpo.rewards.card import API_VERSION, RewardCard

CARD = RewardCard(
    id="broken/newer",
    version="1",
    summary="",
    load="ddpo_broken_plugin.newer:Reward",
    family="",
    flaws="",
    api=API_VERSION + 1,
)
