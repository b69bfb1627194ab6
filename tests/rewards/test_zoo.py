"""Finding and making rewards: names, options, files, objects, and what is said when that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpo.errors import ConfigError, RewardFailure, RewardLoadError, UnknownNameError, UserError
from ddpo.rewards.base import Reward
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.spec import RewardSpec, parse_spec
from ddpo.rewards.zoo import make_reward, resolve, resolve_card, rewards
from ddpo.types import ImageBatch, Prompt

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "reward_plugin" / "my_reward.py"


def batch(*levels: float) -> ImageBatch:
    pixels = (
        torch.tensor(levels, dtype=torch.float32)
        .reshape(-1, 1, 1, 1)
        .expand(len(levels), 3, 4, 4)
        .contiguous()
    )
    return ImageBatch(pixels, tuple(Prompt(f"p{i}") for i in range(len(levels))))


@pytest.fixture
def user_file(tmp_path: Path):
    def write(code: str, name: str = "mine.py") -> Path:
        (tmp_path / name).write_text(code)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("darkness", RewardSpec("name", "darkness")),
        ("acme/sharp", RewardSpec("name", "acme/sharp")),
        (
            "aesthetic:head=/a/b:c.pth,device=cuda:1",
            RewardSpec("name", "aesthetic", "", {"head": "/a/b:c.pth", "device": "cuda:1"}),
        ),
        ("./a b/r.py:My", RewardSpec("file", "./a b/r.py", "My")),
        ("r.py:My:gain=2", RewardSpec("file", "r.py", "My", {"gain": "2"})),
        ("r.py", RewardSpec("file", "r.py")),
        ("pkg.mod:Thing.make", RewardSpec("object", "pkg.mod", "Thing.make")),
        ("pkg.mod:f:a=1,b= x ", RewardSpec("object", "pkg.mod", "f", {"a": "1", "b": "x"})),
    ],
)
def test_specifications(text: str, spec: RewardSpec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize("text", ["", ":", "name:", "a:b:c", "name:k=v,w", "folder/"])
def test_malformed_specifications(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_spec(text)


def test_builtins_are_listed_and_made() -> None:
    names = {
        "compressibility",
        "incompressibility",
        "colorfulness",
        "symmetry",
        "darkness",
        "aesthetic",
        "alignment",
    }
    assert names <= set(rewards.names())
    reward = make_reward("darkness")
    assert isinstance(reward, Reward)
    assert reward.card is resolve_card("darkness")


def test_unknown_reward_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'compressibility'"):
        make_reward("compresibility")


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match="reward 'aesthetic' has no option 'haed'; did you mean 'head'"
    ):
        resolve("aesthetic:haed=x")
    with pytest.raises(ConfigError, match="has no option 'x'; it has no options"):
        resolve("darkness", x=1)


def test_options_take_the_type_of_their_default(user_file) -> None:
    path = user_file(
        "def f(images, count=2, share=0.5, on=True, name='a'):\n"
        "    return [count * share * on * len(name)] * len(images)\n"
    )
    found = resolve(f"{path}:f:count=3,share=2,on=false,name=4")
    assert dict(found.options) == {"count": 3, "share": 2.0, "on": False, "name": "4"}
    assert make_reward(f"{path}:f:count=3", name="abcd")(batch(0)).values.tolist() == [6.0]
    for bad in ("count=1.5", "share=much", "on=perhaps"):
        with pytest.raises(ConfigError, match="must be"):
            resolve(f"{path}:f:{bad}")


def test_keywords_win_over_the_text_and_enter_the_signature() -> None:
    found = resolve(f"{EXAMPLE}:MyReward:gain=2", gain=3)
    assert found.options == {"gain": 3.0}
    assert "options:gain=3.0" in found.signature
    assert "origin:my_reward.py sha256" in found.signature


def test_example_class_by_hand() -> None:
    pixels = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert make_reward(f"{EXAMPLE}:MyReward:gain=4")(
        ImageBatch(pixels, (Prompt(""),))
    ).values.tolist() == [2.0]


def test_example_function_by_hand() -> None:
    pixels = torch.zeros(1, 3, 1, 4)
    pixels[0, 0, 0, 0] = 1.0  # one red pixel of four
    reward = make_reward(f"{EXAMPLE}:redness")
    assert reward(ImageBatch(pixels, (Prompt(""),))).values.tolist() == [0.25]
    assert (
        reward.card.summary
        == "Share of pixels whose red is above green and blue by more than `threshold`."
    )
    assert reward.card.inputs == ("image",)


def test_a_function_gets_levels_and_prompts(user_file) -> None:
    path = user_file(
        "def f(images, prompts):\n"
        "    return [float(i.max()) * (p == 'p1') for i, p in zip(images, prompts)]\n"
    )
    assert make_reward(f"{path}:f")(batch(0.2, 0.6)).values.tolist() == [0.0, 153.0]
    assert resolve_card(f"{path}:f").inputs == ("image", "prompt")


LENGTHS = "return [len(prompts[i]) if prompts else -1 for i in range(len(images))]"


@pytest.mark.parametrize(
    ("code", "scores", "inputs", "optional"),
    [
        (f"def f(images, prompts=None): {LENGTHS}", [2, -1], ("image", "prompt"), ("prompt",)),
        (f"def f(images, *, prompts=None): {LENGTHS}", [2, -1], ("image", "prompt"), ("prompt",)),
        (
            f"def f(images, prompts: list[str] | None = None, **more): {LENGTHS}",
            [2, -1],
            ("image", "prompt"),
            ("prompt",),
        ),
        (
            f"def f(images, scale=1.0, prompts=None): {LENGTHS}",
            [2, -1],
            ("image", "prompt"),
            ("prompt",),
        ),
        (f"def f(prompts, images): {LENGTHS}", [2, 0], ("image", "prompt"), ()),
        (f"def f(images, prompts, /): {LENGTHS}", [2, 0], ("image", "prompt"), ()),
        (f"def f(images, *, prompts): {LENGTHS}", [2, 0], ("image", "prompt"), ()),
        ("f = lambda x, y: [float(len(text)) for text in y]", [2, 0], ("image", "prompt"), ()),
        (
            f"import functools\ndef g(k, images, prompts=None): {LENGTHS}\n"
            "f = functools.partial(g, 1)",
            [2, -1],
            ("image", "prompt"),
            ("prompt",),
        ),
        (
            f"class G:\n    def __call__(self, images, prompts=None): {LENGTHS}\nf = G()",
            [2, -1],
            ("image", "prompt"),
            ("prompt",),
        ),
        (
            f"class G:\n    def g(self, images, prompts=None): {LENGTHS}\nf = G().g",
            [2, -1],
            ("image", "prompt"),
            ("prompt",),
        ),
        (
            "import functools\ndef d(g):\n    @functools.wraps(g)\n"
            "    def inner(*a, **k): return g(*a, **k)\n    return inner\n"
            f"@d\ndef f(images, prompts=None): {LENGTHS}",
            [2, -1],
            ("image", "prompt"),
            ("prompt",),
        ),
        (
            "def f(images, metadata=None): return [m.get('n', -1) for m in metadata]",
            [7, -1],
            ("image", "metadata"),
            ("metadata",),
        ),
        (
            "def f(images, prompt_scale=2.0): return [prompt_scale] * len(images)",
            [2, 2],
            ("image",),
            (),
        ),
    ],
)
def test_a_parameter_that_is_called_like_an_input_is_filled(
    user_file, code, scores, inputs, optional
) -> None:
    found = resolve(f"{user_file(code)}:f")
    assert (found.card.inputs, found.card.optional) == (inputs, optional)
    images = ImageBatch(torch.zeros(2, 3, 4, 4), (Prompt("ab", {"n": 7}), Prompt("")))
    assert found.make()(images).values.tolist() == scores


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f(images, prompts=None): pass", "has no option 'prompts'"),
        ("def f(images, *, threshold): pass", "further parameters only with defaults"),
        ("def f(*images): pass", "it must take"),
        ("f = max", "its parameters are not known"),
        (
            "class G:\n    def __call__(self, batch): pass\nf = G()",
            "not a reward class, a reward, a card or a function",
        ),
    ],
)
def test_a_callable_that_is_no_reward_says_why(user_file, code, says) -> None:
    with pytest.raises((ConfigError, RewardLoadError), match=says):
        resolve(f"{user_file(code)}:f:prompts=none")


def test_a_functions_version_changes_with_its_file(user_file) -> None:
    code = "def f(images):\n    return [1.0] * len(images)\n"
    first = resolve(f"{user_file(code)}:f")
    second = resolve(f"{user_file(code.replace('1.0', '2.0'))}:f")
    assert first.card.version != second.card.version
    assert first.signature != second.signature
    assert (first.make()(batch(0)).values.item(), second.make()(batch(0)).values.item()) == (1, 2)


def test_none_is_unscorable_and_nan_is_a_failure(user_file) -> None:
    path = user_file(
        "def f(images):\n    return [None, 1.0]\n\n"
        "def g(images):\n    return [float('nan')] * len(images)\n"
    )
    output = Scorer(make_reward(f"{path}:f")).score(batch(0, 1))
    assert output.errors == ("the reward function returned None", None)
    with pytest.raises(
        RewardFailure, match=r"'g' failed: mine.py:4: the score of image 0 is nan; return None"
    ):
        Scorer(make_reward(f"{path}:g")).score(batch(0, 1))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1.0", "one number per image, got float"),
        ("return ['x', 'y']", "one number per image, got list"),
        ("return [1.0]", "returned 1 scores for 2 images"),
        ("raise ValueError('no')", "ValueError: no"),
    ],
)
def test_what_a_function_can_do_wrong(user_file, body: str, message: str) -> None:
    with pytest.raises(RewardFailure, match=message):
        Scorer(make_reward(f"{user_file(f'def f(images):{chr(10)}    {body}')}:f")).score(
            batch(0, 1)
        )


@pytest.mark.parametrize(
    ("code", "attribute", "message"),
    [
        ("def f(images):\n    pass\n", "", "say which object, such as .*:f"),
        ("def redness(images):\n    pass\n", "rednes", "has no 'rednes'; did you mean 'redness'"),
        ("x = 3\n", "x", "is a int, not a reward class"),
        ("def f():\n    pass\n", "f", r"must take \(images\) or \(images, prompts\)"),
        ("def f(a, b, c):\n    pass\n", "f", r"must take \(images\) or \(images, prompts\)"),
        ("class R:\n    def __call__(self, batch): pass\n", "R", "and a class attribute `card"),
        ("x = 1\nprint(y)\n", "f", r"mine.py:2: NameError: name 'y' is not defined"),
        ("def f(:\n", "f", "mine.py:1: SyntaxError"),
        (
            "import library_that_nobody_has\n",
            "f",
            "mine.py:1: it needs the Python module library_that_nobody_has, which is not installed",
        ),
        ("raise SystemExit(3)\n", "f", "mine.py:1: SystemExit: 3"),
    ],
)
def test_files_that_cannot_be_used(user_file, code: str, attribute: str, message: str) -> None:
    with pytest.raises(RewardLoadError, match=message) as caught:
        resolve(f"{user_file(code)}:{attribute}".rstrip(":"))
    assert "\n" not in str(caught.value)


def test_missing_file_and_module(tmp_path: Path) -> None:
    with pytest.raises(RewardLoadError, match="No such file"):
        resolve(f"{tmp_path}/absent.py:f")
    with pytest.raises(
        RewardLoadError, match=r"no module 'nowhere_at_all'; write a file as ./file.py:Attribute"
    ):
        resolve("nowhere_at_all.rewards:f")
    with pytest.raises(RewardLoadError, match="has no 'Darknes'; did you mean 'Darkness'"):
        resolve("ddpo.rewards.models.darkness:Darknes")


def test_an_object_of_a_module_class_card_or_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme_things.py").write_text(
        "from ddpo.rewards.models.darkness import Darkness\nfrom ddpo.rewards.cards import CARDS\n"
        "instance = Darkness()\ncard = CARDS['darkness']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for attribute in ("Darkness", "instance", "card"):
        assert make_reward(f"acme_things:{attribute}")(batch(0.5)).values.tolist() == [-0.5]
    sys.modules.pop("acme_things")


def test_a_constructor_that_raises_is_one_line(user_file) -> None:
    code = EXAMPLE.read_text().replace("self.gain = gain", "raise RuntimeError('no\\nGPU')")
    with pytest.raises(
        RewardLoadError,
        match=r"reward 'my_contrast' of mine.py sha256:\w+ cannot be loaded: "
        r"mine.py:44: RuntimeError: no GPU",
    ):
        make_reward(f"{user_file(code)}:MyReward")


def test_load_failures_are_user_errors() -> None:
    assert issubclass(RewardLoadError, UserError)
    assert issubclass(RewardLoadError, ImportError)


def test_other_weights_at_the_same_place_are_another_identity(tmp_path: Path) -> None:
    """A cached score must not outlive the weights that gave it."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"first")
    spec = f"clip_score:clip={folder}"
    before = resolve(spec).identity
    assert resolve(spec).identity == before
    (folder / "model.safetensors").write_bytes(b"other")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert resolve(spec).identity != before
    assert (
        "files:" not in resolve(f"vlm_judge:template={'x' * 5000}").identity
    )  # a text, too long for a path


