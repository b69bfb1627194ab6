"""Pretraining of the embedded model: `python -m pretraining.pretrain STAGE`.

The stages are autoencoder, latents, denoiser and pack. A flow model has flow and pack-flow in place
of the last two. Each writes safetensors atomically to `--work` and resumes from the files there.
Data come from `default_rng([seed, stage, step, rank])`, so a resumed run sees the same data as an
uninterrupted one. On a CPU, two single-thread processes per batch (`--processes 2`) are faster than
two threads in one process.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from ddpo.io.tensors import save_tensors
from pretraining import architecture
from pretraining.flow_packing import pack_flow
from pretraining.flow_training import train_flow
from pretraining.latents import kept_rows, load_latents, stratified_shares, token_ids
from pretraining.packing import pack
from pretraining.tokenizer import write_tokenizer
from pretraining.training import STAGES, Log, Process, Settings, Trainer, ema_weights
from pretraining.warm_start import start_autoencoder, start_denoiser
from pretraining.worlds import WORLDS

DEFAULTS: Final = {
    "autoencoder": (6000, 24),
    "latents": (500, 64),
    "denoiser": (4500, 64),
    "flow": (4500, 64),
}
"""Stage → number of steps and batch size."""
PACKING: Final = {"pack": pack, "pack-flow": pack_flow}
"""Stage → function that writes the finished folder."""
KL_WEIGHT: Final = 1e-3  # per pixel


def to_signed(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """Pixels `[batch, 3, height, width]` in [-1, 1] from uint8 `[batch, height, width, 3]`."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def gradient_l1(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the finite differences of two image batches, for sharp edges."""
    d = a - b
    vertical = d[..., 1:, :] - d[..., :-1, :]
    horizontal = d[..., :, 1:] - d[..., :, :-1]
    return vertical.abs().mean() + horizontal.abs().mean()


