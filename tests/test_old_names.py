"""Old import names: the same module, a warning to the caller, and no cost before they are used."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ddpo.old_names import MOVED, install

CALLER = """
import warnings
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    from ddpo.rewards.scored_files.table import check_table_path
import ddpo.io.tables
import ddpo.rewards.image_files.table as new
import ddpo.rewards.scored_files.table as old
import sys
assert old is new
assert new.__name__ == new.__spec__.name == "ddpo.rewards.image_files.table"
assert sys.modules["ddpo.rewards.scored_files"] is sys.modules["ddpo.rewards.image_files"]
assert check_table_path is ddpo.io.tables.check_table_path
found = {str(one.message): one.filename for one in caught if one.category is DeprecationWarning}
text = "ddpo.rewards.scored_files.table is now called ddpo.rewards.image_files.table"
assert found[text] == __file__, caught
"""


def test_an_old_name_is_the_same_module_and_warns_its_caller(tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(CALLER)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("old", sorted(MOVED))
def test_old_names_lead_to_modules_and_hide_none(old: str) -> None:
    root = Path(__file__).parents[1]
    assert importlib.util.find_spec(MOVED[old]) is not None
    place = root.joinpath(*old.split("."))
    assert not place.with_suffix(".py").exists()
    assert not (place / "__init__.py").exists()


def test_an_old_name_is_an_attribute_of_its_package() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = importlib.import_module("ddpo.tensorfile")
    import ddpo
    from ddpo.io import tensors

    assert module is tensors
    assert ddpo.tensorfile is tensors


def test_a_name_that_never_was_is_not_found() -> None:
    for name in ("ddpo.never", "ddpo.rewards.scorer.never"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)


def test_the_finder_is_installed_once_and_loads_nothing() -> None:
    before = list(sys.meta_path)
    install()
    assert sys.meta_path == before
    code = "import sys; before = set(sys.modules); import ddpo; print(set(sys.modules) - before)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert not {"torch", "numpy", "ddpo.io", "ddpo.rewards"} & set(eval(loaded)), loaded


def test_old_names_of_classes_and_functions() -> None:
    from ddpo.rewards.adapters import image_scorer, picture_scorer
    from ddpo.trainer.advantages import PictureWeights, SampleWeights

    assert picture_scorer is image_scorer
    assert PictureWeights is SampleWeights
