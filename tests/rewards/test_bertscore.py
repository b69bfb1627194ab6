"""BERTScore against the package `bert-score` on tiny, random DeBERTa, BERT and RoBERTa models, and where that package breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.rewards.models.bertscore import BertScore, Encoded, match

LETTERS = "abcdefghijklmnopqrstuvwxyzT.,'é"
PAIRS = [
    ("a cat rides the bike", "The image contains a cat riding a bike"),
    ("The image contains a dog.", "The image contains a dog."),
    ("dog", "The image contains a tiger, a bear and a fox playing chess in the rain"),
    ("Two people are washing the dishes in a kitchen while a monkey watches them", "cat"),
    ("  white space around it \n", "The image contains a café"),
    ("一只猫 and words that no vocabulary has 12345", "The image contains zebra's"),
]


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

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if kind == "roberta" else ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    merges = [("Ġ", "c"), ("Ġc", "a"), ("Ġca", "t"), ("i", "n"), ("in", "g"), ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġ", "d")]
    entries = [*special, *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(json.dumps({entry: place for place, entry in enumerate(entries)}))
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
        "roberta": lambda: RobertaConfig(**sizes, max_position_embeddings=514, pad_token_id=1, bos_token_id=0, eos_token_id=2),
        "deberta": lambda: DebertaConfig(
            **sizes, relative_attention=True, pos_att_type=["c2p", "p2c"], max_relative_positions=-1, position_biased_input=False,
            type_vocab_size=0, initializer_range=0.3,
        ),
    }[kind]()  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["deberta", "bert", "roberta"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("stated") / request.param, request.param, model_max_length=512)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_precision_recall_and_f1_are_those_of_the_package(encoder: Path, layer: int) -> None:
    package = pytest.importorskip("bert_score")
    original = package.BERTScorer(model_type=str(encoder), num_layers=layer, use_fast_tokenizer=True, device="cpu")
    ours = BertScore(str(encoder), layer)
    long = ("a cat " * 400, "the dog " * 400)
    for candidate, reference in [*PAIRS, long]:
        due = [float(value) for value in original.score([candidate], [reference])]
        found = ours.score(candidate, reference)
        assert [found.precision, found.recall, found.f1] == pytest.approx(due, abs=1e-5)
        assert found.truncated == (reference == long[1])


def test_without_a_stated_maximum_where_the_package_overflows_the_scores_are_those_with_512(encoder: Path, tmp_path: Path) -> None:
    package = pytest.importorskip("bert_score")
    free = write_encoder(tmp_path / "free", encoder.name)
    with pytest.raises(OverflowError):
        package.BERTScorer(model_type=str(free), num_layers=3, use_fast_tokenizer=True, device="cpu").score(["a cat"], ["a dog"])
    ours, stated = BertScore(str(free), 3), package.BERTScorer(str(encoder), num_layers=3, use_fast_tokenizer=True, device="cpu")
    for candidate, reference in [PAIRS[0], ("a cat " * 400, "the dog " * 400)]:
        due = [float(value) for value in stated.score([candidate], [reference])]
        found = ours.score(candidate, reference)
        assert [found.precision, found.recall, found.f1] == pytest.approx(due, abs=1e-5)


@pytest.mark.parametrize("empty", ["", " \n\t "])
def test_an_empty_text_on_which_the_package_breaks_scores_0_as_it_says_it_should(encoder: Path, empty: str) -> None:
    package = pytest.importorskip("bert_score")
    original = package.BERTScorer(model_type=str(encoder), num_layers=3, use_fast_tokenizer=True, device="cpu")
    with pytest.raises(AttributeError, match="build_inputs_with_special_tokens"):
        original.score([empty], ["a cat"])
    ours = BertScore(str(encoder), 3)
    for pair in [(empty, "a cat"), ("a cat", empty), (empty, empty)]:
        found = ours.score(*pair)
        assert (found.precision, found.recall, found.f1) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_against_einsum_in_numpy_on_the_whole_model(encoder: Path, layer: int) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    ours = BertScore(str(encoder), layer)
    for pair in PAIRS:
        candidate, reference = [], []
        for text, states in zip(pair, (candidate, reference), strict=True):
            with torch.no_grad():
                output = model(**tokenizer(text.strip(), return_tensors="pt"), output_hidden_states=True)
            vectors = output.hidden_states[layer][0].double().numpy()
            states.extend(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        cosines = np.einsum("id,jd->ij", np.array(reference), np.array(candidate))
        due_recall, due_precision = cosines.max(axis=1)[1:-1].mean(), cosines.max(axis=0)[1:-1].mean()
        found = ours.score(*pair)
        assert (found.precision, found.recall) == pytest.approx((due_precision, due_recall), abs=1e-5)
        assert found.f1 == pytest.approx(2 * due_precision * due_recall / (due_precision + due_recall), abs=1e-5)


def states(*rows: tuple[float, float], counts: tuple[bool, ...] | None = None) -> Encoded:
    return Encoded(torch.tensor(rows), torch.tensor(counts or (True,) * len(rows)), truncated=False)


def test_the_three_numbers_by_hand() -> None:
    reference = states((2.0, 0.0), (0.0, 3.0))
    assert match(states((5.0, 0.0)), reference) == pytest.approx((1.0, 0.5, 2 / 3))  # the one token found, one of two found
    assert match(states((1.0, 1.0)), reference) == pytest.approx((2**-0.5,) * 3)
    assert match(states((-1.0, 0.0), (0.0, 1.0)), reference) == pytest.approx((0.5, 0.5, 0.5))
    assert match(reference, reference) == pytest.approx((1.0, 1.0, 1.0))
    special = states((5.0, 0.0), (0.0, 1.0), counts=(False, True))  # may be found, is not averaged over
    assert match(special, reference) == pytest.approx((1.0, 1.0, 1.0))
    assert match(states((5.0, 0.0)), special) == pytest.approx((0.0 + 1.0, 0.0, 0.0))
    assert match(states((-1.0, 0.0)), states((1.0, 0.0))) == (-1.0, -1.0, -1.0)


def test_a_model_that_is_not_here_and_a_layer_that_it_lacks(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layer 40 of .*: it has the layers 0 … 3"):
        BertScore(str(encoder), 40)
    with pytest.raises(MissingResourceError, match=r"the BERTScore encoder .* cannot be loaded"):
        BertScore(str(tmp_path), 3)
