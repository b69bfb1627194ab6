"""The embedded model's tokenizer, in CLIP's format with one token per word of the captions.

Other words are spelt in shorter tokens, down to single characters, as in CLIP.
"""

import json
import string
from collections import Counter
from pathlib import Path
from typing import Final

from ddpo.rewards.scenes.world import ACTIVITIES, COLORS, NOUNS, TEXTURES

LENGTH: Final = 16  # tokens, with start and end
START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
CHARACTERS: Final = string.ascii_lowercase + string.digits + string.punctuation


def caption_words() -> list[str]:
    """Every possible word of a caption, sorted."""
    phrases = [
        *NOUNS,
        *ACTIVITIES,
        *COLORS,
        *TEXTURES,
        "gradient",
        "a an on and background photo of with in the picture",
    ]
    return sorted({word for phrase in phrases for word in phrase.split()})


def train_merges(words: list[str]) -> list[tuple[str, str]]:
    """The byte-pair merges that make each word one token.

    The most frequent pair comes first, and ties are in alphabetical order.
    """
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges: list[tuple[str, str]] = []
    while pairs := Counter(
        pair for parts in pieces.values() for pair in zip(parts, parts[1:], strict=False)
    ):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, parts in pieces.items():
            pieces[word] = _merge(parts, best)
    return merges


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def write_tokenizer(folder: Path, words: list[str] | None = None, length: int = LENGTH) -> int:
    """Writes `vocab.json`, `merges.txt` and two config files; returns the vocabulary size.

    Args:
        folder: Folder to write to.
        words: Words that become one token each; None for those of `caption_words`.
        length: Greatest number of tokens of a text.
    """
    merges = train_merges(words or caption_words())
    pieces = [*CHARACTERS, *(c + "</w>" for c in CHARACTERS), *("".join(pair) for pair in merges)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, START, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": length,
        "do_lower_case": True,
        "errors": "replace",
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)
