"""Adapters against the behaviour of other projects, and against inputs these accept silently."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.errors import (
    ConfigError,
    ImageError,
    PromptError,
    RewardFailure,
    RewardLoadError,
    UnknownNameError,
)
from ddpo.images import from_uint8
from ddpo.rewards.adapters import flow_factory_reward, image_scorer, multi_score, reward_function
from ddpo.rewards.cards import CARDS
from ddpo.rewards.scales import SCALES, divisor_of
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, RewardOutput

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "other-trainers.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
BYTES = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
FLOATS = from_uint8(BYTES)
TEXTS = ("a cat", "a dog", "a fox", "a bee")


def jpeg_kb(image: np.ndarray) -> float:
    """As ddpo-pytorch and its descendants compute it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=95)
    return file.tell() / 1000


SIZES = [jpeg_kb(image) for image in BYTES]


class Fussy:
    """The prompt's length or the metadata's value; no score if the first pixel is black."""

    card = dataclasses.replace(
        CARDS["compressibility"],
        id="fussy",
        inputs=("image", "prompt", "metadata", "context"),
        metadata=("bonus",),
        golden=(),
    )

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        black = [not image[0, 0].any() for image in batch.uint8]
        scores = [
            len(prompt.text) + prompt.metadata.get("bonus", 0) + (batch.context.progress or 0)
            for prompt in batch.prompts
        ]
        values = [
            math.nan if bad else float(score) for bad, score in zip(black, scores, strict=True)
        ]
        return RewardOutput(
            torch.tensor(values),
            {"length": torch.tensor(values)},
            tuple("too dark" if bad else None for bad in black),
        )


def with_black(*places: int) -> np.ndarray:
    images = np.full((4, 8, 8, 3), 200, np.uint8)
    images[list(places)] = 0
    return images


@pytest.mark.parametrize(
    "images", [FLOATS, FLOATS.double(), BYTES], ids=["float32", "float64", "uint8"]
)
def test_a_published_jpeg_configuration_is_repeated(images: Any) -> None:
    scores, info = reward_function("compressibility", scale="ddpo_pytorch")(
        images, TEXTS, ({},) * 4
    )
    assert scores.tolist() == [pytest.approx(-size, rel=1e-7) for size in SIZES]
    assert (scores.dtype, info) == (torch.float32, {"unscorable": {}})
    divided, _ = reward_function("compressibility", scale="flow_grpo")(
        images, list(TEXTS), [{}] * 4
    )
    assert divided.tolist() == [pytest.approx(-size / 500, rel=2e-7) for size in SIZES]


def test_half_precision_of_eight_bit_levels_is_exact_enough() -> None:
    levels = torch.tensor([0.0, 1.0]).repeat(12, 16).expand(2, 3, 12, 32)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(
            reward_function("sharpness")(levels.to(dtype), TEXTS[:2])[0],
            reward_function("sharpness")(levels, TEXTS[:2])[0],
        )


def test_multi_score_is_the_weighted_sum_that_flow_grpo_trains_on() -> None:
    fn = multi_score({"compressibility": 1.0, "incompressibility": 0.25}, scale="flow_grpo")
    scores, _ = fn(FLOATS, TEXTS, [{}] * 4, only_strict=False)
    assert list(scores) == ["compressibility", "incompressibility", "avg"]
    assert scores["avg"].tolist() == [
        pytest.approx(-size / 500 + 0.25 * size, rel=1e-6) for size in SIZES
    ]


def test_images_of_any_mode_and_size_keep_their_order() -> None:
    wide = Image.fromarray(BYTES[0])
    small = Image.fromarray(BYTES[1]).resize((9, 5))
    images = [wide, small, Image.fromarray(BYTES[2]), small.convert("L"), wide.convert("RGBA")]
    scores = image_scorer("incompressibility")(images)
    assert scores == [
        pytest.approx(jpeg_kb(np.asarray(image.convert("RGB"))), rel=1e-7) for image in images
    ]
    assert all(type(score) is float for score in scores)
    assert image_scorer("incompressibility")([]) == []


def test_scorer_reward_and_name_are_the_same_door() -> None:
    reward = make_reward("contrast")
    expected = reward_function("contrast")(BYTES, TEXTS)[0]
    assert torch.equal(reward_function(reward)(BYTES, TEXTS)[0], expected)
    assert torch.equal(reward_function(Scorer(reward))(BYTES, TEXTS)[0], expected)


def test_prompts_metadata_progress_and_parts_arrive() -> None:
    fn = reward_function(Fussy())
    scores, info = fn(with_black(), TEXTS, [{"bonus": 10}, {}, {"bonus": 1}, {}], progress=0.5)
    assert scores.tolist() == [15.5, 5.5, 6.5, 5.5]
    assert torch.equal(info["length"], scores)


