"""The cards of the rewards that query a vision-language model: pure data."""

from __future__ import annotations

from typing import Any, Final

from ddpo.rewards.card import RewardCard, RewardOption, WeightFile
from ddpo.rewards.cards.pixels import DDPO_PAPER

__all__ = ["JUDGE_TEMPLATE", "LLAVA", "VLM_CARDS"]

PILLOW: Final = "images resized by Pillow, as the model's processor says"
LLAVA: Final = WeightFile(
    source="llava-hf/llava-1.5-7b-hf",
    revision="main",
    sha256=None,
    megabytes=14_100,
    licence="Llama 2 Community",
)
JUDGE_TEMPLATE: Final = (
    'How well does this picture show "{prompt}"? Rate it from 1 (not at all) to 5 '
    r"(completely, and well made). Answer with the number only."
)
"""The question that the model reads; its words move scores."""
ROUGH: Final = "a rough guess; not measured here"

_VLM: Final = RewardOption(
    "vlm",
    LLAVA.source,
    "folder or hub id of the vision-language model, or address of an OpenAI-compatible server",
)
_MODEL: Final = RewardOption(
    "model", None, "name of the model on the server; by default the first that it lists"
)
_DEVICE: Final = RewardOption("device", "cpu", "torch device of a local model")
_TIMEOUT: Final = RewardOption("timeout", 120.0, "time limit of an answer by a server, seconds")
_SHARED: Final[dict[str, Any]] = {
    "family": "vlm",
    "dtype": "float16 on a GPU, float32 on a CPU",
    "accelerator_dtype": "float16",
    "device": "any",
    "libraries": ("torch", "transformers", "tokenizers", "pillow", "libjpeg"),
    "memory_mb": 14_500,
    "weights": (LLAVA,),
    "lineage": ("llava-1.5-7b", "openai/clip-vit-large-patch14-336"),
    "typical_source": ROUGH,
}

VLM_CARDS: Final = (
    RewardCard(
        id="vqa_strict",
        version="2",
        summary="share of a prompt's questions that LLaVA answers as expected",
        load="ddpo.rewards.models.vqa_strict:VqaStrict",
        flaws="a substring is enough: 'cat' is in 'no cats', 'four' in 'fourteen', and a reply "
        "that names everything has every answer; case counts, so 'Monkey' is not 'monkey' (see "
        "the part `exact`); words written in the image are read as answers; the authors ran "
        "LLaVA v0 13B, so the default model does not reproduce their numbers",
        unit="share of the questions",
        range=(0.0, 1.0),
        typical=(0.0, 0.5, 1.0),
        inputs=("image", "metadata"),
        metadata=("questions", "answers"),
        preprocessing=f"{PILLOW}; JPEG quality 80; each question as it stands, greedy, 64 tokens; "
        "the answer, letter by letter, in the reply",
        paper=DDPO_PAPER,
        options=(_VLM, _MODEL, _DEVICE, _TIMEOUT),
        **_SHARED,
    ),
    RewardCard(
        id="vqa_score",
        version="2",
        summary="probability that a vision-language model answers yes when asked whether the "
        "image shows the prompt",
        load="ddpo.rewards.models.vqa_score:VqaScore",
        flaws="differs from model to model, so scores of two models are not comparable; biased "
        "towards yes; counts, order and small text are misread; an image in which the prompt is "
        "written scores high; the published figures are of CLIP-FlanT5, and other models do not "
        "reproduce them; the authors' code gives √(P(Yes)·P(end | Yes)), which is form=published; "
        "it pads images to a square with the mean colour, where the processor of llava-hf crops; "
        "only the 20 likeliest tokens are seen: below those the score is 0",
        unit="probability",
        range=(0.0, 1.0),
        typical=(0.1, 0.6, 0.95),
        inputs=("image", "prompt"),
        preprocessing=f"{PILLOW}; "
        "'Does this figure show \"{prompt}\"? Please answer yes or no.'; "
        "of the 20 likeliest first tokens all spellings of yes that differ in case or a leading "
        "space, added up; or of form=published the likeliest token Yes and the end behind it; "
        "JPEG quality 80 on the way to a server",
        paper="https://arxiv.org/abs/2404.01291",
        options=(
            _VLM,
            _MODEL,
            _DEVICE,
            _TIMEOUT,
            RewardOption(
                "form",
                "spellings",
                "spellings: P(yes) in any spelling; published: √(P(Yes)·P(end | Yes)) as in the "
                "authors' code, for a local model only",
            ),
        ),
        **_SHARED,
    ),
    RewardCard(
        id="vlm_judge",
        version="2",
        summary="expected rating from 1 to 5 by a vision-language model",
        load="ddpo.rewards.models.vlm_judge:VlmJudge",
        flaws="not calibrated: models crowd at 4, and another wording of the question moves every "
        "score; praise written in the image raises it; ratings read from the text are coarse "
        "(part `from_text`), as with tokenizers that make the space before a digit a token",
        unit="rating, 1 … 5",
        range=(1.0, 5.0),
        typical=(1.5, 3.5, 4.8),
        inputs=("image", "prompt"),
        preprocessing=f"{PILLOW}; '{JUDGE_TEMPLATE}'; expected rating over the first token's "
        "probabilities of 1 … 5, renormalised; where they hold less than half, the one number in "
        "the greedy reply of 16 tokens; JPEG quality 80 on the way to a server",
        paper="https://arxiv.org/abs/2303.16634",
        options=(
            _VLM,
            _MODEL,
            RewardOption(
                "template",
                JUDGE_TEMPLATE,
                "question to the model; {prompt} stands for the text of the prompt",
            ),
            _DEVICE,
            _TIMEOUT,
        ),
        **_SHARED,
    ),
)
