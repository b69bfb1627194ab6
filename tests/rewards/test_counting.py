"""Questions and answers of the prompt list `counting` reach the server of `vqa_strict`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fault_server import CAPTION, fault_server

from ddpo.prompts import load_prompts
from ddpo.trainer import config_for, train
from ddpo.trainer.rollout import draw_keys


def test_training_on_counting_asks_each_prompts_questions_and_compares_with_its_answers(
    tiny_model: Path, tmp_path: Path
) -> None:
    small = {
        "sample": {"samples": 6, "per_prompt": 1, "steps": 2, "batch": 6},
        "optim": {"updates": 1, "timesteps": 1},
        "iterations": 1,
    }
    with fault_server() as server:  # which sees a cat in every image, and does not count
        reward = f"vqa_strict:vlm={server.url}"
        settings = {"model": str(tiny_model), "prompts": "counting", "reward": reward, "seed": 7}
        config = config_for({**settings, **small})
        list(train(config, tmp_path / "run"))
        asked = {request["messages"][0]["content"][1]["text"] for request in server.requests}
    drawn = [key.prompt for key in draw_keys(load_prompts("counting").prompts, config.sample, 7, 1)]
    assert asked == {question for prompt in drawn for question in prompt.metadata["questions"]}
    expected = [
        sum(answer in CAPTION for answer in prompt.metadata["answers"]) / 2 for prompt in drawn
    ]
    assert sum(expected) > 0, "this seed draws cats"
    (line,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert line["unscorable"] == 0
    assert line["reward_mean"] == pytest.approx(sum(expected) / 6)
