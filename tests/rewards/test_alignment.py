"""The alignment reward with a tiny random LLaVA and BERT, loaded from disk like the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bert_score import BERTScorer
from PIL import Image
from test_bertscore import write_encoder
from test_vlm_rewards import SMALL_SQUARE, on_pillow

from ddpo.errors import MissingResourceError
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models.alignment import QUESTION, Alignment
from ddpo.rewards.vlm import UnusableAnswer, check_words, jpeg80, open_vlm
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt

WORDS = [
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<image>",
    "USER",
    "ASSISTANT",
    "what",
    "is",
    "cat",
    "dog",
    "bike",
    "rides",
    "the",
    "image",
    "a",
]
ENDS = [1, 13]  # "</s>" and "the", so that answers have different lengths
IN_PROCESS = set(all_checks()) - {
    "light-listing",
    "missing-weights",
}  # which tests/rewards/test_check.py runs on every card
TEMPLATE = (
    "{% for message in messages %}USER {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT{% endif %}"
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub keeps LLaVA 1.5: config, weights, processor and chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("llava")
    core = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, **names, additional_special_tokens=["<image>"]
    )
    images = CLIPImageProcessor(**SMALL_SQUARE)
    LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(3)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, image_size=28, patch_size=14),
        text_config=LlamaConfig(
            **sizes,
            vocab_size=len(WORDS),
            initializer_range=0.6,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=3,
        ),
        image_token_index=4,
    )
    model = LlavaForConditionalGeneration(config)
    for parameter in model.model.multi_modal_projector.parameters():
        parameter.data.normal_(std=0.6)  # so that the image moves the answer
    model.lm_head.weight.data[:5] = 0.0  # one of the words is likelier than a special token
    model.generation_config.eos_token_id = ENDS
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "bert", "bert")


def make_image(seed: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    ).resize((48, 32))


def plainly(llava: Path, image: Image.Image, tokens: int) -> tuple[str, torch.Tensor]:
    """Greedy answer without `generate`, and the log-probabilities of its first token.

    Each token takes one forward pass of the whole text.
    """
    from transformers import LlavaForConditionalGeneration

    processor = on_pillow(llava)
    model = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    inputs = processor(
        images=[image], text=[f"USER <image> {QUESTION} ASSISTANT"], return_tensors="pt"
    )
    ids = inputs["input_ids"]
    first = None
    count = inputs["input_ids"].shape[1]
    for _ in range(tokens):
        with torch.no_grad():
            logits = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=inputs["pixel_values"],
            ).logits[0, -1]
        first = logits.log_softmax(-1) if first is None else first
        ids = torch.cat([ids, logits.argmax().view(1, 1)], dim=1)
        if int(ids[0, -1]) in ENDS:
            break
    assert first is not None
    return " ".join(WORDS[token] for token in ids[0, count:].tolist() if token > 4), first


def test_the_score_is_the_recall_that_bert_score_gives_for_the_plain_models_answer(
    llava: Path, encoder: Path, tmp_path: Path
) -> None:
    images = [make_image(seed) for seed in range(6)]
    prompts = ["cat", "a dog rides the bike", "", "is " * 700, "“a” bike’s bell", "一只猫 🦊"]
    output = Alignment(str(llava), str(encoder), layer=3)(
        ImageBatch.of_images(images, [Prompt(text) for text in prompts])
    )
    stated = write_encoder(
        tmp_path / "bert", "bert", model_max_length=512
    )  # without a maximum the package overflows
    original = BERTScorer(
        model_type=str(stated), num_layers=3, use_fast_tokenizer=True, device="cpu"
    )
    answers = set()
    for place, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        answer, _ = plainly(llava, jpeg80(image), 64)
        answers.add(answer)
        precision, recall, f1 = (
            float(part) for part in original.score([answer], [f"The image contains {prompt}"])
        )
        found = [float(output.parts[name][place]) for name in ("precision", "f1", "truncated")]
        assert float(output.values[place]) == pytest.approx(recall, abs=1e-6)
        assert found == pytest.approx([precision, f1, float(place == 3)], abs=1e-6)
    assert len({len(answer.split()) for answer in answers}) > 1  # the image moves the answer


def test_log_probabilities_of_the_first_token_are_the_plain_models(llava: Path) -> None:
    _, due = plainly(llava, make_image(0), 1)
    found = open_vlm(str(llava)).first_token_logprobs(make_image(0), QUESTION)
    assert set(found) == set(WORDS)
    assert [found[word] for word in WORDS] == pytest.approx(due.tolist(), abs=1e-5)


def test_the_conformance_kit_passes_on_tiny_weights(llava: Path, encoder: Path) -> None:
    options = f"vlm={llava},scorer={encoder},layer=3"
    results = {
        result.name: result for result in check_reward(f"alignment:{options}", only=IN_PROCESS)
    }
    assert {name: result.detail for name, result in results.items() if not result.ok} == {}
    for name in (
        "order",
        "batch-invariance",
        "empty-batch",
        "repeatability",
        "long-prompt",
        "picture-sizes",
        "picture-modes",
    ):
        assert results[name].outcome == "passed", results[name]


def test_what_cannot_be_described_is_unscorable(llava: Path, encoder: Path) -> None:
    thin = ImageBatch.of_images([Image.new("RGB", (2, 200))], [Prompt("a cat")])
    output = make_reward("alignment", vlm=str(llava), scorer=str(encoder), layer=3)(thin)
    assert output.errors == ("an image of 2×200 is too narrow for a vision-language model",)
    assert check_words(" a cat \n", 2) == "a cat"
    with pytest.raises(UnusableAnswer, match="is empty"):
        check_words(" \n", 64)
    with pytest.raises(UnusableAnswer, match="has 3 words, more than the 2 requested"):
        check_words("a cat rides", 2)


def test_without_weights_one_line_says_how_to_get_them(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    for options in ({}, {"scorer": str(encoder), "layer": 3, "vlm": str(tmp_path)}):
        with pytest.raises(MissingResourceError) as caught:
            make_reward("alignment", **options)
        message = str(caught.value)
        for part in (
            "alignment",
            "llava-hf/llava-1.5-7b-hf (14.1 GB, Llama 2 Community)",
            "`ddpo rewards download alignment`",
            "vlm=",
            "scorer=",
        ):
            assert part in message
        assert "\n" not in message
    with pytest.raises(
        MissingResourceError
    ) as caught:  # with a server the encoder alone is missing
        make_reward("alignment", vlm="http://127.0.0.1:9/v1")
    assert "llava" not in str(caught.value)
    command = "`ddpo rewards download alignment:vlm=http://127.0.0.1:9/v1`"
    assert command in str(caught.value)


def test_back_ends_and_models_have_signatures_of_their_own() -> None:
    specs = [
        {},
        {"vlm": "http://127.0.0.1:8000/v1"},
        {"vlm": "http://127.0.0.1:8000/v1", "model": "other"},
        {"layer": 18},
    ]
    assert len({resolve("alignment", **options).signature for options in specs}) == len(specs)


def test_images_go_through_jpeg_80() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8))
    decoded = jpeg80(image)
    assert (decoded.size, decoded.mode) == ((32, 32), "RGB")
    assert not np.array_equal(np.asarray(decoded), np.asarray(image))
