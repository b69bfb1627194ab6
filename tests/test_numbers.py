"""Odd numbers in every setting and option: refused in one line, or taken for what they mean.

The tables of intervals are written by hand; the code has its ranges beside the settings.
"""

from __future__ import annotations

import json
import math
import re
import resource
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from ddpo.errors import CheckpointError, ConfigError, UserError
from ddpo.eval.config import EvalConfig
from ddpo.policies.sampler import SamplerSettings
from ddpo.ranges import Range
from ddpo.rewards.card import Calls
from ddpo.trainer.config import TrainConfig
from tests.conftest import Run

COUNT = "[1, 1000000000]"
OPEN = "(0, inf]"  # infinity: no clipping, or no limit
SEED = "[0, 9223372036854775807]"
TRAIN = {
    "iterations": "[1, 1000000000000]",
    "seed": SEED,
    "checkpoint_every": "[1, 1000000000000]",
    "checkpoint_keep": "[0, 1000000000]",
    "grid_every": "[1, 1000000000000]",
    "sample.samples": "[1, 1000000]",
    "sample.per_prompt": "[1, 1000000]",
    "sample.steps": "[1, 1000]",
    "sample.guidance": "[1, 1000]",
    "sample.eta": "(0, 1]",
    "sample.batch": "[1, 65536]",
    "sample.branches": "[1, 1000000]",
    "window.steps": "[0, 1000000000]",
    "window.within": "(0, 1]",
    "window.every": COUNT,
    "window.stride": COUNT,
    "optim.divergence": OPEN,
    "optim.ema": "[0, 1)",
    "optim.ema_every": COUNT,
    "optim.lr": "(0, 1e30]",
    "optim.beta1": "[0, 1)",
    "optim.beta2": "[0, 1)",
    "optim.eps": "[1e-30, 1]",
    "optim.weight_decay": "[0, 1000]",
    "optim.max_grad_norm": OPEN,
    "optim.updates": COUNT,
    "optim.epochs": "[1, 10000]",
    "optim.skip_first": "[0, 1000000000]",
    "optim.skip_last": "[0, 1000000000]",
    "optim.timesteps": "[0, 1000000000]",
    "optim.kl": "[0, 1000000]",
    "optim.clip_range": OPEN,
    "advantage.buffer": COUNT,
    "prompt_limit": "[0, 1000000000]",
    "stop_patience": COUNT,
    "advantage.min_count": COUNT,
    "advantage.clip": OPEN,
    "regression.beta": "(0, 1000000]",
    "regression.keep": "(0, 1)",
    "adapt.rank": "[1, 4096]",
    "adapt.alpha": "[1, 1000000]",
}
OTHERS: dict[type[Any], dict[str, str]] = {
    EvalConfig: {
        "limit": "[1, 1000000]",
        "seeds": "[1, 1000000]",
        "seed": SEED,
        "history": "[0, 100000]",
        "history_seeds": "[1, 1000000]",
        "best_of": "[0, 1000000]",
        "steps": "[1, 1000]",
        "guidance": "[1, 1000]",
        "eta": "[0, 2]",
    },
    SamplerSettings: {
        "steps": "[1, 1000]",
        "guidance": "[1, 1000]",
        "eta": "[0, 1]",
        "batch": "[1, 65536]",
    },
    Calls: {
        "concurrency": "[0, 1000]",
        "timeout_s": OPEN,
        "retries": "[0, 1000]",
        "batch": "[0, 1000000000]",
    },
}
OPTIONS = {
    "train --iterations": "[1, 1000000000000]",
    "train --seed": SEED,
    "sample --per-prompt": "[1, 1000000]",
    "sample --steps": "[1, 1000]",
    "sample --guidance": "[1, 1000]",
    "sample --eta": "[0, 1]",
    "sample --seed": SEED,
    "eval --per-prompt": "[1, 1000000]",
    "eval --seed": SEED,
    "eval --history": "[0, 100000]",
    "eval --history-per-prompt": "[1, 1000000]",
    "eval --best-of": "[0, 1000000]",
    "eval --steps": "[1, 1000]",
    "eval --guidance": "[1, 1000]",
    "eval --eta": "[0, 1]",
    "compare --per-prompt": "[1, 1000000]",
    "compare --seed": SEED,
    "train --limit": "[1, 1000000]",
    "sample --limit": "[1, 1000000]",
    "eval --limit": "[1, 1000000]",
    "compare --limit": "[1, 1000000]",
    "rewards score --limit": "[1, 1000000]",
    "rewards compare --limit": "[1, 1000000]",
    "rewards calibrate --limit": "[1, 1000000]",
    "rewards validate --limit": "[1, 1000000]",
    "rewards check --timeout": OPEN,
    "rewards check --check-timeout": OPEN,
    "models check --timeout": OPEN,
    "models check --check-timeout": OPEN,
    "view --port": "[0, 65535]",
    "label --pairs": "[1, 1000000]",
    "label --seed": SEED,
    "label --port": "[0, 65535]",
    "doctor --minutes": "[0, 1000000]",
    "rewards score --batch-size": "[1, 65536]",
    "rewards score --timeout": OPEN,
    "rewards bench --per-round": "[1, 100000]",
    "rewards bench --size": "[1, 16384]",
    "rewards bench --repeats": "[1, 1000000]",
    "rewards calibrate --batch-size": "[1, 65536]",
    "rewards compare --batch-size": "[1, 65536]",
    "rewards validate --batch-size": "[1, 65536]",
    "rewards serve --port": "[0, 65535]",
    "rewards serve --batch-size": "[1, 65536]",
    "rewards serve --max-body-mb": "[1, 65536]",
    "rewards serve --max-pixels": "[1, 68719476736]",
    "rewards serve --max-connections": "[1, 65536]",
    "rewards serve --timeout": "[1, 86400]",
    "rewards doctor --timeout": "[1, inf]",
}
ODD: tuple[Any, ...] = (
    *(math.inf, -math.inf, math.nan, 1e300, -1e300, 1e-300, -1e-9, -0.0, 0.5, 1.5, 1e9),
    *(0, 1, -1, 10**9, 2**31, 2**63 - 1, 2**63, 2**64, 10**40, -(10**40), 10**400, 10**5000),
    *(True, False, None, "", " ", "nan", "infinity", "1_000", "٣", "1", [], [1], {}, 1j),
)
"""Values from Python or TOML. The text "inf" is how `config.json` keeps infinity."""

