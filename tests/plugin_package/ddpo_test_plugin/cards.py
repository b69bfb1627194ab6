"""The card of `test/sharpness`, without the libraries that the reward itself needs."""

from ddpo.rewards.card import Golden, RewardCard, RewardOption

SHARPNESS = RewardCard(
    id="test/sharpness",
    version="1",
    summary="variance of the Laplacian of the luma",
    load="ddpo_test_plugin.sharpness:Sharpness",
    family="pixels",
    flaws="noise is sharp; depends on the resolution",
    unit="squared grey levels, 0-255",
    range=(0.0, None),
    golden=(
        Golden("black", 0.0, 0.0, "by hand"),
        Golden("gradient", 0.461596, 1e-5, "computed elsewhere"),
        Golden("sin", 2.704049, 1e-5, "computed elsewhere"),
        Golden("noise", 49081.354518, 0.01, "computed elsewhere"),
    ),
    options=(RewardOption("scale", 1.0, "the score is multiplied by it"),),
)
