"""`import ddpo` in a notebook: rewards, scores, runs and reports in one line each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddpo
from ddpo.errors import ConfigError, ImageError, PromptError, UnknownNameError, UserError
from ddpo.eval.report.data import Report
from ddpo.types import ImageBatch, Prompt
from tests.api.notebook_html import Parsed

SETTINGS = {
    "sample.samples": 4,
    "sample.per_prompt": 2,
    "sample.steps": 2,
    "sample.batch": 4,
    "optim.updates": 1,
    "optim.timesteps": 1,
}


def redness(images: Any) -> Any:
    """Red level."""
    return images[..., 0].mean((1, 2))


@pytest.fixture
def levels() -> np.ndarray[Any, Any]:
    """uint8 `[2, 12, 16, 3]`: a dark image and a light one."""
    return np.stack([np.full((12, 16, 3), level, np.uint8) for level in (10, 200)])


def test_import_is_light_and_dir_names_the_functions() -> None:
    code = "import ddpo, sys; print('torch' in sys.modules, *dir(ddpo))"
    words = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert words[0] == "False"
    assert {"list_rewards", "load_reward", "score", "train", "evaluate", "load_run"} <= {*words}


def test_list_rewards_is_a_table_by_name() -> None:
    table = ddpo.list_rewards()
    assert table.loc["sharpness", "ready"]
    assert table.loc["aesthetic", "measures"].startswith("LAION aesthetic predictor")
    assert set(ddpo.list_rewards("pixels").family) == {"pixels"}
    with pytest.raises(UnknownNameError, match="did you mean 'pixels'"):
        ddpo.list_rewards("pixel")


def test_every_form_of_an_image_gives_the_same_score(
    levels: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    reward = ddpo.load_reward("darkness")
    path = tmp_path / "a.png"
    image = Image.fromarray(levels[1])
    image.save(path)
    tensor = torch.from_numpy(levels[1]).permute(2, 0, 1)
    forms = [
        path,
        str(path),
        image,
        levels[1],
        levels[1] / 255.0,
        tensor,
        tensor / 255.0,
        levels[1][..., 0],
    ]
    expected = -200 / 255  # by hand: minus the mean level
    for form in forms:
        found = reward(form)
        assert isinstance(found, float)
        assert found == pytest.approx(expected, abs=1e-6)
        assert reward([form, form]).tolist() == pytest.approx([expected, expected], abs=1e-6)
    batches = [levels, torch.from_numpy(levels).permute(0, 3, 1, 2) / 255]
    for batch in batches:
        assert reward(batch).tolist() == pytest.approx([-10 / 255, expected], abs=1e-6)
    assert reward([path, image, levels[0]]).tolist() == pytest.approx(
        [expected, expected, -10 / 255], abs=1e-6
    )


@pytest.mark.parametrize(
    ("images", "prompts", "error", "words"),
    [
        ("two", "a cat", PromptError, "2 images came with one prompt"),
        ("two", ["a cat"], PromptError, "2 images came with 1 prompts"),
        ("one", ["a cat"], PromptError, "one image takes one prompt"),
        ("one", None, PromptError, "pass one prompt per image"),
        ("http://x.org/a.png", "a", ImageError, "is an address"),
        ("missing.png", "a", ImageError, "no such file"),
        (3, "a", ImageError, "got a int"),
        ([3], ["a"], ImageError, "image 0 must be a path"),
        (np.zeros((2, 3, 4, 5, 3)), ["a", "b"], ImageError, "must have the axes"),
        (np.full((4, 4, 3), 7.0), "a", ImageError, "divide levels of 0 … 255 by 255"),
        (np.full((4, 4, 3), np.nan), "a", ImageError, "must be in [0, 1]"),
        (np.zeros((4, 4, 3), np.int64), "a", ImageError, "must be uint8 or float"),
        (np.zeros((0, 4, 3), np.uint8), "a", ImageError, "has no pixels"),
    ],
)
def test_one_where_many_are_meant_is_an_error_that_says_so(
    levels: np.ndarray[Any, Any], images: Any, prompts: Any, error: type[UserError], words: str
) -> None:
    def length(images: Any, prompts: Any) -> list[float]:
        return [float(len(prompt)) for prompt in prompts]

    chosen = levels if isinstance(images, str) and images == "two" else images
    chosen = levels[0] if isinstance(images, str) and images == "one" else chosen
    with pytest.raises(error) as caught:
        ddpo.load_reward(length)(chosen, prompts)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_without_a_score_is_an_error_or_nan(levels: np.ndarray[Any, Any]) -> None:
    def odd(images: Any) -> list[float | None]:
        return [None if image.mean() < 100 else 1.0 for image in images]

    reward = ddpo.load_reward(odd)
    with pytest.raises(ddpo_errors().RewardFailure, match="no score for image 0"):
        reward(levels)
    assert np.isnan(reward(levels, unscorable="nan")).tolist() == [True, False]
    with pytest.raises(ConfigError, match="'raise' or 'nan'"):
        reward(levels, unscorable="zero")


def ddpo_errors() -> Any:
    import ddpo.errors

    return ddpo.errors


def test_score_is_a_table(levels: np.ndarray[Any, Any], tmp_path: Path) -> None:
    for place, level in enumerate(levels):
        Image.fromarray(level).save(tmp_path / f"{place}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    table = ddpo.score(["darkness", redness], tmp_path)
    assert table.columns.tolist() == ["image", "prompt", "darkness", "redness", "error"]
    assert table.darkness[:2].tolist() == pytest.approx([-10 / 255, -200 / 255], abs=1e-6)
    assert table.redness[:2].tolist() == [10.0, 200.0]
    assert table.redness.isna().tolist() == [False, False, True]
    assert "bad.png" in table.error[2]
    in_memory = ddpo.score("darkness", levels, ["a", "b"])
    assert in_memory.prompt.tolist() == ["a", "b"]
    assert in_memory.darkness.tolist() == pytest.approx([-10 / 255, -200 / 255], abs=1e-6)
    with pytest.raises(PromptError, match="came with one prompt"):
        ddpo.score("darkness", tmp_path, "a cat")


def test_a_loaded_reward_keeps_its_options(levels: np.ndarray[Any, Any]) -> None:
    def scaled(images: Any, factor: float = 1.0) -> list[float]:
        return [factor * float(image.mean()) for image in images]

    reward = ddpo.load_reward(scaled, factor=3.0)
    assert reward(levels[0]) == pytest.approx(30.0)
    assert ddpo.score(reward, levels)["scaled"].tolist() == pytest.approx([30.0, 600.0])


def test_short_forms(levels: np.ndarray[Any, Any]) -> None:
    batch = ImageBatch.of_uint8(levels, [Prompt("a <b>cat</b>"), Prompt("dogs" * 40)])
    assert repr(batch) == f"<2 images of 16×12 pixels: 'a <b>cat</b>', '{('dogs' * 40)[:39]}…'>"
    assert "<b>" not in batch._repr_html_()
    reward = ddpo.load_reward("sharpness")
    assert len(repr(reward)) < 100
    assert len(repr(reward.card)) < 100
    assert "known flaws" in reward._repr_html_()


@pytest.mark.slow
def test_a_function_of_a_cell_trains_resumes_and_is_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ddpo.api.runs")
    run = ddpo.train(redness, out=tmp_path / "run", iterations=1, settings=SETTINGS)
    assert capsys.readouterr().out == ""
    assert [text.startswith("iteration 1: reward ") for text in caplog.messages] == [True]
    assert run.config.reward == "ddpo.given:redness"
    seen: list[object] = []
    run.resume(iterations=2, progress=True, observe=seen.append)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"iteration 2: reward \d+(\.\d+)? ± \d+(\.\d+)?, \d+ s", line)
    assert seen
    assert len(caplog.messages) == 1
    again = ddpo.load_run(tmp_path / "run")
    assert again.metrics.index.tolist() == [1, 2]
    assert list(again.checkpoints)[-1] == 2
    assert repr(again) == f"<run {tmp_path / 'run'}: ddpo.given:redness, 2 of 2 iterations>"
    assert "<img" in again._repr_html_()
    (tmp_path / "two.txt").write_text("a cat\na dog\n")
    report = ddpo.evaluate(
        again,
        rewards="darkness",
        prompts=str(tmp_path / "two.txt"),
        seeds=2,
        history=0,
        best_of=0,
        held_out=False,
        progress=True,
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sampling base"
    assert {"scoring redness", "scoring darkness"} < {*lines}
    assert len(lines) == len({*lines})
    gains = report.gains_df()
    assert set(gains.reward) >= {"redness", "darkness"}
    samples = report.samples_df()
    scored = samples[(samples.reward == "darkness") & (samples.split == "two")]
    line = gains[(gains.reward == "darkness") & (gains.split == "two")].iloc[0]
    base, tuned = (scored[scored.model == name].score.mean() for name in ("base", line.model))
    assert (line.base, line.tuned) == pytest.approx((base, tuned))
    assert len(repr(report)) < 300
    _check_html_of_report(report, tmp_path)
    with pytest.raises(ConfigError, match="settings of an evaluation are"):
        ddpo.evaluate(again, sedes=2)


def _check_html_of_report(report: Report, folder: Path) -> None:
    """Pairs of images before and after, the gains as a table, and a link that leads somewhere."""
    html = Parsed(report._repr_html_())
    assert len(html.images) == 8  # two prompts with two seeds each, before and after
    assert [alt.partition(":")[0] for alt in html.alts] == ["before", "after"] * 4
    assert {alt.partition(": ")[2] for alt in html.alts} == {"a cat", "a dog"}
    assert html.rows == 1 + len(report.gains)
    assert [Path(link.removeprefix("file://")).is_file() for link in html.links] == [True]
    assert report.folder is not None
    (report.folder / "samples.parquet").write_bytes(b"no table")
    assert Parsed(report._repr_html_()).images == []


def test_a_changed_function_is_not_resumed_with(tmp_path: Path) -> None:
    def first(images: Any) -> list[float]:
        return [float(image.mean()) for image in images]

    def other(images: Any) -> list[float]:
        return [-float(image.mean()) for image in images]

    other.__name__ = "first"
    run = ddpo.train(
        first, out=tmp_path / "run", iterations=1, settings=SETTINGS, observe=lambda event: None
    )
    ddpo.load_reward(other)  # takes the name
    with pytest.raises(ConfigError, match="first"):
        run.resume(iterations=2)
