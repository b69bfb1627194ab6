"""Settings by family, below those of the algorithm, recipes and options, with their sources."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpo.errors import ConfigError
from ddpo.policies.family import FAMILIES, family_of
from ddpo.recipes import read_builtin, recipe_names
from ddpo.trainer import TrainConfig, config_for, read_recipe, resume, train
from ddpo.trainer.settings import resolve_config, settings_finding

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
SMALL = {
    "iterations": 1,
    "sample": {"samples": 4, "per_prompt": 2, "steps": 3, "batch": 4},
    "optim": {"updates": 1, "timesteps": 2},
}


def as_sd2(model: Path, folder: Path, **unet: object) -> Path:
    """A copy of a model folder whose UNet's config says something else."""
    shutil.copytree(model, folder)
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | unet))
    return folder


def test_the_family_is_found_by_what_the_model_is(
    tiny_model: Path, tiny_xl: Path, tmp_path: Path
) -> None:
    assert family_of("emoji") == "emoji"
    assert family_of(str(tiny_model)) == "sd1"
    assert family_of(str(tiny_xl)) == "sdxl"
    assert (
        family_of(str(as_sd2(tiny_model, tmp_path / "linear", use_linear_projection=True))) == "sd2"
    )
    assert family_of(str(as_sd2(tiny_model, tmp_path / "wide", cross_attention_dim=1024))) == "sd2"


@pytest.mark.parametrize(
    "model", ["./mine.py:Policy", "package.module:make", "no/where", "nothing", "/no/such/folder"]
)
def test_what_is_no_known_model_has_no_family(model: str) -> None:
    assert family_of(model) is None