def test_an_image_without_a_score_raises_unless_allowed() -> None:
    images = with_black(1, 2)
    with pytest.raises(
        RewardFailure, match=r"'fussy' has no score for image 1, and 1 more of 4: too dark"
    ):
        reward_function(Fussy())(images, TEXTS)
    texts = ("aa", "a", "a", "aaaa")
    scores, info = reward_function(Fussy(), unscorable="nan")(images, texts)
    assert [math.isnan(score) for score in scores.tolist()] == [False, True, True, False]
    assert info["unscorable"] == {1: "too dark", 2: "too dark"}
    scores, info = reward_function(Fussy(), unscorable="mean", scale=2)(images, texts)
    assert scores.tolist() == [1.0, 1.5, 1.5, 2.0]
    assert list(info["unscorable"]) == [1, 2]
    with pytest.raises(RewardFailure, match="a score for none of 4 images"):
        reward_function(Fussy(), unscorable="mean")(with_black(0, 1, 2, 3), texts)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (FLOATS * 255, r"must be in \[0, 1\], got 0 … 255"),
        (FLOATS * 2 - 1, r"must be in \[0, 1\], got -1 … 1"),
        (FLOATS * math.nan, r"must be in \[0, 1\], got nan"),
        ((FLOATS * 255).byte(), r"got torch.uint8 \[4, 3, 24, 32\]"),
        (FLOATS.permute(0, 2, 3, 1), r"got torch.float32 \[4, 24, 32, 3\]"),
        (FLOATS.numpy(), r"got float32 \[4, 3, 24, 32\]"),
        (BYTES[0], r"got uint8 \[24, 32, 3\]"),
        ([Image.fromarray(BYTES[0])], "got list"),
    ],
)
def test_images_in_another_form_are_refused(images: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        reward_function("contrast")(images, TEXTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "metadata", "message"),
    [
        (TEXTS[:3], None, "4 images came with 3 prompts"),
        ("abcd", None, "sequence of texts"),
        ((1, 2, 3, 4), None, "sequence of texts"),
        (None, None, "judges images by their prompts"),
        (TEXTS, [{}], "4 images came with 1 metadata"),
        (TEXTS, [{}, "x", {}, {}], "metadata of image 1 is a str"),
    ],
)
def test_prompts_and_metadata_in_another_form_are_refused(
    texts: Any, metadata: Any, message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        reward_function(Fussy())(BYTES, texts, metadata)


def test_metadata_that_nobody_reads_may_be_anything() -> None:
    assert len(reward_function("contrast")(BYTES, TEXTS, ("x", None, 3, {}))[0]) == 4
    assert (
        len(reward_function("contrast")(BYTES, TEXTS, {})[0]) == 4
    )  # as in the example of flow_grpo


def test_scales() -> None:
    assert divisor_of("pickscore", "flow_grpo") == divisor_of("pickscore", "flow_factory") == 26
    assert divisor_of("compressibility", "diffusion_nft") == 500
    assert {reward for _, reward in SCALES} - {"pickscore"} <= set(CARDS)
    with pytest.raises(UnknownNameError, match="did you mean 'flow_grpo'"):
        divisor_of("compressibility", "flowgrpo")
    with pytest.raises(ConfigError, match="flow_grpo has no reward 'contrast'"):
        reward_function("contrast", scale="flow_grpo")
    for bad in (0, -1, math.inf, math.nan, True):
        with pytest.raises(ConfigError, match="scale must be"):
            divisor_of("contrast", bad)


@pytest.mark.parametrize(
    ("project", "reward", "due"),
    [
        ("flow_grpo", "imagereward", 1),
        ("flow_grpo", "ocr", 1),
        ("flow_grpo", "aesthetic", 1),
        ("flow_grpo", "compressibility", 500),
        ("diffusion_nft", "imagereward", 1),
        ("diffusion_nft", "hpsv2", 1),
        ("diffusion_nft", "ocr", 1),
        ("diffusion_nft", "pickscore", 26),
    ],
)
def test_divisors_are_those_in_the_sources_of_the_projects(
    project: str, reward: str, due: float
) -> None:
    """Source: flow_grpo ac4c86e and DiffusionNFT 24af555, `multi_score` in rewards.py."""
    assert divisor_of(reward, project) == due


def test_a_reward_that_a_project_lacks_or_computes_otherwise_is_refused() -> None:
    for project, reward in (
        ("flow_grpo", "hpsv2"),
        ("flow_grpo", "clip_score"),
        ("diffusion_nft", "clip_score"),
        ("trl", "ocr"),
    ):
        with pytest.raises(ConfigError, match=f"{project} has no reward {reward!r}"):
            divisor_of(reward, project)


def test_arguments_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="unscorable must be"):
        reward_function("contrast", unscorable="zero")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got a int"):
        reward_function(3)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean 'contrast'"):
        reward_function("contrasst")
    with pytest.raises(ConfigError, match="at least one reward"):
        multi_score({})
    with pytest.raises(ImageError, match="image 1 is a str"):
        image_scorer("contrast")([Image.fromarray(BYTES[0]), "b.png"])  # type: ignore[list-item]