TEXTS = (
    *("inf", "-inf", "nan", "1e400", "-1e400", "1e300", "-1", "0", "1", "1000", "1e-400", "0x10"),
    *("2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551616"),
    *("1" + "0" * 40, "1" + "0" * 400, "1" + "0" * 5000, "-1" + "0" * 40, "", " ", "true", "1,5"),
    *("1_000", "٣", "３", " 7 ", "7.5", "+7", "--", "\N{VULGAR FRACTION ONE HALF}"),
)


def inside(interval: str, value: float | int) -> bool:
    """True if an interval such as "(0, 1]" has the number, exactly; "inf]" includes infinity."""
    low, high = interval[1:-1].split(", ")
    if math.isnan(value) if isinstance(value, float) else False:
        return False
    if value in (math.inf, -math.inf):
        return value > 0 and high == "inf"
    exact = Fraction(value)
    above = exact > Fraction(low) or (interval[0] == "[" and exact == Fraction(low))
    if high == "inf":
        return above
    return above and (exact < Fraction(high) or (interval[-1] == "]" and exact == Fraction(high)))


def numbers_of(kind: type[Any], above: str = "") -> Iterator[tuple[str, type, bool]]:
    """Each number of a dataclass and of those in it: its name, type, and True if it has a range."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if is_dataclass(hint):
            yield from numbers_of(typing.cast("type[Any]", hint), f"{above}{name}.")
        ranged = any(isinstance(one, Range) for one in getattr(hint, "__metadata__", ()))
        plain = getattr(hint, "__origin__", hint) if ranged else hint
        types = {plain, *typing.get_args(plain)} & {int, float}
        if types:
            yield above + name, types.pop(), ranged


def valid(value: Any, kind: type, interval: str, optional: bool = False) -> bool:
    """True if a setting may have a value, by the table."""
    if value is None:
        return optional
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return (kind is float or isinstance(value, int)) and inside(interval, value)


def one_line(error: BaseException, name: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 300
    assert name in text, text


def test_a_size_is_one_or_two_positive_numbers_or_is_refused() -> None:
    """It has no range, since it may also be a text or a pair."""
    from ddpo.trainer.recipe import config_from_dict

    for value in (*ODD, *TEXTS, [8], [8, 8, 8], [8, True], {"height": 8}):
        try:
            found = config_from_dict({"sample": {"size": value}}).sample.size
        except ConfigError as error:
            one_line(error, "sample.size")
        else:
            assert len(found) in (0, 2)
            assert all(type(side) is int and side > 0 for side in found)


def test_every_number_of_the_settings_has_a_range() -> None:
    found = {name: ranged for name, _, ranged in numbers_of(TrainConfig)}
    assert found == {**dict.fromkeys(TRAIN, True), "sample.size": False}  # a pair, tested above
    for kind, table in OTHERS.items():
        found = {name: ranged for name, _, ranged in numbers_of(kind) if name != "size"}
        assert found == dict.fromkeys(table, True)


@pytest.mark.parametrize("name", TRAIN)
def test_a_setting_has_a_number_in_its_range_or_is_refused(name: str) -> None:
    from ddpo.trainer.recipe import config_from_dict

    kind = {name: kind for name, kind, _ in numbers_of(TrainConfig)}[name]
    for value in ODD:
        values = nested(name, value)
        if valid(value, kind, TRAIN[name]):
            try:
                found = plain(config_from_dict(values), name)
            except ConfigError as error:  # of settings that do not fit each other
                one_line(error, name)
                if "must be" in str(error):
                    raise
            else:
                assert found == taken(value, kind)
        else:
            with pytest.raises(ConfigError) as caught:
                config_from_dict(values)
            one_line(caught.value, name)


def taken(value: float, kind: type) -> float:
    """The number that a setting keeps; one beyond all floats is infinity."""
    if kind is int:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf


def nested(name: str, value: object) -> dict[str, Any]:
    *tables, last = name.split(".")
    return {tables[0]: {last: value}} if tables else {last: value}


def plain(config: object, name: str) -> object:
    for part in name.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize("name", TRAIN)
def test_the_text_of_an_assignment_is_a_number_in_the_range_or_refused(name: str) -> None:
    from ddpo.trainer.recipe import config_from_dict, set_value

    kind = {name: kind for name, kind, _ in numbers_of(TrainConfig)}[name]
    for text in TEXTS:
        values: dict[str, Any] = {}
        try:
            set_value(values, f"{name}={text}")
            found = plain(config_from_dict(values), name)
        except ConfigError as error:
            one_line(error, name)
        else:
            assert type(found) is kind
            assert inside(TRAIN[name], found)  # type: ignore[arg-type]
            assert found == meant(text, kind)


def meant(text: str, kind: type) -> int | float:
    """The number of a TOML text; one beyond all floats is infinity."""
    if kind is int or text == "0x10":
        return int(text, 0)
    return float(text)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_settings_take_numbers_of_their_ranges_alone(kind: type[Any]) -> None:
    types = {name: number for name, number, _ in numbers_of(kind)}
    hints = typing.get_type_hints(kind)
    assert {one.name for one in fields(kind)} >= set(types)
    for name, interval in OTHERS[kind].items():
        for value in ODD:
            if valid(value, types[name], interval, type(None) in typing.get_args(hints[name])):
                found = getattr(kind(**{name: value}), name)
                assert found == (value if value is None else taken(value, types[name]))
            else:
                with pytest.raises(ConfigError) as caught:
                    kind(**{name: value})
                one_line(caught.value, name)


def test_numbers_of_numpy_become_plain_ones() -> None:
    config = EvalConfig(seeds=np.int64(3), eta=np.float32(0.5))  # type: ignore[arg-type]
    assert (type(config.seeds), type(config.eta)) == (int, float)
    with pytest.raises(ConfigError, match="eta must be a number, at least 0 and at most 2"):
        EvalConfig(eta=np.float64("nan"))


def options() -> dict[str, tuple[type, Any]]:
    """Every option that takes a number, by command and name: its type and its declaration."""
    from ddpo.cli.main import app

    found = {}

    def walk(group: typer.Typer, above: str) -> None:
        for inner in group.registered_groups:
            assert inner.typer_instance is not None
            walk(inner.typer_instance, f"{above}{inner.name} ")
        for command in group.registered_commands:
            hints = typing.get_type_hints(command.callback, include_extras=True)
            for argument, hint in hints.items():
                plain = getattr(hint, "__origin__", hint)
                types = {plain, *typing.get_args(plain)} & {int, float}
                if types:
                    (option,) = hint.__metadata__
                    name = next(iter(declared(option)), "--" + argument.replace("_", "-"))
                    found[f"{above}{command.name} {name}"] = (types.pop(), option)

    walk(app, "")
    return found


def declared(option: Any) -> tuple[str, ...]:
    """Names of an option; typer keeps the first positional one as a default."""
    first = (option.default,) if isinstance(option.default, str) else ()
    return (*first, *(option.param_decls or ()))


@dataclass
class Declared:
    """What a callback reads of an option."""

    opts: list[str]


def test_every_numeric_option_of_the_program_is_in_the_table() -> None:
    assert set(options()) == set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_takes_numbers_of_its_range_alone(
    option: str, ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    *words, name = option.split()
    kind, declared = options()[option]
    for text in TEXTS:
        try:
            number: int | float | None = kind(text)
        except ValueError:
            number = None
        if number is not None and inside(OPTIONS[option], number):
            assert declared.callback(Declared([name]), number) == number
            continue
        code, _, err = ddpo(*words, f"{name}={text}")
        assert code == 2, (option, text, err)
        assert name in err
        if number is not None and text.isascii() and len(text) < 500:  # out of range
            assert len(err.splitlines()) == 1
            one_line(AssertionError(err.strip()), f"error: {name} must be ")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_billion_iterations_answers_at_once(ddpo: Run, tmp_path: Path) -> None:
    arguments = ("train", "--reward", "darkness", "--dry-run", "--out", tmp_path / "run")
    small = (
        "--set",
        "sample.samples=4",
        "--set",
        "sample.per_prompt=2",
        "--set",
        "optim.updates=1",
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    code, out, err = ddpo(*arguments, *small, "--iterations", 10**9, "--set", "checkpoint_keep=1")
    assert code == 0, err
    assert "1000000000" in out.replace(",", "")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 1024**2  # 1 GiB; a list of a billion integers takes eight
    code, _, err = ddpo(*arguments, *small, "--iterations", 10**12)
    assert code == 2
    assert "500000000000 checkpoints" in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_a_billion_iterations_starts_at_once_or_leaves_nothing(tmp_path: Path) -> None:
    from ddpo.trainer import config_for, train
    from ddpo.trainer.monitoring.events import IterationDone

    values = {
        "reward": "darkness",
        "iterations": 10**9,
        "sample": {"samples": 4, "per_prompt": 2, "batch": 4, "steps": 2},
        "optim": {"updates": 1, "timesteps": 1},
        "checkpoint_every": 10**9,
        "grid_every": 10**9,
    }
    events = train(config_for(values), tmp_path / "run")
    done = next(event for event in events if isinstance(event, IterationDone))
    events.close()
    assert done.metrics.iteration == 1
    refused = train(config_for(values | {"checkpoint_every": 1}), tmp_path / "other")
    with pytest.raises(ConfigError, match=r"too little room: about .* for 1000000000 checkpoints"):
        next(refused)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("every", [1, 2, 3, 7, 100])
def test_the_number_of_checkpoints_to_come_is_that_of_the_list(every: int) -> None:
    from ddpo.trainer.monitoring.estimates import checkpoints_due

    for iterations in range(1, 15):
        for done in range(iterations + 1):
            listed = [
                n for n in range(done + 1, iterations + 1) if n % every == 0 or n == iterations
            ]
            assert checkpoints_due(done, iterations, every) == len(listed)


@pytest.mark.parametrize(
    "sample",
    [
        {"samples": 10**6, "per_prompt": 1, "steps": 1000},
        {"batch": 65536, "steps": 1000},
    ],
)
def test_paths_beyond_the_memory_are_refused_before_anything_is_written(
    sample: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpo.trainer import config_for, train
    from ddpo.trainer.monitoring import estimates

    monkeypatch.setattr(estimates, "total_memory", lambda _: 64 * 10**9)
    config = config_for({"reward": "darkness", "sample": sample, "optim": {"updates": 1}})
    with pytest.raises(ConfigError, match="for the denoising paths alone, and there are 64"):
        next(train(config, tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


INFINITE = ("optim.clip_range", "optim.max_grad_norm", "advantage.clip")


def test_infinite_bounds_clip_nothing_and_are_resumed(tmp_path: Path) -> None:
    from ddpo.trainer import config_for, resume, train

    def run(folder: str, bound: float, iterations: int) -> Path:
        values: dict[str, Any] = {
            "reward": "darkness",
            "iterations": iterations,
            "sample": {"samples": 8, "per_prompt": 4, "batch": 8, "steps": 3},
            "optim": {"updates": 2, "timesteps": 1, "epochs": 2, "clip_range": bound},
            "advantage": {"clip": bound},
        }
        values["optim"]["max_grad_norm"] = bound
        for _ in train(config_for(values), tmp_path / folder):
            pass
        return tmp_path / folder

    def learnt(folder: Path) -> list[tuple[Any, ...]]:
        rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [(row["reward_mean"], row["loss"], row["grad_norm"]) for row in rows]

    infinite = run("infinite", math.inf, 2)
    assert learnt(infinite) == learnt(run("huge", 1e30, 2))
    settings = strict((infinite / "config.json").read_text())
    assert [plain_value(settings, name) for name in INFINITE] == ["inf"] * 3
    strict((infinite / "manifest.json").read_text())
    for _ in resume(infinite, iterations=3):
        pass
    assert learnt(infinite) == learnt(run("whole", math.inf, 3))


def plain_value(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def strict(text: str) -> Any:
    """JSON without NaN and infinity, which RFC 8259 does not have."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", ["-1", "NaN", "1e400", '"inf"', "true", "0.5", "null", "9" * 30])
