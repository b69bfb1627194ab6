"""The cards of the rewards that need no weights, statistics of pixels: pure data.

Typical values are percentiles over 500 images of one `pretraining.render.Renderer`, 64×64, from
`default_rng(0)`. Those of `compressibility`, `sharpness`, `edge_density` and `high_frequency`
depend on the number of pixels: read them with `typical_source`.

`lineage` names the property of an image that a statistic measures: two of one property move
together. The rank correlations over those 500 images are, in size, 0.71 … 0.92 within "pixel
detail", 0.65 in "colour", 0.53 in "layout" and 0.33 … 0.92 in "luma spread". The strongest across
properties are those of rotation_symmetry with contrast (0.68) and edge_density (0.60), since plain
images are symmetric.

None is cached. At 512×512, computing one takes 0.2 … 2 ms. The SHA-256 for a look-up takes 0.4 ms
for bytes and 1.7 ms for the floats that a trainer scores, where no image occurs twice. Decoding a
file takes 1.5 (JPEG) to 4.5 ms (PNG) either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ddpo.rewards.card import Golden, RewardCard

__all__ = ["DDPO_PAPER", "PIXEL_CARDS"]

DDPO_PAPER: Final = "https://arxiv.org/abs/2305.13301"
EMOJI: Final = "500 images of pretraining.render, 64×64, seed 0"
JPEG_GOLDEN: Final = {
    "black": 4.723,
    "grey": 4.721,
    "gradient": 20.406,
    "checker": 8.819,
    "sin": 70.761,
    "noise": 308.188,
}
JPEG_SOURCE: Final = (
    "file sizes by Pillow 9.5, 10.4, 11.3, 12.0, 13.0 (libjpeg-turbo 2.1.5 … 3.2.0)"
)
HALF_BYTE: Final = 5e-4  # kB: the size is exact to the byte
JPEG_PREPROCESSING: Final = "JPEG quality 95, 4:2:0, not optimised, bytes / 1000"


def _golden(source: str, scores: Mapping[str, float]) -> tuple[Golden, ...]:
    """Scores to nine digits, with the tolerance that float32 pixels and scores need."""
    return tuple(
        Golden(name, score, max(1e-6, 1e-6 * abs(score)), source) for name, score in scores.items()
    )


_ON_BYTES: Final[dict[str, Any]] = {
    "family": "pixels",
    "thread_safe": True,
    "cache": False,
    "typical_source": EMOJI,
}
_ON_FLOATS: Final[dict[str, Any]] = {
    **_ON_BYTES,
    "pixels": "float",
    "differentiable": True,
    "device": "any",
}

PIXEL_CARDS: Final = (
    RewardCard(
        id="compressibility",
        version="1",
        summary="minus the JPEG file size: plain, smooth images",
        load="ddpo.rewards.models.jpeg:Compressibility",
        flaws="blind to content: a blank image is the optimum; depends on the image size in pixels",
        unit="kB of 1000 bytes, negative",
        range=(None, 0.0),
        typical=(-3.89, -2.74, -2.08),
        preprocessing=JPEG_PREPROCESSING,
        libraries=("pillow", "libjpeg"),
        memory_mb=10,
        paper=DDPO_PAPER,
        lineage=("pixel detail",),
        golden=tuple(
            Golden(name, -size, HALF_BYTE, JPEG_SOURCE) for name, size in JPEG_GOLDEN.items()
        ),
        **_ON_BYTES,
    ),
    RewardCard(
        id="incompressibility",
        version="1",
        summary="the JPEG file size: busy, detailed images",
        load="ddpo.rewards.models.jpeg:Incompressibility",
        flaws="blind to content: pixel noise is the optimum (308 kB at 512×512); "
        "depends on the image size in pixels",
        unit="kB of 1000 bytes",
        range=(0.0, None),
        typical=(2.08, 2.74, 3.89),
        preprocessing=JPEG_PREPROCESSING,
        libraries=("pillow", "libjpeg"),
        memory_mb=10,
        paper=DDPO_PAPER,
        lineage=("pixel detail",),
        golden=tuple(
            Golden(name, size, HALF_BYTE, JPEG_SOURCE) for name, size in JPEG_GOLDEN.items()
        ),
        **_ON_BYTES,
    ),
    RewardCard(
        id="colorfulness",
        version="1",
        summary="colourfulness after Hasler and Süsstrunk: spread and strength of opponent colours",
        load="ddpo.rewards.models.colorfulness:Colorfulness",
        flaws="blind to content and harmony: saturated stripes or colour noise (138) "
        "score above any photograph",
        unit="Hasler-Süsstrunk M; 0 none, 33 moderate, above 82 extreme",
        range=(0.0, None),
        typical=(32.6, 97.6, 146.0),
        preprocessing="none",
        memory_mb=20,
        paper="https://doi.org/10.1117/12.477378",
        lineage=("colour",),
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
        **_ON_BYTES,
    ),
    RewardCard(
        id="symmetry",
        version="1",
        summary="minus the mean squared difference to the mirror image (left-right)",
        load="ddpo.rewards.models.symmetry:Symmetry",
        flaws="a blank image is perfectly symmetric; low contrast raises the score, symmetric or "
        "not",
        unit="squared pixel difference, pixels in [0, 1], negative",
        range=(-1.0, 0.0),
        typical=(-0.111, -0.0345, -0.00641),
        preprocessing="none",
        memory_mb=20,
        lineage=("layout",),
        golden=_golden(
            "by hand for one colour and for the squares; "
            "else the difference to ImageOps.mirror, squared and summed by Pillow",
            {
                "black": 0.0,
                "grey": 0.0,
                "checker": -1.0,
                "gradient": -0.139865016,
                "sin": -0.0144445206,
                "noise": -0.167634371,
            },
        ),
        **_ON_FLOATS,
    ),
    RewardCard(
        id="rotation_symmetry",
        version="1",
        summary="minus the mean squared difference to the image rotated by 180 degrees",
        load="ddpo.rewards.models.symmetry:RotationSymmetry",
        flaws="a blank image is perfectly symmetric; low contrast raises the score, symmetric or "
        "not; things with a top and a bottom, as most have, score low",
        unit="squared pixel difference, pixels in [0, 1], negative",
        range=(-1.0, 0.0),
        typical=(-0.152, -0.0608, -0.0172),
        preprocessing="none",
        memory_mb=20,
        lineage=("layout",),
        golden=_golden(
            "by hand for one colour and for the squares; "
            "else the difference to Image.rotate(180), squared and summed by Pillow",
            {
                "black": 0.0,
                "grey": 0.0,
                "checker": 0.0,
                "gradient": -0.279730032,
                "sin": -0.0844095632,
                "noise": -0.168079661,
            },
        ),
        **_ON_FLOATS,
    ),
    RewardCard(
        id="darkness",
        version="1",
        summary="minus the mean luma (BT.601): dark images",
        load="ddpo.rewards.models.darkness:Darkness",
        flaws="a black image is the optimum; blind to content, only the average counts",
        unit="luma in [0, 1], negative",
        range=(-1.0, 0.0),
        typical=(-0.793, -0.559, -0.331),
        preprocessing="none",
        memory_mb=20,
        lineage=("luma level",),
        golden=_golden(
            "by hand for black, grey (-128/255) and the squares (half of them white); "
            "else channel means by Pillow's ImageStat",
            {
                "black": 0.0,
                "grey": -0.501960784,
                "checker": -0.5,
                "gradient": -0.498046004,
                "sin": -0.498136148,
                "noise": -0.499993155,
            },
        ),
        **_ON_FLOATS,
    ),
    RewardCard(
        id="contrast",
        version="1",
        summary="root-mean-square contrast: the standard deviation of luma",
        load="ddpo.rewards.models.contrast:Contrast",
        flaws="blind to position: half black, half white is the optimum (0.5), in blocks or as "
        "noise; a single black bar raises it",
        unit="standard deviation of BT.601 luma in [0, 1]",
        range=(0.0, 0.5),
        typical=(0.0652, 0.153, 0.282),
        preprocessing="luma BT.601, gamma-encoded",
        memory_mb=20,
        paper="https://doi.org/10.1364/JOSAA.7.002032",
        lineage=("luma spread",),
        golden=_golden(
            "√(wᵀΣw) with NumPy's covariance Σ of the channels and the luma weights w",
            {
                "black": 0.0,
                "grey": 0.0,
                "checker": 0.5,
                "gradient": 0.213204231,
                "sin": 0.153926349,
                "noise": 0.194024906,
            },
        ),
        **_ON_FLOATS,
    ),
    RewardCard(
        id="saturation",
        version="1",
        summary="mean saturation of HSV: pure colours",
        load="ddpo.rewards.models.saturation:Saturation",
        flaws="an image of one pure colour is the optimum; relative to brightness, so nearly "
        "black pixels with a tint count fully; noise scores 0.67",
        unit="(max - min) / max of R, G, B, mean over pixels",
        range=(0.0, 1.0),
        typical=(0.175, 0.512, 0.751),
        preprocessing="HSV, S of a black pixel is 0",
        memory_mb=20,
        paper="https://doi.org/10.1145/965139.807361",
        lineage=("colour",),
        golden=_golden(
            "colorsys of the standard library, over every colour of the image",
            {
                "black": 0.0,
                "grey": 0.0,
                "checker": 0.0,
                "gradient": 0.503868103,
                "sin": 0.274983808,
                "noise": 0.668211953,
            },
        ),
        **_ON_FLOATS,
    ),
    RewardCard(
        id="sharpness",
        version="1",
        summary="variance of the Laplacian of luma: crisp rather than blurred",
        load="ddpo.rewards.models.sharpness:Sharpness",
        flaws="alternating black and white pixels are the optimum; noise scores 49,000, painted "
        "seascapes hundreds; grows with contrast; falls when the same image is enlarged, so "
        "compare images of one size only",
        unit="squared levels of luma on 0 … 255",
        range=(0.0, 1_040_400.0),  # 1020²: luma from 255 to 0 and back
        typical=(388.0, 1430.0, 4470.0),
        preprocessing="luma BT.601 on 0 … 255, kernel 0 1 0 / 1 -4 1 / 0 1 0, edges replicated",
        memory_mb=20,
        paper="https://doi.org/10.1109/ICPR.2000.903548",
        lineage=("pixel detail", "luma spread"),
        golden=_golden(
            "scipy.ndimage.laplace, mode nearest",
            {
                "black": 0.0,
                "grey": 0.0,
                "checker": 39880.5977,
                "gradient": 0.458434733,
                "sin": 2.02037363,
                "noise": 48888.3854,
            },
        ),
        **_ON_FLOATS,
    ),
    RewardCard(
        id="edge_density",
        version="1",
        summary="mean strength of edges in luma (Sobel): much fine structure",
        load="ddpo.rewards.models.edges:EdgeDensity",
        flaws="black and white squares of 8 pixels score 0.21, pixel noise 0.11, painted "
        "seascapes 0.01 … 0.02; grows with contrast; falls when the same image is enlarged, so "
        "compare images of one size only",
        unit="mean gradient, luma in [0, 1] per pixel",
        range=(0.0, 0.56),
        typical=(0.0144, 0.0318, 0.0709),
        preprocessing="luma BT.601, Sobel kernels / 8, edges replicated",
        memory_mb=30,
        lineage=("pixel detail", "luma spread"),
        golden=_golden(
            "scipy.ndimage.sobel, mode nearest, over 8",
            {
                "black": 0.0,
                "grey": 0.0,
                "checker": 0.206943564,
                "gradient": 0.00143898443,
                "sin": 0.0245813122,
                "noise": 0.106166175,
            },
        ),
        **_ON_FLOATS,
    ),
    RewardCard(
        id="high_frequency",
        version="1",
        summary="share of the luma power in fine detail, above half of the highest frequency "
        "(Nyquist)",
        load="ddpo.rewards.models.frequency:HighFrequency",
        flaws="a chequerboard of single pixels is the optimum, noise scores 0.80; blind to "
        "contrast: the faintest grain on a plain image counts fully; the borders hardly count; "
        "falls when the same image is enlarged, so compare images of one size only",
        unit="share of power, mean taken off",
        range=(0.0, 1.0),
        typical=(0.0334, 0.0756, 0.215),
        preprocessing="luma BT.601, mean off, Hann window, 2-D Fourier transform; "
        "radial frequency above 0.25 cycles per pixel",
        memory_mb=40,
        paper="https://doi.org/10.1002/j.1538-7305.1958.tb03874.x",
        lineage=("spectrum",),
        golden=_golden(
            "scipy.fft.fft2, all frequencies, window ½ - ½ cos",
            {
                "black": 0.0,
                "grey": 0.0,
                "checker": 0.159591793,
                "gradient": 3.96613912e-05,
                "sin": 1.33286984e-05,
                "noise": 0.802673122,
            },
        ),
        **_ON_FLOATS,
    ),
    RewardCard(
        id="entropy",
        version="1",
        summary="Shannon entropy of the luma histogram: how evenly the grey levels are used",
        load="ddpo.rewards.models.entropy:Entropy",
        flaws="blind to position: a smooth ramp scores as high as noise, and shuffling all pixels "
        "changes nothing",
        unit="bits",
        range=(0.0, 8.0),
        typical=(2.67, 3.79, 6.33),
        preprocessing="luma BT.601 rounded to 256 levels by Pillow",
        libraries=("pillow",),
        memory_mb=10,
        paper="https://doi.org/10.1002/j.1538-7305.1948.tb01338.x",
        lineage=("luma spread",),
        golden=_golden(
            "scipy.stats.entropy of NumPy's count of (19595 R + 38470 G + 7471 B + 32768) >> 16",
            {
                "black": 0.0,
                "grey": 0.0,
                "checker": 1.0,
                "gradient": 7.76355963,
                "sin": 7.13744094,
                "noise": 7.63330027,
            },
        ),
        **_ON_BYTES,
    ),
)
