"""An address where an image is meant is one line that says so, and nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddpo as library
from ddpo.errors import ImageError
from ddpo.inputs.address import names_image_elsewhere, refuse_address
from tests.conftest import Run

DATA = "data:image/png;base64," + "iVBORw0KGgo" * 1000
ADDRESSES = [
    "http://127.0.0.1:9/cat.png",
    "https://user:secret@example.org/a/cat.JPG?width=3#x",
    "s3://bucket/cat.png",
    "gs://bucket/cats",
    "hf://datasets/owner/name",
    "file:///home/me/cat.png",
    "ftp://example.org/cat",
    "data:,cat",
    DATA,
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("command", ["score", "compare", "calibrate", "bench", "eval", "label"])
def test_each_command_refuses_it_in_one_line(
    address: str, command: str, ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {
        "score": ["rewards", "score", "darkness", address],
        "compare": ["rewards", "compare", "darkness", "sharpness", address],
        "calibrate": ["rewards", "calibrate", "darkness", address, "--out", "z.json"],
        "bench": ["rewards", "bench", "darkness", address],
        "eval": ["eval", "--images", f"a={address}", "--images", "b=.", "--reward", "darkness"],
        "label": ["label", address, "."],
    }[command]
    code, output, error = ddpo(*arguments)
    assert code == 2, (output, error)
    assert output == ""
    assert " is an address; ddpo reads files" in error
    assert len(error.splitlines()) == 1
    assert len(error) < 250
    assert "secret" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ADDRESSES)
def test_python_refuses_it_in_one_line(address: str) -> None:
    image = Image.new("RGB", (8, 8))
    reward = library.load_reward("darkness")
    for images in (address, [address], [image, address], Path(address)):
        for call in (reward, lambda given: library.score("darkness", given)):
            with pytest.raises(ImageError, match="address") as caught:
                call(images)
            assert len(str(caught.value)) < 250
            assert "\n" not in str(caught.value)
            assert "secret" not in str(caught.value)


def test_an_address_of_a_reward_server_is_a_reward() -> None:
    for address in ("http://127.0.0.1:9", "https://host:8000/aesthetic", "http://h/v1.5"):
        assert not names_image_elsewhere(address)
    assert names_image_elsewhere("https://host/cat.png?size=3")


@pytest.mark.parametrize(
    "name", ["C:/cats/a.png", "C:\\cats\\a.png", "cat:dog.png", "data", "database:1.png", "a.png"]
)
def test_names_of_files_are_no_addresses(name: str) -> None:
    refuse_address(name)
    assert not names_image_elsewhere(name)


def test_a_file_that_is_called_like_an_address_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s3:").mkdir()
    Image.fromarray(np.full((8, 8, 3), 51, np.uint8)).save("s3:/cat.png")
    table = library.score("darkness", "s3://cat.png")
    assert table.darkness.tolist() == pytest.approx([-0.2])


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_table_of_addresses_is_refused_before_scoring(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ddpo: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    address = "https://me:secret@example.org/cat.png"
    text = {
        "jsonl": f'{{"file_name": "{address}", "prompt": "a cat"}}\n',
        "csv": f"file_name,prompt\n{address},a cat\n",
    }[form]
    Path(f"table.{form}").write_text(text)
    code, output, error = ddpo("rewards", "score", "darkness", f"table.{form}")
    assert (code, output) == (2, "")
    assert error.startswith(f"error: table.{form}")
    assert "https://***@example.org/cat.png is an address" in error
    assert len(error.splitlines()) == 1
