"""Prompts longer than a text encoder; the embedded model reads 14 tokens besides start and end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddpo.errors import PromptError
from ddpo.policies import load_policy
from ddpo.policies.base_model import open_model
from ddpo.policies.prompt_reader import PromptReader, check_prompts, find_reader

Run = Callable[..., tuple[int, str, str]]

LONG = "a cat" + " and a dog" * 10
SMALL = [
    "--reward",
    "darkness",
    "--set",
    "sample.samples=4",
    "--set",
    "sample.per_prompt=2",
    "--set",
    "sample.steps=2",
    "--set",
    "optim.timesteps=1",
    "--set",
    "optim.updates=1",
    "--set",
    "sample.batch=4",
]


@pytest.fixture(scope="module")
def reader() -> PromptReader:
    return PromptReader(open_model("emoji"))


def test_short_prompts_are_read_whole(reader: PromptReader) -> None:
    assert (reader.length, reader.kept) == (16, 14)
    assert check_prompts(reader, ["a cat", "", "a dog and a cat", "a cat"]) is None


@pytest.mark.parametrize("count", [15, 16, 40])
def test_the_end_that_is_not_read_is_reported(reader: PromptReader, count: int) -> None:
    """Each "cat" is one token."""
    assert len(reader.read("cat")[0]) == 1
    cut = check_prompts(
        reader, [" ".join(["cat"] * 14), " ".join(["cat"] * 13 + ["dog"] * (count - 13))]
    )
    assert cut is not None
    assert next(iter(cut.ends.values())).split() == ["dog"] * (count - 14)
    assert "1 of 2 prompts is cut: the model reads 14 tokens" in str(cut)


@pytest.mark.parametrize(
    "texts",
    [
        [LONG + " red", LONG + " blue"],
        [LONG, LONG + " red"],
        ["a cat", LONG + " x", "a dog", LONG + " y"],
        [LONG.upper(), LONG],
    ],
)
def test_two_prompts_that_become_one_are_an_error(reader: PromptReader, texts: list[str]) -> None:
    with pytest.raises(PromptError, match="two prompts are one to it") as caught:
        check_prompts(reader, texts)
    assert "\n" not in str(caught.value)


def test_what_is_read_is_what_the_policy_encodes(reader: PromptReader) -> None:
    """Equal conditioning, equal tokens, and the other way round."""
    policy = load_policy("emoji")
    texts = [LONG + " red", LONG + " blue", "a cat", "a dog"]
    for one in texts:
        for other in texts:
            same = torch.equal(policy.encode([one]), policy.encode([other]))
            assert same is (reader.read(one) == reader.read(other))


@pytest.mark.parametrize("length", [None, 1000000000000000019884624838656, 16, 9])
def test_the_length_is_that_of_tokenizer_and_encoder(
    tiny_model: Path, tmp_path: Path, length: int | None
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("model_max_length")
    file.write_text(json.dumps(config | ({} if length is None else {"model_max_length": length})))
    policy = load_policy(str(folder))
    assert policy.reader.length == (9 if length == 9 else 16)
    assert policy.encode(["a cat"]).shape[1] == policy.reader.length


def test_models_without_a_reader(tmp_path: Path) -> None:
    assert find_reader("pkg.module:make") is None
    assert find_reader(str(tmp_path / "gone")) is None
    assert find_reader("emoji") is not None


@pytest.mark.parametrize("command", ["train", "sample"])
def test_the_commands_tell_before_they_begin(ddpo: Run, tmp_path: Path, command: str) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{LONG}\na dog\n")
    if command == "train":
        call: list[object] = [
            "train",
            "--dry-run",
            *SMALL,
            "--prompts",
            prompts,
            "--out",
            tmp_path / "run",
        ]
    else:
        call = [
            "sample",
            "--prompts",
            prompts,
            "--per-prompt",
            1,
            "--steps",
            1,
            "--out",
            tmp_path / "out",
        ]
    code, out, errors = ddpo(*call)
    assert code == 0, errors
    assert "1 of 2 prompts is cut: the model reads 14 tokens" in " ".join((out + errors).split())
    prompts.write_text(f"{LONG} red\n{LONG} blue\n")
    code, out, errors = ddpo(*call[:-1], tmp_path / "other")
    assert (code, "two prompts are one to it" in " ".join(errors.split())) == (2, True)
    assert not (tmp_path / "other").exists()
