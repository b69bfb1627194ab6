"""The README and docs/rewards.md tell the truth: tables are made from the cards, links lead somewhere, the README's reward scores."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from ddpo.rewards.catalog import CARDS

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/rewards.md", "docs/other-trainers.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "blocks"), [("README.md", ["rewards"]), ("docs/rewards.md", ["rewards", "facts"])])
def test_the_tables_of_rewards_are_fresh(page: str, blocks: list[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    with_tables = runpy.run_path(str(ROOT / "tools" / "readme_table.py"))["with_tables"]
    assert with_tables(text) == text, "run: python tools/readme_table.py"
    for block in blocks:
        table = text.partition(f"<!-- {block}:begin -->")[2].partition(f"<!-- {block}:end -->")[0]
        assert re.findall(r"\n\| `(\w+)` \|", table) == list(CARDS)


def test_the_page_of_each_reward_is_fresh() -> None:
    pages = runpy.run_path(str(ROOT / "tools" / "readme_table.py"))["card_pages"]()
    found = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reward-cards").iterdir()}
    assert found == pages, "run: python tools/readme_table.py"
    assert set(pages) == {f"{name}.md" for name in CARDS}


def test_stale_tables_are_rewritten_and_the_rest_is_left_alone() -> None:
    with_tables = runpy.run_path(str(ROOT / "tools" / "readme_table.py"))["with_tables"]
    text = with_tables("before\n<!-- facts:begin -->\nold\n<!-- facts:end -->\nafter\n")
    assert text.startswith("before\n<!-- facts:begin -->\n| reward | scale |")
    assert text.endswith("<!-- facts:end -->\nafter\n")
    assert "old" not in text


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for found in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", text) for link in found if link and "://" not in link]
    assert links
    anchors = {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
    files = [link for link in links if not link.startswith("#")]
    assert [link for link in files if not (ROOT / page).parent.joinpath(link.partition("#")[0]).exists()] == []
    assert [link for link in links if link.startswith("#") and link[1:] not in anchors] == []


def test_every_reward_is_in_the_table_of_choices() -> None:
    page = (ROOT / "docs/rewards.md").read_text(encoding="utf-8")
    choices = page.partition("## Which one")[2].partition("\n## ")[0]
    assert [name for name in CARDS if f"`{name}`" not in choices] == []
    assert [name for name in re.findall(r"\| `([a-z_]+)` \|", page) if name not in CARDS] == []


def test_the_reward_of_the_readme_scores(tmp_path: Path) -> None:
    import numpy as np

    from ddpo.images import from_uint8
    from ddpo.rewards.zoo import make_reward
    from ddpo.types import ImageBatch, Prompt

    source = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "def redness" in block)
    (tmp_path / "my_reward.py").write_text(source)
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    pixels[1, ..., 0] = 255
    output = make_reward(f"{tmp_path / 'my_reward.py'}:redness")(ImageBatch(from_uint8(pixels), (Prompt("a"), Prompt("b"))))
    assert output.values.tolist() == [0.0, 1.0]
