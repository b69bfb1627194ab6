"""The card of `mylab/model`: pure data. Import nothing heavy here, `ddpo rewards list` reads it."""

from ddpo.rewards.card import Golden, RewardCard, RewardOption, WeightFile

# Larger weights do not belong into a package. Name the file of a Hugging Face repository, source="owner/name/model.safetensors" with the
# commit as revision, or an https address; `ddpo.weights` fetches and verifies both, see reward.py.
WEIGHTS = WeightFile(
    source="package:mylab_model/weights.safetensors",
    revision="1",
    sha256="c98752a75cc8b4290035599efabfd4f85f5be47cf07d62ca9d4b6a1bb8815d70",
    megabytes=0.002,
    licence="Apache-2.0",
)

CARD = RewardCard(
    id="mylab/model",
    version="1",
    summary="strength of edges, by a small network",
    load="mylab_model.reward:Reward",
    family="cnn",
    flaws="noise has more edges than any drawing; says nothing about content",
    unit="mean of the gradient's two sizes, levels in [0, 1] per pixel",
    range=(0.0, 1.0),
    pixels="float",
    preprocessing="none",
    dtype="float32",
    differentiable=True,
    thread_safe=True,
    device="any",
    libraries=("torch",),
    weights=(WEIGHTS,),
    options=(RewardOption("device", "cpu", "torch device of the network"),),
    golden=(
        Golden("black", 0.0, 0.0, "by hand"),
        Golden("grey", 0.0, 1e-6, "by hand: every filter sums to zero"),
    ),
)
