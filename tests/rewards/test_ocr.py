"""The `ocr` reward: the target text, the arithmetic by hand, and the real engine on test images."""

from __future__ import annotations

import dataclasses
import math
import random
import socket
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from ddpo.errors import ImageError, MissingResourceError, RewardLoadError
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.fixtures import FIXTURES
from ddpo.rewards.models import ocr
from ddpo.rewards.models.ocr_text import (
    common_letters,
    edit_distance,
    letters,
    quoted,
    spelling,
    wanted,
)
from ddpo.rewards.signature import signature
from ddpo.rewards.vlm import UnusableAnswer
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ('a sign that says "HELLO"', ("HELLO",)),
        ("a sign “Hello World” and one „Hallo“", ("Hello World", "Hallo")),
        (
            "«salut», »hallo«, ”hej”, 「日本」, 『本』, ＂x＂",
            ("salut", "hallo", "hej", "日本", "本", "x"),
        ),
        ('two signs: "OPEN" and "CLOSED"', ("OPEN", "CLOSED")),
        ("a cup with 'tea for 2' on it", ("tea for 2",)),
        ("it says 'DON'T PANIC' in red", ("DON'T PANIC",)),
        ("it says ‘DON’T PANIC’ in red", ("DON’T PANIC",)),
        ("the dogs' bowl isn't 'OPEN'", ("OPEN",)),
        ("a '90s sign with 'HELLO'", ("HELLO",)),
        ("\"She said 'hi'\" on a wall", ("She said 'hi'",)),
        ('a card: “he said "hi"”', ('he said "hi"',)),
        ("the word 'tea' and the word \"coffee\"", ("coffee",)),
        ('a 12" ruler beside a 6" pen', ()),
        ('a 12" board that reads "Route 66"', ("Route 66",)),
        ('"" and " " and "a"', ("a",)),
        ("rock 'n' roll in the rain", ()),
        ('an open "mark', ()),
        ("", ()),
    ],
)
def test_what_a_prompt_quotes(prompt: str, spans: tuple[str, ...]) -> None:
    assert quoted(prompt) == spans


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("Hello  World\n", "helloworld"),
        ("DON’T", "don't"),
        ("“a”–b", '"a"-b'),
        ("ＡＢＣ１２３！", "abc123!"),
        ("cafe\u0301", "caf\u00e9"),
        ("ﬁne…", "fine..."),
        ("Straße", "strasse"),
        ("a\u200b\u00ad\u3000b\x00", "ab"),
        ("ΣΑΣ", "σασ"),
    ],
)
def test_what_is_compared(text: str, due: str) -> None:
    assert letters(text) == due


def test_the_metadata_come_before_the_prompt() -> None:
    assert wanted(Prompt('a sign "A"', {"text": "B"})) == ("B",)
    assert wanted(Prompt("a sign", {"text": ["B", "C d"]})) == ("B", "C d")
    assert wanted(Prompt('a sign "A"', {"text": None})) == ("A",)
    for wrong in ("", " \n", [], [""], ["A", " "], 5, ["A", 5], {"A": 1}):
        with pytest.raises(
            UnusableAnswer, match="the metadata's 'text' is neither a text nor a list of texts"
        ):
            wanted(Prompt('a sign "A"', {"text": wrong}))
    with pytest.raises(UnusableAnswer, match="the prompt quotes no text"):
        wanted(Prompt("a red fox"))


