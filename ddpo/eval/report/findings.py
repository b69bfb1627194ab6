"""The findings of a report that its sentence needs, and the sentences themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddpo.eval.analysis.hacking import BEST_OF_N, RUN_HISTORY, UNDECIDED
from ddpo.eval.analysis.history import RunHistory
from ddpo.eval.analysis.tables import Gain
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.report.selection import assessment_of, gains_of, primary_reward, share_of
from ddpo.eval.report.sentence import Change, Findings, ListFinding, sentence
from ddpo.eval.report.wording import reward_title, split_title
from ddpo.stats.paired import Estimate

if TYPE_CHECKING:
    from ddpo.eval.report.data import Report

__all__ = ["answer_values", "change_of", "findings_of", "model_sentence", "report_sentence"]


def report_sentence(report: Report) -> str:
    """The answer of a report in one sentence about all compared models."""
    return sentence([findings_of(report, model) for model in report.compared])


def model_sentence(report: Report, model: str) -> str:
    """The answer about one compared model in one sentence."""
    return sentence([findings_of(report, one) for one in report.compared if one.name == model])


def answer_values(report: Report) -> dict[str, Any]:
    """The key `answer` of `report.json`: the sentence, and one for each compared model."""
    models = []
    for model in report.compared:
        found = findings_of(report, model)
        models.append(
            {
                "model": model.name,
                "sentence": sentence([found]),
                "hacking_from": found.begins,
                "use_iteration": found.use,
            }
        )
    return {"sentence": report_sentence(report), "models": models}


def findings_of(report: Report, model: ModelFacts) -> Findings:
    """The findings about one compared model."""
    gains: list[Gain] = []
    if report.rewards:
        gains = gains_of(report, model=model.name, reward=primary_reward(report, model.name))
    assessment = assessment_of(report, model.name)
    evidence = assessment.evidence if assessment else ()
    grade = assessment.grade if assessment else "not measured"
    kinds = tuple(one.kind for one in evidence if one.grade == grade)
    history = _history_of(report, model)
    begins = history.hacking_from if history and grade == "strong signs" else -1
    use = recommended_iteration(history, begins)
    declines = ""
    declines_from = -1
    if history is not None and grade == "watch" and RUN_HISTORY in kinds:
        declines, declines_from, use = _decline(report, history)
    return Findings(
        model=model.name,
        training=_together([gain for gain in gains if gain.role == "seen"]),
        lists=tuple(_list_finding(report, gain) for gain in gains if gain.role != "seen"),
        grade=grade,
        kinds=kinds,
        is_run=bool(model.run) and model.iteration >= 0,
        is_images=model.kind == "images",
        iteration=model.iteration,
        has_history=history is not None,
        begins=begins,
        is_first=history is not None
        and bool(history.signs)
        and begins == history.signs[0].iteration,
        use=use,
        declines=declines,
        declines_from=declines_from,
        loses_to_best_of_n=grade == "watch" and BEST_OF_N in kinds and len(kinds) == 1,
        people=_preference(report.people.share_of(model.name) if report.people else None),
    )


def change_of(estimate: Estimate) -> Change:
    """The change that an estimate of a gain shows."""
    if estimate.n == 0:
        return "unscored"
    if math.isnan(estimate.low):
        return "unknown"
    if estimate.covers_zero:
        return "same"
    return "rose" if estimate.mean > 0 else "fell"


def recommended_iteration(history: RunHistory | None, begins: int) -> int:
    """The iteration with the largest clear gain and no sign before `begins`; -1: none."""
    if history is None or begins < 0:
        return -1
    clean = {one.iteration for one in history.signs if one.grade == "no sign"}
    candidates = [
        (point.gains[history.trained_on].mean, point.iteration)
        for point in history.points
        if point.iteration in clean
        and point.iteration < begins
        and history.trained_on in point.gains
        and point.gains[history.trained_on].low > 0
    ]
    return max(candidates)[1] if candidates else -1


def _preference(share: Estimate | None) -> float:
    """The share of people's choices for a model; NaN if its interval holds one half."""
    if share is None or not (share.low > UNDECIDED or share.high < UNDECIDED):
        return math.nan
    return share.mean


def _decline(report: Report, history: RunHistory) -> tuple[str, int, int]:
    """The held-out reward that declined first, the onset and its best iteration."""
    held_out = {reward.id for reward in report.rewards if reward.role == "heldout"}
    peaks = [
        peak
        for peak in history.peaks
        if peak.reward in held_out and peak.best_iteration > 0 and peak.onset_iteration >= 0
    ]
    first = min(peaks, key=lambda peak: peak.onset_iteration, default=None)
    if first is None:
        return "", -1, -1
    return reward_title(first.reward), first.onset_iteration, first.best_iteration


def _history_of(report: Report, model: ModelFacts) -> RunHistory | None:
    """The history that ends with this model."""
    for one in report.courses:
        if one.points and one.points[-1].model == model.name:
            return one
    return None


def _together(gains: Sequence[Gain]) -> Change:
    """The change on several lists of training prompts: a rise only if it is one on each."""
    changes = [change_of(gain.paired.gain) for gain in gains]
    scored = [change for change in changes if change != "unscored"]
    if not changes:
        return "absent"
    if not scored:
        return "unscored"
    order: tuple[Change, ...] = ("fell", "unknown", "same", "rose")
    return next(change for change in order if change in scored)


def _list_finding(report: Report, gain: Gain) -> ListFinding:
    share = share_of(report, gain)
    facts = next((one for one in report.splits if one.name == gain.split), None)
    leaked = 0
    if facts is not None:
        leaked = max(0, len({leak.heldout for leak in facts.leaks}) - facts.dropped)
    return ListFinding(
        split_title(gain.split),
        change_of(gain.paired.gain),
        math.nan if share is None else share.ratio,
        leaked,
        facts.prompts if facts is not None else 0,
    )
