"""A LoRA of a denoiser in one safetensors file of another trainer.

The formats, by their tensor names:

- diffusers: "unet.….lora_A.weight", or "transformer.…" for a transformer;
- peft: "base_model.model.….lora_A.weight" beside an `adapter_config.json`;
- older diffusers: "unet.….lora.down.weight";
- attention processors: "….processor.to_q_lora.down.weight", with or without "unet.";
- kohya-ss: "lora_unet_….lora_down.weight", each with an alpha; for Stable Diffusion XL and for
  transformers with the names of their original code (`ddpo.policies.checkpoints.kohya_lora`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import CheckpointError, one_line
from ddpo.io.fields import COUNT, Fields, MapOf, Maybe, Real, shown
from ddpo.io.json_files import JsonError, check_fields, parse_foreign, read_foreign_json
from ddpo.policies.checkpoints.kohya_lora import named_as_diffusers
from ddpo.policies.pipelines import DENOISERS, IN_WORDS, TRANSFORMER, UNET

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ATTENTION",
    "LORA_FILE",
    "PEFT_CONFIG",
    "PEFT_FILE",
    "LoraFile",
    "check_lora",
    "load_lora",
    "module_shape",
    "read_lora",
]

LORA_FILE: Final = "pytorch_lora_weights.safetensors"  # the name that diffusers uses
PEFT_FILE: Final = "adapter_model.safetensors"  # the name that peft uses
PEFT_CONFIG: Final = "adapter_config.json"
PEFT_PREFIX: Final = "base_model.model."
PLAIN_PATTERN: Final = re.compile(r"\^?(?:[\w.-]|\\[.-])+\$?")  # peft reads keys as patterns
ADAPTER_NAME: Final = re.compile(r"(?<=\.lora_[AB])\.([^.]+)\.weight$")
PEFT_SETTINGS: Final[Mapping[str, tuple[Any, ...] | None]] = {
    "peft_type": ("LORA", None),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    **dict.fromkeys(
        (
            "r",
            "lora_alpha",
            "rank_pattern",
            "alpha_pattern",
            "use_rslora",
            "target_modules",
            "exclude_modules",
            "layers_to_transform",
            "layers_pattern",
            "lora_dropout",
            "fan_in_fan_out",
            "task_type",
            "auto_mapping",
            "peft_version",
            "base_model_name_or_path",
            "revision",
            "inference_mode",
            "megatron_core",
            "qalora_group_size",
            "eva_config",
            "runtime_config",
            "velora_config",
            "ensure_weight_tying",
        )
    ),
}
"""The accepted values of peft's settings; None accepts any value.

Settings with None are honoured or do not affect a finished adapter. Settings that are not listed
must be unset. Other values of `init_lora_weights`, such as "pissa", change the base weights.
"""
SETTINGS: Final[Fields] = {
    "r": Maybe(COUNT),
    "lora_alpha": Maybe(Real()),
    "alpha_pattern": Maybe(MapOf(Real())),
}
"""The kinds of peft's settings that scale a LoRA."""
ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that ddpo-pytorch and TRL adapt."""
UNET_CLASS: Final = "UNet2DConditionModel"


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA of a denoiser, independent of its file format."""

    tensors: dict[str, Tensor]  # by peft's names, without the adapter name
    ranks: dict[str, int]  # layer → rank
    alphas: dict[str, float]  # layer → alpha
    rank_stabilised: bool = False  # scaled by alpha / √rank (arXiv 2312.03732), not alpha / rank
    denoiser: str = UNET  # the component that it changes, one of `DENOISERS`


