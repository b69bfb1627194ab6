"""HPS v2: parity with OpenCLIP and the original's steps on tiny weights; the kit; messages."""

from __future__ import annotations

import io
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.errors import ConfigError, MissingResourceError, RewardLoadError
from ddpo.images import to_rgb
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models import hpsv2
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.signature import signature
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt

TINY: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 40, "head_width": 20, "patch_size": 28},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
PROMPTS = ["a cat", "", "Ein Café — “smart” &amp; 猫", "many words " * 60]
MODES = [
    ((512, 512), "RGB"),
    ((100, 100), "RGB"),
    ((224, 224), "L"),
    ((640, 360), "P"),
    ((200, 333), "CMYK"),
    ((31, 90), "LA"),
    ((300, 1000), "RGBA"),
    ((449, 447), "1"),
]


@cache
def state_of(seed: int) -> dict[str, torch.Tensor]:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(seed)
    model = open_clip.CLIP(**TINY)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both releases' files, in the layout of the originals: keys of OpenCLIP under `state_dict`."""
    path = tmp_path_factory.mktemp("hps")
    for seed, name in enumerate(hpsv2.CHECKPOINTS.values()):
        torch.save({"epoch": 1, "name": "tiny", "state_dict": state_of(seed)}, path / name)
    return path


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpsv2, "SIZES", TINY)


def make_image(number: int, size: tuple[int, int], mode: str) -> Image.Image:
    coarse = np.random.default_rng(number).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


