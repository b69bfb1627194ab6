"""A cache that lacks any one file that a reward reads is known before the reward is loaded."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image
from test_bertscore import write_encoder
from test_clip_family import write_clip
from test_nsfw import save as write_nsfw
from test_typos import WEIGHTS_SECONDS, run
from test_vlm_rewards import llava
from tiny_dino import save_tiny_dino

from ddpo.errors import MissingResourceError
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.tools.availability import weight_state
from ddpo.rewards.tools.needed_weights import check_weights
from ddpo.rewards.tools.repository_parts import PARTS
from ddpo.rewards.zoo import resolve, rewards

__all__ = ["llava"]

COMMIT = "0" * 40
MODELS = {
    "clip_score": ["clip"],
    "pickscore": ["clip", "clip"],
    "nsfw": ["nsfw"],
    "diversity_dino": ["dino"],
    "vqa_score": ["llava"],
    "alignment:layer=1": ["llava", "encoder"],
}
"""Rewards and tiny models of the kinds of their weights, in the order of their cards."""
LINES = (
    "train --reward {} --out new",
    "train --reward 'darkness + {}' --out new",
    "train --reward './mine.py:f + {}' --out new",
    "train --reward darkness --held-out {} --out new",
    "eval run --reward {}",
    "eval --images base=full --images tuned=full --reward {}",
    "rewards check {}",
    "rewards serve {}",
    "rewards bench {}",
    "rewards score {} a.png --prompt 'a cat'",
    "rewards compare darkness {} a.png --prompt 'a cat'",
    "rewards calibrate {} a.png --prompt 'a cat' --out x.json",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, llava: Path) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    (place / "encoder").mkdir()
    write_nsfw(place / "nsfw")
    save_tiny_dino(place / "dino")
    return {
        "clip": write_clip(place / "clip"),
        "nsfw": place / "nsfw",
        "dino": place / "dino",
        "llava": llava,
        "encoder": write_encoder(place / "encoder" / "bert", "bert"),
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    return tmp_path / "hub"


def put(hub: Path, source: str, revision: str, folder: Path) -> Path:
    """A repository in the hub's cache, in its layout, with the files of a folder."""
    base = hub / f"models--{source.replace('/', '--')}"
    snapshot = base / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (base / "refs").mkdir()
    for name in {revision, "main"}:
        (base / "refs" / name).write_text(COMMIT)
    return snapshot


def without_each(snapshots: list[Path]) -> Iterator[str]:
    """The name of each file, while it is away."""
    for path in (path for one in snapshots for path in sorted(one.iterdir())):
        content = path.read_bytes()
        path.unlink()
        yield path.name
        path.write_bytes(content)


def is_refused(found: ResolvedReward) -> bool:
    try:
        check_weights([found])
    except MissingResourceError as error:
        return str(error).endswith("`ddpo rewards download " + found.card.id + "`")
    return False


def loads(found: ResolvedReward) -> bool:
    try:
        found.make()
    except MissingResourceError:
        return False
    return True


@pytest.mark.parametrize("spec", MODELS)
def test_any_one_of_the_files(spec: str, folders: dict[str, Path], hub: Path) -> None:
    """A reward that the check lets through loads, and one that it stops does not."""
    found = resolve(spec)
    weights = found.card.weights
    assert is_refused(found)
    snapshots = [
        put(hub, weight.source, weight.revision, folders[kind])
        for weight, kind in zip(weights, MODELS[spec], strict=True)
    ]
    assert not is_refused(found)
    assert loads(found)
    stopped = set()
    for name in without_each(snapshots):
        if is_refused(found):
            stopped.add(name)
            assert any(weight_state(weight).path is None for weight in weights)
        assert loads(found) or name in stopped, name
    assert {"config.json", "model.safetensors"} <= stopped
    if "clip" in MODELS[spec]:
        assert {"vocab.json", "merges.txt"} <= stopped
    if "llava" in MODELS[spec]:
        assert {"tokenizer.json", "processor_config.json", "chat_template.jinja"} <= stopped


