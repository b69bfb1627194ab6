"""Tiny runs of every pair of model family and algorithm, as small as they can be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.io.tensors import load_tensors
from ddpo.model_check.diffusers_pipeline import TOLERANCE, largest_difference, pipeline_of
from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.policies.checkpoints.folder import LORA_FILE
from ddpo.trainer import TrainConfig, config_for, resume, train
from ddpo.trainer.algorithms import algorithms
from ddpo.trainer.monitoring.events import IterationDone
from ddpo.trainer.run.export import export
from tests.tiny_flow_models import write_tiny_sd3, write_tiny_z_image
from tests.tiny_flux_models import write_tiny_flux, write_tiny_klein

FLOWS: Final[dict[str, Callable[[Path], Path]]] = {
    "SD 3": partial(write_tiny_sd3, layers=2),
    "FLUX.1": partial(write_tiny_flux, layers=1),
    "FLUX.2 klein": partial(write_tiny_klein, layers=1),
    "Z-Image": partial(write_tiny_z_image, layers=1),
}
"""Family of flow models → function that writes a tiny one into a folder."""
FAMILIES: Final = ("SD 1, SD 2", "SDXL", *FLOWS)
WITHOUT_NOISE: Final = "with `ode`"
"""Column of flow models whose steps have no noise, by `sample.transition=ode`."""
ODE: Final = {"transition": "ode", "eta": 0.0}
ALGORITHMS: Final = tuple(name for name in algorithms.names() if algorithms.origin(name) == "ddpo")
TRAINED: Final = "yes"
REFUSED: Final = "refused"

SMALL: Final[dict[str, Any]] = {
    "reward": "darkness",
    "device": "cpu",
    "dtype": "float32",
    "iterations": 2,
    "checkpoint_every": 1,
    "grid_every": 100,
    "adapt": {"rank": 2, "alpha": 4, "checkpointing": False},
}
SAMPLE: Final = {"samples": 4, "per_prompt": 4, "steps": 2, "batch": 4, "guidance": 1.0}
OPTIM: Final = {
    "updates": 1,
    "epochs": 1,
    "timesteps": 1,
    "skip_last": 0,
    "lr": 1e-2,
    "ema_every": 1,
}
ONE_NOISY_STEP: Final = ("grpo_fast", "mix_grpo", "tempflow_grpo")
"""Algorithms with a window."""


class TinyModel:
    """A tiny model that is trained, and diffusers' own pipeline of it.

    Args:
        folder: the model in diffusers' format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def pipeline(self) -> Any:
        """The pipeline, which takes the LoRA of one run after the other."""
        return pipeline_of(str(self.folder))

    def config(self, algorithm: str, **sample: Any) -> TrainConfig:
        """The settings of two iterations of four images of a prompt."""
        values: dict[str, Any] = {
            **SMALL,
            "model": str(self.folder),
            "algorithm": algorithm,
            "sample": {**SAMPLE, **sample},
            "optim": OPTIM,
        }
        if algorithm in ONE_NOISY_STEP:
            values["window"] = {"steps": 1, "within": 1.0}
            values["sample"]["branches"] = 2
        return config_for(values)

    def outcome(self, config: TrainConfig, place: Path) -> str:
        """TRAINED or REFUSED; asserts that a run is resumed exactly and exported for diffusers."""
        try:
            whole, resumed = self.trained(config, place)
        except ConfigError as error:
            refusal = str(error)
        else:
            expected = tensors_of(whole)
            found = tensors_of(resumed)
            assert expected.keys() == found.keys()
            assert [name for name, one in expected.items() if not one.equal(found[name])] == []
            self.check_export(whole, place / "exported")
            return TRAINED
        assert "\n" not in refusal
        assert not (place / "whole").exists()
        return REFUSED

    def trained(self, config: TrainConfig, place: Path) -> tuple[Path, Path]:
        """The folders of a run, and of a copy that was resumed after its first iteration.

        Raises:
            ConfigError: the algorithm cannot train this model as the settings say.
        """
        whole = place / "whole"
        resumed = place / "resumed"
        for event in train(config, whole):
            if isinstance(event, IterationDone) and event.metrics.iteration == 1:
                shutil.copytree(whole, resumed)  # what a kill would leave
        list(resume(resumed))
        return whole, resumed

    def check_export(self, run: Path, to: Path) -> None:
        """Asserts that diffusers' denoiser has the weights of a run's LoRA once it is exported."""
        export(run, to)
        ours = load_tensors(to / LORA_FILE)[0]
        assert any(bool(one.any()) for name, one in ours.items() if ".lora_B." in name)
        self.pipeline.load_lora_weights(to, adapter_name="run")
        denoiser = next(name for name in ("unet", "transformer") if hasattr(self.pipeline, name))
        theirs = {
            f"{denoiser}.{name.replace('.run.', '.')}": one
            for name, one in getattr(self.pipeline, denoiser).named_parameters()
            if ".lora_" in name
        }
        self.pipeline.unload_lora_weights()
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(one, ours[name]) for name, one in theirs.items())

    def check_images(self, run: Path, exported: Path) -> None:
        """Asserts that diffusers has the images of ddpo with the LoRA, and others without it."""
        tested = ModelUnderTest(str(self.folder), "cpu")
        policy = tested.fresh(checkpoint=run)
        without = largest_difference(tested, policy, self.pipeline, guidance=1.0)
        self.pipeline.load_lora_weights(exported)
        with_lora = largest_difference(tested, policy, self.pipeline, guidance=1.0)
        self.pipeline.unload_lora_weights()
        assert with_lora <= TOLERANCE < without


class TinyModels:
    """The tiny models of all families.

    Args:
        stable_diffusion: folder of a tiny Stable Diffusion.
        stable_diffusion_xl: folder of a tiny Stable Diffusion XL.
        place: folder for the flow models.
    """

    def __init__(self, stable_diffusion: Path, stable_diffusion_xl: Path, place: Path) -> None:
        written = [write(place / str(number)) for number, write in enumerate(FLOWS.values())]
        folders = (stable_diffusion, stable_diffusion_xl, *written)
        self.models = {
            family: TinyModel(folder) for family, folder in zip(FAMILIES, folders, strict=True)
        }

    def outcome(self, algorithm: str, column: str, place: Path) -> str:
        """The outcome of one cell of the table."""
        if column != WITHOUT_NOISE:
            model = self.models[column]
            return model.outcome(model.config(algorithm), place)
        first, *others = (self.models[family] for family in FLOWS)
        found = first.outcome(first.config(algorithm, **ODE), place)
        if found == REFUSED:
            for model in others:
                assert model.outcome(model.config(algorithm, **ODE), place) == REFUSED
        return found


def markdown(outcomes: Mapping[tuple[str, str], str]) -> str:
    """The table of the outcome of each algorithm and column."""
    columns = (*FAMILIES, WITHOUT_NOISE)
    lines = [f"| algorithm | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name in ALGORITHMS:
        cells = " | ".join(outcomes[name, column] for column in columns)
        lines.append(f"| `{name}` | {cells} |")
    return "\n".join(lines) + "\n"


def tensors_of(run: Path) -> dict[tuple[str, str], Tensor]:
    """All tensors of a run by file and name; the order of a file's metadata is random."""
    return {
        (file.relative_to(run).as_posix(), name): tensor
        for file in sorted(run.rglob("*.safetensors"))
        for name, tensor in load_tensors(file)[0].items()
    }
