"""BERTScore recall on a real, tiny, random BERT; the alignment reward's message without weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.rewards.models.alignment import jpeg80
from ddpo.rewards.models.bertscore import BertScore, recall
from ddpo.rewards.zoo import make_reward

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "cat", "dog", "rides", "bike", "image", "contains"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_recall_by_hand() -> None:
    reference = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert recall(torch.tensor([[5.0, 0.0]]), reference) == pytest.approx(0.5)  # one token found, one orthogonal
    assert recall(torch.tensor([[1.0, 1.0]]), reference) == pytest.approx(2**-0.5)
    assert recall(torch.tensor([[-1.0, 0.0], [0.0, 1.0]]), reference) == pytest.approx(0.5)
    assert recall(reference, reference) == pytest.approx(1.0)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_recall_of_texts_against_einsum_in_numpy(bert: Path, layer: int) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).eval()
    pairs = [("a cat rides the bike", "the image contains a cat"), ("dog", "the image contains a dog")]
    expected = []
    for pair in pairs:
        states = []
        for text in pair:
            with torch.no_grad():
                output = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
            states.append(output.hidden_states[layer][0].double().numpy())
        products = np.einsum("id,jd->ij", states[1], states[0])
        lengths = np.einsum("i,j->ij", np.linalg.norm(states[1], axis=1), np.linalg.norm(states[0], axis=1))
        expected.append((products / lengths).max(axis=1).mean())
    found = BertScore(str(bert), layer).recall([c for c, _ in pairs], [r for _, r in pairs])
    assert found == pytest.approx(expected, abs=1e-5)


def test_equal_texts_score_one_and_an_empty_answer_is_a_score(bert: Path) -> None:
    scorer = BertScore(str(bert), 3)
    same, empty = scorer.recall(["a cat", ""], ["a cat", "a cat"])
    assert same == pytest.approx(1.0, abs=1e-6)
    assert -1 <= empty < 1


def test_layer_out_of_range_is_refused(bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"layer 40 of .*: it has the layers 0 … 3"):
        BertScore(str(bert), 40)


def test_without_weights_one_line_says_how_to_get_them(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    for options in ({}, {"scorer": str(bert), "layer": 3, "vlm": str(tmp_path)}):
        with pytest.raises(MissingResourceError) as caught:
            make_reward("alignment", **options)
        message = str(caught.value)
        for part in ("alignment", "llava-hf/llava-1.5-7b-hf (14.1 GB, Llama 2 Community)", "hf download", "vlm=", "scorer="):
            assert part in message
        assert "\n" not in message


def test_pictures_go_through_jpeg_80() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8))
    decoded = jpeg80(image)
    assert (decoded.size, decoded.mode) == ((32, 32), "RGB")
    assert not np.array_equal(np.asarray(decoded), np.asarray(image))
