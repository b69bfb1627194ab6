"""The `nsfw` guard on a tiny ViT, against transformers itself; as a penalty and a constraint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.images import to_rgb
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models.nsfw import preprocess
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.trainer import config_from_dict
from ddpo.trainer.loop import train
from ddpo.types import ImageBatch, Prompt

PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
MODES = [
    ((512, 512), "RGB"),
    ((100, 100), "RGB"),
    ((224, 224), "L"),
    ((640, 360), "RGBA"),
    ((201, 334), "CMYK"),
    ((31, 90), "LA"),
    ((300, 1000), "P"),
    ((449, 447), "1"),
]


def save(
    folder: Path,
    labels: tuple[str, ...] = ("normal", "nsfw"),
    processor: dict[str, Any] | None = None,
    **sizes: Any,
) -> str:
    """A classifier's folder as published, with weights large enough for scores that differ."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        patch_size=56,
        image_size=224,
        initializer_range=0.4,
        id2label=dict(enumerate(labels)),
        label2id={name: n for n, name in enumerate(labels)},
        **sizes,
    )
    model = ViTForImageClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():  # logits that vary by 1.5 around 0 over the images below
        pixels = torch.stack([preprocess(image, PROCESSOR) for image in images()])
        spread, mean = torch.std_mean(model(pixels).logits - model.classifier.bias, dim=0)
        model.classifier.weight *= 1.5 / spread[:, None]
        model.classifier.bias.copy_(-1.5 * mean / spread)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(PROCESSOR if processor is None else processor)
    )
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("nsfw"))


def images() -> list[Image.Image]:
    """Smooth ones and noise, of different sizes and modes."""
    found = []
    for seed, ((width, height), mode) in enumerate(MODES):
        coarse = (
            np.random.default_rng(seed)
            .integers(0, 256, (3 + 7 * seed, 4 + 5 * seed, 3))
            .astype(np.uint8)
        )
        found.append(
            to_rgb(
                Image.fromarray(coarse)
                .resize((width, height), Image.Resampling.BICUBIC)
                .convert(mode)
            )
        )
    return found


def by_transformers(folder: str, image: Image.Image, index: int) -> float:
    inputs = AutoImageProcessor.from_pretrained(folder, backend="pil")(image, return_tensors="pt")
    with torch.no_grad():
        logits = ViTForImageClassification.from_pretrained(folder)(**inputs).logits
    return float(logits.softmax(-1)[0, index])


def score(reward: Any, image: Image.Image) -> float:
    return float(reward(ImageBatch.of_images([image], [Prompt("x")])).values[0])


def test_parity_with_transformers(model: str) -> None:
    reward = make_reward("nsfw", model=model)
    found = [score(reward, image) for image in images()]
    due = [by_transformers(model, image, 1) for image in images()]
    assert max(due) - min(due) > 0.2, "the images differ in score"
    assert found == pytest.approx(due, abs=1e-6)
    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    for image in images():
        assert torch.equal(
            preprocess(image, PROCESSOR), processor(image, return_tensors="pt")["pixel_values"][0]
        )


@pytest.mark.parametrize(
    "change",
    [
        {"resample": 3},
        {"resample": 0},
        {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"rescale_factor": 1 / 127.5},
        {"size": 224},
        {"do_convert_rgb": True},
    ],
    ids=str,
)
def test_the_folders_own_preprocessing_is_followed(change: dict[str, Any], tmp_path: Path) -> None:
    folder = save(tmp_path, processor=PROCESSOR | change)
    reward = make_reward("nsfw", model=folder)
    for image in images()[:4]:
        assert score(reward, image) == pytest.approx(by_transformers(folder, image, 1), abs=1e-6)


def test_what_the_settings_leave_out_is_as_in_transformers(tmp_path: Path) -> None:
    folder = save(tmp_path, processor={"image_processor_type": "ViTImageProcessor"})
    image = images()[3]
    assert score(make_reward("nsfw", model=folder), image) == pytest.approx(
        by_transformers(folder, image, 1), abs=1e-6
    )


def test_the_class_is_found_by_its_name(model: str, tmp_path: Path) -> None:
    image = images()[0]
    turned = make_reward("nsfw", model=save(tmp_path / "a", ("NSFW", "normal")))
    assert score(turned, image) == pytest.approx(
        1 - score(make_reward("nsfw", model=model), image), abs=1e-6
    )
    three = save(tmp_path / "b", ("drawing", "nsfw", "normal"))
    assert score(make_reward("nsfw", model=three), image) == pytest.approx(
        by_transformers(three, image, 1), abs=1e-6
    )
    for number, labels in enumerate((("cat", "dog"), ("nsfw", "NSFW"), ("not nsfw", "x"))):
        with pytest.raises(
            ConfigError, match=f"has the labels {', '.join(labels)}, not one 'nsfw'"
        ):
            make_reward("nsfw", model=save(tmp_path / str(number), labels))


def test_the_part_log_odds_is_the_logit_and_does_not_saturate(model: str) -> None:
    output = make_reward("nsfw", model=model)(ImageBatch.of_images(images()[:1], [Prompt("")]))
    value = float(output.values[0])
    assert float(output.parts["log_odds"][0]) == pytest.approx(
        math.log(value / (1 - value)), abs=1e-4
    )


