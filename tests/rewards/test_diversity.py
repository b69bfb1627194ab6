"""LPIPS and DINOv2 diversity: parity with the originals on random weights, groups, messages."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dino import save_tiny_dino
from tiny_lpips import alexnet_state, linear_state, noise_images

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.images import to_rgb
from ddpo.rewards.cache import ScoreCache
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.groups import ALONE
from ddpo.rewards.models import lpips
from ddpo.rewards.models.dino import preprocess
from ddpo.rewards.models.diversity import cosine_distances, mean_pairwise, mean_to_others, unit_rows
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt
from ddpo.weights import sha256_of

EXPECTED = json.loads(Path(__file__).with_name("lpips_expected.json").read_text("utf-8"))
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

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture
def make(lpips_files: tuple[Path, Path], dino_folder: Path) -> Make:
    """Makes a reward on tiny weights."""
    options = {
        "diversity_lpips": {
            "alexnet": str(lpips_files[0]),
            "linear": str(lpips_files[1]),
            "side": 64,
        },
        "diversity_dino": {"dino": str(dino_folder)},
    }
    return lambda name, **more: make_reward(name, **{**options[name], **more})


@pytest.fixture
def lpips_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    files = tmp_path / "alexnet.pth", tmp_path / "alex.pth"
    for file, name, state in zip(
        files, ("ALEXNET", "LPIPS_LINEAR"), (alexnet_state(), linear_state()), strict=True
    ):
        torch.save(state, file)
        expect(monkeypatch, name, file)
    return files


def expect(monkeypatch: pytest.MonkeyPatch, name: str, file: Path) -> None:
    """Makes the loader take `file` for the official one."""
    monkeypatch.setattr(
        lpips, name, dataclasses.replace(getattr(lpips, name), sha256=sha256_of(file))
    )


def prompts(texts: str) -> list[Prompt]:
    return [Prompt(text) for text in texts]


def make_image(number: int, size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    coarse = np.random.default_rng(number).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("size", list(EXPECTED["distances"]))
def test_lpips_is_that_of_the_original(size: str, lpips_files: tuple[Path, Path]) -> None:
    due = torch.tensor(EXPECTED["distances"][size], dtype=torch.float64)
    height, width = (int(side) for side in size.split("x"))
    pixels = torch.from_numpy(
        noise_images(len(due), (height, width)).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    )
    model = lpips.load_lpips(*map(str, lpips_files), "tests")
    found = lpips.lpips_distances(lpips.lpips_features(model, pixels))
    assert float((found - due).abs().max()) < 1e-6
    assert float(due[0, 1:].std()) > 1e-3  # pairs differ by more than is allowed above


def test_the_lpips_reward_is_the_mean_over_all_pairs_of_a_prompt(make: Make) -> None:
    due = np.array(EXPECTED["distances"]["64x64"])
    output = make("diversity_lpips")(
        ImageBatch.of_uint8(noise_images(8, (64, 64)), prompts("abababab"))
    )
    for group in ([0, 2, 4, 6], [1, 3, 5, 7]):
        pairs = due[np.ix_(group, group)]
        assert output.values[group].tolist() == pytest.approx(
            [pairs[np.triu_indices(4, 1)].mean()] * 4, abs=1e-6
        )
        assert output.parts["to_others"][group].tolist() == pytest.approx(
            (pairs.sum(1) / 3).tolist(), abs=1e-6
        )
    assert output.parts["n"].tolist() == [4.0] * 8
    assert output.values.isfinite().all()


def test_images_of_another_size_are_resized_by_pillow(make: Make) -> None:
    reward = make("diversity_lpips")
    images = [make_image(number, (90, 41)) for number in range(3)]
    squares = [image.resize((64, 64), Image.Resampling.BICUBIC) for image in images]
    one, other = (
        reward(ImageBatch.of_images(some, prompts("aaa"))).values for some in (images, squares)
    )
    assert one.tolist() == other.tolist()
    assert (
        make("diversity_lpips", side=96)(ImageBatch.of_images(images, prompts("aaa"))).values[0]
        != one[0]
    )
    with pytest.raises(ConfigError, match="side must be at least 32 and at most 4,096, got 31"):
        make("diversity_lpips", side=31)
    assert (
        make("diversity_lpips", side=32)(ImageBatch.of_images(images, prompts("aaa")))
        .values.isfinite()
        .all()
    )


def test_dino_features_are_those_of_transformers(make: Make, dino_folder: Path) -> None:
    from transformers import AutoModel, BitImageProcessorPil

    size = {
        "size": {"shortest_edge": 256},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    processor = BitImageProcessorPil(**size)
    model = AutoModel.from_pretrained(dino_folder)
    reward = make("diversity_dino")
    found = []
    due = []
    for number, (sides, mode) in enumerate(MODES):
        rgb = to_rgb(make_image(number, sides, mode))
        inputs = processor(rgb, return_tensors="pt")["pixel_values"]
        assert float((preprocess(rgb) - inputs[0]).abs().max()) < 1e-5
        with torch.no_grad():
            due.append(model(pixel_values=inputs).last_hidden_state[:, 0])
        found.append(reward.features(ImageBatch.of_images([rgb], prompts("a"))))
    ours = torch.cat(found)
    theirs = torch.cat(due)
    assert float((ours - theirs).abs().max()) < 1e-4
    cosines = torch.nn.functional.cosine_similarity(
        theirs[:, None].double(), theirs[None].double(), dim=-1
    )
    assert float((cosine_distances(ours) - (1 - cosines)).abs().max()) < 1e-5
    assert float(cosines.min()) < 0.99


@pytest.mark.parametrize("patches", [16, 12, 20])
def test_positions_are_fitted_without_the_offset_of_the_original_as_the_card_says(
    dino_folder: Path, patches: int
) -> None:
    """The original scales the grid of 37 patches by (patches + 0.1) / 37.

    Source: facebookresearch/dinov2, vision_transformer.py.
    """
    from transformers import AutoModel

    layer = AutoModel.from_pretrained(dino_folder).requires_grad_(False).embeddings
    side = patches * 14
    width = layer.position_embeddings.shape[-1]
    found = layer.interpolate_pos_encoding(torch.zeros(1, 1 + patches**2, width), side, side)[0, 1:]
    grid = layer.position_embeddings[:, 1:].reshape(1, 37, 37, width).permute(0, 3, 1, 2)

    def fitted(offset: float) -> torch.Tensor:
        scale = (patches + offset) / 37
        return (
            torch.nn.functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")[0]
            .flatten(1)
            .T
        )

    assert float((found - fitted(0.0)).abs().max()) < 1e-5
    assert float((found - fitted(0.1)).abs().max()) > 1e-3
    assert "without the offset of 0.1 patches" in CARDS["diversity_dino"].flaws


def test_the_dino_reward_is_one_minus_the_mean_cosine(make: Make) -> None:
    reward = make("diversity_dino")
    batch = ImageBatch.of_images(
        [make_image(number, (80, 60)) for number in range(4)], prompts("aaba")
    )
    output = reward(batch)
    rows = reward.features(batch)[[0, 1, 3]].double()
    cosines = [
        float(torch.nn.functional.cosine_similarity(rows[i], rows[j], dim=0))
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert output.values[[0, 1, 3]].tolist() == pytest.approx([1 - sum(cosines) / 3] * 3, abs=1e-6)
    assert output.parts["to_others"][3].item() == pytest.approx(
        1 - (cosines[1] + cosines[2]) / 2, abs=1e-6
    )


def test_distances_in_closed_form() -> None:
    rows = torch.tensor([[2.0, 0], [0, 3], [-1, 0], [1, 1], [0, 0], [0, 0]])
    half = 1 - 0.5**0.5
    due = [
        [0, 1, 2, half, 1, 1],
        [1, 0, 1, half, 1, 1],
        [2, 1, 0, 2 - half, 1, 1],
        [half, half, 2 - half, 0, 1, 1],
    ]
    found = cosine_distances(rows)
    assert np.allclose(found[:4], due, atol=1e-12)
    assert found[4:, 4:].tolist() == [[0, 0], [0, 0]]  # of rows without a direction
    assert np.allclose(unit_rows(rows).norm(dim=1), 1)
    distances = torch.tensor([[0.0, 1, 2], [1, 0, 6], [2, 6, 0]])
    assert mean_to_others(distances).tolist() == [1.5, 3.5, 4]
    assert mean_pairwise(distances) == 3


@pytest.mark.parametrize("name", ["diversity_lpips", "diversity_dino"])
def test_equal_images_are_not_diverse_at_all_and_one_alone_has_no_score(
    name: str, make: Make
) -> None:
    images = [make_image(0, (70, 50))] * 2 + [make_image(1, (70, 50))] * 3
    output = make(name)(ImageBatch.of_images(images, prompts("abaab")))
    assert output.values[[1, 4]].tolist()[0] > 0
    same = make(name)(ImageBatch.of_images(images, prompts("aabbc")))
    assert same.values[:4].tolist() == [0, 0, 0, 0]
    assert same.values[4].isnan()
    assert same.errors == (None, None, None, None, ALONE)
    assert same.parts["n"].tolist() == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("name", ["diversity_lpips", "diversity_dino"])
@pytest.mark.parametrize("n", [2, 3, 16])
def test_groups_of_any_number_and_size_do_not_see_each_other(name: str, n: int, make: Make) -> None:
    reward = make(name)
    rng = np.random.default_rng(n)
    for height, width in ((40, 40), (33, 65)):
        mine, others = (
            rng.integers(0, 256, (count, height, width, 3)).astype(np.uint8) for count in (n, 3)
        )
        alone = reward(ImageBatch.of_uint8(mine, prompts("a" * n)))
        assert alone.parts["n"].tolist() == [n] * n
        assert len(set(alone.values.tolist())) == 1
        assert alone.parts["to_others"].mean().item() == pytest.approx(
            alone.values[0].item(), rel=1e-5
        )
        both = reward(
            ImageBatch.of_uint8(
                np.concatenate([others[:1], mine, others[1:]]), prompts("b" + "a" * n + "bb")
            )
        )
        assert both.values[1 : n + 1].tolist() == pytest.approx(alone.values.tolist(), rel=1e-5)


def test_features_of_images_of_different_sizes_make_one_group(make: Make) -> None:
    """For a report on files: a batch has one size, features have one width."""
    for name, distances in (
        ("diversity_lpips", lpips.lpips_distances),
        ("diversity_dino", cosine_distances),
    ):
        reward = make(name)
        rows = [
            reward.features(ImageBatch.of_images([make_image(i, size)], prompts("a")))
            for i, size in enumerate(((50, 70), (64, 64), (9, 300)))
        ]
        assert 0 < mean_pairwise(distances(torch.cat(rows))) < 2


@pytest.mark.parametrize("name", ["diversity_lpips", "diversity_dino"])
def test_the_conformance_kit(name: str, lpips_files: tuple[Path, Path], dino_folder: Path) -> None:
    mine = {
        "alexnet": str(lpips_files[0]),
        "linear": str(lpips_files[1]),
        "side": 64,
        "dino": str(dino_folder),
    }
    options = {option.name: mine.get(option.name, option.default) for option in CARDS[name].options}
    only = sorted(set(all_checks()) - {"light-listing", "missing-weights"})
    results = {
        r.name: r
        for r in check_reward(ResolvedReward(CARDS[name], options, "ddpo", None), only=only)
    }
    assert {check: result.detail for check, result in results.items() if not result.ok} == {}
    for check in (
        "construction",
        "contract",
        "empty-batch",
        "rounding",
        "pixel-scale",
        "picture-sizes",
        "repeatability",
        "gradient",
    ):
        assert results[check].outcome == "passed", (check, results[check].detail)


def test_the_scorer_gives_whole_groups_and_keeps_nothing(make: Make, tmp_path: Path) -> None:
    images = np.random.default_rng(5).integers(0, 256, (9, 40, 40, 3)).astype(np.uint8)
    batch = ImageBatch.of_uint8(images, prompts("abcabcabc"))
    due = make("diversity_dino")(batch)
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        for pixels in (1, 40 * 40 * 4, 10**9):  # one group, one group, all groups a call
            scorer = Scorer(make("diversity_dino"), 2, batch_pixels=pixels, cache=cache)
            output = scorer.score(batch)
            assert output.values.tolist() == pytest.approx(due.values.tolist(), rel=1e-5)
            assert output.parts["n"].tolist() == [3] * 9
            assert scorer.served == 0


class Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("code of the file was run",)


def saved(thing: Any) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


FAULTS = ["text", "list", "missing", "unknown", "shape", "code"]


@pytest.mark.parametrize(
    ("which", "fault"),
    [
        ("linear", "negative"),
        *((which, fault) for which in ("alexnet", "linear") for fault in FAULTS),
    ],
)
def test_a_file_of_another_layout_is_refused(
    which: str,
    fault: str,
    lpips_files: tuple[Path, Path],
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = alexnet_state() if which == "alexnet" else linear_state()
    name = next(iter(state))
    content = {
        "text": lambda: b"<html>not found</html>",
        "list": lambda: saved([1, 2]),
        "missing": lambda: saved({key: value for key, value in state.items() if key != name}),
        "unknown": lambda: saved({**state, "features.12.weight": torch.ones(1)}),
        "shape": lambda: saved({**state, name: torch.ones(2, 2)}),
        "negative": lambda: saved({**state, name: -state[name]}),
        "code": lambda: saved({**state, "more": Runs()}),
    }
    file = lpips_files[which == "linear"]
    file.write_bytes(content[fault]())
    with pytest.raises(MissingResourceError, match="whose SHA-256 is"):
        make("diversity_lpips")
    expect(monkeypatch, "ALEXNET" if which == "alexnet" else "LPIPS_LINEAR", file)
    with pytest.raises(
        MissingResourceError, match=f"{file.name} is not the expected file of LPIPS"
    ) as caught:
        make("diversity_lpips")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "diversity_lpips",
            [
                "AlexNet (244.4 MB, BSD-3-Clause)",
                "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            ],
        ),
        (
            "diversity_dino",
            [
                "facebook/dinov2-base (346.4 MB, Apache-2.0)",
                "`ddpo rewards download diversity_dino`",
                "dino=…",
            ],
        ),
    ],
)
def test_without_weights_one_line_says_how_to_get_them(
    name: str, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("DDPO_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(place, str(tmp_path))
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    with pytest.raises(MissingResourceError) as caught:
        make_reward(name)
    assert all(part in str(caught.value) for part in (name, *parts)), caught.value
    assert "\n" not in str(caught.value)


def test_another_model_than_dino_or_one_that_is_not_whole_is_refused(
    dino_folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(dino_folder / "model.safetensors")
    settings = json.loads((dino_folder / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file(
        {name: value for name, value in state.items() if name != "layernorm.weight"},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(MissingResourceError, match=r"lacks 1 tensors, such as layernorm\.weight"):
        make_reward("diversity_dino", dino=str(tmp_path))
    (tmp_path / "config.json").write_text(
        json.dumps({**settings, "model_type": "dinov2_with_registers"})
    )
    with pytest.raises(MissingResourceError, match="of type 'dinov2_with_registers', not 'dinov2'"):
        make_reward("diversity_dino", dino=str(tmp_path))
