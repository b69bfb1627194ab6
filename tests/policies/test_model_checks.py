"""The conformance kit for models: sound ones pass, and each fault fails its own check."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ddpo.errors import UnknownNameError
from ddpo.model_check import CheckResult, check_model, iter_results, model_tests
from ddpo.model_check.diffusers_pipeline import TOLERANCE, largest_difference, pipeline_of
from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.model_check.names import NAMES
from ddpo.model_check.run import CHECKS, render_checks_markdown
from tests.conftest import Run
from tests.tiny_flow_models import write_tiny_z_image
from tests.tiny_flux_models import write_tiny_flux, write_tiny_klein

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "plugin_package" / "ddpo_test_plugin" / "tiny.py"

HEAD = """
from contextlib import contextmanager
from dataclasses import replace
import time

import torch
from tiny import TinyPolicy
from ddpo.io.tensors import load_tensors
from ddpo.policies.schedule import along_batch
from ddpo.policies.transition import NoiseSchedule

class Louder(NoiseSchedule):
    def coefficients(self, steps, eta):
        found = super().coefficients(steps, eta)
        values = {name: getattr(found, name) for name in self.names}
        louder = {name: torch.where(one > 1e-6, 1.5 * one, one) for name, one in values.items()}
        return replace(found, **louder)
    def mean(self, output, x_t, step, coefficients):
        a, b = (along_batch(one[step], x_t) for one in (coefficients.a, coefficients.b))
        return a * x_t.float() + b * output

class Wrong(TinyPolicy):
"""
ADAPT = "    def adapt(self, kind, lora=None):\n"
FAULTS = {
    "construction": "    def predict(self, *given): return super().predict(*given).double()",
    "trained-weights": "    def __init__(self, device, dtype):\n"
    "        super().__init__(device, dtype)\n"
    "        self.net.requires_grad_(True)",
    "conditioning-per-item": "    def encode(self, texts):\n"
    "        found = super().encode(texts)\n"
    "        return found - found.mean()",
    "prediction-per-item": "    def predict(self, *given):\n"
    "        found = super().predict(*given)\n"
    "        return found - found.mean()",
    "decoding": "    def decode(self, latents): return latents.float() / 2 + 0.5",
    "random-state": "    def encode(self, texts):\n"
    "        torch.rand(1)\n"
    "        return super().encode(texts)",
    "marginal": "    def __init__(self, device, dtype):\n"
    "        super().__init__(device, dtype)\n"
    "        Louder.names = ('noise_std', 'std')\n"
    "        self.schedule = Louder(self.schedule.alphas_cumprod, 1.0, 'epsilon', 'leading', 0)",
    "log-prob": "    def __init__(self, device, dtype):\n"
    "        super().__init__(device, dtype)\n"
    "        Louder.names = ('std',)\n"
    "        self.schedule = Louder(self.schedule.alphas_cumprod, 1.0, 'epsilon', 'leading', 0)",
    "ratio-float32": "    def predict(self, *given):\n"
    "        found = super().predict(*given)\n"
    "        return found * (1 + 1e-6) if torch.is_grad_enabled() else found",
    "gradient": "    def predict(self, *given):\n"
    "        found = super().predict(*given)\n"
    "        return (found + found.detach()) / 2",
    "reference": "    @contextmanager\n    def reference(self): yield",
    "lora-there-and-back": f"{ADAPT}        self.net.requires_grad_(True)\n"
    "        if kind == 'lora':\n"
    "            with torch.no_grad(): self.net.bias.add_(0.1)",
    "resume": "    def load(self, checkpoint):\n"
    "        self.adapt('full')\n"
    "        found = load_tensors(checkpoint.folder / 'tiny.safetensors')[0]\n"
    "        self.net.weight.data.copy_(found['weight'])",
    "memory": "    def save_memory(self):\n        with torch.no_grad(): self.net.bias.add_(0.1)",
}
RATIOS = {"ratio-float32", "ratio-bfloat16", "ratio-float16"}
ALSO: dict[str, set[str]] = {
    "conditioning-per-item": RATIOS,
    "prediction-per-item": RATIOS,
    "ratio-float32": RATIOS,
}
"""Check → others that its fault fails too."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the model of the test package, for files beside it."""
    (tmp_path / "tiny.py").write_text(TINY.read_text())
    return tmp_path


