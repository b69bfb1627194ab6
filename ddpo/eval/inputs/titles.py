"""Names of rewards and prompt lists for readers."""

from __future__ import annotations

from typing import Final

__all__ = ["reward_title", "split_title"]

REWARD_TITLES: Final = {
    "base_fit": "plausibility to the base model",
    "prompt_evidence": "prompt recognisability",
}
SPLIT_TITLES: Final = {"prompts": "the given prompts"}  # the prompts of images without a list


def split_title(name: str) -> str:
    """The name of a prompt list for readers."""
    return SPLIT_TITLES.get(name, name.replace("_", " "))


def reward_title(id: str) -> str:
    """The name of a reward for readers: its id, or words for the base model's own scores."""
    return REWARD_TITLES.get(id, id)
