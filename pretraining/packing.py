"""The finished model folder, packed from the files of the pretraining stages."""

from pathlib import Path
from typing import Any

import torch

from ddpo.io.atomic import write_json
from ddpo.io.tensors import load_tensors
from ddpo.weights import sha256_of
from pretraining import architecture
from pretraining.tokenizer import write_tokenizer
from pretraining.training import ema_weights


def pack(work: Path, folder: Path, words: list[str]) -> None:
    """Writes the pipeline folder in half precision, with an autoencoder of standardised latents.

    Args:
        work: Folder of the finished stages.
        folder: Folder to write.
        words: Words that are one token each.
    """
    from diffusers import StableDiffusionPipeline

    vocabulary, tokenizer = packed_tokenizer(work, words)
    unet = architecture.build_unet()
    text = architecture.build_text_encoder(vocabulary)
    unet.load_state_dict(ema_weights(work / "denoiser.safetensors", "unet"))
    text.load_state_dict(ema_weights(work / "denoiser.safetensors", "text_encoder"))
    save_half(
        StableDiffusionPipeline(
            vae=packed_autoencoder(work),
            text_encoder=text,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=architecture.build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ),
        folder,
    )


def packed_tokenizer(work: Path, words: list[str]) -> tuple[int, Any]:
    """The vocabulary size and the tokenizer of a model, which is written to the work folder."""
    from transformers import CLIPTokenizer

    vocabulary = write_tokenizer(work / "tokenizer", words)
    return vocabulary, CLIPTokenizer.from_pretrained(work / "tokenizer")


def packed_autoencoder(work: Path) -> Any:
    """The trained autoencoder of a work folder, changed to standardised latents."""
    vae = architecture.build_autoencoder()
    vae.load_state_dict(ema_weights(work / "autoencoder.safetensors", "vae"))
    scale, _ = load_tensors(work / "latent-scale.safetensors")
    fold_standardisation(vae, scale["mean"], scale["std"])
    return vae


def save_half(pipeline: Any, folder: Path) -> None:
    """Writes a pipeline in half precision, and the manifest of its files."""
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    write_manifest(folder)


def write_manifest(folder: Path) -> None:
    """Writes `manifest.json`, the SHA-256 and size of every file of the model."""
    others = ("manifest.json", "README.md")
    found = (path for path in folder.rglob("*") if path.is_file())
    files = sorted(path for path in found if path.name not in others)
    facts = {
        str(path.relative_to(folder)): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in files
    }
    write_json(folder / "manifest.json", {"schema": 1, "files": facts})


@torch.no_grad()
def fold_standardisation(vae: Any, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Changes encoder and decoder to latents with mean 0 and standard deviation 1 per channel."""
    channels = len(mean)
    quant = vae.quant_conv
    post = vae.post_quant_conv
    quant.weight[:channels] /= std.view(-1, 1, 1, 1)
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()
    post.bias += (post.weight[..., 0, 0] @ mean.unsqueeze(1)).squeeze(1)
    post.weight *= std.view(1, -1, 1, 1)
