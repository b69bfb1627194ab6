"""`open_clip` against OpenCLIP's own loop on tiny random towers; its options, errors and card."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpo.errors import ConfigError, MissingResourceError, UserError
from ddpo.images import to_rgb
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models.aesthetic import Aesthetic, AestheticV1, image_encoder
from ddpo.rewards.tools.availability import availability
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt

TEXT: dict[str, Any] = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 32,
    "heads": 2,
    "layers": 2,
}
VIT: dict[str, Any] = {
    "image_size": 224,
    "layers": 2,
    "width": 32,
    "head_width": 16,
    "patch_size": 32,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "tiny-vit": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "tiny-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 96, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "tiny-sigmoid": {  # as SigLIP
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit3",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "linear",
        },
        "text_cfg": {
            **TEXT,
            "context_length": 16,
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    },
    "tiny-coca": {
        "embed_dim": 32,
        "custom_text": True,
        "multimodal_cfg": {**TEXT, "context_length": 76},
        "vision_cfg": {
            **VIT,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
    },
    "tiny-convnext": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 64,
            "timm_model_name": "test_convnext",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
        },
        "text_cfg": TEXT,
    },
}
PROMPTS = ("a red fox", "", "Ein Füchslein &amp; 猫 — “x”", "a city at night " * 20)
MODES = [
    ((224, 224), "RGB"),
    ((512, 512), "L"),
    ((100, 300), "P"),
    ((640, 31), "RGB"),
    ((64, 64), "CMYK"),
    ((227, 224), "LA"),
    ((1, 5), "RGB"),
    ((333, 231), "RGBA"),
]
IN_PROCESS = sorted(set(all_checks()) - {"light-listing", "missing-weights"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations that OpenCLIP knows, with random checkpoints beside them."""
    path = tmp_path_factory.mktemp("open-clip")
    for name, config in FAMILIES.items():
        (path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(path)
    generator = torch.Generator().manual_seed(1)
    for name in FAMILIES:
        torch.manual_seed(0)
        model = open_clip.create_model(name)
        with torch.no_grad():  # so large that activations and texts show
            for key, parameter in model.named_parameters():
                if not key.startswith("logit"):
                    parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, path / f"{name}.safetensors")
    return path


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Eight, of different sizes and modes."""
    random = np.random.default_rng(0)
    coarse = [Image.fromarray(random.integers(0, 256, (5, 7, 3)).astype(np.uint8)) for _ in MODES]
    return [
        image.resize(size).convert(mode)
        for image, (size, mode) in zip(coarse, MODES, strict=True)  # as they may be in a folder
    ]


def scores(reward: Any, images: list[Image.Image]) -> tuple[Tensor, Tensor]:
    """Scores and truncation of each image with each prompt: `[images, prompts]` twice."""
    prompts = [Prompt(text) for text in PROMPTS]
    batches = [ImageBatch.of_images([to_rgb(image)] * len(prompts), prompts) for image in images]
    outputs = [reward(batch) for batch in batches]
    values = torch.stack([output.values for output in outputs])
    return values, torch.stack([output.parts["truncated"] for output in outputs])


def cosines_of(model: Any, transform: Any, tokenizer: Any, images: list[Image.Image]) -> Tensor:
    """The loop of OpenCLIP's README: one image at a time, features divided by their norms."""
    with torch.no_grad():
        text = model.encode_text(tokenizer(list(PROMPTS)))
        text /= text.norm(dim=-1, keepdim=True)
        rows = []
        for image in images:
            features = model.encode_image(transform(to_rgb(image)).unsqueeze(0))
            features /= features.norm(dim=-1, keepdim=True)
            rows.append((features @ text.T)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_the_loop_of_openclips_readme(
    family: str,
    folder: Path,
    images: list[Image.Image],
) -> None:
    file = str(folder / f"{family}.safetensors")
    model, _, transform = open_clip.create_model_and_transforms(family, pretrained=file)
    model.eval()
    due = cosines_of(model, transform, open_clip.get_tokenizer(family), images)
    found, truncated = scores(make_reward("open_clip", model=family, pretrained=file), images)
    assert (found - due).abs().max() <= 1e-6
    assert truncated.tolist() == [[0, 0, 0, 1]] * 8
    assert found.std(dim=0).min() > 1e-4  # images and prompts both move it
    assert found.std(dim=1).min() > 1e-2
    scale = model.logit_scale.exp().item()
    bias = 0.0 if model.logit_bias is None else model.logit_bias.item()
    logits = make_reward("open_clip", model=family, pretrained=file, score="logit")
    assert (scores(logits, images)[0] - (scale * due + bias)).abs().max() <= 1e-5


def test_the_probability_is_the_sigmoid_of_the_logit(
    folder: Path,
    images: list[Image.Image],
) -> None:
    file = str(folder / "tiny-sigmoid.safetensors")
    model, _, transform = open_clip.create_model_and_transforms("tiny-sigmoid", pretrained=file)
    tokenizer = open_clip.get_tokenizer("tiny-sigmoid")
    due = cosines_of(model.eval(), transform, tokenizer, images) * model.logit_scale.exp()
    options = {"model": "tiny-sigmoid", "pretrained": file, "score": "probability"}
    found, _ = scores(make_reward("open_clip", **options), images)
    assert (found - torch.sigmoid(due + model.logit_bias)).abs().max() <= 1e-6
    card = resolve("open_clip", **options).card
    assert (card.unit, card.range) == ("probability", (0.0, 1.0))


PREPROCESSING: list[dict[str, Any]] = [
    {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"},
    {"interpolation": "bilinear", "resize_mode": "longest", "fill_color": 7},
    {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
    {},
]


def write_folder(path: Path, files: Path, family: str, preprocessing: dict[str, Any]) -> Path:
    path.mkdir(parents=True)
    shutil.copy(files / f"{family}.safetensors", path / "open_clip_model.safetensors")
    config = {"model_cfg": FAMILIES[family], "preprocess_cfg": preprocessing}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("preprocessing", PREPROCESSING)
def test_a_folder_has_its_own_preprocessing(
    preprocessing: dict[str, Any],
    folder: Path,
    images: list[Image.Image],
    tmp_path: Path,
) -> None:
    name = f"local-dir:{write_folder(tmp_path / 'model', folder, 'tiny-vit', preprocessing)}"
    usable = [image for image in images if max(image.size) < 20 * min(image.size)]
    model, _, transform = open_clip.create_model_and_transforms(name)
    due = cosines_of(model.eval(), transform, open_clip.get_tokenizer(name), usable)
    found, _ = scores(make_reward("open_clip", model=name), usable)
    assert (found - due).abs().max() <= 1e-6


@pytest.mark.parametrize("change", PREPROCESSING[:3])
def test_folders_of_one_name_with_the_same_weights_share_nothing_else(
    change: dict[str, Any],
    folder: Path,
    images: list[Image.Image],
    tmp_path: Path,
) -> None:
    places = [
        write_folder(tmp_path / parent / "model", folder, "tiny-vit", preprocessing)
        for parent, preprocessing in (("a", {}), ("b", change), ("c", change))
    ]
    rewards: list[Any] = [make_reward("open_clip", model=f"local-dir:{place}") for place in places]
    assert rewards[0]._image is not rewards[1]._image
    assert rewards[1]._image is rewards[2]._image
    first, second, _ = (scores(reward, images[3:4])[0] for reward in rewards)
    assert (first - second).abs().max() > 1e-4


def write_snapshot(hub: Path, repository: str) -> Path:
    base = hub / f"models--{repository.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text("c" * 40)
    return base / "snapshots" / ("c" * 40)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def test_a_repository_of_the_hub_equals_its_folder(
    hub: Path,
    folder: Path,
    images: list[Image.Image],
    tmp_path: Path,
) -> None:
    write_folder(write_snapshot(hub, "owner/tiny"), folder, "tiny-vit", PREPROCESSING[0])
    local = write_folder(tmp_path / "model", folder, "tiny-vit", PREPROCESSING[0])
    found, _ = scores(make_reward("open_clip", model="hf-hub:owner/tiny"), images)
    assert torch.equal(
        found,
        scores(make_reward("open_clip", model=f"local-dir:{local}"), images)[0],
    )
    card = resolve("open_clip", model="hf-hub:owner/tiny").card
    assert availability(card).complete
    assert card.lineage == ("owner/tiny",)


def test_a_pickled_checkpoint_of_the_hub_is_read_where_there_are_no_safetensors(
    hub: Path,
    folder: Path,
    images: list[Image.Image],
) -> None:
    snapshot = write_folder(write_snapshot(hub, "owner/old"), folder, "tiny-vit", {})
    state = load_file(snapshot / "open_clip_model.safetensors")
    (snapshot / "open_clip_model.safetensors").unlink()
    resolved = resolve("open_clip", model="hf-hub:owner/old")
    assert not availability(resolved.card).complete
    with pytest.raises(MissingResourceError, match=r"open_clip_model\.safetensors.*hf download"):
        resolved.make()
    torch.save(state, snapshot / "open_clip_pytorch_model.bin")
    assert availability(resolved.card).complete
    found, _ = scores(resolved.make(), images)
    file = str(folder / "tiny-vit.safetensors")
    due, _ = scores(make_reward("open_clip", model="tiny-vit", pretrained=file), images)
    assert torch.equal(found, due)


def test_a_tag_brings_its_preprocessing_and_activation(
    hub: Path,
    folder: Path,
    images: list[Image.Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenAI's weights were trained with QuickGELU, which OpenCLIP's ViT-L-14 has not by itself."""
    plain = {**FAMILIES["tiny-vit"], "quick_gelu": False}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-L-14", plain)
    write_folder(
        write_snapshot(hub, "timm/vit_large_patch14_clip_224.openai"),
        folder,
        "tiny-vit",
        {},
    )
    found, _ = scores(make_reward("open_clip", model="ViT-L-14", pretrained="openai"), images)
    file = str(folder / "tiny-vit.safetensors")
    due, _ = scores(make_reward("open_clip", model="tiny-vit", pretrained=file), images)
    wrong, _ = scores(make_reward("open_clip", model="ViT-L-14", pretrained=file), images)
    assert torch.equal(found, due)
    assert (found - wrong).abs().max() > 1e-4
    card = resolve("open_clip", model="ViT-L-14", pretrained="openai").card
    assert card.lineage == ("openai/clip-vit-large-patch14",)


@pytest.mark.parametrize("form", ["linear .pth", "linear .safetensors", "predictor v2"])
def test_a_head_scores_the_normalised_image_embedding(
    form: str,
    folder: Path,
    images: list[Image.Image],
    tmp_path: Path,
) -> None:
    generator = torch.Generator().manual_seed(3)
    widths = (24, 1) if form.startswith("linear") else (24, 1024, 128, 64, 16, 1)
    pairs = list(zip(widths, widths[1:], strict=False))
    layers = [torch.randn(b, a, generator=generator) / a**0.5 for a, b in pairs]
    biases = [torch.randn(after, generator=generator) for _, after in pairs]
    state = {"weight": layers[0], "bias": biases[0]}
    if form == "predictor v2":
        state = {}
        for index, weight, bias in zip((0, 2, 4, 6, 7), layers, biases, strict=True):
            state |= {f"layers.{index}.weight": weight, f"layers.{index}.bias": bias}
    file = tmp_path / ("head.safetensors" if form.endswith("safetensors") else "head.pth")
    if file.suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    weights = str(folder / "tiny-vit.safetensors")
    model, _, transform = open_clip.create_model_and_transforms("tiny-vit", pretrained=weights)
    with torch.no_grad():
        pixels = torch.stack([transform(to_rgb(image)) for image in images])
        due = model.eval().encode_image(pixels, normalize=True)
        for weight, bias in zip(layers, biases, strict=True):
            due = due @ weight.T + bias
    options = {"model": "tiny-vit", "pretrained": weights, "head": str(file)}
    reward = make_reward("open_clip", **options)
    outputs = [reward(ImageBatch.of_images([to_rgb(image)], [Prompt("")])) for image in images]
    found = torch.cat([output.values for output in outputs])
    assert (found - due[:, 0]).abs().max() <= 1e-5
    assert found.std() > 1e-3
    card = resolve("open_clip", **options).card
    assert card.inputs == ("image",)
    assert [weight.source for weight in card.weights] == [f"file:{file}", f"file:{weights}"]


def test_rewards_on_one_model_share_its_towers(folder: Path, tmp_path: Path) -> None:
    options = {"model": "tiny-vit", "pretrained": str(folder / "tiny-vit.safetensors")}
    torch.save({"weight": torch.ones(1, 24), "bias": torch.zeros(1)}, tmp_path / "head.pth")
    cosine = make_reward("open_clip", **options)
    logit = make_reward("open_clip", **options, score="logit")
    head = make_reward("open_clip", **options, head=str(tmp_path / "head.pth"))
    half = make_reward("open_clip", **options, dtype="bfloat16")
    assert cosine._image is logit._image is head._image  # type: ignore[attr-defined]
    assert cosine._text is logit._text  # type: ignore[attr-defined]
    assert half._image is not cosine._image  # type: ignore[attr-defined]
    random = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    batch = ImageBatch.of_uint8(random, [Prompt(text) for text in ("a", "b", "a", "b", "c", "a")])
    before = cosine._image.passes, cosine._text.passes  # type: ignore[attr-defined]
    for reward in (cosine, logit, head, cosine):
        reward(batch)
    after = cosine._image.passes, cosine._text.passes  # type: ignore[attr-defined]
    assert (after[0] - before[0], after[1] - before[1]) == (6, 3)
    assert 0 < (half(batch).values - cosine(batch).values).abs().max() < 0.05


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("tiny-vit", {}),
        ("tiny-sigmoid", {"score": "probability"}),
        ("tiny-resnet", {"score": "logit"}),
        ("tiny-coca", {"head": "head.pth"}),
    ],
)
def test_the_conformance_kit(
    family: str,
    options: dict[str, str],
    folder: Path,
    tmp_path: Path,
) -> None:
    torch.save({"weight": torch.randn(1, 32), "bias": torch.zeros(1)}, tmp_path / "head.pth")
    if "head" in options:
        options = {"head": str(tmp_path / "head.pth")}
    given = {"model": family, "pretrained": str(folder / f"{family}.safetensors"), **options}
    text = "open_clip:" + ",".join(f"{name}={value}" for name, value in given.items())
    results = {result.name: result for result in check_reward(text, only=IN_PROCESS)}
    assert {name: result.detail for name, result in results.items() if not result.ok} == {}
    for name in ("construction", "batch-invariance", "order", "picture-sizes", "cache-key"):
        assert results[name].outcome == "passed", name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "ViT-B-33"}, "no model 'ViT-B-33'; did you mean 'ViT-B-32'"),
        ({"model": "vit-b-32"}, "did you mean 'ViT-B-32'"),
        ({"model": "qqqqqqq"}, r"no model 'qqqqqqq'; open_clip\.list_models\(\)"),
        ({"model": "ViT-L-14"}, "which weights of ViT-L-14, as in pretrained=…: one of openai, "),
        ({"model": "ViT-M-16"}, "a checkpoint file: OpenCLIP publishes no weights of it"),
        ({"pretrained": "laion2c"}, "ViT-B-32 has no weights 'laion2c'; it has openai, "),
        ({"pretrained": "./nowhere.pt"}, "there is no file with weights at nowhere.pt"),
        ({"model": "hf-hub:owner"}, "not of the form hf-hub:owner/name"),
        ({"model": "hub:owner/name"}, "neither hf-hub:owner/name nor local-dir:FOLDER"),
        ({"model": "hf-hub:owner/absent"}, "hf download owner/absent open_clip_config.json"),
        ({"model": "local-dir:nowhere"}, "there is no folder nowhere"),
        ({"model": "local-dir:"}, "not of the form local-dir:FOLDER"),
        ({"model": "local-dir:.", "pretrained": "openai"}, "leave pretrained=openai out"),
        ({"model": "EMPTY"}, "write model=local-dir:.*/empty for a folder"),
        ({"model": "local-dir:EMPTY"}, r"empty has no open_clip_config\.json"),
        ({"pretrained": "EMPTY"}, "write model=local-dir:.*/empty for a folder"),
        ({"score": "softmax"}, "score is 'softmax', not one of cosine, logit, probability"),
        ({"score": "probability"}, "has no logit bias, which score=probability needs"),
        ({"head": "a.pth", "score": "logit"}, "a head gives its own score: leave score=logit out"),
        ({"head": "nowhere.pth"}, "there is no file with a head at nowhere.pth"),
        ({"dtype": "float16"}, "dtype is 'float16', not one of float32, bfloat16"),
        ({}, r"open_clip_model\.safetensors \(605 MB, MIT\).*hf download laion/CLIP-ViT-B-32"),
        ({"model": "ViT-B-16-SigLIP"}, r"\(813 MB, .*hf download timm/ViT-B-16-SigLIP open_clip"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    options: dict[str, str],
    message: str,
    hub: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    options = {name: value.replace("EMPTY", empty) for name, value in options.items()}
    with pytest.raises(UserError, match=message) as caught:
        make_reward("open_clip", **options)
    assert "\n" not in str(caught.value)
    assert "reward 'open_clip'" in str(caught.value)


class Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("code of the file was run",)


@pytest.mark.parametrize("fault", ["empty", "text", "list", "key missing", "other model", "code"])
def test_another_checkpoint_is_refused_in_one_line(
    fault: str,
    folder: Path,
    tmp_path: Path,
) -> None:
    state = load_file(folder / "tiny-vit.safetensors")
    file = tmp_path / "x.pt"
    if fault == "empty":
        file.touch()
    elif fault == "text":
        file.write_text("<html>not found</html>")
    else:
        torch.save(
            {
                "list": [1, 2],
                "key missing": {key: state[key] for key in list(state)[1:]},
                "other model": load_file(folder / "tiny-resnet.safetensors"),
                "code": {"state_dict": state, "more": Runs()},
            }[fault],
            file,
        )
    with pytest.raises(MissingResourceError, match=r"x\.pt is no checkpoint of tiny-vit") as caught:
        make_reward("open_clip", model="tiny-vit", pretrained=str(file))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


HEADS: dict[str, Any] = {
    "two outputs": {"weight": torch.zeros(2, 24), "bias": torch.zeros(2)},
    "another width": {"weight": torch.zeros(1, 25), "bias": torch.zeros(1)},
    "with activations": {f"layers.{i}.weight": torch.zeros(1, 24) for i in (0, 3, 6, 9, 11)},
    "not finite": {"weight": torch.full((1, 24), torch.nan), "bias": torch.zeros(1)},
    "a list": [torch.zeros(1, 24)],
    "nothing": {},
    "code": {"weight": torch.zeros(1, 24), "bias": Runs()},
}


@pytest.mark.parametrize("fault", HEADS)
def test_another_head_is_refused_in_one_line(fault: str, folder: Path, tmp_path: Path) -> None:
    torch.save(HEADS[fault], tmp_path / "head.pth")
    weights = str(folder / "tiny-vit.safetensors")
    with pytest.raises((MissingResourceError, ConfigError), match=r"head\.pth") as caught:
        make_reward(
            "open_clip",
            model="tiny-vit",
            pretrained=weights,
            head=str(tmp_path / "head.pth"),
        )
    assert "\n" not in str(caught.value)


def test_the_signature_names_model_weights_and_libraries(folder: Path, tmp_path: Path) -> None:
    default = resolve("open_clip")
    assert default.card == CARDS["open_clip"]
    for library in ("open_clip_torch", "torchvision", "timm"):
        assert f"|{library}:{version(library)}|" in default.signature
    file = tmp_path / "weights.safetensors"
    shutil.copy(folder / "tiny-vit.safetensors", file)
    first = resolve("open_clip", model="tiny-vit", pretrained=str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"weights:weights.safetensors@sha256-{digest[:12]}" in first.signature
    state = load_file(file)
    save_file({**state, "logit_scale": state["logit_scale"] + 1}, file)
    second = resolve("open_clip", model="tiny-vit", pretrained=str(file))
    assert first.signature != second.signature
    assert first.identity != second.identity
    spellings = [
        {"model": "ViT-B-16-SigLIP"},
        {"model": "ViT-L-14", "pretrained": "openai"},
        {"model": "ViT-L-14", "pretrained": "laion2b_s32b_b82k"},
        {"score": "logit"},
    ]
    assert len({resolve("open_clip", **each).signature for each in spellings}) == 4


MODELS_AND_SIZES = [
    ("ViT-L-14", "openai", "timm/vit_large_patch14_clip_224.openai", 427.6),
    ("ViT-H-14", "laion2b_s32b_b79k", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 986.1),
    ("RN50", "openai", "timm/resnet50_clip.openai", 102.0),
    ("ViT-SO400M-14-SigLIP", "webli", "timm/ViT-SO400M-14-SigLIP", 877.4),
]
"""Millions of parameters: docs/model_profile.csv of mlfoundations/open_clip."""


@pytest.mark.parametrize(("model", "tag", "repository", "millions"), MODELS_AND_SIZES)
def test_the_card_names_the_files_of_the_model_and_their_size(
    model: str,
    tag: str,
    repository: str,
    millions: float,
) -> None:
    card = resolve("open_clip", model=model, pretrained=tag).card
    names = "open_clip_model.safetensors|open_clip_pytorch_model.bin"
    assert card.weights[0].source == f"{repository}/{names}"
    assert card.weights[0].megabytes == pytest.approx(4 * millions, rel=2e-3)
    again = RewardCard.from_dict(json.loads(json.dumps(card.to_dict())))
    assert again == card


def test_files_of_a_foreign_tokenizer_are_on_the_card() -> None:
    card = resolve("open_clip", model="ViT-B-16-SigLIP").card
    tokenizer = [each.source for each in card.weights[1:]]
    assert tokenizer[0] == "timm/ViT-B-16-SigLIP/tokenizer_config.json"
    roberta = resolve("open_clip", model="roberta-ViT-B-32", pretrained="laion2b_s12b_b32k").card
    assert "FacebookAI/roberta-base/config.json" in [each.source for each in roberta.weights]


def transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower of OpenCLIP's state under the names of transformers."""
    renamed = {
        "visual.class_embedding": "embeddings.class_embedding",
        "visual.positional_embedding": "embeddings.position_embedding.weight",
        "visual.conv1.weight": "embeddings.patch_embedding.weight",
        "visual.ln_pre": "pre_layrnorm",
        "visual.ln_post": "post_layernorm",
        "visual.transformer.resblocks": "encoder.layers",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    result = {"visual_projection.weight": state["visual.proj"].T.contiguous()}
    for name, tensor in state.items():
        if not name.startswith("visual.") or name == "visual.proj":
            continue
        for theirs, other in renamed.items():
            name = name.replace(theirs, other)
        if "attn.in_proj_" not in name:
            result[f"vision_model.{name}"] = tensor
            continue
        for letter, part in zip("qkv", tensor.chunk(3), strict=True):
            key = name.replace("attn.in_proj_", f"self_attn.{letter}_proj.")
            result[f"vision_model.{key}"] = part.contiguous()
    return result


@pytest.mark.parametrize("kind", [Aesthetic, AestheticV1])
def test_both_towers_of_aesthetic_give_the_same_scores(
    kind: type[Aesthetic],
    hub: Path,
    images: list[Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = {"embed_dim": 768, "vision_cfg": VIT, "text_cfg": TEXT}
    for name, quick in (("ViT-L-14", False), ("ViT-L-14-quickgelu", True)):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, {**tiny, "quick_gelu": quick})
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-L-14-quickgelu")
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    snapshot = write_snapshot(hub, "timm/vit_large_patch14_clip_224.openai")
    snapshot.mkdir(parents=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, snapshot / "open_clip_model.safetensors")
    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "patch_size": 32}
    module = "ddpo.rewards.models.aesthetic."
    named = transformers_names(state)
    monkeypatch.setattr(f"{module}load_clip", lambda *asked: image_encoder(named, **sizes))
    direction = torch.nn.functional.normalize(torch.randn(768), dim=0) * 18
    for name in ("load_head", "load_linear_head"):
        monkeypatch.setattr(module + name, lambda path: (direction, torch.tensor(5.24)))
    batches = [ImageBatch.of_images([to_rgb(image)], [Prompt("")]) for image in images]
    file = str(snapshot / "open_clip_model.safetensors")
    rewards = [kind(), kind(tower="open_clip"), kind(tower="open_clip", clip=file)]
    due, *found = (torch.cat([reward(batch).values for batch in batches]) for reward in rewards)
    for other in found:
        assert (other - due).abs().max() <= 1e-5
    assert due.std() > 1e-2
    shared = make_reward("open_clip", model="ViT-L-14", pretrained="openai")
    assert shared._image is rewards[1]._encoder  # type: ignore[attr-defined]
    card = resolve(f"{kind.card.id}:tower=open_clip").card
    assert card == rewards[1].card
    assert card.weights[1].source.startswith("timm/vit_large_patch14_clip_224.openai/")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tower": "timm"}, "tower is 'timm', not one of transformers, open_clip"),
        ({"tower": "open_clip", "clip": "nowhere"}, "OpenCLIP's ViT-L-14.*is not at nowhere"),
        ({"tower": ""}, "tower is '', not one of transformers, open_clip"),
    ],
)
def test_a_tower_of_aesthetic_that_cannot_be(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_reward("aesthetic", **options)


FOLDERS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"interpolation": "lanczos"}, "preprocessing that OpenCLIP does not know: .*lanczos"),
    ({}, {"resize_mode": "stretch"}, "preprocessing that OpenCLIP does not know: .*stretch"),
    ({"surprise": 3}, {}, "unexpected keyword argument 'surprise'"),
    ({"vision_cfg": {**VIT, "timm_model_name": "no_such_timm"}}, {}, "no_such_timm"),
    ({"text_cfg": {**TEXT, "hf_tokenizer_name": "a/b"}}, {}, "put its files into that folder"),
    ({"text_cfg": 5}, {}, "vision_cfg and text_cfg must be tables"),
    ({"embed_dim": "24"}, {}, "embed_dim must be a whole number"),
]


@pytest.mark.parametrize(("model", "preprocessing", "message"), FOLDERS)
def test_a_folder_with_another_configuration_is_refused_in_one_line(
    model: dict[str, Any],
    preprocessing: dict[str, Any],
    message: str,
    folder: Path,
    tmp_path: Path,
) -> None:
    place = write_folder(tmp_path / "model", folder, "tiny-vit", preprocessing)
    config = {"model_cfg": {**FAMILIES["tiny-vit"], **model}, "preprocess_cfg": preprocessing}
    (place / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as caught:
        make_reward("open_clip", model=f"local-dir:{place}")
    assert "\n" not in str(caught.value)
