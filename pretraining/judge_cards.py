"""The model cards of the embedded judges, with their measures as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from textwrap import fill
from typing import Any, Final

from ddpo.io.json_files import read_foreign_json
from ddpo.io.tensors import opened_tensors

__all__ = ["judge_card"]

MEASURE: Final = "python -m pretraining.measure_judges"
DATA: Final = """\
Renderings of random scenes by `pretraining/scene_renderer.py` of the source checkout, with captions
of a fixed grammar: one noun, shapes, counts of one to four, three activities, two nouns in order,
and things on, under and left of others. A part of them has passed the autoencoder of the embedded
diffusion model. **No sample of any model was seen in training.**

The nouns are glyphs of the Noto Color Emoji font (Debian package `fonts-noto-color-emoji` 2.042,
Unicode 15). The font is under the SIL Open Font License 1.1
([OFL.txt](../../../policies/emoji/OFL.txt)) and is not part of this package.
"""
NOT_MEASURED: Final = "The measures were not taken when these weights were packed.\n"
EXAMPLES: Final = 2  # answers of each kind of scene


@dataclass(frozen=True, slots=True)
class CardText:
    """The words of one judge's card."""

    title: str
    what: str
    loaded: str
    recipe: str
    limits: str


TEXTS: Final[Mapping[str, CardText]] = {
    "captioner": CardText(
        "a captioner in LLaVA's format",
        "A `LlavaForConditionalGeneration` of transformers: a CLIP tower on images of 72×72, a "
        "projector and a small LLaMA. It answers a question about an image with one sentence.",
        "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
        'folder = "ddpo/rewards/judges/captioner"\n'
        "model = AutoModelForImageTextToText.from_pretrained(folder)\n"
        "processor = AutoProcessor.from_pretrained(folder)",
        "Cross-entropy of the caption's words, and (weight 3) binary cross-entropy of the words "
        "present, from the mean of the tower's features. Augmentation: shift, scale, noise, JPEG, "
        "and other hues of the glyphs in a quarter of the images.",
        "It knows the words of the grammar alone, and answers every question with a caption. An "
        "image from outside the world gets a sentence of the world. It sees JPEG of quality 80.",
    ),
    "sentence_encoder": CardText(
        "a sentence encoder in BERT's format",
        "A `BertModel` of transformers with a WordPiece tokenizer, one token per word of the world."
        " BERTScore compares the hidden states of its third layer.",
        "from bert_score import BERTScorer\n\n"
        'folder = "ddpo/rewards/judges/sentence_encoder"\n'
        "scorer = BERTScorer(model_type=folder, num_layers=3)",
        "BERTScore's recall of one caption in another becomes the share of facts that both state; "
        "masked words are predicted beside it (weight 0.2).",
        "It was trained on captions of the grammar, alone and in four frames such as "
        '"The image contains …". Recall of other sentences means little.',
    ),
    "dual_encoder": CardText(
        "a dual encoder in CLIP's format",
        "A `CLIPModel` of transformers on images of 224×224 in patches of 28, with a text encoder "
        "of 32 tokens. Architecture, task, augmentation and the keys of the random scenes differ "
        "from the captioner's. Both saw renderings of the same world.",
        "from transformers import CLIPModel, CLIPTokenizer\n\n"
        'folder = "ddpo/rewards/judges/dual_encoder"\n'
        "model = CLIPModel.from_pretrained(folder)\n"
        "tokenizer = CLIPTokenizer.from_pretrained(folder)",
        "Contrastive cross-entropy against the captions of other images, and against captions that "
        "differ from the true one in one detail. Augmentation: other hues in 35 % of the images, "
        "erased rectangles and blur.",
        "Cosines order captions of one image. They mean less between images of different scenes.",
    ),
    "aesthetic_head": CardText(
        "an aesthetic head in the format of LAION's",
        "One linear layer (`weight`, `bias`) on the normalised image embedding of the "
        "[dual encoder](../dual_encoder/README.md). It shares that encoder's weaknesses.",
        "from safetensors.torch import load_file\n\n"
        'head = load_file("ddpo/rewards/judges/aesthetic_head/head.safetensors")',
        "Ridge regression on a stated preference. A rendering that is sharp, clean, whole, centred "
        "and of full contrast has the rating 8. Blur, noise, a cut, a shift and fading lower it in "
        "proportion to their strength, down to 2.",
        "The preference is the trainer's, not people's. One direction in the embedding can be "
        "reached by images without any content.",
    ),
    "scene_detector": CardText(
        "a convolutional detector of scenes",
        "`ddpo.rewards.models.scene_detector.SceneDetector`: residual convolutions from images of "
        "64×64 to 8×8 cells, each with presence, noun and colour, and one ground. Numbers and "
        "positions follow from the figures found. It is the held-out witness of `emoji_geneval`: "
        "architecture, task, augmentation, seed and random scenes differ from the captioner's.",
        "from pathlib import Path\n\n"
        "from ddpo.rewards.models.scene_detector import load_detector\n\n"
        'file = Path("ddpo/rewards/judges/scene_detector/model.safetensors")\n'
        "detector = load_detector(file)",
        "Binary cross-entropy of presence (weight 8) against a Gaussian around each centre, and "
        "cross-entropy of nouns, colours and ground. A third of the images has figures at random "
        "places. Augmentation: shift, scale, blur, noise, and other hues of the glyphs in 35 % of "
        "the images. It saw no reconstruction and no other judge's answer.",
        "It knows 133 nouns and five simple objects, and finds one of them wherever it finds a "
        "figure. Figures closer than two cells merge. The ground is one of 15 words.",
    ),
}
"""Judge → the words of its card."""


