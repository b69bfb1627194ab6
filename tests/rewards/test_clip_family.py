"""The CLIP rewards against their originals with the same weights.

Originals are open_clip, plain calls of transformers, and LAION's published heads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.images import to_rgb
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models import aesthetic as aesthetic_module
from ddpo.rewards.models import shared_encoders
from ddpo.rewards.models.aesthetic import (
    Aesthetic,
    AestheticV1,
    clip_embeddings,
    image_encoder,
    load_head,
    load_linear_head,
    preprocess,
)
from ddpo.rewards.models.clip_pair import ClipPair
from ddpo.rewards.models.clip_score import ClipScore
from ddpo.rewards.models.clip_text import cut, padded
from ddpo.rewards.models.pickscore import PickScore, prepare
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt

DATA = (
    Path(os.environ.get("DDPO_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    / "laion"
)
V1 = DATA / "sa_0_4_vit_l_14_linear.pth"
V2 = DATA / "sac+logos+ava1-l14-linearMSE.pth"
needs_heads = pytest.mark.skipif(
    not V1.is_file() or not V2.is_file(),
    reason="the heads' files are not here (DDPO_TEST_DATA names a folder)",
)
RATINGS_V1 = [-2.458, -0.138, 1.895, 3.585, 5.100, 6.470, 7.787, 9.048, 10.226, 11.304]
"""Scores of the ten embeddings published with LAION's predictor, computed elsewhere."""

START = "<|startoftext|>"
END = "<|endoftext|>"
TEXTS = ("a red fox", "", "Ein Füchslein 🦊 jagt 兔子", "a city at night " * 20)
ODD_TEXTS = (
    "a dog’s “ball”",
    "ＦＵＬＬ-width ﬁsh",
    "&quot;cats &amp;amp; dogs&quot;",
    "a schÃ¶n cafÃ©",
)
"""Texts that OpenAI's cleaning changes."""
VISION = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 32,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
}
LEANING = 0.3
IN_PROCESS = sorted(set(all_checks()) - {"light-listing", "missing-weights"})


def byte_letters() -> list[str]:
    """CLIP's letters of the 256 bytes: printable ones unchanged, the others from 256 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [*map(chr, shown), *(chr(256 + place) for place in range(len(hidden)))]


def write_tokenizer(folder: Path, merges: list[str]) -> int:
    """A tokenizer in the format of CLIP's folders on the hub; the size of its vocabulary."""
    letters = byte_letters()
    pieces = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *(merge.replace(" ", "") for merge in merges),
        START,
        END,
    ]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({piece: index for index, piece in enumerate(pieces)})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(pieces)