def test_shards_and_links_to_nothing_are_missing_files(folders: dict[str, Path], hub: Path) -> None:
    found = resolve("clip_score")
    (weight,) = found.card.weights
    snapshot = put(hub, weight.source, weight.revision, folders["clip"])
    model = snapshot / "model.safetensors"
    model.rename(snapshot / "model-00001-of-00002.safetensors")
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "b.safetensors"}}'
    (snapshot / "model.safetensors.index.json").write_text(index)
    assert is_refused(found)
    (snapshot / "b.safetensors").write_bytes(b"")
    assert not is_refused(found)
    (snapshot / "merges.txt").unlink()
    (snapshot / "merges.txt").symlink_to(hub / "no" / "blob")  # an interrupted download
    assert is_refused(found)


def test_every_repository_of_the_zoo_has_known_parts() -> None:
    """Its reward says which files it reads; a repository that names one file needs none."""
    cards = rewards.available()[0].values()
    sources = {
        weight.source
        for card in cards
        for weight in card.weights
        if weight.source.count("/") == 1 and weight.sha256 is None
    }
    assert sources == set(PARTS)


@pytest.mark.parametrize(
    ("spec", "command"),
    [
        ("nsfw:model=owner/name", "nsfw:model=owner/name"),
        ("vqa_score:vlm=owner/name", "vqa_score:vlm=owner/name"),
        ("hpsv2:release=v2.0", "hpsv2:release=v2.0"),
        ("alignment:vlm=http://127.0.0.1:9/v1", "alignment:vlm=http://127.0.0.1:9/v1"),
        ("clip_score:dtype=bfloat16", "clip_score"),
    ],
)
def test_the_command_fetches_what_the_options_choose(spec: str, command: str, hub: Path) -> None:
    with pytest.raises(MissingResourceError) as caught:
        check_weights([resolve(spec)])
    assert str(caught.value).endswith(f"run `ddpo rewards download {command}`")


def test_the_release_of_hpsv2_decides_which_file_is_needed(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "HPS_v2.1_compressed.pt").write_bytes(b"x")
    put(hub, "xswu/HPSv2", "main", tmp_path / "files")
    check_weights([resolve("hpsv2")])
    with pytest.raises(MissingResourceError, match=r"HPS_v2_compressed\.pt.*release=v2\.0"):
        check_weights([resolve("hpsv2:release=v2.0")])


@pytest.fixture(scope="module")
def without_tokenizer(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Path:
    """A working folder with a run, images, and a cache in which CLIP has no tokenizer."""
    from ddpo.trainer import config_for, train

    folder = tmp_path_factory.mktemp("partly")
    Image.new("RGB", (8, 8), (200, 10, 10)).save(folder / "a.png")
    (folder / "full").mkdir()
    shutil.copy(folder / "a.png", folder / "full" / "a cat.png")
    (folder / "mine.py").write_text("def f(images, prompts):\n    return [0.0 for _ in images]\n")
    (weight,) = resolve("clip_score").card.weights
    snapshot = put(folder / "hub", weight.source, weight.revision, folders["clip"])
    for name in ("vocab.json", "merges.txt"):
        (snapshot / name).unlink()
    sample = {"samples": 4, "per_prompt": 2, "steps": 2, "batch": 4}
    brief = {"timesteps": 1, "updates": 1}
    config = config_for({"reward": "darkness", "iterations": 1, "sample": sample, "optim": brief})
    for _ in train(config, folder / "run"):
        pass
    return folder


@pytest.mark.parametrize("line", LINES)
def test_every_command_answers_at_once(line: str, without_tokenizer: Path) -> None:
    variables = {
        "HF_HUB_CACHE": str(without_tokenizer / "hub"),
        "DDPO_CACHE": str(without_tokenizer / "none"),
    }
    words = shlex.split(line.format("clip_score"))
    code, errors, seconds = run(without_tokenizer, *words, **variables)
    assert (code, len(errors.strip().splitlines())) == (2, 1), errors
    assert "`ddpo rewards download clip_score`" in errors
    assert "hf download" not in errors
    assert seconds <= WEIGHTS_SECONDS
    assert not (without_tokenizer / "new").exists()
