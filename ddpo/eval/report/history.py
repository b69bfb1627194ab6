"""The course of training: what the trained and the held-out rewards did, checkpoint by checkpoint, beside best-of-n."""

from __future__ import annotations

import math
from html import escape

from ddpo.eval.analysis.history import HistoryPoint, Peak, RunHistory
from ddpo.eval.report.choice import model_class, reward_role, reward_unit, rewards_of
from ddpo.eval.report.data import Curve, Report, RewardFacts
from ddpo.eval.report.lines import Panel, Path, panel, reward_curve
from ddpo.eval.report.tags import badge, details, section, table
from ddpo.eval.report.wording import count, estimate_text, number, shortened, split_title
from ddpo.stats.paired import Estimate

__all__ = ["course_section", "curves_section"]

AXES = {
    "kl": "√KL to the base model (√nats per picture)",
    "queries": "reward queries (square-root scale)",
}
LEGEND = (
    '<span class="key-seen" aria-hidden="true">●</span> the trained reward, <span class="key-heldout" aria-hidden="true">◆</span> others, '
    '<span class="key-best" aria-hidden="true">■</span> best of n pictures of the base model. Ring: where the reward was best. Dashed '
    "upright line: onset, the first checkpoint that is significantly below that. Whiskers: 95&nbsp;% interval."
)
TABLE_POINTS = 40


def course_section(report: Report) -> str:
    """Panels of every run whose earlier checkpoints were evaluated; empty without any."""
    parts = "".join(
        f'<div class="{_class(report, course)}">{_course(report, course)}</div>'
        for course in report.courses
    )
    return section("course", "The course of training", parts, LEGEND) if parts else ""


def _class(report: Report, course: RunHistory) -> str:
    return model_class(report, course.points[-1].model) if course.points else "m"


def _course(report: Report, course: RunHistory) -> str:
    shown = [
        reward
        for reward in rewards_of(report, "trained", "heldout", "asked")
        if _measured(course, reward.id)
    ]
    if any(reward.role == "heldout" for reward in shown):  # the others are in the table
        shown = [
            reward for reward in shown if reward.role == "heldout" or reward.id == course.trained_on
        ]
    shown.sort(key=lambda reward: reward.id != course.trained_on)
    told = [
        f"Gain over the base model on {split_title(course.split)}; trained on {course.trained_on or 'an unknown reward'}."
    ]
    if course.best_iteration >= 0:
        told.append(
            f"By held-out rewards the best checkpoint is {_iteration(course.best_iteration)}."
        )
    told += [course.best_of_verdict] if course.best_of_verdict else []
    known = any(math.isfinite(point.kl.mean) for point in course.points[1:])
    told += [] if known else ["The KL divergence from the base model is not known."]
    plots = []
    for reward in shown:
        plots += [
            _figure(report, course, reward, axis)
            for axis in (("kl", "queries") if known else ("queries",))
        ]
    onsets = [
        _peak_sentence(peak)
        for peak in course.peaks
        if peak.onset_iteration >= 0 and peak.reward in {one.id for one in shown}
    ]
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in onsets)
    body = f'<p>{escape(" ".join(told))}</p>{f"<ul>{listed}</ul>" if listed else ""}{_signs(course)}<div class="plots">{"".join(plots)}</div>'
    return f"<h3>{escape(course.run)}</h3>{body}{details('All numbers', _table(report, course) + _fits(report, course))}"


def _signs(course: RunHistory) -> str:
    """The graded evidence of every checkpoint: where it begins is where the run went wrong. Empty without any."""
    if not course.signs:
        return ""
    begun = next((signs.iteration for signs in course.signs if signs.grade == "strong signs"), None)
    told = (
        f"<p>Strong signs of gaming begin at <b>iteration {begun}</b>.</p>"
        if begun is not None
        else ""
    )
    rows = [
        (f"iteration {signs.iteration}", badge(signs.grade), escape(signs.text))
        for signs in course.signs
    ]
    return told + table(
        f"Signs of gaming in the course of {course.run}",
        ("checkpoint", "grade", "strongest evidence"),
        rows,
        words=True,
    )


def _measured(course: RunHistory, reward: str) -> bool:
    return any(
        reward in point.gains and math.isfinite(point.gains[reward].mean)
        for point in course.points[1:]
    )


def _iteration(iteration: int) -> str:
    return "the base model itself" if iteration == 0 else f"iteration {iteration}"


def _point(iteration: int) -> str:
    return f"iteration {iteration}" if iteration else "base model"


def _peak_sentence(peak: Peak) -> str:
    return (
        f"{peak.reward} was best at {_iteration(peak.best_iteration)} and significantly below that from iteration "
        f"{peak.onset_iteration} on; at the end it was {estimate_text(peak.drop)} from its best."
    )


def _x(point: HistoryPoint, axis: str) -> float:
    if axis == "queries":
        return float(point.queries) if point.queries >= 0 else math.nan
    return (
        math.sqrt(max(point.kl.mean, 0.0))
        if math.isfinite(point.kl.mean)
        else (0.0 if point.iteration == 0 else math.nan)
    )


