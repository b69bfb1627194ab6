"""The doctor against plug-ins that do harm: real distributions on the path, in real processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ddpo.cli.main import main
from ddpo.errors import UnknownNameError
from ddpo.rewards.tools.doctor import diagnose
from ddpo.rewards.zoo import rewards

GOOD = "from ddpo.rewards.card import RewardCard\n"
CARD = (
    "{name} = RewardCard(id='bad/{id}', version='1', summary='', load='{load}', "
    "family='', flaws='')\n"
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(rewards, "_entries", None)
    return tmp_path


def install(site: Path, name: str, points: dict[str, str]) -> None:
    folder = site / f"{name}-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(
        "[ddpo.rewards]\n" + "".join(f"bad/{key} = {value}\n" for key, value in points.items())
    )


def states(*names: str, timeout_s: float = 60.0) -> dict[str, tuple[str, str]]:
    return {
        found.reward: (found.status, found.detail)
        for found in diagnose(timeout_s, [f"bad/{name}" for name in names])
    }


def test_one_that_hangs_harms_neither_those_before_nor_those_behind(site: Path) -> None:
    install(site, "slow", {"a": "slow_cards:A", "b": "slow_hangs:B", "c": "slow_cards:C"})
    (site / "slow_cards.py").write_text(
        GOOD
        + CARD.format(name="A", id="a", load="json:loads")
        + CARD.format(name="C", id="c", load="json:loads")
    )
    (site / "slow_hangs.py").write_text("import time\ntime.sleep(600)\n")
    assert states("a", "b", "c", timeout_s=4) == {
        "bad/a": ("ok", ""),
        "bad/b": ("import error", "its import did not end within 4 s"),
        "bad/c": ("ok", ""),
    }
    assert "slow_hangs" not in sys.modules


def test_crashes_prints_and_closed_files(site: Path) -> None:
    install(site, "rude", {"crash": "rude_crash:X", "exit": "rude_exit:X", "print": "rude_print:X"})
    (site / "rude_crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (site / "rude_exit.py").write_text("import os\nos._exit(0)\n")
    card = CARD.format(name="X", id="print", load="json:loads")
    (site / "rude_print.py").write_text(
        f"import os, sys\nprint('{{')\nos.write(1, b'}}')\nsys.stdout.close()\n{GOOD}{card}"
    )
    assert states("crash", "exit", "print") == {
        "bad/crash": ("import error", "its import ended the process (signal SIGSEGV)"),
        "bad/exit": ("import error", "its import ended the process (exit code 0)"),
        "bad/print": ("ok", ""),
    }


def test_a_card_that_is_refused(site: Path) -> None:
    install(site, "odd", {"form": "odd_form:X", "type": "odd_type:X"})
    (site / "odd_form.py").write_text(GOOD + CARD.format(name="X", id="form", load="no colon"))
    (site / "odd_type.py").write_text("X = 3\n")
    found = states("form", "type")
    assert found["bad/form"] == (
        "bad card",
        "card 'bad/form': load='no colon' is not of the form 'module:attribute'",
    )
    assert found["bad/type"] == ("bad card", "TypeError: it is a int, not a RewardCard")


def test_an_unknown_name_tells_the_nearest(site: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'darkness'"):
        list(diagnose(names=["darknes"]))


def test_the_command_draws_a_table_and_exits_with_1(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "brackets", {"x": "brackets:X"})
    (site / "brackets.py").write_text("raise ValueError('[red]one[/red]')\n")
    monkeypatch.setenv("COLUMNS", "200")
    for arguments in (["bad/x"], ["bad/x", "--json"]):
        monkeypatch.setattr(sys, "argv", ["ddpo", "rewards", "doctor", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1
    table, _, record = capsys.readouterr().out.partition("0 of 1 rewards can be loaded\n")
    assert "ValueError: [red]one[/red]" in table
    assert json.loads(record) == [
        {
            "reward": "bad/x",
            "origin": "brackets 1",
            "status": "import error",
            "detail": "ValueError: [red]one[/red]",
        }
    ]