def test_a_pipeline_of_another_kind_has_no_family(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flux"
    shutil.copytree(tiny_model, folder)
    (folder / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    assert family_of(str(folder)) is None


def test_every_family_has_a_recipe_that_speaks_of_settings_of_a_model_alone() -> None:
    for family in FAMILIES:
        values = read_builtin(family)
        own = {"prompts", "held_out", "held_out_prompts"}
        scenes = ("emoji_scenes", "emoji_flow")  # they know only their own world
        allowed = own if family in scenes else set()
        assert not values.keys() - allowed & {
            "reward",
            "model",
            "algorithm",
            "seed",
            "device",
            *own,
        }, family
        assert {"sample", "optim", "advantage", "adapt"} <= values.keys(), family


def test_the_first_command_of_a_user_gets_the_settings_of_the_model(
    tiny_model: Path, tiny_xl: Path
) -> None:
    """Stable Diffusion 1.5 as in kvablack/ddpo-pytorch.

    50 steps, guidance 5, 3e-4, clip range 1e-4, 256 images in 4 updates.
    """
    config = config_for({"reward": "aesthetic", "model": str(tiny_model)})
    assert (config.sample.steps, config.sample.guidance, config.sample.samples) == (50, 5.0, 256)
    assert (config.optim.lr, config.optim.clip_range, config.optim.updates) == (3e-4, 1e-4, 4)
    assert (config.advantage.kind, config.adapt.rank) == ("per_prompt", 4)
    larger = config_for({"reward": "aesthetic", "model": str(tiny_xl)})
    assert larger.optim.clip_range == pytest.approx(
        config.optim.clip_range * (64 * 64) / (128 * 128)
    )
    assert config_for({}) == TrainConfig()


def test_precision_suits_the_device(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"model": str(tiny_model)}
    assert config_for({**model, "device": "cpu"}).dtype == "float32"
    assert config_for({**model, "device": "mps"}).dtype == "bfloat16"
    assert config_for({**model, "device": "cpu", "dtype": "bfloat16"}).dtype == "bfloat16"
    for supported, dtype in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda supported=supported: supported)
        assert config_for({**model, "device": "cuda:1"}).dtype == dtype
    assert config_for({"device": "cuda"}).dtype == "float32"  # the embedded model's


def test_the_later_of_family_algorithm_recipe_and_option_wins_and_is_named(
    tiny_model: Path,
) -> None:
    model = {"model": str(tiny_model)}
    config = resolve_config(
        [
            ("recipe mine.toml", {**model, "algorithm": "rwr", "optim": {"lr": 1e-5, "epochs": 2}}),
            ("--iterations", {"iterations": 7}),
            ("--set", {"optim": {"epochs": 3}}),
        ]
    )
    assert (config.optim.lr, config.optim.epochs, config.iterations) == (1e-5, 3, 7)
    assert (config.optim.updates, config.sample.guidance, config.seed) == (8, 5.0, 0)
    assert config.sources["optim.lr"] == "recipe mine.toml"
    assert config.sources["optim.epochs"] == "--set"
    assert config.sources["iterations"] == "--iterations"
    assert config.sources["optim.updates"] == "algorithm rwr"
    assert config.sources["sample.guidance"] == "recipe sd1"
    assert config.sources["seed"] == "default"
    plain = config_for({**model, "algorithm": "rwr"})
    assert (plain.optim.lr, plain.sources["optim.lr"]) == (
        3e-4,
        "recipe sd1",
    )  # not the embedded model's 1e-3
    assert config_for({"algorithm": "rwr"}).optim.lr == 1e-3


def test_a_recipe_may_have_tables_for_algorithms() -> None:
    values = {"optim": {"lr": 1.0}, "algorithms": {"ddpo_sf": {"optim": {"lr": 2.0}}}}
    assert config_for(values).optim.lr == 1.0
    assert config_for({**values, "algorithm": "ddpo_sf"}).optim.lr == 2.0
    with pytest.raises(ConfigError, match="'algorithms' must hold a table"):
        config_for({"algorithms": 3})


def test_the_sources_are_kept_and_are_no_settings(tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = config_for(
        {"reward": "darkness", "model": str(tiny_model), "dtype": "float32", **SMALL}
    )
    list(train(config, run))
    written = json.loads((run / "config.json").read_text())
    assert written["sources"]["optim.clip_range"] == "recipe sd1"
    assert written["sources"]["sample.steps"] == "given"
    list(resume(run, 2))
    resumed = json.loads((run / "config.json").read_text())
    assert (resumed["iterations"], resumed["sources"]["iterations"]) == (2, "--resume")
    assert json.loads((run / "manifest.json").read_text())["resumed"][0]["changed"] == {
        "iterations": [1, 2]
    }


def test_the_plan_says_whose_the_settings_are(tiny_xl: Path) -> None:
    finding = settings_finding(config_for({"model": str(tiny_xl), "optim": {"lr": 1e-4}}))
    assert finding.good
    assert finding.text.startswith(
        "recipe sdxl (Stable Diffusion XL): steps 30, guidance 5, samples 128"
    )
    assert "lr 0.0001" in finding.text
    assert finding.text.endswith("given: model, optim.lr")
    named = resolve_config([("recipe mine.toml", {"model": str(tiny_xl), "optim": {"lr": 1e-5}})])
    assert settings_finding(named).text.startswith(
        "recipe sdxl (Stable Diffusion XL), then recipe mine.toml: steps 30"
    )
    unknown = settings_finding(config_for({"model": "./mine.py:Policy"}))
    assert not unknown.good
    assert unknown.text.startswith("no settings are known for the model './mine.py:Policy'")


def test_recipes_are_listed_and_shown_and_taken_by_name(
    ddpo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, _ = ddpo("recipes", "list")
    assert code == 0
    assert [name for name in recipe_names() if name not in output] == []
    code, output, _ = ddpo("recipes", "show", "sd15_lora")
    assert code == 0
    assert (
        output.strip()
        == (ROOT / "ddpo" / "recipes" / "sd15_lora.toml").read_text(encoding="utf-8").strip()
    )
    code, _, errors = ddpo("recipes", "show", "sd15-lora")
    assert code == 2
    assert "did you mean 'sd15_lora'" in errors
    assert read_recipe("sd15_lora")["advantage"]["buffer"] == 16
    code, _, errors = ddpo("train", "--recipe", "recipes/sd15_lora.toml", "--dry-run")
    assert code == 2
    assert "no such recipe; did you mean 'sd15_lora'" in errors


def test_a_file_of_a_recipes_name_goes_before_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sdxl").write_text("iterations = 3\n")
    assert read_recipe("sdxl") == {"iterations": 3}


@pytest.mark.parametrize("model", ["tiny_model", "tiny_xl"])
def test_a_dry_run_shows_the_family_and_the_memory_by_part(
    ddpo: Run, model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(model)
    small = ("--set", "sample.steps=10", "--set", "optim.timesteps=2", "--set", "sample.batch=8")
    out = tmp_path / "run"
    code, output, errors = ddpo(
        "train", "--reward", "darkness", "--model", folder, *small, "--dry-run", "--out", out
    )
    assert code == 0, errors
    assert re.search(r"settings +recipe (sd1|sdxl) \(Stable Diffusion", output)
    (memory,) = [line for line in output.splitlines() if line.strip().startswith("memory")]
    for part in (
        "weights",
        "trained",
        "gradients",
        "optimizer",
        "activations",
        "latents",
        "reward 20.0 MB",
    ):
        assert part in memory


def test_the_table_of_families_is_fresh() -> None:
    text = (ROOT / "docs" / "training-settings.md").read_text(encoding="utf-8")
    tools = runpy.run_path(str(ROOT / "tools" / "recipes_table.py"))
    assert tools["with_table"](text) == text, "run: python tools/recipes_table.py"
    assert "| `optim.clip_range` | 0.002 | 0.002 | 0.002 | 0.0001 | 4.4e-05 | 2.5e-05 |" in text


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("tiny_model", "recipe sd1 (Stable Diffusion 1.x): steps 50, guidance 5, "),
        ("tiny_xl", "recipe sdxl (Stable Diffusion XL): steps 30, guidance 5, "),
    ],
)
def test_a_dry_run_without_the_weights_of_its_reward_shows_the_settings(
    model: str,
    shown: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ddpo: Run,
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.setenv("DDPO_CACHE", str(tmp_path / "cache"))
    folder = request.getfixturevalue(model)
    arguments = ("--reward", "aesthetic", "--model", folder, "--out", tmp_path / "run")
    code, out, errors = ddpo("train", *arguments, "--dry-run")
    assert code == 2
    assert shown in " ".join((out + errors).split())
    assert errors.splitlines()[-1].startswith("error: reward 'aesthetic' needs LAION aesthetic")
    assert not (tmp_path / "run").exists()
