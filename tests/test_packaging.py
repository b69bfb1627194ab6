"""The sdist and the wheel: their files, their description, and the program they install."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from tests.installed import ROOT, Distributions, Environment, build_distributions, install

MOST_BYTES = 45_000_000
MOST_SDIST_BYTES = 55_000_000  # with the figures of the docs


def links(text: str) -> Iterator[str]:
    """The targets of all links and images of a Markdown text, in HTML too."""
    from html.parser import HTMLParser

    found: list[str] = []

    class Targets(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if name in ("href", "src"))

    Targets().feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    yield from found


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def environment(
    distributions: Distributions, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    return install(distributions.wheel, tmp_path_factory.mktemp("user"))


def test_twine_accepts_both_files(distributions: Distributions) -> None:
    files = [str(distributions.sdist), str(distributions.wheel)]
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_holds_every_file_of_the_package_and_no_other(
    distributions: Distributions,
) -> None:
    with ZipFile(distributions.wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ddpo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == expected
    assert distributions.wheel.stat().st_size < MOST_BYTES


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "recipes/emoji.toml",
        "prompts/lists/animals.txt",
        "prompts/lists/kinds.toml",
        "policies/emoji/OFL.txt",
        "policies/emoji/words.json",
        "policies/emoji_flow/words.json",
        "policies/emoji_flow/weights/transformer/diffusion_pytorch_model.safetensors",
        "policies/emoji/weights/tokenizer/tokenizer.json",
        "policies/emoji/weights/unet/diffusion_pytorch_model.safetensors",
        "rewards/judges/manifest.json",
        "rewards/judges/captioner/model.safetensors",
        "rewards/judges/captioner/README.md",
        "rewards/judges/sentence_encoder/model.safetensors",
        "rewards/judges/dual_encoder/vocab.json",
        "rewards/judges/aesthetic_head/head.safetensors",
        "rewards/judges/scene_detector/model.safetensors",
        "eval/report/templates/page.html.jinja",
        "eval/report/templates/style.css",
        "labelling/static/label.js",
        "view/static/main.js",
        "web/static/frame.css",
        "rewards/scaffold/templates/package/pyproject.toml.template",
        "rewards/scaffold/templates/model/weights.safetensors",
    ],
)
def test_a_kind_of_data_file_is_in_the_wheel(distributions: Distributions, name: str) -> None:
    with ZipFile(distributions.wheel) as archive:
        assert f"ddpo/{name}" in archive.namelist()


def test_the_sdist_holds_the_sources_of_all_without_caches(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "LICENSE",
        "README.md",
        "Makefile",
        "constraints.txt",
        "docs/README.md",
        "examples/minimal_ddpo.py",
        "pretraining/render.py",
        "ddpo/rewards/judges/captioner/model.safetensors",
        "tests/test_packaging.py",
        "tools/package_readme.py",
    ):
        assert name in names
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []
    assert distributions.sdist.stat().st_size < MOST_SDIST_BYTES


def test_the_readme_has_relative_links_which_the_description_has_not(
    distributions: Distributions,
) -> None:
    def relative(text: str) -> list[str]:
        return [link for link in links(text) if not link.startswith("https://")]

    found = metadata(distributions.wheel)
    description = found.get_payload()
    assert isinstance(description, str)
    assert found["Description-Content-Type"] == "text/markdown"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "docs/zoo.md" in relative(readme)
    assert "docs/figures/report.webp" in relative(readme)
    assert relative(description) == []
    assert "All 31 rewards" in description
    assert "https://arxiv.org/abs/2305.13301" in links(description)


def test_with_an_address_of_the_repository_the_links_lead_there(
    distributions: Distributions, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    subprocess.run(["tar", "-xf", distributions.sdist, "-C", tmp_path / "source"], check=True)
    (source,) = (tmp_path / "source").iterdir()
    project = source / "pyproject.toml"
    address = "https://example.org/lab/ddpo"
    text = project.read_text(encoding="utf-8")
    assert text.count("[project.scripts]") == 1
    urls = f'[project.urls]\nRepository = "{address}"\n\n[project.scripts]'
    project.write_text(text.replace("[project.scripts]", urls), encoding="utf-8")
    (source / "PKG-INFO").unlink()  # of the sdist, whose description hatchling would keep
    description = metadata(build_distributions(source, tmp_path / "built").wheel).get_payload()
    assert isinstance(description, str)
    found = list(links(description))
    assert [link for link in found if not link.startswith("https://")] == []
    assert f"{address}/blob/main/docs/zoo.md" in found
    assert f"{address}/raw/main/docs/figures/report.webp" in found


def test_the_installed_program_works_from_an_empty_folder(
    environment: Environment, tmp_path: Path
) -> None:
    place = environment.run("python", "-c", "import ddpo; print(ddpo.__file__)", cwd=tmp_path)
    assert Path(place.stdout.strip()).is_relative_to(environment.packages)
    version = environment.run("ddpo", "--version", cwd=tmp_path)
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.strip() == metadata_version(environment)
    listing = environment.run("ddpo", "rewards", "list", "--json", cwd=tmp_path)
    assert (listing.returncode, listing.stderr) == (0, "")
    assert '"sharpness"' in listing.stdout
    doctor = environment.run("ddpo", "doctor", cwd=tmp_path)
    assert (doctor.returncode, doctor.stderr) == (0, "")
    assert "rewards are ready" in doctor.stdout
    assert list(tmp_path.iterdir()) == []
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    score = environment.run("ddpo", "rewards", "score", "colorfulness", "red.png", cwd=tmp_path)
    assert (score.returncode, score.stderr) == (0, "")
    # Hasler and Süsstrunk's M of one colour: no spread, so 0.3 √(255² + 127.5²)
    assert f"{0.3 * (255**2 + 127.5**2) ** 0.5:.4f}" in score.stdout


def metadata_version(environment: Environment) -> str:
    (found,) = environment.packages.glob("ddpo-*.dist-info")
    return found.name.removeprefix("ddpo-").removesuffix(".dist-info")


def test_the_installed_package_is_the_tested_one(environment: Environment, tmp_path: Path) -> None:
    assert importlib.util.find_spec("ddpo") is not None
    files = environment.run("pip", "show", "--files", "ddpo", cwd=tmp_path)
    assert files.returncode == 0, files.stderr
    assert "ddpo/py.typed" in files.stdout
    assert f"Location: {environment.packages}" in files.stdout
    unwanted = ("tests/", "pretraining/", "tools/", "docs/")
    lines = [line.strip() for line in files.stdout.splitlines()]
    assert [line for line in lines if line.startswith(unwanted)] == []
