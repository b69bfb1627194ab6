"""Algorithms train the models that the documentation says, resume exactly and export their LoRA."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ddpo.errors import ConfigError
from tests.trainer.support_matrix import (
    ALGORITHMS,
    FAMILIES,
    FLOWS,
    ODE,
    REFUSED,
    TRAINED,
    WITHOUT_NOISE,
    TinyModels,
    markdown,
)

PAGE = Path(__file__).parents[2] / "docs" / "algorithms.md"
COLUMNS = (*FAMILIES, WITHOUT_NOISE)


@pytest.fixture(scope="module")
def models(tiny_model: Path, tiny_xl: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return TinyModels(tiny_model, tiny_xl, tmp_path_factory.mktemp("models"))


def documented() -> dict[tuple[str, str], str]:
    """The outcome of each algorithm and column in the table of the page."""
    text = PAGE.read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- models:begin -->\n(.*?)<!-- models:end -->", text, re.DOTALL)
    head, _, *rows = ([cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines())
    return {
        (name.strip("`"), column): cell
        for name, *cells in rows
        for column, cell in zip(head[1:], cells, strict=True)
    }


def test_the_table_has_every_pair_and_only_the_ode_refuses() -> None:
    found = documented()
    assert set(found) == {(name, column) for name in ALGORITHMS for column in COLUMNS}
    assert markdown(found) in PAGE.read_text(encoding="utf-8")
    refused = {pair for pair, outcome in found.items() if outcome == REFUSED}
    noisy = set(ALGORITHMS) - {"awm", "rwr", "rwr_sparse"}
    assert refused == {(name, WITHOUT_NOISE) for name in noisy}
    assert set(found.values()) == {TRAINED, REFUSED}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_pair_does_what_the_table_says(
    models: TinyModels, tmp_path: Path, algorithm: str, column: str
) -> None:
    assert models.outcome(algorithm, column, tmp_path / "runs") == documented()[algorithm, column]


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_has_the_images_of_an_exported_lora(
    models: TinyModels, tmp_path: Path, family: str
) -> None:
    model = models.models[family]
    model.outcome(model.config("ddpo_is"), tmp_path)
    model.check_images(tmp_path / "whole", tmp_path / "exported")


def test_the_refusal_names_the_setting_and_what_to_choose(
    models: TinyModels, tmp_path: Path
) -> None:
    model = models.models[next(iter(FLOWS))]
    with pytest.raises(ConfigError, match=r"transition = 'ode'.*'grpo'.*choose flow_sde"):
        model.trained(model.config("grpo", **ODE), tmp_path / "run")
