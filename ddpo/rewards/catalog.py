"""The table of built-in rewards: pure data, standard library only. Third parties declare the same cards through entry points.

Typical values of the weight-free rewards were measured on 500 pictures that the embedded model's renderer draws (64×64, seed 0);
sizes in kB grow with the number of pixels, so read them together with `typical_source`.
"""

from __future__ import annotations

from typing import Final

from ddpo.rewards.card import Golden, RewardCard, RewardOption, WeightFile

__all__ = ["CARDS", "CLIP_L14", "LAION_V2_HEAD"]

DDPO_PAPER: Final = "https://arxiv.org/abs/2305.13301"
EMOJI: Final = "500 pictures of ddpo.policies.emoji.render, 64×64, seed 0"
JPEG_GOLDEN: Final = {"black": 4.723, "grey": 4.721, "gradient": 20.406, "checker": 8.819, "sin": 70.761, "noise": 308.188}
JPEG_SOURCE: Final = "file sizes by Pillow 9.5, 10.4, 11.3, 12.0, 13.0 (libjpeg-turbo 2.1.5 … 3.2.0)"
HALF_BYTE: Final = 5e-4  # kB: the size is exact to the byte
JPEG_PREPROCESSING: Final = "JPEG quality 95, 4:2:0, not optimised, bytes / 1000"

CLIP_L14: Final = WeightFile(
    source="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    megabytes=1710.5,
    licence="MIT",
)
LAION_V2_HEAD: Final = WeightFile(
    source="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/fe88a163f4661b4ddabba0751ff645e2e620746e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    revision="fe88a163f4661b4ddabba0751ff645e2e620746e",
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    megabytes=3.7,
    licence="Apache-2.0",
)
LLAVA: Final = WeightFile(source="llava-hf/llava-1.5-7b-hf", revision="main", sha256=None, megabytes=14_100, licence="Llama 2 Community")
DEBERTA: Final = WeightFile(source="microsoft/deberta-xlarge-mnli", revision="main", sha256=None, megabytes=3_000, licence="MIT")

