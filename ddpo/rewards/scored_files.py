"""Scores picture files of any sizes and modes: order kept, an unreadable file is a row with its reason."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ddpo.errors import ConfigError, ImageError
from ddpo.images import from_pil, load_image
from ddpo.rewards.base import Reward
from ddpo.rewards.scorer import Scorer
from ddpo.types import ImageBatch, Prompt

__all__ = ["ScoreRow", "Summary", "score_files", "summarize"]


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The outcome for one file: a score, or the reason why there is none."""

    file: str
    prompt: str | None
    score: float | None
    error: str | None
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures about the scores of a set of files; NaN where there are too few."""

    scored: int
    unscorable: int
    mean: float
    sd: float  # of the sample, n - 1
    p5: float
    p50: float
    p95: float


def score_files(
    reward: Reward,
    paths: Sequence[Path],
    prompts: Sequence[Prompt] | None = None,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[ScoreRow]:
    """One row per file, in the order of `paths`.

    Files of one size are scored together; at most four batches of pictures are kept in memory.

    Args:
        reward: the reward.
        paths: picture files.
        prompts: one per file; None if there are none.
        batch_size: pictures per call of the reward.
        progress: called with the number of files that are done since the last call.

    Raises:
        ConfigError: the reward needs prompts and there are none, or their number is another.
        RewardFailure: the reward raised or broke its contract.
    """
    if prompts is None and "prompt" in reward.card.inputs:
        raise ConfigError(f"reward {reward.card.id!r} judges a picture by its prompt: give them with --prompts FILE or --prompt TEXT")
    if prompts is not None and len(prompts) != len(paths):
        raise ConfigError(f"{len(paths)} images came with {len(prompts)} prompts")
    scorer = Scorer(reward, batch_size)
    rows: dict[int, ScoreRow] = {}
    waiting: dict[tuple[int, int], list[tuple[int, Image.Image]]] = defaultdict(list)

    def flush(size: tuple[int, int]) -> None:
        group = waiting.pop(size)
        chosen = [prompts[index] if prompts else Prompt("") for index, _ in group]
        output = scorer.score(ImageBatch(from_pil([image for _, image in group]), tuple(chosen)))
        for place, ((index, _), prompt) in enumerate(zip(group, chosen, strict=True)):
            error, value = output.errors[place], float(output.values[place])
            parts = {name: float(part[place]) for name, part in output.parts.items()}
            rows[index] = ScoreRow(str(paths[index]), prompt.text if prompts else None, None if error else value, error, parts)
        if progress is not None:
            progress(len(group))

    for index, path in enumerate(paths):
        try:
            image = load_image(path)
        except ImageError as error:
            rows[index] = ScoreRow(str(path), prompts[index].text if prompts else None, None, str(error))
            if progress is not None:
                progress(1)
            continue
        waiting[image.size].append((index, image))
        if len(waiting[image.size]) == batch_size:
            flush(image.size)
        elif sum(map(len, waiting.values())) >= 4 * batch_size:
            flush(max(waiting, key=lambda size: len(waiting[size])))
    for size in list(waiting):
        flush(size)
    return [rows[index] for index in range(len(paths))]


def summarize(rows: Sequence[ScoreRow]) -> Summary:
    """Mean, standard deviation and percentiles of the scores; unscorable files are counted, not averaged."""
    scores = np.array([row.score for row in rows if row.score is not None], dtype=np.float64)
    if not len(scores):
        return Summary(0, len(rows), math.nan, math.nan, math.nan, math.nan, math.nan)
    p5, p50, p95 = np.percentile(scores, [5, 50, 95]).tolist()
    sd = float(scores.std(ddof=1)) if len(scores) > 1 else math.nan
    return Summary(len(scores), len(rows) - len(scores), float(scores.mean()), sd, p5, p50, p95)
