"""Conditions on a report, for a script or a CI job: `unseen_animals.gain < 0`, `reading >= watch`.

    [MODEL:]SPLIT.QUANTITY[.REWARD] OPERATOR NUMBER
    [MODEL:]reading OPERATOR "no sign" | watch | strong

The quantities are gain, low, high, share, win_rate, d_z, p, base and tuned. `reading` is the grade
of reward hacking. Without a model, a condition is about each model. Without a reward, it is about
the reward that the model was trained on.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ddpo.errors import ConfigError
from ddpo.eval.analysis.grades import ORDER, UNTOLD, Grade
from ddpo.registry import nearest

if TYPE_CHECKING:
    from ddpo.eval.analysis.tables import Gain
    from ddpo.eval.inputs.models import ModelFacts
    from ddpo.eval.report.data import Report

__all__ = ["Condition", "Decision", "parse_condition"]

OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
QUANTITIES: Final[Mapping[str, Callable[[Gain], float]]] = {
    "gain": lambda gain: gain.paired.gain.mean,
    "low": lambda gain: gain.paired.gain.low,
    "high": lambda gain: gain.paired.gain.high,
    "win_rate": lambda gain: gain.paired.wins.rate,
    "d_z": lambda gain: gain.paired.d_z,
    "p": lambda gain: gain.p_holm,
    "base": lambda gain: gain.paired.base_mean,
    "tuned": lambda gain: gain.paired.tuned_mean,
}
GRADES: Final[Mapping[str, Grade]] = {
    "no sign": "no sign",
    "none": "no sign",
    "watch": "watch",
    "strong": "strong signs",
    "strong signs": "strong signs",
}
FORM: Final = "it must be like 'unseen_animals.gain < 0' or 'reading >= watch'"


@dataclass(frozen=True, slots=True)
class Decision:
    """A model that meets a condition, or for which the condition cannot be decided."""

    line: str
    is_met: bool  # False: it cannot be decided


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition."""

    text: str
    model: str  # "" for each model
    split: str  # "" for a condition on the grade of reward hacking
    quantity: str
    reward: str  # "" for the reward that the model was trained on
    compare: Callable[[float, float], bool]
    bound: float  # for a grade, its place in the order of grades

    def check(self, models: Sequence[str], splits: Sequence[str], rewards: Sequence[str]) -> None:
        """Checks the names in the condition against those of an evaluation, before its work.

        Args:
            models: names of the compared models.
            splits: names of the prompt lists.
            rewards: ids of the rewards.

        Raises:
            ConfigError: the evaluation has no such model, split or reward.
        """
        for kind, name, names in (
            ("model", self.model, models),
            ("split", self.split, splits),
            ("reward", self.reward, rewards),
        ):
            if name and name not in names:
                near = nearest(name, names)
                hint = f"did you mean {near!r}?" if near else f"it has: {', '.join(names)}"
                raise ConfigError(
                    f"the condition {self.text!r} names the {kind} {name!r}, "
                    f"which is not in the evaluation; {hint}"
                )

    def violations(self, report: Report) -> list[str]:
        """A line for each model that meets the condition, or for which it cannot be decided.

        A number that was not measured never passes.
        """
        return [decision.line for decision in self.decisions(report)]

    def decisions(self, report: Report) -> list[Decision]:
        """The models that meet the condition, and those for which it cannot be decided."""
        models = [model for model in report.compared if self.model in ("", model.name)]
        decisions = [self._decision(report, model) for model in models]
        return [decision for decision in decisions if decision is not None]

    def _decision(self, report: Report, model: ModelFacts) -> Decision | None:
        """The decision about a model; None if it passes."""
        from ddpo.eval.report.selection import assessment_of

        if not self.split:
            assessment = assessment_of(report, model.name)
            grade = assessment.grade if assessment else "not measured"
            if grade in UNTOLD:
                line = f"{self.text}: cannot be decided for {model.name}, {grade}"
                return Decision(line, is_met=False)
            is_met = self.compare(ORDER.index(grade), self.bound)
            return Decision(f"{self.text}: {model.name} has {grade}", True) if is_met else None
        value = self._value(report, model)
        if math.isnan(value):
            return Decision(f"{self.text}: there is no such number for {model.name}", is_met=False)
        is_met = self.compare(value, self.bound)
        return Decision(f"{self.text}: {model.name} has {value:.4g}", True) if is_met else None

    def _value(self, report: Report, model: ModelFacts) -> float:
        """The number that the condition is about; NaN if the report has none."""
        from ddpo.eval.report.selection import gains_of, share_of

        reward = self.reward or model.trained_on
        gains = gains_of(report, model=model.name, reward=reward, split=self.split)
        if self.quantity == "share":
            share = share_of(report, gains[0]) if gains else None
            return math.nan if share is None else share.ratio
        return QUANTITIES[self.quantity](gains[0]) if gains else math.nan


def parse_condition(text: str) -> Condition:
    """The condition of a text.

    Raises:
        ConfigError: the text is not a condition; the message names the nearest quantity.
    """
    match = re.fullmatch(r"(?:([^:]+):)?\s*(.+?)\s*(<=|>=|<|>)\s*(.+?)\s*", text)
    if match is None:
        raise ConfigError(f"the condition {text!r} cannot be read: {FORM}")
    model, left, sign, right = match.group(1) or "", *match.group(2, 3, 4)
    if left == "reading":
        grade = GRADES.get(right.strip("'\""))
        if grade is None:
            raise ConfigError(
                f"the condition {text!r} cannot be read: "
                f"its grade must be 'no sign', 'watch' or 'strong', not {right!r}"
            )
        return Condition(text, model, "", "reading", "", OPERATORS[sign], ORDER.index(grade))
    split, _, rest = left.partition(".")
    quantity, _, reward = rest.partition(".")
    if not split or (rest != quantity and not reward):
        raise ConfigError(f"the condition {text!r} cannot be read: {FORM}")
    if quantity not in (*QUANTITIES, "share"):
        near = nearest(quantity, (*QUANTITIES, "share"))
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(QUANTITIES)}, share"
        raise ConfigError(f"the condition {text!r} cannot be read: {FORM}; {hint}")
    try:
        bound = float(right)
    except ValueError as error:
        raise ConfigError(
            f"the condition {text!r} cannot be read: {right!r} is not a number"
        ) from error
    if not math.isfinite(bound):
        raise ConfigError(
            f"the condition {text!r} cannot be decided: {right!r} is not a finite number"
        )
    return Condition(text, model, split, quantity, reward, OPERATORS[sign], bound)
