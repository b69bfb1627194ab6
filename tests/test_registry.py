"""The registry with real distributions: folders with `METADATA` and `entry_points.txt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpo.errors import RewardLoadError, UnknownNameError
from ddpo.registry import Registry, explain_load_failure, nearest

GROUP = "ddpo.test_group"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def install(site: Path, name: str, version: str, points: dict[str, str]) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")


def make(builtin: dict[str, int | str] | None = None) -> Registry[int]:
    return Registry(
        "number", GROUP, int, {"one": 1, "bits": "sys:maxsize"} if builtin is None else builtin
    )


def test_builtin_values_are_objects_or_lazy_references() -> None:
    import sys

    assert make().get("one") == 1
    assert make().get("bits") == sys.maxsize


@pytest.mark.parametrize(
    ("name", "hint"), [("oen", "did you mean 'one'?"), ("zzzz", "known: bits, one")]
)
def test_unknown_name_tells_the_nearest_or_all(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown number '{name}'; ") as caught:
        make().get(name)
    assert str(caught.value).endswith(hint)


def test_entry_point_is_found_and_knows_its_distribution(site: Path) -> None:
    install(site, "acme-numbers", "3.1", {"acme/two": "acme_numbers:TWO"})
    (site / "acme_numbers.py").write_text("TWO = 2\n")
    registry = make()
    assert registry.names() == ["acme/two", "bits", "one"]
    assert registry.origin("acme/two") == "acme-numbers 3.1"
    assert registry.origin("one") == "ddpo"
    assert registry.get("acme/two") == 2


def test_listing_names_imports_no_plugin(site: Path) -> None:
    install(site, "acme-bomb", "1", {"bomb": "acme_bomb:X"})
    (site / "acme_bomb.py").write_text("raise RuntimeError('imported')\n")
    assert "bomb" in make().names()


def test_broken_plugins_do_not_stop_the_others(site: Path) -> None:
    points = {
        "raises": "acme_raises:X",
        "missing": "acme_nowhere:X",
        "text": "acme_fine:TEXT",
        "fine": "acme_fine:X",
    }
    install(site, "acme-bad", "1", points)
    (site / "acme_raises.py").write_text("raise KeyError('boom')\n")
    (site / "acme_fine.py").write_text("TEXT = 'a'\nX = 5\n")
    values, failures = make().available()
    assert values["fine"] == 5
    assert set(failures) == {"raises", "missing", "text"}
    assert str(failures["raises"]) == "number 'raises' of acme-bad 1 is broken: KeyError: 'boom'"
    assert (
        str(failures["missing"])
        == "number 'missing' of acme-bad 1 is broken: its own module acme_nowhere does not exist"
    )
    assert "it is a str, not a int" in str(failures["text"])


def test_two_distributions_claiming_a_name_fail_only_when_it_is_asked_for(site: Path) -> None:
    for number, name in enumerate(("acme-a", "acme-b")):
        install(site, name, "1", {"same": f"acme_same:N{number}"})
    (site / "acme_same.py").write_text("N0 = 0\nN1 = 1\n")
    registry = make()
    assert registry.get("one") == 1
    with pytest.raises(
        RewardLoadError, match=r"claimed by acme-[ab] 1 and by acme-[ab] 1: uninstall one"
    ):
        registry.get("same")


def test_builtin_wins_over_an_entry_point(site: Path) -> None:
    install(site, "acme-thief", "1", {"one": "acme_thief:X"})
    (site / "acme_thief.py").write_text("X = 666\n")
    assert make().get("one") == 1


def test_failure_is_kept_and_not_tried_again(site: Path) -> None:
    install(site, "acme-count", "1", {"count": "acme_count:X"})
    log = site / "log"
    (site / "acme_count.py").write_text(
        f"open({str(log)!r}, 'a').write('x')\nraise ValueError('no')\n"
    )
    registry = make()
    for _ in range(3):
        with pytest.raises(RewardLoadError):
            registry.get("count")
    assert log.read_text() == "x"


def test_check_ties_a_value_to_its_name() -> None:
    def check(name: str, value: int) -> None:
        if name != str(value):
            raise ValueError(f"{value} is not {name}")

    registry = Registry("number", GROUP, int, {"1": 1, "2": 3}, check)
    assert registry.get("1") == 1
    with pytest.raises(RewardLoadError, match="3 is not 2"):
        registry.get("2")


def test_a_missing_dependency_differs_from_a_missing_own_module() -> None:
    foreign = ModuleNotFoundError("No module named 'scipyx'", name="scipyx.linalg")
    own = ModuleNotFoundError("No module named 'acme.helper'", name="acme.helper")
    assert explain_load_failure(foreign, "acme.main", "pip install it") == (
        "it needs the Python module scipyx, which is not installed: pip install it"
    )
    assert (
        explain_load_failure(own, "acme.main", "pip install it")
        == "its own module acme.helper does not exist"
    )
    assert explain_load_failure(ValueError("a\nb"), "acme.main", "") == "ValueError: a b"


def test_nearest() -> None:
    assert (
        nearest("compressibilty", ["compressibility", "incompressibility", "darkness"])
        == "compressibility"
    )
    assert nearest("q", ["darkness"]) is None


def test_the_environment_chooses_the_distributions(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme-a", "acme-b", "acme-c"):
        install(site, name, "1", {f"{name[-1]}": "acme_any:N"})
    everything = ["a", "b", "bits", "c", "one"]
    assert make().names() == everything
    for value, names in {
        "none": ["bits", "one"],
        "": ["bits", "one"],
        "acme-a, Acme_C": ["a", "bits", "c", "one"],
    }.items():
        monkeypatch.setenv("DDPO_PLUGINS", value)
        assert make().names() == names
    monkeypatch.delenv("DDPO_PLUGINS")
    assert make().names() == everything


def test_what_a_builtin_hides_is_known(site: Path) -> None:
    install(site, "acme-thief", "1", {"one": "acme_thief:X", "mine": "acme_thief:Y"})
    assert [(entry.name, entry.origin) for entry in make().hidden()] == [("one", "acme-thief 1")]
