"""CLIP token ids of odd texts, by OpenAI's tokenizer in open_clip and by transformers."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_clip_family import write_tokenizer

from ddpo.errors import ConfigError
from ddpo.rewards.models.clip_words import openai_clean, openai_reader, plain_reader

CLEANED = [
    ("“A” dog’s ‘ball’", "\"a\" dog's 'ball'"),
    ("ＦＵＬＬ　ｗｉｄｔｈ", "full width"),
    ("ﬁre in the oﬃce", "fire in the office"),
    ("cats &amp; dogs", "cats & dogs"),
    ("cats &amp;amp;amp; <b>dogs</b>", "cats &amp; <b>dogs</b>"),  # undone twice, not thrice
    ("a schÃ¶n cafÃ©", "a schön café"),
    (" a\n\tred\u00a0 fox ", "a red fox"),
    ("a red\u200b fox\x07", "a red\u200b fox"),
    ("Ünïcode STRASSE", "ünïcode strasse"),
    ("\x1b[31mred\x1b[0m fox", "red fox"),
    ("", ""),
]
ODD = [
    "<e&#769;>",
    "&eacute;t&#233;",
    "İstanbul",
    "ẞ Straße",
    "ǅ Ω K ſ ß",
    "a b c　d​e‍",
    "❤️ 👩‍👩‍👧",
    "x\x1cy\x85z",
    "!!!'s ...'t",
    "don't it's I'VE we'LL you'RE",
    "２３ ½ ³ Ⅳ ①",
    "हिन्दी",
    "한국어",
    "e\u0301 é",
    "\ufeffbom",
    "\ud83d\ude00",
    "a \ud800 lone half",
    "   ",
    "a&nbsp;b",
    "it’s",
    "__a__b-c.d",
    "… — – •",
    "ﷺ ㎏",
    "<b>it&#39;s</b>",
    "\u202eright to left",
    "C:\\x | a/b",
    "$5 £6 100%",
]


def generated(count: int) -> list[str]:
    """Texts of letters from many scripts, of marks and of pieces of HTML.

    U+0345 is left out: ignoring case, Python's `regex`, with which OpenAI's tokenizer splits,
    takes this mark for a letter.
    """
    odd = [
        chr(code)
        for code in (*range(0x20, 0x3000), *range(0xFB00, 0xFB07), *range(0xFF01, 0xFF5E))
        if code != 0x345
    ]
    letters = [letter for letter in odd if unicodedata.category(letter) not in ("Cn", "Cs")]
    choose = random.Random(7)
    common = [*"abc '&;<s#1", "&amp;", "&#x41;", "’", "Ã©"]
    return [
        "".join(
            choose.choice(letters if choose.random() < 0.5 else common)
            for _ in range(choose.randint(1, 12))
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def open_clip_words() -> Any:
    return pytest.importorskip("open_clip").tokenizer.SimpleTokenizer()


@pytest.fixture
def load(tmp_path: Path, open_clip_words: Any) -> Callable[[], Any]:
    """A new tokenizer of transformers with the 49,408 tokens of open_clip."""
    from transformers import AutoTokenizer

    merges = sorted(open_clip_words.bpe_ranks, key=open_clip_words.bpe_ranks.__getitem__)
    write_tokenizer(tmp_path, [" ".join(pair) for pair in merges])
    return lambda: AutoTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(("text", "due"), CLEANED)
def test_texts_are_cleaned_as_openai_does(text: str, due: str) -> None:
    assert openai_clean(text) == due


def test_token_ids_are_those_of_openais_tokenizer(
    load: Callable[[], Any], open_clip_words: Any
) -> None:
    read = openai_reader(load())
    words = open_clip_words
    texts = [*(text for text, _ in CLEANED), *ODD, *generated(2000)]
    due = [[words.sot_token_id, *words.encode(text), words.eot_token_id] for text in texts]
    found = [read(text) for text in texts]
    assert [(text, a, b) for text, a, b in zip(texts, found, due, strict=True) if a != b] == []


def test_a_special_token_in_a_text_counts_as_in_openais_tokenizer(load: Callable[[], Any]) -> None:
    """There <|endoftext|> is always the special token; open_clip spells it otherwise."""
    assert openai_reader(load())("<|endoftext|> <|StartOfText|>") == [49406, 49407, 49406, 49407]


def test_the_plain_reader_does_not_clean(load: Callable[[], Any], open_clip_words: Any) -> None:
    plain = plain_reader(load())
    cleaning = openai_reader(load())
    moved = ["a dog’s ball", "ＦＵＬＬ width", "cats &amp; dogs", "a schÃ¶n café", "ﬁre"]
    assert all(plain(text) != cleaning(text) for text in moved)
    same = ["a dog's ball", "full width", "cats & dogs", "a schön café", "fire"]
    assert [plain(text) for text in same] == [cleaning(text) for text in moved]


def test_a_tokenizer_of_another_make_is_refused() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(
        ConfigError, match="tokenizer is a ByT5Tokenizer; a CLIPTokenizer is needed"
    ):
        openai_reader(ByT5Tokenizer())