def test_a_damaged_number_of_a_run_is_named_before_it_is_resumed(
    value: str, tmp_path: Path
) -> None:
    from ddpo.trainer import config_for, resume, train

    values = {
        "reward": "darkness",
        "iterations": 1,
        "sample": {"samples": 2, "per_prompt": 2, "batch": 2, "steps": 2},
        "optim": {"updates": 1, "timesteps": 1},
    }
    for _ in train(config_for(values), tmp_path / "run"):
        pass
    file = tmp_path / "run" / "config.json"
    file.write_text(re.sub(r'"iterations": 1\b', f'"iterations": {value}', file.read_text()))
    with pytest.raises(CheckpointError, match=r"config\.json is damaged") as caught:
        next(resume(tmp_path / "run"))
    one_line(caught.value, "config.json")


def test_more_images_than_a_command_can_hold_are_refused(
    ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = ddpo("sample", "a cat", "a dog", "--per-prompt", 10**6)
    assert (code, err.count("\n")) == (2, 1)
    assert "--per-prompt times the 2 prompts must be at least 1 and at most 1,000,000" in err
    code, _, err = ddpo("rewards", "bench", "darkness", "--per-round", 10**5, "--size", 16384)
    assert (code, err.count("\n")) == (2, 1)
    assert "--per-round × --size × --size" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "condition",
    [
        *(
            f"animals.gain < {bound}"
            for bound in ("nan", "inf", "-inf", "1e400", "-1e999", "", "x")
        ),
        *("animals.gain <", "< 0", "", " ", "0 < animals.gain < 1", "animals.gain < 0 < 1"),
        *(".gain < 0", "animals. < 0", "animals.gain. < 0", "gain < 0", "animals.gain == 0"),
        *("reading >= nan", "reading >= 1", "animals.gains < 0", "animals.gain < 0 0"),
    ],
)
def test_a_condition_without_an_answer_is_refused_before_the_work(
    condition: str, ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = ddpo("eval", "--checkpoint", "missing", f"--fail-if={condition}")
    assert (code, err.count("\n")) == (2, 1)
    assert "the condition" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spec",
    [
        *("darkness:1e400", "darkness:1e13", "darkness:-1e300", "darkness:nan", "darkness:inf"),
        *("darkness:clamp=nan..1", "darkness:clamp=..1e400", "darkness:clamp=0..1e300"),
        *("darkness:clamp=1..0", "vendi:order=nan", "vendi:features=pixels,order=-inf"),
        *("diversity_lpips:side=1000000000", "diversity_lpips:side=nan", "diversity_lpips:side=-1"),
        *(f"diversity_lpips:side={'9' * 5000}", "diversity_lpips:side=1e400"),
    ],
)
def test_a_reward_with_an_odd_number_is_refused(spec: str) -> None:
    from ddpo.rewards.zoo import make_reward

    with pytest.raises(UserError) as caught:
        make_reward(spec)
    one_line(caught.value, spec.partition(":")[0])


