"""Conditions of `--fail-if` on a report."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_fixture import make

from ddpo.errors import ConfigError
from ddpo.eval.analysis.hacking import Grade
from ddpo.eval.report.data import Report
from ddpo.eval.report.fail_if import parse_condition


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make(tmp_path_factory.mktemp("images"))[0]


def test_a_condition_is_about_every_model_and_its_own_reward(report: Report) -> None:
    gains = {
        gain.model: gain.paired.gain.mean
        for gain in report.gains
        if gain.split == "objects" and gain.reward == model_reward(report, gain.model)
    }
    assert len(gains) == len(report.compared) >= 3
    middle = sorted(gains.values())[1]
    lines = parse_condition(f"objects.gain <= {middle}").violations(report)
    assert len(lines) == 2
    assert all(
        any(model in line for line in lines) == (gain <= middle) for model, gain in gains.items()
    )
    one = min(gains, key=lambda model: gains[model])
    assert len(parse_condition(f"{one}: objects.gain <= {middle}").violations(report)) == 1
    assert parse_condition("objects.gain > 1e9").violations(report) == []


def model_reward(report: Report, name: str) -> str:
    return next(model.trained_on for model in report.models if model.name == name)


@pytest.mark.parametrize(
    "quantity", ["gain", "low", "high", "win_rate", "d_z", "p", "base", "tuned"]
)
def test_every_quantity_is_the_one_of_the_table(report: Report, quantity: str) -> None:
    gain = next(
        gain for gain in report.gains if gain.split == "animals" and gain.reward == "darkness"
    )
    paired = gain.paired
    value = {
        "gain": paired.gain.mean,
        "low": paired.gain.low,
        "high": paired.gain.high,
        "win_rate": paired.wins.rate,
        "d_z": paired.d_z,
        "p": gain.p_holm,
        "base": paired.base_mean,
        "tuned": paired.tuned_mean,
    }[quantity]
    left = f"{gain.model}:animals.{quantity}.darkness"
    assert len(parse_condition(f"{left} >= {value!r}").violations(report)) == 1
    assert parse_condition(f"{left} > {value!r}").violations(report) == []


def test_share_and_grade(report: Report) -> None:
    transfer = next(
        t
        for t in report.transfers
        if not t.share.reason and t.reward == model_reward(report, t.model)
    )
    text = f"{transfer.model}:{transfer.split}.share"
    assert parse_condition(f"{text} < {transfer.share.ratio + 0.01}").violations(report)
    assert not parse_condition(f"{text} < {transfer.share.ratio - 0.01}").violations(report)
    grades = {one.model: one.grade for one in report.readings}
    lines = parse_condition("reading >= strong").violations(report)
    assert {model for model in grades if any(model in line for line in lines)} == {
        model
        for model, grade in grades.items()
        if grade in ("strong signs", "not measured", "too little measured")
    }


@pytest.mark.parametrize("grade", ["too little measured", "not measured"])
def test_a_grade_of_too_little_evidence_meets_every_condition(report: Report, grade: Grade) -> None:
    unknown = replace(report, readings=[replace(one, grade=grade) for one in report.readings])
    for text in ("reading >= strong", "reading < watch", "reading <= 'no sign'"):
        lines = parse_condition(text).violations(unknown)
        assert len(lines) == len(report.compared)
        assert all("cannot be decided" in line and grade in line for line in lines)


def test_what_does_not_exist_is_not_passed(report: Report) -> None:
    # no list of training prompts carries over to itself
    lines = parse_condition("animals.share < 0").violations(report)
    assert lines
    assert all("no such number" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("animals.gain", "it must be like"),
        ("animals.gian < 0", "did you mean 'gain'"),
        ("animals < 0", "it must be like"),
        ("animals.gain < much", "not a number"),
        ("reading >= bad", "'watch' or 'strong'"),
    ],
)
def test_a_condition_that_cannot_be_read_says_so(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_condition(text)


def test_names_are_checked_before_the_work(report: Report) -> None:
    names = ["noisy"], ["animals", "unseen_animals"], ["darkness"]
    parse_condition("noisy:animals.gain.darkness < 0").check(*names)
    for text, says in (
        ("unseen_animal.gain < 0", "did you mean 'unseen_animals'"),
        ("animals.gain.dark < 0", "darkness"),
        ("x:animals.gain < 0", "noisy"),
    ):
        with pytest.raises(ConfigError, match=says):
            parse_condition(text).check(*names)
