"""Each printed command of the hub's client is parsed by that client, and fetches what is read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from fnmatch import fnmatch
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from ddpo.errors import MissingResourceError
from ddpo.policies import load_policy
from ddpo.weights import fetch_hub_file, fetch_hub_repository

PRINTED = re.compile(r"`(hf .*?)`")
SD15_FILES = {
    "model_index.json": True,
    "unet/config.json": True,
    "unet/diffusion_pytorch_model.safetensors": True,
    "vae/diffusion_pytorch_model.safetensors": True,
    "text_encoder/model.safetensors": True,
    "tokenizer/vocab.json": True,
    "tokenizer/merges.txt": True,
    "scheduler/scheduler_config.json": True,
    "v1-5-pruned.safetensors": False,
    "v1-5-pruned-emaonly.ckpt": False,
    "unet/diffusion_pytorch_model.bin": False,
}
"""Files of a Stable Diffusion repository, and whether the command fetches them."""


def parsed(command: str) -> dict[str, Any]:
    """The arguments of `hf download …` as the installed client parses them."""
    import click
    from huggingface_hub.cli.hf import app
    from typer.main import get_command

    words = shlex.split(command)
    assert words[0] == "hf"
    group: Any = app if hasattr(app, "resolve_command") else get_command(app)
    name, download, rest = group.resolve_command(click.Context(group), words[1:])
    assert name == "download"
    arguments: dict[str, Any] = download.make_context(name, rest).params
    return arguments


def printed(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[str]:
    """The commands of the hub's client in the error of a call that may fetch nothing."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    with pytest.raises(MissingResourceError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return PRINTED.findall(str(caught.value))


def test_the_client_is_installed_with_ddpo() -> None:
    scripts = {entry.name for entry in distribution("huggingface-hub").entry_points}
    assert "hf" in scripts
    requirements = distribution("ddpo").requires or []
    assert any(re.match(r"huggingface[-_]hub\b(?!.*extra)", one) for one in requirements)


def test_the_parser_refuses_a_wrong_option() -> None:
    with pytest.raises(Exception, match="--revison"):
        parsed("hf download owner/name --revison main")


@pytest.mark.parametrize(("word", "revision"), [("owner/name", None), ("owner/name@fp16", "fp16")])
def test_a_base_model_is_fetched_with_the_files_that_are_read(
    word: str, revision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = printed(lambda: load_policy(word), monkeypatch, tmp_path)
    arguments = parsed(command)
    assert (arguments["repo_id"], arguments["revision"]) == ("owner/name", revision)
    assert not arguments["filenames"]
    for file, wanted in SD15_FILES.items():
        assert any(fnmatch(file, pattern) for pattern in arguments["include"]) == wanted, file


def test_an_incomplete_base_model_has_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (absent,) = printed(lambda: load_policy("owner/name"), monkeypatch, tmp_path)
    base = tmp_path / "models--owner--name"
    snapshot = base / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("0" * 40)
    index = '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "X"]}'
    (snapshot / "model_index.json").write_text(index)
    assert printed(lambda: load_policy("owner/name"), monkeypatch, tmp_path) == [absent]


def test_files_and_repositories_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = printed(
        lambda: fetch_hub_file("owner/name", "a/w.bin", "abc", None, "it"), monkeypatch, tmp_path
    )
    arguments = parsed(command)
    assert list(arguments["filenames"]) == ["a/w.bin"]
    assert (arguments["repo_id"], arguments["revision"]) == ("owner/name", "abc")
    (command,) = printed(
        lambda: fetch_hub_repository("owner/name", "v1", "it"), monkeypatch, tmp_path
    )
    arguments = parsed(command)
    assert (arguments["repo_id"], arguments["revision"]) == ("owner/name", "v1")
    assert not arguments["filenames"]


def test_the_tokenizer_of_an_open_clip_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpo.rewards.models.open_clip import _tokenizer
    from ddpo.rewards.models.open_clip_source import find_source

    source = find_source("ViT-B-16-SigLIP", "webli")
    (command,) = printed(lambda: _tokenizer(source), monkeypatch, tmp_path)
    include = parsed(command)["include"]
    for file in ("tokenizer.json", "tokenizer_config.json", "spiece.model", "vocab.txt"):
        assert any(fnmatch(file, pattern) for pattern in include), file
    assert not any(fnmatch("open_clip_model.safetensors", pattern) for pattern in include)


def test_every_printed_command_is_written_by_a_tested_place() -> None:
    """A new place that prints `hf download` needs a test of its own here."""
    root = Path(__file__).parents[1] / "ddpo"
    places = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "hf download" in path.read_text("utf-8") or '"hf", "download"' in path.read_text("utf-8")
    }
    assert places == {"weights.py", "policies/base_model.py", "rewards/models/open_clip.py"}
