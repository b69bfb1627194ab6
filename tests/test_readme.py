"""README and docs are true: their tables, links, names, rewards and the map of the docs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from pkgutil import resolve_name

import pytest

from ddpo.rewards.cards import CARDS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "ddpo").rglob("README.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rewards_of(text: str, block: str) -> list[str]:
    """The ids in the first column of a generated table."""
    table = text.partition(f"<!-- {block}:begin -->")[2].partition(f"<!-- {block}:end -->")[0]
    return re.findall(r"\n\| \[?`(\w+)`", table)


@pytest.mark.parametrize("page", ["README.md", "docs/zoo.md"])
def test_the_tables_of_rewards_are_fresh(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    with_tables = runpy.run_path(str(ROOT / "tools" / "readme_table.py"))["with_tables"]
    assert with_tables(text) == text, "run: python tools/readme_table.py"


def test_the_zoo_has_every_reward_and_the_readme_eight_of_them() -> None:
    zoo = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert rewards_of(zoo, "rewards") == list(CARDS)
    assert rewards_of(zoo, "facts") == list(CARDS)
    chosen = rewards_of(README, "chosen")
    assert len(set(chosen)) == 8
    assert set(chosen) <= set(CARDS)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130
    assert len(README.split()) <= 900


def test_the_map_has_every_page_once_and_guides_are_short() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    sections = {
        kind: text.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
        for kind in ("Guides", "Reference", "Evidence")
    }
    links = {
        kind: re.findall(r"^\| \[.+?\]\(([\w-]+\.md)\)", section, re.MULTILINE)
        for kind, section in sections.items()
    }
    listed = sorted(name for names in links.values() for name in names)
    assert listed == sorted(
        path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"
    )
    words = {
        name: len((ROOT / "docs" / name).read_text(encoding="utf-8").split())
        for name in links["Guides"]
    }
    assert {name: count for name, count in words.items() if count > 1_200} == {}


def test_each_page_says_whether_it_is_a_guide_a_reference_or_evidence() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for kind, word in (("Guides", "guide"), ("Reference", "reference"), ("Evidence", "evidence")):
        section = text.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
        for name in re.findall(r"^\| \[.+?\]\(([\w-]+\.md)\)", section, re.MULTILINE):
            first = (ROOT / "docs" / name).read_text(encoding="utf-8").split("\n\n")[1]
            assert re.search(rf"\bThis (?:page holds the )?{word}\b", first), name


def test_the_commands_of_the_readme_are_those_of_the_demo() -> None:
    recipe = (
        (ROOT / "Makefile")
        .read_text(encoding="utf-8")
        .replace("$(BIN)/", "")
        .replace("$(DEMO)", "runs/demo")
    )
    commands = re.findall(r"^ddpo (?:train|eval) .*", README, re.MULTILINE)
    assert len(commands) == 2
    assert all(f"\t{command}\n" in recipe for command in commands)


def test_the_citation_is_of_this_version() -> None:
    import yaml

    from ddpo import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2305.13301"


def test_the_page_of_each_reward_is_fresh() -> None:
    pages = runpy.run_path(str(ROOT / "tools" / "readme_table.py"))["card_pages"]()
    found = {
        path.name: path.read_text(encoding="utf-8")
        for path in (ROOT / "docs" / "reward-cards").iterdir()
    }
    assert found == pages, "run: python tools/readme_table.py"
    assert set(pages) == {f"{name}.md" for name in CARDS}


def test_stale_tables_are_rewritten_and_the_rest_is_left_alone() -> None:
    with_tables = runpy.run_path(str(ROOT / "tools" / "readme_table.py"))["with_tables"]
    text = with_tables("before\n<!-- facts:begin -->\nold\n<!-- facts:end -->\nafter\n")
    assert text.startswith("before\n<!-- facts:begin -->\n| reward | scale |")
    assert text.endswith("<!-- facts:end -->\nafter\n")
    assert "old" not in text


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


def dead_links(page: Path, text: str) -> list[str]:
    """The links of a page to files, or headings of files, that are not there."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"src=\"([^\"]+)\"", prose):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (
            anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))
        ):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page, page.read_text(encoding="utf-8")) == []


def test_dead_links_are_noticed() -> None:
    text = (
        '[a](docs/none.md) [b](docs/models.md#none) [c](#none) <img src="docs/none.svg"> '
        "[d](#ddpo) [e](docs/models.md#files) [f](https://example.org)"
    )
    assert dead_links(ROOT / "README.md", text) == [
        "docs/none.md",
        "docs/models.md#none",
        "#none",
        "docs/none.svg",
    ]


def unknown_names(code: str) -> list[str]:
    """The files of this project and the Python names in a piece of code that do not exist."""
    files = re.findall(r"(?<![\w./])(?:ddpo|tests|tools|docs|examples)/[\w./-]+", code)
    return [name for name in files if not (ROOT / name).exists()] + [
        name for name in re.findall(r"(?<![\w./-])ddpo(?:\.\w+)+", code) if not importable(name)
    ]


def importable(name: str) -> bool:
    """Whether a dotted name is a module or what a module has."""
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_python_names_in_code_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = ("ddpo.rewards", "ddpo.algorithms", "ddpo.policies")  # also groups of entry points
    names = [name for code in re.findall(r"`([^`\n]+)`", text) for name in unknown_names(code)]
    assert [name for name in names if name not in known] == []


def test_names_that_are_not_there_are_noticed() -> None:
    assert unknown_names("tests/none.py") == ["tests/none.py"]
    assert unknown_names("ddpo.trainer.none") == ["ddpo.trainer.none"]
    assert unknown_names("ddpo.none.none") == ["ddpo.none.none"]
    assert unknown_names("ddpo.weights.fetch_hub_file and docs/models.md") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_of_make_exist(page: Path) -> None:
    targets = re.findall(
        r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`make ([\w-]+)`|^make ([\w-]+)", text, re.MULTILINE)
    assert [target for pair in named for target in pair if target and target not in targets] == []


def test_every_reward_is_in_the_table_of_choices() -> None:
    page = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    choices = page.partition("## Which one")[2].partition("\n## ")[0]
    assert [name for name in CARDS if f"`{name}`" not in choices] == []
    assert [name for name in re.findall(r"\| `([a-z_]+)` \|", page) if name not in CARDS] == []


def test_the_reward_of_the_readme_scores(tmp_path: Path) -> None:
    import numpy as np

    from ddpo.images import from_uint8
    from ddpo.rewards.zoo import make_reward
    from ddpo.types import ImageBatch, Prompt

    source = next(
        block
        for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        if "def redness" in block
    )
    (tmp_path / "my_reward.py").write_text(source)
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    pixels[1, ..., 0] = 255
    output = make_reward(f"{tmp_path / 'my_reward.py'}:redness")(
        ImageBatch(from_uint8(pixels), (Prompt("a"), Prompt("b")))
    )
    assert output.values.tolist() == [0.0, 1.0]
