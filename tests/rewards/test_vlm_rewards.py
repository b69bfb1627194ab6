"""The rewards on a vision-language model: formulas by hand, a tiny LLaVA against plain calls."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fault_server import fault_server
from PIL import Image

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import CheckResult, check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models import vlm_reward as asking
from ddpo.rewards.models.vlm_judge import VlmJudge, expected_rating, rating_of
from ddpo.rewards.models.vlm_reward import excerpt, share_of
from ddpo.rewards.models.vqa_score import VqaScore, published, yes_and_no
from ddpo.rewards.models.vqa_strict import VqaStrict, compared, normalised, questions_and_answers
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.vlm import NoLogProbs, UnusableAnswer, check_words, jpeg80, open_vlm
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt, RewardOutput

NAMES = ("vqa_strict", "vqa_score", "vlm_judge")
WORDS = [
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    "<image>",
    "USER",
    "ASSISTANT",
    ":",
    "?",
    ".",
    '"',
    "Yes",
    "yes",
    "YES",
    "No",
    "no",
    "1",
    "2",
    "3",
    "4",
    "5",
    "a",
    "the",
    "cat",
    "dog",
    "monkey",
    "Does",
    "this",
    "figure",
    "show",
    "Please",
    "answer",
    "or",
    "red",
    "fox",
    "letter",
]
TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SMALL_SQUARE: dict[str, Any] = {
    "size": {"shortest_edge": 28},
    "crop_size": {"height": 28, "width": 28},
}
ASKS = Prompt(
    "two dogs", {"questions": ["who is there?", "the colour?"], "answers": ["dog", "red"]}
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA of 2 + 2 layers with its processor, as `save_pretrained` writes them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers import PreTrainedTokenizerFast as FastTokenizer

    folder = tmp_path_factory.mktemp("llava")
    words = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = FastTokenizer(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
    images = CLIPImageProcessor(**SMALL_SQUARE)
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = LlamaConfig(
        **small,
        vocab_size=len(WORDS),
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    vision = CLIPVisionConfig(**small, image_size=28, patch_size=14)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(
            LlavaConfig(vision_config=vision, text_config=text, image_token_index=4)
        )
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(
                    parameter, std=0.5
                )  # large, so that the first token depends on the image
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = [
        3,
        *range(WORDS.index("."), WORDS.index("a")),
    ]  # short replies, for speed
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def favouring_ratings(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with strong words 1 … 5 and weak others: it answers with ratings."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    folder = tmp_path_factory.mktemp("ratings")
    AutoProcessor.from_pretrained(llava).save_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(llava)
    ratings = [WORDS.index(word) for word in "12345"]
    rest = [place for place in range(len(WORDS)) if place not in ratings]
    with torch.no_grad():
        model.lm_head.weight[rest] *= 0.01
        model.lm_head.weight[ratings] *= 6.0
    model.save_pretrained(folder)
    return folder


def noise(count: int = 3, side: int = 40, prompt: Prompt = ASKS) -> ImageBatch:
    array = np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    return ImageBatch.of_uint8(array, (prompt,) * count)


def on_pillow(folder: Path) -> Any:
    """The model's processor with the class of transformers that resizes by Pillow."""
    from transformers import AutoProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = CLIPImageProcessorPil(**SMALL_SQUARE)
    return processor


def plainly(folder: Path, image: Image.Image, question: str, new_tokens: int = 0) -> Any:
    """Results of transformers itself: float64 probabilities of the first token, or the reply."""
    from transformers import LlavaForConditionalGeneration

    processor = on_pillow(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    inputs = processor(
        images=image, text=f"USER: <image> {question} ASSISTANT:", return_tensors="pt"
    )
    with torch.no_grad():
        if not new_tokens:
            return model(**inputs).logits[0, -1].double().softmax(-1)
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens)[
            0, inputs["input_ids"].shape[1] :
        ]
    return processor.decode(tokens, skip_special_tokens=True)