def judge_card(name: str, packed: Path, trained: Path, measures: Mapping[str, Any]) -> str:
    """The model card of a judge, Markdown.

    Args:
        name: Name of the judge, of `TEXTS`.
        packed: Folder of its packed files.
        trained: Folder of its training.
        measures: Its part of `measures.json`; {} if it was not measured.
    """
    text = TEXTS[name]
    size = sum(file.stat().st_size for file in packed.iterdir() if file.suffix != ".md") / 1e6
    parameters = sum(map(_parameters, packed.glob("*.safetensors")))
    precision = "float32" if name == "aesthetic_head" else "float16"
    return "\n".join(
        [
            f"# Model card: `{name}`, {text.title}\n",
            f"{_wrapped(text.what)}\n",
            f"```python\n{text.loaded}\n```\n",
            _wrapped(
                f"{parameters:,} parameters in {precision}; {size:.3g} MB with all files. "
                "`../manifest.json` has the SHA-256 and size of every file. "
                "The weights are under the Apache License 2.0.\n"
            ),
            "",
            f"## Data\n\n{DATA}",
            f"## Recipe\n\n{_wrapped(text.recipe)}\n\n{_wrapped(_training(name, trained))}\n",
            f"## Measures\n\n{_measures(name, measures)}",
            f"## Limits\n\n{_wrapped(text.limits)}\n",
        ]
    )


def _wrapped(text: str) -> str:
    return fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _parameters(file: Path) -> int:
    with opened_tensors(file) as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def _training(name: str, trained: Path) -> str:
    """The command of the training, and the steps that were taken."""
    command = f"`python -m pretraining.{name}`"
    run = trained / "run.json"
    state = trained / "training.safetensors"
    if not (run.is_file() and state.is_file()):
        return f"{command} on CPU cores, in one process.\n"
    facts = read_foreign_json(run)
    with opened_tensors(state) as tensors:
        steps = int((tensors.metadata() or {}).get("step", 0))
    return (
        f"{command} on CPU cores: {steps:,} steps of {facts['batch']}, seed {facts['seed']}. "
        "Muon trains matrices, AdamW the other parameters; the weights are averaged.\n"
    )


def _measures(name: str, measures: Mapping[str, Any]) -> str:
    """The tables of a judge's measures."""
    if not measures:
        return NOT_MEASURED
    if name == "captioner":
        stated = _wrapped(
            f"Share of the facts shown that the answer states (`{MEASURE}`, new renderings):"
        )
        parts = [
            f"{stated}\n\n{_table(measures['facts_stated'])}",
            "Share of answers that are the caption word for word:\n\n" + _table(measures["exact"]),
            "Answers to unselected renderings, with the true captions:\n\n"
            + _examples(measures["examples"]),
        ]
        return "\n".join(parts)
    if name == "scene_detector":
        head = _wrapped(
            "Share of images of which every detail is read right: each thing in its number, the "
            f"colours, the position, the activity and the ground (`{MEASURE}`):"
        )
        return f"{head}\n\n{_table(measures)}"
    if name == "dual_encoder":
        head = _wrapped(
            "Share of images nearer to the true caption than to 15 false ones, eight of which "
            f"differ in one detail (`{MEASURE}`; chance is 6 %):"
        )
        return f"{head}\n\n{_table(measures)}"
    rows = [f"| {key.replace('_', ' ')} | {value:.3f} |" for key, value in measures.items()]
    if name == "sentence_encoder":
        head = f"Recall of one caption in another against their shared facts (`{MEASURE}`):"
    else:
        head = (
            "Mean rating of whole renderings, and share of them that rate above a degraded copy of "
            f"medium strength (`{MEASURE}`; chance is 0.5):"
        )
    return "\n".join([f"{_wrapped(head)}\n", "| measure | |", "|---|---|", *rows, ""])


def _table(shares: Mapping[str, Mapping[str, float]]) -> str:
    """Condition → kind of scene → share, as a table of percents."""
    kinds = list(next(iter(shares.values())))
    lines = [f"| | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for condition, row in shares.items():
        cells = " | ".join(f"{100 * row[kind]:.0f} %" for kind in kinds)
        lines.append(f"| {condition.replace('_', '-')} | {cells} |")
    return "\n".join([*lines, ""])


def _examples(examples: Mapping[str, Any]) -> str:
    lines = ["| answer | caption |", "|---|---|"]
    for pairs in examples.values():
        lines += [f"| {answer} | {caption} |" for answer, caption in pairs[:EXAMPLES]]
    return "\n".join([*lines, ""])
