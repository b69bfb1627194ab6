"""People's choices: matched to the images of an evaluation, and counted as by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpo.errors import ConfigError
from ddpo.eval.analysis.people import MatchedChoices, People, match_choices, people_of
from ddpo.eval.command import command_line
from ddpo.eval.config import EvalConfig
from ddpo.eval.generate.samples import Row, Sample, make_row
from ddpo.eval.inputs.judgements import (
    JudgedImage,
    Judgement,
    JudgementFile,
    find_judgements,
)
from ddpo.eval.inputs.models import ModelFacts
from ddpo.images import pixels_sha256
from ddpo.stats.pairwise import CONVENTIONS, pairwise_accuracy
from ddpo.stats.win_rate import clustered_share
from ddpo.types import Prompt

CAT = Prompt("a cat")
DOG = Prompt("a dog")
YAK = Prompt("a  yak")  # two spaces, as a file may have them


def facts(name: str, run: str = "", iteration: int = -1, identity: str = "") -> ModelFacts:
    return ModelFacts(name, name, "lora", run, iteration, -1, "", -1, 2, False, identity)


TUNED = facts("mine", "demo", 8, "f" * 64)
IDENTITY = {"base": "", "mine": "f" * 64}


def digest(text: str) -> str:
    return pixels_sha256(np.frombuffer(text.encode(), np.uint8))


def sample(model: str, split: str, prompt: Prompt, index: int) -> Sample:
    return Sample(model, split, prompt, index, digest(f"{model} {prompt.text} {index}"))


SAMPLES = tuple(
    sample(model, split, prompt, index)
    for model in ("base", "mine")
    for split, prompts in {"seen": (CAT, DOG), "far": (YAK,)}.items()
    for prompt in prompts
    for index in (0, 1)
)


def choice(
    value: float,
    prompt: Prompt = CAT,
    index: int = 0,
    rater: str = "Ada",
    models: Sequence[str] = ("base", "mine"),
) -> Judgement:
    """A row of `ddpo label`; 1 prefers the first of the models."""
    images = (
        JudgedImage(digest(f"{model} {prompt.text} {index}"), model, IDENTITY[model])
        for model in models
    )
    return Judgement(value, rater, *images, " ".join(prompt.text.split()), "", index)


def matched(*judgements: Judgement, samples: Sequence[Sample] = SAMPLES) -> MatchedChoices:
    file = JudgementFile("choices.csv", judgements)
    return match_choices([file], samples, [TUNED])


def analysed(*judgements: Judgement, rows: Sequence[Row] = (), **directions: int) -> People:
    found = people_of(matched(*judgements), rows, [TUNED], ("seen", "far"), directions)
    assert found is not None
    return found


def test_win_rates_by_list_and_in_all() -> None:
    """Cat: base, tie; dog: tuned; yak: tuned, tuned, the second shown the other way round."""
    people = analysed(
        choice(1, CAT, 0),
        choice(0.5, CAT, 1),
        choice(0, DOG, 0),
        choice(0, YAK, 0),
        choice(1, YAK, 1, models=("mine", "base")),
    )
    rates = {one.split: (one.share.mean, one.share.n, one.share.clusters) for one in people.wins}
    assert rates == {
        "": ((0 + 0.5 + 1 + 1 + 1) / 5, 5, 3),
        "seen": ((0 + 0.5 + 1) / 3, 3, 2),
        "far": (1, 2, 1),
    }
    assert [one.ties for one in people.wins] == [1, 1, 0]
    by_prompt = clustered_share([0, 0.5, 1, 1, 1], ["cat", "cat", "dog", "yak", "yak"])
    assert people.wins[0].share == by_prompt
    assert math.isnan(people.wins[2].share.low)  # one prompt
    assert (people.choices, people.unmatched, people.agreement) == (5, 0, None)


def test_a_prompt_of_two_lists_counts_in_each_and_once_in_all() -> None:
    both = (*SAMPLES, sample("base", "far", CAT, 0), sample("mine", "far", CAT, 0))
    found = people_of(matched(choice(0), samples=both), (), [TUNED], ("seen", "far"), {})
    assert found is not None
    assert [(one.split, one.share.n) for one in found.wins] == [("", 1), ("seen", 1), ("far", 1)]


def scored(**scores: float) -> list[Row]:
    """Rows of the reward "taste" with scores by "MODEL_PROMPT_INDEX"."""
    return [
        make_row(one, "taste", "", value)
        for name, value in scores.items()
        for one in SAMPLES
        if name == f"{one.model}_{one.prompt.text.split()[-1]}_{one.index}"
    ]


def test_agreement_of_a_reward_leaves_out_ties_and_images_without_a_score() -> None:
    """Of four decided choices one has no score, two agree, and one has equal scores."""
    rows = scored(
        base_cat_0=1.0,
        mine_cat_0=2.0,
        base_cat_1=1.0,
        mine_cat_1=5.0,
        base_dog_0=3.0,
        mine_dog_0=1.0,
        base_dog_1=2.0,
        mine_dog_1=2.0,
        base_yak_0=2.0,
        mine_yak_0=math.nan,
    )
    judgements = (
        choice(0, CAT, 0),  # mine, as the reward
        choice(0.5, CAT, 1),  # a tie
        choice(1, DOG, 0),  # base, as the reward
        choice(1, DOG, 1),  # equal scores
        choice(0, YAK, 0),  # no score
    )
    (higher,) = analysed(*judgements, rows=rows, taste=1).judges
    assert (higher.reward, higher.accuracy.value, higher.accuracy.n) == ("taste", 2 / 3, 3)
    expected = pairwise_accuracy(
        CONVENTIONS["imagereward"],
        np.array([0, 1, 1.0]),
        np.array([1 - 2.0, 3 - 1.0, 0.0]),
        ["cat", "dog", "dog"],
    )
    assert (higher.accuracy.low, higher.accuracy.high) == (expected.low, expected.high)
    (lower,) = analysed(*judgements, rows=rows, taste=-1).judges
    assert lower.accuracy.value == 0  # it prefers the other image twice
    assert analysed(choice(0.5), rows=rows, taste=1).judges == ()
    assert analysed(choice(0), taste=1).judges == ()


def test_agreement_of_two_raters_by_hand() -> None:
    """Of five common pairs three agree: base, tuned, tie; then base/tuned and tuned/tie.

    p_o = 3/5. Ada: base 2, tuned 2, tie 1; Ben: base 1, tuned 2, tie 2.
    p_e = (2·1 + 2·2 + 1·2) / 25 = 8/25, so κ = (15/25 - 8/25) / (17/25) = 7/17.
    Ratings: base 3, tuned 4, tie 3, n = 10; ordered unequal pairs 100 - (9 + 16 + 9) = 66 in all
    and 2 + 2 within pairs, so α = 1 - 9 · 4 / 66 = 5/11.
    """
    places = [(CAT, 0), (CAT, 1), (DOG, 0), (DOG, 1), (YAK, 0)]
    ada = [1, 0, 0.5, 1, 0]
    ben = [1, 0, 0.5, 0, 0.5]
    judgements = [
        *(choice(value, *place) for value, place in zip(ada, places, strict=True)),
        *(
            choice(1 - value, *place, rater="Ben", models=("mine", "base"))
            for value, place in zip(ben, places, strict=True)
        ),
        choice(1, YAK, 1, rater="Ben"),  # Ada did not judge it
        choice(1, CAT, 0, rater=""),  # nobody's name
    ]
    agreement = analysed(*judgements).agreement
    assert agreement is not None
    assert (agreement.raters, agreement.pairs) == (2, 5)
    assert agreement.kappa == pytest.approx(7 / 17, rel=1e-12)
    assert agreement.alpha == pytest.approx(5 / 11, rel=1e-12)


def test_three_raters_have_alpha_alone_and_equal_choices_neither() -> None:
    three = analysed(*(choice(v, DOG, i, r) for r, v, i in (("a", 1, 0), ("b", 1, 0), ("c", 0, 0))))
    assert three.agreement is not None
    assert math.isnan(three.agreement.kappa)
    # ratings 2 and 1: D_e ∝ 9 - 5 = 4, D_o: 4 / (3 - 1) = 2, α = 1 - 2 · 2 / 4 = 0
    assert three.agreement.alpha == 0
    equal = analysed(choice(1, rater="a"), choice(1, rater="b")).agreement
    assert equal is not None
    assert (equal.pairs, math.isnan(equal.kappa), math.isnan(equal.alpha)) == (1, True, True)
    apart = analysed(choice(1, CAT, 0, "a"), choice(1, CAT, 1, "b")).agreement
    assert apart is not None
    assert (apart.raters, apart.pairs, math.isnan(apart.alpha)) == (2, 0, True)


def test_a_later_choice_of_a_rater_replaces_the_earlier_one() -> None:
    people = analysed(choice(1), choice(0), choice(1, rater="Ben"))
    assert people.choices == 2
    assert people.wins[0].share.mean == 0.5
    unnamed = analysed(choice(1, rater=""), choice(0, rater=""))
    assert unnamed.choices == 2


def without_digests(one: Judgement, name: str = "mine") -> Judgement:
    """The choice by identity alone."""
    return replace(
        one, first=JudgedImage("", "base", ""), second=JudgedImage("", name, one.second.identity)
    )


def test_without_digests_a_choice_is_matched_by_prompt_number_and_model() -> None:
    by_identity = without_digests(choice(0, YAK, 1), "another name")
    assert analysed(by_identity).wins[0].share.mean == 1
    named = replace(by_identity, second=JudgedImage("", "demo@8", ""))  # as `ddpo label` names it
    assert analysed(named).wins[0].share.mean == 1
    for wrong in (
        replace(by_identity, index=2),
        replace(by_identity, index=-1),
        replace(by_identity, prompt="a goat"),
        replace(by_identity, split="seen"),
        replace(by_identity, second=JudgedImage("", "demo@9", "")),
        replace(by_identity, second=JudgedImage("", "", "")),
    ):
        with pytest.raises(ConfigError, match=r"no choice in choices\.csv \(1 in all\) is"):
            matched(wrong)


def test_digests_of_other_images_match_nothing_even_if_names_do() -> None:
    other = replace(choice(0), first=JudgedImage("0" * 64, "base", ""))
    kept = choice(0, DOG)
    found = matched(other, kept)
    assert (len(found.choices), found.unmatched) == (1, 1)
    assert found.notes == (
        "1 of 2 choices of people in choices.csv could be matched with images of this evaluation.",
    )


def test_images_of_two_prompts_are_no_pair() -> None:
    mixed = replace(choice(0), second=choice(0, DOG).second, prompt="")
    with pytest.raises(ConfigError, match="about two images of this evaluation"):
        matched(mixed)
    assert len(matched(replace(choice(0), prompt="")).choices) == 1  # the pixels say the prompt


def test_an_image_that_both_models_made_counts_as_a_tie_unless_the_file_names_them() -> None:
    same = tuple(replace(one, sha256=digest(one.prompt.text)) for one in SAMPLES)
    image = digest(CAT.text)
    bare = Judgement(1, "Ada", JudgedImage(image, "", ""), JudgedImage(image, "", ""), CAT.text)
    named = replace(
        bare, first=JudgedImage(image, "base", ""), second=JudgedImage(image, "mine", "")
    )
    for judgement, mean in ((bare, 0.5), (named, 0.0)):
        found = people_of(matched(judgement, samples=same), (), [TUNED], ("seen",), {})
        assert found is not None
        assert found.wins[0].share.mean == mean


def test_a_discovered_file_without_a_match_is_a_note() -> None:
    lost = replace(choice(0), first=JudgedImage("0" * 64, "base", ""))
    file = JudgementFile("runs/demo/preferences.parquet", (lost,), is_discovered=True)
    found = match_choices([file], SAMPLES, [TUNED])
    assert found.choices == ()
    assert found.notes == (
        "0 of 1 choice of people in runs/demo/preferences.parquet could be matched with "
        "images of this evaluation.",
    )
    assert people_of(found, (), [TUNED], ("seen",), {}) is None
    assert people_of(MatchedChoices(), (), [TUNED], ("seen",), {}) is None


def test_files_are_found_in_run_folders_and_by_name(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    line = {"image_a": "a.png", "image_b": "b.png", "label": "a", "sha256_a": "0" * 64}
    (run / "preferences.jsonl").write_text(json.dumps(line))
    (run / "preferences.csv").write_text("image_a,image_b\na,b\n")  # no label
    (run / "preferences.parquet.answers.jsonl").write_text("{}")
    (tmp_path / "elsewhere.csv").write_text("image_a,image_b,label\nx,y,tie\n")
    (run / "preferences.parquet").symlink_to(tmp_path / "elsewhere.csv")
    named = [str(tmp_path / "elsewhere.csv"), str(run / "preferences.jsonl")]
    files, notes = find_judgements((), [run], ())
    assert [(file.path, file.is_discovered) for file in files] == [(named[1], True)]
    assert files[0].judgements[0].first.sha256 == "0" * 64
    assert len(notes) == 1
    assert "preferences.csv:2: no label" in notes[0]
    files, _ = find_judgements(named, [run], ())
    assert [(file.path, file.is_discovered) for file in files] == [(one, False) for one in named]
    for wrong, text in (("none.csv", "no such file"), ("run/preferences.csv", "no label")):
        with pytest.raises(ConfigError, match=text):
            find_judgements([str(tmp_path / wrong)], [], ())
    (tmp_path / "empty.csv").write_text("image_a,image_b,label\n")
    with pytest.raises(ConfigError, match=r"empty\.csv holds no choice of a person"):
        find_judgements([str(tmp_path / "empty.csv")], [], ())


def test_image_files_stand_in_for_missing_digests_in_named_files_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for folder in (tmp_path, run):
        for name, level in (("a", 10), ("b", 200)):
            Image.new("RGB", (4, 4), (level, 0, 0)).save(folder / f"{name}.png")
    text = "image_a,image_b,label,prompt\na.png,b.png,b,a cat\na.png,missing.png,b,a cat\n"
    (tmp_path / "mine.csv").write_text(text + "a.png,b.png,b,another prompt\n")
    (run / "preferences.csv").write_text(text)
    files, _ = find_judgements([str(tmp_path / "mine.csv")], [run], [CAT])
    red = pixels_sha256(np.full((4, 4, 3), (10, 0, 0), np.uint8))
    assert [one.first.sha256 for one in files[0].judgements] == [red, red, ""]
    assert [bool(one.second.sha256) for one in files[0].judgements] == [True, False, False]
    assert {one.first.sha256 for one in files[1].judgements} == {""}


def test_a_notebook_gives_one_path_or_several(tmp_path: Path) -> None:
    path = tmp_path / "a b.csv"
    for given in (path, str(path), [path], (str(path),)):
        config = EvalConfig(checkpoints=("run",), preferences=given)  # type: ignore[arg-type]
        assert config.preferences == (str(path),)
        assert command_line(config) == f"ddpo eval --checkpoint run --preferences '{path}'"