class Scripted:
    """A model that says what is written down for a question, and remembers what it was asked."""

    sends_jpeg = False
    thread_safe = False

    def __init__(
        self, replies: dict[str, str] | str = "", log_probs: dict[str, float] | None = None
    ) -> None:
        self.replies = replies
        self.log_probs = log_probs
        self.asked: list[tuple[Image.Image, str, int]] = []

    def answer(self, image: Image.Image, question: str, max_tokens: int) -> str:
        self.asked.append((image, question, max_tokens))
        return check_words(
            self.replies if isinstance(self.replies, str) else self.replies[question], max_tokens
        )

    def first_token_logprobs(self, image: Image.Image, question: str) -> dict[str, float]:
        self.asked.append((image, question, 1))
        if self.log_probs is None:
            raise UnusableAnswer("the server gives no log-probabilities")
        return self.log_probs


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(name: str, model: Scripted, prompt: Prompt = ASKS, **options: Any) -> RewardOutput:
        monkeypatch.setattr(asking, "open_vlm", lambda *_, **__: model)
        return make_reward(name, **options)(noise(1, prompt=prompt))

    return use


def logs(**shares: float) -> dict[str, float]:
    return {token: math.log(share) for token, share in shares.items()}


# the formulas


def test_substring_and_exact_match_by_hand() -> None:
    replies = ["The dog is washing dishes.", "A Monkey.", "no cats at all", "Four"]
    assert compared(replies, ["dog", "monkey", "cat", "four"]) == {
        "score": 0.5,
        "substring": 0.5,
        "exact": 0.5,
    }
    assert compared(["dog"], ["dog"]) == {"score": 1.0, "substring": 1.0, "exact": 1.0}
    assert compared(["Dog"], ["dog"])["score"] == 0.0  # letter by letter, as in the paper
    assert normalised("  The ＤＯＧ's an\tanimal! ") == "dog s animal"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "the prompt has no 'questions' in its metadata"),
        ({"questions": ["who?"]}, "the prompt has no 'answers' in its metadata"),
        ({"questions": ["who?", "where?"], "answers": ["dog"]}, "2 questions and 1 answers"),
        (
            {"questions": ["who?"], "answers": [" "]},
            "'answers' of the prompt's metadata is not a list of texts, or one is empty",
        ),
        ({"questions": "who?", "answers": ["dog"]}, "'questions' of"),
        ({"questions": [], "answers": []}, "'questions' of"),
        ({"questions": ["how many?"], "answers": [2]}, "'answers' of"),
    ],
)
def test_metadata_that_is_not_fit_is_a_reason_and_no_score(
    metadata: dict[str, Any], reason: str, scripted: Any
) -> None:
    found = questions_and_answers(metadata)
    assert isinstance(found, str)
    assert reason in found
    output = scripted("vqa_strict", Scripted("dog"), prompt=Prompt("two dogs", metadata))
    assert (math.isnan(output.values[0]), output.errors) == (True, (found,))


def test_spellings_of_yes_are_added_up() -> None:
    found = yes_and_no(
        logs(Yes=0.5, yes=0.125, YES=0.0625, No=0.25)
        | {" yes": math.log(0.03125), "▁no": math.log(0.015625), "Yes,": -9.0}
    )
    assert isinstance(found, dict)
    assert found["score"] == found["yes"] == pytest.approx(0.71875)
    assert found["no"] == pytest.approx(0.265625)
    assert found["yes_of_both"] == pytest.approx(0.71875 / 0.984375)
    only_no = yes_and_no(logs(No=0.9))
    assert isinstance(only_no, dict)
    assert only_no["score"] == 0.0
    assert yes_and_no(logs(The=0.75, A=0.25)) == (
        "neither yes nor no is among the likely first tokens; the likeliest is 'The' (0.75)"
    )
    assert share_of("no", logs(none=0.5, nothing=0.5)) == 0.0