def lively(model: Any) -> Any:
    """Weights so large that activation functions and texts show in the embeddings."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def write_clip(
    folder: Path,
    act: str = "quick_gelu",
    eos: int | None = None,
    side: int = 224,
    merges: tuple[str, ...] = ("f o", "fo x</w>"),
) -> Path:
    from transformers import CLIPConfig, CLIPModel

    size = write_tokenizer(folder, list(merges))
    text = {
        **TEXT,
        "hidden_act": act,
        "vocab_size": size,
        "bos_token_id": size - 2,
        "eos_token_id": eos or size - 1,
    }
    config = CLIPConfig(
        text_config=text,
        vision_config={**VISION, "hidden_act": act, "image_size": side},
        projection_dim=24,
    )
    torch.manual_seed(0)
    model = lively(CLIPModel(config))
    with (
        torch.no_grad()
    ):  # a direction that images and texts have in common, so that few cosines are negative
        model.text_projection.weight.copy_(model.visual_projection.weight)
        for norm in (model.vision_model.post_layernorm, model.text_model.final_layer_norm):
            norm.bias += LEANING
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ViT-H/14: plain GELU, and the end token's number in the config is the old wrong 2."""
    return write_clip(tmp_path_factory.mktemp("tuned"), act="gelu", eos=2)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Eight, of different sizes and modes."""
    random = np.random.default_rng(0)

    def smooth(width: int, height: int) -> Image.Image:
        return Image.fromarray(random.integers(0, 256, (5, 7, 3)).astype(np.uint8)).resize(
            (width, height), Image.Resampling.BILINEAR
        )

    noise = Image.fromarray(random.integers(0, 256, (97, 131, 3)).astype(np.uint8))
    see_through = smooth(300, 233)
    see_through.putalpha(Image.linear_gradient("L").resize((300, 233)))
    return [
        smooth(224, 224),
        smooth(512, 512),
        smooth(227, 224).convert("L"),
        smooth(225, 640).convert("P"),
        smooth(64, 31),
        noise,
        smooth(333, 231).convert("CMYK"),
        see_through,
    ]


def scores(
    reward: Callable[[ImageBatch], Any], images: list[Image.Image], texts: tuple[str, ...] = TEXTS
) -> tuple[Tensor, Tensor]:
    """Scores and truncation of each image with each text: `[images, texts]` twice."""
    prompts = [Prompt(text) for text in texts]
    outputs = [
        reward(ImageBatch.of_images([to_rgb(image)] * len(texts), prompts)) for image in images
    ]
    return torch.stack([output.values for output in outputs]), torch.stack(
        [output.parts["truncated"] for output in outputs]
    )


def plain(
    folder: Path, images: list[Image.Image], texts: list[str], image_processor: Any
) -> Tensor:
    """Logits `[images, texts]` of a plain call of transformers' `CLIPModel` on one padded batch."""
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    words = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        logits: Tensor = model(
            **words, pixel_values=image_processor([to_rgb(image) for image in images])
        ).logits_per_image
    return logits


def hugging_face(images: list[Image.Image]) -> Tensor:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels: Tensor = CLIPImageProcessorPil()(images, return_tensors="pt")["pixel_values"]
    return pixels


def ours(images: list[Image.Image]) -> Tensor:
    return torch.stack([preprocess(image) for image in images])


def test_clip_score_equals_the_plain_model(clip: Path, images: list[Image.Image]) -> None:
    found, truncated = scores(ClipScore(str(clip)), images)
    logits = plain(clip, images, ["A photo depicts " + text for text in TEXTS], ours)
    scale = load_file(clip / "model.safetensors")["logit_scale"].exp()
    assert (found - 2.5 * (logits / scale).clamp(min=0)).abs().max() <= 1e-5
    assert truncated.tolist() == [[0, 0, 0, 1]] * 8
    assert found.unique().numel() > 16  # neither all clamped nor blind to one side
    assert (found == 0).any()


def test_pickscore_equals_the_plain_model(tuned: Path, images: list[Image.Image]) -> None:
    found, truncated = scores(PickScore(str(tuned), str(tuned)), images)
    assert (found - plain(tuned, images, list(TEXTS), hugging_face)).abs().max() <= 1e-4
    assert truncated.tolist() == [[0, 0, 0, 1]] * 8
    assert found.std() > 0.1


def test_the_end_token_stays_on_a_prompt_that_is_cut() -> None:
    assert cut([7, 1, 2, 3, 9], 5) == [7, 1, 2, 3, 9]
    assert cut([7, 1, 2, 3, 9], 4) == [7, 1, 2, 9]


def test_texts_are_filled_up_to_a_length_of_their_own() -> None:
    texts = [[7, 1, 9], [7, *range(16), 9], [7, 9], [7] * 77]
    groups = {tuple(places): tokens.tolist() for places, tokens in padded(texts, 77, 0)}
    assert groups == {
        (0, 2): [[7, 1, 9] + [0] * 13, [7, 9] + [0] * 14],
        (1,): [[7, *range(16), 9] + [0] * 14],
        (3,): [[7] * 77],
    }
    assert [len(places) for places, _ in padded([[1]] * 40, 77, 0)] == [16, 16, 8]


