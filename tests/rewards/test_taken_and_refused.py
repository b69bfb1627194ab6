"""Every row of the tables of docs/bring-your-reward.md, run."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from ddpo.errors import RewardFailure, UserError
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt

PAGE = Path(__file__).parents[2] / "docs" / "bring-your-reward.md"

HEAD = """\
import asyncio, functools
import numpy as np
import pandas as pd
import torch
"""
FIRST = HEAD.count("\n") + 1  # line of the code
Code = str | tuple[str, str]
"""Code whose object is `f`, or code and the name of the object with options."""

TAKEN: dict[str, list[Code]] = {
    "a list or tuple of numbers": [
        "def f(images): return [2, 3.0]",
        "def f(images): return (True + 1, np.int64(3))",
        "from fractions import Fraction\ndef f(images): return [Fraction(4, 2), np.float16(3)]",
        "def f(images): return [torch.tensor(2.0), torch.tensor([3.0])]",
        "def f(images): return [np.array([2.0]), np.array([[3.0]])]",
    ],
    "a NumPy array of shape (n,) or (n, 1), of any number type": [
        "def f(images): return np.array([2, 3], np.float16)",
        "def f(images): return np.array([2, 3], np.uint8)",
        "def f(images): return np.array([False, True]) + 2",
        "def f(images): return np.array([[2.0], [3.0]])",
        "def f(images): return np.array([2, 3], object)",
    ],
    "a torch tensor with gradient, in bfloat16 or on a device": [
        "def f(images): return torch.tensor([2.0, 3.0], requires_grad=True) * 1",
        "def f(images): return torch.tensor([2, 3], dtype=torch.bfloat16)",
        "def f(images): return torch.tensor([[2.0], [3.0]], dtype=torch.float16)",
        "def f(images): return torch.tensor([2, 3])",
    ],
    "a pandas Series": ["def f(images): return pd.Series([2.0, 3.0], index=[7, 1])"],
    "a generator": [
        "def f(images): return (float(image[..., 0].max()) for image in images)",
        "def f(images):\n    for image in images: yield image[..., 0].max()",
    ],
    "`(scores, info)` or `(scores, None)`": [
        "def f(images): return np.array([2, 3]), {'n': 1}",
        "def f(images): return [2, 3], None",
        "def f(images): return torch.tensor([2, 3]), [{'n': 1}, {'n': 2}]",
    ],
    "a dictionary with one entry, or with a total `avg`": [
        "def f(images): return {'red': [2, 3]}",
        "def f(images): return {'red': [0, 0], 'avg': [2, 3]}",
    ],
    "parameters in any order, or by name only": [
        "def f(metadata, prompts, images): return [m['n'] + len(p) - 1\n"
        "    for m, p in zip(metadata, prompts)]",
        "def f(*, prompts, images): return [len(prompt) for prompt in prompts]",
        "def f(a, b): return [len(text) for text in b]",
    ],
    "positional-only parameters": [
        "def f(images, prompts, /): return [len(prompt) for prompt in prompts]",
        "def f(images, prompts=None, floor=2, /): return [floor, 3] if prompts else None",
    ],
    "`*args` and `**kwargs` after `images`": [
        "def f(images, *args, **kwargs): return [2 + len(args), 3 + len(kwargs)]",
    ],
    "annotations, also as strings": [
        "def f(images: 'np.ndarray', prompts: 'list[Nobody]' = None) -> 'Absent': return [2, 3]",
    ],
    "further parameters with a default": [
        ("def f(images, floor=0.0): return [floor * 2, floor * 3]", "f:floor=1"),
    ],
    "a lambda or a `functools.partial`": [
        "f = lambda images: [2, 3]",
        "def g(scale, images): return [2 * scale, 3 * scale]\nf = functools.partial(g, 1)",
        "def g(images, scale): return [2 * scale, 3 * scale]\nf = functools.partial(g, scale=1)",
    ],
    "a method of an object, `./my.py:scorer.score`": [
        ("class A:\n    def score(self, images): return [2, 3]\nscorer = A()", "scorer.score"),
        ("class A:\n    @staticmethod\n    def score(images): return [2, 3]", "A.score"),
        ("class A:\n    @classmethod\n    def score(cls, images): return [2, 3]", "A.score"),
    ],
    "an object with `__call__`": [
        "class A:\n    def __call__(self, images): return [2, 3]\nf = A()",
    ],
    "a class with `__init__(weights, device)`": [
        (
            "class A:\n    def __init__(self, weights, device): self.w = float(weights)\n"
            "    def __call__(self, images): return [2 * self.w, 3 * self.w]",
            "A:weights=1,device=cpu",
        ),
        (
            "class A:\n    def __init__(self, weights, /, device='cpu'): self.w = float(weights)\n"
            "    def __call__(self, images): return [2 * self.w, 3 * self.w]",
            "A:weights=1,device=cpu",
        ),
    ],
    "a function decorated with `functools.wraps`": [
        "def d(g):\n    @functools.wraps(g)\n"
        "    def w(*args, **kwargs): return g(*args, **kwargs)\n    return w\n"
        "@d\ndef f(images, prompts): return [len(prompt) for prompt in prompts]",
        "def d(g):\n    @functools.wraps(g)\n    def w(images): return g(images, 1)\n    return w\n"
        "@d\ndef f(images, scale): return [2 * scale, 3 * scale]",
    ],
}
UNSCORED = "`None` in place of a score"

REFUSED: dict[str, list[Code]] = {
    "one number for all images": [
        "def f(images): return images.mean()",
        "def f(images): return 0.5",
        "def f(images): return torch.tensor(1.0)",
        "def f(images): return np.array(1)",
    ],
    "an array of shape (n, 3)": [
        "def f(images): return images.mean((1, 2))",
        "def f(images): return torch.zeros(2, 3)",
        "def f(images): return np.zeros((1, 2))",
        "def f(images): return pd.DataFrame({'a': [1, 2], 'b': [1, 2]})",
    ],
    "too few or too many scores": [
        "def f(images): return [1.0]",
        "def f(images): return (1.0 for _ in range(1))",
        "def f(images): return np.zeros((1, 1))",
    ],
    "NaN or infinity": [
        "def f(images): return [float('nan') for _ in images]",
        "def f(images): return np.full(len(images), np.inf)",
    ],
    "a number beyond float32": ["def f(images): return [1e39] * len(images)"],
    "text, or numbers as text": [
        "def f(images): return '12'",
        "def f(images): return b'12'",
        "def f(images): return ['1', '2']",
        "def f(images): return np.array(['1', '2'])",
        "def f(images): return pd.Series(['1', '2'])",
    ],
    "a set": ["def f(images): return {1.0, 2.0}"],
    "nothing": ["def f(images): pass"],
    "several scores without a total": ["def f(images): return {'a': [1, 2], 'b': [1, 2]}"],
    "`async def`": [
        "async def f(images): return [1, 2]",
        "class A:\n    async def __call__(self, images): return [1, 2]\nf = A()",
        "async def f(images):\n    yield 1",
        "async def g(images, scale): return [1, 2]\nf = functools.partial(g, scale=1)",
    ],
    "a function that returns a coroutine": [
        "async def g(images): return [1, 2]\nf = lambda images: g(images)",
    ],
    "a parameter that nothing fills": [
        "def f(images, *, threshold): return [1, 2]",
        "def f(images, prompts, threshold): return [1, 2]",
    ],
    "no parameter for images": [
        "def f(): return [1, 2]",
        "def f(*, size=1): return [1, 2]",
    ],
    "only `*args` and `**kwargs`": [
        "def f(*args, **kwargs): return [1, 2]",
        "def f(*args): return [1, 2]",
        "def f(**kwargs): return [1, 2]",
    ],
    "two names for one input": [
        "def f(images, image=None): return [1, 2]",
        "def f(images, prompts, prompt=''): return [1, 2]",
    ],
    "a method, named through its class": [
        ("class A:\n    def score(self, images): return [1, 2]", "A.score"),
    ],
    "a class whose argument nobody gives": [
        (
            "class Scorer:\n    def __init__(self, weights): pass\n"
            "    def __call__(self, images): return [1, 2]",
            "Scorer",
        ),
    ],
    "a class without `__call__` or `forward`": [("class A: pass", "A")],
    "a function that expects PIL images": [
        "def f(images): return [image.convert('L').width for image in images]",
    ],
    "a function that expects tensors": [
        "def f(images): return images.permute(0, 3, 1, 2).float().mean((1, 2, 3))",
        "def f(images): return torch.nn.functional.interpolate(images, 8)",
    ],
}
PLACELESS = ("class A: pass",)  # there is no function
BATCH = ImageBatch.of_uint8(
    np.array([[[[2, 0, 0]] * 4] * 4, [[[3, 0, 0]] * 4] * 4], np.uint8),
    (Prompt("ab", {"n": 1}), Prompt("abc", {"n": 1})),
)


def rows_of(title: str) -> dict[str, str]:
    """First cell → second cell of the table below a title."""
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", section, re.M)
    return {first: second.strip("` ") for first, second in rows[1:]}


def scores(folder: Path, code: Code) -> list[float]:
    text, name = code if isinstance(code, tuple) else (code, "f")
    path = folder / "mine.py"
    path.write_text(f"{HEAD}{text}\n")
    return Scorer(make_reward(f"{path}:{name}")).score(BATCH).values.tolist()


@pytest.mark.parametrize(
    ("row", "code"), [(row, code) for row, codes in TAKEN.items() for code in codes]
)
@pytest.mark.filterwarnings("error")
def test_what_is_taken(tmp_path: Path, row: str, code: Code) -> None:
    assert scores(tmp_path, code) == [2, 3]


def test_none_leaves_an_image_out(tmp_path: Path) -> None:
    found = scores(tmp_path, "def f(images): return [None, 3]")
    assert math.isnan(found[0])
    assert found[1] == 3


@pytest.mark.parametrize(
    ("row", "code"), [(row, code) for row, codes in REFUSED.items() for code in codes]
)
@pytest.mark.filterwarnings("error")
def test_what_is_refused(tmp_path: Path, row: str, code: Code) -> None:
    with pytest.raises((RewardFailure, UserError)) as caught:
        scores(tmp_path, code)
    message = str(caught.value)
    assert rows_of("What is refused")[row] in message
    assert "\n" not in message
    text = code if isinstance(code, str) else code[0]
    found = re.search(r"mine\.py:(\d+): ", message)
    if text not in PLACELESS:
        assert found is not None, message
        assert FIRST <= int(found[1]) < FIRST + len(text.splitlines())


def test_every_row_of_the_page_is_run() -> None:
    assert set(rows_of("What is taken")) == {*TAKEN, UNSCORED}
    assert set(rows_of("What is refused")) == set(REFUSED)


def test_positional_parameters_keep_their_places_without_prompts(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def f(images, prompts=None, floor=2, /): return [floor, prompts is None]\n")
    bare = ImageBatch.of_uint8(np.zeros((2, 4, 4, 3), np.uint8), (Prompt(""), Prompt("")))
    assert make_reward(f"{path}:f")(bare).values.tolist() == [2, 1]


def test_a_generator_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RewardFailure, match="returned 3 scores for 2 images"):
        scores(tmp_path, "import itertools\ndef f(images): return itertools.repeat(1.0)")


def test_an_error_inside_a_generator_names_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(RewardFailure, match=rf"mine\.py:{FIRST + 2}: ValueError: no face"):
        scores(
            tmp_path,
            "def f(images):\n    for image in images:\n"
            "        raise ValueError('no face')\n        yield 1",
        )
