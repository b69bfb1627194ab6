"""Numbers and names in README and docs are those of the code, and the Python of the pages runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpo import types
from ddpo.cli.evaluate import FAILED
from ddpo.doctor import machine, self_test
from ddpo.eval import EvalConfig, plan
from ddpo.eval.analysis import diversity, hacking, history_fit, noise_floor
from ddpo.eval.generate import sampling, scoring
from ddpo.eval.inputs import held_out, splits
from ddpo.eval.report import data
from ddpo.inputs import folder_prompts, json_rows, text
from ddpo.policies import denoising_probe
from ddpo.prompts import leaks
from ddpo.reward_quality import agreement, edits
from ddpo.rewards import fixtures
from ddpo.rewards.cache import store
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import inputs as check_inputs
from ddpo.rewards.check import reward_under_test as subject
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models import vlm_reward
from ddpo.rewards.scoring import call, scorer
from ddpo.rewards.serve import client, gather, wire
from ddpo.stats import bootstrap, bradley_terry, pairwise
from ddpo.trainer import TrainConfig, grad_scaler
from ddpo.trainer.monitoring import findings
from ddpo.trainer.run import held_out as run_held_out
from ddpo.trainer.run import resume

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[1]
WORDS = {
    2: "two",
    3: "three",
    4: "four",
    5: "five",
    6: "six",
    8: "eight",
    10: "ten",
    12: "twelve",
    16: "sixteen",
}
WEIGHTS = ROOT / "ddpo" / "policies" / "emoji" / "weights"
MEGABYTES = sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) / 1e6
MAY_CHANGE = resume.FREE + resume.ROUNDING
OPTIONS = {option.name: option.default for option in CARDS["alignment"].options}
EQUAL = subject.TOLERANCES

STATED = {
    "README.md": [
        f"{MEGABYTES:.0f} MB [`emoji-scenes`]",
        f"[{len(all_checks())} promises](docs/checks.md)",
        f"[All {len(CARDS)} rewards](docs/zoo.md)",
        f"alone for 20 iterations ({20 * TrainConfig().sample.samples:,} images scored",
        f"{EvalConfig().seeds} images per prompt",
        f"in at most {self_test.BUDGET_S / 60:g} minutes",
    ],
    "docs/checks.md": [
        f"differ by less than {EQUAL['float64']:.0e}".replace("e-0", "e-"),
        (
            f"{EQUAL['float32']:.0e} (float32), {EQUAL['float16']:.0e} (float16) "
            f"or {EQUAL['bfloat16']:.0e} (bfloat16)"
        ).replace("e-0", "e-"),
        f"at {fixtures.SIDE // subject.STRIDE}×{fixtures.SIDE // subject.STRIDE}, "
        f"with {WORDS[len(subject.TEXTS)]} prompts",
        f"golden scores are taken at {fixtures.SIDE}×{fixtures.SIDE}",
        f"({', '.join(subject.PROBE_NAMES)})",
        f"the last {check_inputs.LAST} of {check_inputs.WORDS:,} words",
    ],
    "docs/comparing-rewards.md": [
        f"With fewer than {WORDS[agreement.FEW]} images",
        f"edited in {WORDS[len(edits.EDITS)]} ways",
        f"a black frame over the outer {WORDS[edits.BORDER]} pixels",
    ],
    "docs/comparison-statistics.md": [
        f"interval of {bootstrap.RESAMPLES:,} bootstrap resamples (fixed seed)",
        f"95 % percentile interval of {bootstrap.RESAMPLES:,} bootstrap resamples of prompts",
        f"for each of *{edits.SAME_IMAGE[0]}*, *{edits.SAME_IMAGE[1]}* and *{edits.SAME_IMAGE[2]}*",
        f"dealt into {WORDS[pairwise.FOLDS]} folds",
        f"over {WORDS[bradley_terry.BINS]} bins",
    ],
    "docs/doctor.md": [
        "10⁻⁶ for float64, 10⁻⁴ for float32, 10⁻² for float16, 4 % for bfloat16",
        f"at most {self_test.BUDGET_S / 60:g} minutes",
    ],
    "docs/evaluation-files.md": [
        f"the {WORDS[sampling.CALL]} images that were being sampled, "
        f"or the {WORDS[scoring.BLOCK]} that were being scored",
        f"always called with {WORDS[sampling.CALL]} images",
        f"fixed blocks of {scoring.BLOCK}",
        f"the exit status is {FAILED}",
        f"schema version {data.SCHEMA_VERSION}",
    ],
    "docs/evaluation-metrics.md": [
        f"At most {WORDS[held_out.MOST]} are taken",
        f"take at most {held_out.MOST_MEMORY_MB / 1000:g} GB",
        f"up to {noise_floor.FLOOR_IMAGES} images of the base model",
        f"(signal share ᾱ = {', '.join(map(str, denoising_probe.LEVELS))})",
        f"RMS of 8-bit values / 255 at {diversity.SIDE}×{diversity.SIDE}",
        f"Up to {WORDS[EvalConfig().history]} earlier checkpoints",
        f"Where {WORDS[history_fit.LEAST_POINTS]} checkpoints have a KL",
        f"of {plan.BEST_OF_PROMPTS} training prompts",
        f"fell by {-hacking.WITNESS_WATCH} standard deviations | by {-hacking.WITNESS_STRONG:g} |",
        f"moved by {hacking.DRIFT_WATCH:g} standard deviations | {hacking.DRIFT_STRONG:g} |",
        f"below {hacking.KEPT_WATCH:.0%} of the base model's | {hacking.KEPT_STRONG:.0%} |".replace(
            "%", " %"
        ),
        f"{hacking.KEPT_STRONG * 100:.0f} %, {hacking.ERROR_STRONG} times",
        f"needs {WORDS[hacking.LEAST_KINDS]} kinds of evidence or more",
        f"Holm's p below {hacking.ALPHA}",
    ],
    "docs/evaluation-prompts.md": [
        f"all of them, or {splits.MOST_TRAINING} evenly spread",
        f"|A ∩ B| / |A ∪ B| ≥ {leaks.LEAK_JACCARD}",
    ],
    "docs/gpu-and-memory.md": [
        f"losses are multiplied by {grad_scaler.FIRST:,.0f}",
        f"after {grad_scaler.PATIENCE:,} updates",
    ],
    "docs/input-formats.md": [
        f"nesting of more than {json_rows.MAX_DEPTH} levels",
        f"a prompt of more than {text.MAX_CHARACTERS:,} characters",
        f"up to {WORDS[folder_prompts.ABOVE]} levels above the folder",
    ],
    "docs/score-cache.md": [f"up to `DDPO_CACHE_LIMIT_MB` ({store.DEFAULT_LIMIT_MB:g})"],
    "docs/serving-rewards.md": [
        f"sends up to {client.CALLS.concurrency} requests at once "
        f"and gives one up after {client.CALLS.timeout_s:g} s",
        f"tries again up to {client.CALLS.retries} times",
        f"Where {gather.MOST_WAITING} requests wait",
        f"after {WORDS[scorer.GIVE_UP]} failures in a row",
        f"A call is tried {WORDS[client.CALLS.retries + 1]} times",
    ],
    "docs/serving-protocol.md": [
        f"## The protocol, version {wire.WIRE_VERSION}",
        f"`timeout={OPTIONS['timeout']:g}`",
    ],
    "docs/reward-failures.md": [
        f"sent {WORDS[vlm_reward.SERVER_CALLS.retries + 1]} times: at once, "
        f"then after up to {call.FIRST_PAUSE}, 1 and 2 seconds",
        f"at most {call.LONGEST_PAUSE:g} seconds",
        f"after {WORDS[scorer.GIVE_UP]} images in a row",
    ],
    "docs/run-folder.md": [
        "more than a quarter of the images unscorable",
        f"only {', '.join(MAY_CHANGE[:-1])} and {MAY_CHANGE[-1]} may change",
        f"{WORDS[run_held_out.IMAGES]} images of each prompt of `held_out_prompts` "
        f"(`{TrainConfig().held_out_prompts}`)",
    ],
}


def flowing(page: str) -> str:
    """The text of a page with every run of white space as one space."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    ("page", "words"), [(page, words) for page, several in STATED.items() for words in several]
)
def test_the_numbers_of_the_pages_are_those_of_the_code(page: str, words: str) -> None:
    assert words in flowing(page)