def train_autoencoder(settings: Settings, process: Process) -> None:
    """Trains the autoencoder on L1, squared error, gradient L1 and a small KL, under autocast."""
    torch.manual_seed(settings.seed)
    vae: Any = architecture.build_autoencoder()
    if settings.start:
        start_autoencoder(vae, settings.start)
    modules = nn.ModuleDict({"vae": vae}).to(settings.device)
    trainer = Trainer(modules, process, settings, settings.rates(2e-3, 2e-3), ema=0.998)
    path = settings.work / "autoencoder.safetensors"
    trainer.load(path)
    draw = WORLDS[settings.world].renderer(settings.font)
    log = Log(settings, trainer.step)
    generator = torch.Generator(settings.device)
    while trainer.step < settings.steps:
        rng = settings.rng("autoencoder", trainer.step, process.rank)
        drawn = [draw(rng).pixels for _ in range(settings.batch // process.world)]
        images = to_signed(np.stack(drawn)).to(settings.device)
        generator.manual_seed(int(rng.integers(2**62)))
        with torch.autocast(settings.device, torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample
        decoded = decoded.float()
        square = (decoded - images).square().mean()
        kl = posterior.kl().float().mean() / images[0, 0].numel()
        trainer.update(
            (decoded - images).abs().mean()
            + 2 * square
            + 0.5 * gradient_l1(decoded, images)
            + KL_WEIGHT * kl
        )
        if process.rank == 0:
            log.add(trainer.step, psnr=10 * torch.log10(4 / square.detach()), kl=kl.detach())
        if settings.is_saved(trainer.step):
            trainer.save(path)


@torch.inference_mode()
def encode_latents(settings: Settings, process: Process) -> None:
    """Renders and encodes `steps` batches, and stores posterior moments and captions."""
    vae = architecture.build_autoencoder().to(settings.device).eval()
    vae.load_state_dict(ema_weights(settings.work / "autoencoder.safetensors", "vae"))
    draw = WORLDS[settings.world].renderer(settings.font)
    moments = []
    captions = []
    for step in range(settings.steps):
        rng = settings.rng("latents", step, process.rank)
        drawings = [draw(rng) for _ in range(settings.batch // process.world)]
        images = to_signed(np.stack([drawing.pixels for drawing in drawings]))
        posterior = vae.encode(images.to(settings.device)).latent_dist
        moments.append(torch.stack([posterior.mean, posterior.logvar], 1).cpu())
        captions += [drawing.caption for drawing in drawings]
    stacked = torch.cat(moments)
    save_tensors(
        settings.work / f"latents-{process.rank}.safetensors",
        {"moments": stacked.half()},
        {"captions": json.dumps(captions)},
    )
    if process.rank == 0:
        means = stacked[:, 0].double()
        variance = means.var((0, 2, 3)) + stacked[:, 1].double().exp().mean((0, 2, 3))
        save_tensors(
            settings.work / "latent-scale.safetensors",
            {"mean": means.mean((0, 2, 3)).float(), "std": variance.sqrt().float()},
        )


def stratified_timesteps(count: int, total: int, rng: np.random.Generator) -> torch.Tensor:
    """Shuffled timesteps in [0, total), one in each of `count` equal intervals."""
    return torch.from_numpy((stratified_shares(count, rng) * total).astype(np.int64))


def train_denoiser(settings: Settings, process: Process) -> None:
    """Trains text encoder and denoiser on the velocity's mean squared error at stored latents."""
    torch.manual_seed(settings.seed)
    folder = settings.work / f"tokenizer-{process.rank}"
    vocabulary = write_tokenizer(folder, WORLDS[settings.world].words())
    stored = load_latents(settings.work)
    ids = token_ids(folder, ["", *stored.captions])
    unet = architecture.build_unet()
    text_encoder = architecture.build_text_encoder(vocabulary)
    modules = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    if settings.start:
        start_denoiser(unet, text_encoder, folder, settings.start)
    modules.to(settings.device)
    trainer = Trainer(modules, process, settings, settings.rates(2.5e-3, 1.5e-3), ema=0.999)
    path = settings.work / "denoiser.safetensors"
    trainer.load(path)
    scheduler = architecture.build_scheduler()
    log = Log(settings, trainer.step)
    share = settings.batch // process.world
    while trainer.step < settings.steps:
        rng = settings.rng("denoiser", trainer.step, process.rank)
        rows, latents, noise = stored.draw(share, rng)
        timesteps = stratified_timesteps(share, scheduler.config.num_train_timesteps, rng)
        noisy = scheduler.add_noise(latents, noise, timesteps).to(settings.device)
        velocity = scheduler.get_velocity(latents, noise, timesteps).to(settings.device)
        tokens = ids[kept_rows(rows, rng)].to(settings.device)
        with torch.autocast(settings.device, torch.bfloat16):
            hidden = modules["text_encoder"](tokens).last_hidden_state
            predicted = modules["unet"](noisy, timesteps.to(settings.device), hidden).sample
        loss = (predicted.float() - velocity).square().mean()
        trainer.update(loss)
        if process.rank == 0:
            log.add(trainer.step, loss=loss.detach())
        if settings.is_saved(trainer.step):
            trainer.save(path)


def _run(rank: int, stage: str, settings: Settings, rendezvous: str) -> None:
    if settings.device == "cpu":
        torch.set_num_threads(1 if settings.processes > 1 else torch.get_num_threads())
    if settings.processes > 1:
        dist.init_process_group(
            "gloo", init_method=rendezvous, rank=rank, world_size=settings.processes
        )
    run_stage = {
        "autoencoder": train_autoencoder,
        "latents": encode_latents,
        "denoiser": train_denoiser,
        "flow": train_flow,
    }[stage]
    run_stage(settings, Process(rank, settings.processes))
    if settings.processes > 1:
        dist.destroy_process_group()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, *PACKING])
    parser.add_argument("--world", choices=WORLDS, default="emoji")
    parser.add_argument(
        "--start",
        type=Path,
        default=None,
        help="pipeline folder whose weights training starts from",
    )
    parser.add_argument("--work", type=Path, default=Path("runs/emoji-pretraining"))
    parser.add_argument(
        "--steps",
        type=int,
        default=None,
        help="default: 6000 (autoencoder), 500 (latents), 4500 (denoiser and flow)",
    )
    parser.add_argument(
        "--batch", type=int, default=None, help="over all processes; default: 24, 64, 64, 64"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--font", type=Path, default=None)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("ddpo/policies/emoji/weights"),
        help="folder that `pack` and `pack-flow` write",
    )
    return parser.parse_args()


def main() -> None:
    """Runs the command line."""
    arguments = _arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.stage in PACKING:
        PACKING[arguments.stage](arguments.work, arguments.out, WORLDS[arguments.world].words())
        return
    steps, batch = DEFAULTS[arguments.stage]
    settings = Settings(
        arguments.work,
        arguments.seed,
        arguments.processes,
        arguments.device,
        arguments.steps or steps,
        arguments.batch or batch,
        arguments.font,
        arguments.world,
        arguments.start,
    )
    if settings.batch % settings.processes:
        raise SystemExit(
            f"--batch {settings.batch} is not a multiple of --processes {settings.processes}"
        )
    file = (arguments.work / f"rendezvous-{time.time_ns()}").resolve()
    rest = (arguments.stage, settings, f"file://{file}")
    if settings.processes == 1:
        _run(0, *rest)
    else:
        spawn(_run, rest, nprocs=settings.processes)


if __name__ == "__main__":
    main()
