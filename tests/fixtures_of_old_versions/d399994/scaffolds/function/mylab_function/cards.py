"""The card of `mylab/function`: pure data. Import nothing heavy here, `ddpo rewards list` reads it."""

from ddpo.rewards.card import Golden, RewardCard, RewardOption

CARD = RewardCard(
    id="mylab/function",
    version="1",
    summary="mean brightness of the pixels",
    load="mylab_function.reward:make",
    family="pixels",
    flaws="a white picture is the optimum; says nothing about content",
    unit="share of full white",
    range=(0.0, 1.0),
    preprocessing="none",
    thread_safe=True,
    options=(RewardOption("gamma", 1.0, "exponent of each level before the mean"),),
    golden=(
        Golden("black", 0.0, 0.0, "by hand"),
        Golden("grey", 128 / 255, 1e-6, "by hand: 128/255"),
        Golden("checker", 0.5, 1e-6, "by hand: half of the pixels are white"),
    ),
)
