"""Weights without a fixed revision: their commit is part of the identity, and is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from ddpo.errors import ConfigError
from ddpo.prompts import load_prompts
from ddpo.rewards.cards import CARDS
from ddpo.rewards.hub_cache import floating_commits, hub_repository, is_pinned
from ddpo.rewards.tools.availability import weight_state
from ddpo.rewards.tools.repository_parts import MODEL, PARTS, PATTERNS
from ddpo.rewards.zoo import resolve
from ddpo.trainer.run import manifest
from ddpo.trainer.settings import config_for
from ddpo.weights import hub_snapshot

FIRST = "a" * 40
SECOND = "b" * 40
CLIP = "openai/clip-vit-base-patch32"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def fetched(hub: Path, repository: str, commit: str, branch: str = "main", **files: bytes) -> Path:
    """A snapshot as the hub's client leaves it: blobs, links to them, and the branch's commit."""
    base = hub / f"models--{repository.replace('/', '--')}"
    folder = base / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (files or {"config.json": b"{}"}).items():
        blob = base / "blobs" / f"{commit[:4]}{name}"
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("../../blobs") / blob.name)
    (base / "refs").mkdir(exist_ok=True)
    (base / "refs" / branch).write_text(commit)
    return folder


def test_a_branch_that_moved_is_another_identity(hub: Path) -> None:
    unknown = resolve("clip_score").identity
    fetched(hub, CLIP, FIRST)
    first = resolve("clip_score").identity
    fetched(hub, CLIP, SECOND)
    second = resolve("clip_score").identity
    assert len({unknown, first, second}) == 3
    assert f"commits:{CLIP}@{FIRST}" in first
    assert f"commits:{CLIP}@{SECOND}" in second
    assert "commits:" not in unknown
    fetched(hub, CLIP, FIRST)
    assert resolve("clip_score").identity == first


def test_a_combination_has_the_commits_of_its_parts(hub: Path) -> None:
    fetched(hub, CLIP, FIRST)
    reward = resolve("clip_score + darkness")
    before = reward.identity
    fetched(hub, CLIP, SECOND)
    assert reward.identity == before.replace(FIRST, SECOND) != before
    assert reward.commits == {CLIP: SECOND}


def test_weights_with_a_hash_or_a_commit_do_not_float(hub: Path) -> None:
    fetched(hub, "openai/clip-vit-large-patch14", FIRST)
    before = resolve("aesthetic").identity
    fetched(hub, "openai/clip-vit-large-patch14", SECOND)
    assert resolve("aesthetic").identity == before


def test_a_repository_that_an_option_replaces_does_not_count(hub: Path, tmp_path: Path) -> None:
    other = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    fetched(hub, CLIP, FIRST)
    fetched(hub, other, SECOND)
    card = CARDS["clip_score"]
    assert floating_commits(card, {}) == {CLIP: FIRST}
    assert floating_commits(card, {"clip": other}) == {other: SECOND}
    assert floating_commits(card, {"clip": str(tmp_path)}) == {}


@pytest.mark.parametrize(
    "text", ["../../../etc", "main", "", "a" * 39, "A" * 40, "a" * 40 + "/..", "é"]
)
def test_a_branch_file_that_holds_no_commit_is_no_snapshot(hub: Path, text: str) -> None:
    folder = fetched(hub, CLIP, FIRST)
    (folder.parents[1] / "refs" / "main").write_text(text)
    assert hub_snapshot(CLIP, "main") is None
    assert floating_commits(CARDS["clip_score"], {}) == {}
    assert hub_snapshot(CLIP, FIRST) == folder


def test_a_run_records_the_commits_and_is_not_resumed_with_others(hub: Path) -> None:
    fetched(hub, CLIP, FIRST)
    config = config_for({"reward": "clip_score"})
    prompts = load_prompts("animals")
    facts = json.loads(json.dumps(manifest.describe(config, resolve("clip_score"), prompts, {}, 1)))
    assert facts["reward"]["commits"] == {CLIP: FIRST}
    manifest.check_unchanged(facts, config, resolve("clip_score"), prompts, {})
    fetched(hub, CLIP, SECOND)
    with pytest.raises(ConfigError, match=f"{CLIP} was at commit a{{12}} and is now at b{{12}}"):
        manifest.check_unchanged(facts, config, resolve("clip_score"), prompts, {})
    del facts["reward"]["commits"]  # a run of an earlier version
    manifest.check_unchanged(facts, config, resolve("clip_score"), prompts, {})


def test_show_says_which_revision_is_pinned(
    hub: Path, ddpo: Callable[..., tuple[int, str, str]]
) -> None:
    _, text, _ = ddpo("rewards", "show", "aesthetic", columns=300)
    assert "openai/clip-vit-large-patch14 @ 32bd64288804 (pinned)" in text
    _, text, _ = ddpo("rewards", "show", "pickscore", columns=300)
    assert "yuvalkirstain/PickScore_v1 @ main (floats)" in text
    fetched(hub, "yuvalkirstain/PickScore_v1", FIRST)
    _, text, _ = ddpo("rewards", "show", "pickscore", columns=300)
    assert f"PickScore_v1 @ main (floats, here at commit {FIRST[:12]})" in text
    _, text, _ = ddpo("rewards", "show", "pickscore", "--json")
    first = json.loads(text)["available"]["weights"][0]
    assert (first["pinned"], first["commit"]) == (False, FIRST)


def test_pages_of_cards_say_which_revision_is_pinned() -> None:
    pages = Path(__file__).parents[2] / "docs" / "reward-cards"
    assert "| yuvalkirstain/PickScore_v1 | main (floats) |" in (pages / "pickscore.md").read_text()
    assert "(pinned) |" in (pages / "aesthetic.md").read_text()


def test_what_counts_as_pinned() -> None:
    weights = {weight.source: weight for card in CARDS.values() for weight in card.weights}
    floating = {source for source, weight in weights.items() if not is_pinned(weight)}
    assert {"xswu/HPSv2", "THUDM/ImageReward", CLIP, "microsoft/deberta-xlarge-mnli"} <= floating
    assert "facebook/dinov2-base" not in floating
    assert not any(source.startswith(("https:", "package:")) for source in floating)


def test_only_needed_files_are_named_for_sources_of_cards() -> None:
    sources = {weight.source for card in CARDS.values() for weight in card.weights}
    assert set(PATTERNS) <= set(PARTS) <= sources


@pytest.mark.parametrize(
    ("reward", "files"),
    [
        ("imagereward", {"ImageReward.pt", "med_config.json", "vocab.txt"}),
        ("hpsv2", {"HPS_v2.1_compressed.pt"}),
        ("hpsv3", {"HPSv3.safetensors", "config.json", "tokenizer.json"}),
    ],
)
def test_a_repository_is_here_when_the_needed_files_are(
    reward: str, files: set[str], hub: Path
) -> None:
    weights = CARDS[reward].weights
    needed = {name for weight in weights for name in PATTERNS[weight.source]}
    assert needed == files
    for weight in weights:
        assert weight_state(weight).path is None
        names = PATTERNS[weight.source]
        for count in range(1, len(names) + 1):
            repository = hub_repository(weight)
            assert repository is not None
            folder = fetched(hub, repository, f"{count}" * 40, **dict.fromkeys(names[:count], b"1"))
            state = weight_state(weight)
            assert state.path == (folder if count == len(names) else None)


def test_the_patterns_of_a_model_leave_other_formats_out() -> None:
    from fnmatch import fnmatch

    def taken(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in MODEL)

    assert all(map(taken, ("config.json", "model.safetensors", "merges.txt", "spiece.model")))
    assert not any(map(taken, ("pytorch_model.bin", "open_clip_pytorch_model.bin", "model.pt")))
