"""DDPO with importance sampling, the whole of it in one file: `python examples/minimal_ddpo.py`.

It finetunes the embedded model on compressibility (Black et al., arXiv 2305.13301). A denoiser run with DDIM at η = 1 is a policy: each
step draws x_{t-1} from a Gaussian whose mean it computes from x_t and the prompt. So steps that led to well rewarded pictures can be made
likelier, as in any policy gradient method. A test holds this file to the library: same seed, same weights after an iteration.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from peft import LoraConfig
from transformers import CLIPTextModel, CLIPTokenizer

from ddpo.policies import model_folder
from ddpo.prompts import load_prompts
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch


@dataclass
class Settings:
    seed: int = 0
    iterations: int = 10
    samples: int = 96  # pictures per iteration
    per_prompt: int = 8  # of each prompt that is drawn
    steps: int = 10  # denoising steps
    batch: int = 32  # items in one call of the denoiser
    updates: int = 4  # optimizer steps per iteration
    timesteps: int = 5  # of the first nine steps, how many of each picture are trained; the tenth is all but free of noise
    lr: float = 3e-3
    clip_range: float = 2e-3


class Model:
    """The parts of a latent diffusion model, LoRA on its denoiser, and the coefficients of its denoising steps."""

    def __init__(self, settings: Settings) -> None:
        folder = model_folder("emoji")
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self.text_encoder = CLIPTextModel.from_pretrained(
            folder, subfolder="text_encoder", dtype=torch.float32
        ).eval()
        self.vae = AutoencoderKL.from_pretrained(
            folder, subfolder="vae", torch_dtype=torch.float32
        ).eval()
        self.unet = (
            UNet2DConditionModel.from_pretrained(
                folder, subfolder="unet", torch_dtype=torch.float32
            )
            .eval()
            .requires_grad_(False)
        )
        torch.manual_seed(settings.seed)
        attention = ["to_q", "to_k", "to_v", "to_out.0"]
        self.unet.add_adapter(
            LoraConfig(r=16, lora_alpha=16, target_modules=attention, init_lora_weights="gaussian")
        )
        self.parameters = [
            parameter for parameter in self.unet.parameters() if parameter.requires_grad
        ]

        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
        scheduler.set_timesteps(settings.steps)
        self.timesteps = scheduler.timesteps  # [steps], noise first
        signal = (
            scheduler.alphas_cumprod.double()
        )  # ᾱ, the share of the picture in the variance of x_t
        self.alpha = signal[self.timesteps]
        self.alpha_prev = torch.cat(
            [
                signal[self.timesteps[:-1] - 1000 // settings.steps],
                scheduler.final_alpha_cumprod.double()[None],
            ]
        )
        self.std = (
            ((1 - self.alpha_prev) / (1 - self.alpha) * (1 - self.alpha / self.alpha_prev))
            .sqrt()
            .float()
        )  # σ of DDIM at η = 1
        self.alpha, self.alpha_prev = self.alpha.float(), self.alpha_prev.float()

    @torch.no_grad()
    def encode(self, texts: list[str]) -> torch.Tensor:
        """Hidden states of the text encoder, one text at a time."""
        ids = [
            self.tokenizer(
                text, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
            for text in texts
        ]
        return torch.cat([self.text_encoder(one).last_hidden_state for one in ids])

    def mean(
        self, x_t: torch.Tensor, step: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        """Mean of x_{t-1}; this denoiser predicts v = √ᾱ ε - √(1-ᾱ) x_0."""
        v = self.unet(x_t, self.timesteps[step], encoder_hidden_states=conditioning).sample
        alpha, alpha_prev, std = (
            values[step].view(-1, 1, 1, 1) for values in (self.alpha, self.alpha_prev, self.std)
        )
        x_0, noise = (
            alpha.sqrt() * x_t - (1 - alpha).sqrt() * v,
            alpha.sqrt() * v + (1 - alpha).sqrt() * x_t,
        )
        return alpha_prev.sqrt() * x_0 + (1 - alpha_prev - std**2).clamp_min(0).sqrt() * noise

    def log_prob(
        self, x_prev: torch.Tensor, mean: torch.Tensor, step: torch.Tensor
    ) -> torch.Tensor:
        """Log-density of a step, averaged over the latent's dimensions."""
        std = self.std[step]
        squared = ((x_prev - mean) / std.view(-1, 1, 1, 1)) ** 2
        return -0.5 * squared.mean((1, 2, 3)) - std.log() - 0.5 * math.log(2 * math.pi)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1]."""
        return (self.vae.decode(latents / self.vae.config.scaling_factor).sample / 2 + 0.5).clamp(
            0, 1
        )


def draw(prompts, settings, iteration):
    """(prompt, number of the picture) of an iteration: every prompt is drawn once before any is drawn again."""
    pictures, groups = [], settings.samples // settings.per_prompt
    for place in range((iteration - 1) * groups, iteration * groups):
        cycle, position = divmod(place, len(prompts))
        prompt = prompts[
            np.random.default_rng([settings.seed, 0, cycle]).permutation(len(prompts))[position]
        ]
        pictures += [
            (prompt, cycle * settings.per_prompt + number) for number in range(settings.per_prompt)
        ]
    return pictures


@torch.no_grad()
def rollout(model, reward, pictures, settings):
    """Latents [picture, step + 1, …], log-probs [picture, step], conditioning and rewards. Each picture has noise of its own."""
    found = []
    for start in range(0, len(pictures), settings.batch):
        prompts, numbers = zip(*pictures[start : start + settings.batch], strict=True)
        keys = [
            f"{settings.seed}/{prompt.id}/{number}".encode()
            for prompt, number in zip(prompts, numbers, strict=True)
        ]
        seeds = [int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1 for key in keys]
        shape = (
            settings.steps + 1,
            model.unet.config.in_channels,
            *[model.unet.config.sample_size] * 2,
        )
        noise = torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )
        conditioning, latents, log_probs = (
            model.encode([prompt.text for prompt in prompts]),
            [noise[:, 0]],
            [],
        )
        for index in range(settings.steps):
            step = torch.full((len(prompts),), index)
            mean = model.mean(latents[-1], step, conditioning)
            latents.append(mean + model.std[index] * noise[:, index + 1])
            log_probs.append(model.log_prob(latents[-1], mean, step))
        rewards = reward(ImageBatch(model.decode(latents[-1]), prompts)).values
        found.append((torch.stack(latents, 1), torch.stack(log_probs, 1), conditioning, rewards))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def advantages(rewards, pictures):
    """How much better than the other pictures of the prompt, in standard deviations, at most ±5."""
    values = rewards.double().numpy()
    ids = np.array([prompt.id for prompt, _ in pictures])
    result = np.zeros(len(values))
    for prompt in dict.fromkeys(ids):
        group = values[ids == prompt]
        result[ids == prompt] = (group - group.mean()) / (group.std() + 1e-6)
    return torch.from_numpy(result).clamp(-5, 5).float()


def update(model, optimizer, latents, old_log_probs, conditioning, advantage, settings, iteration):
    """A few optimizer steps, each on its share of the pictures: the clipped surrogate on some of their denoising steps."""
    random = np.random.default_rng([settings.seed, 1, iteration])
    for part in np.array_split(random.permutation(len(latents)), settings.updates):
        steps = torch.from_numpy(
            np.concatenate(
                [random.permutation(settings.steps - 1)[: settings.timesteps] for _ in part]
            )
        )
        items = torch.from_numpy(np.repeat(part, settings.timesteps))
        optimizer.zero_grad()
        for begin in range(0, len(items), settings.batch):
            picture, step = (
                items[begin : begin + settings.batch],
                steps[begin : begin + settings.batch],
            )
            kept = len(
                picture
            )  # the batch is filled up: sampling and training call the denoiser in one shape, and see the same bits
            picture, step = (
                torch.cat([index, index[-1:].expand(settings.batch - kept)])
                for index in (picture, step)
            )
            mean = model.mean(latents[picture, step], step, conditioning[picture])
            log_prob = model.log_prob(latents[picture, step + 1], mean, step)[:kept]
            ratio = (
                log_prob - old_log_probs[picture, step][:kept]
            ).exp()  # 1 before the first update
            better = advantage[picture][:kept]
            clipped = ratio.clamp(1 - settings.clip_range, 1 + settings.clip_range)
            (torch.maximum(-better * ratio, -better * clipped).sum() / len(items)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters, 1.0)
        optimizer.step()


def train(settings: Settings) -> Model:
    """Sample, score, compare, update, and again."""
    model, reward = Model(settings), make_reward("compressibility")
    prompts = load_prompts("animals").prompts
    optimizer = torch.optim.AdamW(model.parameters, lr=settings.lr, weight_decay=1e-4)
    for iteration in range(1, settings.iterations + 1):
        pictures = draw(prompts, settings, iteration)
        latents, log_probs, conditioning, rewards = rollout(model, reward, pictures, settings)
        advantage = advantages(rewards, pictures)
        update(model, optimizer, latents, log_probs, conditioning, advantage, settings, iteration)
        print(f"iteration {iteration}: reward {rewards.mean():.3f} kB")
    return model


if __name__ == "__main__":
    train(Settings())