def test_scores_do_not_depend_on_batch_mates(model: str) -> None:
    reward = make_reward("nsfw", model=model)
    some = [
        image.resize((64, 48)) for image in images()
    ] * 5  # more than go through the model at once
    prompts = [Prompt("")] * len(some)
    alone = [score(reward, image) for image in some[:16]]
    for count in (1, 3, 16, 40):
        found = reward(ImageBatch.of_images(some[:count], prompts[:count])).values.tolist()
        assert found[:16] == pytest.approx(alone[:count], abs=1e-6)
    assert reward(ImageBatch(torch.zeros(0, 3, 8, 8), [])).values.shape == (0,)


def test_the_conformance_kit(model: str) -> None:
    options = {option.name: option.default for option in CARDS["nsfw"].options} | {"model": model}
    only = sorted(set(all_checks()) - {"light-listing", "missing-weights", "card-options"})
    results = {
        r.name: r
        for r in check_reward(ResolvedReward(CARDS["nsfw"], options, "ddpo", None), only=only)
    }
    assert {name: result.detail for name, result in results.items() if not result.ok} == {}
    for name in (
        "construction",
        "contract",
        "no-silent-score",
        "batch-invariance",
        "order",
        "rounding",
        "picture-sizes",
        "empty-batch",
    ):
        assert results[name].outcome == "passed", name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_center_crop": True}, "has do_center_crop=True, which is not known here"),
        ({"do_normalize": False}, "has do_normalize=False, which is not known here"),
        (
            {"size": {"shortest_edge": 224}},
            r"makes images of \{'shortest_edge': 224\}, the model takes 224×224",
        ),
        ({"size": {"height": 112, "width": 112}}, "the model takes 224×224"),
    ],
)
def test_other_preprocessing_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_reward("nsfw", model=save(tmp_path, processor=PROCESSOR | change))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(save(tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("classifier.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(MissingResourceError, match=r"lacks 1 tensors, such as classifier\.weight"):
        make_reward("nsfw", model=str(folder))
    for name in ("model.safetensors", "preprocessor_config.json"):
        (folder / name).unlink()
        with pytest.raises(
            MissingResourceError,
            match=r"^reward 'nsfw' needs Falconsai/nsfw_image_detection .*give a folder",
        ) as caught:
            make_reward("nsfw", model=str(folder))
        assert "\n" not in str(caught.value)


def test_without_weights_one_line_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    due = (
        r"^reward 'nsfw' needs Falconsai/nsfw_image_detection \(343 MB, Apache-2\.0\): "
        r"run `ddpo rewards download nsfw`"
    )
    with pytest.raises(MissingResourceError, match=due) as caught:
        make_reward("nsfw")
    assert "\n" not in str(caught.value)


def test_the_full_size_is_that_of_the_card() -> None:
    with torch.device("meta"):
        full = ViTForImageClassification(ViTConfig(num_labels=2))
    assert sum(parameter.numel() for parameter in full.parameters()) * 4e-6 == pytest.approx(
        CARDS["nsfw"].weights[0].megabytes, rel=0.01
    )


def test_as_a_penalty_and_as_a_constraint(model: str) -> None:
    """docs/combining-rewards.md, "A guard"."""
    batch = ImageBatch.of_images(
        [image.resize((64, 64)) for image in images()], [Prompt("")] * len(MODES)
    )
    unsafe = make_reward("nsfw", model=model)(batch).values
    dark = make_reward("darkness")(batch).values
    edge = round(float(unsafe.median()), 3)
    assert (unsafe < edge).any()
    assert (unsafe > edge + 0.01).any()
    penalty = resolve(f"darkness + nsfw:model={model}:-1").make()(batch).values
    constraint = resolve(f"darkness + nsfw:model={model},clamp={edge}..:-10").make()(batch).values
    torch.testing.assert_close(penalty, dark - unsafe, atol=1e-5, rtol=0)
    torch.testing.assert_close(constraint, dark - 10 * unsafe.clamp(min=edge), atol=1e-5, rtol=0)
    assert CARDS["nsfw"].direction == "lower"


@pytest.mark.parametrize(
    ("reward", "floor", "weight"),
    [
        ("darkness + nsfw:model={model}:-1", 0.0, -1),
        ("nsfw:model={model}:-1", 0.0, -1),
        ("darkness + nsfw:model={model},clamp=0..:-10", 0.0, -10),
        (
            "darkness + nsfw:model={model},clamp=1..:-10",
            1.0,
            -10,
        ),  # never violated: a constant, which moves nothing
    ],
)
def test_a_run_can_be_trained_with_it(
    reward: str, floor: float, weight: float, model: str, tiny_model: Path, tmp_path: Path
) -> None:
    config = config_from_dict(
        {
            "model": str(tiny_model),
            "reward": reward.format(model=model),
            "iterations": 1,
            "checkpoint_every": 1,
            "grid_every": 1,
            "sample": {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 4},
            "optim": {"updates": 1, "timesteps": 1},
            "advantage": {"kind": "per_prompt", "min_count": 2},
        }
    )
    list(train(config, tmp_path / "run"))
    (line,) = [
        json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    parts = line["reward_parts"]
    assert 0 < parts["nsfw"] < 1
    assert line["reward_mean"] == pytest.approx(
        parts.get("darkness", 0) + weight * max(parts["nsfw"], floor), abs=1e-4
    )
