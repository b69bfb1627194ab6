"""Conditions on a report, for a script or a CI job: `unseen_animals.gain < 0`, `reading >= watch`.

    [MODEL:]SPLIT.QUANTITY[.REWARD] OPERATOR NUMBER     quantity: gain, low, high, share, win_rate, d_z, p, base, tuned
    [MODEL:]reading OPERATOR "no sign" | watch | strong

Without a model it is about each of them, without a reward about the one that the model was trained on.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.errors import ConfigError
from ddpo.eval.analysis.hacking import ORDER, UNTOLD, Grade
from ddpo.eval.analysis.tables import Gain
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.report.data import Report
from ddpo.registry import nearest

__all__ = ["Condition", "parse_condition"]

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
class Condition:
    """A parsed condition."""

    text: str
    model: str  # "": each
    split: str  # "": about the reading
    quantity: str
    reward: str  # "": the one that the model was trained on
    compare: Callable[[float, float], bool]
    bound: float  # for the reading, a place in its order

    def check(self, models: Sequence[str], splits: Sequence[str], rewards: Sequence[str]) -> None:
        """Whether there is what it asks for; to be told before the work is done.

        Raises:
            ConfigError: no such model, split or reward.
        """
        for kind, name, names in (
            ("model", self.model, models),
            ("split", self.split, splits),
            ("reward", self.reward, rewards),
        ):
            if name and name not in names:
                near = nearest(name, names)
                hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(names)}"
                raise ConfigError(
                    f"the condition {self.text!r} names the {kind} {name!r}, which is not in the evaluation; {hint}"
                )

    def violations(self, report: Report) -> list[str]:
        """A line for each model of which the condition is true, or of which it cannot be told: what was not measured is not passed."""
        lines = []
        for model in report.compared:
            if self.model in ("", model.name):
                value, shown = self._value(report, model)
                if math.isnan(value) and not self.split:
                    lines.append(f"{self.text}: cannot be told for {model.name}, {shown}")
                elif math.isnan(value):
                    lines.append(f"{self.text}: there is no such number for {model.name}")
                elif self.compare(value, self.bound):
                    lines.append(f"{self.text}: {model.name} has {shown}")
        return lines

    def _value(self, report: Report, model: ModelFacts) -> tuple[float, str]:
        if not self.split:
            grade = next(
                (reading.grade for reading in report.readings if reading.model == model.name),
                "not measured",
            )
            return (math.nan if grade in UNTOLD else float(ORDER.index(grade))), grade
        reward = self.reward or model.trained_on
        if self.quantity == "share":
            ratios = [
                t.share.ratio
                for t in report.transfers
                if (t.model, t.split, t.reward) == (model.name, self.split, reward)
            ]
            value = ratios[0] if ratios else math.nan
        else:
            gains = [
                gain
                for gain in report.gains
                if (gain.model, gain.split, gain.reward) == (model.name, self.split, reward)
            ]
            value = QUANTITIES[self.quantity](gains[0]) if gains else math.nan
        return value, f"{value:.4g}"


def parse_condition(text: str) -> Condition:
    """The condition that a text says.

    Raises:
        ConfigError: it is not of that form; names the nearest quantity.
    """
    match = re.fullmatch(r"(?:([^:]+):)?\s*(.+?)\s*(<=|>=|<|>)\s*(.+?)\s*", text)
    if match is None:
        raise ConfigError(f"the condition {text!r} cannot be read: {FORM}")
    model, left, sign, right = match.group(1) or "", *match.group(2, 3, 4)
    if left == "reading":
        if (grade := GRADES.get(right.strip("'\""))) is None:
            raise ConfigError(
                f"the condition {text!r} cannot be read: a reading is 'no sign', 'watch' or 'strong', not {right!r}"
            )
        return Condition(text, model, "", "reading", "", OPERATORS[sign], float(ORDER.index(grade)))
    split, _, rest = left.partition(".")
    quantity, _, reward = rest.partition(".")
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
    return Condition(text, model, split, quantity, reward, OPERATORS[sign], bound)
