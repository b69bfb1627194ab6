"""What an evaluation decides by itself, and what it refuses before anything is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from ddpo.cli.evaluation_display import announce
from ddpo.errors import CheckpointError, ConfigError, PromptError, UnknownNameError
from ddpo.eval.config import EvalConfig
from ddpo.eval.plan import Plan, plan
from ddpo.prompts import load_prompts
from ddpo.rewards.zoo import resolve


def of(*checkpoints: Path, **settings: object) -> Plan:
    names = tuple(map(str, checkpoints))
    return plan(EvalConfig(checkpoints=names, **settings))  # type: ignore[arg-type]


def test_defaults_come_from_the_run(run_folder: Path) -> None:
    work = of(run_folder)
    assert [reward.id for reward in work.rewards if reward.role == "trained"] == ["darkness"]
    assert {reward.role for reward in work.rewards} >= {"trained", "artefact"}
    assert work.reward_ids[-2:] == ("base_fit", "prompt_evidence")
    assert work.sampler.steps == 4
    assert work.out == run_folder / "eval" / "iteration-000020"
    assert [model.name for model in work.models] == ["one"]
    assert (work.models[0].queries, work.models[0].trained_on, work.models[0].training_seed) == (
        160,
        "darkness",
        0,
    )
    changed = of(run_folder, steps=7, rewards=("symmetry",), out=run_folder / "x", held_out=False)
    assert (changed.sampler.steps, changed.out) == (7, run_folder / "x")
    assert [(reward.id, reward.role) for reward in changed.rewards] == [
        ("darkness", "trained"),
        ("symmetry", "asked"),
    ]
    assert changed.reward_ids == ("darkness", "symmetry")


def test_earlier_checkpoints_of_the_run_come_with_it(runs: Callable[..., Path]) -> None:
    run = runs("long", *range(5, 105, 5))
    work = of(run, history=4)
    assert [(model.name, model.history) for model in work.models] == [
        ("long@25", True),
        ("long@50", True),
        ("long@70", True),
        ("long@95", True),
        ("long", False),
    ]
    assert [model.seeds for model in work.models] == [2, 2, 2, 2, 4]
    assert [model.name for model in of(run, history=0).models] == ["long"]
    (run / "checkpoints" / "iteration-000095" / "policy.json").write_text(
        "{"
    )  # half written: not one of them
    assert [model.name for model in of(run, history=1).models] == ["long@90", "long"]


def test_two_checkpoints_of_a_run_and_other_runs_have_names_of_their_own(
    runs: Callable[..., Path],
) -> None:
    a = runs("a", 10, 20)
    b = runs("b", seed=1)
    work = of(a / "checkpoints" / "iteration-000010", a, b)
    assert [model.name for model in work.models if not model.history] == ["a@10", "a@20", "b"]
    assert len({model.name for model in work.models}) == len(work.models)
    assert work.out == Path("evaluations") / "a@10-a@20-b"
    assert of(a, b).out == Path("evaluations") / "a-b"


def test_best_of_n_costs_as_many_queries_as_the_run(runs: Callable[..., Path]) -> None:
    found = of(runs("long", 90)).best_of  # 720 queries over 45 prompts
    assert found is not None
    assert (found.n, len(found.prompts), found.training_prompts) == (16, 12, 45)
    assert of(runs("short", 1)).best_of is None  # less than one image of each prompt
    assert of(runs("other", 90), best_of=0).best_of is None


def test_roles_follow_what_was_trained_on_not_the_name(run_folder: Path) -> None:
    trained = [prompt.text for prompt in load_prompts("objects").prompts]
    (run_folder / "manifest.json").write_text(json.dumps({"prompts": {"list": trained}}))
    work = of(run_folder, prompts=("animals", "objects"))
    assert [split.role for split in work.splits] == ["external", "seen"]
    assert {prompt.text for prompt in work.seen} == set(trained)


def test_a_checkpoint_outside_a_run_says_what_is_not_known(
    run_folder: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    (run_folder / "checkpoints" / "iteration-000020").rename(alone)
    with pytest.raises(ConfigError, match="--reward"):
        of(alone)
    work = of(alone, rewards=("darkness",))
    assert work.splits[0].role == "seen"
    assert "not known" in work.notes[0]
    planned = of(
        alone, rewards=("darkness",), trained_prompts="objects", prompts=("animals", "objects")
    )
    assert [split.role for split in planned.splits] == ["external", "seen"]
    assert planned.notes == ()


def test_a_changed_reward_and_different_samplers_are_noted(
    run_folder: Path, runs: Callable[..., Path]
) -> None:
    manifest = {"reward": {"card": {"id": "darkness"}, "signature": "reward:darkness|version:0"}}
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    assert "version:0" in of(run_folder).notes[0]
    other = runs("other", sample={"steps": 9, "guidance": 1.0, "eta": 1.0})
    assert any("sampler settings" in note for note in of(run_folder, other).notes)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"prompts": ("unseen_animal",)}, PromptError, "unseen_animals"),
        ({"rewards": ("darknes",)}, UnknownNameError, "darkness"),
        ({"eta": 2.0}, ConfigError, "eta"),
        ({"seeds": 0}, ConfigError, "at least 1"),
        ({"images": ("base=.",)}, ConfigError, "either --checkpoint"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_loaded(
    run_folder: Path, settings: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        of(run_folder, **settings)
    assert "\n" not in str(caught.value)
    assert not (run_folder / "eval").exists()


def test_bad_checkpoints_are_named(
    run_folder: Path, tmp_path: Path, runs: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        of(run_folder, run_folder / "checkpoints" / "iteration-000020")
    other = runs("other")
    facts = other / "checkpoints" / "iteration-000020" / "policy.json"
    facts.write_text(facts.read_text().replace("analytic", "another"))
    with pytest.raises(
        CheckpointError, match=r"other is a checkpoint of the model another, .*one of analytic"
    ):
        of(run_folder, other)
    with pytest.raises(CheckpointError, match="no such"):
        of(tmp_path / "none")
    (run_folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        of(run_folder)
    facts.unlink()
    with pytest.raises(CheckpointError, match="neither"):
        of(other)


def test_what_judges_a_group_is_reported_by_its_parts(run_folder: Path) -> None:
    work = of(run_folder, rewards=("pareto(darkness, symmetry)", "symmetry"), held_out=False)
    assert [reward.id for reward in work.rewards] == ["darkness", "symmetry"]
    with pytest.raises(ConfigError, match="'vendi' judges images as a group"):
        of(run_folder, rewards=("vendi:features=pixels",))


def held_out_of(work: Plan) -> dict[str, object]:
    """Id → the variant of each held-out reward of a plan."""
    found = [reward for reward in work.rewards if reward.role == "heldout"]
    return {reward.id: reward.resolved.options["model"] for reward in found}


def test_embedded_judges_are_the_held_out_rewards_of_the_embedded_model(
    runs: Callable[..., Path], tmp_path: Path
) -> None:
    def run_on(reward: str, model: str = "emoji") -> Path:
        folder = runs(f"{len(list((tmp_path / 'runs').glob('*')))}", model=model, reward=reward)
        for record in folder.rglob("policy.json"):
            record.write_text(json.dumps(json.loads(record.read_text()) | {"model": model}))
        return folder

    (tmp_path / "runs").mkdir()
    both = {"alignment": "emoji", "clip_score": "emoji"}
    darkness = run_on("darkness")
    assert held_out_of(of(darkness)) == both
    assert "--no-held-out" not in of(darkness).command
    assert held_out_of(of(darkness, held_out=False)) == {}
    assert held_out_of(of(run_on("alignment:model=emoji"))) == {"clip_score": "emoji"}
    assert held_out_of(of(run_on("aesthetic:model=emoji"))) == {"alignment": "emoji"}
    # another model: nothing is learned of its world, and no weights of other rewards are here
    assert held_out_of(of(run_on("darkness", "analytic"))) == {}
    # … unless the reward itself is an embedded judge
    assert held_out_of(of(run_on("clip_score:model=emoji", "analytic"))) == {"alignment": "emoji"}
    # a requested reward keeps its role
    asked = of(darkness, rewards=("clip_score:model=emoji",))
    assert held_out_of(asked) == {"alignment": "emoji"}
    assert [reward.role for reward in asked.rewards if reward.id == "clip_score"] == ["asked"]


def test_announced_rewards_are_expressions_that_the_command_line_reads(
    runs: Callable[..., Path],
) -> None:
    """`emoji_geneval` and `emoji_detector` have no other variant, and no option `model`."""
    console = Console(record=True, width=500)
    announce(of(runs("named", reward="emoji_geneval", model="emoji")), console)
    named = re.findall(r"scored by (.*) \((?:trained on|independent)\)", console.export_text())
    rewards = [name for line in named for name in line.split(", ")]
    assert "emoji_geneval" in rewards
    assert [resolve(name).card.id for name in rewards] == [
        name.removesuffix(":model=emoji") for name in rewards
    ]


def test_images_of_another_trainer(tmp_path: Path) -> None:
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
        for line in range(3):
            Image.new("RGB", (8, 8), (40 * line, 0, 0)).save(tmp_path / folder / f"{line:05d}.png")
            (tmp_path / folder / f"{line:05d}.txt").write_text(f"a thing number {line}")
    images = (f"base={tmp_path / 'before'}", f"mine={tmp_path / 'after'}")
    work = plan(EvalConfig(images=images, rewards=("darkness",)))
    assert [(model.name, model.kind, model.trained_on) for model in work.models] == [
        ("mine", "images", "darkness")
    ]
    assert [(split.name, split.role, len(split.prompts)) for split in work.splits] == [
        ("prompts", "external", 3)
    ]
    assert work.out == Path("evaluations") / "mine"
    for wrong, says in (
        (("base=x",), "not NAME=FOLDER"),
        (images[:1], "base=FOLDER --images NAME"),
        (images[1:], "base=FOLDER"),
    ):
        with pytest.raises(ConfigError, match=says):
            plan(EvalConfig(images=wrong, rewards=("darkness",)))
    with pytest.raises(ConfigError, match="the trained one first"):
        plan(EvalConfig(images=images))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "emoji"),
        ("per-prompt", "2"),
        ("seed", "7"),
        ("history", "0"),
        ("history-per-prompt", "1"),
        ("best-of", "4"),
        ("steps", "9"),
        ("guidance", "1.5"),
        ("eta", "0"),
        ("transition", "ode"),
        ("grid", "linspace"),
        ("size", "64"),
    ],
)
def test_given_images_are_not_sampled(
    option: str, value: str, tmp_path: Path, ddpo: Callable[..., tuple[int, str, str]]
) -> None:
    for name in ("base", "mine"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    folders = [f"--images={name}={tmp_path / name}" for name in ("base", "mine")]
    out = tmp_path / "out"
    code, _, errors = ddpo(
        "eval", *folders, "--reward", "darkness", f"--{option}", value, "--out", out
    )
    assert code == 2
    assert f"none is sampled: leave out --{option}\n" in errors
    assert not out.exists()


def test_rewards_of_one_name_and_other_content_are_not_mixed_up(
    run_folder: Path, tmp_path: Path
) -> None:
    for name, channel in (("a", 0), ("b", 1), ("c", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "r.py").write_text(
            f"def red(images):\n    return images[..., {channel}].mean((1, 2))\n"
        )
    specs = [f"{tmp_path}/{name}/r.py:red" for name in "abc"]
    with pytest.raises(ConfigError, match="two different rewards are called 'red'"):
        of(run_folder, rewards=(specs[0], specs[1]))
    same = of(run_folder, rewards=(specs[0], specs[2]), held_out=False)
    assert [reward.id for reward in same.rewards] == ["darkness", "red"]
    (tmp_path / "d.py").write_text("def darkness(images):\n    return images.mean((1, 2, 3))\n")
    with pytest.raises(ConfigError, match="two different rewards are called 'darkness'"):
        of(run_folder, rewards=(f"{tmp_path}/d.py:darkness",))


def test_words_that_the_embedded_model_does_not_know_are_noted(
    tmp_path: Path, run_folder: Path
) -> None:
    facts = run_folder / "checkpoints" / "iteration-000020" / "policy.json"
    (tmp_path / "p.txt").write_text("a toaster\na cat\n")
    assert not any(
        "never taught" in note for note in of(run_folder, prompts=(str(tmp_path / "p.txt"),)).notes
    )
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"model": "emoji"}))
    notes = of(run_folder, prompts=(str(tmp_path / "p.txt"),)).notes
    assert [note for note in notes if "never taught 'toaster'" in note]
