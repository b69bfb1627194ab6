"""Checkpoints of other trainers: images as in plain diffusers, weights W + alpha/rank · B·A."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub import close_session, constants
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpo.errors import CheckpointError, MissingResourceError
from ddpo.policies import load_policy
from ddpo.policies.checkpoints.external import fetch
from ddpo.policies.checkpoints.folder import find_checkpoint
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images, sample_noise
from ddpo.types import Prompt

KEY = SampleKey(Prompt("a cat"), 0)
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
ATTENTION = [
    f"{BLOCK}.{part}.{name}"
    for part in ("attn1", "attn2")
    for name in ("to_q", "to_k", "to_v", "to_out.0")
]
LAYERS = [
    *ATTENTION,
    "down_blocks.0.attentions.0.proj_in",
    f"{BLOCK}.ff.net.0.proj",
    f"{BLOCK}.ff.net.2",
]
COMMIT = "c" * 40

Lora = dict[str, tuple[Tensor, Tensor]]


def pipeline_of(model: Path) -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def random_lora(unet: Any, layers: list[str], rank: Callable[[int], int] = lambda _: 3) -> Lora:
    """Layer → A and B, large enough to be seen in the image."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for index, layer in enumerate(layers):
        out, width, *kernel = unet.get_submodule(layer).weight.shape
        r = rank(index)
        found[layer] = (
            0.3 * torch.randn(r, width, *kernel, generator=generator),
            0.3 * torch.randn(out, r, *(1 for _ in kernel), generator=generator),
        )
    return found


def merged(model: Path, lora: Lora, alphas: dict[str, float]) -> Any:
    """The formula itself (arXiv 2106.09685, section 4.1), with none of the libraries."""
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    with torch.no_grad():
        for layer, (a, b) in lora.items():
            weight = unet.get_submodule(layer).weight
            weight += (alphas.get(layer, len(a)) / len(a)) * (b.flatten(1) @ a.flatten(1)).view_as(
                weight
            )
    return unet


def same_images(policy: Any, pipeline: Any) -> None:
    noise = sample_noise(KEY, 0, 3, policy.latent_shape)[:1]
    expected = pipeline(
        "a cat", latents=noise, num_inference_steps=3, guidance_scale=2.0, eta=0.0, output_type="pt"
    ).images
    (found,) = sample_images(
        policy, [KEY], SamplerSettings(steps=3, guidance=2.0, eta=0.0, batch=1), seed=0
    )
    torch.testing.assert_close(found.pixels, expected, atol=1e-5, rtol=0)


def same_predictions(policy: Any, unet: Any) -> None:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, *policy.latent_shape, generator=generator)
    hidden = policy.encode(["a cat", "a dog"])
    times = torch.tensor([10, 700])
    with torch.no_grad():
        torch.testing.assert_close(
            policy.predict(latents, times, hidden),
            unet(latents, times, hidden).sample,
            atol=1e-5,
            rtol=1e-5,
        )


def processor(layer: str) -> str:
    attention, _, name = layer.removesuffix(".0").rpartition(".")
    return f"{attention}.processor.{name}_lora"


def kohya(layer: str) -> str:
    return "lora_unet_" + layer.replace(".", "_")


FORMATS: dict[str, tuple[list[str], Callable[[str], tuple[str, str]]]] = {
    "peft": (LAYERS, lambda layer: (f"unet.{layer}.lora_A.weight", f"unet.{layer}.lora_B.weight")),
    "old diffusers": (
        LAYERS,
        lambda layer: (f"unet.{layer}.lora.down.weight", f"unet.{layer}.lora.up.weight"),
    ),
    "processors": (
        ATTENTION,
        lambda layer: (
            f"unet.{processor(layer)}.down.weight",
            f"unet.{processor(layer)}.up.weight",
        ),
    ),
    "processors, bare": (
        ATTENTION,
        lambda layer: (f"{processor(layer)}.down.weight", f"{processor(layer)}.up.weight"),
    ),
    "kohya": (
        LAYERS,
        lambda layer: (f"{kohya(layer)}.lora_down.weight", f"{kohya(layer)}.lora_up.weight"),
    ),
}