def test_a_reward_with_an_odd_number_of_python_is_refused() -> None:
    from ddpo.rewards.zoo import resolve

    for side in (math.nan, math.inf, 0.5, 10**400, "", None, []):
        with pytest.raises(ConfigError, match="'side' must be int"):
            resolve("diversity_lpips", side=side)
    for order in (math.nan, 10**400, "", None, []):
        with pytest.raises(ConfigError, match="'order' must be float"):
            resolve("vendi", order=order)


@pytest.mark.parametrize("order", [200.0, 1e4, 1e300, math.inf])
def test_a_high_order_of_vendi_has_its_limit(order: float) -> None:
    """1 / the largest share in the limit; (Σ λ^q)^(1/(1-q)) of equal shares is their number."""
    import torch

    from ddpo.rewards.models.vendi import vendi_score

    assert vendi_score(torch.eye(64), order) == pytest.approx(64)


def test_no_time_limit_is_infinity(tmp_path: Path) -> None:
    import torch

    from ddpo.rewards.scoring.scorer import Scorer
    from ddpo.rewards.zoo import make_reward
    from ddpo.types import ImageBatch, Prompt

    batch = ImageBatch(torch.zeros(1, 3, 8, 8), (Prompt("a"),))
    for limit in (math.inf, 1e300, 10**400, 1e12, 600, None):
        scorer = Scorer(make_reward("darkness"), calls=Calls(timeout_s=limit))
        assert scorer.score(batch).values.tolist() == [0.0]