def failures(results: list[CheckResult]) -> dict[str, str]:
    return {result.name: result.detail for result in results if not result.ok}


def test_a_model_of_another_package_passes() -> None:
    results = check_model(f"{TINY}:TinyPolicy", device="cpu")
    assert failures(results) == {}
    skipped = {result.name for result in results if result.outcome == "skipped"}
    assert skipped == {"equal-images", "lora-there-and-back", "memory"}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd", "xl", "sd3", "flux1", "klein", "z-image"])
def test_every_pipeline_passes_every_check(
    family: str, tiny_model: Path, tiny_xl: Path, tiny_sd3: Path, tmp_path: Path
) -> None:
    known = {"sd": tiny_model, "xl": tiny_xl, "sd3": tiny_sd3}
    written = {"flux1": write_tiny_flux, "klein": write_tiny_klein, "z-image": write_tiny_z_image}
    model = known.get(family) or written[family](tmp_path)
    results = check_model(str(model), device="cpu")
    assert {result.name: result.outcome for result in results} == dict.fromkeys(NAMES, "passed"), [
        result.detail for result in results
    ]


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_named_in_one_line(check: str, folder: Path) -> None:
    (folder / "mine.py").write_text(f"{HEAD}{FAULTS[check]}\n")
    found = failures(check_model(f"{folder / 'mine.py'}:Wrong", device="cpu"))
    assert set(found) == {check} | ALSO.get(check, set()), found
    assert found[check]
    assert all("\n" not in line and len(line) < 300 for line in found.values())


def test_a_model_that_cannot_be_made_fails_once(folder: Path) -> None:
    (folder / "mine.py").write_text(f"{HEAD}    def __init__(self, *given): raise OSError('no')\n")
    results = check_model(f"{folder / 'mine.py'}:Wrong", device="cpu")
    assert set(failures(results)) == {"construction"}
    assert "OSError: no" in failures(results)["construction"]
    assert {result.outcome for result in results[1:]} == {"skipped"}


def test_a_pipeline_with_other_weights_has_other_images(tmp_path: Path) -> None:
    tested = ModelUnderTest(str(write_tiny_z_image(tmp_path)), "cpu")
    pipeline = pipeline_of(tested.word)
    assert largest_difference(tested, tested.policy, pipeline, 3.0) < 1e-5
    with torch.no_grad():
        pipeline.transformer.all_final_layer["2-1"].linear.weight.mul_(1.5)
    assert largest_difference(tested, tested.policy, pipeline, 3.0) > TOLERANCE


def test_a_check_that_hangs_is_ended_in_time(folder: Path) -> None:
    hangs = "    def decode(self, latents): time.sleep(60)\n"
    (folder / "mine.py").write_text(HEAD + hangs)
    word = f"{folder / 'mine.py'}:Wrong"
    started = time.monotonic()
    found = list(iter_results(word, ["decoding", "marginal"], "cpu", each_s=3))
    assert time.monotonic() - started < 30
    assert [(one.name, one.outcome) for one in found] == [
        ("construction", "passed"),
        ("decoding", "failed"),
        ("marginal", "passed"),
    ]
    assert found[1].detail == "not finished within the 3 s for each check"


def test_an_unknown_check_is_refused_before_the_model_is_loaded() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'resume'"):
        check_model("emoji", only=["resum"])


def test_the_names_are_those_of_the_checks() -> None:
    assert tuple(CHECKS) == NAMES
    code = "import sys, ddpo.model_check.names; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_table_of_the_page_is_fresh() -> None:
    page = (ROOT / "docs" / "adding-a-model.md").read_text()
    table = page.partition("<!-- checks:begin -->\n")[2].partition("<!-- checks:end -->")[0]
    assert table == render_checks_markdown()


test_conforms = model_tests(f"{TINY}:TinyPolicy", "cpu")


def test_the_command_prints_a_line_for_each_check(ddpo: Run, folder: Path) -> None:
    (folder / "mine.py").write_text(f"{HEAD}{FAULTS['decoding']}\n")
    word = f"{folder / 'mine.py'}:Wrong"
    code, text, error = ddpo("models", "check", word, "--only", "decoding", "--device", "cpu")
    assert code == 1
    assert "outside [0, 1]" in text
    assert "does not conform: 1 passed, 1 failed" in text
    assert [line.partition(":")[0] for line in error.splitlines()] == ["construction", "decoding"]
