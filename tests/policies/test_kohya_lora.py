"""LoRA files with the names of kohya-ss: diffusers and ddpo read what `ddpo export` writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpo.errors import CheckpointError, ConfigError
from ddpo.model_check.diffusers_pipeline import TOLERANCE, largest_difference, pipeline_of
from ddpo.model_check.model_under_test import ModelUnderTest
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.folder import LORA_FILE, find_checkpoint
from ddpo.policies.checkpoints.kohya_writer import kohya_tensors
from ddpo.policies.checkpoints.lora import LoraFile, read_lora
from ddpo.policies.policy import LoraSettings
from ddpo.trainer.run.export import export
from tests.tiny_flow_models import write_tiny_sd3, write_tiny_z_image
from tests.tiny_flux_models import write_tiny_flux, write_tiny_klein
from tests.tiny_unet_models import write_tiny_sd, write_tiny_xl

Run = Callable[..., tuple[int, str, str]]
DOUBLE = tuple(f"transformer_blocks.0.attn.to_{name}" for name in "qkv")
MODELS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "SD 1": (write_tiny_sd, ("to_q", "to_out.0", "ff.net.2")),
    "SDXL": (write_tiny_xl, ("to_k", "to_v")),
    # diffusers' converter knows the single blocks of the real width alone
    "FLUX.1": (write_tiny_flux, (*DOUBLE, "attn.add_q_proj", "ff.net.0.proj", "norm1.linear")),
    "FLUX.2 klein": (write_tiny_klein, ("attn.to_q", "attn.to_k", "to_qkv_mlp_proj", "linear_in")),
    "Z-Image": (write_tiny_z_image, ("attention.to_q", "attention.to_out.0", "feed_forward.w2")),
}
SD3_TARGETS = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_k_proj"),
    *("attn2.to_v", "attn.to_add_out", "ff.net.2", "norm1.linear", "norm1_context.linear"),
)


@torch.no_grad()
def tuned(model: Path, targets: tuple[str, ...], folder: Path) -> Path:
    """A checkpoint of random adapters."""
    policy: Any = load_policy(str(model), device="cpu")
    policy.adapt("lora", LoraSettings(rank=3, alpha=6, targets=targets))
    generator = torch.Generator().manual_seed(1)
    for _, parameter in policy.trainable_parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    policy.save(folder, 1)
    return folder


def prediction(model: Path, checkpoint: Path | None) -> Tensor:
    policy: Any = load_policy(
        str(model), find_checkpoint(checkpoint, str(model)) if checkpoint else None, device="cpu"
    )
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, *policy.latent_shape, generator=generator)
    times = policy.schedule.coefficients(4, 0.0).timesteps[[1, 2]]
    with torch.no_grad():
        output: Tensor = policy.predict(latents, times, policy.encode(["a cat", "a"]))
    return output


@pytest.mark.parametrize("family", MODELS)
def test_diffusers_has_the_images_of_an_exported_lora(family: str, tmp_path: Path) -> None:
    write, targets = MODELS[family]
    model = write(tmp_path)
    checkpoint = tuned(model, targets, tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "kohya", lora_names="kohya")
    names = load_file(tmp_path / "kohya" / LORA_FILE)
    assert names
    assert all(name.startswith("lora_unet_") for name in names)
    tested = ModelUnderTest(str(model), "cpu")
    policy = tested.fresh(checkpoint=checkpoint)
    pipeline = pipeline_of(str(model))
    without = largest_difference(tested, policy, pipeline, guidance=1.0)
    pipeline.load_lora_weights(tmp_path / "kohya")
    assert largest_difference(tested, policy, pipeline, guidance=1.0) <= TOLERANCE < without
    ours = prediction(model, checkpoint)
    torch.testing.assert_close(prediction(model, tmp_path / "kohya"), ours, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(prediction(model, None), ours, atol=1e-3)


class Original(dict[str, Tensor]):
    """The change of the weights of Stable Diffusion 3's original code by a LoRA of kohya-ss.

    Diffusers' own converter of whole models asks for every weight of that code.
    """

    def __init__(self, lora: dict[str, Tensor], layers: int) -> None:
        marks = ("joint_blocks.0.x_block.attn2.", *(f"joint_blocks.{i}." for i in range(layers)))
        super().__init__(dict.fromkeys(marks, torch.zeros(())))
        self["context_embedder.weight"] = torch.zeros(16, 1)
        self.lora = lora
        self.used: set[str] = set()

    def pop(self, key: str, *_: Any) -> Tensor:
        name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
        if key.endswith(".weight") and f"{name}.alpha" in self.lora:
            self.used |= {
                f"{name}.{end}" for end in ("alpha", "lora_up.weight", "lora_down.weight")
            }
            down = self.lora[f"{name}.lora_down.weight"]
            scale = self.lora[f"{name}.alpha"] / down.shape[0]
            return scale * self.lora[f"{name}.lora_up.weight"] @ down
        return torch.zeros(6, 1)


def test_the_names_of_stable_diffusion_3_are_those_of_its_original_code(tmp_path: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    model = write_tiny_sd3(tmp_path)
    checkpoint = tuned(model, SD3_TARGETS, tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "kohya", lora_names="kohya")
    original = Original(load_file(tmp_path / "kohya" / LORA_FILE), layers=3)
    changes = convert_sd3_transformer_checkpoint_to_diffusers(original)
    assert original.used == set(original.lora)
    lora = read_lora(checkpoint / LORA_FILE)
    assert any("blocks.2.norm1_context" in layer for layer in lora.ranks)  # the reversed one
    for layer in lora.ranks:
        own = 2 * lora.tensors[f"{layer}.lora_B.weight"] @ lora.tensors[f"{layer}.lora_A.weight"]
        torch.testing.assert_close(changes[f"{layer}.weight"], own, atol=1e-5, rtol=1e-5)


def test_a_lora_of_kohya_for_stable_diffusion_3_is_read_back(tmp_path: Path, ddpo: Run) -> None:
    """Diffusers reads none of it; ddpo gives each part of a layer its own ranks again."""
    model = write_tiny_sd3(tmp_path)
    checkpoint = tuned(model, SD3_TARGETS, tmp_path / "checkpoint")
    to = tmp_path / "kohya"
    code, output, errors = ddpo("export", checkpoint, "--out", to, "--lora-names", "kohya")
    assert code == 0, errors
    assert "Load it with: kohya-ss or ComfyUI; diffusers does not read" in output
    assert "load_lora_weights" not in (to / "README.md").read_text()
    assert "Diffusers does not read them" in (to / "README.md").read_text()
    torch.testing.assert_close(prediction(model, to), prediction(model, checkpoint))
    plain = read_lora(checkpoint / LORA_FILE)
    found = read_lora(to / LORA_FILE)
    whole = [layer for layer in plain.ranks if layer.endswith(("attn.to_q", "attn.to_v"))]
    assert [found.ranks[layer] for layer in whole] == [3] * len(whole)
    assert [found.alphas[layer] for layer in whole] == [6.0] * len(whole)
    pipeline = pipeline_of(str(model))
    pipeline.load_lora_weights(to)  # it warns in a log, and loads nothing
    assert not any("lora_" in name for name, _ in pipeline.transformer.named_parameters())


def test_shared_ranks_of_a_fused_layer_are_those_of_each_part(tmp_path: Path) -> None:
    """As kohya-ss trains it: one lower matrix for queries, keys and values."""
    generator = torch.Generator().manual_seed(3)
    down = torch.randn(3, 16, generator=generator)
    up = torch.randn(48, 3, generator=generator)
    name = "lora_unet_joint_blocks_1_context_block_attn_qkv"
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.5)}
    save_file({f"{name}.{end}": one for end, one in tensors.items()}, tmp_path / "x.safetensors")
    found = read_lora(tmp_path / "x.safetensors")
    assert set(found.alphas.values()) == {1.5}
    rows = [
        found.tensors[f"transformer_blocks.1.attn.add_{part}_proj.lora_B.weight"] for part in "qkv"
    ]
    assert torch.equal(torch.cat(rows), up)
    assert all(torch.equal(found.tensors[f"{layer}.lora_A.weight"], down) for layer in found.ranks)


KLEIN = {
    "single_transformer_blocks": "single_blocks",
    "transformer_blocks": "double_blocks",
    "attn.to_qkv_mlp_proj": "linear1",
    "ff.linear_in": "img_mlp.0",
}


@pytest.mark.parametrize(
    ("write", "targets", "names"),
    [
        (write_tiny_klein, ("to_qkv_mlp_proj", "ff.linear_in"), KLEIN),
        (write_tiny_z_image, ("attention.to_q", "feed_forward.w2"), {}),
    ],
)
def test_the_dotted_names_of_comfyui_are_read(
    write: Callable[[Path], Path], targets: tuple[str, ...], names: dict[str, str], tmp_path: Path
) -> None:
    model = write(tmp_path)
    checkpoint = tuned(model, targets, tmp_path / "checkpoint")
    lora = read_lora(checkpoint / LORA_FILE)
    tensors = {}
    for layer in lora.ranks:
        for part, factor in (("lora_A", 1.0), ("lora_B", 2.0)):  # alpha / rank
            key = f"{layer}.{part}.weight"
            name = key
            for theirs, original in names.items():
                name = name.replace(theirs, original)
            tensors[f"diffusion_model.{name}"] = factor * lora.tensors[key]
    (tmp_path / "dotted").mkdir()
    save_file(tensors, tmp_path / "dotted" / "style.safetensors")
    ours = prediction(model, checkpoint)
    torch.testing.assert_close(prediction(model, tmp_path / "dotted"), ours, atol=1e-5, rtol=1e-5)


def test_single_blocks_of_flux_1_have_the_weights_of_the_lora() -> None:
    """Of the real width, with the layer of the MLP that is not trained."""
    from diffusers.loaders import FluxLoraLoaderMixin

    generator = torch.Generator().manual_seed(4)
    layers = [f"single_transformer_blocks.5.attn.to_{part}" for part in "qkv"]
    tensors = {
        f"{layer}.{end}.weight": torch.randn(shape, generator=generator)
        for layer in layers
        for end, shape in (("lora_A", (4, 3072)), ("lora_B", (3072, 4)))
    }
    found = LoraFile(
        tensors, dict.fromkeys(layers, 4), dict.fromkeys(layers, 8.0), False, "transformer"
    )
    written = kohya_tensors(found, "FluxPipeline", Path("lora.safetensors"))
    assert {key.partition(".")[0] for key in written} == {"lora_unet_single_blocks_5_linear1"}
    theirs = FluxLoraLoaderMixin.lora_state_dict(dict(written))
    for layer in layers:
        own = 2 * tensors[f"{layer}.lora_B.weight"][:9] @ tensors[f"{layer}.lora_A.weight"]
        up = theirs[f"transformer.{layer}.lora_B.weight"][:9]
        change = up @ theirs[f"transformer.{layer}.lora_A.weight"]
        torch.testing.assert_close(change, own, atol=1e-4, rtol=1e-4)
    assert not theirs["transformer.single_transformer_blocks.5.proj_mlp.lora_B.weight"].any()


def test_what_has_no_such_names_is_refused_in_one_line(tmp_path: Path) -> None:
    model = write_tiny_klein(tmp_path, layers=1)
    checkpoint = tuned(model, ("proj_out",), tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="changes proj_out, for which ddpo knows no name"):
        export(checkpoint, tmp_path / "to", lora_names="kohya")
    with pytest.raises(ConfigError, match="kohya is for a LoRA file, and --merge writes a whole"):
        export(checkpoint, tmp_path / "to", merge=True, lora_names="kohya")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("lora_unet_joint_blocks_0_x_block_attn_qqq", "attn_qqq is unknown or not two matrices"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "changes the text encoder too"),
    ],
)
def test_parts_that_ddpo_cannot_read_are_named(layer: str, words: str, tmp_path: Path) -> None:
    names = (layer, "lora_unet_joint_blocks_0_x_block_attn_proj")
    tensors = {
        f"{name}.lora_{end}.weight": torch.ones(2, 2) for name in names for end in ("down", "up")
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=words):
        read_lora(tmp_path / "x.safetensors")
