"""Pretrains the embedded model from nothing: `python -m pretraining.pretrain {autoencoder,latents,denoiser,pack}`.

Stages write to `--work` (safetensors, atomic) and resume from what they find there. Data are drawn afresh from
`default_rng([seed, stage, step, rank])`, so a resumed run sees what an uninterrupted one would have seen. On a CPU, two
single-thread processes share each batch (`--processes 2`): faster than two threads in one process.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ddpo.io.atomic import write_json
from ddpo.io.tensors import load_tensors, optimizer_tensors, restore_optimizer, save_tensors
from ddpo.weights import sha256_of
from pretraining import architecture
from pretraining.muon import Muon
from pretraining.render import Renderer
from pretraining.tokenizer import LENGTH, write_tokenizer

STAGES: Final = {"autoencoder": 1, "latents": 2, "denoiser": 3}
CAPTION_DROPOUT: Final = 0.1  # for classifier-free guidance, arXiv 2207.12598
KL_WEIGHT: Final = 1e-3  # per pixel


@dataclass(frozen=True, slots=True)
class Settings:
    """One stage of the pretraining; `batch` is over all processes."""

    work: Path
    seed: int
    processes: int
    device: str
    steps: int
    batch: int
    font: Path | None

    def rng(self, stage: str, step: int, rank: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, STAGES[stage], step, rank])


@dataclass(slots=True)
class Process:
    """This process among `settings.processes`."""

    rank: int
    world: int

    def all_reduce(self, tensor: torch.Tensor) -> None:
        if self.world > 1:
            dist.all_reduce(tensor)

    def average_gradients(self, params: list[nn.Parameter]) -> None:
        if self.world == 1:
            return
        flat = torch.cat(
            [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in params]
        )
        dist.all_reduce(flat)
        flat /= self.world
        for param, part in zip(params, flat.split([p.numel() for p in params]), strict=True):
            param.grad = part.view_as(param)


class Trainer:
    """Muon for the matrices, AdamW for the rest; EMA; constant rate, then linear decay over the last 40 % of the steps."""

    def __init__(
        self,
        modules: nn.ModuleDict,
        process: Process,
        settings: Settings,
        rates: tuple[float, float],
        ema: float,
    ) -> None:
        self.modules, self.process, self.settings, self.ema_decay = modules, process, settings, ema
        named = [(name, p) for name, p in modules.named_parameters() if p.requires_grad]
        self.params = [p for _, p in named]
        matrices = [
            p
            for name, p in named
            if p.ndim >= 2
            and "embed" not in name
            and "conv_in" not in name
            and "conv_out" not in name
        ]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.params if id(p) not in chosen]
        self.rates = rates
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=rates[0], share=(process.rank, process.world, process.all_reduce)),
            torch.optim.AdamW(others, lr=rates[1], betas=(0.9, 0.99), weight_decay=0.0),
        ]
        self.average = {name: p.detach().clone() for name, p in named}
        self.step = 0

    def update(self, loss: torch.Tensor) -> None:
        for param in self.params:
            param.grad = None
        loss.backward()
        self.process.average_gradients(self.params)
        nn.utils.clip_grad_norm_(self.params, 1.0)
        progress = self.step / self.settings.steps
        factor = min(1.0, (self.step + 1) / 50) * min(1.0, (1 - progress) / 0.4)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
        self.step += 1
        decay = min(self.ema_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for name, param in self.modules.named_parameters():
                if name in self.average:
                    self.average[name].lerp_(param.detach(), 1 - decay)

    def save(self, path: Path) -> None:
        if self.process.rank:
            return
        tensors = {f"model.{k}": v for k, v in self.modules.state_dict().items()} | {
            f"ema.{k}": v for k, v in self.average.items()
        }
        for index, optimizer in enumerate(self.optimizers):
            tensors |= {f"{index}.{k}": v for k, v in optimizer_tensors(optimizer).items()}
        save_tensors(path, tensors, {"step": str(self.step)})

    def load(self, path: Path) -> None:
        if not path.exists():
            return
        tensors, metadata = load_tensors(path)
        self.modules.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        self.average = {
            k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")
        }
        for index, optimizer in enumerate(self.optimizers):
            restore_optimizer(
                optimizer,
                {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{index}.")},
            )
        self.step = int(metadata["step"])


class Log:
    """A line every `every` steps: losses averaged since the last, samples per second, time left."""

    def __init__(self, settings: Settings, start: int, every: int = 50) -> None:
        self.settings, self.every, self.begun, self.start = (
            settings,
            every,
            time.perf_counter(),
            start,
        )
        self.sums: dict[str, float] = {}

    def add(self, step: int, **values: torch.Tensor) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.item()
        if step % self.every == 0:
            per_step = (time.perf_counter() - self.begun) / (step - self.start)
            means = "  ".join(
                f"{name} {total / self.every:.4f}" for name, total in self.sums.items()
            )
            left = (self.settings.steps - step) * per_step / 60
            sys.stdout.write(
                f"step {step}/{self.settings.steps}  {means}  {self.settings.batch / per_step:.0f}/s  {left:.1f} min left\n"
            )
            sys.stdout.flush()
            self.sums.clear()


def ema_weights(path: Path, part: str) -> dict[str, torch.Tensor]:
    """The averaged weights of one part (`vae`, `unet`, `text_encoder`) of a stage's file; buffers come from the model itself."""
    tensors, _ = load_tensors(path)
    prefixes = (f"model.{part}.", f"ema.{part}.")
    return {
        key.removeprefix(prefix): value
        for prefix in prefixes
        for key, value in tensors.items()
        if key.startswith(prefix)
    }


