"""The policy of Stable Diffusion 3 on tiny random models: images and files as in diffusers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusion3Pipeline
from safetensors.torch import load_file

from ddpo.errors import CheckpointError, ConfigError, UserError
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.family import chosen_sampler
from ddpo.policies.prompt_reader import find_reader
from ddpo.policies.sampler import (
    SampleKey,
    SamplerSettings,
    guided,
    sample_images,
    sample_noise,
    sample_trajectory,
)
from ddpo.policies.stable_diffusion_3 import StableDiffusion3Policy
from ddpo.policies.transition import gaussian_log_prob
from ddpo.types import Prompt
from tests.tiny_flow_models import write_tiny_sd3

KEYS = [SampleKey(Prompt("a cat"), 0), SampleKey(Prompt("a dog"), 0), SampleKey(Prompt("a cat"), 1)]
Run = Callable[..., tuple[int, str, str]]


def pipeline_of(folder: Path, **parts: Any) -> Any:
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def changed(model: Path, to: Path, file: str, **values: Any) -> str:
    """A copy of a model with other values in one of its JSON files; "absent" takes a key away."""
    folder = shutil.copytree(model, to / "model")
    config = json.loads((folder / file).read_text()) | values
    kept = {key: value for key, value in config.items() if value != "absent"}
    (folder / file).write_text(json.dumps(kept))
    return str(folder)


@torch.no_grad()
def disturb(policy: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    for _, parameter in policy.trainable_parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def largest_difference(policy: Any, pipeline: Any, guidance: float) -> float:
    """The largest difference of pixels from the same noise, without noise on the way."""
    noise = sample_noise(KEYS[0], 0, 5, policy.latent_shape)[:1]
    expected = pipeline(
        "a cat", latents=noise, num_inference_steps=5, guidance_scale=guidance, output_type="pt"
    ).images
    settings = SamplerSettings(steps=5, guidance=guidance, eta=0.0, batch=1)
    (found,) = sample_images(policy, KEYS[:1], settings, seed=0)
    assert found.pixels.shape == expected.shape
    assert float(expected.std()) > 0.05  # an image, not one colour
    return float((found.pixels - expected).abs().max())


@pytest.mark.parametrize(("size", "t5"), [(8, True), (12, False)])
def test_without_noise_the_images_are_those_of_the_diffusers_pipeline(
    tmp_path: Path, size: int, t5: bool
) -> None:
    folder = write_tiny_sd3(tmp_path, size, t5)
    policy = load_policy(str(folder))
    assert isinstance(policy, StableDiffusion3Policy)
    absent = {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = pipeline_of(folder, **absent)
    for guidance in (1.0, 4.5):
        assert largest_difference(policy, pipeline, guidance) <= 1e-5


def test_the_ode_and_zero_noise_are_the_same_and_noise_changes_the_image(tiny_sd3: Path) -> None:
    policy = load_policy(str(tiny_sd3))

    def image(transition: str, eta: float, grid: str = "auto") -> torch.Tensor:
        settings = SamplerSettings(
            steps=4, guidance=1.0, eta=eta, batch=1, transition=transition, grid=grid
        )
        return next(sample_images(policy, KEYS[:1], settings, 0)).pixels

    ode = image("ode", 0.0)
    for transition in ("flow_sde", "dance_sde"):
        torch.testing.assert_close(image(transition, 0.0), ode, atol=1e-6, rtol=0)
    noisy = [image(transition, 0.7) for transition in ("flow_sde", "dance_sde", "cps")]
    other = [ode, *noisy, image("ode", 0.0, "linspace")]
    for index, one in enumerate(other):
        for two in other[index + 1 :]:
            assert float((one - two).abs().max()) > 1e-3
    assert torch.equal(image("auto", 0.7), noisy[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_stored_paths_have_ratio_one_to_the_bit(tiny_sd3: Path, kind: Any, dtype: str) -> None:
    policy: Any = load_policy(str(tiny_sd3), dtype=dtype)
    policy.adapt(kind)
    disturb(policy)
    settings = SamplerSettings(steps=4, guidance=3.0, eta=0.7, batch=4)
    path = sample_trajectory(policy, KEYS, settings, seed=3)
    coefficients = policy.schedule.coefficients(4, 0.7)
    images = torch.tensor([2, 0, 2, 1])
    steps = torch.tensor([3, 0, 1, 3])
    conditioning = policy.encode([KEYS[index].prompt.text for index in images])
    x_t = path.latents[images, steps]
    output = guided(
        policy, x_t, coefficients.timesteps[steps], conditioning, policy.encode([""]), 3.0
    )
    found = gaussian_log_prob(
        path.latents[images, steps + 1],
        policy.schedule.mean(output, x_t, steps, coefficients),
        coefficients.std[steps],
    )
    assert torch.equal(found, path.log_probs[images, steps])
    assert found.requires_grad


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_reference_is_the_base_model_to_the_bit(tiny_sd3: Path, kind: Any) -> None:
    for dtype in ("float32", "bfloat16"):
        policy = load_policy(str(tiny_sd3), dtype=dtype)
        inputs = (
            torch.randn(2, *policy.latent_shape),
            torch.tensor([0.5, 0.9]),
            policy.encode(["a cat", "a dog"]),
        )
        with torch.no_grad():
            base = policy.predict(*inputs)
            policy.adapt(kind)
            disturb(policy)
            assert not torch.equal(policy.predict(*inputs), base)
            with policy.reference():
                # full finetuning keeps the type of the frozen weights for the reference
                assert torch.equal(policy.predict(*inputs), base)


def test_a_lora_is_read_by_plain_diffusers_and_back(tiny_sd3: Path, tmp_path: Path) -> None:
    policy: Any = load_policy(str(tiny_sd3))
    policy.adapt("lora")
    disturb(policy)
    (tmp_path / "own").mkdir()
    policy.save(tmp_path / "own", 3)
    file = tmp_path / "own" / "pytorch_lora_weights.safetensors"
    assert {name.partition(".")[0] for name in load_file(file)} == {"transformer"}
    pipeline = pipeline_of(tiny_sd3)
    pipeline.load_lora_weights(tmp_path / "own")
    assert largest_difference(policy, pipeline, 3.0) <= 1e-5
    base = pipeline_of(tiny_sd3)
    assert largest_difference(policy, base, 3.0) > 1e-3  # the adapters change the images
    pipeline.save_lora_weights(
        tmp_path / "theirs", transformer_lora_layers=_layers(pipeline.transformer)
    )
    for place in (tmp_path / "own", tmp_path / "theirs"):
        again = load_policy(str(tiny_sd3), find_checkpoint(place, str(tiny_sd3)))
        latents = torch.ones(1, *policy.latent_shape)
        times = torch.tensor([0.7])
        with torch.no_grad():
            expected = policy.predict(latents, times, policy.encode(["a"]))
            found = again.predict(latents, times, again.encode(["a"]))
        if place.name == "own":
            assert torch.equal(found, expected)
        else:  # without metadata the file's alpha is its rank
            assert not torch.allclose(found, expected)


def _layers(transformer: Any) -> Any:
    from peft.utils import get_peft_model_state_dict

    return get_peft_model_state_dict(transformer, adapter_name="default_0")


SETS = (
    "sample.samples=8",
    "sample.per_prompt=4",
    "sample.steps=3",
    "sample.batch=4",
    "sample.guidance=2.0",
    "optim.updates=1",
    "optim.lr=1e-2",
    "checkpoint_every=1",
    "grid_every=2",
)


def trained(ddpo: Run, model: Path, out: Path, iterations: int, *more: str) -> Path:
    chosen = [word for one in (*SETS, *more) for word in ("--set", one)]
    code, _, errors = ddpo(
        "train",
        "--model",
        model,
        "--reward",
        "darkness",
        "--iterations",
        iterations,
        "--out",
        out,
        *chosen,
    )
    assert code == 0, errors
    return out / "checkpoints" / f"iteration-{iterations:06d}"


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_is_trained_resumed_exactly_and_exported(
    ddpo: Run, tiny_sd3: Path, tmp_path: Path, kind: str
) -> None:
    whole = trained(ddpo, tiny_sd3, tmp_path / "whole", 2, f"adapt.kind={kind}")
    trained(ddpo, tiny_sd3, tmp_path / "half", 1, f"adapt.kind={kind}")
    code, _, errors = ddpo("train", "--resume", tmp_path / "half", "--iterations", 2)
    assert code == 0, errors
    (file,) = [path.relative_to(whole) for path in whole.rglob("*.safetensors")]
    resumed = tmp_path / "half" / "checkpoints" / whole.name / file
    expected = load_file(whole / file)
    found = load_file(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert (config["sample"]["transition"], config["sample"]["grid"]) == ("flow_sde", "diffusers")
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["ratio_first_deviation"] for line in lines] == [0, 0]
    code, _, errors = ddpo("export", tmp_path / "whole", "--out", tmp_path / "out")
    assert code == 0, errors
    if kind == "lora":
        pipeline = pipeline_of(tiny_sd3)
        pipeline.load_lora_weights(tmp_path / "out")
    else:
        pipeline = pipeline_of(tmp_path / "out")
    tuned = load_policy(str(tiny_sd3), tmp_path / "whole")
    assert largest_difference(tuned, pipeline, 2.0) <= 1e-5
    assert largest_difference(tuned, pipeline_of(tiny_sd3), 2.0) > 1e-4
    card = (tmp_path / "out" / "README.md").read_text()
    assert "flow_sde on the grid diffusers" in card
    assert "DDIM" not in card


def test_sampling_takes_the_ode(ddpo: Run, tiny_sd3: Path, tmp_path: Path) -> None:
    code, out, errors = ddpo(
        "sample",
        "a cat",
        "--model",
        tiny_sd3,
        "--steps",
        2,
        "--transition",
        "ode",
        "--per-prompt",
        1,
        "--json",
        "--out",
        tmp_path / "images",
    )
    assert code == 0, errors
    found = json.loads(out)
    assert (found["transition"], found["grid"], found["eta"]) == ("ode", "diffusers", 0.0)


def test_a_given_ode_has_no_noise_and_the_rest_is_of_the_run(tiny_sd3: Path) -> None:
    model = str(tiny_sd3)
    run = {"steps": 3, "guidance": 2.0, "eta": 0.9, "transition": "cps", "samples": 8}
    given = {"steps": 7, "eta": None, "transition": "ode"}
    assert chosen_sampler(model, run, given) == {
        "steps": 7,
        "guidance": 2.0,
        "eta": 0.0,
        "transition": "ode",
        "grid": "diffusers",
    }
    assert chosen_sampler(model, run, {})["eta"] == 0.9
    assert chosen_sampler(model, {}, {})["transition"] == "flow_sde"
    with pytest.raises(ConfigError, match=r"eta = 0\.5 has no effect"):
        SamplerSettings(**chosen_sampler(model, run, {"transition": "ode", "eta": 0.5}))


MODEL_REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no multiple of 16": (
        "transformer/config.json",
        {"sample_size": 9},
        "sample_size = 9, the side of the latents: write a multiple of patch_size = 2",
    ),
    "beyond its positions": (
        "transformer/config.json",
        {"sample_size": 32},
        "sample_size = 32, which is 16 patches a side: it has positions for 12",
    ),
    "two numbers for its size": (
        "transformer/config.json",
        {"sample_size": [8, 8]},
        "sample_size = [8, 8]",
    ),
    "an unknown setting": (
        "transformer/config.json",
        {"guidance_rescale": 0.7},
        "guidance_rescale = 0.7, which this ddpo does not know",
    ),
    "the scheduler of a U-Net": (
        "scheduler/scheduler_config.json",
        {"_class_name": "DDIMScheduler"},
        "is a DDIMScheduler, and its denoiser is that of a flow model",
    ),
    "the scheduler of a U-Net in the index, which diffusers loads": (
        "model_index.json",
        {"scheduler": ["diffusers", "PNDMScheduler"]},
        "is a PNDMScheduler, and its denoiser is that of a flow model",
    ),
    "a scheduler without a class": (
        "scheduler/scheduler_config.json",
        {"_class_name": None},
        "is a scheduler without a class, and its denoiser",
    ),
    "another grid": (
        "scheduler/scheduler_config.json",
        {"use_karras_sigmas": True},
        "use_karras_sigmas = True, which ddpo does not support",
    ),
    "an impossible shift": (
        "scheduler/scheduler_config.json",
        {"shift": "three"},
        "shift must be a number",
    ),
    "no second encoder": (
        "model_index.json",
        {"text_encoder_2": [None, None]},
        "has no text_encoder_2",
    ),
    "T5 without its tokenizer": (
        "model_index.json",
        {"tokenizer_3": [None, None]},
        "has no tokenizer_3",
    ),
    "T5 without its tokenizer, which is plain null": (
        "model_index.json",
        {"tokenizer_3": None},
        "has no tokenizer_3",
    ),
}


@pytest.mark.parametrize("case", MODEL_REFUSALS)
def test_a_model_that_would_give_other_images_is_refused(
    tiny_sd3: Path, tmp_path: Path, case: str
) -> None:
    file, values, message = MODEL_REFUSALS[case]
    with pytest.raises(UserError) as caught:
        load_policy(changed(tiny_sd3, tmp_path, file, **values))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_t5_is_named_with_the_way_to_go_without(tiny_sd3: Path, tmp_path: Path) -> None:
    model = Path(changed(tiny_sd3, tmp_path, "model_index.json"))
    shutil.rmtree(model / "text_encoder_3")
    with pytest.raises(UserError, match=r"no folder text_encoder_3/.* null in model_index\.json"):
        load_policy(str(model))
    absent = {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | absent))
    hidden: Any = load_policy(str(model)).encode(["a cat"]).parts["hidden"]
    assert hidden.shape[1] == 16 + 256
    assert not hidden[:, 16:].any()


def test_a_flow_scheduler_on_a_unet_is_refused(
    tiny_model: Path, tiny_xl: Path, tiny_sd3: Path, tmp_path: Path
) -> None:
    for model in (tiny_model, tiny_xl):
        folder = shutil.copytree(model, tmp_path / model.parent.name)
        shutil.rmtree(folder / "scheduler")
        shutil.copytree(tiny_sd3 / "scheduler", folder / "scheduler")
        with pytest.raises(ConfigError) as caught:
            load_policy(str(folder))
        assert "is a FlowMatchEulerDiscreteScheduler, and its denoiser is a U-Net" in str(
            caught.value
        )
    DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(tmp_path / "ddim")
    folder = shutil.copytree(tiny_sd3, tmp_path / "flow")
    shutil.rmtree(folder / "scheduler")
    shutil.copytree(tmp_path / "ddim", folder / "scheduler")
    with pytest.raises(ConfigError, match="is a DDIMScheduler, and its denoiser is that of a flow"):
        load_policy(str(folder))


def test_transitions_and_grids_of_the_other_kind_are_refused(
    tiny_model: Path, tiny_sd3: Path
) -> None:
    unet = load_policy(str(tiny_model))
    flow = load_policy(str(tiny_sd3))
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (unet, {"transition": "flow_sde"}, "transition must be ddim, got flow_sde"),
        (unet, {"transition": "ode", "eta": 0.0}, "transition must be ddim, got ode"),
        (unet, {"grid": "linspace"}, "grid must be auto, got linspace"),
        (flow, {"transition": "ddim"}, "transition must be flow_sde, dance_sde, cps or ode"),
    ]
    for policy, values, message in refused:
        settings = SamplerSettings(steps=2, batch=1, **values)
        with pytest.raises(ConfigError) as caught:
            sample_trajectory(policy, KEYS[:1], settings, 0)
        assert message in str(caught.value)
        assert policy.model in str(caught.value)
    for transition, eta in (("ddim", 1.1), ("cps", 1.5), ("ode", 0.7), ("flow_sde", 2.1)):
        with pytest.raises(ConfigError, match="eta"):
            SamplerSettings(transition=transition, eta=eta)
    for name in ("transition", "grid"):
        with pytest.raises(ConfigError, match=f"{name} must be auto"):
            SamplerSettings(**{name: "euler"})  # type: ignore[arg-type]


REFUSED_RUNS: dict[str, tuple[tuple[str, ...], str]] = {
    "ode": (
        ("sample.transition=ode", "sample.eta=0"),
        "sample.transition = 'ode' has no noise, and the algorithm 'ddpo_is' trains on",
    ),
    "eta of an ode": (
        ("sample.transition=ode",),
        "sample.eta = 0.7 has no effect with sample.transition = 'ode'",
    ),
    "ddim": (("sample.transition=ddim",), "is a flow model: transition must be flow_sde"),
    "eta of cps": (
        ("sample.transition=cps", "sample.eta=1.5"),
        "sample.eta must be above 0 and at most 1, got 1.5",
    ),
    "no noise": (("sample.eta=0",), "sample.eta must be above 0 and at most 2, got 0"),
    "unknown grid": (("sample.grid=karras",), "sample.grid must be auto, diffusers or linspace"),
}


@pytest.mark.parametrize("case", REFUSED_RUNS)
def test_a_run_that_cannot_be_trained_ends_with_one_line(
    ddpo: Run, tiny_sd3: Path, tmp_path: Path, case: str
) -> None:
    sets, message = REFUSED_RUNS[case]
    chosen = [word for one in (*SETS, *sets) for word in ("--set", one)]
    code, _, errors = ddpo(
        "train",
        "--model",
        tiny_sd3,
        "--reward",
        "darkness",
        "--out",
        tmp_path / "run",
        *chosen,
    )
    assert code == 2
    assert message in errors
    assert not (tmp_path / "run").exists()


def test_a_lora_of_another_family_is_refused(
    tiny_model: Path, tiny_sd3: Path, tmp_path: Path
) -> None:
    places = {}
    for model in (tiny_model, tiny_sd3):
        policy: Any = load_policy(str(model))
        policy.adapt("lora")
        disturb(policy)
        own = tmp_path / model.parent.name / "own"
        own.mkdir(parents=True)
        policy.save(own, 1)
        theirs = own.parent / "theirs"
        theirs.mkdir()
        shutil.copy(own / "pytorch_lora_weights.safetensors", theirs)
        places[model] = theirs
    for lora, base, words in (
        (tiny_model, tiny_sd3, "is a LoRA of a U-Net, and the denoiser of the base model is a"),
        (tiny_sd3, tiny_model, "is a LoRA of a transformer, and the denoiser of the base model is"),
    ):
        with pytest.raises(CheckpointError) as caught:
            load_policy(str(base), find_checkpoint(places[lora], str(base)))
        assert words in str(caught.value)


def test_a_distilled_model_is_trained_after_a_warning(
    ddpo: Run, tiny_sd3: Path, tmp_path: Path
) -> None:
    model = tmp_path / "sd3.5-large-turbo"
    shutil.copytree(tiny_sd3, model)
    chosen = [word for one in SETS for word in ("--set", one)]
    command = ("train", "--reward", "darkness", "--dry-run", "--out", tmp_path / "run", *chosen)
    code, out, errors = ddpo(*command, "--model", model)
    assert code == 0, errors
    assert "is distilled to few steps ('turbo')" in out + errors
    code, out, errors = ddpo(*command, "--model", tiny_sd3)
    assert code == 0, errors
    assert "distilled" not in out + errors


def test_prompts_are_read_to_the_end_of_t5(tiny_sd3: Path, tmp_path: Path) -> None:
    reader = find_reader(str(tiny_sd3))
    assert reader is not None
    assert (reader.length, reader.kept) == (256, 255)  # T5 ends a text with one token
    long = "a cat " * 40
    assert reader.unread(long) == ""
    assert reader.unread("a cat " * 200)
    without = find_reader(str(write_tiny_sd3(tmp_path, t5=False)))
    assert without is not None
    assert without.length == 16
    assert without.unread(long)
