"""Tables of every format give the rows that stand in them, or one line that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ddpo.errors import ConfigError
from ddpo.inputs.tables import read_table

ROWS = [{"prompt": "a cat", "n": "1"}, {"prompt": "a dog, a cow", "n": "2"}]


def read(folder: Path, name: str, content: str | bytes) -> list[tuple[str, Mapping[str, Any]]]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(where.removeprefix(f"{folder}/"), dict(row)) for where, row in read_table(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'prompt,n\na cat,1\n"a dog, a cow",2\n'),
        ("T.CSV", 'prompt,n\r\na cat,1\r\n"a dog, a cow",2'),
        ("bom.csv", '\ufeffprompt, n\na cat, 1\n"a dog, a cow", 2\n'),
        ("utf16.csv", 'prompt,n\na cat,1\n"a dog, a cow",2\n'.encode("utf-16")),
        ("semicolons.csv", "prompt;n\na cat;1\na dog, a cow;2\n"),
        ("tabs.csv", "prompt\tn\na cat\t1\na dog, a cow\t2\n"),
        ("excel.csv", "sep=;\nprompt;n\na cat;1\na dog, a cow;2\n"),
        ("index.csv", ',prompt,n\n0,a cat,1\n1,"a dog, a cow",2\n'),
        ("blank.csv", 'prompt,n\n\na cat,1\n,\n"a dog, a cow",2\n\n'),
        ("trailing.csv", 'prompt,n,\na cat,1,\n"a dog, a cow",2,\n'),
        ("t.tsv", "prompt\tn\na cat\t1\na dog, a cow\t2\n"),
        ("quoted.tsv", 'prompt\tn\n"a cat"\t1\n"a dog, a cow"\t2\n'),
        ("commas.tsv", 'prompt,n\na cat,1\n"a dog, a cow",2\n'),
        ("t.json", json.dumps(ROWS)),
        ("indented.json", json.dumps(ROWS, indent=2)),
        ("wrapped.json", json.dumps({"version": 1, "data": ROWS})),
        ("columns.json", json.dumps({"prompt": ["a cat", "a dog, a cow"], "n": ["1", "2"]})),
        ("lines.json", "\n".join(map(json.dumps, ROWS))),
        ("utf16.json", json.dumps(ROWS).encode("utf-16")),
        ("t.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("t.NDJSON", "\n".join(map(json.dumps, ROWS))),
        ("list.jsonl", json.dumps(ROWS)),
        ("indented_list.jsonl", json.dumps(ROWS, indent=1)),
        ("indented_objects.jsonl", "\n".join(json.dumps(row, indent=1) for row in ROWS)),
        ("bom.jsonl", "\ufeff" + "\n".join(map(json.dumps, ROWS))),
    ],
)
def test_one_table_in_every_form(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert [row for _, row in read(tmp_path, name, content)] == ROWS


def test_parquet_with_structs_and_chosen_columns(tmp_path: Path) -> None:
    rows = [{"Image": {"bytes": b"\x89", "path": "a.png"}, "text": "a cat"}] * 70
    pd.DataFrame(rows).to_parquet(tmp_path / "t.PARQUET")
    found = list(read_table(tmp_path / "t.PARQUET"))
    assert [row for _, row in found] == rows
    assert found[69][0] == f"{tmp_path}/t.PARQUET:70"
    assert [row for _, row in read_table(tmp_path / "t.PARQUET", ("TEXT", "other"))] == [
        {"text": "a cat"}
    ] * 70


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.json", "e.jsonl"])
def test_nothing_in_a_table_is_no_row(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, name, "") == []
    assert read(tmp_path, name, "\n \n") == []
    header = {"csv": "prompt\n", "tsv": "prompt\n", "json": "[]", "jsonl": "[]"}[name[2:]]
    assert read(tmp_path, name, header) == []


def test_rows_without_columns_of_parquet(tmp_path: Path) -> None:
    pd.DataFrame({"prompt": []}).to_parquet(tmp_path / "e.parquet")
    assert list(read_table(tmp_path / "e.parquet")) == []


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("t.csv", 'prompt,n\n"two\nlines",1\nb,2\n', [2, 4]),
        ("t.tsv", 'prompt\tn\n"two\nlines"\t1\nb\t2\n', [2, 4]),
        ("t.json", '[\n {"prompt": "a",\n  "n": 1},\n\n {"prompt": "b"}\n]\n', [2, 5]),
        ("t.jsonl", '\n{"prompt": "a"}\n\n{"prompt": "b\\u2028c"}\n', [2, 4]),
        ("u.jsonl", '{"prompt": "a\u2028b"}\n{"prompt": "c"}\n', [1, 2]),
    ],
)
def test_places_are_real_lines(tmp_path: Path, name: str, content: str, lines: list[int]) -> None:
    assert [where for where, _ in read(tmp_path, name, content)] == [
        f"{name}:{line}" for line in lines
    ]


def test_quotes_that_begin_a_tab_separated_text_stay(tmp_path: Path) -> None:
    """As in PartiPrompts.tsv of google-research/parti, which is not quoted."""
    content = (
        'Prompt\tCategory\n"G I G G L E" painted in thick colorful lettering\tIllustrations\n'
        'a sign that says "hi"\tText\n"a sign that says ""hi"""\tText\n"half\tText\nlast\tText\n'
    )
    assert [row["Prompt"] for _, row in read(tmp_path, "parti.tsv", content)] == [
        '"G I G G L E" painted in thick colorful lettering',
        'a sign that says "hi"',
        'a sign that says "hi"',
        '"half',
        "last",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "prompt,n\na,1\nb, c,2\n", "t.csv:3: 3 values for 2 columns"),
        ("t.csv", "prompt,n\na\n", "t.csv:2: 1 values for 2 columns"),
        ("t.csv", "prompt,prompt\na,b\n", "t.csv:1: the header names the column 'prompt' twice"),
        ("t.csv", 'prompt\n"open\n', "t.csv:2: not text separated by ','"),
        ("t.csv", 'prompt,n\n"a" b,1\n', "t.csv:2: not text separated by ','"),
        ("t.csv", "prompt,\na,1\n", "t.csv:2: the value '1' is in a column without a name"),
        ("t.csv", b"prompt\nok\ncaf\xe9\n", "t.csv:3 is not UTF-8 text"),
        ("t.csv", "prompt\na\n".encode("utf-16-le"), "t.csv:1: a NUL character"),
        ("t.csv", b"prompt\na\x00b\n", "t.csv:2: a NUL character"),
        ("t.tsv", 'a\tb\n"open\nmore\n', "t.tsv:2: a quoted text does not end"),
        ("t.tsv", "a\tb\nc\td\te\n", "t.tsv:2: 3 values for 2 columns"),
        ("t.json", '["a", "b"]', "t.json:1: expected an object of columns, got the text 'a'"),
        ("t.json", '[{"a": 1}\n{"a": 2}]', r"t.json:2: not JSON \(expected a comma"),
        ("t.json", '[{"a": 1},\n]', r"t.json:2: not JSON \(a comma before the end"),
        ("t.json", '[{"a": 1}] x', r"t.json:1: not JSON \(text after the end"),
        ("t.json", '[\n{"a": \n"b" "c"}]', "t.json:3: not JSON"),
        ("t.json", '[{"a": 1}', "t.json:1: not JSON"),
        ("t.json", '{"images": [{"a": 1}], "annotations": [{"b": 1}]}', "several tables"),
        ("t.json", '{"a": {"prompt": "x"}, "b": {"prompt": "y"}}', "an object of objects"),
        ("t.json", '{"a": [1, 2], "b": [1]}', "columns of different length"),
        ("t.json", "7", "t.json:1: not a JSON object, but 7"),
        ("t.jsonl", '{"a": 1}\n[1]\n', r"t.jsonl:2: not a JSON object, but \[1\]"),
        ("t.jsonl", '{"a": 1}\n{"a": 1} {"a": 2}\n', r"t.jsonl:2: not JSON \(text after"),
        ("t.jsonl", '{"a": 1}\n{nope\n', "t.jsonl:2: not JSON"),
        ("t.jsonl", "[" * 5000, "t.jsonl:1: JSON that is nested too deeply"),
        (
            "t.jsonl",
            '{"a": 1}\n{"a": ' + "[" * 100_000 + "\n",
            "t.jsonl:2: JSON that is nested too deeply",
        ),
        (
            "t.jsonl",
            '{"a": ' + "[" * 70 + "]" * 70 + "}\n",
            "t.jsonl:1: JSON that is nested too deeply",
        ),
        ("t.jsonl", '{"a": 1}\n{"a": NaN}\n', r"t.jsonl:2: not JSON \(NaN"),
        ("t.jsonl", '{"a": -Infinity}\n', r"t.jsonl:1: not JSON \(-Infinity"),
        ("t.jsonl", '{"a": 1e999}\n', "t.jsonl:1: the number 1e999 is too large"),
        ("t.jsonl", '{"a": ' + "9" * 5000 + "}\n", "t.jsonl:1: "),
        ("t.jsonl", '{"a": 1, "a": 2}\n', "t.jsonl:1: the key 'a' appears twice"),
        ("t.jsonl", '{"a": 1}\n{"a": "x \\ud83d"}\n', "t.jsonl:2: half a surrogate pair"),
        ("t.jsonl", '{"a": {"b": ["\\ude00"]}}\n', "t.jsonl:1: half a surrogate pair"),
        ("t.jsonl", '{"\\ud800": 1}\n', "t.jsonl:1: half a surrogate pair"),
        ("t.jsonl", '{"a": "x\\u0000"}\n', "t.jsonl:1: a NUL character"),
        ("t.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', "t.jsonl:2 is not UTF-8 text"),
        ("t.parquet", b"PAR1", "t.parquet cannot be read as Parquet"),
        ("t.xlsx", b"PK", "a table must be one of .csv, .tsv, .json, .jsonl, .ndjson, .parquet"),
    ],
)
def test_what_is_no_table_is_reported_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, name, content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_no_file_and_a_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.csv: no such file"):
        list(read_table(tmp_path / "absent.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.csv: a folder without Parquet files"):
        list(read_table(tmp_path / "folder.csv"))


@pytest.mark.parametrize("below", [".", "data"])
def test_shards_of_a_folder_are_one_table(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    for number in (1, 0):
        name = f"train-0000{number}-of-00002.parquet"
        pd.DataFrame({"text": [f"{number}a", f"{number}b"]}).to_parquet(tmp_path / below / name)
    (tmp_path / "README.md").touch()
    assert [row["text"] for _, row in read_table(tmp_path)] == ["0a", "0b", "1a", "1b"]
    other = tmp_path / below / "test-00000-of-00001.parquet"
    pd.DataFrame({"text": ["t"]}).to_parquet(other)
    with pytest.raises(ConfigError, match=r"holds several tables \(test, train\); name one file"):
        list(read_table(tmp_path))


def test_whole_escapes_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, "t.jsonl", '{"a": "\\ud83d\\ude00"}\n') == [("t.jsonl:1", {"a": "😀"})]
