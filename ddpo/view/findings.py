"""Findings about a training that its reader should know, each with the iteration it concerns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ddpo.text import count, shortened
from ddpo.trainer.monitoring.clip_fraction import USUAL_SOURCE, usual_text
from ddpo.view.metrics_tail import MetricsTail

__all__ = ["Finding", "findings_of"]

MANY: Final = 0.25  # share of an iteration's images, as of the check before a run
MOST_CLIPPED: Final = 0.5  # share of items
MOST_RESUMED: Final = 10  # resumptions that are shown

Finding = tuple[int, str]
"""Iteration, 0 for the whole run, and a sentence."""


def findings_of(
    config: Mapping[str, Any],
    manifest: Mapping[str, Any],
    divergence: str,
    stop: str,
    tail: MetricsTail,
) -> list[Finding]:
    """The findings in the order of iterations.

    Args:
        config: settings of the run.
        manifest: facts of its start, with its resumptions.
        divergence: reason why it diverged; "" if it did not.
        stop: reason why its setting `stop_when` ended it; "" if it did not.
        tail: its metrics.
    """
    found = [*_of_metrics(config, tail), *_of_resumptions(manifest.get("resumed"))]
    if divergence or not tail.finite:
        reason = divergence or "a loss, gradient or reward is not finite"
        found.append((tail.done, f"The training diverged: {reason}"))
    if stop:
        found.append((tail.done, f"Stopped early: {stop}."))
    return sorted(found, key=lambda finding: finding[0])


def _of_metrics(config: Mapping[str, Any], tail: MetricsTail) -> Iterator[Finding]:
    if tail.damaged:
        yield 0, f"{count(tail.damaged, 'line')} of metrics.jsonl damaged and left out."
    if tail.unscorable is not None:
        iteration, reason = tail.unscorable
        yield iteration, f"The first images that could not be scored: {reason}"
    sample = config.get("sample")
    images = sample.get("samples") if isinstance(sample, Mapping) else None
    flat = tail.curves["zero_spread"].last
    if isinstance(images, int) and images > 0 and flat and flat[1] > MANY * images:
        text = f"{flat[1]:.0f} of {images} images share the reward of all images of their prompt"
        yield flat[0], f"{text}; nothing is learned from them."
    clipped = tail.curves["clip_fraction"].last
    if clipped and clipped[1] > MOST_CLIPPED:
        text = f"{clipped[1] * 100:.0f} % of the ratios are clipped; steps may be large"
        yield clipped[0], f"{text}. {usual_text()} {USUAL_SOURCE}."
    yield from _of_held_out(tail)


def _of_held_out(tail: MetricsTail) -> Iterator[Finding]:
    """The checkpoint with the highest held-out reward, if a later one has a lower one."""
    points = tail.curves["held_out"].points(10_000)
    if len(points) < 2:
        return
    best = max(points, key=lambda point: point[1])
    last = points[-1]
    if best[0] < last[0]:
        yield (
            best[0],
            f"The held-out reward was highest here, {best[1]:.4g}; it is {last[1]:.4g} "
            f"at iteration {last[0]}.",
        )


def _of_resumptions(resumed: object) -> Iterator[Finding]:
    """The settings that changed when the run was resumed."""
    notes: Sequence[Any] = resumed if isinstance(resumed, list) else []
    for note in notes[-MOST_RESUMED:]:
        changed = note.get("changed") if isinstance(note, Mapping) else None
        after = note.get("after") if isinstance(note, Mapping) else None
        if isinstance(changed, Mapping) and isinstance(after, int):
            changes = ", ".join(
                f"{shortened(str(name), 40)} {_change(pair)}" for name, pair in changed.items()
            )
            yield after, shortened(f"Resumed here with other settings: {changes}", 400)


def _change(pair: object) -> str:
    """A value before and now in words."""
    if isinstance(pair, list) and len(pair) == 2:
        return f"{shortened(str(pair[0]), 40)} → {shortened(str(pair[1]), 40)}"
    return shortened(str(pair), 40)
