"""The judges: a few steps of training, their formats in plain transformers and in the rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bert_score import BERTScorer
from PIL import Image
from torch import Tensor, nn

from ddpo.errors import ConfigError
from ddpo.images import to_pil
from ddpo.rewards.models.alignment import QUESTION, Alignment
from ddpo.rewards.models.clip_pixels import prepared
from ddpo.rewards.models.clip_score import ClipScore
from ddpo.rewards.models.laion_head import head_scores, read_head
from ddpo.rewards.scenes.grammar import scene_of
from ddpo.rewards.vlm import jpeg80, open_vlm
from ddpo.types import ImageBatch, Prompt
from pretraining import captioner, dual_encoder, sentence_encoder
from pretraining.aesthetic_head import DEGRADATIONS, degraded, fit_head
from pretraining.judge_training import JudgeRun, megabytes, train
from pretraining.measure_judges import stated_share
from pretraining.render import FONT_PATHS
from pretraining.resizing import resized, resizing_matrix
from pretraining.scene_renderer import SceneRenderer

needs_font = pytest.mark.skipif(
    not any(Path(path).is_file() for path in FONT_PATHS),
    reason="Noto Color Emoji is not installed",
)


def smooth_images(count: int, side: int = 64) -> Tensor:
    """Images `[count, 3, side, side]` of whole levels in [0, 1]."""
    small = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    large = nn.functional.interpolate(small, size=side, mode="bicubic").clamp(0, 1)
    return (large * 255).round() / 255


def small_run(judge: str, out: Path, steps: int = 14, **more: Any) -> JudgeRun:
    return JudgeRun(judge, out, steps=steps, batch=16, bank_size=0, **more)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained judge, in the format of the trained one."""
    folder = tmp_path_factory.mktemp("dual_encoder")
    torch.manual_seed(1)
    vocabulary = dual_encoder.write_tokenizer(folder, dual_encoder.words(), dual_encoder.LENGTH)
    dual_encoder.write(dual_encoder.build(vocabulary), folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioner")
    torch.manual_seed(2)
    model = captioner.build(captioner.write_processor(folder).tokenizer)
    model.lm_head.weight.data[:5] = 0.0  # one of the words is likelier than a special token
    captioner.write(model, folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentence_encoder")
    torch.manual_seed(3)
    sentence_encoder.write(
        sentence_encoder.build(len(sentence_encoder.write_tokenizer(folder))), folder
    )
    return folder


def test_each_judge_is_as_small_as_promised(clip: Path, llava: Path, bert: Path) -> None:
    assert megabytes(clip) <= 3
    assert megabytes(llava) <= 5
    assert megabytes(bert) <= 2


def test_resizing_is_pillows() -> None:
    image = smooth_images(1)
    for side in (72, 224):
        found = (resized(image, side)[0] * 255).round()
        pillow = np.asarray(to_pil(image)[0].resize((side, side), Image.Resampling.BICUBIC))
        assert (found.permute(1, 2, 0) - torch.from_numpy(pillow.copy())).abs().max() <= 1
        assert resizing_matrix(64, side).sum(1).numpy() == pytest.approx(1, abs=1e-5)


def test_small_images_have_nearly_the_embeddings_of_the_enlarged_ones(clip: Path) -> None:
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(clip, dtype=torch.float32).eval()
    images = smooth_images(3)
    with torch.no_grad():
        short = dual_encoder.image_embeddings(model, images)
        pooled = model.vision_model(pixel_values=prepared(to_pil(images))).pooler_output
        whole = model.visual_projection(pooled)
    assert (short - whole).norm(dim=1).max() < 0.02 * whole.norm(dim=1).min()
    assert (whole[0] - whole[1]).norm() > 0.1 * whole[0].norm()  # the image moves the embedding


def test_clip_score_gives_the_cosine_of_plain_transformers(clip: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(clip, dtype=torch.float32).eval()
    words = AutoTokenizer.from_pretrained(clip)
    texts = ["a cat", "a raccoon washing the dishes", "three coffee cups on a blue background"]
    images = to_pil(smooth_images(3))
    found = ClipScore(str(clip))(ImageBatch.of_images(images, [Prompt(text) for text in texts]))
    for image, text, value in zip(images, texts, found.values, strict=True):
        ids = words(f"A photo depicts {text}", return_tensors="pt").input_ids
        assert ids.shape[1] == len(text.split()) + 5  # each word is one token
        with torch.no_grad():
            cosine = torch.cosine_similarity(
                model.visual_projection(
                    model.vision_model(pixel_values=prepared([image])).pooler_output
                ),
                model.text_projection(model.text_model(input_ids=ids).pooler_output),
            )
        assert float(value) == pytest.approx(2.5 * max(float(cosine), 0), abs=1e-5)


def test_alignment_gives_the_recall_of_plain_packages(llava: Path, bert: Path) -> None:
    """The answer comes from one forward pass per token, and the recall from `bert_score`."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    image = to_pil(smooth_images(1))[0]
    prompt = "a raccoon washing the dishes"
    processor = AutoProcessor.from_pretrained(llava, backend="pil")
    model = LlavaForConditionalGeneration.from_pretrained(llava, dtype=torch.float32).eval()
    text = f"USER: <image>\n{QUESTION} ASSISTANT:"
    inputs = processor(images=[jpeg80(image)], text=[text], return_tensors="pt")
    assert int((inputs["input_ids"] == 4).sum()) == 36
    assert int((inputs["input_ids"] == 2).sum()) == 0  # no word of the question is unknown
    ids = inputs["input_ids"]
    for _ in range(64):
        with torch.no_grad():
            logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0, -1]
        ids = torch.cat([ids, logits.argmax().view(1, 1)], 1)
        if int(ids[0, -1]) == 1:
            break
    answer = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert open_vlm(str(llava)).answer(jpeg80(image), QUESTION, 64) == answer
    scorer = BERTScorer(
        model_type=str(bert), num_layers=sentence_encoder.LAYERS, use_fast_tokenizer=True
    )
    scorer._model.float()  # transformers 5 keeps the half precision of the file
    _, recall, _ = scorer.score([answer], [f"The image contains {prompt}"])
    reward = Alignment(str(llava), str(bert), layer=sentence_encoder.LAYERS)
    found = reward(ImageBatch.of_images([image], [Prompt(prompt)]))
    assert float(found.values[0]) == pytest.approx(float(recall[0]), abs=1e-5)


def test_the_matched_share_is_the_recall_of_bert_score(bert: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    pairs = [
        ("the image contains a cat", "three cats on a blue background"),
        ("a photo depicts a red ball left of a coffee cup", "a zebra"),
    ]
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model = AutoModel.from_pretrained(bert, dtype=torch.float32).eval()

    def encoded(texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        found = tokenizer(texts, padding=True, return_special_tokens_mask=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(found["input_ids"], found["attention_mask"]).last_hidden_state
        return hidden, found["special_tokens_mask"] == 0, found["attention_mask"] == 1

    references, asked, _ = encoded([reference for reference, _ in pairs])
    candidates, _, given = encoded([candidate for _, candidate in pairs])
    assert asked.sum(1).tolist() == [5, 11]  # each word is one token
    found = sentence_encoder.matched_share(references, candidates, asked, given)
    scorer = BERTScorer(
        model_type=str(bert), num_layers=sentence_encoder.LAYERS, use_fast_tokenizer=True
    )
    scorer._model.float()
    _, recall, _ = scorer.score([c for _, c in pairs], [r for r, _ in pairs])
    assert found.numpy() == pytest.approx(recall.numpy(), abs=1e-5)


@pytest.fixture
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence encoder has one narrow layer."""
    monkeypatch.setattr(sentence_encoder, "LAYERS", 1)
    monkeypatch.setattr(sentence_encoder, "WIDTH", 32)


@pytest.mark.usefixtures("small_encoder")
def test_a_resumed_training_continues_with_the_same_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretraining.judge_training.SAVED_EVERY", 3)
    whole = sentence_encoder.train_sentence_encoder(
        small_run("sentence_encoder", tmp_path / "whole")
    )
    nothing = small_run("sentence_encoder", tmp_path / "parts", minutes=0.0)
    assert sentence_encoder.train_sentence_encoder(nothing) == []
    first = _first_steps(tmp_path / "parts", 6)
    rest = sentence_encoder.train_sentence_encoder(
        small_run("sentence_encoder", tmp_path / "parts")
    )
    assert first + rest == whole


@pytest.mark.usefixtures("small_encoder")
def test_a_few_steps_lower_the_loss_of_the_sentence_encoder(tmp_path: Path) -> None:
    tokenizer = sentence_encoder.write_tokenizer(tmp_path / "judge")
    torch.manual_seed(0)
    model = sentence_encoder.build(len(tokenizer))
    head = nn.Linear(sentence_encoder.WIDTH, len(tokenizer))
    matching = sentence_encoder.Matching(model, head, tokenizer)

    def same(rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        return matching(np.random.default_rng(4), count)

    run = small_run("sentence_encoder", tmp_path, 100)
    modules = nn.ModuleDict({"bert": model, "head": head})
    losses = train(run, modules, same, sentence_encoder.RATES)
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def _first_steps(out: Path, steps: int) -> list[float]:
    """The losses of a training that an error ends after `steps`."""
    run = small_run("sentence_encoder", out)
    torch.manual_seed(run.seed)
    tokenizer = sentence_encoder.write_tokenizer(out / "judge")
    model = sentence_encoder.build(len(tokenizer))
    model.set_attn_implementation("eager")
    head = nn.Linear(sentence_encoder.WIDTH, len(tokenizer))
    matching = sentence_encoder.Matching(model, head, tokenizer)
    losses: list[float] = []

    class StoppedError(Exception):
        pass

    def limited(rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        if len(losses) == steps:
            raise StoppedError
        values = matching(rng, count)
        losses.append(float(values["loss"].detach()))
        return values

    with pytest.raises(StoppedError):
        train(run, nn.ModuleDict({"bert": model, "head": head}), limited, sentence_encoder.RATES)
    return losses


def test_a_folder_of_another_training_is_refused_in_one_line(tmp_path: Path) -> None:
    modules = nn.ModuleDict({"layer": nn.Linear(2, 2)})

    def losses(rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        return {"loss": modules["layer"](torch.ones(count, 2)).square().mean()}

    train(small_run("captioner", tmp_path, steps=2), modules, losses, (1e-3, 1e-3))
    with pytest.raises(ConfigError, match="holds the training of") as caught:
        train(small_run("dual_encoder", tmp_path, steps=4), modules, losses, (1e-3, 1e-3))
    assert "\n" not in str(caught.value)
    assert len(train(small_run("captioner", tmp_path, 4), modules, losses, (1e-3, 1e-3))) == 2


@needs_font
@pytest.mark.slow
def test_a_few_steps_lower_the_loss_of_the_captioner(tmp_path: Path) -> None:
    losses = captioner.train_captioner(small_run("captioner", tmp_path, 24))
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert open_vlm(str(tmp_path / "judge")).answer(Image.new("RGB", (64, 64)), QUESTION, 64)


@needs_font
@pytest.mark.slow
def test_a_few_steps_lower_the_loss_of_the_dual_encoder(tmp_path: Path) -> None:
    run = small_run("dual_encoder", tmp_path / "same", 24)
    renderer = SceneRenderer()
    model = dual_encoder.build(
        dual_encoder.write_tokenizer(tmp_path, dual_encoder.words(), dual_encoder.LENGTH)
    )
    model.set_attn_implementation("eager")
    contrast = dual_encoder.Contrast(model, tmp_path, renderer, None)

    def same(rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        return contrast(np.random.default_rng(4), count)

    losses = train(run, nn.ModuleDict({"clip": model}), same, dual_encoder.RATES)
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


@needs_font
@pytest.mark.slow
def test_a_trained_dual_encoder_is_written_for_clip_score(tmp_path: Path) -> None:
    assert len(dual_encoder.train_dual_encoder(small_run("dual_encoder", tmp_path, 2))) == 2
    batch = ImageBatch.of_images([Image.new("RGB", (64, 64))], [Prompt("a cat")])
    assert 0 <= float(ClipScore(str(tmp_path / "judge"))(batch).values[0]) <= 2.5


def test_the_head_is_the_regression_of_ratings_and_is_read_by_the_reward(tmp_path: Path) -> None:
    """Ratings that are 3 + 2·e₁ - e₂ have that weight and bias."""
    features = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)).double()
    ratings = 3 + 2 * features[:, 0] - features[:, 1]
    weight, bias = fit_head(features, ratings)
    assert weight[0].numpy() == pytest.approx([2, -1, 0], abs=0.01)
    assert bias.numpy() == pytest.approx([3], abs=0.01)
    torch.save({"weight": weight, "bias": bias}, tmp_path / "head.pth")
    read = read_head(tmp_path / "head.pth", "aesthetic")
    assert head_scores(torch.tensor([[5.0, 0.0, 0.0]]), *read).item() == pytest.approx(5, abs=0.02)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_stronger_degradation_changes_an_image_more(name: str) -> None:
    image = smooth_images(1)[0]
    image[:, 20:44, 20:44] = 1 - image[:, 20:44, 20:44].round()
    weak, strong = (
        (degraded(image, name, strength, np.random.default_rng(1)) - image).square().mean()
        for strength in (0.1, 0.9)
    )
    assert 0 < weak < strong
    assert degraded(image, name, 0.9, np.random.default_rng(1)).shape == image.shape


def test_the_stated_share_of_answers_by_hand() -> None:
    shown = scene_of("a cat on a red ball on a blue background")
    assert stated_share("a cat on a red ball on a blue background", shown) == 1
    assert stated_share("a cat on a ball", shown) == pytest.approx(3 / 5)
    assert stated_share("a dog and a fox on a blue background", shown) == pytest.approx(1 / 5)
    assert stated_share("cat cat cat", shown) == 0
