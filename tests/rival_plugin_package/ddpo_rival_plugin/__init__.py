"""A package that claims an id which another one claims too."""

from ddpo.rewards.card import RewardCard

CONTESTED = RewardCard(
    id="broken/contested",
    version="2",
    summary="",
    load="ddpo_rival_plugin:Reward",
    family="",
    flaws="",
)