def test_expected_rating_by_hand() -> None:
    shares = {"1": 0.1, " 4": 0.2, "▁5": 0.4, "Good": 0.3}
    rating, mass = expected_rating({token: math.log(share) for token, share in shares.items()})
    assert mass == pytest.approx(0.7)
    assert rating == pytest.approx((0.1 + 0.8 + 2.0) / 0.7)
    rating, mass = expected_rating(logs(Good=0.9))
    assert (math.isnan(rating), mass) == (True, 0.0)


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("4", 4.0),
        ("Rating: 3.5/5", 3.5),
        ("**2**", 2.0),
        ("I'd say 4 out of 5.", 4.0),
        ("5/5", 5.0),
        ("4. Well made: 4 of 5", 4.0),
        ("", None),
        ("good", None),
        ("0", None),
        ("6", None),
        ("-3", None),
        ("3/10", None),
        ("4 or 5", None),
        ("4-5", None),
        ("3,5", None),
        ("90%", None),
        ("4th", None),
        ("On a scale of 1 to 5: 4", None),
        ("3 of 50", None),
        ("v4", None),
        ("1.2.3", None),
        ("3.5%", None),
        ("4.5-5", None),
    ],
)
def test_a_rating_is_read_only_where_there_is_one(reply: str, rating: float | None) -> None:
    assert rating_of(reply) == rating


def test_excerpts_are_short_and_on_one_line() -> None:
    assert excerpt("a\n b") == "'a b'"
    assert len(excerpt("x" * 5000)) == 62


# the rewards with a model whose answers are known


def test_vqa_strict_asks_each_question_about_the_jpeg(scripted: Any) -> None:
    model = Scripted({"who is there?": "one dog", "the colour?": "Red"})
    output = scripted("vqa_strict", model)
    assert output.values.tolist() == [0.5]
    assert {name: part.tolist() for name, part in output.parts.items()} == {
        "substring": [0.5],
        "exact": [0.5],
    }
    assert [(question, tokens) for _, question, tokens in model.asked] == [
        ("who is there?", 64),
        ("the colour?", 64),
    ]
    assert np.array_equal(np.asarray(model.asked[0][0]), np.asarray(jpeg80(noise(1).images[0])))
    model.sends_jpeg = True
    scripted("vqa_strict", model)
    assert np.array_equal(
        np.asarray(model.asked[-1][0]), noise(1).uint8[0]
    )  # the back end makes the JPEG, once


def test_what_is_asked_is_what_the_card_says(scripted: Any) -> None:
    score = Scripted(log_probs=logs(Yes=0.5))
    judge = Scripted(log_probs={"4": 0.0})
    assert scripted("vqa_score", score).values.tolist() == pytest.approx([0.5])
    assert score.asked[0][1] == 'Does this figure show "two dogs"? Please answer yes or no.'
    assert scripted("vlm_judge", judge).values.tolist() == [4.0]
    default = next(
        option.default for option in CARDS["vlm_judge"].options if option.name == "template"
    )
    assert judge.asked[0][1] == str(default).replace("{prompt}", "two dogs")
    assert str(default) in CARDS["vlm_judge"].preprocessing
    scripted("vlm_judge", judge, template="{prompt} {x}: 1-5?")
    assert judge.asked[-1][1] == "two dogs {x}: 1-5?"


