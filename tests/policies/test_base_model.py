"""Places and files of base models: spellings, variants, damaged files, hub ids."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from ddpo.cli.early import check_model
from ddpo.errors import ConfigError, MissingResourceError, UnknownNameError, UserError
from ddpo.policies import load_policy
from ddpo.policies.base_model import open_model
from ddpo.policies.model_files import weight_files
from ddpo.policies.model_place import ModelPlace, fingerprint, locate, same_place
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_images
from ddpo.types import Prompt

COMMIT = "d" * 40
UNET_FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny model at models/sd, in the current directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, "models/sd")
    return tmp_path / "models" / "sd"


def image(word: str) -> torch.Tensor:
    keys = [SampleKey(Prompt("a cat"), 0)]
    (batch,) = sample_images(load_policy(word), keys, SamplerSettings(steps=2, batch=1), seed=0)
    return batch.pixels


def pipeline_of(model: Path, dtype: torch.dtype = torch.float32) -> Any:
    return StableDiffusionPipeline.from_pretrained(model, safety_checker=None, dtype=dtype)


@pytest.mark.parametrize(
    "spelling",
    [
        "models/sd",
        "models/sd/",
        "./models/sd",
        "models/../models//sd",
        "~/models/sd",
        "link",
        "{absolute}",
    ],
)
def test_every_spelling_of_a_path_is_one_model(
    model: Path, spelling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(model.parents[1]))
    Path("link").symlink_to(model)
    word = spelling.format(absolute=model)
    assert locate(word) == ModelPlace("folder", str(model))
    assert same_place(word, str(model))
    assert open_model(word).folder == model


@pytest.mark.parametrize(
    "word",
    [
        "models/sd15",
        "models/sd.safetensors",
        "./models/sd15",
        "/none/sd",
        "~/none",
        "none/",
        "a/b/c",
        "..\\sd",
        "none.ckpt",
    ],
)
def test_a_path_where_nothing_is_never_becomes_a_hub_id(model: Path, word: str) -> None:
    with pytest.raises(MissingResourceError, match="no model at") as caught:
        load_policy(word)
    assert "\n" not in str(caught.value)
    assert ("did you mean" in str(caught.value)) is word.endswith("sd15")


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("owner/name", ModelPlace("hub", "owner/name")),
        ("owner/name@main", ModelPlace("hub", "owner/name")),
        ("owner/name.v1@refs/pr/3", ModelPlace("hub", "owner/name.v1@refs/pr/3")),
        ("emoji", ModelPlace("name", "emoji")),
        ("pkg.module:make", ModelPlace("code", "pkg.module:make")),
    ],
)
def test_names_ids_and_factories(word: str, place: ModelPlace) -> None:
    assert locate(word) == place


def test_a_name_wins_over_a_folder_and_a_file_with_code_is_found_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("emoji").mkdir()
    assert locate("emoji").kind == "name"
    assert same_place("./m.py:make", f"{tmp_path}/m.py:make")
    assert not same_place("./m.py:make", "./m.py:other")


@pytest.mark.parametrize("word", ["", "nothing", "a b/c", "emojy", "ünï/x"])
def test_other_words_are_unknown(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match="unknown model"):
        locate(word)


def test_the_address_of_a_hub_page_names_the_id() -> None:
    with pytest.raises(ConfigError, match="give the hub id owner/name"):
        locate("https://huggingface.co/owner/name/tree/main")


def to_half(model: Path, parts: tuple[str, ...]) -> None:
    """Keeps only float16 weights of some components, named as diffusers names the variant."""
    half = model.parent / "half"
    pipeline_of(model, torch.float16).save_pretrained(half, variant="fp16")
    for part in parts:
        shutil.rmtree(model / part)
        shutil.copytree(half / part, model / part)


@pytest.mark.parametrize(
    "parts", [("unet", "vae", "text_encoder"), ("unet",), ("vae", "text_encoder")]
)
def test_fp16_files_are_found_in_whole_and_mixed_folders(
    model: Path, parts: tuple[str, ...]
) -> None:
    plain = image("models/sd")
    to_half(model, parts)
    assert weight_files(model / parts[0]).variant == "fp16"
    difference = (image("models/sd") - plain).abs().max()
    assert 0 < difference < 0.02


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_read(model: Path, variant: str | None) -> None:
    plain = image("models/sd")
    dtype = torch.float16 if variant else torch.float32
    unet = pipeline_of(model, dtype).unet
    shutil.rmtree(model / "unet")
    unet.save_pretrained(model / "unet", max_shard_size="100KB", variant=variant)
    assert len(weight_files(model / "unet").paths) > 1
    assert (image("models/sd") - plain).abs().max() < (0.02 if variant else 1e-6)
    next((model / "unet").glob("*-of-*.safetensors")).unlink()
    with pytest.raises(MissingResourceError, match=r"is incomplete: .*-of-.* is missing, 1 of"):
        load_policy("models/sd")


def pickled(model: Path) -> None:
    pipeline_of(model).save_pretrained(model.parent / "p", safe_serialization=False)
    shutil.rmtree(model)
    (model.parent / "p").rename(model)


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes(content) and None


def cut_short(model: Path) -> None:
    file = model / "unet" / UNET_FILE
    file.write_bytes(file.read_bytes()[:-100])


def without_a_tensor(model: Path) -> None:
    file = model / "text_encoder" / "model.safetensors"
    save_file(dict(list(load_file(file).items())[1:]), file, metadata={"format": "pt"})


def narrow(model: Path) -> None:
    file = model / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "position_embedding" in name)
    save_file(tensors | {name: tensors[name][:5].contiguous()}, file, metadata={"format": "pt"})


def remove(name: str) -> Callable[[Path], None]:
    return lambda model: (
        shutil.rmtree(model / name) if (model / name).is_dir() else os.unlink(model / name)
    )


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickles": (pickled, r"\.bin is a pickle, which ddpo never reads; .*save_pretrained"),
    "lfs pointer": (write(f"unet/{UNET_FILE}", LFS), "is a pointer of Git LFS"),
    "lfs config": (write("unet/config.json", LFS), "config.json is a pointer of Git LFS"),
    "lfs tokenizer": (
        write("tokenizer/tokenizer.json", LFS),
        "tokenizer.json is a pointer of Git LFS",
    ),
    "empty weights": (write(f"vae/{UNET_FILE}", b""), "is empty: fetch it again"),
    "cut short": (cut_short, "is damaged or truncated"),
    "a tensor is missing": (without_a_tensor, r"model\.safetensors lacks .*text_model|embed|layer"),
    "another shape": (narrow, r"position_embedding.* has another shape than .*config\.json says"),
    "no unet": (remove("unet"), "is incomplete: .* has no folder unet/"),
    "no tokenizer": (remove("tokenizer"), "has no folder tokenizer/"),
    "no vocabulary": (remove("tokenizer/tokenizer.json"), "tokenizer has no vocabulary"),
    "no weights": (remove(f"vae/{UNET_FILE}"), r"vae lacks diffusion_pytorch_model\.safetensors"),
    "no scheduler config": (
        remove("scheduler/scheduler_config.json"),
        r"scheduler_config\.json is missing",
    ),
    "damaged index": (write("model_index.json", b"{"), r"model_index\.json is damaged: "),
    "binary index": (write("model_index.json", b"\xff\xfe"), r"model_index\.json is damaged: "),
    "no index": (remove("model_index.json"), "it has no model_index.json"),
    "damaged unet config": (write("unet/config.json", b"[]x"), r"config\.json is damaged: "),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_models_are_reported_in_one_line(model: Path, case: str) -> None:
    make, message = BROKEN[case]
    make(model)
    with pytest.raises(MissingResourceError, match=message) as caught:
        load_policy("models/sd")
    assert "\n" not in str(caught.value)


def test_a_folder_above_or_inside_a_model_is_named(model: Path) -> None:
    with pytest.raises(MissingResourceError, match="there is one in sd/"):
        load_policy("models")
    with pytest.raises(MissingResourceError, match=f"it is a part of the model {model}"):
        load_policy("models/sd/unet")


SINGLE = {
    "sd.safetensors": (
        {"model.diffusion_model.x": torch.zeros(1)},
        "StableDiffusionPipeline as P; P.from_single_file",
    ),
    "xl.safetensors": (
        {"conditioner.embedders.1.x": torch.zeros(1)},
        "StableDiffusionXLPipeline as P",
    ),
    "lora.safetensors": (
        {"unet.x.lora_A.weight": torch.zeros(1)},
        "is a LoRA, not a model: give it as --checkpoint",
    ),
    "old.ckpt": (None, "a pickle: only where you trust it"),
}


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("absolute", [True, False])
def test_a_model_in_one_file_says_how_to_convert_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, absolute: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    tensors, message = SINGLE[name]
    (tmp_path / "m").mkdir()
    if tensors is None:
        (tmp_path / "m" / name).write_bytes(b"\x80\x02")
    else:
        save_file(tensors, tmp_path / "m" / name)
    with pytest.raises(ConfigError, match=message):
        load_policy(str(tmp_path / "m" / name) if absolute else f"m/{name}")


@pytest.fixture
def snapshot(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """owner/name in a hub cache, with DDPO_OFFLINE alone; any request fails the test."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a request left the machine")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    base = tmp_path / "hub" / "models--owner--name"
    for ref in ("main", "v2"):
        (base / "refs").mkdir(parents=True, exist_ok=True)
        (base / "refs" / ref).write_text(COMMIT)
    shutil.copytree(tiny_model, base / "snapshots" / COMMIT)
    return base / "snapshots" / COMMIT