def test_a_text_is_embedded_the_same_in_any_company(clip: Path) -> None:
    """Long and short ones, padded or not: the filling behind the end token touches nothing."""
    reward = ClipScore(str(clip))
    texts = [*TEXTS, "a fox", "fox " * 30]
    together, _ = reward._pair.text.embed(texts)
    for place, text in enumerate(texts):
        alone, _ = ClipScore(str(clip))._pair.text.embed([text])
        assert (alone[0] - together[place]).abs().max() <= 1e-6


def test_bfloat16_is_another_score_near_by(clip: Path, images: list[Image.Image]) -> None:
    single = ClipScore(str(clip))
    half = ClipScore(str(clip), dtype="bfloat16")
    assert half._pair.encoder is not single._pair.encoder
    found = scores(half, images)[0]
    due = scores(single, images)[0]
    assert 1e-5 < (found - due).abs().max() < 0.05
    with pytest.raises(
        ConfigError, match="'clip_score': dtype is 'float16', not one of float32, bfloat16"
    ):
        ClipScore(str(clip), dtype="float16")
    default, chosen = (
        resolve(f"clip_score:clip={clip}{option}") for option in ("", ",dtype=bfloat16")
    )
    assert "dtype=bfloat16" in chosen.signature
    assert default.identity != chosen.identity


def test_a_text_runs_once(clip: Path, images: list[Image.Image]) -> None:
    reward = ClipScore(str(clip))
    first = scores(reward, images)
    again = scores(reward, images)
    assert torch.equal(first[0], again[0])
    assert reward._pair.text.passes == len(TEXTS)
    assert reward._pair.encoder.passes == 8


def test_preprocessing_equals_open_clips(images: list[Image.Image]) -> None:
    transform = pytest.importorskip("open_clip.transform").image_transform(224, is_train=False)
    for image in images:
        opened = (
            image if image.mode in ("RGB", "L") else to_rgb(image)
        )  # of others it makes RGB after resizing, without a ground
        assert (preprocess(to_rgb(image)) - transform(opened)).abs().max() <= 1e-6


def test_pickscores_preprocessing_equals_its_processors(images: list[Image.Image]) -> None:
    for image in map(to_rgb, images):
        assert (prepare(image) - hugging_face([image])[0]).abs().max() <= 1e-6
    odd = to_rgb(images[2])  # 227×224: a margin of one pixel and a half
    assert (prepare(odd) - preprocess(odd)).abs().max() > 1e-3


def open_clip_model(vocabulary: int, width: int, quick_gelu: bool = True) -> Any:
    model = pytest.importorskip("open_clip.model")
    torch.manual_seed(1)
    vision = {"image_size": 224, "layers": 2, "width": 32, "head_width": 16, "patch_size": 32}
    text = {"context_length": 77, "vocab_size": vocabulary, "width": 32, "heads": 2, "layers": 2}
    return lively(model.CLIP(width, vision, text, quick_gelu=quick_gelu))


