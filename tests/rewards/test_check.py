"""The conformance kit: sound rewards pass, and each planted fault fails its own check."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import faulty
import numpy as np
import pytest
import torch

from ddpo.errors import ConfigError, UnknownNameError
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import CheckResult, check_reward
from ddpo.rewards.check.reward_under_test import tolerance_of
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.zoo import rewards
from ddpo.types import Prompt

IN_PROCESS = sorted(set(all_checks()) - {"light-listing", "missing-weights"})
QUICK = sorted(set(IN_PROCESS) - {"threads", "memory"})
NEEDS_WEIGHTS = [
    name
    for name, card in CARDS.items()
    if any(not weight.source.startswith("package:") for weight in card.weights)
]


def checked(
    reward: type, only: Collection[str] = IN_PROCESS, **keywords: Any
) -> dict[str, CheckResult]:
    card = reward.card
    options = {option.name: option.default for option in card.options}
    found = ResolvedReward(card, options, "tests", reward)
    return {result.name: result for result in check_reward(found, only=only, **keywords)}


def wrong(results: dict[str, CheckResult]) -> dict[str, str]:
    return {name: result.detail for name, result in results.items() if not result.ok}


@pytest.mark.parametrize("name", sorted(name for name, card in CARDS.items() if not card.weights))
def test_every_reward_without_weights_passes(name: str) -> None:
    results = {result.name: result for result in check_reward(name)}
    assert wrong(results) == {}
    passed = {name for name, result in results.items() if result.outcome == "passed"}
    assert passed >= set(all_checks()) - {
        "missing-weights",
        "rounding",
        "long-prompt",
        "golden-scores",
        "direction",
        "score-range",
        "threads",
    }


@pytest.mark.parametrize("name", NEEDS_WEIGHTS)
def test_without_weights_the_card_is_checked_and_the_rest_skipped(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path))
    results = {result.name: result for result in check_reward(name)}
    assert wrong(results) == {}
    passed = {name for name, result in results.items() if result.outcome == "passed"}
    assert passed == {
        "card-valid",
        "card-round-trip",
        "card-options",
        "cache-key",
        "light-listing",
        "missing-weights",
    }
    assert name in results["construction"].detail
    assert results["gradient"].detail == "something that it needs is not here, see `construction`"


@pytest.mark.parametrize("reward", [faulty.Sound, faulty.Light, faulty.Words])
def test_the_rewards_that_the_faults_are_planted_in_are_sound(reward: type) -> None:
    assert wrong(checked(reward)) == {}


def test_a_combination_and_a_function_of_a_file_pass(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def bright(images, gain=1.0):\n    return gain * images.mean((1, 2, 3)) / 255\n"
    )
    for reward in (f"{tmp_path / 'mine.py'}:bright", "darkness:2 + symmetry:0.5"):
        results = {result.name: result for result in check_reward(reward, only=IN_PROCESS)}
        assert wrong(results) == {}


FAULTS: list[tuple[type, str, str]] = [
    (faulty.OtherKernelForLargeBatches, "batch-sizes", "image 0 of 64×64 in a batch of 16"),
    (
        faulty.WritesPixels,
        "input-unchanged",
        "pixels of a batch made of floats were changed in place",
    ),
    (
        faulty.WritesThroughNumpy,
        "input-unchanged",
        "pixels of a batch made of floats were changed in place",
    ),
    (
        faulty.WritesBytes,
        "input-unchanged",
        "the bytes of a batch made of floats were changed in place",
    ),
    (
        faulty.ShrinksImages,
        "input-unchanged",
        "the PIL images of a batch made of floats were changed in place",
    ),
    (faulty.WritesMetadata, "input-unchanged", "metadata of a prompt was changed"),
    (faulty.AlwaysZero, "no-silent-score", "all score exactly 0"),
    (faulty.TakesTheWrongScale, "pixel-scale", "within the card's range"),
    (faulty.OutOfRange, "score-range", "outside the range 0.0 … 1.0"),
    (faulty.SeedsTorch, "random-state", "scoring changes the global generator of torch"),
    (faulty.DrawsFromNumpy, "random-state", "scoring changes the global generator of numpy.random"),
    (faulty.SeedsWhenMade, "random-state", "making it seeds the global generator of random"),
    (faulty.SetsThreads, "global-settings", "torch's number of threads"),
    (faulty.SwitchesGradientsOff, "global-settings", "torch's gradient mode from True to False"),
    (faulty.Truncates, "rounding", "0.4 of a level below its bytes"),
    (faulty.NotDeterministic, "repeatability", "scored a second time"),
    (faulty.RandomWhenMade, "repeatability", "scored by a second instance"),
    (faulty.SilentNaN, "contract", "a NaN needs a reason"),
    (faulty.Float64, "contract", "values must be float32 [batch], got torch.float64"),
    (faulty.ReturnsAList, "contract", "returned a list, not a RewardOutput"),
    (faulty.NeedsOneImage, "empty-batch", "ValueError: need at least one array to stack"),
    (faulty.Detaches, "gradient", "says differentiable, but the scores carry no gradient"),
    (faulty.HasParameters, "gradient", "no gradient reaches the pixels"),
    (faulty.HalfAGradient, "gradient", "along a random direction the gradient says"),
    (faulty.GradientOfOneChannel, "gradient", "the gradient says"),
    (
        faulty.UndeclaredGradient,
        "gradient",
        "carry a gradient, but the card does not say differentiable",
    ),
    (faulty.SharedBuffer, "threads", "with 8 threads, "),
    (faulty.WrongGolden, "golden-scores", "checker scores 127.5 instead of 127.6 ± 0.05"),
    (faulty.KeepsBatches, "memory", "kB are left after 10 uses"),
    (faulty.KeepsTensors, "memory", "tensors or images are left after 10 uses"),
    (faulty.HiddenOption, "card-options", "parameter 'gain' is not on the card"),
    (faulty.HidesTruncation, "long-prompt", "the last 100 of 1000 words do not move the score"),
    (faulty.ReadsPrompts, "declared-inputs", "with another prompt, which the card does not list"),
    (faulty.ReadsProgress, "declared-inputs", "with another context, which the card does not list"),
    (faulty.GreyIsAnError, "picture-modes", "ZeroDivisionError: no colour"),
    (faulty.FailsOnUnicode, "prompt-texts", "faulty.py:405: UnicodeEncodeError"),
    (faulty.ClosesOnce, "construction", "AssertionError: closed twice"),
    (faulty.OtherCard, "construction", "has another card ('test/sound', version 2)"),
    (faulty.CannotBeMade, "construction", "KeyError: 'no such thing'"),
    (faulty.BadCard, "card-valid", "typical (3.0, 2.0, 300.0) does not rise"),
    (faulty.CardWithAFunction, "card-round-trip", "something that JSON does not"),
]
"""Reward, the only check that catches its fault, and words of the detail."""

FAULTS_SEEN_TWICE: list[tuple[type, str, str, set[str]]] = [
    (
        faulty.BatchNormaliser,
        "batch-invariance",
        "alone instead of with the others",
        {"batch-sizes"},
    ),
    (
        faulty.SortedOutput,
        "order",
        "at another place of the batch",
        {"batch-invariance", "batch-sizes"},
    ),
    (faulty.SilentZero, "no-silent-score", "pixels are NaN gets the score 0", {"pixel-scale"}),
    (faulty.UpsideDown, "direction", "grey (-128) should score above black", {"golden-scores"}),
    (
        faulty.NeedsASquare,
        "picture-sizes",
        "1×4096: returned 8192 scores for 2 images",
        {"picture-modes", "gradient", "batch-sizes"},
    ),
    (
        faulty.OtherDefault,
        "card-options",
        "option 'gain' is 2.0 on the card and 1.0 in the constructor",
        {"construction"},
    ),
]
"""The same with the other checks that the fault fails as well."""

FAULTS_SEEN_EVERYWHERE: list[tuple[type, str, str]] = [
    (faulty.Squeezes, "single-picture", "values must be float32 [batch]"),
    (faulty.RunningNormaliser, "repeatability", "scored a second time"),
]
"""Faults that change every second call."""


@pytest.mark.parametrize(
    ("reward", "name", "detail"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS]
)
def test_a_planted_fault_is_caught_by_its_check_alone(reward: type, name: str, detail: str) -> None:
    found = wrong(checked(reward, {*QUICK, name}))
    assert set(found) == {name}, found
    assert detail in found[name]
    assert "\n" not in found[name]


@pytest.mark.parametrize(
    ("reward", "name", "detail", "others"),
    FAULTS_SEEN_TWICE,
    ids=[fault[0].__name__ for fault in FAULTS_SEEN_TWICE],
)
def test_a_planted_fault_is_caught_by_its_check_and_related_ones(
    reward: type, name: str, detail: str, others: set[str]
) -> None:
    found = wrong(checked(reward, QUICK))
    assert set(found) == {name, *others}, found
    assert detail in found[name]


@pytest.mark.parametrize(
    ("reward", "name", "detail"), FAULTS_SEEN_EVERYWHERE, ids=["Squeezes", "RunningNormaliser"]
)
def test_a_planted_fault_that_spoils_most_calls_is_caught_by_its_check(
    reward: type, name: str, detail: str
) -> None:
    assert detail in wrong(checked(reward, QUICK))[name]


def replaced(base: type, **fields: Any) -> type:
    return type(base.__name__, (base,), {"card": dataclasses.replace(base.card, **fields)})


@pytest.mark.parametrize(
    ("reward", "skipped", "reason"),
    [
        (
            replaced(faulty.NotDeterministic, deterministic=False),
            {"order", "batch-invariance", "repeatability"},
            "not deterministic",
        ),
        (
            replaced(faulty.BatchNormaliser, batch_invariant=False),
            {"batch-invariance"},
            "not batch-invariant",
        ),
        (
            replaced(faulty.BatchNormaliser, inputs=("image", "group")),
            {"batch-invariance", "single-picture"},
            "groups are judged",
        ),
        (replaced(faulty.SharedBuffer, thread_safe=False), {"threads"}, "the scorer takes a lock"),
        (replaced(faulty.Sound, golden=()), {"golden-scores"}, "no golden scores"),
        (faulty.Light, {"rounding"}, "floats are scored"),
    ],
)
def test_checks_that_the_card_rules_out_are_skipped(
    reward: type, skipped: set[str], reason: str
) -> None:
    results = checked(reward, {*QUICK, *skipped})
    assert wrong(results) == {}
    for name in skipped:
        assert results[name].outcome == "skipped"
        assert reason in results[name].detail


def test_an_expected_failure_is_reported_as_such_and_one_that_passes_is_a_failure() -> None:
    expected = {"rounding": "the original cuts off too", "order": "not yet"}
    results = checked(faulty.Truncates, QUICK, expected_failures=expected)
    assert (results["rounding"].outcome, results["rounding"].ok) == ("expected", True)
    assert results["rounding"].detail.startswith("the original cuts off too (")
    assert (results["order"].outcome, results["order"].ok) == ("unexpected pass", False)
    assert set(wrong(results)) == {"order"}


def test_mistakes_in_the_arguments_are_named() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown check 'batch-invarance'; did you mean 'batch-invariance'"
    ):
        check_reward("darkness", expected_failures={"batch-invarance": "x"})
    with pytest.raises(UnknownNameError, match="unknown check 'ordr'"):
        check_reward("darkness", only=["ordr"])
    with pytest.raises(ConfigError, match="'order' needs a reason"):
        check_reward("darkness", expected_failures={"order": " "})
    with pytest.raises(UnknownNameError, match="did you mean 'darkness'"):
        check_reward("darknes")


def test_a_reward_that_was_made_is_checked_without_making_another() -> None:
    results = {result.name: result for result in check_reward(faulty.Sound(), only=QUICK)}
    assert wrong(results) == {}
    assert results["card-options"].outcome == "skipped"
    assert results["repeatability"].detail == "a second instance was not made"


def test_metadata_comes_with_the_prompt_that_is_given() -> None:
    class Counts(faulty.Sound):
        card = dataclasses.replace(
            faulty.SOUND,
            inputs=("image", "metadata"),
            metadata=("objects",),
            range=(0.0, None),
            golden=(),
        )

        def __call__(self, batch: Any) -> Any:
            counts = [prompt.metadata.get("objects") for prompt in batch.prompts]
            scores = [
                np.nan if n is None else mean + n
                for mean, n in zip(faulty.means(batch.uint8), counts, strict=True)
            ]
            return faulty.output(
                scores, errors=tuple("no objects are named" if n is None else None for n in counts)
            )

    class ZeroWithout(Counts):
        def __call__(self, batch: Any) -> Any:
            found = super().__call__(batch)
            return faulty.output(torch.nan_to_num(found.values).tolist())

    assert wrong(checked(Counts, QUICK, prompt=Prompt("two cats", {"objects": 2}))) == {}
    assert (
        "no objects are named; give a prompt with its metadata"
        in wrong(checked(Counts, QUICK))["contract"]
    )
    found = wrong(checked(ZeroWithout, QUICK, prompt=Prompt("two cats", {"objects": 2})))
    assert found == {"no-silent-score": "images without the metadata that it needs score exactly 0"}


def test_the_goldens_are_promised_for_the_default_options_only() -> None:
    class Gain(faulty.Sound):
        card = dataclasses.replace(faulty.SOUND, options=(faulty.RewardOption("gain", 1.0, ""),))

        def __init__(self, gain: float = 1.0) -> None:
            self.gain = gain

        def __call__(self, batch: Any) -> Any:
            return faulty.output([self.gain * score for score in faulty.means(batch.uint8)])

    assert wrong(checked(Gain, QUICK)) == {}
    found = ResolvedReward(Gain.card, {"gain": 3.0}, "tests", Gain)
    results = {
        result.name: result for result in check_reward(found, only=["golden-scores", "score-range"])
    }
    assert [result.outcome for result in results.values()] == ["skipped", "skipped"]
    assert "options were changed" in results["golden-scores"].detail


@pytest.mark.parametrize(
    "reward",
    [
        faulty.SeedsTorch,
        faulty.DrawsFromNumpy,
        faulty.SeedsWhenMade,
        faulty.SetsThreads,
        faulty.Sound,
    ],
)
def test_the_kit_leaves_global_state_as_it_was(reward: type) -> None:
    def global_state() -> list[Any]:
        return [
            random.getstate(),
            # the global generator is the old one
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
        ]

    before = [*global_state(), sys.getswitchinterval()]
    checked(reward, {*QUICK, "threads"})
    assert [*global_state(), sys.getswitchinterval()] == before


def test_tolerances_by_dtype() -> None:
    expected = {"float64": 1e-6, "float32": 1e-4, "float16": 1e-2, "bfloat16": 4e-2}
    assert {dtype: tolerance_of(dtype) for dtype in expected} == expected
    assert tolerance_of("float16 on a GPU, float32 on a CPU") == 1e-2
    assert tolerance_of("as the function returns") == 1e-4


def test_the_key_of_a_card_that_forgets_an_option_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ddpo.rewards.check import card as card_checks

    def forgetful(card: RewardCard, options: object, origin: str) -> str:
        return f"{card.id} {card.weights} {card.dtype}"

    monkeypatch.setattr(card_checks, "identity", forgetful)
    card = dataclasses.replace(faulty.SOUND, options=(faulty.RewardOption("gain", 1.0, ""),))
    reward = ResolvedReward(card, {"gain": 1.0}, "tests", faulty.Sound)
    (result,) = check_reward(reward, only=["cache-key"])
    assert result.outcome == "failed"
    assert result.detail == "does not change with version, preprocessing, option gain"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a distribution: reward `heavy/one` of the module `heavy_cards`."""
    info = tmp_path / "heavy_rewards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy-rewards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ddpo.rewards]\nheavy/one = heavy_cards:CARD\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(rewards, "_entries", None)
    yield tmp_path
    sys.modules.pop("heavy_cards", None)


