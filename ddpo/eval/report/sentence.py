"""The answer in one sentence, from the findings about each model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ddpo.eval.report.wording import count, listed, percent

__all__ = ["Change", "Findings", "ListFinding", "sentence"]

Change = Literal["rose", "same", "fell", "unknown", "unscored", "absent"]
"""Change of the reward. "unknown": too few prompts for an interval; "absent": no such prompts."""
FEW_ITERATIONS: Final = 4  # the shortest runs of docs/generalisation.md with a clear gain
PART: Final = 0.5  # a smaller share is a transfer in part
EVEN: Final = 0.5  # share of people's choices without a preference
LEAKED: Final = 0.1  # share of leaked prompts from which a transfer proves little
LISTS_SHOWN: Final = 3
SLASH: Final = "\N{NO-BREAK SPACE}/ "
NAMES_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class ListFinding:
    """The change of the reward on one held-out prompt list."""

    place: str  # name of the list
    change: Change
    share: float = math.nan  # of the gain on training prompts; NaN where it means nothing
    leaked: int = 0  # prompts in the numbers that are close to training prompts
    prompts: int = 0


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings about one model that its sentence needs."""

    model: str
    training: Change
    lists: tuple[ListFinding, ...]
    grade: str  # of reward hacking
    kinds: tuple[str, ...] = ()  # kinds of evidence with that grade
    is_run: bool = False  # a checkpoint of a run, with a known iteration
    is_images: bool = False  # a folder of images from elsewhere
    iteration: int = -1
    has_history: bool = False  # earlier checkpoints were examined
    begins: int = -1  # iteration from which on there are strong signs; -1: not known
    is_first: bool = False  # `begins` is the first examined checkpoint
    use: int = -1  # iteration of the recommended earlier checkpoint; -1: none
    declines: str = ""  # held-out reward that was best earlier
    declines_from: int = -1  # iteration
    loses_to_best_of_n: bool = False
    people: float = math.nan  # share of people's choices for it; NaN without a clear preference

    @property
    def has_risen(self) -> bool:
        """True if the reward rose on training prompts, or on others where there are no such."""
        if self.training in ("absent", "unknown"):
            return any(one.change == "rose" for one in self.lists)
        return self.training == "rose"

    @property
    def risen(self) -> tuple[ListFinding, ...]:
        """The held-out lists on which the reward rose."""
        return tuple(one for one in self.lists if one.change == "rose")


def sentence(findings: Sequence[Findings]) -> str:
    """One sentence about all models: the gain, reward hacking, and the next step.

    Args:
        findings: findings about each compared model.
    """
    if not findings:
        return "No model was compared with the base model."
    if len(findings) == 1:
        return _about_one(findings[0])
    return _about_several(findings)


def _about_one(one: Findings) -> str:
    changes = {one.training, *(found.change for found in one.lists)} - {"absent"}
    if changes <= {"unscored"}:
        return "Nothing can be said, since the trained reward scored no image."
    if changes <= {"unscored", "unknown"}:
        return "A single prompt cannot show a gain; evaluate two or more."
    gain = _gain(one)
    doubt, step = _doubt(one, has_comma="," in gain)
    step = step or _next_step(one)
    return f"{gain}{doubt}{step and '; '}{step}."


def _gain(one: Findings) -> str:
    """The first clause: the change of the trained reward."""
    places = listed([found.place for found in one.risen])
    if one.training in ("absent", "unknown"):
        if places:
            return f"The reward rises on {places}"
        fell = [found.place for found in one.lists if found.change == "fell"]
        return f"The reward falls on {listed(fell)}" if fell else "There is no measurable gain"
    if one.training == "fell":
        return "The reward falls on its training prompts"
    if one.training == "same":
        start = "There is no measurable gain"
        return (
            f"{start} on training prompts, though the reward rises on {places}"
            if places
            else (start)
        )
    if one.training != "rose":
        return "The trained reward scored no image of its training prompts"
    return _transfer(one)


def _transfer(one: Findings) -> str:
    """The clause about a model with a gain on its training prompts."""
    judged = [found for found in one.lists if found.change not in ("unknown", "unscored")]
    if not judged:
        return "The reward rises on its training prompts"
    risen = one.risen
    if not risen:
        fell = [found.place for found in judged if found.change == "fell"]
        rest = f" (the reward falls on {listed(fell)})" if fell else ""
        return f"The gain does not transfer{rest}"
    shares = [found.share for found in risen]
    if len(risen) == len(judged):
        known = [share for share in shares if not math.isnan(share)]
        part = " in part" if known and max(known) < PART else ""
        return f"The gain transfers{part}{_shares(shares)}"
    places = listed([f"{found.place}{_shares([found.share])}" for found in risen])
    others = [found.place for found in judged if found.change != "rose"]
    return f"The gain transfers to {places}, not to {listed(others)}"


def _shares(shares: Sequence[float]) -> str:
    """The shares in parentheses; "" unless all are known."""
    if any(math.isnan(share) for share in shares):
        return ""
    if len(shares) <= LISTS_SHOWN:
        return f" ({SLASH.join(percent(share) for share in shares)})"
    low = percent(min(shares)).split("\N{NO-BREAK SPACE}")[0]
    return f" ({low} to {percent(max(shares))} on {len(shares)} lists)"


def _doubt(one: Findings, has_comma: bool) -> tuple[str, str]:
    """The second clause, on the gravest doubt about the gain, and the step that follows from it."""
    if one.grade == "strong signs":
        return _hacking(one)
    if one.has_risen and one.people < EVEN:
        return f", but people prefer the base model's images ({percent(1 - one.people)})", ""
    leaked = _leaked(one)
    if leaked:
        return f", but {leaked}", "repeat with --leaks drop"
    if not one.has_risen:
        clean = " and no sign of reward hacking" if one.grade == "no sign" else ""
        return clean if not has_comma and one.training == "same" else "", ""
    if one.grade == "watch":
        return _watch(one)
    if one.grade == "no sign":
        return _clean(one, has_comma), ""
    if one.grade == "too little measured":
        return ", but too little was measured to rule out reward hacking", ""
    return ", but reward hacking was not measured", ""