_CARDS: Final = (
    RewardCard(
        id="compressibility",
        version="1",
        summary="minus the JPEG file size: plain, smooth pictures",
        load="ddpo.rewards.models.jpeg:Compressibility",
        family="pixels",
        flaws="says nothing about content: a blank picture is the optimum; depends on the picture's size in pixels",
        unit="kB of 1000 bytes, negative",
        range=(None, 0.0),
        typical=(-4.1, -2.7, -2.0),
        typical_source=EMOJI,
        preprocessing=JPEG_PREPROCESSING,
        libraries=("pillow",),
        memory_mb=10,
        paper=DDPO_PAPER,
        golden=tuple(Golden(name, -size, HALF_BYTE, JPEG_SOURCE) for name, size in JPEG_GOLDEN.items()),
    ),
    RewardCard(
        id="incompressibility",
        version="1",
        summary="the JPEG file size: busy, detailed pictures",
        load="ddpo.rewards.models.jpeg:Incompressibility",
        family="pixels",
        flaws="says nothing about content: pixel noise is the optimum (308 kB at 512×512); depends on the picture's size in pixels",
        unit="kB of 1000 bytes",
        range=(0.0, None),
        typical=(2.0, 2.7, 4.1),
        typical_source=EMOJI,
        preprocessing=JPEG_PREPROCESSING,
        libraries=("pillow",),
        memory_mb=10,
        paper=DDPO_PAPER,
        golden=tuple(Golden(name, size, HALF_BYTE, JPEG_SOURCE) for name, size in JPEG_GOLDEN.items()),
    ),
    RewardCard(
        id="colorfulness",
        version="1",
        summary="colourfulness after Hasler and Süsstrunk: spread and strength of opponent colours",
        load="ddpo.rewards.models.colorfulness:Colorfulness",
        family="pixels",
        flaws="blind to content and harmony: saturated stripes or colour noise (138) score above any photograph",
        unit="Hasler-Süsstrunk M; 0 none, 33 moderate, above 82 extreme",
        range=(0.0, None),
        typical=(35.0, 96.0, 146.0),
        typical_source=EMOJI,
        preprocessing="none",
        memory_mb=20,
        paper="https://doi.org/10.1117/12.477378",
        golden=tuple(
            Golden(name, score, 2e-5, "formula evaluated independently, 6 decimals")
            for name, score in {
                "black": 0.0,
                "grey": 0.0,
                "checker": 0.0,
                "gradient": 104.509574,
                "sin": 44.702652,
                "noise": 138.185988,
            }.items()
        ),
    ),
    RewardCard(
        id="symmetry",
        version="1",
        summary="minus the mean squared difference to the mirror image (left-right)",
        load="ddpo.rewards.models.symmetry:Symmetry",
        family="pixels",
        flaws="a blank picture is perfectly symmetric; low contrast raises the score without any symmetry",
        unit="squared pixel difference, pixels in [0, 1], negative",
        range=(-1.0, 0.0),
        typical=(-0.114, -0.037, -0.007),
        typical_source=EMOJI,
        pixels="float",
        preprocessing="none",
        differentiable=True,
        device="any",
        memory_mb=20,
        golden=(
            Golden("black", 0.0, 0.0, "by hand: every picture of one colour equals its mirror image"),
            Golden("grey", 0.0, 0.0, "by hand: every picture of one colour equals its mirror image"),
            Golden("checker", -1.0, 0.0, "by hand: 64 columns of squares, so the mirror image is the negative"),
        ),
    ),
    RewardCard(
        id="darkness",
        version="1",
        summary="minus the mean luma (BT.601): dark pictures",
        load="ddpo.rewards.models.darkness:Darkness",
        family="pixels",
        flaws="a black picture is the optimum; knows no subject, only the average",
        unit="luma in [0, 1], negative",
        range=(-1.0, 0.0),
        typical=(-0.78, -0.56, -0.29),
        typical_source=EMOJI,
        pixels="float",
        preprocessing="none",
        differentiable=True,
        device="any",
        memory_mb=20,
        golden=(
            Golden("black", 0.0, 0.0, "by hand"),
            Golden("grey", -128 / 255, 1e-6, "by hand: -128/255"),
            Golden("checker", -0.5, 1e-6, "by hand: half of the pixels are white"),
        ),
    ),
    RewardCard(
        id="aesthetic",
        version="1",
        summary="LAION aesthetic predictor v2 on CLIP ViT-L/14: how people rated pictures that look like this",
        load="ddpo.rewards.models.aesthetic:Aesthetic",
        family="clip",
        flaws="ignores the prompt; drifts to painterly, centred, soft-lit portraits; one direction in CLIP space, so adversarial textures "
        "reach it; scores of other preprocessings differ by up to 0.1",
        unit="predicted mean rating, nominally 1 … 10",
        range=(-12.76, 23.23),
        typical=(4.0, 5.4, 6.5),
        typical_source="rough, from published curves of Stable Diffusion 1.x samples; not measured here",
        preprocessing="uint8, PIL bicubic to 224 on the shorter side, centre crop 224, CLIP mean and std",
        dtype="float32",
        device="any",
        libraries=("torch", "transformers", "pillow"),
        memory_mb=1400,
        weights=(LAION_V2_HEAD, CLIP_L14),
        paper="https://github.com/christophschuhmann/improved-aesthetic-predictor",
        lineage=("openai/clip-vit-large-patch14", "SAC", "LOGOS", "AVA"),
        options=(
            RewardOption("head", None, "local copy of sac+logos+ava1-l14-linearMSE.pth; verified by its SHA-256"),
            RewardOption("clip", None, "local copy of the CLIP checkpoint's model.safetensors; verified by its SHA-256"),
            RewardOption("device", "cpu", "torch device of the CLIP tower"),
        ),
    ),
    RewardCard(
        id="alignment",
        version="1",
        summary="LLaVA describes the picture; BERTScore recall of the prompt in that description",
        load="ddpo.rewards.models.alignment:Alignment",
        family="vlm",
        flaws="counts and small text are misread; cartoon-like pictures are described more readily; a picture that spells "
        "the prompt scores",
        unit="BERTScore recall, not rescaled",
        range=(-1.0, 1.0),
        typical=(0.5, 0.65, 0.9),
        typical_source="rough, from the literature; not measured here",
        inputs=("image", "prompt"),
        preprocessing="JPEG quality 80; 'Answer concisely: what is going on in this image?', greedy, 64 tokens; "
        "'The image contains {prompt}'",
        dtype="float16 on a GPU, float32 on a CPU",
        device="any",
        libraries=("torch", "transformers", "pillow"),
        memory_mb=17_500,
        weights=(LLAVA, DEBERTA),
        paper=DDPO_PAPER,
        lineage=("llava-1.5-7b", "openai/clip-vit-large-patch14-336", "deberta-xlarge-mnli"),
        options=(
            RewardOption("vlm", LLAVA.source, "folder or hub id of the vision-language model"),
            RewardOption("scorer", DEBERTA.source, "folder or hub id of the BERTScore encoder"),
            RewardOption("layer", 40, "encoder layer of which the hidden states are compared"),
            RewardOption("device", "cpu", "torch device of both models"),
        ),
    ),
)

CARDS: Final[dict[str, RewardCard]] = {card.id: card for card in _CARDS}