def test_the_judge_reads_the_text_only_where_the_first_token_is_no_rating(scripted: Any) -> None:
    output = scripted(
        "vlm_judge", Scripted("Rating: 2", {"Rating": math.log(0.9), "5": math.log(0.1)})
    )
    assert output.values.tolist() == [2.0]
    assert output.parts["from_text"].tolist() == [1.0]
    assert output.parts["mass"].tolist() == pytest.approx([0.1])
    assert scripted("vlm_judge", Scripted("3")).values.tolist() == [
        3.0
    ]  # no log-probabilities at all
    output = scripted(
        "vlm_judge", Scripted("3", {"4": math.log(0.3), "5": math.log(0.3), "A": math.log(0.4)})
    )
    assert output.values.tolist() == pytest.approx([4.5])
    assert output.parts["from_text"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        (
            "vlm_judge",
            Scripted("a lovely picture"),
            "no single rating from 1 to 5 in the reply 'a lovely picture'",
        ),
        ("vlm_judge", Scripted(""), "the model's answer is empty"),
        ("vqa_score", Scripted(), "the server gives no log-probabilities"),
        ("vqa_score", Scripted(log_probs=logs(The=0.75)), "neither yes nor no"),
        ("vqa_strict", Scripted(""), "the model's answer is empty"),
    ],
)
def test_what_cannot_be_judged_has_a_reason_and_no_score(
    name: str, model: Scripted, reason: str, scripted: Any
) -> None:
    output = scripted(name, model)
    assert math.isnan(output.values[0])
    assert all(math.isnan(part[0]) for part in output.parts.values())
    assert reason in output.errors[0]


# a real model


def test_vqa_strict_on_a_real_model_is_the_plain_generation(llava: Path) -> None:
    questions = ["who is there?", "Does this figure show a cat?"]
    images = noise(4)
    replies = [
        [plainly(llava, jpeg80(image), question, 64) for question in questions]
        for image in images.images
    ]
    answers = [replies[0][0].split()[0], replies[1][1].split()[-1]]
    due = [
        sum(answer in reply for answer, reply in zip(answers, pair, strict=True)) / 2
        for pair in replies
    ]
    output = VqaStrict(str(llava))(
        ImageBatch.of_images(
            images.images, [Prompt("x", {"questions": questions, "answers": answers})] * 4
        )
    )
    assert output.values.tolist() == due
    assert max(due) > 0


def test_vqa_score_on_a_real_model_is_the_softmax_of_its_logits(llava: Path) -> None:
    images = noise(6)
    output = VqaScore(str(llava))(images)
    for place, image in enumerate(images.images):
        shares = plainly(llava, image, 'Does this figure show "two dogs"? Please answer yes or no.')
        listed = set(shares.topk(20).indices.tolist())
        yes = sum(
            float(shares[index])
            for index in map(WORDS.index, ("Yes", "yes", "YES"))
            if index in listed
        )
        no = sum(
            float(shares[index]) for index in map(WORDS.index, ("No", "no")) if index in listed
        )
        assert output.values[place].item() == pytest.approx(yes, abs=1e-6)
        assert output.parts["no"][place].item() == pytest.approx(no, abs=1e-6)
    assert len(set(output.values.tolist())) == 6


