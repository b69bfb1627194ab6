"""Scoring image files with rewards that judge the images of a prompt as a group."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpo.inputs.input_image import InputImage
from ddpo.rewards.groups import ALONE
from ddpo.rewards.image_files import ScoreRow, TableJournal, journal_path, score_groups
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt

SPECS = ("darkness", "vendi:features=pixels", "pareto(darkness,symmetry)")


def noise(
    folder: Path, texts: str, sizes: dict[int, tuple[int, int]] | None = None
) -> list[InputImage]:
    """One image of noise for each letter, which is its prompt; none for a dot."""
    images = []
    for number, text in enumerate(texts):
        height, width = (sizes or {}).get(number, (24, 20))
        array = np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(array).save(folder / f"{number:02}.png")
        images.append(
            InputImage(str(folder / f"{number:02}.png"), None if text == "." else Prompt(text))
        )
    return images


def rows_of(images: list[InputImage], batch_size: int = 2) -> list[tuple[ScoreRow, ...]]:
    return list(score_groups([Scorer(make_reward(spec), 2) for spec in SPECS], images, batch_size))


def test_images_of_equal_prompt_are_one_group_wherever_they_are(tmp_path: Path) -> None:
    texts = "ab.aab.ac"
    images = noise(tmp_path, texts)
    rows = rows_of(images)
    assert [[row.file for row in of_image] for of_image in rows] == [
        [image.file] * 3 for image in images
    ]
    for text in "ab.":
        places = [place for place, other in enumerate(texts) if other == text]
        batch = ImageBatch.of_images(
            [Image.open(images[place].file) for place in places], [Prompt(text)] * len(places)
        )
        for column, spec in enumerate(SPECS):
            due = make_reward(spec)(batch)
            assert [rows[place][column].score for place in places] == pytest.approx(
                due.values.tolist()
            )
        assert {rows[place][1].parts["n"] for place in places} == {len(places)}
    assert (rows[8][1].status, rows[8][1].error) == ("unscorable", f"{images[8].file}: {ALONE}")
    assert rows[8][0].status == "scored"
    assert rows[8][2].score == 0  # first among one


def test_a_broken_file_or_another_size_spoils_its_own_group_only(tmp_path: Path) -> None:
    images = noise(tmp_path, "aaabbbcc", sizes={4: (20, 24)})
    Path(images[1].file).write_bytes(b"no image")
    Path(images[6].file).write_bytes(b"no image")
    rows = rows_of(images)
    statuses = ["".join(row.status[0] for row in of_image) for of_image in rows]
    assert statuses == ["sss", "uuu", "sss", "suu", "suu", "suu", "uuu", "sus"]
    assert rows[0][1].parts["n"] == 2
    assert (
        rows[3][1].error
        == f"{images[3].file}: the images of its prompt are judged together and have 2 sizes"
    )
    assert str(rows[1][1].error).startswith(images[1].file)


def test_the_command_scores_groups_and_begins_anew_when_stopped(
    ddpo: object, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    images = noise(folder, "aabb")
    (tmp_path / "prompts.txt").write_text("a\na\nb\nb\n")
    out = tmp_path / "scores.jsonl"
    arguments = [
        "rewards",
        "score",
        "vendi:features=pixels",
        str(folder),
        "--prompts",
        str(tmp_path / "prompts.txt"),
        "--out",
        str(out),
    ]
    left = ScoreRow(images[0].file, "a", "vendi", "scored", 1.5, None)
    with TableJournal(
        journal_path(out), [resolve("vendi:features=pixels").identity]
    ) as journal:  # of a run that was stopped after one
        journal.append((left,))
    code, text, err = ddpo(*arguments)  # type: ignore[operator]
    assert (code, err.strip()) == (0, "")
    assert "vendi" in text
    found = [
        row["score"]
        for row in map(json.loads, out.read_text("utf-8").splitlines())
        if "score" in row
    ]
    assert len(found) == len(images)
    assert found[0] == found[1] != found[2] == found[3]
    assert all(1 < score < 2 for score in found)