def identity_in(folder: Path, spec: str) -> str:
    """The identity of a reward in a process that imports from `folder` first."""
    code = f"from ddpo.rewards.zoo import resolve; print(resolve({spec!r}).identity)"
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, env=environment, cwd=folder, text=True)


@pytest.mark.parametrize("spec", ["nsfw", "compressibility", "darkness + symmetry"])
def test_a_reworded_module_of_ddpo_keeps_its_scores(spec: str, tmp_path: Path) -> None:
    """The version of the card governs, not the text of the source."""
    shutil.copytree(ROOT / "ddpo", tmp_path / "ddpo", ignore=shutil.ignore_patterns("weights"))
    before = identity_in(tmp_path, spec)
    changed = list((tmp_path / "ddpo" / "rewards" / "models").glob("*.py"))
    changed += (tmp_path / "ddpo" / "rewards" / "scoring").glob("*.py")
    for module in changed:
        module.write_text(module.read_text(encoding="utf-8") + "\n# reworded\n", encoding="utf-8")
    assert identity_in(tmp_path, spec) == before
    cards = tmp_path / "ddpo" / "rewards" / "cards"
    for module in cards.glob("*.py"):
        text = module.read_text(encoding="utf-8")
        module.write_text(text.replace('version="1"', 'version="1.1"'), encoding="utf-8")
    assert identity_in(tmp_path, spec) != before