def read_lora(file: Path, denoiser: Any = None) -> LoraFile:
    """The LoRA of a file in any of the formats, read with diffusers' own converters.

    Args:
        file: Safetensors file.
        denoiser: Denoiser of diffusers that the LoRA is for, which also translates the original
            block names of Stable Diffusion XL; None leaves them.

    Raises:
        CheckpointError: The file is damaged, no LoRA, or not one of a denoiser of this kind alone,
            or it has weights that are NaN or infinite.
    """
    from ddpo.io.tensors import check_finite, load_tensors

    _check_keys(file)
    raw, facts = load_tensors(file)
    check_finite(raw, file)
    settings = _peft_settings(file) or _metadata(file, facts)
    _check_settings(file, settings)
    raw = {key.removeprefix(PEFT_PREFIX): tensor for key, tensor in raw.items()}
    raw = named_as_diffusers(file, _without_adapter_name(file, raw), denoiser)
    component = _component(file, raw, denoiser)
    state, network_alphas = _to_diffusers(file, raw, component, denoiser)
    # UNet2DConditionModel.save_attn_procs wrote no "unet."
    plain = {key.removeprefix(f"{component}."): tensor for key, tensor in state.items()}
    tensors = _converted(file, plain)
    ranks = {layer: _rank(file, tensors, layer) for layer in _layers(file, tensors)}
    stated = {
        _layer_of_alpha(key.removeprefix(f"{component}.")): value
        for key, value in _converted(file, network_alphas).items()
    }
    alphas = {
        layer: stated.get(layer, _alpha_of(layer, rank, settings)) for layer, rank in ranks.items()
    }
    return LoraFile(tensors, ranks, alphas, bool(settings.get("use_rslora")), component)


def _component(file: Path, tensors: Mapping[str, Tensor], denoiser: Any) -> str:
    """The component that a LoRA changes, by the names of its tensors or else by the denoiser.

    Raises:
        CheckpointError: The names are those of another component than the denoiser.
    """
    named = {key.partition(".")[0] for key in tensors} & set(DENOISERS)
    due = UNET if denoiser is None or type(denoiser).__name__ == UNET_CLASS else TRANSFORMER
    if denoiser is not None and named - {due}:
        (other,) = named - {due}
        raise CheckpointError(
            f"{file} is a LoRA of a {IN_WORDS[other]}, and the denoiser of the base model is a "
            f"{IN_WORDS[due]}: give the base model that the LoRA was trained on"
        )
    return named.pop() if named else due


