"""Packages that are not required change neither scores nor signatures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_bertscore import write_encoder
from test_clip_family import write_clip
from test_vlm_rewards import SMALL_SQUARE, favouring_ratings, llava, on_pillow

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.rewards.vlm import open_vlm

__all__ = ["favouring_ratings", "llava"]  # the fixtures

HIDDEN = (
    "torchvision",
    "sentencepiece",
    "tiktoken",
    "spacy",
    "xformers",
    "flash_attn",
    "kernels",
    "timm",
    "cv2",
    "open_clip",
)
PROGRAM = """
import json, sys
import numpy as np
hidden, specs = json.loads(sys.argv[1])
for name in hidden:
    sys.modules[name] = None  # as if it were not installed
from ddpo.rewards.zoo import resolve
from ddpo.types import ImageBatch, Prompt
pixels = np.random.default_rng(3).integers(0, 256, (2, 75, 52, 3)).astype(np.uint8)
asks = {"questions": ["who is there?"], "answers": ["a"]}
batch = ImageBatch.of_uint8(pixels, (Prompt("a “red” fox’s den", asks), Prompt("two dogs", asks)))
found = {}
for spec in specs:
    reward = resolve(spec)
    found[spec] = [reward.make()(batch).values.tolist(), reward.signature]
print(json.dumps(found))
"""


def score_without(hidden: tuple[str, ...], specs: list[str]) -> dict[str, Any]:
    """Scores and signature of each reward, in a process in which packages cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([hidden, specs])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_scores_do_not_depend_on_packages_that_are_not_required(
    llava: Path, favouring_ratings: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip")
    encoder = write_encoder(tmp_path / "encoder", "deberta")
    specs = [
        f"clip_score:clip={clip}",
        f"pickscore:clip={clip},processor={clip}",
        f"vqa_score:vlm={llava}",
        f"vqa_score:vlm={llava},form=published",
        f"vqa_strict:vlm={llava}",
        f"vlm_judge:vlm={favouring_ratings}",
        f"alignment:vlm={llava},scorer={encoder},layer=2",
    ]
    with_all = score_without((), specs)
    without = score_without(HIDDEN, specs)
    assert without == with_all
    found = {spec.partition(":")[0]: scores for spec, (scores, _) in with_all.items()}
    for name in ("pickscore", "vqa_score"):
        assert len(set(found[name])) == 2, found  # not blind to the images


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clip", {**SMALL_SQUARE}),
        ("llava", {**SMALL_SQUARE, "do_pad": True}),
        ("siglip", {"size": {"height": 28, "width": 28}}),
        ("blip", {"size": {"height": 28, "width": 28}}),
        ("vit", {"size": {"height": 28, "width": 28}}),
    ],
)
def test_images_are_resized_by_pillow_whatever_the_processor(
    name: str, settings: dict[str, Any], llava: Path, tmp_path: Path
) -> None:
    from importlib import import_module

    from transformers import LlavaForConditionalGeneration

    classes = {
        "clip": "CLIPImageProcessor",
        "llava": "LlavaImageProcessor",
        "siglip": "SiglipImageProcessor",
        "blip": "BlipImageProcessor",
        "vit": "ViTImageProcessor",
    }
    module = import_module(f"transformers.models.{name}.image_processing_pil_{name}")
    by_pillow = getattr(module, f"{classes[name]}Pil")(**settings)
    by_torchvision = getattr(
        import_module(f"transformers.models.{name}.image_processing_{name}"), classes[name]
    )(**settings)
    processor = on_pillow(llava)
    processor.image_processor = by_torchvision
    processor.save_pretrained(tmp_path)
    LlavaForConditionalGeneration.from_pretrained(llava).save_pretrained(tmp_path)

    image = Image.fromarray(np.random.default_rng(5).integers(0, 256, (90, 61, 3)).astype(np.uint8))
    vlm: Any = open_vlm(str(tmp_path))
    found = vlm._inputs(image, "?")["pixel_values"]
    due = by_pillow(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(found, due)
    other = by_torchvision(image, return_tensors="pt")["pixel_values"]
    assert (other - due).abs().max() > 1e-3  # the two differ, so that the choice shows


@pytest.mark.parametrize(
    ("settings", "loads"),
    [
        ({"image_processor_type": "CLIPImageProcessorFast"}, True),
        ({"image_processor_type": "CLIPImageProcessorPil"}, True),
        ({"use_fast": True}, True),
        ({"device": "cpu", "return_tensors": "pt"}, True),
        ({"image_processor_type": "NoSuchProcessor"}, False),
        ({"backend": "torchvision"}, False),  # which transformers itself cannot read
    ],
)
def test_what_a_model_says_of_its_processor_does_not_bring_torchvision_back(
    settings: dict[str, Any], loads: bool, llava: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llava, folder)
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    config["image_processor"].update(settings)
    file.write_text(json.dumps(config))
    if loads:
        vlm: Any = open_vlm(str(folder))
        assert vlm._processor.image_processor.backend == "pil"
    else:
        with pytest.raises(MissingResourceError, match="cannot be loaded"):
            open_vlm(str(folder))


@pytest.mark.parametrize("damage", [b"cut off", b""])
def test_damaged_weights_are_one_line(damage: bytes, llava: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llava, folder)
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(MissingResourceError, match="cannot be loaded") as caught:
        open_vlm(str(folder))
    assert "\n" not in str(caught.value)


def test_a_model_whose_images_need_torchvision_is_refused(llava: Path, tmp_path: Path) -> None:
    from transformers import Sam2ImageProcessor

    processor = on_pillow(llava)
    processor.image_processor = Sam2ImageProcessor()
    processor.save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"has its Sam2ImageProcessor for torchvision only.*give a server's address as vlm=…",
    ):
        open_vlm(str(tmp_path))
