"""BERTScore against the package `bert-score` on tiny random encoders, and where that breaks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.rewards.models.bertscore import BertScore

LETTERS = "abcdefghijklmnopqrstuvwxyzT.,'é"
PAIRS = [
    ("a cat rides the bike", "The image contains a cat riding a bike"),
    ("The image contains a dog.", "The image contains a dog."),
    ("dog", "The image contains a tiger, a bear and a fox playing chess in the rain"),
    ("Two people are washing the dishes in a kitchen while a monkey watches them", "cat"),
    ("  white space around it \n", "The image contains a café"),
    ("一只猫 and words that no vocabulary has 12345", "The image contains zebra's"),
]
LONG = ("a cat " * 400, "the dog " * 400)


def write_wordpiece(folder: Path, limit: dict[str, Any]) -> None:
    from transformers import BertTokenizer

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "cat",
        "dog",
        "the",
        "image",
        "contains",
        *LETTERS.lower(),
        *("##" + c for c in LETTERS),
    ]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n")
    BertTokenizer(str(folder / "vocab.txt"), **limit).save_pretrained(folder)


def write_bpe(folder: Path, kind: str, limit: dict[str, Any]) -> None:
    """vocab.json and merges.txt, as the hub keeps them for RoBERTa and DeBERTa."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import DebertaTokenizer, RobertaTokenizer

    special = (
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        if kind == "roberta"
        else ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    )
    merges = [
        ("Ġ", "c"),
        ("Ġc", "a"),
        ("Ġca", "t"),
        ("i", "n"),
        ("in", "g"),
        ("Ġ", "t"),
        ("h", "e"),
        ("Ġt", "he"),
        ("Ġ", "d"),
    ]
    entries = [*special, *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(
        json.dumps({entry: place for place, entry in enumerate(entries)})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    maker = RobertaTokenizer if kind == "roberta" else DebertaTokenizer
    maker.from_pretrained(folder, **limit).save_pretrained(folder)


def write_encoder(folder: Path, kind: str, **limit: Any) -> Path:
    """A tiny, random encoder of three layers with a tokenizer, as `save_pretrained` writes them."""
    from transformers import AutoModel, BertConfig, DebertaConfig, RobertaConfig

    folder.mkdir()
    (write_wordpiece(folder, limit) if kind == "bert" else write_bpe(folder, kind, limit))
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 320,
    }
    config = {
        "bert": lambda: BertConfig(**sizes),
        "roberta": lambda: RobertaConfig(
            **sizes, max_position_embeddings=514, pad_token_id=1, bos_token_id=0, eos_token_id=2
        ),
        "deberta": lambda: DebertaConfig(
            **sizes,
            relative_attention=True,
            pos_att_type=["c2p", "p2c"],
            max_relative_positions=-1,
            position_biased_input=False,
            type_vocab_size=0,
            initializer_range=0.3,
        ),
    }[kind]()
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["deberta", "bert", "roberta"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(
        tmp_path_factory.mktemp("stated") / request.param, request.param, model_max_length=512
    )


def original(folder: Path, layer: int) -> Any:
    """The scorer of the package, as its documentation makes it."""
    from bert_score import BERTScorer

    return BERTScorer(
        model_type=str(folder), num_layers=layer, use_fast_tokenizer=True, device="cpu"
    )


def assert_equal(ours: BertScore, theirs: Any, pairs: list[tuple[str, str]]) -> None:
    for candidate, reference in pairs:
        due = [float(value) for value in theirs.score([candidate], [reference])]
        found = ours.score(candidate, reference)
        assert [found.precision, found.recall, found.f1] == pytest.approx(due, abs=1e-6), (
            candidate,
            reference,
        )


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_precision_recall_and_f1_are_those_of_the_package(encoder: Path, layer: int) -> None:
    assert_equal(BertScore(str(encoder), layer), original(encoder, layer), [*PAIRS, LONG])


@pytest.mark.parametrize(
    ("reference", "truncated"),
    [
        ("cat", False),
        ("", False),
        ("the dog " * 400, True),
        ("zebra " * 3, False),
        ("🦓" * 700, True),
    ],
)
def test_a_reference_that_is_cut_is_reported(
    encoder: Path, reference: str, truncated: bool
) -> None:
    found = BertScore(str(encoder), 2).score("a cat", reference)
    assert found.truncated == (
        truncated and not (encoder.name == "bert" and "🦓" in reference)
    )  # one unknown token


def test_without_a_stated_maximum_where_the_package_overflows_the_scores_are_those_with_512(
    encoder: Path, tmp_path: Path
) -> None:
    free = write_encoder(tmp_path / "free", encoder.name)
    with pytest.raises(OverflowError):
        original(free, 3).score(["a cat"], ["a dog"])
    assert_equal(BertScore(str(free), 3), original(encoder, 3), [PAIRS[0], PAIRS[4], LONG])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_checkpoint_in_half_precision_is_computed_in_float32(
    encoder: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    """transformers 5 keeps a checkpoint's type; version 4, used by the paper, made it float32."""
    from transformers import AutoModel, AutoTokenizer

    half = tmp_path / "half"
    whole = tmp_path / "whole"
    rounded = AutoModel.from_pretrained(encoder).to(dtype)
    rounded.save_pretrained(half)
    rounded.float().save_pretrained(whole)
    for folder in (half, whole):
        AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    assert_equal(BertScore(str(half), 3), original(whole, 3), PAIRS)
    pair = [[text] for text in PAIRS[0]]
    if encoder.name == "deberta":
        with pytest.raises(RuntimeError, match="dtype"):
            original(half, 3).score(*pair)
    else:
        in_half = float(original(half, 3).score(*pair)[1])
        assert abs(BertScore(str(half), 3).score(*PAIRS[0]).recall - in_half) > 1e-6


@pytest.mark.parametrize("empty", ["", " \n\t ", "\u2003"])
def test_an_empty_text_on_which_the_package_breaks_scores_0_as_it_says_it_should(
    encoder: Path, empty: str
) -> None:
    with pytest.raises(AttributeError, match="build_inputs_with_special_tokens"):
        original(encoder, 3).score([empty], ["a cat"])
    ours = BertScore(str(encoder), 3)
    for pair in [(empty, "a cat"), ("a cat", empty), (empty, empty)]:
        found = ours.score(*pair)
        assert (found.precision, found.recall, found.f1) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "name", ["t5", "mat5s/encoder", "scibert-scivocab-uncased", "a folder with spaces"]
)
def test_the_name_of_a_folder_does_not_change_what_is_loaded(
    encoder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bert-score reads the kind of a model off its name."""
    shutil.copytree(encoder, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert_equal(BertScore(name, 2), original(encoder, 2), PAIRS)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_against_einsum_in_numpy_on_the_whole_model(encoder: Path, layer: int) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModel.from_pretrained(encoder).eval()
    ours = BertScore(str(encoder), layer)
    for pair in PAIRS:
        candidate = []
        reference = []
        for text, states in zip(pair, (candidate, reference), strict=True):
            with torch.no_grad():
                output = model(
                    **tokenizer(text.strip(), return_tensors="pt"), output_hidden_states=True
                )
            vectors = output.hidden_states[layer][0].double().numpy()
            states.extend(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        cosines = np.einsum("id,jd->ij", np.array(reference), np.array(candidate))
        due_recall = cosines.max(axis=1)[1:-1].mean()
        due_precision = cosines.max(axis=0)[1:-1].mean()
        found = ours.score(*pair)
        assert (found.precision, found.recall) == pytest.approx(
            (due_precision, due_recall), abs=1e-5
        )
        assert found.f1 == pytest.approx(
            2 * due_precision * due_recall / (due_precision + due_recall), abs=1e-5
        )


def test_a_model_that_is_not_here_and_a_layer_that_it_lacks(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layer 40 of .*: it has the layers 0 … 3"):
        BertScore(str(encoder), 40)
    shutil.copytree(encoder, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut off")
    for folder in (tmp_path, tmp_path / "cut"):
        with pytest.raises(
            MissingResourceError, match=r"the BERTScore encoder .* cannot be loaded"
        ):
            BertScore(str(folder), 3)
