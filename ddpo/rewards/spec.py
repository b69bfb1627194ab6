"""The syntax of rewards, on the command line and in recipes.

    expression := term " + " term … | min(term, term, …) | pareto(term, term, …)
    term       := reward[:WEIGHT][:option=value,…]
    reward     := name | ./file.py:MyReward | package.module:MyReward | http://host:port/name

The weight may also stand last, as in aesthetic:device=cuda:0.5. Among the options, `z=FILE` and
`clamp=LOW..HIGH` are steps on the score of any reward (see `ddpo.rewards.scoring.compose`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from ddpo.errors import ConfigError
from ddpo.io.addresses import is_loopback
from ddpo.registry import nearest
from ddpo.text import shown_value, without_secrets
from ddpo.word_lists import words_of

__all__ = [
    "COMBINATIONS",
    "EMBEDDED_OPTION",
    "LARGEST",
    "STEPS",
    "TOKEN_VARIABLE",
    "Bounds",
    "Combination",
    "RewardSpec",
    "join_specs",
    "parse_expression",
    "parse_spec",
    "redacted",
    "replace_paths",
    "words_to_trust",
]

Bounds = tuple[float | None, float | None]
Combination = Literal["sum", "min", "pareto"]

COMBINATIONS: Final[tuple[Combination, ...]] = ("sum", "min", "pareto")
STEPS: Final = ("z", "clamp")
"""Options of every reward. The name "clip" is taken: it is an option of rewards that load CLIP."""

TOKEN_VARIABLE: Final = "DDPO_REWARD_TOKEN"  # noqa: S105  # the name of the variable
"""Environment variable with the token of a reward server."""
KEY_VARIABLE: Final = "OPENAI_API_KEY"
"""Environment variable with the key of a server of a vision-language model."""
CODE_IN_OPTION: Final = re.compile(r"\.py(?::[\w.]+)?\s*$")

PATH_START: Final = re.compile(r"\.{0,2}[/\\]|~|[A-Za-z]:[\\/]")
"""Start of a reward that is written as a path, not as a bare name or file name."""
PYTHON_PATH: Final = re.compile(r".*?\.py(?=:|\s*$)", re.DOTALL)
NO_PATHS: Final = ("device", "dtype", "clamp")
"""Options whose values are never files, whatever the current folder holds."""
EMBEDDED_OPTION: Final = ("model", "emoji")
"""Option and value of the embedded variants, which win over a file of that name."""

LARGEST: Final = 1e12
"""Largest weight and bound of a score; sums of scores must stay numbers of float32."""

NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
NOT_INTEGER: Final = r"(?:[+-]\d+|(?=[^:]*[.eE])" + NUMBER + ")"


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """A parsed reward, with the steps on its score: z, then clamp, then weight."""

    kind: Literal["name", "file", "object", "url"]
    target: str  # id, path of the file, module, or URL
    attribute: str = ""  # of a file or a module
    options: Mapping[str, str] = field(default_factory=dict)
    weight: float | None = None  # None: not written, which counts as 1
    reference: str | None = None  # file of the option `z`
    bounds: Bounds | None = None

    @property
    def plain(self) -> bool:
        """True if no step changes the score."""
        return self.weight in (None, 1.0) and self.reference is None and self.bounds is None


def join_specs(specs: Sequence[str], combination: str = "sum") -> str:
    """The expression of several `--reward` options.

    Raises:
        ConfigError: The combination is unknown, or is not a sum and has only one reward.
    """
    if combination not in COMBINATIONS:
        near = nearest(combination, COMBINATIONS)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(COMBINATIONS)}"
        raise ConfigError(f"unknown combination {combination!r}; {hint}")
    specs = words_of("rewards", specs)
    if combination == "sum":
        return " + ".join(specs)
    if len(specs) < 2:
        raise ConfigError(f"{combination} needs at least two rewards, got {len(specs)}")
    return f"{combination}({', '.join(specs)})"


def parse_expression(text: str) -> tuple[Combination, tuple[RewardSpec, ...]]:
    """The combination and the rewards of an expression; a single reward is a sum of one.

    Raises:
        ConfigError: The text does not have the form above.
    """
    stripped = text.strip()
    if found := re.fullmatch(r"(min|pareto)\((.*)\)", stripped, re.DOTALL):
        combination = cast(Combination, found[1])
        return combination, _parse_arguments(text, combination, _split_rewards(found[2]))
    if found := re.search(r"(?:^|\s)(min|pareto)\(", stripped):
        raise ConfigError(f"reward {text!r}: {found[1]}(…) must be the whole expression")
    return "sum", tuple(_parse_term(part) for part in _split_terms(stripped))


def words_to_trust(text: str) -> list[str]:
    """The code and the servers that an expression names, as `--trust` takes them.

    A server of this machine counts only while a token or key is set that it would get.
    An expression that cannot be parsed has none, since it cannot be resolved either.
    """
    try:
        _, terms = parse_expression(text)
    except ConfigError:
        return []
    words: list[str] = []
    for term in terms:
        if term.kind in ("file", "object"):
            words.append(f"{term.target}:{term.attribute}".removesuffix(":"))
        places = (term.target, *term.options.values())
        words += [place for place in places if "://" in place and not _is_harmless(place)]
        words += [value for value in term.options.values() if CODE_IN_OPTION.search(value)]
    return words


def _is_harmless(address: str) -> bool:
    """True for a server of this machine while no token is set that it would get."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    return is_loopback(host) and not any(map(os.environ.get, (TOKEN_VARIABLE, KEY_VARIABLE)))