def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's tensors under transformers' names."""
    outer = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    inner = {
        "visual.transformer.resblocks": "vision_model.encoder.layers",
        "transformer.resblocks": "text_model.encoder.layers",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    result = {
        "visual_projection.weight": state["visual.proj"].T,
        "text_projection.weight": state["text_projection"].T,
    }
    for name, tensor in state.items():
        if name in outer:
            result[outer[name]] = tensor
            continue
        for theirs, mine in inner.items():
            name = name.replace(theirs, mine)
        if "attn.in_proj_" in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                result[name.replace("attn.in_proj_", f"self_attn.{letter}_proj.")] = part
        else:
            result[name] = tensor
    return {name: tensor.contiguous() for name, tensor in result.items()}


def test_clip_score_equals_open_clips_with_its_own_tokenizer(
    tmp_path: Path, images: list[Image.Image]
) -> None:
    """Same weights, and the real vocabulary of 49,408 tokens, which open_clip carries."""
    open_clip = pytest.importorskip("open_clip")
    from transformers import CLIPConfig

    words = open_clip.tokenizer.SimpleTokenizer()
    merges = sorted(words.bpe_ranks, key=words.bpe_ranks.__getitem__)
    size = write_tokenizer(tmp_path, [" ".join(pair) for pair in merges])
    assert size == 49_408
    reference = open_clip_model(size, 24)
    quick = {"hidden_act": "quick_gelu"}
    text = {
        **TEXT,
        **quick,
        "vocab_size": size,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }  # as in the hub's config of OpenAI's model
    CLIPConfig(
        text_config=text, vision_config={**VISION, **quick, "image_size": 224}, projection_dim=24
    ).save_pretrained(tmp_path)
    state = converted(reference.state_dict())
    save_file(
        {
            name: tensor
            for name, tensor in state.items()
            if name in state and "attn_mask" not in name
        },
        tmp_path / "model.safetensors",
    )

    texts = (*TEXTS, *ODD_TEXTS)
    found, _ = scores(ClipScore(str(tmp_path)), images, texts)
    transform = open_clip.transform.image_transform(224, is_train=False)
    with torch.no_grad():
        image = reference.encode_image(
            torch.stack([transform(to_rgb(image)) for image in images]), normalize=True
        )
        caption = reference.encode_text(
            words(["A photo depicts " + text for text in texts]), normalize=True
        )
    assert (found - 2.5 * (image @ caption.T).clamp(min=0)).abs().max() <= 1e-5
    uncleaned, _ = scores(PickScore(str(tmp_path), str(tmp_path)), images[:1], texts)
    plain_logits = plain(tmp_path, images[:1], list(texts), hugging_face)
    assert (uncleaned - plain_logits).abs().max() <= 1e-4  # PickScore's original does not clean


def heads(name: str) -> tuple[Tensor, Tensor]:
    """The real head where it is here, else a random one of the same length."""
    if V1.is_file() and V2.is_file():
        return load_head(str(V2)) if name == "aesthetic" else load_linear_head(str(V1))
    length, bias = (18.0, 5.24) if name == "aesthetic" else (28.4, 3.53)
    return normalize(
        torch.randn(768, generator=torch.Generator().manual_seed(2)), dim=0
    ) * length, torch.tensor(bias)


@pytest.fixture
def towers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both aesthetic rewards on a tiny random encoder; returns the same encoder in open_clip."""
    reference = open_clip_model(9, 768)
    state = converted(reference.state_dict())
    monkeypatch.setattr(
        aesthetic_module, "load_clip", lambda *asked: image_encoder(state, **VISION)
    )
    monkeypatch.setattr(aesthetic_module, "load_head", lambda path: heads("aesthetic"))
    monkeypatch.setattr(aesthetic_module, "load_linear_head", lambda path: heads("aesthetic_v1"))
    return reference


def test_aesthetic_scores_equal_those_on_open_clips_tower(
    towers: Any, images: list[Image.Image]
) -> None:
    transform = pytest.importorskip("open_clip.transform").image_transform(224, is_train=False)
    wrong = open_clip_model(9, 768, quick_gelu=False)
    wrong.load_state_dict(towers.state_dict())
    inputs = torch.stack([transform(to_rgb(image)) for image in images])
    for reward in (Aesthetic(), AestheticV1()):
        weight, bias = heads(reward.card.id)
        found = torch.cat(
            [reward(ImageBatch.of_images([to_rgb(image)], [Prompt("")])).values for image in images]
        )
        with torch.no_grad():
            due, other = (
                model.encode_image(inputs, normalize=True) @ weight + bias
                for model in (towers, wrong)
            )
        assert (found - due).abs().max() <= 1e-4
        assert (found - other).abs().max() > 1e-3  # GELU for QuickGELU would show
        assert found.std() > 1e-2