def test_flow_factory_class_stands_alone_where_flow_factory_is_missing() -> None:
    images = [Image.fromarray(image) for image in BYTES]
    output = flow_factory_reward("compressibility", scale=2.0)(None, None)(
        prompt=list(TEXTS), image=images
    )
    assert output.rewards.tolist() == [pytest.approx(-size / 2, rel=1e-7) for size in SIZES]
    with pytest.raises(ConfigError, match="passed none"):
        flow_factory_reward("compressibility")(None, None)(prompt=list(TEXTS))


def test_flow_factory_class_derives_from_its_base_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "flow_factory"
    package.mkdir()
    (package / "__init__.py").touch()
    (
        package / "rewards.py"
    ).write_text(  # the shape of X-GenGroup/Flow-Factory a0b2bc5, rewards/abc.py
        "from abc import ABC, abstractmethod\nfrom collections import namedtuple\n"
        "RewardModelOutput = namedtuple('RewardModelOutput', 'rewards extra_info')\n"
        "class PointwiseRewardModel(ABC):\n"
        "    def __init__(self, config, accelerator):\n        self.config = config\n"
        "    @abstractmethod\n    def __call__(self, prompt, image=None, **kwargs): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        found = flow_factory_reward("contrast")
        theirs = sys.modules["flow_factory.rewards"]
        reward = found("the config", None)
        assert isinstance(reward, theirs.PointwiseRewardModel)
        assert reward.config == "the config"
        output = reward(prompt=["a"], image=[Image.fromarray(BYTES[0])])
        assert isinstance(output, theirs.RewardModelOutput)
        (package / "rewards.py").write_text("import a_module_that_is_not_there\n")
        for name in ("flow_factory", "flow_factory.rewards"):
            sys.modules.pop(name, None)
        with pytest.raises(RewardLoadError, match="a_module_that_is_not_there"):
            flow_factory_reward("contrast")
    finally:
        for name in ("flow_factory", "flow_factory.rewards"):
            sys.modules.pop(name, None)


def test_a_reward_that_reads_metadata_is_no_reward_for_flow_factory(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(
        "from ddpo.rewards.card import RewardCard\n"
        "class Needs:\n"
        "    card = RewardCard(id='needs', version='1', summary='s', load='r:Needs', family='f',\n"
        "                      flaws='-', inputs=('image', 'metadata'))\n"
        "    def __call__(self, batch): ...\n"
    )
    with pytest.raises(ConfigError, match="Flow-Factory does not pass"):
        flow_factory_reward(f"{tmp_path / 'r.py'}:Needs")


@pytest.mark.parametrize(
    "snippet", SNIPPETS, ids=[snippet.splitlines()[0].lstrip("# ") for snippet in SNIPPETS]
)
def test_every_snippet_of_the_page_runs(
    snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, str(PAGE), "exec"), {"__name__": "snippet"})


def test_an_image_of_unknown_range_is_unscorable_and_the_others_are_scored() -> None:
    """Floats in 0 … 255, 32-bit integers, and no pixels; darkness is minus the mean level."""
    black = Image.new("RGB", (8, 8))
    odd = [
        Image.new("F", (8, 8), 200.0),
        Image.new("I", (8, 8), 200),
        Image.new("RGB", (0, 4)),
        Image.new("F", (8, 8), math.nan),
    ]
    scores = image_scorer("darkness", unscorable="nan")([black, *odd, Image.new("F", (8, 8), 0.4)])
    assert scores == pytest.approx([0, *[math.nan] * 4, -0.4], nan_ok=True)
    with pytest.raises(
        RewardFailure,
        match="no score for image 1, and 3 more of 5: its float pixels go from 200 to 200",
    ):
        image_scorer("darkness")([black, *odd])


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32, np.float64, bool, np.int8])
def test_arrays_of_other_types_are_refused_by_name(kind: type) -> None:
    with pytest.raises(ImageError, match=f"got {np.dtype(kind).name}"):
        reward_function("darkness")(np.zeros((2, 8, 8, 3), kind), TEXTS[:2])