def _parse_arguments(
    text: str, combination: Combination, parts: Sequence[str]
) -> tuple[RewardSpec, ...]:
    """The rewards inside min(…) or pareto(…)."""
    nested = re.compile(r"\s*(?:min|pareto)\(")
    if any(len(_split_terms(part)) > 1 or nested.match(part) for part in parts):
        form = f"{combination}(…) takes rewards, separated by commas, not expressions"
        raise ConfigError(f"reward {text!r}: {form}")
    terms = tuple(_parse_term(part) for part in parts)
    if len(terms) < 2:
        form = f"{combination}(…) needs at least two rewards, separated by commas"
        raise ConfigError(f"reward {text!r}: {form}")
    if any(term.weight == 0 for term in terms):
        raise ConfigError(f"reward {text!r}: a weight of 0 makes no sense in {combination}(…)")
    return terms


def _split_rewards(text: str) -> list[str]:
    """The rewards inside min(…) or pareto(…)."""
    return _whole_paths(re.split(r",(?!\s*\w+=)", text), ",")


def _split_terms(text: str) -> list[str]:
    """The terms of a sum."""
    return _whole_paths(re.split(r"\s\+(?=\s|$)", text), " +")


def _whole_paths(parts: Sequence[str], separator: str) -> list[str]:
    """The parts, with paths of Python files rejoined that contained the separator."""
    joined: list[str] = []
    for part in parts:
        before = joined[-1] if joined else ""
        cut = PATH_START.match(before.strip()) and not PYTHON_PATH.match(before.strip())
        if cut and ".py" in part:
            joined[-1] = before + separator + part
        else:
            joined.append(part)
    return joined


def replace_paths(text: str, place: Callable[[str], str | None]) -> str:
    """The expression with the paths of its files replaced.

    Args:
        text: Valid expression.
        place: Function from the path of a reward's file, or from an option's value, to the new
            text; None keeps the old one.
    """
    stripped = text.strip()
    if found := re.fullmatch(r"(min|pareto)\((.*)\)", stripped, re.DOTALL):
        inner = ", ".join(_replace_in_term(part, place) for part in _split_rewards(found[2]))
        return f"{found[1]}({inner})"
    return " + ".join(_replace_in_term(part, place) for part in _split_terms(stripped))


def redacted(text: str) -> str:
    """The expression with `***` for secrets, as it is stored and shown; the same without any."""
    if without_secrets(text) == text:
        return text
    try:
        parse_expression(text)
    except ConfigError:
        return without_secrets(text)
    stripped = text.strip()
    if found := re.fullmatch(r"(min|pareto)\((.*)\)", stripped, re.DOTALL):
        inner = ", ".join(_redacted_term(part) for part in _split_rewards(found[2]))
        return f"{found[1]}({inner})"
    return " + ".join(_redacted_term(part) for part in _split_terms(stripped))


def _redacted_term(text: str) -> str:
    """As `redacted`, for one term; its weight stays."""
    head, options = _split_options(text.strip())
    if not options:
        return without_secrets(head)
    weight = re.fullmatch(rf"(.+)(:{_weight_after(options)})", options, re.DOTALL)
    tail = weight[2] if weight else ""
    shown: list[str] = []
    for part in options.removesuffix(tail).split(","):
        name, equals, value = part.partition("=")
        shown.append(f"{name}{equals}{shown_value(name, value)}")
    return f"{head}:{','.join(shown)}{tail}"


def _replace_in_term(text: str, place: Callable[[str], str | None]) -> str:
    head, options = _split_options(text.strip())
    if not head.startswith(("http:", "https:")) and (
        found := re.match(rf"(.+\.py)((?::\w+(?:\.\w+)*)?(?::{NUMBER})?)$", head, re.DOTALL)
    ):
        head = (place(found[1]) or found[1]) + found[2]
    if not options:
        return head
    return f"{head}:" + ",".join(_replace_in_option(part, place) for part in options.split(","))


