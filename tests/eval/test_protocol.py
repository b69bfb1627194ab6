"""Pairing, resuming and refusing, on a model in closed form."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from analytic import SETTINGS, AnalyticPolicy, Brightness, Redness, make_splits
from PIL import Image

from ddpo.errors import ConfigError, RewardFailure, RunExistsError
from ddpo.eval.protocol import EvalProgress, Evaluation, Split, evaluate
from ddpo.eval.tables import Pair, gain_table, matched_pairs, transfer_table
from ddpo.rewards.scorer import Scorer
from ddpo.types import ImageBatch, Prompt, RewardOutput

SPLIT = Split("few", "seen", tuple(Prompt(text) for text in ("a cat", "a dog", "a yak")))


def _run(shift: float, out: Path | None = None, **changes: object) -> Evaluation:
    settings: dict[str, object] = {"seeds": 2, "sampler": SETTINGS, "seed": 1, "out": out} | changes
    return evaluate(AnalyticPolicy(shift), [SPLIT], [Scorer(Brightness())], **settings)  # type: ignore[arg-type]


def test_without_training_every_difference_is_exactly_zero() -> None:
    pairs = matched_pairs(_run(0.0).rows)
    assert len(pairs) == 6
    assert all(pair.gain("brightness") == 0.0 for pair in pairs)
    assert len({pair.base["brightness"] for pair in pairs}) == 6  # and yet every picture is its own


def test_the_gain_is_what_the_shift_does_to_a_gaussian() -> None:
    # Latents are N(m, s²) whatever the noise: shifting m by d shifts each latent by d (4 coarse steps: nearly), so gains are positive
    # and, to first order, 255 · d · mean of sigmoid'. With 192 latents per picture the pairs differ little.
    found = _run(0.4, sampler=type(SETTINGS)(steps=50, guidance=1.0, eta=1.0, batch=4))
    gain = gain_table(found, matched_pairs(found.rows))[0].paired
    expected = []
    random = np.random.default_rng(0)
    for prompt in SPLIT.prompts:
        mean = np.frombuffer(hashlib.sha256(prompt.text.encode()).digest()[:3], np.uint8) / 127.5 - 1
        draws = mean + random.normal(0, 0.5, (200_000, 3))
        expected.append(255 * (1 / (1 + np.exp(-draws - 0.4)) - 1 / (1 + np.exp(-draws))).mean())
    assert gain.gain.mean == pytest.approx(np.mean(expected), rel=0.03)
    assert gain.wins.rate == 1.0


def test_a_picture_does_not_depend_on_which_prompts_come_with_it() -> None:
    rows = {(r.policy, r.prompt_id, r.index): r.image_sha256 for r in _run(0.4).rows}
    alone = evaluate(
        AnalyticPolicy(0.4), [Split("one", "objects", SPLIT.prompts[2:])], [Scorer(Brightness())], seeds=1, sampler=SETTINGS, seed=1
    ).rows
    assert [rows[r.policy, r.prompt_id, r.index] for r in alone] == [r.image_sha256 for r in alone]


def test_going_on_equals_never_having_stopped(tmp_path: Path) -> None:
    whole = _run(0.4, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(event: EvalProgress) -> None:
        if event.done >= 8:
            raise Stop

    out = tmp_path / "stopped"
    with pytest.raises(Stop):
        _run(0.4, out, observe=stop)
    pictures = sorted((out / "images" / "few").glob("*.png"))
    assert len(pictures) >= 8
    pictures[0].write_bytes(pictures[0].read_bytes()[:60])  # cut short by a full disk
    events: list[EvalProgress] = []
    assert _run(0.4, out, observe=events.append).rows == whole.rows
    assert events[-1] == EvalProgress("few", "tuned", 12, 12, len(pictures) - 1)
    policy = AnalyticPolicy(0.4)
    evaluate(policy, [SPLIT], [Scorer(Brightness())], seeds=2, sampler=SETTINGS, seed=1, out=out)
    assert policy.calls == 0  # nothing was left to sample


def test_kept_pictures_are_the_ones_that_were_scored(evaluated: tuple[Evaluation, list[Pair], Path]) -> None:
    found, _, folder = evaluated
    for row in found.rows[:20]:
        assert row.image is not None
        assert hashlib.sha256(np.asarray(Image.open(folder / row.image)).tobytes()).hexdigest() == row.image_sha256


def test_pictures_of_another_evaluation_are_refused(tmp_path: Path) -> None:
    _run(0.4, tmp_path, identity={"weights": "a"})
    with pytest.raises(RunExistsError, match="weights"):
        _run(0.4, tmp_path, identity={"weights": "b"})
    with pytest.raises(RunExistsError, match="seed"):
        _run(0.4, tmp_path, identity={"weights": "a"}, seed=2)
    (tmp_path / "images" / "plan.json").unlink()
    with pytest.raises(RunExistsError, match="not made by an evaluation"):
        _run(0.4, tmp_path, identity={"weights": "a"})


def test_unscorable_pictures_are_counted_and_left_out(evaluated: tuple[Evaluation, list[Pair], Path]) -> None:
    found, pairs, _ = evaluated
    gains = {(gain.split, gain.reward): gain.paired for gain in gain_table(found, pairs)}
    assert gains["mine", "brightness"].gain.excluded == 3
    assert gains["mine", "brightness"].gain.n == 3
    assert math.isnan(gains["mine", "brightness"].gain.low)  # one prompt is left
    assert gains["mine", "redness"].gain.excluded == 0
    reasons = {row.error for row in found.rows if math.isnan(row.score)}
    assert reasons == {"not allowed"}


def test_transfer_is_to_held_out_splits_only(evaluated: tuple[Evaluation, list[Pair], Path]) -> None:
    found, pairs, _ = evaluated
    shares = {(transfer.split, transfer.reward): transfer.share for transfer in transfer_table(found, pairs)}
    assert set(shares) == {(split, reward) for split in ("unseen_animals", "mine") for reward in ("brightness", "redness")}
    assert shares["unseen_animals", "brightness"].ratio == pytest.approx(1.0, abs=0.35)  # the shift knows no prompts
    assert "fewer than two" in shares["mine", "brightness"].reason


def test_a_broken_reward_keeps_the_pictures(tmp_path: Path) -> None:
    class Broken(Redness):
        def __call__(self, batch: ImageBatch) -> RewardOutput:
            raise RuntimeError("out of tea")

    with pytest.raises(RewardFailure, match="out of tea"):
        evaluate(AnalyticPolicy(0.4), [SPLIT], [Scorer(Broken())], seeds=2, sampler=SETTINGS, seed=1, out=tmp_path)
    assert len(list((tmp_path / "images" / "few").glob("*.png"))) == SETTINGS.batch


def test_names_must_differ_and_something_must_be_there() -> None:
    with pytest.raises(ConfigError, match="'few'"):
        evaluate(AnalyticPolicy(0.4), [SPLIT, SPLIT], [Scorer(Brightness())], seeds=1, sampler=SETTINGS, seed=1)
    with pytest.raises(ConfigError, match="'brightness'"):
        evaluate(AnalyticPolicy(0.4), [SPLIT], [Scorer(Brightness()), Scorer(Brightness())], seeds=1, sampler=SETTINGS, seed=1)
    with pytest.raises(ConfigError, match="at least one"):
        evaluate(AnalyticPolicy(0.4), make_splits(), [], seeds=1, sampler=SETTINGS, seed=1)
    with pytest.raises(ConfigError, match="seeds"):
        _run(0.4, seeds=0)
