"""Whole runs on a tiny random model: exact ratios, exact resume, failures that lose nothing."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpo.errors import (
    ConfigError,
    RewardFailure,
    RunExistsError,
    TrainingDiverged,
    UnknownNameError,
)
from ddpo.io.tensors import load_tensors
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images
from ddpo.prompts import load_prompts
from ddpo.trainer import TrainConfig, config_from_dict
from ddpo.trainer.config import SampleConfig
from ddpo.trainer.loop import resume, train
from ddpo.trainer.monitoring.events import IterationDone
from ddpo.trainer.rollout import draw_keys
from ddpo.types import Prompt
from tests.warm_start import start_program

REWARDS = '''
"""Rewards for the tests."""
import torch
from ddpo.rewards.card import RewardCard
from ddpo.types import RewardOutput

def card(name):
    return RewardCard(
        id=name, version="1", summary="test", load="tests:none", family="test", flaws="none",
        pixels="float",
    )

class Brightness:
    card = card("brightness")
    def __call__(self, batch):
        return RewardOutput(batch.pixels.mean((1, 2, 3)))

class SometimesUnscorable:
    card = card("sometimes")
    def __call__(self, batch):
        values = batch.pixels.mean((1, 2, 3))
        odd = torch.arange(len(values)) % 2 == 1
        errors = tuple("odd" if o else None for o in odd.tolist())
        return RewardOutput(torch.where(odd, float("nan"), values), errors=errors)

class NeverScorable:
    card = card("never")
    def __call__(self, batch):
        values = torch.full((len(batch),), float("nan"))
        return RewardOutput(values, errors=("no text found",) * len(batch))

class Infinite:
    card = card("infinite")
    def __call__(self, batch):
        return RewardOutput(torch.full((len(batch),), float("inf")))

class OtherParts:
    card = card("parts")
    calls = 0
    def __call__(self, batch):
        OtherParts.calls += 1
        values = batch.pixels.mean((1, 2, 3))
        return RewardOutput(values, {"late" if OtherParts.calls > 3 else "early": values})

class RarelyScorable:
    card = card("rarely")
    calls = 0
    def __call__(self, batch):
        RarelyScorable.calls += 1
        values = batch.pixels.mean((1, 2, 3))
        known = torch.arange(len(values)) == (-1 if RarelyScorable.calls > 2 else 0)
        errors = tuple(None if k else "no text" for k in known.tolist())
        return RewardOutput(torch.where(known, values, float("nan")), errors=errors)

class Constant:
    card = card("constant")
    def __call__(self, batch):
        return RewardOutput(torch.ones(len(batch)))

class Progress:
    card = card("progress")
    def __call__(self, batch):
        values = batch.pixels.mean((1, 2, 3))
        return RewardOutput(values, {"progress": torch.full_like(values, batch.context.progress)})

class BreaksLater:
    card = card("breaks")
    calls = 0
    def __call__(self, batch):
        BreaksLater.calls += 1
        if BreaksLater.calls > 4:
            raise ConnectionError("the server went away")
        return RewardOutput(batch.pixels.mean((1, 2, 3)))
'''


@pytest.fixture(scope="module")
def rewards_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "my_rewards.py"
    path.write_text(REWARDS)
    return path


def tiny_config(model: Path, reward: str, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": str(model),
        "reward": reward,
        "iterations": 3,
        "checkpoint_every": 2,
        "grid_every": 2,
        "sample": {"samples": 8, "per_prompt": 2, "steps": 3, "batch": 4},
        "optim": {"updates": 2, "timesteps": 2, "lr": 1e-2},
        "advantage": {"kind": "per_prompt", "min_count": 2},
    }
    return config_from_dict(values | changes)


def run(config: TrainConfig, out: Path) -> list[Any]:
    return list(train(config, out))


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what may differ between equal runs: the time they took."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_writes_what_it_promises_and_starts_on_policy(
    tiny_model: Path, rewards_file: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "run"
    run(tiny_config(tiny_model, f"{rewards_file}:Brightness", adapt={"kind": kind, "rank": 4}), out)
    found = metrics(out)
    assert [line["iteration"] for line in found] == [1, 2, 3]
    assert [line["ratio_first_deviation"] for line in found] == [0.0, 0.0, 0.0]
    assert all(line["ratio_mean_deviation"] > 0 for line in found), (
        "the second update is off-policy"
    )
    assert found[-1]["reward_queries"] == 24
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        "iteration-000002",
        "iteration-000003",
    ]
    assert sorted(p.name for p in (out / "samples").iterdir()) == [
        "iteration-000000.png",
        "iteration-000002.png",
        "iteration-000003.png",
    ]
    assert find_checkpoint(out).iteration == 3
    assert json.loads((out / "config.json").read_text())["adapt"]["kind"] == kind
    assert "brightness" in json.loads((out / "manifest.json").read_text())["reward"]["signature"]
    assert not list(out.rglob("*.tmp"))


def test_training_raises_the_reward(tiny_model: Path, rewards_file: Path, tmp_path: Path) -> None:
    """A random model can be made brighter: by far more than the noise of the mean."""
    config = tiny_config(
        tiny_model,
        f"{rewards_file}:Brightness",
        iterations=25,
        adapt={"kind": "full"},
        grid_every=100,
        checkpoint_every=100,
        sample={"samples": 32, "per_prompt": 8, "steps": 3, "batch": 32},
        optim={"updates": 1, "timesteps": 0, "lr": 2e-3},
        algorithm="ddpo_sf",
    )
    run(config, tmp_path / "run")
    found = metrics(tmp_path / "run")
    first = found[:5]
    last = found[-5:]
    error = math.sqrt(sum(line["reward_se"] ** 2 for line in first + last)) / 5
    gain = np.mean([line["reward_mean"] for line in last]) - np.mean(
        [line["reward_mean"] for line in first]
    )
    assert gain > 5 * error


def test_a_resumed_run_equals_a_straight_one_to_the_bit(
    tiny_model: Path, rewards_file: Path, tmp_path: Path
) -> None:
    straight = tmp_path / "straight"
    broken = tmp_path / "broken"
    config = tiny_config(tiny_model, f"{rewards_file}:Brightness", iterations=4)
    run(config, straight)
    events = train(config, broken)
    for event in events:
        if (
            type(event).__name__ == "Progress"
            and event.stage == "training"
            and (broken / "metrics.jsonl").exists()
        ):
            break  # in the middle of the second iteration
    events.close()
    assert len(metrics(broken)) == 1
    list(resume(broken))
    assert metrics(broken) == metrics(straight)
    one, two = (
        load_tensors(folder / "state" / "state.safetensors")[0] for folder in (straight, broken)
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_killed_run_loses_at_most_the_iteration_under_way(
    tiny_model: Path, rewards_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    config = tiny_config(tiny_model, f"{rewards_file}:Brightness", iterations=50)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(config.to_dict()))
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys; from pathlib import Path\n"
        "from ddpo.trainer import config_from_dict; from ddpo.trainer.loop import train\n"
        "config = config_from_dict(json.loads(Path(sys.argv[1]).read_text()))\n"
        "list(train(config, Path(sys.argv[2])))\n"
    )
    process = start_program(program, recipe, out)
    deadline = time.monotonic() + 120
    while not (
        (out / "metrics.jsonl").exists()
        and len((out / "metrics.jsonl").read_text().splitlines()) >= 3
    ):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    seen = len((out / "metrics.jsonl").read_text().splitlines())
    list(resume(out, iterations=seen + 1, trust=[f"{rewards_file}:Brightness"]))
    straight = tmp_path / "straight"
    run(tiny_config(tiny_model, f"{rewards_file}:Brightness", iterations=seen + 1), straight)
    assert metrics(out) == metrics(straight)


def test_a_run_is_not_resumed_with_other_prompts_or_another_reward(
    tiny_model: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    reward = tmp_path / "mine.py"
    prompts.write_text("a cat\na dog\n")
    reward.write_text("def mine(images):\n    return images.mean((1, 2, 3))\n")
    out = tmp_path / "run"
    run(tiny_config(tiny_model, f"{reward}:mine", prompts=str(prompts), iterations=1), out)
    list(resume(out, iterations=2))
    prompts.write_text("a cat\na wolf\n")
    with pytest.raises(ConfigError, match="the prompts of file"):
        list(resume(out, iterations=3))
    prompts.write_text("a cat\na dog\n")
    reward.write_text("def mine(images):\n    return -images.mean((1, 2, 3))\n")
    with pytest.raises(ConfigError, match="is not the one that it was started with"):
        list(resume(out, iterations=3))
    assert [line["iteration"] for line in metrics(out)] == [1, 2]


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("flaws", "described in fewer words", True),
        ("libraries", [], True),
        ("typical", [0.0, 0.5, 1.0], True),
        ("golden", [], True),
        ("version", "0", False),
        ("unit", "stones", False),
        ("preprocessing", "resized by another library", False),
        ("dtype", "float16", False),
    ],
)
def test_a_run_is_resumed_where_its_reward_is_described_otherwise(
    field: str, value: Any, same: bool, tiny_model: Path, tmp_path: Path
) -> None:
    run(tiny_config(tiny_model, "darkness", iterations=1), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["reward"]["card"][field] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    if same:
        assert list(resume(tmp_path, iterations=2))
    else:
        with pytest.raises(ConfigError, match="is not the one that it was started with"):
            list(resume(tmp_path, iterations=2))


def test_a_run_on_a_reward_with_a_reworded_unit_is_resumed(
    tiny_model: Path, tmp_path: Path
) -> None:
    run(tiny_config(tiny_model, "vendi:features=pixels", iterations=1), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    # as earlier versions wrote it
    manifest["reward"]["card"]["unit"] = "effective number of pictures"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert list(resume(tmp_path, iterations=2))


def test_one_scored_image_has_no_standard_error(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(
        "def first(images):\n    return [1.0] + [None] * (len(images) - 1)\n"
    )
    run(
        tiny_config(
            tiny_model,
            f"{tmp_path / 'first.py'}:first",
            iterations=1,
            sample={"samples": 4, "per_prompt": 2, "steps": 3, "batch": 4},
        ),
        tmp_path / "run",
    )
    (line,) = metrics(tmp_path / "run")
    assert (line["reward_mean"], line["reward_se"], line["unscorable"]) == (1.0, None, 3)


def test_a_run_leaves_the_callers_random_state_alone(
    tiny_model: Path, rewards_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run(tiny_config(tiny_model, f"{rewards_file}:Brightness", iterations=1), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_unscorable_images_are_counted_and_left_out(
    tiny_model: Path, rewards_file: Path, tmp_path: Path
) -> None:
    run(
        tiny_config(tiny_model, f"{rewards_file}:SometimesUnscorable", iterations=1),
        tmp_path / "run",
    )
    (line,) = metrics(tmp_path / "run")
    assert line["unscorable"] == 4
    assert line["updates"] == 2
    assert not math.isnan(line["reward_mean"])


def test_a_reward_learns_the_progress_of_training_and_its_parts_are_logged(
    tiny_model: Path, rewards_file: Path, tmp_path: Path
) -> None:
    run(tiny_config(tiny_model, f"{rewards_file}:Progress", iterations=2), tmp_path / "run")
    assert [line["reward_parts"] for line in metrics(tmp_path / "run")] == [
        {"progress": 0.0},
        {"progress": 0.5},
    ]


def test_a_reward_that_scores_nothing_stops_the_run_with_its_reason(
    tiny_model: Path, rewards_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(RewardFailure, match="none of 8 images; the first: no text found"):
        run(tiny_config(tiny_model, f"{rewards_file}:NeverScorable"), tmp_path / "run")


def test_equal_rewards_make_no_update(tiny_model: Path, rewards_file: Path, tmp_path: Path) -> None:
    run(tiny_config(tiny_model, f"{rewards_file}:Constant", iterations=1), tmp_path / "run")
    (line,) = metrics(tmp_path / "run")
    assert (line["zero_spread"], line["updates"], line["loss"]) == (8, 0, 0.0)


def test_a_reward_that_breaks_later_leaves_a_resumable_run(
    tiny_model: Path, rewards_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(RewardFailure, match="the server went away"):
        run(tiny_config(tiny_model, f"{rewards_file}:BreaksLater"), out)
    assert [line["iteration"] for line in metrics(out)] == [1, 2]


@pytest.mark.parametrize(
    ("reward", "message", "finished"),
    [
        ("Infinite", "is inf", 0),
        (
            "OtherParts",
            "gave other parts for some batches than for others",
            1,
        ),  # in the second batch of the second iteration
        ("RarelyScorable", "none of 8 images; the first: no text", 1),
    ],
)
def test_a_reward_that_breaks_its_contract_makes_no_update(
    tiny_model: Path, rewards_file: Path, tmp_path: Path, reward: str, message: str, finished: int
) -> None:
    out = tmp_path / "run"
    with pytest.raises(RewardFailure, match=message):
        run(tiny_config(tiny_model, f"{rewards_file}:{reward}"), out)
    assert (len(metrics(out)) if finished else (out / "metrics.jsonl").exists()) == finished
    if finished:
        assert load_tensors(out / "state" / "state.safetensors")[1]["iteration"] == str(finished)


@pytest.mark.parametrize(
    ("lr", "algorithm", "updates", "message"),
    [
        (
            1e6,
            "ddpo_is",
            2,
            "the loss or gradient of iteration 1 is not finite",
        ),  # the first update was too long, the second sees it
        (
            1e25,
            "ddpo_sf",
            1,
            "4 of 4 images that the model sampled are not finite",
        ),  # the next iteration sees it
    ],
)
def test_a_run_that_diverges_stops_and_keeps_what_was_finished(
    ddpo: Any,
    tiny_model: Path,
    tmp_path: Path,
    lr: float,
    algorithm: str,
    updates: int,
    message: str,
) -> None:
    """`compressibility` sees images at 256 levels, so it is not the reward that finds NaN."""
    out = tmp_path / "run"
    optim = {"updates": updates, "timesteps": 2, "lr": lr}
    config = tiny_config(tiny_model, "compressibility", algorithm=algorithm, optim=optim)
    with pytest.raises(TrainingDiverged, match=message):
        run(config, out)
    assert [
        line["iteration"] for line in (metrics(out) if (out / "metrics.jsonl").exists() else [])
    ] == list(range(1, 3 - updates))
    noted = (out / "diverged.json").exists()
    assert noted == (out / "metrics.jsonl").exists()  # for readers of a run that trained
    if noted:
        assert message in json.loads((out / "diverged.json").read_text())["reason"]
    code, _, errors = ddpo("train", "--resume", out)
    assert code == 1
    assert "resumed, the run would end here again: start another" in errors
    assert len(errors.strip().splitlines()) == 1


def test_lora_is_where_the_settings_say_and_a_run_resumes_with_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    config = tiny_config(
        tiny_model, "darkness", adapt={"rank": 2, "targets": ["to_v"]}, iterations=1
    )
    run(config, tmp_path / "run")
    tensors, _ = load_tensors(
        tmp_path / "run" / "checkpoints" / "iteration-000001" / "pytorch_lora_weights.safetensors"
    )
    assert tensors
    assert all(".to_v.lora_" in name for name in tensors)
    assert all(2 in tensor.shape for tensor in tensors.values())
    asked = {"adapt": {"targets": ["to_v"]}}
    assert [
        e.metrics.iteration
        for e in resume(tmp_path / "run", 2, asked)
        if isinstance(e, IterationDone)
    ] == [2]
    with pytest.raises(ConfigError, match=r"adapt.targets is \['to_q'\] and was \['to_v'\]"):
        next(resume(tmp_path / "run", 2, {"adapt": {"targets": ["to_q"]}}))
    policy = load_policy(str(tiny_model), tmp_path / "run")
    assert len(list(policy.trainable_parameters())) == len(tensors)
    (batch,) = sample_images(
        policy, [SampleKey(Prompt("a cat"), 0)], SamplerSettings(steps=3, guidance=1.0, batch=1), 0
    )
    assert bool(batch.pixels.isfinite().all())


def test_an_output_folder_in_use_and_unknown_names_write_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(UnknownNameError, match="did you mean 'compressibility'"):
        run(tiny_config(tiny_model, "compresibility"), out)
    with pytest.raises(UnknownNameError, match="did you mean 'ddpo_is'"):
        run(tiny_config(tiny_model, "darkness", algorithm="ddpo-is"), out)
    with pytest.raises(ConfigError, match="one update per rollout"):
        run(tiny_config(tiny_model, "darkness", algorithm="ddpo_sf"), out)
    assert not out.exists()
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="already holds something else"):
        run(tiny_config(tiny_model, "darkness"), out)
    assert [p.name for p in out.iterdir()] == ["precious.txt"]


def test_each_prompt_is_sampled_once_before_any_is_sampled_again() -> None:
    prompts = load_prompts("animals").prompts
    config = config_from_dict(
        {"sample": {"samples": 36, "per_prompt": 4}}
    ).sample  # 9 of 45 prompts an iteration: 5 iterations a cycle
    drawn = [key for iteration in range(1, 11) for key in draw_keys(prompts, config, 0, iteration)]
    assert len({(key.prompt.id, key.index) for key in drawn}) == len(drawn) == 360
    assert len({key.prompt.id for key in drawn[:180]}) == 45
    assert draw_keys(prompts, config, 0, 7) == draw_keys(prompts, config, 0, 7)


def test_prompts_are_sampled_in_proportion_to_their_weights_and_never_the_same_image_twice() -> (
    None
):
    prompts = [Prompt("a"), Prompt("b"), Prompt("c")]
    weights = (3, 1, 2)
    config = SampleConfig(samples=6, per_prompt=2)  # 3 of 6 places of a cycle an iteration
    drawn = [
        key
        for iteration in range(1, 9)
        for key in draw_keys(prompts, config, 0, iteration, weights)
    ]
    for cycle in range(4):
        texts = [key.prompt.text for key in drawn[12 * cycle : 12 * cycle + 12]]
        assert {text: texts.count(text) for text in "abc"} == {"a": 6, "b": 2, "c": 4}
    assert len({(key.prompt.id, key.index) for key in drawn}) == len(drawn)
    for prompt, weight in zip(
        prompts, weights, strict=True
    ):  # indices without gaps: the next images of the prompt
        assert sorted(key.index for key in drawn if key.prompt == prompt) == list(
            range(4 * weight * 2)
        )


def test_a_run_samples_by_the_weights_of_its_file_and_is_not_resumed_with_others(
    tiny_model: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "weighted.jsonl"
    reward = tmp_path / "cats.py"
    prompts.write_text('{"prompt": "a cat", "weight": 3}\n{"prompt": "a dog"}\n')
    reward.write_text(
        "def cats(images, prompts):\n    return [float(prompt == 'a cat') for prompt in prompts]\n"
    )
    sample = {"samples": 8, "per_prompt": 1, "steps": 3, "batch": 8}
    run(
        tiny_config(
            tiny_model, f"{reward}:cats", prompts=str(prompts), iterations=1, sample=sample
        ),
        tmp_path / "run",
    )
    assert [line["reward_mean"] for line in metrics(tmp_path / "run")] == [0.75]
    prompts.write_text('{"prompt": "a cat", "weight": 2}\n{"prompt": "a dog"}\n')
    with pytest.raises(ConfigError, match="the prompts of file"):
        list(resume(tmp_path / "run", iterations=2))


def test_equal_weights_draw_what_no_weights_drew_before_there_were_any() -> None:
    prompts = load_prompts("animals").prompts
    config = config_from_dict({"sample": {"samples": 36, "per_prompt": 4}}).sample
    for iteration in (1, 6, 40):
        keys = draw_keys(prompts, config, 3, iteration, load_prompts("animals").weights)
        assert keys == draw_keys(prompts, config, 3, iteration)
        positions = range(9 * (iteration - 1), 9 * iteration)
        orders = {
            cycle: np.random.default_rng([3, 0, cycle]).permutation(45)
            for cycle in {p // 45 for p in positions}
        }
        assert [(key.prompt, key.index) for key in keys] == [
            (prompts[orders[p // 45][p % 45]], 4 * (p // 45) + i)
            for p in positions
            for i in range(4)
        ]