CARD = """
from ddpo.rewards.card import RewardCard, WeightFile
CARD = RewardCard(id="heavy/one", version="1", summary="s", load="{load}",
                  family="f", flaws="f", unit="u", weights={weights})
"""
REWARD = """
from ddpo.errors import MissingResourceError
class R:
    def __init__(self):
        {body}
    def __call__(self, batch):
        import torch
        from ddpo.types import RewardOutput
        return RewardOutput(torch.ones(len(batch)))
"""
WEIGHTS = "(WeightFile('a/b', 'main', None, 1.0, 'MIT'),)"


@pytest.mark.parametrize(
    ("head", "outcome"), [("import PIL.Image, numpy\n", "failed"), ("import json\n", "passed")]
)
def test_a_heavy_import_at_listing_is_caught(installed: Path, head: str, outcome: str) -> None:
    (installed / "heavy_cards.py").write_text(head + CARD.format(load="faulty:Sound", weights="()"))
    (result,) = check_reward("heavy/one", only=["light-listing"])
    assert result.outcome == outcome
    if outcome == "failed":
        found = "importing heavy_cards loads PIL, numpy"
        assert result.detail == f"{found}: put the card into a module of its own"


@pytest.mark.parametrize(
    ("body", "outcome", "detail"),
    [
        (
            "raise OSError('first\\nsecond')",
            "failed",
            "raises RewardLoadError instead of MissingResourceError: reward 'heavy/one' of",
        ),
        ("raise MissingResourceError('get it there')", "passed", "get it there"),
        ("pass", "failed", "scores without its weights"),
    ],
)
def test_the_error_without_weights_is_checked(
    installed: Path, body: str, outcome: str, detail: str
) -> None:
    (installed / "heavy_reward.py").write_text(REWARD.format(body=body))
    card = CARD.format(load="heavy_reward:R", weights=WEIGHTS)
    card += "import heavy_reward\nheavy_reward.R.card = CARD\n"
    (installed / "heavy_cards.py").write_text(card)
    (result,) = check_reward("heavy/one", only=["missing-weights"])
    assert result.outcome == outcome
    assert detail in result.detail


