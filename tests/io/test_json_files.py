"""Whatever is in a file of JSON: a value, or one line that says what is wrong and where."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from ddpo.errors import CheckpointError, ConfigError
from ddpo.io import json_files
from ddpo.io.json_files import JsonError, json_lines, parse_json, parse_record, read_json

HOSTILE = {
    "deep arrays": b"[" * 100_000,
    "deep arrays that end": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a little too deep": b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
    "long integer": b'{"iteration": ' + b"9" * 5000 + b"}",
    "negative long integer": b'{"iteration": -' + b"9" * 21 + b"}",
    "large float": b'{"value": 1e999}',
    "nan": b'{"value": NaN}',
    "infinity": b'{"value": -Infinity}',
    "not utf-8": b'{"a": "\xff"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "half a character": b'{"a": "\\ud800"}',
    "zeros": bytes(1000),
    "empty": b"",
    "cut short": b'{"iteration": 3, "rew',
    "two values": b"{} {}",
    "an array": b"[1, 2, 3]",
    "a number": b"3",
    "null": b"null",
    "long string": b'"' + b"x" * 10_000,
    "many quotes": b"[" * 70 + b'"' + b'\\"' * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_cannot_be_ours_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(CheckpointError) as error:
        read_json(path)
    line = str(error.value)
    assert line.startswith(f"{path} is damaged: ")
    assert "\n" not in line
    assert len(line) < len(str(path)) + 200


def test_what_python_writes_is_read_back(tmp_path: Path) -> None:
    value: dict[str, Any] = {
        "text": 'ü "quoted" [brackets] {braces} \\ \N{GRINNING FACE}',
        "brackets": ["[" * 500, "{" * 500],
        "numbers": [0, -1, 2**64 - 1, -(2**63), 0.1, 1e308, 5e-324],
        "nested": {"a": {"b": [[[]]]}},
        "flags": [True, False, None],
    }
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        assert read_json(tmp_path / "a.json") == value
    (tmp_path / "a.json").write_text(json.dumps(value), encoding="utf-8-sig")  # as editors do
    assert read_json(tmp_path / "a.json") == value


def test_a_missing_or_unreadable_file_has_the_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json: no such file"):
        read_json(tmp_path / "absent.json", error=ConfigError)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_json(tmp_path, error=ConfigError)


def test_a_file_that_is_too_large_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_files, "MOST_BYTES", 1 << 20)
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(CheckpointError, match="more than 1 MiB"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"name": "a"}', "it has no iteration"),
        ('{"name": "a", "iteration": "3"}', 'its iteration cannot be "3"'),
        ('{"name": "a", "iteration": true}', "its iteration cannot be true"),
        ('{"name": "a", "iteration": 3.5}', r"its iteration cannot be 3\.5"),
        ('{"name": ["a"], "iteration": 3}', r"its name cannot be \[\"a\"\]"),
        ('{"name": null, "iteration": 3, "value": "high"}', 'its value cannot be "high"'),
    ],
)
def test_fields_have_types(text: str, line: str, tmp_path: Path) -> None:
    fields = {"name": (str, type(None)), "iteration": int}
    if "value" in text:
        fields["value"] = float
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CheckpointError, match=line):
        read_json(tmp_path / "a.json", fields)
    (tmp_path / "a.json").write_text('{"name": null, "iteration": 3, "value": 4}')
    assert read_json(tmp_path / "a.json", fields)["value"] == 4


def test_damaged_lines_are_named_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [b'{"iteration": 1, "reward_mean": NaN}', *HOSTILE.values(), b'{"iteration": 2}']
    sound = [line for line in lines if b"\n" not in line]
    path.write_bytes(b"\n".join(sound) + b'\n{"iteration": 3')
    found = list(json_lines(path, {"iteration": int}))
    assert [line.number for line in found] == list(range(1, len(sound) + 2))
    records = {line.number: line.record for line in found if line.record is not None}
    assert records.keys() == {1, len(sound)}
    assert math.isnan(records[1]["reward_mean"])
    assert found[-1].fault == "cut short"
    assert all("\n" not in line.fault and len(line.fault) < 200 for line in found)
    assert all(bool(line.fault) != (line.record is not None) for line in found)


def test_a_line_that_is_too_long_does_not_hide_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_files, "MOST_LINE_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b'"' + b"x" * 950 + b'"\n{"a": 2}\n')
    assert [(line.record, bool(line.fault)) for line in json_lines(path)] == [
        ({"a": 1}, False),
        (None, True),
        ({"a": 2}, False),
    ]


def test_a_file_that_is_absent_has_no_lines(tmp_path: Path) -> None:
    assert list(json_lines(tmp_path / "absent.jsonl")) == []


def test_mutated_text_gives_a_value_or_our_error() -> None:
    chance = random.Random(0)
    start = json.dumps({"a": [1, 2.5, "text\n", None, {"b": [True]}], "n": 10**18}).encode()
    parts = [
        b"[",
        b"{",
        b'"',
        b"\\u",
        b"\\",
        b"9" * 30,
        b"NaN",
        b"\xff",
        b"\x00",
        b"-",
        b"1e",
        b",",
    ]
    outcomes = set()
    for _ in range(5000):
        text = bytearray(start)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(text))
            text[place : place + chance.randrange(3)] = chance.choice(parts)
        for parse in (parse_json, parse_record):
            try:
                parse(bytes(text))
                outcomes.add("value")
            except JsonError as error:
                outcomes.add("error")
                line = str(error)
                if "\n" in line:
                    pytest.fail(line)
    assert outcomes == {"value", "error"}