def test_the_powers_of_ten_and_shares_in_words_are_those_of_the_code() -> None:
    assert EQUAL == {"float64": 1e-6, "float32": 1e-4, "float16": 1e-2, "bfloat16": 4e-2}
    assert findings.MANY_UNSCORABLE == 1 / 4


def settings_of(kind: Any, above: str = "") -> list[str]:
    """The names of all settings that a recipe can hold, such as "optim.lr"."""
    names: list[str] = []
    for field in fields(kind):
        value = getattr(kind, field.name)
        names += (
            settings_of(value, f"{field.name}.")
            if is_dataclass(value)
            else [f"{above}{field.name}"]
        )
    return [name for name in names if name != "sources"]


def test_every_setting_is_in_the_table_of_settings_and_every_name_there_is_one() -> None:
    page = (ROOT / "docs" / "training-settings.md").read_text(encoding="utf-8")
    section = page.partition("\n## Meaning\n")[2].partition("\n## ")[0]
    table = section.partition("| setting | what it does |")[2]
    described = [
        name
        for cells in re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", cells)
    ]
    assert sorted(described) == sorted(settings_of(TrainConfig()))


def test_names_of_settings_in_the_pages_exist() -> None:
    known = set(settings_of(TrainConfig()))
    for page in ROOT.glob("docs/*.md"):
        named = re.findall(
            r"`((?:sample|window|optim|advantage|regression|adapt)\.\w+)\b",
            page.read_text(encoding="utf-8"),
        )
        assert set(named) <= known, page.name


