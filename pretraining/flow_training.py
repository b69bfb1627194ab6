"""The stage `flow` of pretraining: the embedded flow model's transformer and text encoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from ddpo.policies.repeated_token import RepeatedLastToken
from pretraining.flow_architecture import (
    SMALL_TEXT_WIDTH,
    build_flow_text_encoder,
    build_transformer,
)
from pretraining.latents import kept_rows, load_latents, stratified_shares, token_ids
from pretraining.tokenizer import write_tokenizer
from pretraining.training import Log, Process, Settings, Trainer
from pretraining.warm_start import start_flow_text_encoder
from pretraining.worlds import WORLDS

__all__ = ["build_flow_modules", "train_flow"]


def build_flow_modules(vocabulary: int) -> nn.ModuleDict:
    """The untrained transformer and text encoders, by the names of a pipeline's components."""
    return nn.ModuleDict(
        {
            "transformer": build_transformer(),
            "text_encoder": build_flow_text_encoder(vocabulary),
            "text_encoder_2": build_flow_text_encoder(vocabulary, SMALL_TEXT_WIDTH, 2),
        }
    )


def logit_normal_times(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Stratified times in (0, 1), whose logits are standard normal, float32 `[count]`.

    Source: arXiv 2403.03206, equation 19 with location 0 and scale 1.
    """
    shares = torch.from_numpy(stratified_shares(count, rng)).clamp(1e-6, 1 - 1e-6)
    times: torch.Tensor = torch.special.ndtri(shares).sigmoid().float()
    return times


def encode_text(modules: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The conditioning of token ids `[batch, 16]`: hidden states and pooled projections.

    Hidden states end in one token of zeros, which stands for all those in place of T5.
    """
    found = [
        modules[name](tokens, output_hidden_states=True)
        for name in ("text_encoder", "text_encoder_2")
    ]
    hidden = torch.cat([one.hidden_states[-2] for one in found], -1)
    return pad(hidden, (0, 0, 0, 1)), torch.cat([one.text_embeds for one in found], -1)


def train_flow(settings: Settings, process: Process) -> None:
    """Trains transformer and text encoders on the squared error of the velocity noise - latents."""
    torch.manual_seed(settings.seed)
    folder = settings.work / f"tokenizer-{process.rank}"
    vocabulary = write_tokenizer(folder, WORLDS[settings.world].words())
    stored = load_latents(settings.work)
    ids = token_ids(folder, ["", *stored.captions])
    modules: Any = build_flow_modules(vocabulary)
    if settings.start:
        start_flow_text_encoder(modules["text_encoder"], folder, settings.start)
    modules["transformer"].set_attn_processor(RepeatedLastToken())
    for name in ("text_encoder", "text_encoder_2"):
        modules[name].set_attn_implementation("eager")  # faster than SDPA's backward pass on a CPU
    modules.to(settings.device)
    trainer = Trainer(modules, process, settings, (2.5e-3, 1.5e-3), ema=0.999)
    path = settings.work / "flow.safetensors"
    trainer.load(path)
    log = Log(settings, trainer.step)
    share = settings.batch // process.world
    while trainer.step < settings.steps:
        rng = settings.rng("flow", trainer.step, process.rank)
        rows, latents, noise = stored.draw(share, rng)
        times = logit_normal_times(share, rng)
        tokens = ids[kept_rows(rows, rng)].to(settings.device)
        noisy = torch.lerp(latents, noise, times.view(-1, 1, 1, 1)).to(settings.device)
        with torch.autocast(settings.device, torch.bfloat16):
            hidden, pooled = encode_text(modules, tokens)
            predicted = modules["transformer"](
                noisy, hidden, pooled, 1000 * times.to(settings.device)
            ).sample
        loss = (predicted.float() - (noise - latents).to(settings.device)).square().mean()
        trainer.update(loss)
        if process.rank == 0:
            log.add(trainer.step, loss=loss.detach())
        if settings.is_saved(trainer.step):
            trainer.save(path)
