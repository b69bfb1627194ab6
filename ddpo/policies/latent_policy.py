"""The base of every policy that is a pipeline of diffusers: a denoiser in the latents of a VAE.

It holds what has nothing to do with the denoiser's architecture: devices, conditioning, precision,
decoding, trainable weights and their files. A family adds its components, its conditioning and one
call of its denoiser; see `ddpo.policies.stable_diffusion` and `ddpo.policies.stable_diffusion_3`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from ddpo.errors import CheckpointError, ConfigError
from ddpo.policies.base_model import BaseModel, open_model
from ddpo.policies.checkpoints.denoiser import check_denoiser, check_pipeline, read_denoiser
from ddpo.policies.checkpoints.folder import CheckpointInfo, check_base, write_facts
from ddpo.policies.checkpoints.lora import load_lora
from ddpo.policies.checkpoints.own import (
    load_own_denoiser,
    load_own_lora,
    own_lora,
    save_own_lora,
)
from ddpo.policies.conditioning_cache import ConditioningCache
from ddpo.policies.frozen_copy import frozen_copy
from ddpo.policies.image_size import check_multiple, latent_side
from ddpo.policies.kept_weights import KeptWeights
from ddpo.policies.pipelines import PIPELINES, UNET
from ddpo.policies.policy import LoraSettings
from ddpo.policies.prompt_reader import PromptReader
from ddpo.policies.schedule import Schedule
from ddpo.policies.starting_lora import begin_from, starting_lora

__all__ = ["LatentPolicy", "lay_out"]

ADAPTER: Final = "default"
DECODED_AT_ONCE: Final = 4
"""Images per call of the autoencoder on an accelerator, to limit its memory.