def test_every_environment_variable_of_ddpo_is_shown_by_the_doctor_but_secrets() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "ddpo").rglob("*.py")]
    constants = {
        name for source in sources for name in re.findall(r"^(DDPO_\w+)\b", source, re.MULTILINE)
    }
    read = {
        name for source in sources for name in re.findall(r"\"(DDPO_[A-Z_]+)\"", source)
    } - constants
    assert {
        "DDPO_CACHE",
        "DDPO_CACHE_LIMIT_MB",
        "DDPO_OFFLINE",
        "DDPO_PLUGINS",
        "DDPO_REWARD_TOKEN",
    } <= read
    assert read - set(machine.VARIABLES) == {"DDPO_REWARD_TOKEN"}


def python_of(page: str, having: str) -> str:
    """The one block of Python of a page that has a text."""
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL
    )
    (block,) = [block for block in blocks if having in block]
    return str(block)


def test_the_python_about_combinations_scores() -> None:
    white_left = torch.zeros(1, 3, 4, 4)
    white_left[..., :2] = 1
    names: dict[str, Any] = {"batch": types.ImageBatch(white_left, (types.Prompt(""),))}
    exec(python_of("combining-rewards.md", "resolve("), names)
    assert names["output"].values.tolist() == [
        2 * -0.5 - 0.5 * -1.0
    ]  # luma 1/2; every pixel differs by 1 from its mirror image
    assert names["output"].parts["darkness"].tolist() == [-0.5]
    assert names["found"].signature.startswith("reward:")


def test_the_values_in_the_python_about_groups_are_right() -> None:
    lines = python_of("group-rewards.md", "vendi_score(").splitlines()
    names: dict[str, Any] = {}
    stated = []
    for line in lines:
        code, _, comment = line.partition("  # ")
        if re.match(r"\w+\(", code):
            value = float(eval(comment))  # 2/3 or a decimal number
            stated.append((float(eval(code, names)), value))
        else:
            exec(code, names)
    assert len(stated) == 3
    for found, value in stated:
        assert found == pytest.approx(value, abs=0.005)


def test_the_python_about_evaluation_writes_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [
        "sample.samples=8",
        "sample.batch=8",
        "sample.steps=2",
        "optim.timesteps=1",
        "optim.updates=1",
    ]
    settings = [word for setting in small for word in ("--set", setting)]
    assert (
        ddpo("train", "--reward", "darkness", "--iterations", 1, "--out", "runs/my-run", *settings)[
            0
        ]
        == 0
    )
    Path("two.txt").write_text("a cat\na teapot\n", encoding="utf-8")
    block = python_of("evaluation.md", "evaluate(")
    quick = 'seeds=2, prompts=("two.txt",), history=0, best_of=0, held_out=False)'
    assert "seeds=8)" in block
    names: dict[str, Any] = {}
    exec(block.replace("seeds=8)", quick), names)
    assert {(gain.split, gain.reward) for gain in names["report"].gains} >= {
        ("two", "darkness"),
        ("two", "colorfulness"),
    }
    assert "two colorfulness" in capsys.readouterr().out
