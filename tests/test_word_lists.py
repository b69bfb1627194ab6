"""One word where a list of words is meant is a list of one; nothing is taken apart into letters."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ddpo
from ddpo.errors import ConfigError, UntrustedError
from ddpo.eval import EvalConfig
from ddpo.rewards.card import RewardCard
from ddpo.rewards.check import check_reward
from ddpo.rewards.spec import join_specs
from ddpo.trainer.config import AdaptConfig
from ddpo.user_code import refuse_unnamed
from ddpo.weights import fetch_hub_repository
from ddpo.word_lists import words_of

CARD = {"id": "a", "version": "1", "summary": "s", "load": "a:b", "family": "f", "flaws": ""}
MAKERS: dict[type, dict[str, Any]] = {EvalConfig: {}, RewardCard: CARD, AdaptConfig: {}}
FIELDS = [
    (kind, field.name)
    for kind in MAKERS
    for field in dataclasses.fields(kind)
    if re.fullmatch(r"tuple\[(str|Input), \.\.\.\]", str(field.type))
]


def made(kind: type, field: str, value: Any) -> Any:
    return getattr(kind(**{**MAKERS[kind], field: value}), field)


def test_the_fields_are_found() -> None:
    names = {(kind.__name__, name) for kind, name in FIELDS}
    for name in ("checkpoints", "images", "prompts", "rewards", "preferences", "trust"):
        assert ("EvalConfig", name) in names
    for name in ("inputs", "optional", "metadata", "libraries", "lineage"):
        assert ("RewardCard", name) in names
    assert ("AdaptConfig", "targets") in names


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_one_word_is_a_list_of_one(kind: type, field: str) -> None:
    assert made(kind, field, "prompt") == ("prompt",)
    assert made(kind, field, Path("a/b")) == ("a/b",)
    assert made(kind, field, ["prompt", Path("image")]) == ("prompt", "image")
    assert made(kind, field, iter(["x"])) == ("x",)
    assert made(kind, field, ()) == ()


@pytest.mark.parametrize(("kind", "field"), FIELDS)
@pytest.mark.parametrize(
    "value", [7, [7], b"prompt", {"prompt": 1}, [["prompt"]], [None], object()]
)
def test_other_values_are_one_line(kind: type, field: str, value: Any) -> None:
    with pytest.raises(
        ConfigError, match=f"^{field} must be one text or a list of texts"
    ) as caught:
        made(kind, field, value)
    assert "\n" not in str(caught.value)


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(ConfigError) as caught:
        words_of("rewards", [b"x" * 10_000])
    assert len(str(caught.value)) < 200


def test_functions_take_one_word_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = check_reward("darkness", only="order")
    assert one.name == "order"
    assert join_specs("darkness") == "darkness"
    with pytest.raises(ConfigError, match="two rewards"):
        join_specs("darkness", "min")
    refuse_unnamed(tmp_path, ["./mine.py:f"], "./mine.py:f")
    with pytest.raises(UntrustedError):
        refuse_unnamed(tmp_path, ["./mine.py:f"], "m")
    asked: list[Any] = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *_, **given: asked.append(given) or str(tmp_path),
    )
    fetch_hub_repository("owner/name", "main", "it", "*.json")
    assert asked[0]["allow_patterns"] == ["*.json"]


@pytest.mark.parametrize("give", [lambda place: place, lambda place: [place], Path])
def test_an_evaluation_of_one_missing_run_names_it(give: Callable[[str], Any]) -> None:
    with pytest.raises(ddpo.errors.UserError, match="nowhere/run"):
        ddpo.eval.evaluate(checkpoints=give("nowhere/run"))


def test_public_functions_of_lists_are_these() -> None:
    """A new argument of `ddpo` that takes a list of words must take one word as well."""
    known = {("evaluate", "prompts"), ("evaluate", "rewards"), ("score", "prompts")}
    found = set()
    for name in ddpo.__all__:
        function = getattr(ddpo, name)
        if inspect.isroutine(function):
            for parameter in inspect.signature(function).parameters.values():
                if re.search(
                    r"(Sequence|Iterable|list|tuple)\[.*(str|Like)", str(parameter.annotation)
                ):
                    found.add((name, parameter.name))
    assert known <= found | {("score", "rewards")}
    assert found <= known | {("score", "rewards")}