def test_both_aesthetic_rewards_run_the_tower_once_per_image(towers: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 16, 16, 3)).astype(np.uint8)
    batch = ImageBatch.of_uint8(pixels, (Prompt(""),) * 256)
    second = Aesthetic()
    first = AestheticV1()
    assert first._encoder is second._encoder
    before = first._encoder.passes
    values = [Scorer(reward, 16).score(batch).values for reward in (first, second)]
    assert first._encoder.passes - before == 256
    assert (values[0] - values[1]).abs().max() > 0.1


def rating_embeddings() -> Tensor:
    return (
        torch.from_numpy(
            np.stack([np.load(DATA / "vit_l_14_embeddings" / f"rating{i}.npy") for i in range(10)])
        )
        .float()
        .reshape(10, 768)
    )


@needs_heads
def test_the_first_head_gives_the_published_numbers() -> None:
    weight, bias = load_linear_head(str(V1))
    assert float(bias) == pytest.approx(3.529372, abs=1e-5)
    assert float(weight.norm()) == pytest.approx(28.4444, abs=1e-4)
    unit = torch.stack([torch.eye(768)[0], torch.ones(768), torch.arange(1.0, 769.0)])
    assert aesthetic_module.head_scores(unit, weight, bias).tolist() == pytest.approx(
        [5.402092, 1.513130, 0.978050], abs=1e-5
    )
    second, _ = load_head(str(V2))
    assert float(normalize(weight, dim=0) @ normalize(second, dim=0)) == pytest.approx(
        0.3695, abs=1e-4
    )


@needs_heads
def test_the_rating_embeddings_score_as_through_the_published_layers() -> None:
    """Against the layers applied one after the other in NumPy, from the files as they are."""
    embeddings = rating_embeddings()
    state = {
        name: tensor.double().numpy()
        for name, tensor in torch.load(V1, map_location="cpu", weights_only=True).items()
    }
    due = embeddings.double().numpy() @ state["weight"][0] + state["bias"][0]
    found = aesthetic_module.head_scores(embeddings, *load_linear_head(str(V1))).tolist()
    assert found == pytest.approx(due.tolist(), abs=1e-5)
    assert found == pytest.approx(RATINGS_V1, abs=5.1e-4)
    layers = {
        name: tensor.double().numpy()
        for name, tensor in torch.load(V2, map_location="cpu", weights_only=True).items()
    }
    hidden = embeddings.double().numpy()
    for index in (0, 2, 4, 6, 7):
        hidden = hidden @ layers[f"layers.{index}.weight"].T + layers[f"layers.{index}.bias"]
    assert aesthetic_module.head_scores(embeddings, *load_head(str(V2))).tolist() == pytest.approx(
        hidden[:, 0].tolist(), abs=1e-5
    )


@needs_heads
def test_the_heads_are_not_taken_for_each_other() -> None:
    with pytest.raises(
        MissingResourceError,
        match=r"'aesthetic_v1' needs LAION aesthetic head \(0.004 MB, MIT\).*SHA-256",
    ):
        load_linear_head(str(V2))
    with pytest.raises(
        MissingResourceError,
        match=r"'aesthetic' needs LAION aesthetic head \(3.7 MB, Apache-2.0\).*SHA-256",
    ):
        load_head(str(V1))


def passed(spec: str) -> set[str]:
    results = check_reward(spec, only=set(IN_PROCESS) - {"picture-sizes"})
    assert {result.name: result.detail for result in results if not result.ok} == {}
    return {result.name for result in results if result.outcome == "passed"}


def test_the_conformance_kit_passes(clip: Path, tuned: Path, towers: Any) -> None:
    some = {"construction", "batch-invariance", "order", "rounding", "memory"}
    assert passed("aesthetic_v1") >= some | {"score-range"}
    assert passed(f"clip_score:clip={clip}") >= some | {"score-range", "long-prompt"}
    assert passed(f"pickscore:clip={tuned},processor={tuned}") >= some | {"long-prompt"}


