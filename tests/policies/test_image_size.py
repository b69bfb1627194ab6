"""The size of the images as a setting, with the images of diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

from ddpo.errors import ConfigError
from ddpo.eval.command import command_line
from ddpo.eval.config import EvalConfig
from ddpo.model_check.diffusers_pipeline import TOLERANCE, largest_difference, pipeline_of
from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.policies import load_policy
from ddpo.policies.image_size import checked_size, set_size
from ddpo.trainer import config_for, train
from tests.tiny_flow_models import write_tiny_sd3, write_tiny_z_image
from tests.tiny_flux_models import write_tiny_flux, write_tiny_klein
from tests.tiny_unet_models import write_tiny_sd, write_tiny_xl

Run = Callable[..., tuple[int, str, str]]
FAMILIES: dict[str, tuple[Callable[[Path], Path], int]] = {
    "sd": (write_tiny_sd, 8),
    "sdxl": (write_tiny_xl, 8),
    "sd3": (write_tiny_sd3, 16),
    "flux": (write_tiny_flux, 16),
    "klein": (write_tiny_klein, 16),
    "z_image": (write_tiny_z_image, 16),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_a_given_size_are_those_of_diffusers(tmp_path: Path, family: str) -> None:
    write, multiple = FAMILIES[family]
    model = str(write(tmp_path))
    size = (multiple * 4, multiple * 6)
    tested = ModelUnderTest(model, "cpu")
    policy: Any = tested.policy
    assert policy.image_size != size
    set_size(policy, size)
    assert policy.image_size == size
    pixels = policy.decode(torch.zeros(1, *policy.latent_shape))
    assert tuple(pixels.shape) == (1, 3, *size)
    assert largest_difference(tested, policy, pipeline_of(model), guidance=3.0) <= TOLERANCE
    with pytest.raises(ConfigError, match=f"multiples of {multiple}, such as") as refused:
        set_size(policy, (size[0] + 1, size[1]))
    assert "\n" not in str(refused.value)
    assert policy.image_size == size


@pytest.mark.parametrize(("write", "most"), [(write_tiny_sd3, 192), (write_tiny_z_image, 128)])
def test_a_size_without_positions_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], Path], most: int
) -> None:
    policy: Any = load_policy(str(write(tmp_path)), device="cpu")
    set_size(policy, (most, 64))
    with pytest.raises(ConfigError, match=f"has positions for images of {most}"):
        set_size(policy, (most + 16, 64))


def test_the_embedded_model_has_one_size() -> None:
    policy: Any = load_policy("emoji", device="cpu")
    before = policy.latent_shape
    set_size(policy, policy.image_size)
    with pytest.raises(ConfigError, match=r"'emoji' have one size, 64×64 pixels"):
        set_size(policy, (128, 128))
    assert policy.latent_shape == before


def test_a_model_of_a_plug_in_has_one_size() -> None:
    class Plain:
        model = "mine"

    set_size(Plain(), ())
    with pytest.raises(ConfigError, match=r"'mine' have one size: leave out the size 64×64"):
        set_size(Plain(), (64, 64))


@pytest.mark.parametrize(
    ("value", "size"), [(512, (512, 512)), ([512, 768], (512, 768)), ([], ()), ((8, 8), (8, 8))]
)
def test_a_size_is_a_number_or_two(value: Any, size: tuple[int, ...]) -> None:
    assert checked_size(value, "sample.size") == size
    assert config_for({"sample": {"size": value}}).sample.size == size


@pytest.mark.parametrize("value", [0, -8, [512], [1, 2, 3], "big", 1.5, True, [512, None], 10**9])
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^sample\.size must be"):
        config_for({"sample": {"size": value}})


def test_the_words_of_the_option() -> None:
    assert checked_size("512", "--size") == (512, 512)
    assert checked_size("512x768", "--size") == (512, 768)
    for word in ("", "x", "512x", "a", "0", "-8", "512,768", "9" * 99, "٥"):
        with pytest.raises(ConfigError, match=r"^--size must be"):
            checked_size(word, "--size")


def test_a_run_keeps_its_size_in_training_sampling_and_evaluation(
    ddpo: Run, tiny_model: Path, tmp_path: Path
) -> None:
    config = config_for(
        {
            "model": str(tiny_model),
            "reward": "darkness",
            "device": "cpu",
            "iterations": 1,
            "sample": {"samples": 4, "per_prompt": 4, "steps": 2, "batch": 4, "size": [24, 8]},
            "optim": {"updates": 1, "timesteps": 1},
            "adapt": {"rank": 2, "alpha": 2},
        }
    )
    run = tmp_path / "run"
    list(train(config, run))
    assert json.loads((run / "config.json").read_text())["sample"]["size"] == [24, 8]
    code, _, error = ddpo(
        *("sample", "a cat", "--checkpoint", run, "--per-prompt", 1, "-o", tmp_path / "images")
    )
    assert code == 0, error
    (image,) = (tmp_path / "images").glob("*-0.png")
    assert Image.open(image).size == (8, 24)
    code, _, error = ddpo(
        *("sample", "a cat", "--checkpoint", run, "--per-prompt", 1, "--size", "16x32"),
        *("-o", tmp_path / "others"),
    )
    assert code == 0, error
    (image,) = (tmp_path / "others").glob("*-0.png")
    assert Image.open(image).size == (32, 16)


def test_the_images_of_an_evaluation_depend_on_the_size_and_old_ones_are_served() -> None:
    from ddpo.eval.generate.sampling import Source
    from ddpo.policies.sampler import SamplerSettings

    own = Source("emoji", "", "float32", SamplerSettings(steps=2), 0)
    sized = replace(own, sampler=replace(own.sampler, size=(64, 64)))
    assert own.digest != sized.digest
    assert own.digest == "aa7296fe41a49d78"  # of versions without sizes


@pytest.mark.parametrize("size", ["15", "500x1"])
def test_a_size_that_no_model_has_ends_a_command_with_one_line(
    ddpo: Run, tmp_path: Path, size: str
) -> None:
    code, _, error = ddpo("sample", "a cat", "--size", size, "-o", tmp_path / "out")
    assert code == 2
    assert len(error.strip().splitlines()) == 1
    assert "one size, 64×64 pixels" in error


def test_an_evaluation_has_the_size_that_is_given(
    ddpo: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A LoRA of another trainer does not say on which size it was trained."""
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    width = UNet2DConditionModel.from_pretrained(tiny_model / "unet").config["block_out_channels"][
        0
    ]
    lora = {
        f"{layer}.lora_A.weight": torch.ones(1, width),
        f"{layer}.lora_B.weight": torch.ones(width, 1),
    }
    save_file(lora, tmp_path / "style.safetensors")
    (tmp_path / "prompts.txt").write_text("a cat\n")
    command = (
        *("eval", tmp_path / "style.safetensors", "--model", tiny_model, "--reward", "darkness"),
        *("--prompts", tmp_path / "prompts.txt", "--no-held-out", "--best-of", 0, "--steps", 2),
        *("--per-prompt", 2, "--device", "cpu", "--out", tmp_path / "report"),
    )
    code, _, error = ddpo(*command, "--size", "15")
    assert code == 2
    assert error.strip().splitlines()[-1].startswith("error: the model")
    assert "15×15 pixels: both sides must be multiples of 8" in error
    code, _, error = ddpo(*command, "--size", "24x8")
    assert code == 0, error
    images = [Image.open(file).size for file in (tmp_path / "report").rglob("*.png")]
    assert (8, 24) in images


def test_the_command_of_an_evaluation_repeats_its_size() -> None:
    config = EvalConfig(checkpoints=("a", "b"), size="24x8", history=0, best_of=0)  # type: ignore[arg-type]
    assert config.size == (24, 8)
    assert command_line(config).startswith("ddpo eval --checkpoint a --checkpoint b ")
    assert " --size 24x8" in command_line(config)
    without = replace(config, size=())
    assert command_line(without) == "ddpo compare a b"
    with pytest.raises(ConfigError, match="size must be a number or HEIGHTxWIDTH"):
        EvalConfig(checkpoints=("a",), size="big")  # type: ignore[arg-type]
