"""The words of the report with their definitions, which docs/glossary.md repeats."""

from __future__ import annotations

from typing import Final

__all__ = ["TERMS", "term_number"]

TERMS: Final = {
    "gain": "mean score of the tuned model minus that of the base model, over pairs of images",
    "interval": "95 % interval of a gain over other prompts of the same kind",
    "noise floor": "largest median change of a score under edits that no viewer minds",
    "training prompts": "prompts that the run was trained on",
    "held-out prompts": "prompts that training never used",
    "held-out rewards": "rewards that training never used",
    "carried over": "gain on held-out prompts as a share of the gain on training prompts",
    "win rate": "share of pairs in which the tuned image scores higher; ties count half",
    "people's win rate": (
        "share of people's choices that are for the tuned image; ties count half"
    ),
    "agreement with people": (
        "share of people's decided choices in which a reward prefers the same image"
    ),
    "agreement of raters": (
        "Cohen's kappa and Krippendorff's alpha: 1 for equal choices, 0 for agreement by chance"
    ),
    "d_z": "mean of the prompts' mean gains over their standard deviation",
    "p (Holm)": "probability of such a gain by chance, adjusted for all lines of the table",
    "reward hacking": "a reward that rises without the quality it stands for",
    "grade": "strength of the evidence for reward hacking",
    "run history": "the checkpoints of a run in order",
    "onset": "first checkpoint that is significantly below the best",
    "best of n": "of n images of the base model, the one with the highest score",
    "leak": "a held-out prompt that is too close to a training prompt",
    "signature": "the line that fixes a score: reward, version, weights and preprocessing",
    "plausibility to the base model": (
        "how well the base model denoises an image with its prompt (`base_fit`)"
    ),
    "prompt recognisability": (
        "how much the prompt helps the base model to denoise an image (`prompt_evidence`)"
    ),
}


def term_number(name: str) -> int:
    """The 1-based place of a word, by which the page links to its definition."""
    return list(TERMS).index(name) + 1
