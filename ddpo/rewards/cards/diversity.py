"""The cards of the diversity rewards, which score the images of a prompt together: pure data."""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile

__all__ = ["ALEXNET", "DINOV2", "DINO_BACKBONE", "DIVERSITY_CARDS", "LPIPS_LINEAR"]

ALEXNET: Final = WeightFile(
    source="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    revision="7be5be79",  # the beginning of its hash is part of its name
    sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    megabytes=244.4,
    licence="BSD-3-Clause",
)
LPIPS_LINEAR: Final = WeightFile(
    source="https://github.com/richzhang/PerceptualSimilarity/raw/"
    "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/alex.pth",
    revision="082bb24f84c091ea94de2867d34c4544f68e0963",
    sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    megabytes=0.006,
    licence="BSD-2-Clause",
)
DINOV2: Final = WeightFile(
    source="facebook/dinov2-base",
    revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415",
    sha256=None,  # a repository of several files
    megabytes=346.4,
    licence="Apache-2.0",
)
DINO_BACKBONE: Final = "facebook/dinov2-base CLS, PIL bicubic 256, crop 224"
DINO_POSITIONS: Final = (
    "transformers fits the positions of 518 pixels to 224 without the offset of 0.1 patches that "
    "the original adds, so distances differ a little from those of facebookresearch/dinov2"
)
"""Source: facebookresearch/dinov2, dinov2/models/vision_transformer.py, interpolate_pos_encoding;
transformers, modeling_dinov2.py."""
DINO_PIXELS: Final = (
    "uint8, PIL bicubic to 256 on the shorter side, centre crop 224, "
    "ImageNet mean and std, class token"
)
DINO_OPTIONS: Final = (
    RewardOption("dino", DINOV2.source, "folder or hub id of a Dinov2Model of transformers"),
    RewardOption("device", "cpu", "torch device of the encoder"),
)
OF_GROUPS: Final = (
    "every image of a prompt gets the same score, so an advantage normalised within the prompt "
    "is 0; only groups of equal n (part n) are comparable; blind to quality and to the prompt: "
    "noise and unrelated images score high"
)
"""Flaws of all group measures."""

_CARDS: Final = (
    RewardCard(
        id="diversity_lpips",
        version="1",
        summary="how different the images of a prompt look: "
        "mean LPIPS v0.1 (AlexNet) over all pairs",
        load="ddpo.rewards.models.diversity:DiversityLpips",
        family="group",
        flaws="compares position by position, so shifted, flipped or differently cropped copies "
        "count as different; grows with texture and noise; depends on `side`; "
        f"images that are not square are squeezed; {OF_GROUPS}",
        unit="LPIPS",
        range=(0.0, None),
        typical=(0.45, 0.65, 0.78),
        typical_source="a rough guess for samples of one prompt; not measured here",
        inputs=("image", "group"),
        preprocessing="uint8, PIL bicubic to side×side unless that is its size, scaled to [-1, 1], "
        "the original's shift and scale; mean of n(n-1)/2 pairs",
        dtype="float32",
        batch_invariant=False,
        cache=False,
        device="any",
        libraries=("torch", "pillow"),
        memory_mb=300,
        weights=(ALEXNET, LPIPS_LINEAR),
        paper="https://arxiv.org/abs/1801.03924",
        lineage=("AlexNet on ImageNet", "BAPPS"),
        options=(
            RewardOption(
                "alexnet",
                None,
                "local copy of torchvision's alexnet-owt-7be5be79.pth; verified by its SHA-256",
            ),
            RewardOption(
                "linear",
                None,
                "local copy of the original's weights/v0.1/alex.pth; verified by its SHA-256",
            ),
            RewardOption(
                "side",
                256,
                "side in pixels to which other images are resized, at least 32; "
                "the aspect ratio is not kept",
            ),
            RewardOption("device", "cpu", "torch device of AlexNet"),
        ),
    ),
    RewardCard(
        id="diversity_dino",
        version="1",
        summary="how different the contents of the images of a prompt are: "
        "mean cosine distance of DINOv2 class tokens over all pairs",
        load="ddpo.rewards.models.diversity:DiversityDino",
        family="group",
        flaws="sees what is shown rather than how: changes of colour, style and texture move it "
        f"little; sees the middle square only; {DINO_POSITIONS}; {OF_GROUPS}",
        unit="1 - cosine",
        range=(0.0, 2.0),
        typical=(0.1, 0.4, 0.75),
        typical_source="a rough guess for samples of one prompt; not measured here",
        inputs=("image", "group"),
        preprocessing=f"{DINO_PIXELS}; mean of n(n-1)/2 pairs",
        dtype="float32",
        batch_invariant=False,
        cache=False,
        backbone=DINO_BACKBONE,
        device="any",
        libraries=("torch", "transformers", "pillow"),
        memory_mb=700,
        weights=(DINOV2,),
        paper="https://arxiv.org/abs/2304.07193",
        lineage=("facebook/dinov2-base", "LVD-142M"),
        options=DINO_OPTIONS,
    ),
    RewardCard(
        id="vendi",
        version="1",
        summary="Vendi score: the effective number of different images among those of a prompt",
        load="ddpo.rewards.models.vendi:Vendi",
        family="group",
        flaws="grows with n even where the variety does not; cosines of pixels are above 0 for "
        "most pairs, so `features=pixels` stays near 1 and does not see brightness; "
        "cosines of opposite sign do not add variety; "
        f"{DINO_POSITIONS}; {OF_GROUPS}",
        unit="effective number of images",
        range=(1.0, None),
        typical=(1.3, 2.5, 5.0),
        typical_source="a rough guess for 8 samples of one prompt; not measured here",
        inputs=("image", "group"),
        preprocessing=f"{DINO_PIXELS}; or of features=pixels: uint8, PIL bicubic to 32×32, "
        "RGB in [0, 1]; cosine kernel",
        dtype="float32",
        batch_invariant=False,
        cache=False,
        backbone=DINO_BACKBONE,
        device="any",
        libraries=("torch", "transformers", "pillow"),
        memory_mb=700,
        weights=(DINOV2,),
        paper="https://arxiv.org/abs/2210.02410",
        lineage=("facebook/dinov2-base", "LVD-142M"),
        options=(
            RewardOption(
                "features", "dinov2", "dinov2, or pixels: thumbnails, which need no weights"
            ),
            RewardOption(
                "order",
                1.0,
                "order of the entropy, at least 0; the higher, the less rare kinds count",
            ),
            *DINO_OPTIONS,
        ),
    ),
)

DIVERSITY_CARDS: Final[dict[str, RewardCard]] = {card.id: card for card in _CARDS}