def _replace_in_option(text: str, place: Callable[[str], str | None]) -> str:
    name, equals, value = text.partition("=")
    if (name.strip(), value.strip().partition(":")[0]) == EMBEDDED_OPTION:
        return text
    if name.strip() in NO_PATHS or not value.strip() or re.fullmatch(NUMBER, value.strip()):
        return text
    if (other := place(value.strip())) is not None:
        return name + equals + other
    if found := re.fullmatch(rf"(.+):({NUMBER})", value.strip()):  # a weight stands last
        other = place(found[1])
        return text if other is None else f"{name}{equals}{other}:{found[2]}"
    return text


def _parse_term(text: str) -> RewardSpec:
    """Reads one reward of an expression, with weight and steps."""
    text = text.strip()
    weights: list[str] = []
    head, options = _split_options(text)
    if found := re.fullmatch(rf"(.+):({NUMBER})", head, re.DOTALL):
        head = found[1]
        weights.append(found[2])
    if found := re.fullmatch(rf"(.+):({_weight_after(options)})", options, re.DOTALL):
        options = found[1]
        weights.append(found[2])
    if len(weights) > 1:
        raise ConfigError(f"reward {text!r} has two weights, {weights[0]} and {weights[1]}")
    weight = float(weights[0]) if weights else None
    if weight is not None and abs(weight) > LARGEST:
        raise ConfigError(
            f"reward {text!r}: the weight {weights[0]} is too large, beyond ±{LARGEST:g}"
        )
    spec = parse_spec(f"{head}:{options}" if options else head)
    given = dict(spec.options)
    reference = given.pop("z", None)
    clamp = given.pop("clamp", None)
    if reference == "":
        example = "`ddpo rewards calibrate`, as in z=reference.json"
        raise ConfigError(f"reward {text!r}: z needs a file of {example}")
    bounds = None if clamp is None else _parse_bounds(text, clamp)
    return replace(spec, options=given, weight=weight, reference=reference, bounds=bounds)


def _weight_after(options: str) -> str:
    """The pattern of a weight after options.

    A bare integer may belong to a value, as in device=cuda:1, but not to that of a step.
    """
    last = options.rpartition(",")[2].partition("=")[0].strip()
    return NUMBER if last in STEPS else NOT_INTEGER


def _parse_bounds(text: str, clamp: str) -> Bounds:
    low, dots, high = clamp.partition("..")
    try:
        if not dots:
            raise ValueError
        bounds = (float(low) if low.strip() else None, float(high) if high.strip() else None)
    except ValueError:
        form = "clamp=LOW..HIGH, such as clamp=-3..3 or clamp=..5"
        raise ConfigError(f"reward {text!r}: clamp={clamp} is not of the form {form}") from None
    given = [bound for bound in bounds if bound is not None]
    if not given or not all(abs(bound) <= LARGEST for bound in given):
        raise ConfigError(
            f"reward {text!r}: clamp={clamp} needs at least one finite bound, up to ±{LARGEST:g}"
        )
    if len(given) == 2 and given[0] >= given[1]:
        raise ConfigError(
            f"reward {text!r}: clamp={clamp} has its lower bound not below its upper bound"
        )
    return bounds


def _split_options(text: str) -> tuple[str, str]:
    path = PYTHON_PATH.match(text) if PATH_START.match(text) else None
    found = re.compile(r":(?=\w+=)").search(text, path.end() if path else 0)
    return (text[: found.start()], text[found.end() :]) if found else (text, "")


def parse_spec(text: str) -> RewardSpec:
    """Reads one reward with its options, without a weight; steps count as options here.

    Raises:
        ConfigError: The text has none of the forms above.
    """
    target, options = _split_options(text.strip())
    given: dict[str, str] = {}
    for part in options.split(",") if options else []:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise ConfigError(f"reward {text!r}: {part!r} is not of the form option=value")
        if name in given:
            raise ConfigError(f"reward {text!r}: option {name!r} is given twice")
        given[name] = value
    if re.match(r"https?:", target):
        if not re.fullmatch(r"https?://(?:\[[^\s/\]]+\]|[^\s/:\[]+)(?::\d+)?/[^\s?#]+", target):
            raise ConfigError(f"reward {text!r} is not of the form http://host:port/name")
        return RewardSpec("url", target, "", given)
    if found := re.fullmatch(r"(.+\.py)(?::(\w+(?:\.\w+)*))?", target):
        return RewardSpec("file", found[1], found[2] or "", given)
    if found := re.fullmatch(r"(\w+(?:\.\w+)*):(\w+(?:\.\w+)*)", target):
        return RewardSpec("object", found[1], found[2], given)
    if not target or ":" in target or target.endswith(("/", "\\")):
        forms = "name, ./file.py:Attribute or package.module:Attribute"
        raise ConfigError(
            f"reward {text!r} is not of the form {forms}, with :WEIGHT and :option=value,…"
        )
    return RewardSpec("name", target, "", given)