def test_the_distances_are_those_of_their_definitions() -> None:
    @cache
    def edits(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(edits(a[1:], b) + 1, edits(a, b[1:]) + 1, edits(a[1:], b[1:]) + (a[0] != b[0]))

    @cache
    def common(a: str, b: str) -> int:
        if not a or not b:
            return 0
        return max(
            common(a[1:], b), common(a, b[1:]), common(a[1:], b[1:]) + 1 if a[0] == b[0] else 0
        )

    assert (
        edit_distance("kitten", "sitting"),
        edit_distance("flaw", "lawn"),
        edit_distance("", "abc"),
    ) == (3, 2, 3)
    assert (
        common_letters("AGCAT", "GAC"),
        common_letters("", "a"),
        common_letters("abc", "abc"),
    ) == (2, 0, 3)
    generator = random.Random(0)
    for _ in range(300):
        a, b = ("".join(generator.choices("abc", k=generator.randrange(8))) for _ in range(2))
        assert edit_distance(a, b) == edits(a, b)
        assert common_letters(a, b) == common(a, b)


@pytest.mark.parametrize(
    ("lines", "targets", "due"),
    [  # score, exact, distance, extra, Flow-GRPO's
        (["HELLO WORLD"], ["Hello World"], (1, 1, 0, 0, 1)),
        (["HELLO", "WORLD"], ["HelloWorld"], (1, 1, 0, 0, 1)),
        (["HELO WORLD"], ["HELLO WORLD"], (0.9, 0, 1, 0, 0.9)),
        (["HELLO WORLD!"], ["HELLO WORLD"], (0.9, 0, 1, 1, 1)),
        (["XELLO"], ["HELLO"], (0.8, 0, 1, 1, 0.8)),
        ([], ["HELLO"], (0, 0, 5, 0, 0)),
        (["STOP"] * 3, ["STOP"], (0, 0, 8, 8, 1)),
        (["shop", "STOP", "bus 12"], ["STOP"], (0, 0, 9, 9, 1)),
        (["CLOSED", "OPEN"], ["OPEN", "CLOSED"], (1, 1, 0, 0, 1)),
        (["OPEN"], ["OPEN", "CLOSED"], (0.4, 0, 6, 0, 1)),
        (["b", "a", "c", "d", "e"], ["a", "b", "c", "d", "e"], (0.6, 0, 2, 1, 1)),
        (["DON'T"], ["DON’T"], (1, 1, 0, 0, 0.8)),
    ],
)
def test_spelling_by_hand(lines: list[str], targets: list[str], due: tuple[float, ...]) -> None:
    found = spelling(lines, targets)
    assert not isinstance(found, str)
    assert list(found) == ["score", *ocr.PARTS]
    assert tuple(found.values()) == pytest.approx(due)


def make_image(
    text: str,
    size: tuple[int, int] = (256, 256),
    letter: int = 32,
    color: Any = "black",
    ground: Any = "white",
) -> Image.Image:
    image = Image.new("RGB" if isinstance(ground, str) else "L", size, ground)
    place = (size[0] / 2, size[1] / 2)
    ImageDraw.Draw(image).multiline_text(
        place, text, color, ImageFont.load_default(letter), "mm", align="center"
    )
    return image.convert("RGB")


@pytest.fixture(scope="module")
def reward() -> Any:
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    return make_reward("ocr")


@pytest.fixture
def small_detector(reward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine with images enlarged to 64 instead of 736 pixels, which would be slow."""
    engine = sys.modules["rapidocr"].RapidOCR
    small = {"Det.limit_side_len": 64, "EngineConfig.onnxruntime.intra_op_num_threads": 1}
    monkeypatch.setattr(
        sys.modules["rapidocr"], "RapidOCR", lambda params: engine(params={**params, **small})
    )


def scored(reward: Any, image: Image.Image, prompt: str, **metadata: Any) -> dict[str, float]:
    output = reward(ImageBatch.of_images([image], [Prompt(prompt, metadata)]))
    assert output.errors == (None,)
    return {"score": float(output.values[0])} | {
        name: float(part[0]) for name, part in output.parts.items()
    }


def test_real_text_and_the_real_engine(reward: Any) -> None:
    prompt = 'a sign that says "HELLO WORLD"'
    right = {"score": 1.0, "exact": 1.0, "distance": 0.0, "extra": 0.0, "flow_grpo": 1.0}
    assert scored(reward, make_image("HELLO WORLD"), prompt) == right
    assert scored(reward, make_image("HELLO\nWORLD", (200, 360), 44), prompt) == right
    assert (
        scored(reward, make_image("Hello World", (480, 160), 48, "yellow", "navy"), prompt) == right
    )
    assert scored(reward, make_image("HELLO WORLD", (320, 200), 40, 0, 255), prompt) == right
    wrong = {**right, "score": 0.9, "exact": 0, "distance": 1, "flow_grpo": 0.9}
    assert scored(reward, make_image("HELO WORLD"), prompt) == pytest.approx(wrong)
    assert scored(reward, make_image(""), prompt) == {
        "score": 0,
        "exact": 0,
        "distance": 10,
        "extra": 0,
        "flow_grpo": 0,
    }
    assert scored(reward, make_image("GOOD BYE"), prompt)["score"] < 0.5
    assert (
        scored(reward, make_image("It's 5 o'clock!"), "a clock", text="It’s 5 o’clock!")["exact"]
        == 1
    )


def test_a_image_full_of_the_text_gains_nothing_by_it(reward: Any) -> None:
    found = scored(reward, make_image("STOP\nSTOP\nSTOP\nSTOP", letter=40), 'a sign "STOP"')
    assert (found["score"], found["extra"], found["flow_grpo"]) == (0, 12, 1)


def test_scores_do_not_depend_on_batch_mates(small_detector: None) -> None:
    reward = make_reward("ocr")
    texts = ["STOP", "ST0P", "", "GO"] * 4
    images = [make_image(text, (96, 64), 28) for text in texts]
    prompts = [Prompt('the word "STOP"'), Prompt('the word "GO"')] * 8
    whole = reward(ImageBatch.of_images(images, prompts)).values.tolist()
    assert whole[:4] == [
        reward(ImageBatch.of_images([p], [q])).values.item()
        for p, q in zip(images[:4], prompts[:4], strict=True)
    ]
    assert whole[2:5] == reward(ImageBatch.of_images(images[2:5], prompts[2:5])).values.tolist()
    assert (whole[0], whole[2], whole[3]) == (1, 0, 1)
    assert reward(ImageBatch(torch.zeros(0, 3, 8, 8), [])).values.shape == (0,)


def test_what_cannot_be_judged_says_why(reward: Any) -> None:
    narrow = Image.new("RGB", (4096, 1))
    cases = [
        (make_image("A"), Prompt("a red fox"), "the prompt quotes no text"),
        (
            make_image("A"),
            Prompt('a sign "Привет"'),
            "the recogniser knows no 'в е и п р', which is in the target text",
        ),
        (narrow, Prompt('a sign "A"'), "the OCR engine failed: ResizeImgError"),
    ]
    for image, prompt, reason in cases:
        output = reward(ImageBatch.of_images([image], [prompt]))
        assert math.isnan(output.values[0])
        assert output.errors[0].startswith(reason)
        assert "\n" not in output.errors[0]


def test_nothing_is_fetched(reward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    path = (
        Path(sys.modules["rapidocr"].__file__ or "").parent / "models" / "PP-OCRv6_rec_small.onnx"
    )
    assert make_reward("ocr", recogniser=str(path)).read(make_image("STOP 42")) == ("STOP 42",)
    assert "|rapidocr:3.10." in signature(reward.card)
    assert "PP-OCRv6_rec_small.onnx@sha256-6f327246b503" in signature(reward.card)


def test_missing_and_other_models_are_reported_in_one_line(
    reward: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(b"no model")
    with pytest.raises(
        MissingResourceError, match=r"are no models that it can run: .*other.onnx"
    ) as caught:
        make_reward("ocr", recogniser=str(other))
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingResourceError, match=r"there is no model at .*absent"):
        make_reward("ocr", detector=str(tmp_path / "absent"))
    changed = dataclasses.replace(ocr.OCR_WEIGHTS[1], sha256="0" * 64)
    monkeypatch.setattr(ocr, "OCR_WEIGHTS", (ocr.OCR_WEIGHTS[0], changed, ocr.OCR_WEIGHTS[2]))
    with pytest.raises(
        MissingResourceError,
        match=r"PP-OCRv6_rec_small.onnx \(21.2 MB, Apache-2.0\), which is not the file",
    ) as caught:
        make_reward("ocr")
    assert "\n" not in str(caught.value)


def test_without_the_engine_the_pip_line_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(RewardLoadError, match=r'pip install "ddpo\[ocr\]"') as caught:
        make_reward("ocr")
    assert "\n" not in str(caught.value)


def test_pixels_that_are_no_numbers_are_refused(reward: Any) -> None:
    with pytest.raises(ImageError, match="got nan"):
        reward(ImageBatch(torch.full((1, 3, 8, 8), math.nan), [Prompt('"A"')]))


def test_the_conformance_kit_on_images_with_text(
    small_detector: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kit's own images have no text, for which any score but 0 would be wrong."""
    words = dict(zip(FIXTURES, ("STOP", "SHOP", "", "GO", "STOP", "TOPS"), strict=True))

    def draw(name: str) -> Any:
        return np.kron(
            np.asarray(make_image(words[name], (64, 64), 20)), np.ones((8, 8, 1), np.uint8)
        )

    monkeypatch.setattr("ddpo.rewards.check.reward_under_test.draw_fixture", draw)
    only = sorted(set(all_checks()) - {"light-listing", "missing-weights"})
    results = {
        result.name: result
        for result in check_reward(
            "ocr", only=only, prompt=Prompt('a sign "STOP"', {"text": "STOP"})
        )
    }
    assert {name: result.detail for name, result in results.items() if not result.ok} == {}
    for name in (
        "construction",
        "contract",
        "no-silent-score",
        "batch-invariance",
        "order",
        "rounding",
        "empty-batch",
        "memory",
    ):
        assert results[name].outcome == "passed", results[name].detail
    assert results["score-range"].detail == "0 … 1"
    assert "1×4096 (the OCR engine failed" in results["picture-sizes"].detail