@pytest.fixture
def tiny_aesthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """`aesthetic` with a random head, and a small random encoder with ViT-L/14's interface."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from ddpo.rewards.models import aesthetic

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 56,
    }
    config = CLIPVisionConfig(**sizes, image_size=224, projection_dim=768, hidden_act="quick_gelu")
    encoder = CLIPVisionModelWithProjection(config).eval().requires_grad_(False)
    weight = torch.randn(768)
    monkeypatch.setattr(aesthetic, "load_clip", lambda *_: encoder)
    monkeypatch.setattr(aesthetic, "load_head", lambda path: (weight, torch.tensor(5.2)))


def test_the_aesthetic_reward_with_a_tiny_encoder(tiny_aesthetic: None) -> None:
    names = {*IN_PROCESS} - {"picture-sizes"}
    results = {result.name: result for result in check_reward("aesthetic", only=names)}
    assert wrong(results) == {}
    for name in ("batch-invariance", "rounding", "memory", "score-range"):
        assert results[name].outcome == "passed"


def test_an_embedding_that_a_shared_encoder_remembers_hides_no_fault(
    tiny_aesthetic: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpo.rewards.models import aesthetic

    embeddings = aesthetic.clip_embeddings

    def coupled(*arguments: Any) -> Any:
        embed = embeddings(*arguments)
        return lambda batch: (found := embed(batch)) - 0.5 * found.mean(0)

    monkeypatch.setattr(aesthetic, "clip_embeddings", coupled)
    results = check_reward("aesthetic", only=["order", "batch-invariance"])
    assert {result.name for result in results if not result.ok} == {"batch-invariance"}