Images are never decoded in tiles, since rewards would score the seams.
"""
COMPILER: Final = "inductor"
"""Back end of torch.compile; it needs a C++ compiler on the CPU and Triton on a GPU."""
ONE_FILE: Final = "1000GB"
"""Greatest size of a weight file that is written; own checkpoints are never split."""


class LatentPolicy(ABC):
    """A denoiser in the latent space of an autoencoder, with text encoders.

    Frozen weights and the latents between steps have type `dtype`. Trained weights, schedule and
    log-probs are always float32; with another `dtype` the denoiser runs under autocast.

    Only the denoiser stays on the device. The text encoders move there to encode new texts, and the
    autoencoder from a `decode` until the next `predict` with gradient. Full finetuning keeps a copy
    of the base model, which moves there at its first use.

    A family states these facts of its class:

    - `DENOISER`: name of the denoiser among the components, which begins the names in LoRA files;
    - `BESIDE`: names of the text encoders;
    - `LORA_WRITER`: class of `diffusers.loaders` with `save_lora_weights` for the denoiser;
    - `LORA`: LoRA settings where none are given.

    Args:
        base: Model in the format of the family's pipeline, or its name.
        device: Torch device.
        dtype: float32, bfloat16 or float16.

    Raises:
        MissingResourceError: Files are missing, damaged or not safetensors.
        ConfigError: A setting is not supported, or components do not fit each other.
    """

    DENOISER: ClassVar[str]
    BESIDE: ClassVar[tuple[str, ...]]
    LORA_WRITER: ClassVar[str]
    LORA: ClassVar[LoraSettings] = LoraSettings()

    vae: Any
    denoiser: Any
    schedule: Schedule
    latent_shape: tuple[int, ...]

    def __init__(
        self, base: BaseModel | str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        base = open_model(base) if isinstance(base, str) else base
        self._base = base
        self.model = base.word
        self.device = torch.device(device)
        self.storage_dtype = dtype
        self.reader = PromptReader(base)
        self._check_configs(base)
        parts = self._load_parts(base, dtype)
        self.vae = parts["vae"]
        self.denoiser = parts[self.DENOISER]
        for name in self.BESIDE:
            setattr(self, name, parts[name])
        for module in (*self._text_encoders(), self.vae, self.denoiser):
            module.requires_grad_(False).eval()
        self.denoiser.to(self.device)
        for module in (self.vae, self.denoiser):
            lay_out(module, self.device)
        self.latent_shape = self._latent_shape(base)
        self.schedule = self._schedule(base)
        self.kind: Literal["none", "lora", "full"] = "none"
        self.lora = self.LORA
        self._reference: Any = None
        self.start: KeptWeights | None = None
        self._compiled = False
        self._conditioning = ConditioningCache(self._encode_new)

    # --- the denoiser as a policy --------------------------------------------------------------

    def encode(self, texts: Sequence[str]) -> Any:
        """Text conditioning of a batch, with one encoder call per uncached text."""
        return self._conditioning.of(texts)

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        """The denoiser's output, float32, of the same shape as `latents`."""
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
        scaled = self._vae_input(latents)
        slices = [scaled] if self.device.type == "cpu" else scaled.split(DECODED_AT_ONCE)
        pixels = torch.cat([self.vae.decode(part, return_dict=False)[0] for part in slices])
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def trainable_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Names and parameters that `adapt` or `load` made trainable."""
        named = self.denoiser.named_parameters()
        return ((name, parameter) for name, parameter in named if parameter.requires_grad)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """A context in which the denoiser is the base model, or as it was at the start."""
        if self.start is not None:
            with self.start.in_place():
                yield
        elif self.kind == "lora":
            self.denoiser.disable_adapters()
            try:
                yield
            finally:
                self.denoiser.enable_adapters()
        elif self.kind == "full":
            tuned = self.denoiser
            self.denoiser = self._reference.to(self.device)
            try:
                yield
            finally:
                self.denoiser = tuned
        else:
            yield

    def save_memory(self) -> None:
        """Turns on gradient checkpointing: the backward pass recomputes most activations."""
        self.denoiser.enable_gradient_checkpointing()

    def compile_denoiser(self) -> None:
        """Compiles the denoiser for latents of one shape.

        Torch compiles a graph with gradient and one without, which differ in their bits. The one
        with gradient serves sampling too, so that the ratio stays 1.
        """
        # The warning comes from diffusers' version checks.
        lru_cache = "Dynamo detected a call to a `functools.lru_cache`"
        warnings.filterwarnings("ignore", message=lru_cache)
        for denoiser in (self.denoiser, self._reference):
            if denoiser is not None:
                denoiser.compile(backend=COMPILER, dynamic=False)
        self._compiled = True

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        height, width = self._latent_sides()
        side = latent_side(self.vae.config)
        return height * side, width * side

    def set_size(self, height: int, width: int) -> None:
        """Gives the images another size in pixels, before the policy is adapted or samples.

        Raises:
            ConfigError: The model has no images of this size.
        """
        side = latent_side(self.vae.config)
        check_multiple(self.model, (height, width), side * self._patch())
        self._set_latent_sides(height // side, width // side)

    # --- parts that differ from family to family -----------------------------------------------

    @abstractmethod
    def _check_configs(self, base: BaseModel) -> None:
        """Raises for settings that change the images and are not honoured."""

    @abstractmethod
    def _latent_shape(self, base: BaseModel) -> tuple[int, ...]:
        """Shape of one image's latents, as the denoiser takes them."""

    def _patch(self) -> int:
        """Side of the denoiser's patches in latents."""
        return 1

    def _latent_sides(self) -> tuple[int, int]:
        """Height and width of the latents."""
        return self.latent_shape[1], self.latent_shape[2]

    def _set_latent_sides(self, height: int, width: int) -> None:
        """Changes the latents to a size of whole patches; raises `ConfigError` if it is too big."""
        self.latent_shape = (self.latent_shape[0], height, width)

    @abstractmethod
    def _schedule(self, base: BaseModel) -> Schedule:
        """The noise levels, by the scheduler's config and if necessary by `latent_shape`."""

    @abstractmethod
    def _encode(self, text: str) -> Any:
        """Conditioning of one text, a batch of one, a tensor or a `Conditioning`."""

    @abstractmethod
    def _denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        """The denoiser's output for what `schedule.target` names, of the shape of `latents`.

        Args:
            latents: Noisy latents `[batch, …]` in the type of the frozen weights.
            timesteps: `StepCoefficients.timesteps` of the schedule, `[batch]`.
            conditioning: Conditioning of the batch.
        """

    @abstractmethod
    def _vae_input(self, latents: Tensor) -> Tensor:
        """Latents `[batch, …]` as the autoencoder decodes them, in its type."""

    def _load_parts(self, base: BaseModel, dtype: torch.dtype) -> dict[str, Any]:
        """The denoiser, the autoencoder and the text encoders, by name; None for absent ones."""
        kind = PIPELINES[base.pipeline]
        parts: dict[str, Any] = {}
        for name in (self.DENOISER, "vae", *self.BESIDE):
            absent = name in kind.optional and not base.names(name)
            parts[name] = None if absent else base.load(name, kind.class_of(name), dtype)
        return parts

    def _text_encoders(self) -> Sequence[Any]:
        return [encoder for name in self.BESIDE if (encoder := getattr(self, name)) is not None]

    # --- calls of the components ---------------------------------------------------------------

    @torch.no_grad()
    def _encode_new(self, texts: Sequence[str]) -> dict[str, Any]:
        """Text → conditioning, a batch of one, with the encoders on the device meanwhile."""
        for encoder in self._text_encoders():
            encoder.to(self.device)
        found = {text: self._encode(text) for text in texts}
        for encoder in self._text_encoders():
            encoder.to("cpu")
        return found

    def _output(self, latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        with self._precision():
            return self._denoise(latents.to(self.storage_dtype), timesteps, conditioning).float()

    def _precision(self) -> Any:
        if self.storage_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.storage_dtype)

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
                self.denoiser.add_adapter(config, adapter_name=ADAPTER)
            except ValueError as error:
                raise ConfigError(
                    f"LoRA targets {', '.join(self.lora.targets)}: {error}"
                ) from error
        else:
            self._reference = lay_out(frozen_copy(self.denoiser), self.device)
            self.denoiser.requires_grad_(True)
        for parameter in self.denoiser.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.kind = kind

    def begin_from(self, checkpoint: CheckpointInfo, lora: LoraSettings) -> None:
        """Adapts the denoiser with the weights of a LoRA in place of new ones.

        Raises:
            CheckpointError: The LoRA is damaged, or does not fit the model or the settings.
        """
        check_base(checkpoint, self.model)
        found = starting_lora(checkpoint, self.denoiser, lora, self.model)
        self.adapt("lora", lora)
        begin_from(self, found, checkpoint)

    def keep_start(self) -> KeptWeights:
        """Makes the trained weights, as they are now, those of `reference`."""
        self.start = KeptWeights(self, "start.")
        return self.start

    def save(self, folder: Path, iteration: int) -> None:
        """Writes the checkpoint files into an existing folder (`ddpo.policies.checkpoints`)."""
        weights = None
        if self.kind == "lora":
            save_own_lora(self.denoiser, folder, ADAPTER, self.DENOISER, self.LORA_WRITER)
        else:
            self.denoiser.save_pretrained(folder / self.DENOISER, max_shard_size=ONE_FILE)
            weights = None if self.DENOISER == UNET else self.DENOISER
        adapter = asdict(self.lora) if self.kind == "lora" else {}
        write_facts(folder, self.model, self.kind, iteration, adapter, weights)

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
            load_own_lora(self.denoiser, checkpoint, ADAPTER, self.model)
        else:
            if self.kind == "none":
                self.adapt("full")
            load_own_denoiser(self.denoiser, checkpoint, self.model)

    def _load_external(self, checkpoint: CheckpointInfo) -> None:
        """Loads the weights of another trainer's checkpoint."""
        if self.kind not in ("none", checkpoint.kind):
            raise CheckpointError(
                f"{checkpoint.folder} is {checkpoint.kind}, "
                f"and the policy is already adapted ({self.kind})"
            )
        if checkpoint.kind == "lora":
            load_lora(self.denoiser, checkpoint.weights, ADAPTER, self.model)
            self.kind = "lora"
            self.lora = _lora_settings(checkpoint)
            for _, parameter in self.trainable_parameters():
                parameter.data = parameter.data.float()
            return
        names = (*self.BESIDE, "vae")
        parts = {name: part for name in names if (part := getattr(self, name)) is not None}
        check_denoiser(self.denoiser, checkpoint.weights, self.model)
        check_pipeline(checkpoint.folder, parts, self.schedule, self.model)
        weights = read_denoiser(type(self.denoiser), checkpoint.weights, self.model)
        if self.kind == "none":
            self.adapt("full")
        self.denoiser.load_state_dict(weights)


def _lora_settings(checkpoint: CheckpointInfo) -> LoraSettings:
    adapter = checkpoint.adapter
    return LoraSettings(adapter["rank"], adapter["alpha"], tuple(adapter["targets"]))


def lay_out(module: Any, device: torch.device) -> Any:
    """The module in channels-last layout on CUDA, whose convolutions prefer it; else unchanged."""
    return module.to(memory_format=torch.channels_last) if device.type == "cuda" else module