@pytest.mark.parametrize("word", ["owner/name", "owner/name@main", "owner/name@v2"])
def test_offline_a_cached_model_is_loaded_without_a_request(
    snapshot: Path, tiny_model: Path, word: str
) -> None:
    assert torch.equal(image(word), image(str(tiny_model)))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_offline_a_half_fetched_model_says_what_to_fetch(snapshot: Path, part: str) -> None:
    for file in (snapshot / part).glob("*.safetensors"):
        file.unlink()
    with pytest.raises(
        MissingResourceError,
        match=f"incomplete in the hub's cache .{part}/ .*hf download owner/name",
    ):
        load_policy("owner/name")


@pytest.mark.parametrize("whole_folder", [True, False])
def test_offline_a_model_without_its_tokenizer_is_refused_at_the_door(
    snapshot: Path, whole_folder: bool
) -> None:
    lost = snapshot / "tokenizer"
    shutil.rmtree(lost) if whole_folder else os.unlink(lost / "tokenizer.json")
    with pytest.raises(
        MissingResourceError,
        match=r"incomplete in the hub's cache .tokenizer/ has no vocabulary.*hf download owner/n",
    ):
        check_model("owner/name")


@pytest.mark.parametrize("case", ["no unet", "no tokenizer", "no vocabulary", "no weights"])
def test_missing_files_of_a_folder_are_found_at_the_door(model: Path, case: str) -> None:
    check_model("models/sd")
    make, message = BROKEN[case]
    make(model)
    with pytest.raises(MissingResourceError, match=message):
        check_model("models/sd")