def _clean(one: Findings, has_comma: bool) -> str:
    """The clause about a gain without a doubt."""
    if one.people > EVEN:
        liked = f", people prefer the tuned images ({percent(one.people)})"
        return f"{liked}, and there is no sign of reward hacking"
    return f"{',' if has_comma else ''} and shows no sign of reward hacking"


def _hacking(one: Findings) -> tuple[str, str]:
    """The clause about strong signs of reward hacking, and a better checkpoint."""
    kinds = f" ({listed(one.kinds)})" if one.kinds else ""
    if not one.has_risen:
        return f", and there are strong signs of reward hacking{kinds}", ""
    who = "the images game the reward" if one.is_images else "the run games its reward"
    if one.begins < 0:
        step = "examine its earlier checkpoints" if one.is_run and not one.has_history else ""
        return f", but {who}{kinds}", step
    when = f"from iteration {one.begins} on"
    if one.use >= 0:
        return f", but {who} {when}", f"use iteration {one.use}"
    if one.is_first:
        return f", but {who} {when}, the first that was examined", "stop earlier"
    return f", but {who} {when}", "no earlier checkpoint has a clear gain without a sign of it"


def _watch(one: Findings) -> tuple[str, str]:
    """The clause about evidence that is worth a look, the most telling first."""
    if one.declines:
        step = f"use iteration {one.use}" if one.use >= 0 else ""
        return f", but {one.declines} declines from iteration {one.declines_from} on", step
    if one.loses_to_best_of_n:
        return ", but the best of n base images scores higher at equal cost", ""
    kinds = "one kind of evidence is"
    if len(one.kinds) > 1:
        kinds = f"{len(one.kinds)} kinds of evidence are"
    return f", but {kinds} worth a look ({listed(one.kinds)})", ""


def _leaked(one: Findings) -> str:
    """The worst leak among the lists on which the reward rose; "" below a tenth of the prompts."""
    worst = max(one.risen, key=lambda found: found.leaked / max(1, found.prompts), default=None)
    if worst is None or worst.leaked < LEAKED * worst.prompts or not worst.leaked:
        return ""
    return f"{worst.leaked} of {worst.prompts} prompts of {worst.place} leaked from training"


def _next_step(one: Findings) -> str:
    """The step that the gain itself calls for; "" if there is none."""
    if one.training == "same" and one.is_run and 0 <= one.iteration < FEW_ITERATIONS:
        return f"train for more than {count(one.iteration, 'iteration')}"
    if one.training == "rose" and not one.lists:
        return "add held-out prompts to judge transfer"
    if one.training == "absent" and one.has_risen:
        what = "name the training prompts" if one.is_images else "add the training prompts"
        return f"{what} to judge transfer"
    return ""


GAMES: Final = ("games its reward", "game their rewards")
CLEAN: Final = ("transfers its gain", "transfer their gains")
STATES: Final = {
    "same": ("shows no measurable gain", "show no measurable gain"),
    "fell": ("lowers its reward", "lower their rewards"),
    "open": ("raises its reward", "raise their rewards"),
    "stays": ("keeps its gain to the training prompts", "keep their gains to the training prompts"),
    "part": ("transfers its gain to some lists", "transfer their gains to some lists"),
    "watch": (
        "transfers its gain but is worth a look",
        "transfer their gains but are worth a look",
    ),
    "little": (
        "transfers its gain but was examined too little",
        "transfer their gains but were examined too little",
    ),
    "disliked": (
        "raises its reward against people's preference",
        "raise their rewards against people's preference",
    ),
    "leaked": (
        "gains on prompts that leaked from training",
        "gain on prompts that leaked from training",
    ),
    "damaged": (
        "shows strong signs of reward hacking without a gain",
        "show strong signs of reward hacking without a gain",
    ),
}
UNJUDGED: Final = ("cannot be judged", "cannot be judged")


def _about_several(findings: Sequence[Findings]) -> str:
    """The models by what was found about them, and the only one without a doubt."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        groups.setdefault(_state(one), []).append(one.model)
    parts = []
    for (singular, plural), names in groups.items():
        shown = f"{len(names)} models" if len(names) > NAMES_SHOWN else listed(names)
        parts.append(f"{shown} {singular if len(names) == 1 else plural}")
    clean = groups.get(CLEAN, [])
    step = f"; use {clean[0]}" if len(clean) == 1 else ""
    if len(parts) == 2 and any(" but " in part for part in parts):
        return f"{parts[0]}, and {parts[1]}{step}."
    return f"{listed(parts)}{step}."


def _state(one: Findings) -> tuple[str, str]:
    """The state of one model beside others, as predicates of one and of several models."""
    if one.grade == "strong signs":
        return GAMES if one.has_risen else STATES["damaged"]
    if not one.has_risen:
        return STATES.get(one.training, UNJUDGED)
    if one.people < EVEN:
        return STATES["disliked"]
    judged = [found for found in one.lists if found.change not in ("unknown", "unscored")]
    if one.training != "rose" or not judged:
        return STATES["open"]
    if not one.risen:
        return STATES["stays"]
    if len(one.risen) < len(judged):
        return STATES["part"]
    if _leaked(one):
        return STATES["leaked"]
    if one.grade == "watch":
        return STATES["watch"]
    return CLEAN if one.grade == "no sign" else STATES["little"]