class Original:
    """The steps of the original's score() in their order, by torchvision and OpenCLIP."""

    def __init__(self, file: Path, antialias: bool) -> None:
        open_clip = pytest.importorskip("open_clip")
        torchvision = pytest.importorskip("torchvision")
        self.model = open_clip.CLIP(**TINY, output_dict=True).eval()
        self.tokenizer = open_clip.get_tokenizer("ViT-H-14")
        self.model.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
        self.functional = torchvision.transforms.functional
        self.mode = torchvision.transforms.InterpolationMode.BICUBIC
        self.antialias = antialias

    def scores(self, image: Image.Image, prompts: list[str]) -> list[float]:
        tensor = self.functional.to_tensor(image)
        scale = 224 / float(max(tensor.shape[1:]))
        sides = [round(side * scale) for side in tensor.shape[1:]]
        if scale != 1.0:
            tensor = self.functional.resize(tensor, sides, self.mode, antialias=self.antialias)
            high, wide = (224 - side for side in sides)
            tensor = self.functional.pad(
                tensor, [wide // 2, high // 2, wide - wide // 2, high - high // 2], fill=0
            )
        tensor = self.functional.normalize(
            tensor, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        )
        scores = []
        for prompt in prompts:
            with torch.no_grad():
                output = self.model(tensor[None], self.tokenizer([prompt]))
            scores.append(
                float(torch.diagonal(output["image_features"] @ output["text_features"].T)[0])
            )
        return scores


@pytest.mark.parametrize(
    ("release", "antialias"), [("v2.1", False), ("v2.1", True), ("v2.0", False)]
)
def test_parity_with_the_original_steps(folder: Path, release: str, antialias: bool) -> None:
    file = folder / hpsv2.CHECKPOINTS[release]
    reward = make_reward("hpsv2", release=release, checkpoint=str(file), antialias=antialias)
    original = Original(file, antialias)
    ours = []
    due = []
    for number, (size, mode) in enumerate(MODES):
        image = make_image(number, size, mode)
        rgb = to_rgb(image)
        output = reward(
            ImageBatch.of_images([rgb] * len(PROMPTS), [Prompt(text) for text in PROMPTS])
        )
        assert output.parts["truncated"].tolist() == [0, 0, 0, 1]
        ours.append(output.values.tolist())
        due.append(
            original.scores(rgb if "A" in mode else image.convert("RGB"), PROMPTS)
        )  # which has no way with alpha
    assert np.abs(np.array(ours) - np.array(due)).max() < 2e-6
    assert (
        np.std(due, axis=0).min() > 1e-3
    )  # images and prompts both move it, by more than is allowed above
    assert np.std(due, axis=1).min() > 1e-3


def test_antialiasing_and_releases_are_other_scores_with_other_signatures(folder: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (1, 512, 512, 3)).astype(np.uint8)
    batch = ImageBatch.of_uint8(noise, [Prompt("a cat")])
    choices: list[dict[str, Any]] = [{}, {"antialias": True}, {"release": "v2.0"}]
    scores = [
        float(
            make_reward(
                "hpsv2", checkpoint=str(folder / hpsv2.CHECKPOINTS[c.get("release", "v2.1")]), **c
            )(batch).values[0]
        )
        for c in choices
    ]
    assert (
        min(abs(scores[0] - scores[1]), abs(scores[0] - scores[2]), abs(scores[1] - scores[2]))
        > 1e-3
    )
    assert len({signature(CARDS["hpsv2"], choice) for choice in choices}) == 3


def test_sizes_are_those_of_openclips_vit_h_14(monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip = pytest.importorskip("open_clip")
    monkeypatch.undo()
    assert open_clip.get_model_config("ViT-H-14") == hpsv2.SIZES
    with torch.device("meta"):
        model = open_clip.CLIP(**hpsv2.SIZES)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(
        986e6, rel=1e-3
    )


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((448, 224), (0, 56, 224, 168)),
        ((224, 101), (0, 61, 224, 162)),
        ((1, 4096), (111, 0, 112, 224)),
    ],
)
def test_the_whole_image_is_kept_in_a_black_square(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    found = hpsv2.preprocess(torch.full((1, 3, size[1], size[0]), 0.5))[0].permute(1, 2, 0)
    mean = torch.tensor(hpsv2.MEAN)
    std = torch.tensor(hpsv2.STD)
    expected = (-mean / std).expand(224, 224, 3).clone()
    left, top, right, bottom = box
    expected[top:bottom, left:right] = (0.5 - mean) / std
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_end_token_survives_the_cut_and_a_prompt_that_just_fits_is_not_cut(
    folder: Path,
) -> None:
    reward: Any = make_reward("hpsv2", checkpoint=str(folder / "HPS_v2.1_compressed.pt"))
    images = np.zeros((3, 8, 8, 3), np.uint8)
    output = reward(
        ImageBatch.of_uint8(images, [Prompt("cat " * count) for count in (75, 76, 500)])
    )
    assert output.parts["truncated"].tolist() == [0, 1, 1]
    assert output.values[0] == pytest.approx(float(output.values[2]), abs=1e-6)


def test_bfloat16_is_another_score_near_by(folder: Path) -> None:
    pixels = np.stack([np.asarray(make_image(number, (90, 60), "RGB")) for number in range(4)])
    batch = ImageBatch.of_uint8(pixels, [Prompt(text) for text in PROMPTS])
    checkpoint = str(folder / "HPS_v2.1_compressed.pt")
    due, found = (
        make_reward("hpsv2", checkpoint=checkpoint, dtype=dtype)(batch).values
        for dtype in ("float32", "bfloat16")
    )
    assert 1e-5 < (found - due).abs().max() < 0.05
    with pytest.raises(ConfigError, match="'hpsv2': dtype is 'half'"):
        make_reward("hpsv2", checkpoint=checkpoint, dtype="half")


def test_a_text_runs_once(folder: Path) -> None:
    reward = make_reward("hpsv2", checkpoint=str(folder / "HPS_v2.1_compressed.pt"))
    batch = ImageBatch.of_uint8(
        np.zeros((8, 9, 9, 3), np.uint8), [Prompt(text) for text in PROMPTS * 2]
    )
    first = reward(batch).values
    assert torch.equal(reward(batch).values, first)
    assert reward._texts.passes == 4  # type: ignore[attr-defined]


def test_no_images_no_scores(folder: Path) -> None:
    reward = make_reward("hpsv2", checkpoint=str(folder / "HPS_v2.1_compressed.pt"))
    assert reward(ImageBatch(torch.zeros(0, 3, 8, 8), [])).values.shape == (0,)


def test_the_conformance_kit(folder: Path) -> None:
    pytest.importorskip("open_clip")
    options = {option.name: option.default for option in CARDS["hpsv2"].options} | {
        "checkpoint": str(folder / "HPS_v2.1_compressed.pt")
    }
    only = sorted(set(all_checks()) - {"light-listing", "missing-weights", "card-options"})
    results = {
        r.name: r
        for r in check_reward(ResolvedReward(CARDS["hpsv2"], options, "ddpo", None), only=only)
    }
    assert {name: result.detail for name, result in results.items() if not result.ok} == {}
    for name in (
        "construction",
        "batch-invariance",
        "order",
        "rounding",
        "long-prompt",
        "picture-sizes",
        "empty-batch",
        "score-range",
    ):
        assert results[name].outcome == "passed", name


@pytest.mark.parametrize("release", ["v2.1", "v2.0"])
def test_without_weights_one_line_says_how_to_get_them(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingResourceError) as caught:
        make_reward("hpsv2", release=release)
    for part in (
        "hpsv2",
        f"HPS {release}",
        "3.9 GB",
        "Apache-2.0",
        f"hf download xswu/HPSv2 {hpsv2.CHECKPOINTS[release]}",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingResourceError, match=r"3\.9 GB.*is not at"):
        make_reward("hpsv2", release=release, checkpoint=str(tmp_path / "absent.pt"))


def test_without_open_clip_one_line_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        RewardLoadError, match=r"open_clip, which is not installed: install it, or reinstall ddpo"
    ) as caught:
        make_reward("hpsv2", checkpoint=str(folder / "HPS_v2.1_compressed.pt"))
    assert "\n" not in str(caught.value)


def test_no_such_release() -> None:
    with pytest.raises(ConfigError, match=r"release is 'v3', not one of v2\.1, v2\.0"):
        make_reward("hpsv2", release="v3")


class Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("code of the checkpoint was run",)


def saved(thing: Any) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "fault", ["empty", "text", "other file", "key missing", "key too many", "other shape", "code"]
)
def test_another_file_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    state = state_of(0)
    content = {
        "empty": lambda: b"",
        "text": lambda: b"<html>not found</html>",
        "other file": lambda: saved([1, 2]),
        "key missing": lambda: saved(
            {"state_dict": {name: state[name] for name in list(state)[1:]}}
        ),
        "key too many": lambda: saved(
            {"state_dict": {**state, "score_predictor.weight": torch.zeros(1)}}
        ),
        "other shape": lambda: saved({"state_dict": {**state, "visual.proj": torch.zeros(2, 2)}}),
        "code": lambda: saved({"state_dict": state, "more": Runs()}),
    }
    (tmp_path / "x.pt").write_bytes(content[fault]())
    with pytest.raises(MissingResourceError, match=r"x\.pt is no checkpoint of HPS v2") as caught:
        make_reward("hpsv2", checkpoint=str(tmp_path / "x.pt"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