def write_lora(
    folder: Path,
    lora: Lora,
    form: str,
    alphas: dict[str, float] | None = None,
    name: str = "pytorch_lora_weights",
) -> Path:
    _, names = FORMATS[form]
    tensors = {
        key: tensor.contiguous()
        for layer, pair in lora.items()
        for key, tensor in zip(names(layer), pair, strict=True)
    }
    tensors |= {
        f"{kohya(layer)}.alpha": torch.tensor(alpha) for layer, alpha in (alphas or {}).items()
    }
    save_file(tensors, folder / f"{name}.safetensors")
    return folder


@pytest.mark.parametrize("form", FORMATS)
def test_a_lora_of_any_format_gives_the_images_of_diffusers(
    tiny_model: Path, tmp_path: Path, form: str
) -> None:
    pipeline = pipeline_of(tiny_model)
    lora = random_lora(pipeline.unet, FORMATS[form][0])
    alphas = dict.fromkeys(lora, 6.0) if form == "kohya" else {}
    write_lora(tmp_path, lora, form, alphas)
    info = find_checkpoint(tmp_path, str(tiny_model))
    assert (info.kind, info.iteration, info.run, info.adapter["rank"], info.adapter["alpha"]) == (
        "lora",
        0,
        None,
        3,
        6 if alphas else 3,
    )
    assert {"to_q", "to_k", "to_v", "to_out.0"} <= set(info.adapter["targets"])
    policy = load_policy(str(tiny_model), info)
    same_predictions(policy, merged(tiny_model, lora, alphas))
    with pytest.raises(AssertionError, match="not close"):
        same_predictions(policy, pipeline.unet)
    with policy.reference():
        same_predictions(policy, pipeline.unet)
    if form == "processors, bare":
        pipeline.unet.load_lora_adapter(load_file(info.weights), prefix=None)
    else:
        pipeline.load_lora_weights(tmp_path)
    same_images(policy, pipeline)


def test_every_layer_has_its_own_rank_and_alpha(tiny_model: Path, tmp_path: Path) -> None:
    """Of one file after another on the same policy."""
    policy = load_policy(str(tiny_model))
    for form in ("peft", "kohya"):
        lora = random_lora(
            policy.unet if form == "peft" else pipeline_of(tiny_model).unet,
            LAYERS,
            lambda index: 2 + index % 3,
        )
        alphas = {layer: 0.5 + index for index, layer in enumerate(lora)} if form == "kohya" else {}
        file = write_lora(tmp_path, lora, form, alphas, name=form) / f"{form}.safetensors"
        policy.load(find_checkpoint(file, str(tiny_model)))
        same_predictions(policy, merged(tiny_model, lora, alphas))


def test_what_the_header_says_of_alpha_is_heeded(tiny_model: Path, tmp_path: Path) -> None:
    pipeline = pipeline_of(tiny_model)
    pipeline.unet.add_adapter(
        LoraConfig(
            r=4,
            lora_alpha=2,
            target_modules=["to_q", "to_v"],
            init_lora_weights=False,
            use_rslora=True,
        )
    )
    metadata = {
        key: sorted(v) if isinstance(v, set) else v
        for key, v in pipeline.unet.peft_config["default"].to_dict().items()
    }
    layers = get_peft_model_state_dict(pipeline.unet)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=layers, unet_lora_adapter_metadata=metadata
    )
    info = find_checkpoint(tmp_path, str(tiny_model))
    assert info.adapter == {"rank": 4, "alpha": 2, "targets": ["to_q", "to_v"]}
    same_images(load_policy(str(tiny_model), info), pipeline)


def tuned_pipeline(model: Path) -> Any:
    pipeline = pipeline_of(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in pipeline.unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator)).copy_(
                parameter.half()
            )  # the same in float16
    return pipeline


