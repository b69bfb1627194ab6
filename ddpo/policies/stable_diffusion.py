"""Stable Diffusion 1.x and 2.x, and every model in their on-disk format, as a `Policy`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from ddpo.errors import CheckpointError, ConfigError
from ddpo.policies.base_model import BaseModel, open_model
from ddpo.policies.checkpoints.folder import CheckpointInfo, check_base, write_facts
from ddpo.policies.checkpoints.lora import load_lora
from ddpo.policies.checkpoints.own import load_own_lora, load_own_unet, own_lora
from ddpo.policies.checkpoints.unet import check_pipeline, check_unet, read_unet
from ddpo.policies.conditioning_cache import ConditioningCache
from ddpo.policies.model_features import check_settings, check_shapes, default_config
from ddpo.policies.policy import LoraSettings
from ddpo.policies.prompt_reader import PromptReader
from ddpo.policies.transition import NoiseSchedule

__all__ = ["LoraSettings", "StableDiffusionPolicy"]

ADAPTER: Final = "default"
DECODED_AT_ONCE: Final = 4
"""Images per call of the autoencoder on an accelerator, to limit its memory.

Images are never decoded in tiles, since rewards would score the seams.
"""
OLD_SIZE: Final = 64
"""Least latent side that diffusers' pipeline accepts from a config older than diffusers 0.9."""

COMPILER: Final = "inductor"
"""Back end of torch.compile; it needs a C++ compiler on the CPU and Triton on a GPU."""