@pytest.fixture(scope="module")
def ending(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with likely tokens </s> and Yes, in which "</s>" and "." end an answer."""
    from transformers import LlavaForConditionalGeneration

    folder = tmp_path_factory.mktemp("ending")
    on_pillow(llava).save_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(llava)
    with torch.no_grad():
        model.lm_head.weight *= 0.3
    model.generation_config.eos_token_id = [WORDS.index("</s>"), WORDS.index(".")]
    model.save_pretrained(folder)
    return folder


def probabilities(folder: Path, image: Image.Image, text: str) -> torch.Tensor:
    """Log-probabilities of the token after a text, float64, by one plain pass of the model."""
    from transformers import LlavaForConditionalGeneration

    inputs = on_pillow(folder)(images=image, text=text, return_tensors="pt")
    with torch.no_grad():
        return (
            LlavaForConditionalGeneration.from_pretrained(folder)
            .eval()(**inputs)
            .logits[0, -1]
            .double()
            .softmax(-1)
        )


@pytest.mark.parametrize("asked", ["two dogs", "", "a cat or a red fox", "{prompt} : ?"])
def test_the_published_form_is_the_root_of_yes_and_the_end_behind_it(
    ending: Path, asked: str
) -> None:
    images = noise(3, prompt=Prompt(asked))
    output = VqaScore(str(ending), form="published")(images)
    for place, image in enumerate(images.images):
        text = f'USER: <image> Does this figure show "{asked}"? Please answer yes or no. ASSISTANT:'
        yes = float(probabilities(ending, image, text)[WORDS.index("Yes")])
        after = probabilities(ending, image, f"{text} Yes")
        end = float(after[WORDS.index("</s>")] + after[WORDS.index(".")])
        assert output.values[place].item() == pytest.approx((yes * end) ** 0.5, abs=1e-6)
        assert output.parts["yes"][place].item() == pytest.approx(yes, abs=1e-6)
        assert output.parts["end"][place].item() == pytest.approx(end, abs=1e-6)
    assert set(output.parts) == {"yes", "end"}
    assert len(set(output.values.tolist())) == 3


def test_the_published_form_by_hand() -> None:
    assert published(math.log(0.64), math.log(0.25)) == pytest.approx(
        {"score": 0.4, "yes": 0.64, "end": 0.25}
    )
    assert published(0.0, 0.0) == {"score": 1.0, "yes": 1.0, "end": 1.0}
    assert published(-math.inf, math.log(0.5)) == {"score": 0.0, "yes": 0.0, "end": 0.5}


def test_the_published_form_has_a_signature_of_its_own_and_says_where_it_cannot_be_had(
    llava: Path, tmp_path: Path
) -> None:
    lines = {
        resolve("vqa_score", vlm=str(llava), **options).identity
        for options in ({}, {"form": "published"})
    }
    assert len(lines) == 2
    with pytest.raises(ConfigError, match="form is 'paper', not one of spellings, published"):
        make_reward("vqa_score", vlm=str(llava), form="paper")
    with pytest.raises(ConfigError, match="form=published needs a local model"):
        make_reward("vqa_score", vlm="http://127.0.0.1:9/v1", form="published")
    with pytest.raises(NoLogProbs, match="does not say how likely the end of an answer is"):
        open_vlm("http://127.0.0.1:9/v1").word_and_end_logprobs(noise(1).images[0], "?", "Yes")
    model: Any = open_vlm(str(llava))
    with pytest.raises(ConfigError, match="has no token 'Oui'"):
        model.word_and_end_logprobs(noise(1).images[0], "?", "Oui")
    model._model.generation_config.eos_token_id = None
    with pytest.raises(ConfigError, match="states no end token"):
        model.word_and_end_logprobs(noise(1).images[0], "?", "Yes")


def test_vlm_judge_on_a_real_model_is_the_mean_of_its_softmax(favouring_ratings: Path) -> None:
    images = noise(4)
    output = VlmJudge(str(favouring_ratings), template="show {prompt} ?")(images)
    for place, image in enumerate(images.images):
        every = plainly(favouring_ratings, image, "show two dogs ?")
        shares = torch.where(every >= every.topk(20).values[-1], every, 0.0)[
            [WORDS.index(word) for word in "12345"]
        ]
        assert output.parts["mass"][place].item() == pytest.approx(float(shares.sum()), abs=1e-5)
        due = float((shares * torch.arange(1, 6)).sum() / shares.sum())
        assert output.values[place].item() == pytest.approx(due, abs=1e-5)
    assert output.parts["from_text"].tolist() == [0.0] * 4


def checked(
    name: str, prompt: Prompt | None, options: dict[str, Any], without: set[str]
) -> dict[str, CheckResult]:
    found: ResolvedReward = resolve(name, **options)
    only = {*all_checks()} - {"light-listing", "missing-weights"} - without
    return {result.name: result for result in check_reward(found, only=only, prompt=prompt)}


def test_the_conformance_kit_passes_on_real_models(llava: Path, favouring_ratings: Path) -> None:
    asks = Prompt("a cat", {"questions": ["who is there?", "the letter?"], "answers": ["YES", "2"]})
    for results in (
        checked(
            "vqa_strict", asks, {"vlm": str(llava)}, {"memory"}
        ),  # which takes seconds, and is the same code for all three
        checked("vqa_score", None, {"vlm": str(llava)}, set()),
        checked("vqa_score", None, {"vlm": str(llava), "form": "published"}, {"memory"}),
        checked("vlm_judge", None, {"vlm": str(favouring_ratings)}, {"memory"}),
    ):
        assert {result.name: result.detail for result in results.values() if not result.ok} == {}
        for check in (
            "batch-invariance",
            "rounding",
            "repeatability",
            "score-range",
            "contract",
            "empty-batch",
            "cache-key",
        ):
            assert results[check].outcome == "passed"


# the edges


@pytest.mark.parametrize("name", NAMES)
def test_without_weights_one_line_says_how_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    for options in ({}, {"vlm": str(tmp_path)}):
        with pytest.raises(MissingResourceError) as caught:
            make_reward(name, **options)
        message = str(caught.value)
        for part in (
            f"reward '{name}'",
            "llava-hf/llava-1.5-7b-hf (14.1 GB, Llama 2 Community)",
            f"`ddpo rewards download {name}`",
            "vlm=",
        ):
            assert part in message
        assert "\n" not in message


@pytest.mark.parametrize("name", NAMES)
def test_a_server_may_be_asked_by_several_threads(name: str) -> None:
    card = make_reward(name, vlm="http://127.0.0.1:9/v1", model="tiny").card
    assert (card.thread_safe, card.calls.concurrency, card.calls.retries, card.cache) == (
        True,
        8,
        3,
        True,
    )
    assert not make_reward(
        name, vlm="http://127.0.0.1:9/v1"
    ).card.cache  # the server may take another model tomorrow
    assert not CARDS[name].thread_safe


def test_a_server_is_asked_again_when_it_is_busy_and_what_it_cannot_answer_is_unscorable() -> None:
    with fault_server("429", "500", "ok", "400") as server:
        scored = Scorer(make_reward("vqa_score", vlm=server.url), batch_size=1).score_each(noise(1))
        assert scored.values.tolist() == pytest.approx([math.exp(-0.25)])
        assert scored.parts["no"].tolist() == pytest.approx([math.exp(-1.5)])
        assert len(server.requests) == 3
        assert np.array_equal(
            server.image(2), np.asarray(jpeg80(noise(1).images[0]))
        )  # JPEG once, not twice
        assert (server.requests[2]["top_logprobs"], server.requests[2]["temperature"]) == (20, 0)
        assert (
            "the image is too small" in make_reward("vqa_score", vlm=server.url)(noise(1)).errors[0]
        )


def test_what_a_server_replies_is_judged_by_its_text_where_the_first_token_is_no_rating() -> None:
    asks = Prompt("a cat", {"questions": ["what is it?", "who?"], "answers": ["cat", "dog"]})
    with (
        fault_server() as server
    ):  # its first token is yes or no, its text "the image contains a cat"
        output = make_reward("vlm_judge", vlm=server.url)(noise(1))
        assert output.errors == (
            "no single rating from 1 to 5 in the reply 'the image contains a cat'",
        )
        assert [request["max_tokens"] for request in server.requests] == [1, 16]
        assert make_reward("vqa_strict", vlm=server.url)(noise(1, prompt=asks)).values.tolist() == [
            0.5
        ]
        server.faults = ["ok", "null"]
        assert make_reward("vqa_strict", vlm=server.url)(noise(1, prompt=asks)).errors == (
            "the model's answer is empty",
        )
        server.then = "401"
        with pytest.raises(ConfigError, match="answered /chat/completions with 401"):
            make_reward("vlm_judge", vlm=server.url)(noise(1))


def test_another_template_is_another_signature_and_an_empty_one_is_refused() -> None:
    lines = {
        resolve("vlm_judge", **options).signature
        for options in ({}, {"template": "{prompt}?"}, {"template": "1 to 5?"})
    }
    assert len(lines) == 3
    assert all(len(line.splitlines()) == 1 for line in lines)
    with pytest.raises(ConfigError, match="template is empty"):
        make_reward("vlm_judge", template=" ")
