"""The finished folder of the embedded flow model, packed from the files of its stages."""

from __future__ import annotations

from pathlib import Path

from pretraining.flow_architecture import build_flow_scheduler
from pretraining.flow_training import build_flow_modules
from pretraining.packing import packed_autoencoder, packed_tokenizer, save_half
from pretraining.training import ema_weights

__all__ = ["pack_flow"]


def pack_flow(work: Path, folder: Path, words: list[str]) -> None:
    """Writes a folder of `StableDiffusion3Pipeline` without T5, in half precision.

    Arguments as of `pretraining.packing.pack`.
    """
    from diffusers import StableDiffusion3Pipeline

    vocabulary, tokenizer = packed_tokenizer(work, words)
    modules = build_flow_modules(vocabulary)
    for name, module in modules.items():
        module.load_state_dict(ema_weights(work / "flow.safetensors", name))
    vae = packed_autoencoder(work)
    vae.register_to_config(shift_factor=0.0)  # the pipeline adds it to the latents
    save_half(
        StableDiffusion3Pipeline(
            **dict(modules.items()),
            vae=vae,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            text_encoder_3=None,
            tokenizer_3=None,
            scheduler=build_flow_scheduler(),
        ),
        folder,
    )