class StableDiffusionPolicy:
    """A latent diffusion model with one CLIP text encoder and a UNet.

    Frozen weights and the latents between steps have type `dtype`. Trained weights, schedule and
    log-probs are always float32; with another `dtype` the denoiser runs under autocast.

    Only the denoiser stays on the device. The text encoder moves there to encode new texts, and the
    autoencoder from a `decode` until the next `predict` with gradient. Full finetuning keeps a copy
    of the base model, which moves there at its first use.

    Args:
        base: Model in the format of diffusers' `StableDiffusionPipeline`, or its name.
        device: Torch device.
        dtype: float32, bfloat16 or float16.

    Raises:
        MissingResourceError: Files are missing, damaged or not safetensors.
        ConfigError: A setting is not supported, or components do not fit each other.
    """

    BESIDE: ClassVar[tuple[str, ...]] = ("text_encoder",)

    text_encoder: Any

    def __init__(
        self, base: BaseModel | str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        base = open_model(base) if isinstance(base, str) else base
        self.model = base.word
        self.device = torch.device(device)
        self.storage_dtype = dtype
        self.reader = PromptReader(base)
        self._check_configs(base)
        parts = self._load_parts(base, dtype)
        self.vae = parts["vae"]
        self.unet = parts["unet"]
        for name in self.BESIDE:
            setattr(self, name, parts[name])
        for module in (*self._text_encoders(), self.vae, self.unet):
            module.requires_grad_(False).eval()
        self.unet.to(self.device)
        for module in (self.vae, self.unet):
            lay_out(module, self.device)
        self.schedule = NoiseSchedule.from_scheduler(self._scheduler_config(base))
        self.latent_shape = (int(self.unet.config["in_channels"]), *self._latent_size(base))
        self.kind: Literal["none", "lora", "full"] = "none"
        self.lora = LoraSettings()
        self._reference_unet: Any = None
        self._compiled = False
        self._conditioning = ConditioningCache(self._encode_new)

    # --- the denoiser as a policy --------------------------------------------------------------

    def encode(self, texts: Sequence[str]) -> Any:
        """Text conditioning `[batch, tokens, width]`, with one encoder call per uncached text."""
        return self._conditioning.of(texts)

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        """The UNet's output, float32, of the same shape as `latents`."""
        if torch.is_grad_enabled():
            self.vae.to("cpu")
        elif self._compiled:  # the graph without gradient has other bits; see `compile_denoiser`
            with torch.enable_grad():
                return self._output(latents, timesteps, conditioning).detach()
        return self._output(latents, timesteps, conditioning)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels float32 `[batch, 3, height, width]` in [0, 1]."""
        self.vae.to(self.device)
        scaled = latents.to(self.vae.dtype) / self.vae.config["scaling_factor"]
        slices = [scaled] if self.device.type == "cpu" else scaled.split(DECODED_AT_ONCE)
        pixels = torch.cat([self.vae.decode(part, return_dict=False)[0] for part in slices])
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def trainable_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Names and parameters that `adapt` or `load` made trainable."""
        named = self.unet.named_parameters()
        return ((name, parameter) for name, parameter in named if parameter.requires_grad)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """A context in which the denoiser is the base model."""
        if self.kind == "lora":
            self.unet.disable_adapters()
            try:
                yield
            finally:
                self.unet.enable_adapters()
        elif self.kind == "full":
            tuned = self.unet
            self.unet = self._reference_unet.to(self.device)
            try:
                yield
            finally:
                self.unet = tuned
        else:
            yield

    def save_memory(self) -> None:
        """Turns on gradient checkpointing: the backward pass recomputes most activations."""
        self.unet.enable_gradient_checkpointing()

    def compile_denoiser(self) -> None:
        """Compiles the denoiser for latents of one shape.

        Torch compiles a graph with gradient and one without, which differ in their bits. The one
        with gradient serves sampling too, so that the ratio stays 1.
        """
        # The warning comes from diffusers' version checks.
        lru_cache = "Dynamo detected a call to a `functools.lru_cache`"
        warnings.filterwarnings("ignore", message=lru_cache)
        for unet in (self.unet, self._reference_unet):
            if unet is not None:
                unet.compile(backend=COMPILER, dynamic=False)
        self._compiled = True

    # --- parts that differ within the family ---------------------------------------------------

    def _load_parts(self, base: BaseModel, dtype: torch.dtype) -> dict[str, Any]:
        """The components by name."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel

        return {
            "text_encoder": base.load("text_encoder", CLIPTextModel, dtype),
            "vae": base.load("vae", AutoencoderKL, dtype),
            "unet": base.load("unet", UNet2DConditionModel, dtype),
        }

    def _check_configs(self, base: BaseModel) -> None:
        """Raises for settings that change the images and are not honoured (`model_features`)."""
        from diffusers import AutoencoderKL, UNet2DConditionModel

        unet = base.config("unet")
        vae = base.config("vae")
        unet_defaults = default_config(UNet2DConditionModel)
        vae_defaults = default_config(AutoencoderKL)
        check_settings("model_index", base.index, self.model)
        check_settings("unet", unet, self.model, unet_defaults)
        check_settings("vae", vae, self.model, vae_defaults)
        check_settings("scheduler", self._scheduler_config(base), self.model)
        self._check_family(unet, vae)
        check_shapes(unet_defaults | unet, vae_defaults | vae, self.reader.width, self.model)

    def _check_family(self, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        """Raises for settings that this family of models does not have."""
        embedding = unet.get("addition_embed_type")
        if embedding not in (None, "text"):
            raise ConfigError(
                f"the unet of the model {self.model!r} has addition_embed_type = {embedding!r}, "
                "which Stable Diffusion does not have"
            )
        for name in ("latents_mean", "latents_std"):
            if vae.get(name) is not None:
                raise ConfigError(
                    f"the vae of the model {self.model!r} has {name}, "
                    "which Stable Diffusion's pipeline does not heed"
                )

    def _scheduler_config(self, base: BaseModel) -> dict[str, Any]:
        """The scheduler's config, with two old defaults corrected as in diffusers' pipeline."""
        return base.config("scheduler") | {"steps_offset": 1, "clip_sample": False}

    def _latent_size(self, base: BaseModel) -> tuple[int, int]:
        """Height and width of the latents, from the UNet's config as in diffusers' pipeline."""
        height, width = sample_size(self.unet.config["sample_size"], self.model)
        version = str(base.config("unet").get("_diffusers_version", "1.0"))
        numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
        if numbers < [0, 9] and height == width < OLD_SIZE:  # the pipeline corrects it as well
            return OLD_SIZE, OLD_SIZE
        return height, width

    def _text_encoders(self) -> Sequence[Any]:
        return (self.text_encoder,)

    @torch.no_grad()
    def _encode_new(self, texts: Sequence[str]) -> dict[str, Any]:
        """Text → conditioning, a batch of one, with the encoders on the device meanwhile."""
        for encoder in self._text_encoders():
            encoder.to(self.device)
        found = {text: self._encode(text) for text in texts}
        for encoder in self._text_encoders():
            encoder.to("cpu")
        return found

    def _encode(self, text: str) -> Any:
        """Conditioning of one text `[1, tokens, width]`."""
        ((ids, mask),) = self.reader.tokens(text)
        masked = bool(getattr(self.text_encoder.config, "use_attention_mask", False))
        attention_mask = mask.to(self.device) if masked else None
        output = self.text_encoder(ids.to(self.device), attention_mask=attention_mask)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _output(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        with self._precision():
            return self._denoise(latents.to(self.storage_dtype), timesteps, conditioning).float()

    def _denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        output: Tensor = self.unet(
            latents, timesteps, encoder_hidden_states=conditioning, return_dict=False
        )[0]
        return output

    # --- trainable weights and their files -----------------------------------------------------

    def adapt(self, kind: Literal["lora", "full"], lora: LoraSettings | None = None) -> None:
        """Makes the denoiser trainable: adapters that start as the identity, or all of it.

        Raises:
            ConfigError: A LoRA target matches no layer, or the policy was adapted before.
        """
        if self.kind != "none":
            raise ConfigError(f"the policy is already adapted ({self.kind})")
        if kind == "lora":
            from peft import LoraConfig

            self.lora = lora or self.lora
            config = LoraConfig(
                r=self.lora.rank,
                lora_alpha=self.lora.alpha,
                target_modules=list(self.lora.targets),
                init_lora_weights="gaussian",
            )
            try:
                self.unet.add_adapter(config, adapter_name=ADAPTER)
            except ValueError as error:
                raise ConfigError(
                    f"LoRA targets {', '.join(self.lora.targets)}: {error}"
                ) from error
        else:
            self._reference_unet = lay_out(_copy_unet(self.unet), self.device)
            self.unet.requires_grad_(True)
        for parameter in self.unet.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.kind = kind

    def save(self, folder: Path, iteration: int) -> None:
        """Writes the checkpoint files into an existing folder (`ddpo.policies.checkpoints`)."""
        if self.kind == "lora":
            from diffusers.loaders import StableDiffusionLoraLoaderMixin
            from peft.utils import get_peft_model_state_dict

            settings = self.unet.peft_config[ADAPTER].to_dict()
            metadata = {
                name: sorted(value) if isinstance(value, set) else value
                for name, value in settings.items()
            }
            StableDiffusionLoraLoaderMixin.save_lora_weights(
                folder,
                unet_lora_layers=get_peft_model_state_dict(self.unet),
                unet_lora_adapter_metadata=metadata,
            )
        else:
            self.unet.save_pretrained(folder / "unet")
        adapter = asdict(self.lora) if self.kind == "lora" else {}
        write_facts(folder, self.model, self.kind, iteration, adapter)

    def load(self, checkpoint: CheckpointInfo) -> None:
        """Loads the weights of a checkpoint of this base model.

        Raises:
            CheckpointError: The checkpoint belongs to another model, or its weights do not fit.
        """
        check_base(checkpoint, self.model)
        if checkpoint.external:
            self._load_external(checkpoint)
        elif checkpoint.kind == "lora":
            own_lora(checkpoint)  # before its rank is adapted to
            if self.kind == "none":
                self.adapt("lora", _lora_settings(checkpoint))
            load_own_lora(self.unet, checkpoint, ADAPTER, self.model)
        else:
            if self.kind == "none":
                self.adapt("full")
            load_own_unet(self.unet, checkpoint, self.model)

    def _load_external(self, checkpoint: CheckpointInfo) -> None:
        """Loads the weights of another trainer's checkpoint."""
        if self.kind not in ("none", checkpoint.kind):
            raise CheckpointError(
                f"{checkpoint.folder} is {checkpoint.kind}, "
                f"and the policy is already adapted ({self.kind})"
            )
        if checkpoint.kind == "lora":
            load_lora(self.unet, checkpoint.weights, ADAPTER, self.model)
            self.kind = "lora"
            self.lora = _lora_settings(checkpoint)
            for _, parameter in self.trainable_parameters():
                parameter.data = parameter.data.float()
            return
        parts = {name: getattr(self, name) for name in (*self.BESIDE, "vae")}
        check_unet(self.unet, checkpoint.weights, self.model)
        check_pipeline(checkpoint.folder, parts, self.schedule, self.model)
        weights = read_unet(checkpoint.weights, self.model)
        if self.kind == "none":
            self.adapt("full")
        self.unet.load_state_dict(weights)

    def _precision(self) -> Any:
        if self.storage_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.storage_dtype)


def _lora_settings(checkpoint: CheckpointInfo) -> LoraSettings:
    adapter = checkpoint.adapter
    return LoraSettings(adapter["rank"], adapter["alpha"], tuple(adapter["targets"]))


def lay_out(module: Any, device: torch.device) -> Any:
    """The module in channels-last layout on CUDA, whose convolutions prefer it; else unchanged."""
    return module.to(memory_format=torch.channels_last) if device.type == "cuda" else module


def _copy_unet(unet: Any) -> Any:
    from diffusers import UNet2DConditionModel

    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    return copy.requires_grad_(False).eval().to(unet.dtype)


def sample_size(value: Any, model: str) -> tuple[int, int]:
    """Height and width of the latents from a UNet's `sample_size`, one number or two.

    Raises:
        ConfigError: The value is neither.
    """
    found = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(found) != 2 or not all(type(one) is int and one > 0 for one in found):
        raise ConfigError(
            f"the unet of the model {model!r} has sample_size = {value!r}: write the latents' "
            "height and width into unet/config.json, such as 64 for images of 512 pixels"
        )
    return found[0], found[1]