def test_the_door_loads_no_torch(tiny_model: Path) -> None:
    code = (
        "import sys; from ddpo.cli.early import check_model; check_model(sys.argv[1]); "
        "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tiny_model)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("word", ["owner/other", "owner/name@v3"])
def test_offline_what_is_not_cached_is_not_asked_for(snapshot: Path, word: str) -> None:
    with pytest.raises(UserError, match="is not in the hub's cache and fetching is off"):
        load_policy(word)


def test_a_fingerprint_is_of_the_denoiser_not_of_its_place(model: Path) -> None:
    before = fingerprint("models/sd")
    assert len(before) == 16
    shutil.copytree(model, "copy")
    assert fingerprint("copy") == before
    (model / "vae" / UNET_FILE).unlink()
    assert fingerprint("models/sd") == before
    shutil.copy(
        model / "unet" / UNET_FILE, model / "unet" / "diffusion_pytorch_model.non_ema.safetensors"
    )
    assert fingerprint("models/sd") == before
    tensors = load_file("copy/unet/" + UNET_FILE)
    save_file({name: tensor + 1e-3 for name, tensor in tensors.items()}, "copy/unet/" + UNET_FILE)
    assert fingerprint("copy") != before
    assert [fingerprint(word) for word in ("emoji", "owner/name", "none")] == ["", "", ""]


def test_a_component_of_another_class_is_named(model: Path) -> None:
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(
        json.dumps(index | {"vae": ["diffusers", "AutoencoderTiny"]})
    )
    with pytest.raises(
        ConfigError,
        match="the vae of the model 'models/sd' is a AutoencoderTiny: ddpo reads AutoencoderKL",
    ):
        load_policy("models/sd")
