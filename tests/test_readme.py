"""The README tells the truth: its table is made from the cards, the files it links to are there, its reward scores."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_rewards_is_fresh() -> None:
    with_table = runpy.run_path(str(ROOT / "tools" / "readme_table.py"))["with_table"]
    assert with_table(README) == README, "run: python tools/readme_table.py"
    assert "| `compressibility` |" in README


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README) for link in link if link and "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


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