def test_a_changed_module_of_another_package_is_another_identity(tmp_path: Path) -> None:
    """Its author may forget to raise the version."""
    package = tmp_path / "acme"
    package.mkdir()
    (package / "__init__.py").write_text("")
    card = (
        "RewardCard(id='acme', version='1', summary='s', load='acme.reward:Reward', "
        "family='test', flaws='none')"
    )
    (package / "cards.py").write_text(f"from ddpo.rewards.card import RewardCard\nCARD = {card}\n")
    (package / "reward.py").write_text("class Reward:\n    pass\n")
    metadata = tmp_path / "acme-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[ddpo.rewards]\nacme = acme.cards:CARD\n")
    (tmp_path / "ddpo").symlink_to(ROOT / "ddpo")
    before = identity_in(tmp_path, "acme")
    assert identity_in(tmp_path, "acme") == before
    (package / "reward.py").write_text("class Reward:\n    other = True\n")
    assert identity_in(tmp_path, "acme") != before


VARIANTS = """
from dataclasses import replace
from ddpo.errors import ConfigError
from ddpo.rewards.models.darkness import Darkness
from ddpo.rewards.card import RewardOption
from ddpo.rewards.cards import CARDS

def for_options(card, options):
    {body}

class Lamp(Darkness):
    card = replace(
        CARDS["darkness"],
        unit="luma",
        options=(RewardOption("unit", "luma", ""),),
        for_options="{reference}",
    )

    def __init__(self, unit="luma"):
        self.card = replace(type(self).card, unit=unit)
"""