@pytest.mark.parametrize("text", TEXTS)
def test_the_limit_of_the_cache_is_a_number_or_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpo.rewards.cache import ScoreCache

    monkeypatch.setenv("DDPO_CACHE_LIMIT_MB", text)
    try:
        number = float(text) if text.strip() else 1024.0  # empty is unset
    except ValueError:
        number = math.nan
    if inside("(0, 1000000000]", number):
        assert ScoreCache(tmp_path / "x").limit_bytes == int(number * 2**20)
    else:
        with pytest.raises(ConfigError, match="megabytes"):
            ScoreCache(tmp_path / "x")


def test_a_recipe_with_an_integer_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    from ddpo.trainer.recipe import read_recipe

    for text in ("seed = " + "9" * 5000, "seed = " + "[" * 20000):
        file = tmp_path / "r.toml"
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_recipe(file)
        one_line(caught.value, "r.toml")


def test_checkpoints_beyond_a_million_iterations_stay_in_order(tmp_path: Path) -> None:
    from ddpo.policies.checkpoints.folder import checkpoint_folders
    from ddpo.trainer.run.checkpoints import prune

    for iteration in (2, 999_998, 999_999, 1_000_000, 10_000_001):
        folder = tmp_path / f"iteration-{iteration:06d}"
        folder.mkdir()
        (folder / "policy.json").write_text("{}")
    names = [folder.name for folder in checkpoint_folders(tmp_path)]
    assert names[-2:] == ["iteration-1000000", "iteration-10000001"]
    prune(tmp_path, 1)
    assert [folder.name for folder in tmp_path.iterdir()] == ["iteration-10000001"]