def _figure(report: Report, course: RunHistory, reward: RewardFacts, axis: str) -> str:
    run = [
        (_x(p, axis), p.gains[reward.id], f"iteration {p.iteration}")
        for p in course.points
        if reward.id in p.gains
    ]
    paths = [
        Path(
            "trained" if reward.id == course.trained_on else "heldout",
            [point for point in run if math.isfinite(point[0])],
        )
    ]
    best_of = [
        (
            math.sqrt(b.kl) if axis == "kl" else float(b.queries),
            b.gains[reward.id],
            f"best of {b.n}",
        )
        for b in course.best_of_n
        if reward.id in b.gains
    ]
    paths += [Path("best-of", best_of)] if best_of else []
    unit = reward_unit(report, reward.id)
    best, onset = _marks(course, reward.id, axis)
    told = f"{reward.id} of {course.run} against {AXES[axis]}"
    shown = Panel(
        AXES[axis],
        f"gain{f' ({shortened(unit, 40)})' if unit else ''}",
        told,
        best,
        onset,
        root=axis == "queries",
    )
    words = reward_role(report, reward, course.points[-1].model)
    return f"<figure><figcaption><b>{escape(reward.id)}</b> {escape(words)}</figcaption>{panel(paths, shown)}</figure>"


def _marks(
    course: RunHistory, reward: str, axis: str
) -> tuple[tuple[float, Estimate, str] | None, tuple[float, str] | None]:
    """Where the reward was best, and the onset, in the panel's values."""
    peak = next((peak for peak in course.peaks if peak.reward == reward), None)
    if peak is None:
        return None, None
    at = {
        point.iteration: (_x(point, axis), point.gains[reward])
        for point in course.points
        if reward in point.gains
    }
    best, onset = (
        at.get(peak.best_iteration),
        at.get(peak.onset_iteration) if peak.onset_iteration >= 0 else None,
    )
    return (
        (*best, f"best: {_point(peak.best_iteration)}")
        if best is not None and math.isfinite(best[0] + best[1].mean)
        else None,
        (onset[0], f"onset: {_point(peak.onset_iteration)}")
        if onset is not None and math.isfinite(onset[0])
        else None,
    )


def _table(report: Report, course: RunHistory) -> str:
    rewards = [reward.id for reward in report.rewards if _measured(course, reward.id)]
    head = ("checkpoint", "reward queries", "KL (nats)", *(escape(reward) for reward in rewards))
    rows = [
        (
            f"iteration {p.iteration}" if p.iteration else "base model",
            str(p.queries) if p.queries >= 0 else "–",
            number(p.kl.mean),
            *(estimate_text(p.gains[r]) if r in p.gains else "–" for r in rewards),
        )
        for p in course.points
    ] + [
        (
            f"best of {b.n}",
            str(b.queries),
            number(b.kl),
            *(estimate_text(b.gains[r]) if r in b.gains else "–" for r in rewards),
        )
        for b in course.best_of_n
    ]
    return table(f"Course of {course.run}, gains over the base model", head, rows)


def _fits(report: Report, course: RunHistory) -> str:
    """The fitted curves of over-optimisation; empty without any."""
    if not course.fits:
        return ""
    head = (
        "fit of gain ≈ d (α − β log d), d = √KL",
        "unit",
        "α",
        "β",
        "would peak at KL (nats)",
        "root mean square error",
        "checkpoints",
    )
    rows = [
        (
            escape(fit.reward),
            escape(reward_unit(report, fit.reward)),
            number(fit.alpha),
            number(fit.beta),
            number(fit.peak_kl),
            number(fit.rmse),
            str(fit.points),
        )
        for fit in course.fits
    ]
    told = '<p class="soft">The form was found for language models (Gao et al., arXiv 2210.10760): a description, not a law.</p>'
    return table(f"Fitted curves of {course.run}", head, rows) + told


def curves_section(report: Report) -> str:
    """The reward of every rollout of each run; empty without any."""
    figures = "".join(_curve(report, curve) for curve in report.curves)
    told = "Mean reward of each rollout ± 1.96 standard errors, as the trainer saw it: training prompts, another picture each time."
    return (
        section("curves", "Curves of training", f'<div class="plots">{figures}</div>', told)
        if figures
        else ""
    )


def _curve(report: Report, curve: Curve) -> str:
    reward = (
        next((model.trained_on for model in report.models if model.name == curve.model), "")
        or "reward"
    )
    plot = reward_curve(curve.points, reward, reward_unit(report, reward))
    if not plot:
        return ""
    told = f"<b>{escape(curve.model)}</b>: {escape(reward)}, {count(curve.points[-1].queries, 'picture')} scored in all"
    stride = -(-len(curve.points) // TABLE_POINTS)
    rows = [
        (str(p.iteration), str(p.queries), number(p.mean), number(p.se))
        for p in curve.points[::stride]
    ]
    numbers = table(
        f"Rollouts of {curve.model}",
        ("iteration", "reward queries", "mean", "standard error"),
        rows,
    )
    return f'<figure class="{model_class(report, curve.model)}"><figcaption>{told}</figcaption>{plot}{details("Numbers", numbers)}</figure>'