@pytest.fixture
def lamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(body: str, reference: str = "acme_lamp:for_options") -> str:
        (tmp_path / "acme_lamp.py").write_text(VARIANTS.format(body=body, reference=reference))
        monkeypatch.syspath_prepend(str(tmp_path))
        return "acme_lamp:Lamp"

    yield write
    sys.modules.pop("acme_lamp", None)


@pytest.mark.parametrize("unit", ["nit", "lux", "candela"])
def test_options_may_choose_the_card(lamp, unit: str) -> None:
    name = lamp("return replace(card, unit=options['unit'])")
    assert resolve(name).card.unit == "luma"
    found = resolve(f"{name}:unit={unit}")
    assert found.card.unit == unit
    assert found.make().card == found.card


@pytest.mark.parametrize(
    ("body", "reference", "message"),
    [
        (
            "raise KeyError('x')",
            "acme_lamp:for_options",
            r"failed: acme_lamp.py:\d+: KeyError: 'x'",
        ),
        ("return 1 / 0", "acme_lamp:for_options", r"failed: acme_lamp.py:\d+: ZeroDivisionError"),
        ("return card", "acme_lamp:absent", "has no attribute 'absent'"),
        ("return card", "absent_module:f", "absent_module, which is not installed|does not exist"),
        ("raise ConfigError('no such unit')", "acme_lamp:for_options", "^no such unit$"),
    ],
)
def test_a_card_that_options_cannot_choose_is_one_line(
    lamp, body: str, reference: str, message: str
) -> None:
    name = lamp(body, reference)
    assert resolve(name).card.unit == "luma"  # the defaults ask nothing
    with pytest.raises(UserError, match=message) as caught:
        resolve(f"{name}:unit=nit")
    assert "\n" not in str(caught.value)