@pytest.mark.parametrize("form", ["pipeline", "fp16 pipeline", "unet/", "unet itself", "sharded"])
def test_a_full_unet_of_any_layout_gives_the_images_of_diffusers(
    tiny_model: Path, tmp_path: Path, form: str
) -> None:
    pipeline = tuned_pipeline(tiny_model)
    if form == "pipeline":
        pipeline.save_pretrained(tmp_path)
    elif form == "fp16 pipeline":
        tuned_pipeline(tiny_model).to(dtype=torch.float16).save_pretrained(
            tmp_path, variant="fp16"
        )  # text encoder and VAE are rounded
    else:
        size = "100KB" if form == "sharded" else "10GB"
        pipeline.unet.save_pretrained(
            tmp_path / ("" if form == "unet itself" else "unet"), max_shard_size=size
        )
    assert (len(list(tmp_path.rglob("diffusion*-of-*.safetensors"))) > 1) is (form == "sharded")
    info = find_checkpoint(str(tmp_path), str(tiny_model))
    assert (info.kind, info.iteration, info.run, info.adapter, info.model) == (
        "full",
        0,
        None,
        {},
        str(tiny_model),
    )
    policy = load_policy(str(tiny_model), tmp_path)
    same_images(policy, pipeline)
    with policy.reference():
        same_images(policy, pipeline_of(tiny_model))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of owner/name in a hub cache, with no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "hub" / "models--owner--name"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(COMMIT)
    (base / "snapshots" / COMMIT).mkdir(parents=True)
    return base / "snapshots" / COMMIT


def test_hub_ids(tiny_model: Path, hub: Path, tmp_path: Path) -> None:
    pipeline = tuned_pipeline(tiny_model)
    lora = random_lora(pipeline_of(tiny_model).unet, LAYERS)
    model = str(tiny_model)
    with pytest.raises(
        CheckpointError,
        match="was not made by ddpo and does not name its base model: give --model MODEL",
    ):
        find_checkpoint("owner/name")
    with pytest.raises(CheckpointError, match="owner/name is neither a checkpoint"):
        find_checkpoint("owner/name", model)
    for missing in ("owner/other", "owner/name/style.safetensors"):
        with pytest.raises(
            MissingResourceError,
            match=f"'{missing}' .no folder here, so a hub id. is not in the hub's cache and fetch",
        ):
            find_checkpoint(missing, model)
    (tmp_path / "owner").mkdir()
    with pytest.raises(CheckpointError, match="owner/name: no such checkpoint or run folder"):
        find_checkpoint("owner/name", model)
    (tmp_path / "owner").rmdir()
    write_lora(hub, lora, "kohya", name="style")
    same_predictions(
        load_policy(model, "owner/name/style.safetensors"), merged(tiny_model, lora, {})
    )
    (hub / "style.safetensors").unlink()
    pipeline.save_pretrained(hub)
    same_predictions(load_policy(model, "owner/name"), pipeline.unet)
    (hub / "policy.json").write_text(
        json.dumps({"schema": 1, "model": model, "kind": "full", "iteration": 9})
    )
    assert (find_checkpoint("owner/name").iteration, find_checkpoint("owner/name").folder) == (
        9,
        hub,
    )