def _to_diffusers(
    file: Path, tensors: dict[str, Tensor], component: str, denoiser: Any
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The tensors by diffusers' names, and the alphas that the file states."""
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    config = None if denoiser is None else denoiser.config
    try:
        if component == UNET:
            state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(
                tensors, unet_config=config
            )
        else:  # a transformer's names need no conversion
            alphas = {key: float(tensors[key]) for key in tensors if key.endswith(".alpha")}
            state = {key: tensor for key, tensor in tensors.items() if key not in alphas}
    except Exception as error:  # a damaged file can raise anything in the library
        raise CheckpointError(
            f"{file} is no LoRA that diffusers can read: {one_line(error)}"
        ) from error
    if any(key.startswith(("text_encoder", "text_model")) for key in state):
        raise CheckpointError(
            f"{file} changes the text encoder too: ddpo evaluates changes of the denoiser only; "
            "give images of it instead"
        )
    return state, alphas or {}


def _converted(file: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values under peft's names instead of diffusers'."""
    from diffusers.utils import convert_unet_state_dict_to_peft

    try:
        return dict(convert_unet_state_dict_to_peft(dict(values)))
    except Exception as error:  # a damaged file can raise anything in the library
        raise CheckpointError(
            f"{file} is no LoRA that diffusers can read: {one_line(error)}"
        ) from error


def _rank(file: Path, tensors: Mapping[str, Tensor], layer: str) -> int:
    """The rank of a layer, which its two matrices share."""
    down = tensors[f"{layer}.lora_A.weight"]
    up = tensors[f"{layer}.lora_B.weight"]
    if min(down.ndim, up.ndim) < 2 or not down.shape[0] == up.shape[1] > 0:
        raise CheckpointError(
            f"{file} is no plain LoRA: {layer} has the shapes "
            f"{list(down.shape)} and {list(up.shape)}"
        )
    return int(down.shape[0])


def _layers(file: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """The layers of a LoRA by peft's names, sorted; raises unless each has two matrices."""
    layers = {
        key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")
    }
    expected = {f"{layer}.{part}.weight" for layer in layers for part in ("lora_A", "lora_B")}
    if odd := sorted(expected ^ set(tensors)):
        wrong = "missing" if odd[0] in expected else "not a part of one"
        raise CheckpointError(f"{file} is no plain LoRA: {odd[0]} is {wrong}")
    return sorted(layers)


def _alpha_of(layer: str, rank: int, settings: Mapping[str, Any]) -> float:
    """The alpha of a layer by peft's settings; its rank if they state none."""
    from peft.utils.other import get_pattern_key

    patterns = dict(settings.get("alpha_pattern") or {})
    if odd := sorted(pattern for pattern in patterns if not PLAIN_PATTERN.fullmatch(pattern)):
        raise CheckpointError(
            f"the key {shown(odd[0])} of alpha_pattern is no name of a layer, "
            "and ddpo reads no other regular expressions"
        )
    alpha = patterns.get(get_pattern_key(list(patterns), layer), settings.get("lora_alpha"))
    return float(rank if alpha is None else alpha)


def _without_adapter_name(file: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the adapter name of a module's state dict ("lora_A.default.weight")."""
    names = {found[1] for key in tensors if (found := ADAPTER_NAME.search(key))}
    if len(names) > 1:
        raise CheckpointError(
            f"{file} holds {len(names)} adapters ({', '.join(sorted(names))}): "
            "write one of them to a file of its own"
        )
    return {ADAPTER_NAME.sub(".weight", key): tensor for key, tensor in tensors.items()}


def _check_keys(file: Path) -> None:
    """Raises for a file that is no LoRA, before reading its tensors: it may be a whole model."""
    from ddpo.io.tensors import opened_tensors

    with opened_tensors(file) as opened:
        keys = list(opened.keys())
    odd = next((key for key in keys if "lora" not in key and not key.endswith(".alpha")), None)
    odd = odd or next((key for key in keys if "dora_scale" in key or "lora_magnitude" in key), None)
    if odd is not None or not keys:
        raise CheckpointError(
            f"{file} is no plain LoRA: " + (f"it holds {odd}" if keys else "it is empty")
        )


def _metadata(file: Path, facts: Mapping[str, str]) -> dict[str, Any]:
    """Peft's settings from the file's header, where newer diffusers write them; {} without any."""
    try:
        found = parse_foreign(facts.get("lora_adapter_metadata", "{}"))
        check_fields(found, {})
        settings = {
            key.removeprefix(f"{UNET}.").removeprefix(f"{TRANSFORMER}."): value
            for key, value in found.items()
            if not key.startswith("text_encoder")
        }
        check_fields(settings, SETTINGS)
    except JsonError as error:
        raise CheckpointError(
            f"{file} is damaged: its header says lora_adapter_metadata, but {error}"
        ) from error
    return settings


def _peft_settings(file: Path) -> dict[str, Any]:
    """The `adapter_config.json` that peft writes beside the weights; {} without one.

    Raises:
        CheckpointError: The config is damaged, or missing beside a file with peft's name.
    """
    path = file.with_name(PEFT_CONFIG)
    if file.name != PEFT_FILE:
        return {}
    if not path.exists():
        raise CheckpointError(
            f"{file} lacks {PEFT_CONFIG} beside it, which says by how much its layers are scaled"
        )
    return read_foreign_json(path, SETTINGS)


def _check_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Raises for settings of peft with an output other than W x + alpha / rank · B A x."""
    for name, value in settings.items():
        accepted = PEFT_SETTINGS.get(name, (None, False, "", [], {}))
        if accepted is not None and value not in accepted:
            raise CheckpointError(
                f"{file} is no plain LoRA: it was made with {name} = {value!r}, "
                "which ddpo does not support"
            )


def _layer_of_alpha(key: str) -> str:
    """The layer of a key of diffusers' `network_alphas`, which may end in part of a weight name."""
    return key.removesuffix(".alpha").removesuffix(".lora_A.weight")


def load_lora(denoiser: Any, file: Path, adapter: str, model: str) -> None:
    """Adds the LoRA of a file to a denoiser, in place of an adapter of the same name.

    Args:
        denoiser: Denoiser of diffusers; unchanged if the LoRA does not fit.
        file: Safetensors file.
        adapter: Name of the new adapter.
        model: Name of the base model in messages.

    Raises:
        CheckpointError: The layers of the LoRA are not those of the denoiser.
    """
    from peft import LoraConfig
    from peft.utils import set_peft_model_state_dict

    found = read_lora(file, denoiser)
    check_lora(found, lambda layer: module_shape(denoiser, layer), file, model)
    wrong = f"{file} does not fit {model!r}"
    try:
        config = LoraConfig(**_config_of(found))
        if adapter in getattr(denoiser, "peft_config", {}):
            denoiser.delete_adapters(adapter)
        denoiser.add_adapter(config, adapter_name=adapter)
        result = set_peft_model_state_dict(denoiser, found.tensors, adapter_name=adapter)
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{wrong}: {one_line(error)}") from error
    left = [*result.unexpected_keys, *(key for key in result.missing_keys if f".{adapter}." in key)]
    if left:
        raise CheckpointError(f"{wrong}: {left[0]} is in one of them only")


def _config_of(found: LoraFile) -> dict[str, Any]:
    """Peft's settings for exactly the layers of the file, each with its rank and alpha."""
    pattern = "|".join(re.escape(layer) for layer in found.ranks)
    (rank, _), *_ = Counter(found.ranks.values()).most_common(1)
    return {
        "r": rank,
        "lora_alpha": rank,
        "target_modules": pattern,
        "rank_pattern": {f"^{re.escape(layer)}": value for layer, value in found.ranks.items()},
        "alpha_pattern": {f"^{re.escape(layer)}": value for layer, value in found.alphas.items()},
        "use_rslora": found.rank_stabilised,
    }


def check_lora(
    found: LoraFile, shape: Callable[[str], tuple[int, ...] | None], file: Path, model: str
) -> None:
    """Compares the layers of a LoRA with those of its base model.

    Args:
        found: The LoRA.
        shape: Function of a layer's name that returns the shape of its weight; None for a layer
            that LoRA cannot change.
        file: File of the LoRA, for messages.
        model: Name of the base model in messages.

    Raises:
        CheckpointError: The model has no such layer, or one of another shape.
    """
    for layer in found.ranks:
        try:
            own = shape(layer)
        except (AttributeError, KeyError) as error:
            raise CheckpointError(
                f"{file} does not fit {model!r}: the model has no layer {layer}"
            ) from error
        down = found.tensors[f"{layer}.lora_A.weight"]
        up = found.tensors[f"{layer}.lora_B.weight"]
        due = (up.shape[0], down.shape[1])
        if own is None or len(own) != down.ndim or own[:2] != due:
            has = "not one that LoRA can change" if own is None else f"{list(own)}"
            raise CheckpointError(
                f"{file} does not fit {model!r}: {layer} is {has} in the model "
                f"and {up.shape[0]} by {list(down.shape[1:])} in the LoRA"
            )


def module_shape(denoiser: Any, layer: str) -> tuple[int, ...] | None:
    """The shape of a layer's weight in a denoiser; None for a layer without one.

    Raises:
        AttributeError: The denoiser has no such layer.
    """
    own = denoiser.get_submodule(layer)
    weight = getattr(getattr(own, "base_layer", own), "weight", None)  # it may have an adapter
    return None if weight is None else tuple(weight.shape)
