"""The judge in BERT's format: `python -m pretraining.sentence_encoder --out FOLDER --minutes N`.

A `transformers.BertModel` with its tokenizer, as BERTScore loads it. It is trained on captions of
random scenes. BERTScore's recall of one in another has to become the share of facts that both
state, and masked words have to be predicted.
"""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpo.rewards.scenes.grammar import Scene, caption, shared_facts, world_words
from pretraining.judge_training import JudgeRun, arguments, half, megabytes, say, train
from pretraining.scene_batches import SENTENCES
from pretraining.scene_renderer import completed
from pretraining.scene_sampling import changed, random_scene, stated_part

__all__ = ["LAYERS", "build", "matched_share", "train_sentence_encoder", "write", "write_tokenizer"]

LENGTH: Final = 64  # tokens
LAYERS: Final = 3
WIDTH: Final = 128
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SENTENCE_WORDS: Final = "photo picture image depicts contains shows the it is in of this that"
MASKED: Final = 0.15  # Devlin et al., arXiv 1810.04805, section 3.1
MASK_WEIGHT: Final = 0.2
RATES: Final = (2e-3, 1e-3)


def build(vocabulary: int) -> Any:
    """The untrained encoder, 0.5 M parameters."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        type_vocab_size=2,
    )
    return BertModel(config, add_pooling_layer=False)


def write_tokenizer(folder: Path) -> Any:
    """Writes the WordPiece tokenizer, one token per word of the world, and returns it."""
    from transformers import BertTokenizer

    letters = string.ascii_lowercase + string.digits + string.punctuation
    words = sorted({*world_words(), *SENTENCE_WORDS.split()})
    entries = dict.fromkeys([*SPECIAL, *words, *letters, *(f"##{letter}" for letter in letters)])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(str(path), model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def matched_share(reference: Tensor, candidate: Tensor, asked: Tensor, given: Tensor) -> Tensor:
    """BERTScore's recall of each reference in its candidate, `[batch]`.

    Args:
        reference: Hidden states `[batch, length, width]`.
        candidate: Hidden states `[batch, other length, width]`.
        asked: True at the words of the references `[batch, length]`.
        given: True at all tokens of the candidates `[batch, other length]`, start and end among
            them, as in the package `bert-score`.

    Source: Zhang et al., arXiv 1904.09675, section 3.
    """
    cosines = functional.normalize(reference, dim=-1) @ functional.normalize(
        candidate, dim=-1
    ).transpose(1, 2)
    best = cosines.masked_fill(~given.unsqueeze(1), -1.0).amax(2)
    return (best * asked).sum(1) / asked.sum(1)


class Matching:
    """The loss of a batch of pairs of sentences."""

    def __init__(self, model: Any, head: nn.Linear, tokenizer: Any) -> None:
        self.model = model
        self.head = head
        self.tokenizer = tokenizer

    def __call__(self, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        """The loss, with the root-mean-square errors of recall and the loss of masked words."""
        pairs = [scene_pair(rng) for _ in range(count)]
        shares = torch.tensor([[shared_facts(a, b), shared_facts(b, a)] for a, b in pairs])
        wrapped = rng.choice(len(SENTENCES), size=(count, 2), p=(0.4, 0.1, 0.4, 0.1))
        sentences = [
            SENTENCES[wrapped[row, place]].format(caption(pair[place]))
            for place in (0, 1)
            for row, pair in enumerate(pairs)
        ]
        encoded = self.tokenizer(
            sentences, padding=True, return_special_tokens_mask=True, return_tensors="pt"
        )
        words = encoded["special_tokens_mask"] == 0
        tokens = encoded["attention_mask"] == 1
        hidden = self._hidden(encoded["input_ids"], encoded["attention_mask"])
        first, second = hidden.float().chunk(2)
        first_words, second_words = words.chunk(2)
        first_tokens, second_tokens = tokens.chunk(2)
        recalls = torch.stack(
            [
                matched_share(first, second, first_words, second_tokens),
                matched_share(second, first, second_words, first_tokens),
            ],
            1,
        )
        error = (recalls - shares).square().mean()
        masked = self._masked_loss(encoded["input_ids"], encoded["attention_mask"], words, rng)
        loss = 10 * error + MASK_WEIGHT * masked
        return {"loss": loss, "rms": error.sqrt(), "masked": masked}

    def _hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden

    def _masked_loss(
        self, ids: Tensor, mask: Tensor, words: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """The cross-entropy of masked words, of a quarter of the sentences."""
        some = len(ids) // 4
        ids, mask, words = (part[:some] for part in (ids, mask, words))
        chosen = torch.from_numpy(rng.random(tuple(ids.shape)) < MASKED) & words
        chosen[0, 1] = True  # so that there is one
        hidden = self._hidden(ids.masked_fill(chosen, self.tokenizer.mask_token_id), mask)
        return functional.cross_entropy(self.head(hidden[chosen].float()), ids[chosen])


def scene_pair(rng: np.random.Generator) -> tuple[Scene, Scene]:
    """Two random scenes: equal in part, different in one detail, or unrelated."""
    whole = completed(random_scene(rng), rng)
    first = stated_part(whole, rng)
    kind = rng.random()
    if kind < 0.2:
        return first, whole
    if kind < 0.4:
        return first, stated_part(whole, rng)
    if kind < 0.65:
        return first, changed(first, whole, rng)
    if kind < 0.8:
        other = changed(first, whole, rng)
        return first, changed(other, whole, rng)
    if kind < 0.9:
        return first, replace(completed(random_scene(rng), rng), ground=first.ground)
    return first, stated_part(completed(random_scene(rng), rng), rng)


def write(model: Any, folder: Path) -> None:
    """Writes the encoder in half precision beside its tokenizer.

    BERT's pooler, which BERTScore does not use, is written as zeros, lest transformers warn.
    """
    from transformers import BertModel

    write_tokenizer(folder)
    whole = BertModel(model.config)
    whole.load_state_dict(model.state_dict(), strict=False)
    nn.init.zeros_(whole.pooler.dense.weight)
    nn.init.zeros_(whole.pooler.dense.bias)
    half(whole).save_pretrained(folder)


def train_sentence_encoder(run: JudgeRun) -> list[float]:
    """Trains and writes the judge to `run.out / "judge"`; returns the losses."""
    torch.manual_seed(run.seed)
    folder = run.out / "judge"
    tokenizer = write_tokenizer(folder)
    model = build(len(tokenizer))
    model.set_attn_implementation("eager")
    head = nn.Linear(WIDTH, len(tokenizer))
    modules = nn.ModuleDict({"bert": model, "head": head})
    losses = train(run, modules, Matching(model, head, tokenizer), RATES)
    write(model, folder)
    say(f"{folder}: {megabytes(folder):.2f} MB")
    return losses


if __name__ == "__main__":
    train_sentence_encoder(arguments("sentence_encoder", __doc__, steps=2500, batch=128))