class HubServer(BaseHTTPRequestHandler):
    """The part of the hub that its client needs: commit, file list, and files with their names."""

    names: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        path = self.path.partition("?")[0]
        reply = None
        name = path.partition(f"/owner/name/resolve/{COMMIT}/")[2]
        if "/tree/" in path:
            reply = [
                {"type": "file", "path": name, "size": len(name), "oid": "0"} for name in self.names
            ]
        elif path.startswith("/api/models/owner/name"):
            reply = {
                "id": "owner/name",
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in self.names],
            }
        content = name.encode() if reply is None else json.dumps(reply).encode()
        self.send_response(200 if reply or name in self.names else 404)
        for header, value in (
            ("Content-Length", str(len(content))),
            ("ETag", '"' + name.replace("/", "-") + '"'),
            ("X-Repo-Commit", COMMIT),
        ):
            self.send_header(header, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def online(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As `hub`, with nothing in the cache and a server of it on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), HubServer) as http:
        for name in ("DDPO_OFFLINE", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        address = f"http://127.0.0.1:{http.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        close_session()  # it may have been opened with other settings
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield hub
        http.shutdown()
        thread.join()
        close_session()


WEIGHTS = "diffusion_pytorch_model"
PARTS = ["text_encoder/config.json", "text_encoder/model.safetensors", f"vae/{WEIGHTS}.safetensors"]
PIPELINE = ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", *PARTS]
CLUTTER = [
    "README.md",
    "whole.safetensors",
    f"unet/{WEIGHTS}.bin",
    "safety_checker/model.safetensors",
    "checkpoint-5/x.safetensors",
]
SHARDS = [f"unet/{WEIGHTS}-0000{n}-of-00002.safetensors" for n in (1, 2)] + [
    f"unet/{WEIGHTS}.safetensors.index.json"
]
REPOSITORIES = {
    "pipeline": (
        [*PIPELINE, f"unet/{WEIGHTS}.safetensors"],
        [f"unet/{WEIGHTS}.fp16.safetensors", f"unet/{WEIGHTS}.non_ema.safetensors"],
    ),
    "sharded": ([*PIPELINE, *SHARDS], [f"unet/{WEIGHTS}.fp16-00001-of-00001.safetensors"]),
    "fp16": (
        [*PIPELINE, f"unet/{WEIGHTS}.fp16.safetensors", "text_encoder/model.fp16.safetensors"],
        [],
    ),
    "lora": (["pytorch_lora_weights.safetensors"], [f"{WEIGHTS}.safetensors"]),
    "unet itself": (["config.json", f"{WEIGHTS}.safetensors"], []),
}


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_only_what_is_needed_is_fetched_from_the_hub(
    online: Path, monkeypatch: pytest.MonkeyPatch, repository: str
) -> None:
    necessary, others = REPOSITORIES[repository]
    monkeypatch.setattr(HubServer, "names", [*necessary, *others, *CLUTTER])
    assert fetch("owner/name", "base") == online
    assert sorted(
        str(file.relative_to(online)) for file in online.rglob("*") if file.is_file()
    ) == sorted(necessary)
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    assert fetch("owner/name", "base") == online


def other_unet(model: Path, folder: Path) -> None:
    config = {
        **UNet2DConditionModel.load_config(model, subfolder="unet"),
        "block_out_channels": [8, 32],
    }
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")


def other_encoder(model: Path, folder: Path) -> None:
    pipeline = pipeline_of(model)
    with torch.no_grad():
        next(pipeline.text_encoder.parameters()).mul_(1.01)
    pipeline.save_pretrained(folder)


def other_schedule(model: Path, folder: Path) -> None:
    pipeline = pipeline_of(model)
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    pipeline.save_pretrained(folder)


def lora_of(**tensors: Tensor) -> Callable[[Path, Path], None]:
    return lambda _, folder: save_file(tensors, folder / "pytorch_lora_weights.safetensors")


def pair(name: str, width: int = 16, out: int = 16) -> dict[str, Tensor]:
    return {
        f"{name}.lora_A.weight": torch.ones(2, width),
        f"{name}.lora_B.weight": torch.ones(out, 2),
    }


def text(name: str, content: str = "") -> Callable[[Path, Path], None]:
    def write(_: Path, folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return write


def half_a_unet(model: Path, folder: Path) -> None:
    unet = pipeline_of(model).unet
    unet.save_pretrained(folder / "unet")
    save_file(
        dict(list(unet.state_dict().items())[1:]),
        folder / "unet" / "diffusion_pytorch_model.safetensors",
    )


UNET_CONFIG = '{"_class_name": "UNet2DConditionModel"}'
BAD: dict[str, tuple[tuple[Callable[[Path, Path], None], ...], str]] = {
    "architecture": (
        (other_unet,),
        r"unet has another architecture than '.*model': "
        r"block_out_channels is \[8, 32\], not \[16, 32\]",
    ),
    "missing weights": (
        (half_a_unet,),
        "unet does not fit .*conv_in.weight is in one of them only",
    ),
    "text encoder": (
        (other_encoder,),
        r"has another text_encoder than '.*model' \(.*embed.*\): "
        "ddpo evaluates changes of the denoiser only",
    ),
    "schedule": ((other_schedule,), "another noise schedule or prediction type than"),
    "no such layer": (
        (lora_of(**pair("unet.mid_block.attentions.7.to_q")),),
        "'.*': the model has no layer mid_block.attentions.7.to_q",
    ),
    "width": (
        (lora_of(**pair(f"unet.{ATTENTION[0]}", width=24)),),
        r"attn1.to_q is \[16, 16\] in the model and \[16, 24\] in the LoRA",
    ),
    "half a layer": (
        (lora_of(**{f"unet.{ATTENTION[0]}.lora_A.weight": torch.ones(2, 16)}),),
        "lora_B.weight is missing",
    ),
    "text encoder too": (
        (lora_of(**pair("text_encoder.x.q_proj")),),
        "changes the text encoder too",
    ),
    "dora": (
        (lora_of(**{"lora_unet_x.dora_scale": torch.ones(2)}),),
        "no plain LoRA: it holds lora_unet_x.dora_scale",
    ),
    "locon": (
        (lora_of(**{"lora_unet_x.lora_mid.weight": torch.ones(2)}),),
        "no LoRA that diffusers can read: .*lora_mid",
    ),
    "a whole model": (
        (lora_of(**{"model.diffusion_model.x": torch.ones(2)}),),
        "it holds model.diffusion_model.x",
    ),
    "damaged": ((text("pytorch_lora_weights.safetensors", "x"),), "cannot be read as safetensors"),
    "pickled lora": (
        (text("pytorch_lora_weights.bin"),),
        r"is a pickle, .*torch.load\('pytorch_lora_weights.bin', weights_only=True\)",
    ),
    "pickled unet": (
        (text("unet/config.json", UNET_CONFIG), text("unet/diffusion_pytorch_model.bin")),
        "model.bin is a pickle",
    ),
    "no weights": (
        (text("unet/config.json", UNET_CONFIG),),
        "lacks diffusion_pytorch_model.safetensors",
    ),
    "damaged config": ((text("unet/config.json", "{"),), "config.json is damaged"),
    "another denoiser": (
        (text("model_index.json", "{}"),),
        "a pipeline without a denoiser",
    ),
    "two at once": (
        (other_unet, lora_of(**pair("unet.x"))),
        "name one of unet, pytorch_lora_weights.safetensors",
    ),
    "two files": (
        (text("a.safetensors"), text("b.safetensors")),
        "name one of a.safetensors, b.safetensors",
    ),
    "nothing": ((text("notes.txt"),), "neither a checkpoint"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_reported_in_one_line(
    tiny_model: Path, tmp_path: Path, case: str
) -> None:
    makers, message = BAD[case]
    for make in makers:
        make(tiny_model, tmp_path)
    policy = load_policy(str(tiny_model))
    with pytest.raises(CheckpointError, match=message) as caught:
        policy.load(find_checkpoint(tmp_path, str(tiny_model)))
    assert "\n" not in str(caught.value)
    assert policy.kind == "none"


def test_the_base_model_must_be_known_and_right(tiny_model: Path, tmp_path: Path) -> None:
    write_lora(tmp_path, random_lora(pipeline_of(tiny_model).unet, ATTENTION), "peft")
    with pytest.raises(CheckpointError, match="does not name its base model: give --model MODEL"):
        find_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="was trained from 'one', not from '"):
        load_policy(str(tiny_model), find_checkpoint(tmp_path, "one"))
    own = load_policy(str(tiny_model))
    own.adapt("full")
    (tmp_path / "own").mkdir()
    own.save(tmp_path / "own", iteration=2)
    assert (
        find_checkpoint(tmp_path / "own").model
        == find_checkpoint(tmp_path / "own", str(tiny_model)).model
    )
    with pytest.raises(CheckpointError, match=r"was trained from '.*', not from 'two'"):
        find_checkpoint(tmp_path / "own", "two")
    with pytest.raises(CheckpointError, match=r"already adapted \(full\)"):
        own.load(find_checkpoint(tmp_path / "pytorch_lora_weights.safetensors", str(tiny_model)))


def peft_folder(
    model: Path, folder: Path, prefix: bool = True, half: bool = False, **settings: Any
) -> Any:
    """Writes a UNet's adapter with peft, and returns the UNet with peft's own forward."""
    torch.manual_seed(1)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": ["to_q", "to_v"], "init_lora_weights": False}
        | settings
    )
    made = get_peft_model(UNet2DConditionModel.from_pretrained(model, subfolder="unet"), config)
    if half:
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if "lora" in name:
                    parameter.copy_(parameter.half())
    made.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    if not prefix:
        tensors = {key.removeprefix("base_model.model."): tensor for key, tensor in tensors.items()}
    save_file({key: tensor.half() if half else tensor for key, tensor in tensors.items()}, file)
    return made.eval()


PEFT: dict[str, dict[str, Any]] = {
    "alpha 8": {},
    "bare": {"prefix": False},
    "float16": {"half": True},
    "alpha 1": {"lora_alpha": 1},
    "rank-stabilised": {"use_rslora": True},
    "alphas by layer": {"alpha_pattern": {"attn1.to_q": 1, "to_v": 16}},
    "ranks by layer": {"rank_pattern": {"attn2.to_q": 2}, "alpha_pattern": {"attn2.to_q": 6}},
    "rank-stabilised, by layer": {
        "use_rslora": True,
        "alpha_pattern": {"attn1.to_q": 2},
        "rank_pattern": {"attn1.to_q": 2},
    },
    "linear and convolution": {"target_modules": ["to_k", "ff.net.2", "conv1", "proj_in"]},
    "dropout": {"lora_dropout": 0.5},
    "targets as an expression": {"target_modules": r".*attn1\.to_[qk]"},
}


@pytest.mark.parametrize("case", PEFT)
def test_an_adapter_of_peft_predicts_as_peft_does(
    tiny_model: Path, tmp_path: Path, case: str
) -> None:
    unet = peft_folder(tiny_model, tmp_path, **PEFT[case])
    policy = load_policy(str(tiny_model), find_checkpoint(tmp_path, str(tiny_model)))
    same_predictions(policy, unet)
    with pytest.raises(AssertionError, match="not close"):
        same_predictions(load_policy(str(tiny_model)), unet)


def edited(**values: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return edit


def two_adapters(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    both = {
        key.replace(".weight", f".{name}.weight"): tensor.clone()
        for key, tensor in tensors.items()
        for name in ("one", "two")
    }
    save_file(both, folder / "adapter_model.safetensors")


def in_folders(folder: Path) -> None:
    (folder / "style").mkdir()
    for file in folder.glob("adapter_*"):
        file.rename(folder / "style" / file.name)


PEFT_REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "dora": (edited(use_dora=True), "made with use_dora = True"),
    "bias": (edited(bias="lora_only"), "made with bias = 'lora_only'"),
    "other modules": (
        edited(modules_to_save=["conv_in"]),
        r"made with modules_to_save = \['conv_in'\]",
    ),
    "pissa": (edited(init_lora_weights="pissa"), "made with init_lora_weights = 'pissa'"),
    "another method": (edited(peft_type="LOKR"), "made with peft_type = 'LOKR'"),
    "a setting of tomorrow": (edited(lora_twist=3), "made with lora_twist = 3"),
    "damaged config": (
        lambda folder: (folder / "adapter_config.json").write_text("{") and None,
        "adapter_config.json is damaged",
    ),
    "no config": (
        lambda folder: (folder / "adapter_config.json").unlink(),
        "lacks adapter_config.json beside it",
    ),
    "two adapters": (two_adapters, r"holds 2 adapters \(one, two\)"),
    "in folders": (in_folders, "holds adapters in folders of their own: name one, such as .*style"),
}


@pytest.mark.parametrize("case", PEFT_REFUSED)
def test_an_adapter_of_peft_that_is_no_plain_lora_is_refused(
    tiny_model: Path, tmp_path: Path, case: str
) -> None:
    peft_folder(tiny_model, tmp_path)
    make, message = PEFT_REFUSED[case]
    make(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint(tmp_path, str(tiny_model))


def test_an_adapter_named_in_its_keys_is_read(tiny_model: Path, tmp_path: Path) -> None:
    unet = peft_folder(tiny_model, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file(
        {
            key.replace(".weight", ".default.weight"): tensor
            for key, tensor in load_file(file).items()
        },
        file,
    )
    same_predictions(load_policy(str(tiny_model), find_checkpoint(tmp_path, str(tiny_model))), unet)
