"""A third-party package, installed by pip beside broken ones: listed, shown, scored, trained on."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ddpo.rewards.fixtures import draw_fixture
from tests.warm_start import run_ddpo

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "reward_plugin" / "my_reward.py"
ABSENT = "library_that_nobody_has"
BROKEN = {
    "broken/missing-dependency": f"it needs the Python module {ABSENT}, which is not installed",
    "broken/missing-own-module": "its own module ddpo_broken_plugin.forgotten does not exist",
    "broken/no-such-module": "its own module ddpo_broken_plugin.nowhere does not exist",
    "broken/no-such-card": "has no attribute 'NO_CARD'",
    "broken/not-a-card": "it is a dict, not a RewardCard",
    "broken/other-id": "its card has the id 'broken/somebody-else'",
    "broken/exits": "SystemExit: goodbye",
    "broken/newer": "is made for API 2, this ddpo has 1: upgrade ddpo",
    "broken/unknown-field": "unexpected keyword argument 'differentable'",
}
CONTESTED = "broken/contested"
DOCTOR = {
    "broken/missing-dependency": (
        "import error",
        f"it needs the Python module {ABSENT}, which is not installed",
    ),
    "broken/missing-own-module": (
        "import error",
        "its own module ddpo_broken_plugin.forgotten does not exist",
    ),
    "broken/no-such-module": (
        "import error",
        "its own module ddpo_broken_plugin.nowhere does not exist",
    ),
    "broken/exits": ("import error", "SystemExit: goodbye"),
    "broken/kills": ("import error", "its import ended the process (exit code 3)"),
    "broken/no-such-card": ("bad card", "has no attribute 'NO_CARD'"),
    "broken/not-a-card": ("bad card", "it is a dict, not a RewardCard"),
    "broken/other-id": ("bad card", "its card has the id 'broken/somebody-else'"),
    "broken/unknown-field": (
        "bad card",
        "ddpo knows no field 'differentable' on a card: it is misspelt, or from a newer ddpo",
    ),
    "broken/nothing": ("bad card", "its load='ddpo_broken_plugin:Nothing' names nothing"),
    "broken/no-code": ("bad card", "is a dict, which makes no reward"),
    "broken/newer": ("newer API", "is made for API 2, this ddpo has 1: upgrade ddpo"),
    "broken/lazy": (
        "extra missing",
        f'{ABSENT}, which is not installed: pip install "ddpo-broken-plugin[gpu]"',
    ),
    "compressibility": (
        "claimed twice",
        "ddpo has a reward of this name, which is the one that is used",
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages installed by pip, offline."""
    folder = tmp_path_factory.mktemp("plugins")
    for name in ("plugin_package", "broken_plugin_package", "rival_plugin_package"):
        # a copy, since building leaves files in the source folder
        shutil.copytree(ROOT / "tests" / name, folder / name)
        options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
        options += ["--disable-pip-version-check", "--root-user-action=ignore"]
        options += ["--target", str(folder / "site")]
        command = [sys.executable, "-m", "pip", "install", *options, str(folder / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "site"


def rewards(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return ddpo(site, "rewards", *arguments)


def ddpo(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return run_ddpo(*arguments, env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"})


def test_listed_beside_the_builtins_and_broken_ones_with_distribution_and_cause(site: Path) -> None:
    done = rewards(site, "list", "--json")
    assert done.returncode == 0, done.stderr
    records = {record["id"]: record for record in json.loads(done.stdout)}
    assert records["test/sharpness"]["origin"] == "ddpo-test-plugin 1.2.3"
    assert records["compressibility"]["origin"] == "ddpo"
    assert "broken" not in records["compressibility"]
    assert {name for name, record in records.items() if "broken" in record} == {*BROKEN, CONTESTED}
    for name, cause in BROKEN.items():
        assert records[name]["broken"].startswith(
            f"reward {name!r} of ddpo-broken-plugin 0.0.1 is broken: "
        )
        assert cause in records[name]["broken"]
    claims = records[CONTESTED]["broken"].partition("is claimed by ")[2].partition(":")[0]
    claimants = sorted(claims.split(" and by "))
    assert claimants == ["ddpo-broken-plugin 0.0.1", "ddpo-rival-plugin 2.0"]
    table = rewards(site, "list")
    assert table.returncode == 0
    assert "test/sharpness" in table.stdout
    assert table.stdout.count("broken  ") == len(BROKEN) + 1


def test_shown_by_its_name(site: Path) -> None:
    done = rewards(site, "show", "test/sharpness")
    assert done.returncode == 0, done.stderr
    assert "variance of the Laplacian" in done.stdout
    assert "origin:ddpo-test-plugin 1.2.3" in done.stdout


def test_scored_by_its_name_as_its_card_promises(site: Path, tmp_path: Path) -> None:
    known = {"black": 0.0, "gradient": 0.461596, "noise": 49081.354518}
    for name in known:
        Image.fromarray(draw_fixture(name)).save(tmp_path / f"{name}.png")
    done = rewards(site, "score", "test/sharpness", tmp_path, "--out", tmp_path / "scores.jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert {Path(row["file"]).stem: row["score"] for row in rows} == pytest.approx(known, rel=1e-5)
    done = rewards(site, "score", "test/sharpness:scale=2", tmp_path / "gradient.png")
    assert float(done.stdout.split()[0]) == pytest.approx(2 * 0.461596, abs=1e-4)


def test_checked_by_its_name(site: Path) -> None:
    done = rewards(site, "check", "test/sharpness", "--json")
    results = {result["name"]: result["outcome"] for result in json.loads(done.stdout)}
    assert done.returncode == 0, results
    for check in ("light-listing", "golden-scores", "batch-invariance"):
        assert results[check] == "passed"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("test/sharpnes", "did you mean 'test/sharpness'?"),
        ("test/sharpness:scael=2", "did you mean 'scale'?"),
        ("broken/exits", "is broken: ddpo_broken_plugin/exits.py:3: SystemExit: goodbye"),
        ("broken/lazy", 'which is not installed: pip install "ddpo-broken-plugin[gpu]"'),
    ],
)
def test_mistakes_are_one_line(site: Path, tmp_path: Path, spec: str, message: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    done = rewards(site, "score", spec, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_doctor_names_distribution_and_cause_of_each(site: Path) -> None:
    names = ["test/sharpness", "darkness", CONTESTED, *DOCTOR]
    done = rewards(site, "doctor", "--json", *names)
    assert done.returncode == 1, done.stderr
    records = json.loads(done.stdout)
    found = {
        (record["reward"], record["origin"]): (record["status"], record["detail"])
        for record in records
    }
    # two packages have the contested one, and ddpo and a plug-in have compressibility
    assert len(found) == len(records) == len(names) + 2
    for name, (status, detail) in DOCTOR.items():
        reported = found[name, "ddpo-broken-plugin 0.0.1"]
        assert reported[0] == status, (name, reported)
        assert detail in reported[1]
    assert found["test/sharpness", "ddpo-test-plugin 1.2.3"] == ("ok", "")
    assert found["darkness", "ddpo"] == found["compressibility", "ddpo"] == ("ok", "")
    assert found[CONTESTED, "ddpo-rival-plugin 2.0"] == (
        "claimed twice",
        "ddpo-broken-plugin 0.0.1 claims it too: uninstall one of them",
    )
    assert found[CONTESTED, "ddpo-broken-plugin 0.0.1"] == (
        "claimed twice",
        "ddpo-rival-plugin 2.0 claims it too: uninstall one of them",
    )


def test_the_doctor_is_content_with_a_good_plugin(site: Path) -> None:
    done = rewards(site, "doctor", "test/sharpness")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 rewards can be loaded" in done.stdout
    assert "ddpo-test-plugin 1.2.3" in done.stdout


def test_the_environment_chooses_the_plugins(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPO_PLUGINS", "ddpo_test_plugin,ddpo-rival-plugin")
    records = json.loads(rewards(site, "list", "--json").stdout)
    others = [record for record in records if record["origin"] != "ddpo"]
    assert {record["id"] for record in others} == {"test/sharpness", CONTESTED}
    # with one claimant left, the contested one is sound
    assert not any("broken" in record for record in others)


@pytest.mark.slow
@pytest.mark.parametrize(
    "reward", ["test/sharpness:scale=2", f"{EXAMPLE}:MyReward"], ids=["package", "file"]
)
def test_trains_by_its_name_and_from_a_file(
    site: Path, tiny_model: Path, tmp_path: Path, reward: str
) -> None:
    arguments = ["--reward", reward, "--model", tiny_model, "--iterations", 2]
    arguments += ["--out", tmp_path / "run"]
    for setting in ("samples=4", "per_prompt=2", "steps=2", "batch=4"):
        arguments += ["--set", f"sample.{setting}"]
    for setting in ("updates=1", "timesteps=1"):
        arguments += ["--set", f"optim.{setting}"]
    done = ddpo(site, "train", *arguments)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]
    assert all(math.isfinite(line["reward_mean"]) and line["reward_mean"] > 0 for line in lines)
    signature = json.loads((tmp_path / "run" / "manifest.json").read_text())["reward"]["signature"]
    name = "test/sharpness" if "sharpness" in reward else "my_contrast"
    assert signature.startswith(f"reward:{name}|")
