"""Rows of an evaluation, and `samples.parquet` as somebody else reads it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from analytic import EVIL, Brightness, Redness

from ddpo.errors import ConfigError
from ddpo.eval.generate.samples import (
    Row,
    Sample,
    SignedReward,
    make_rows,
    read_samples,
    write_samples,
)
from ddpo.eval.generate.scoring import Score, ScoreJournal
from ddpo.types import Prompt

HASHES = ("a" * 64, "b" * 64)
REWARDS = [
    SignedReward(card, f"reward:{card.id}|…", f"{card.id}|identity")
    for card in (Brightness.card, Redness.card)
]


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Row, ...]:
    prompt = Prompt(EVIL)
    samples = [
        Sample("base", "mine", prompt, 2**40, HASHES[0]),
        Sample("tuned", "mine", prompt, 2**40, HASHES[1]),
        Sample("folder", "mine", prompt, 7, "", "7.png: cut short"),
    ]
    with ScoreJournal(tmp_path) as journal:
        with pytest.raises(ConfigError, match="was not scored by 'brightness'"):
            make_rows(samples, REWARDS, journal)
        journal.add(
            REWARDS[0].identity,
            REWARDS[0].card,
            [((HASHES[0], prompt), Score(0.1, {"left": 1.5, "right": math.nan}))],
        )
        journal.add(
            REWARDS[0].identity,
            REWARDS[0].card,
            [((HASHES[1], prompt), Score(math.nan, {}, "not allowed"))],
        )
        journal.add(
            REWARDS[1].identity,
            REWARDS[1].card,
            [((HASHES[0], prompt), Score(-2.0, {})), ((HASHES[1], prompt), Score(3.0, {}))],
        )
        return make_rows(samples, REWARDS, journal)


def test_rows_are_images_times_rewards_in_order(rows: tuple[Row, ...]) -> None:
    assert [(row.model, row.reward) for row in rows] == [
        (m, r) for m in ("base", "tuned", "folder") for r in ("brightness", "redness")
    ]
    assert rows[0].image == f"images/aa/{HASHES[0]}.png"
    assert [row.error for row in rows] == [
        None,
        None,
        "not allowed",
        None,
        "7.png: cut short",
        "7.png: cut short",
    ]
    assert [row.score for row in rows[:2]] == [0.1, -2.0]
    assert all(math.isnan(rows[place].score) for place in (2, 4, 5))
    assert (rows[4].image, rows[4].image_sha256) == ("", "")


def test_the_table_comes_back_and_says_run_and_checkpoint(
    rows: tuple[Row, ...], tmp_path: Path
) -> None:
    file = tmp_path / "samples.parquet"
    write_samples(file, rows, {"tuned": ("one", "iteration-000020")})
    assert [repr(row) for row in read_samples(file)] == [
        repr(row).replace("score=0.1,", f"score={0.10000000149011612!r},") for row in rows
    ]
    table = pd.read_parquet(file)
    assert table.loc[2, ["run", "checkpoint", "index", "prompt"]].tolist() == [
        "one",
        "iteration-000020",
        2**40,
        EVIL,
    ]
    assert table.loc[0, ["run", "checkpoint"]].tolist() == ["", ""]
    assert table["score"].isna().tolist() == [False, False, True, False, True, True]
    assert json.loads(table.loc[0, "parts"]) == {"left": 1.5, "right": None}


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(ConfigError, match=r"is not a samples\.parquet"):
        read_samples(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="no such file"):
        read_samples(tmp_path / "b.parquet")
    pd.DataFrame({"score": [1.0]}).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(ConfigError, match=r"is not a samples\.parquet"):
        read_samples(tmp_path / "c.parquet")
