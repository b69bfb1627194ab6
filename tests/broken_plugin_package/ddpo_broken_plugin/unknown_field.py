"""A card with a field that there is not."""

from ddpo.rewards.card import RewardCard

CARD = RewardCard(
    id="broken/unknown-field",
    version="1",
    summary="",
    load="a:b",
    family="",
    flaws="",
    differentable=True,
)
