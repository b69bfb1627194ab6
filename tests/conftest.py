"""Shared fixtures: the command line, and tiny random diffusion models in diffusers' format."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.installed import ROOT, Distributions, build_distributions
from tests.tiny_flow_models import write_tiny_sd3
from tests.tiny_unet_models import write_tiny_sd, write_tiny_xl

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ddpo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program in this process: arguments → exit code, standard output, standard error."""
    from ddpo.cli.main import main

    def call(*arguments: object, columns: int = 200) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ddpo", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        code = 0
        capsys.readouterr()  # of what came before
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def folder_of_caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the caches of all tests."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def own_cache(folder_of_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a cache of its own, and leaves the user's alone.

    `tmp_path_factory.mktemp` would list the folders of all tests before, for two milliseconds.
    """
    monkeypatch.setenv("DDPO_CACHE", tempfile.mkdtemp(dir=folder_of_caches))


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The sdist and the wheel of this checkout."""
    return build_distributions(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `StableDiffusionPipeline.save_pretrained`."""
    return write_tiny_sd(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `StableDiffusion3Pipeline.save_pretrained` with all three text encoders."""
    return write_tiny_sd3(tmp_path_factory.mktemp("tiny-sd3"))


@pytest.fixture(scope="session")
def tiny_xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `StableDiffusionXLPipeline.save_pretrained` with the scheduler of SDXL 1.0."""
    return write_tiny_xl(tmp_path_factory.mktemp("tiny-xl"))
