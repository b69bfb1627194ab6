"""The card of `mylab/class`: pure data. Import nothing heavy here, `ddpo rewards list` reads it."""

from ddpo.rewards.card import Golden, RewardCard, RewardOption

CARD = RewardCard(
    id="mylab/class",
    version="1",
    summary="variance of the grey levels",
    load="mylab_class.reward:Reward",
    family="pixels",
    flaws="black and white noise is the optimum; says nothing about content",
    unit="squared grey levels, levels in [0, 1]",
    range=(0.0, 0.25),
    pixels="float",
    preprocessing="none",
    dtype="float32",
    differentiable=True,
    thread_safe=True,
    device="any",
    options=(RewardOption("border", 0, "pixels at each edge that do not count"),),
    golden=(
        Golden("black", 0.0, 0.0, "by hand"),
        Golden("grey", 0.0, 1e-6, "by hand: one level"),
        Golden("checker", 0.25, 1e-5, "by hand: half of the pixels are 0, half are 1"),
    ),
)
