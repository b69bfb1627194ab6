"""Reward files with modules beside them: each finds its own, and the program finds none."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest

from ddpo.errors import RewardLoadError, UserError
from ddpo.rewards.cache import ScoreCache
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt
from ddpo.user_code import load_file
from ddpo.user_modules import DEPENDENCIES

BATCH = ImageBatch.of_uint8(np.zeros((1, 8, 8, 3), np.uint8), (Prompt("a"),))

WAYS = {
    "import": "import helper\ndef f(images): return [helper.K]",
    "from": "from helper import K\ndef f(images): return [K]",
    "relative": "from .helper import K\ndef f(images): return [K]",
    "relative module": "from . import helper\ndef f(images): return [helper.K]",
    "lazy": "def f(images):\n    import helper\n    return [helper.K]",
    "lazy relative": "def f(images):\n    from .helper import K\n    return [K]",
    "package": "from lib.inner import K\ndef f(images): return [K]",
    "package name": "import lib.inner\ndef f(images): return [lib.inner.K]",
    "package alias": "import lib.inner as x\ndef f(images): return [x.K]",
    "package member": "from lib import inner\ndef f(images): return [inner.K]",
    "lazy package": "def f(images):\n    from lib.inner import K\n    return [K]",
    "namespace package": "from plain.deep import K\ndef f(images): return [K]",
    "import_module": "import importlib\n"
    "def f(images): return [importlib.import_module('helper').K]",
    "imported import_module": "from importlib import import_module\n"
    "def f(images): return [import_module('lib.inner').K]",
    "relative import_module": "import importlib\n"
    "def f(images): return [importlib.import_module('.helper', __package__).K]",
    "__import__": "def f(images): return [__import__('helper').K]",
    "exec": "def f(images):\n    found = {}\n    exec('from helper import K', found)\n"
    "    return [found['K']]",
    "through a neighbour": "import middle\ndef f(images): return [middle.K]",
    "lazily through a neighbour": "import middle\ndef f(images): return [middle.lazy()]",
    "data file": "from pathlib import Path\n"
    "def f(images): return [int((Path(__file__).parent / 'k.txt').read_text())]",
    "resources of the package": "import importlib.resources\n"
    "def f(images): return [int((importlib.resources.files(__package__) / 'k.txt').read_text())]",
    "resources of a module": "from importlib import resources\nimport lib\n"
    "def f(images): return [int((resources.files(lib) / 'k.txt').read_text())]",
    "get_data": "import pkgutil\ndef f(images): return [int(pkgutil.get_data(__name__, 'k.txt'))]",
    "main": "from helper import K\nif __name__ == '__main__':\n    raise SystemExit\n"
    "def f(images): return [K]",
    "dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass, field\n"
    "from helper import Base\n@dataclass(slots=True)\nclass Own(Base):\n    n: int = 0\n"
    "def f(images): return [Own().k]",
    "pickle": "import pickle\nfrom helper import Base\nclass Own(Base): pass\n"
    "def f(images): return [pickle.loads(pickle.dumps(Own())).k\n"
    "    if isinstance(pickle.loads(pickle.dumps(Base())), Base) else -1]",
    "pickle by plain name": "import pickle\nimport helper\n"
    "def f(images):\n    found = pickle.loads(b'chelper\\nBase\\n(tR.')\n"
    "    return [found.k if type(found) is helper.Base else -1]",
}


def folder_with(place: Path, number: int, code: str) -> Path:
    """A reward file whose neighbours all hold one number."""
    files = {
        "my.py": code,
        "helper.py": "from dataclasses import dataclass\n"
        f"K = {number}\n@dataclass\nclass Base:\n    k: int = {number}\n",
        "lib/__init__.py": "",
        "lib/inner.py": "from .base import K",
        "lib/base.py": "from helper import K",
        "lib/k.txt": str(number),
        "plain/deep.py": "import helper\nK = helper.K",
        "middle.py": "from lib import inner\nK = inner.K\n"
        "def lazy():\n    import late\n    return late.K",
        "late.py": "import helper\nK = helper.K",
        "k.txt": str(number),
    }
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place / "my.py"


def score(reward: object) -> float:
    return float(reward(BATCH).values[0])  # type: ignore[operator]


@pytest.mark.parametrize("way", WAYS)
def test_two_folders_with_equal_names_stay_apart(tmp_path: Path, way: str) -> None:
    one = make_reward(f"{folder_with(tmp_path / 'a', 3, WAYS[way])}:f")
    two = make_reward(f"{folder_with(tmp_path / 'b', 5, WAYS[way])}:f")
    assert [score(one), score(two), score(one)] == [3, 5, 3]
    assert not any(
        str(tmp_path) in str(getattr(module, "__file__", ""))
        for name, module in list(sys.modules.items())
        if not name.startswith("ddpo_user_") and "pickle by" not in way
    )
    assert str(tmp_path / "a") not in sys.path


def test_a_sum_of_both_adds_both(tmp_path: Path) -> None:
    first = folder_with(tmp_path / "a", 3, WAYS["lazy"])
    second = folder_with(tmp_path / "b", 5, WAYS["lazy package"])
    reward = make_reward(f"{first}:f + {second}:f:10")
    assert score(reward) == 3 + 50


def test_two_threads_import_their_own(tmp_path: Path) -> None:
    rewards = [
        make_reward(f"{folder_with(tmp_path / str(number), number, WAYS['lazy'])}:f")
        for number in range(8)
    ]
    found: dict[int, float] = {}

    def work(number: int) -> None:
        found[number] = score(rewards[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(8)}


@pytest.mark.parametrize("way", sorted(set(WAYS) - {"main", "exec"}))
def test_an_edited_neighbour_is_another_identity_and_another_score(
    tmp_path: Path, way: str
) -> None:
    path = folder_with(tmp_path, 3, WAYS[way])
    before = resolve(f"{path}:f")
    assert score(before.make()) == 3
    folder_with(tmp_path, 7, WAYS[way])
    after = resolve(f"{path}:f")
    assert after.identity != before.identity
    assert score(after.make()) == 7
    assert score(resolve(f"{path}:f").make()) == 7


@pytest.mark.parametrize("way", ["lazy", "lazily through a neighbour"])
def test_no_cached_score_is_served_after_a_neighbour_was_edited(tmp_path: Path, way: str) -> None:
    path = folder_with(tmp_path, 3, WAYS[way])
    with ScoreCache(tmp_path / "scores.sqlite", user_code=True) as cache:
        scorers = [make_scorer(resolve(f"{path}:f"), cache=cache) for _ in range(2)]
        assert [float(scorer.score(BATCH).values[0]) for scorer in scorers] == [3, 3]
        assert [scorer.served for scorer in scorers] == [0, 1]
        folder_with(tmp_path, 7, WAYS[way])
        scorer = make_scorer(resolve(f"{path}:f"), cache=cache)
        assert float(scorer.score(BATCH).values[0]) == 7
        assert scorer.served == 0


@pytest.mark.parametrize("way", ["lazy", "lazy package", "import_module"])
def test_a_neighbour_that_is_edited_before_its_late_import_is_refused(
    tmp_path: Path, way: str
) -> None:
    path = folder_with(tmp_path, 3, WAYS[way])
    reward = make_reward(f"{path}:f")
    (tmp_path / "helper.py").write_text("K = 7")
    with pytest.raises(UserError, match=r"helper\.py was changed after the code that imports it"):
        reward(BATCH)
    assert score(make_reward(f"{path}:f")) == 7


def test_files_of_a_folder_share_its_modules(tmp_path: Path) -> None:
    folder_with(tmp_path, 3, WAYS["import"])
    (tmp_path / "other.py").write_text("import helper\ndef g(images): return [helper.K]")
    first = load_file(tmp_path / "my.py", "helper")[0]
    second = load_file(tmp_path / "other.py", "helper")[0]
    assert first is second


def test_library_code_finds_a_neighbour_by_name_while_its_folder_calls(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    code = (
        "import torch, shapes\nfrom pathlib import Path\nimport importlib.resources\n"
        "W = Path(__file__).parent / 'w.pt'\n"
        "def f(images):\n"
        "    found = torch.load(W, weights_only=False)\n"
        "    assert type(found) is shapes.Base\n"
        "    return [found.k + int((importlib.resources.files('numbered') / 'k').read_text())]"
    )
    folders = [tmp_path / name for name in ("a", "b")]
    for place in folders:
        (place / "numbered").mkdir(parents=True)
        (place / "numbered" / "__init__.py").touch()
        (place / "numbered" / "k").write_text("4")
        (place / "shapes.py").write_text("class Base:\n    k = 3\n")
        (place / "my.py").write_text(code)
    path = folders[0] / "my.py"
    shapes = load_file(path, "shapes")[0]
    shapes.Base.__module__ = "shapes"  # as if saved by a script of that folder
    sys.modules["shapes"] = shapes
    torch.save(shapes.Base(), folders[0] / "w.pt")
    del sys.modules["shapes"]
    assert score(make_reward(f"{path}:f")) == 7
    load_file(folders[1] / "my.py", "f")
    with pytest.raises(ImportError, match=r"'shapes' is a module of .* and of .*: import it in"):
        make_reward(f"{path}:f")(BATCH)


def test_no_neighbour_answers_a_library_that_looks_for_a_package(tmp_path: Path) -> None:
    """As transformers does, which would then take a neighbour for an installed package."""
    code = (
        "import importlib.util\n"
        "def f(images): return [float(importlib.util.find_spec('flash_attn') is not None)]\n"
    )
    path = folder_with(tmp_path, 3, code)
    (tmp_path / "flash_attn.py").write_text("")
    assert score(make_reward(f"{path}:f")) == 1
    library = tmp_path / "elsewhere" / "prober.py"
    library.parent.mkdir()
    library.write_text(
        "import importlib.util\n"
        "def probe(name): return importlib.util.find_spec(name) is not None\n"
    )
    sys.path.append(str(library.parent))
    try:
        (tmp_path / "my.py").write_text(
            "import prober\ndef f(images): return [float(prober.probe('flash_attn'))]\n"
        )
        assert score(make_reward(f"{path}:f")) == 0
    finally:
        sys.path.remove(str(library.parent))
        importlib.invalidate_caches()


def test_a_file_called_like_a_package_that_it_imports_gets_the_package(tmp_path: Path) -> None:
    for name in ("json", "torch", "pytest"):
        path = tmp_path / f"{name}.py"
        path.write_text(f"import {name}\ndef f(images): return [float(len({name}.__name__))]\n")
        assert score(make_reward(f"{path}:f")) == len(name)


@pytest.mark.parametrize("name", ["my-reward.py", "my reward.py", "v1.2.py", "2nd.py", "import.py"])
def test_a_file_name_need_not_be_a_python_name(tmp_path: Path, name: str) -> None:
    folder_with(tmp_path, 3, "")
    (tmp_path / name).write_text(WAYS["dataclass"])
    assert score(make_reward(f"{tmp_path / name}:f")) == 3


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("from helper import absent", "my.py:1: ImportError: cannot import name 'absent' from"),
        ("import lib.absent", "its own module lib.absent does not exist"),
        ("from .absent import K", "its own module absent does not exist"),
        ("import absent_module", "it needs the Python module absent_module, which is not"),
        ("from .. import helper", "my.py:1: ImportError: attempted relative import beyond"),
        ("import helper\nhelper.Base.none", "type object 'Base' has no attribute 'none'"),
        ("import helper\nraise ValueError(helper.Base)", "my.py:2: ValueError: <class 'helper.B"),
    ],
)
def test_errors_have_plain_names(tmp_path: Path, code: str, line: str) -> None:
    path = folder_with(tmp_path, 3, code)
    with pytest.raises(RewardLoadError) as caught:
        load_file(path, "f")
    assert line in str(caught.value)
    assert "ddpo_user_" not in str(caught.value)


SHADOWS = (
    *("types", "json", "torch", "numpy", "random", "logging", "typing", "PIL", "transformers"),
    *("triton", "flash_attn", "bitsandbytes", "rich", "typer", "huggingface_hub", "secrets"),
    *("sklearn", "cv2", "yaml", "requests", "pandas", "torchvision", "dataclasses", "ddpo"),
)


@pytest.mark.parametrize("where", ["", "place"])
def test_names_of_installed_packages_do_no_harm(tmp_path: Path, where: str) -> None:
    """Every neighbour raises when it is imported, and the program works."""
    place = tmp_path / "place"
    place.mkdir()
    for name in SHADOWS:
        (place / f"{name}.py").write_text("raise RuntimeError('a neighbour was imported')\n")
    (place / "my.py").write_text(
        "import json, types, random\nimport numpy as np\nimport torch\nfrom PIL import Image\n"
        "def f(images):\n    import pandas\n"
        "    return torch.from_numpy(np.asarray(images)).float().mean((1, 2, 3))\n"
    )
    from PIL import Image

    Image.new("RGB", (8, 8), (9, 9, 9)).save(place / "a.png")
    folder = tmp_path / where
    words = [f"./{(place / 'my.py').relative_to(folder)}:f", str(place / "a.png"), "--json"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ddpo", "rewards", "score", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "9.0" in done.stdout


def test_the_protected_packages_are_those_that_ddpo_needs() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"]]
    needed += [
        line for name, lines in extras.items() if name not in ("dev", "docs") for line in lines
    ]
    wanted = {line.replace(">", " ").replace(";", " ").split()[0].lower() for line in needed}
    plain = {name.replace("-", "_") for name in wanted}
    known = {
        module
        for module, distributions in packages_distributions().items()
        if not module.startswith("_")
        and {d.lower().replace("-", "_") for d in distributions} & plain
    }
    assert known - DEPENDENCIES == set()