@pytest.mark.parametrize("count", [1, 3, 16])
def test_a_score_does_not_depend_on_batch_mates(clip: Path, count: int) -> None:
    random = np.random.default_rng(count)
    pixels = random.integers(0, 256, (count, 40, 56, 3)).astype(np.uint8)
    batch = ImageBatch.of_uint8(pixels, [Prompt(TEXTS[place % 4]) for place in range(count)])
    together = ClipScore(str(clip))(batch).values
    alone = torch.cat([ClipScore(str(clip))(batch.take([place])).values for place in range(count)])
    assert (together - alone).abs().max() <= 1e-6
    half = ClipScore(str(clip), dtype="bfloat16")
    together = half(batch).values
    shared_encoders.forget_embeddings()
    assert (
        together - torch.cat([half(batch.take([place])).values for place in range(count)])
    ).abs().max() <= 1e-2  # a rounding


def test_an_empty_batch_gives_no_score(clip: Path) -> None:
    empty = ImageBatch.of_uint8(np.zeros((0, 8, 8, 3), np.uint8), ())
    for reward in (ClipScore(str(clip)), PickScore(str(clip), str(clip))):
        assert len(reward(empty)) == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "clip_score",
            [
                "openai/clip-vit-base-patch32 (605 MB, MIT)",
                "`ddpo rewards download clip_score`",
                "clip=…",
            ],
        ),
        (
            "pickscore",
            [
                "PickScore_v1 (3950 MB, code MIT, weights not stated)",
                "`ddpo rewards download pickscore`",
                "processor=…",
            ],
        ),
        ("aesthetic_v1", ["0.004 MB, MIT", "https://github.com/LAION-AI"]),
    ],
)
def test_without_weights_one_line_says_how_to_get_them(
    name: str, says: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingResourceError) as caught:
        make_reward(name)
    for part in (f"reward '{name}'", *says):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_whole_or_does_not_fit_is_refused(clip: Path, tmp_path: Path) -> None:
    small = write_clip(tmp_path / "small", side=64)
    with pytest.raises(ConfigError, match="takes images of 64×64, not 224×224"):
        ClipScore(str(small))
    wordy = tmp_path / "wordy"
    write_tokenizer(wordy, ["f o", "fo x</w>", "r e", "re d</w>"])
    with pytest.raises(
        ConfigError, match=r"tokenizer .*wordy has 518 tokens, the CLIP model .* knows 516"
    ):
        PickScore(str(clip), str(wordy))
    part = write_clip(tmp_path / "part")
    state = load_file(part / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in state.items() if name != "visual_projection.weight"},
        part / "model.safetensors",
    )
    with pytest.raises(
        MissingResourceError, match=r"lacks 1 tensors, such as visual_projection.weight"
    ):
        ClipScore(str(part))
    (part / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(MissingResourceError, match="'clip_score' needs openai"):
        ClipScore(str(part))
    with pytest.raises(MissingResourceError, match="'clip_score' needs openai"):
        ClipScore(str(tmp_path / "absent"))


def test_two_models_do_not_share_a_tower(clip: Path, tuned: Path) -> None:
    card = ClipScore.card
    first, second, third = (
        ClipPair(card, str(path), str(path), "cpu") for path in (clip, clip, tuned)
    )
    assert first.encoder is second.encoder
    assert first.encoder is not third.encoder


def test_clip_embeddings_are_those_of_the_whole_model(
    clip: Path, images: list[Image.Image]
) -> None:
    """The way `aesthetic` loads a checkpoint gives the tower that `clip_score` has."""
    embed = clip_embeddings(
        image_encoder(load_file(clip / "model.safetensors"), **VISION, projection_dim=24), "cpu"
    )
    batch = ImageBatch.of_images([to_rgb(images[5])], [Prompt("")])
    assert torch.allclose(embed(batch), ClipScore(str(clip))._pair.encoder.embed(batch), atol=1e-5)