def to_signed(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """uint8 `[batch, height, width, 3]` → float `[batch, 3, height, width]` in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def gradient_l1(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the finite differences of two image batches: keeps edges sharp."""
    d = a - b
    return (d[..., 1:, :] - d[..., :-1, :]).abs().mean() + (
        d[..., :, 1:] - d[..., :, :-1]
    ).abs().mean()


def train_autoencoder(settings: Settings, process: Process) -> None:
    """L1 + squared error + gradient L1 + a small KL, in bfloat16 autocast."""
    torch.manual_seed(settings.seed)
    vae: Any = architecture.build_autoencoder()
    modules = nn.ModuleDict({"vae": vae}).to(settings.device)
    trainer = Trainer(modules, process, settings, rates=(2e-3, 2e-3), ema=0.998)
    path = settings.work / "autoencoder.safetensors"
    trainer.load(path)
    renderer, log = Renderer(settings.font), Log(settings, trainer.step)
    generator = torch.Generator(settings.device)
    while trainer.step < settings.steps:
        rng = settings.rng("autoencoder", trainer.step, process.rank)
        images = to_signed(
            np.stack([renderer.draw(rng).pixels for _ in range(settings.batch // process.world)])
        ).to(settings.device)
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
        if trainer.step % 500 == 0 or trainer.step == settings.steps:
            trainer.save(path)


@torch.inference_mode()
def encode_latents(settings: Settings, process: Process) -> None:
    """Draws `steps` batches, encodes them, and stores standardised posterior means, log-variances and captions."""
    vae = architecture.build_autoencoder().to(settings.device).eval()
    vae.load_state_dict(ema_weights(settings.work / "autoencoder.safetensors", "vae"))
    renderer = Renderer(settings.font)
    moments, captions = [], []
    for step in range(settings.steps):
        rng = settings.rng("latents", step, process.rank)
        drawings = [renderer.draw(rng) for _ in range(settings.batch // process.world)]
        posterior = vae.encode(
            to_signed(np.stack([d.pixels for d in drawings])).to(settings.device)
        ).latent_dist
        moments.append(torch.stack([posterior.mean, posterior.logvar], 1).cpu())
        captions += [d.caption for d in drawings]
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


def load_latents(work: Path) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """All stored latents: standardised means and stds `[n, 12, 8, 8]` (float32), and captions."""
    scale, _ = load_tensors(work / "latent-scale.safetensors")
    mean, std = scale["mean"].view(-1, 1, 1), scale["std"].view(-1, 1, 1)
    means, stds, captions = [], [], []
    for path in sorted(work.glob("latents-*.safetensors")):
        tensors, metadata = load_tensors(path)
        moments = tensors["moments"].float()
        means.append((moments[:, 0] - mean) / std)
        stds.append((0.5 * moments[:, 1]).exp() / std)
        captions += json.loads(metadata["captions"])
    return torch.cat(means), torch.cat(stds), captions


def stratified_timesteps(count: int, total: int, rng: np.random.Generator) -> torch.Tensor:
    """`count` timesteps in [0, total), one in each of `count` equal intervals, shuffled."""
    return torch.from_numpy(
        ((rng.permutation(count) + rng.random(count)) / count * total).astype(np.int64)
    )


def train_denoiser(settings: Settings, process: Process) -> None:
    """Velocity mean squared error on the stored latents; text encoder and denoiser are trained together."""
    from transformers import CLIPTokenizer

    torch.manual_seed(settings.seed)
    vocabulary = write_tokenizer(settings.work / f"tokenizer-{process.rank}")
    tokenizer = CLIPTokenizer.from_pretrained(settings.work / f"tokenizer-{process.rank}")
    means, stds, captions = load_latents(settings.work)
    ids = torch.tensor(
        tokenizer(
            ["", *captions], padding="max_length", max_length=LENGTH, truncation=True
        ).input_ids
    )
    modules = nn.ModuleDict(
        {
            "unet": architecture.build_unet(),
            "text_encoder": architecture.build_text_encoder(vocabulary),
        }
    )
    modules.to(settings.device)
    trainer = Trainer(modules, process, settings, rates=(2.5e-3, 1.5e-3), ema=0.999)
    path = settings.work / "denoiser.safetensors"
    trainer.load(path)
    scheduler, log = architecture.build_scheduler(), Log(settings, trainer.step)
    share = settings.batch // process.world
    while trainer.step < settings.steps:
        rng = settings.rng("denoiser", trainer.step, process.rank)
        chosen = torch.from_numpy(rng.integers(len(means), size=share))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        latents = means[chosen] + stds[chosen] * torch.randn(
            means[chosen].shape, generator=generator
        )
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = stratified_timesteps(share, scheduler.config.num_train_timesteps, rng)
        noisy = scheduler.add_noise(latents, noise, timesteps).to(settings.device)
        velocity = scheduler.get_velocity(latents, noise, timesteps).to(settings.device)
        kept = torch.from_numpy(rng.random(share) >= CAPTION_DROPOUT)
        tokens = ids[torch.where(kept, chosen + 1, 0)].to(settings.device)
        with torch.autocast(settings.device, torch.bfloat16):
            hidden = modules["text_encoder"](tokens).last_hidden_state
            predicted = modules["unet"](noisy, timesteps.to(settings.device), hidden).sample
        loss = (predicted.float() - velocity).square().mean()
        trainer.update(loss)
        if process.rank == 0:
            log.add(trainer.step, loss=loss.detach())
        if trainer.step % 500 == 0 or trainer.step == settings.steps:
            trainer.save(path)


def pack(work: Path, folder: Path) -> None:
    """Writes the pipeline folder in half precision, with the latent standardisation folded into the autoencoder."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

    vocabulary = write_tokenizer(work / "tokenizer")
    vae, unet, text = (
        architecture.build_autoencoder(),
        architecture.build_unet(),
        architecture.build_text_encoder(vocabulary),
    )
    vae.load_state_dict(ema_weights(work / "autoencoder.safetensors", "vae"))
    unet.load_state_dict(ema_weights(work / "denoiser.safetensors", "unet"))
    text.load_state_dict(ema_weights(work / "denoiser.safetensors", "text_encoder"))
    scale, _ = load_tensors(work / "latent-scale.safetensors")
    fold_standardisation(vae, scale["mean"], scale["std"])
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=unet,
        scheduler=architecture.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    write_manifest(folder)


def write_manifest(folder: Path) -> None:
    """Writes `manifest.json`: the SHA-256 and size of every file of the model."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "README.md")
    )
    facts = {
        str(path.relative_to(folder)): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in files
    }
    write_json(folder / "manifest.json", {"schema": 1, "files": facts})


@torch.no_grad()
def fold_standardisation(vae: Any, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Makes the encoder give, and the decoder take, latents of mean 0 and standard deviation 1 per channel."""
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= std.view(-1, 1, 1, 1)
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()
    post.bias += (post.weight[..., 0, 0] @ mean.unsqueeze(1)).squeeze(1)
    post.weight *= std.view(1, -1, 1, 1)


def _run(rank: int, stage: str, settings: Settings, meeting: str) -> None:
    if settings.device == "cpu":
        torch.set_num_threads(1 if settings.processes > 1 else torch.get_num_threads())
    if settings.processes > 1:
        dist.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=settings.processes
        )
    process = Process(rank, settings.processes)
    {"autoencoder": train_autoencoder, "latents": encode_latents, "denoiser": train_denoiser}[
        stage
    ](settings, process)
    if settings.processes > 1:
        dist.destroy_process_group()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "pack"])
    parser.add_argument("--work", type=Path, default=Path("runs/emoji-pretraining"))
    parser.add_argument(
        "--steps",
        type=int,
        default=None,
        help="default: 6000 (autoencoder), 500 (latents), 4500 (denoiser)",
    )
    parser.add_argument(
        "--batch", type=int, default=None, help="over all processes; default: 24, 64, 64"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--font", type=Path, default=None)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("ddpo/policies/emoji/weights"),
        help="folder that `pack` writes",
    )
    return parser.parse_args()


def main() -> None:
    """The command line."""
    arguments = _arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.stage == "pack":
        pack(arguments.work, arguments.out)
        return
    defaults = {"autoencoder": (6000, 24), "latents": (500, 64), "denoiser": (4500, 64)}[
        arguments.stage
    ]
    settings = Settings(
        arguments.work,
        arguments.seed,
        arguments.processes,
        arguments.device,
        arguments.steps or defaults[0],
        arguments.batch or defaults[1],
        arguments.font,
    )
    if settings.batch % settings.processes:
        raise SystemExit(
            f"--batch {settings.batch} is not a multiple of --processes {settings.processes}"
        )
    meeting = f"file://{(arguments.work / f'meeting-{time.time_ns()}').resolve()}"
    if settings.processes == 1:
        _run(0, arguments.stage, settings, meeting)
    else:
        torch.multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]  # neither exported nor typed by torch
            _run, (arguments.stage, settings, meeting), nprocs=settings.processes
        )


if __name__ == "__main__":
    main()
