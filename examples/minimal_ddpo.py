"""DDPO with importance sampling, all of it in one file: `python examples/minimal_ddpo.py`.

It finetunes the embedded model on compressibility (Black et al., arXiv 2305.13301). A denoiser run
with DDIM at η = 1 is a policy: each step samples x_{t-1} from a Gaussian whose mean it computes
from x_t and the prompt. So the steps of well rewarded images can be made likelier, as in any policy
gradient method. A test compares this file with the library: the same seed gives the same weights
after an iteration.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ddpo.policies import model_folder
from ddpo.prompts import load_prompts
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch


@dataclass
class Settings:
    seed: int = 0
    iterations: int = 10
    samples: int = 96  # images per iteration
    per_prompt: int = 8  # images of each sampled prompt
    steps: int = 10  # denoising steps
    batch: int = 32  # items in one call of the denoiser
    updates: int = 4  # optimizer steps per iteration
    timesteps: int = (
        5  # trained steps of each image, of all but the last, which has hardly any noise
    )
    lr: float = 3e-3
    clip_range: float = 2e-3


class Model:
    """A latent diffusion model, LoRA on its denoiser, and the coefficients of its steps."""

    def __init__(self, settings: Settings) -> None:
        folder = model_folder("emoji")
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self.text_encoder = CLIPTextModel.from_pretrained(
            folder, subfolder="text_encoder", dtype=torch.float32
        ).eval()
        self.vae = AutoencoderKL.from_pretrained(
            folder, subfolder="vae", torch_dtype=torch.float32
        ).eval()
        self.unet = UNet2DConditionModel.from_pretrained(
            folder, subfolder="unet", torch_dtype=torch.float32
        ).eval()
        self.unet.requires_grad_(False)
        torch.manual_seed(settings.seed)
        attention = ["to_q", "to_k", "to_v", "to_out.0"]
        self.unet.add_adapter(
            LoraConfig(r=16, lora_alpha=16, target_modules=attention, init_lora_weights="gaussian")
        )
        self.parameters = [one for one in self.unet.parameters() if one.requires_grad]
        self.set_coefficients(
            DDIMScheduler.from_pretrained(folder, subfolder="scheduler"), settings
        )

    def set_coefficients(self, scheduler: DDIMScheduler, settings: Settings) -> None:
        """ᾱ before and after each step, and σ of DDIM at η = 1, each `[steps]`, noise first."""
        scheduler.set_timesteps(settings.steps)
        self.timesteps = scheduler.timesteps
        signal = scheduler.alphas_cumprod.double()  # ᾱ, the share of the image in x_t's variance
        alpha = signal[self.timesteps]
        earlier = signal[self.timesteps[:-1] - 1000 // settings.steps]
        alpha_prev = torch.cat([earlier, scheduler.final_alpha_cumprod.double()[None]])
        variance = (1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)
        self.std = variance.sqrt().float()
        self.alpha = alpha.float()
        self.alpha_prev = alpha_prev.float()

    @torch.no_grad()
    def encode(self, texts: list[str]) -> Tensor:
        """Hidden states of the text encoder, one text at a time."""
        padding = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        ids = [self.tokenizer(text, **padding).input_ids for text in texts]
        return torch.cat([self.text_encoder(one).last_hidden_state for one in ids])

    def mean(self, x_t: Tensor, step: Tensor, conditioning: Tensor) -> Tensor:
        """Mean of x_{t-1}; this denoiser predicts v = √ᾱ ε - √(1-ᾱ) x_0."""
        v = self.unet(x_t, self.timesteps[step], encoder_hidden_states=conditioning).sample
        alpha, alpha_prev, std = (
            values[step].view(-1, 1, 1, 1) for values in (self.alpha, self.alpha_prev, self.std)
        )
        x_0 = alpha.sqrt() * x_t - (1 - alpha).sqrt() * v
        noise = alpha.sqrt() * v + (1 - alpha).sqrt() * x_t
        return alpha_prev.sqrt() * x_0 + (1 - alpha_prev - std**2).clamp_min(0).sqrt() * noise

    def log_prob(self, x_prev: Tensor, mean: Tensor, step: Tensor) -> Tensor:
        """Log-density of a step, averaged over the latent's dimensions."""
        std = self.std[step]
        squared = ((x_prev - mean) / std.view(-1, 1, 1, 1)) ** 2
        return -0.5 * squared.mean((1, 2, 3)) - std.log() - 0.5 * math.log(2 * math.pi)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in [0, 1]."""
        decoded = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (decoded / 2 + 0.5).clamp(0, 1)


def sample_keys(prompts, settings, iteration):
    """(prompt, index) of each image; every prompt is sampled once before any is sampled again."""
    keys = []
    groups = settings.samples // settings.per_prompt
    for place in range((iteration - 1) * groups, iteration * groups):
        cycle, position = divmod(place, len(prompts))
        order = np.random.default_rng([settings.seed, 0, cycle]).permutation(len(prompts))
        first = cycle * settings.per_prompt
        indices = range(first, first + settings.per_prompt)
        keys += [(prompts[order[position]], index) for index in indices]
    return keys


def noise_of(key, settings, unet):
    """The noise of an image at the start and in every step, keyed by seed, prompt and index."""
    prompt, index = key
    digest = hashlib.sha256(f"{settings.seed}/{prompt.id}/{index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    side = unet.config.sample_size
    shape = (settings.steps + 1, unet.config.in_channels, side, side)
    return torch.randn(shape, generator=generator)


@torch.no_grad()
def rollout(model, reward, keys, settings):
    """Latents `[image, step + 1, …]`, log-probs `[image, step]`, conditioning and rewards."""
    found = []
    for start in range(0, len(keys), settings.batch):
        batch = keys[start : start + settings.batch]
        prompts = tuple(prompt for prompt, _ in batch)
        noise = torch.stack([noise_of(key, settings, model.unet) for key in batch])
        conditioning = model.encode([prompt.text for prompt in prompts])
        latents = [noise[:, 0]]
        log_probs = []
        for index in range(settings.steps):
            step = torch.full((len(batch),), index)
            mean = model.mean(latents[-1], step, conditioning)
            latents.append(mean + model.std[index] * noise[:, index + 1])
            log_probs.append(model.log_prob(latents[-1], mean, step))
        rewards = reward(ImageBatch(model.decode(latents[-1]), prompts)).values
        found.append((torch.stack(latents, 1), torch.stack(log_probs, 1), conditioning, rewards))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def advantages(rewards, keys):
    """Rewards over their prompt's mean, in standard deviations of its images, at most ±5."""
    values = rewards.double().numpy()
    ids = np.array([prompt.id for prompt, _ in keys])
    result = np.zeros(len(values))
    for prompt in dict.fromkeys(ids):
        group = values[ids == prompt]
        result[ids == prompt] = (group - group.mean()) / (group.std() + 1e-6)
    return torch.from_numpy(result).clamp(-5, 5).float()


def update(model, optimizer, latents, old_log_probs, conditioning, advantage, settings, iteration):
    """Takes the optimizer steps, each on some denoising steps of its share of the images."""
    random = np.random.default_rng([settings.seed, 1, iteration])
    for part in np.array_split(random.permutation(len(latents)), settings.updates):
        chosen = [random.permutation(settings.steps - 1)[: settings.timesteps] for _ in part]
        steps = torch.from_numpy(np.concatenate(chosen))
        images = torch.from_numpy(np.repeat(part, settings.timesteps))
        optimizer.zero_grad()
        for start in range(0, len(images), settings.batch):
            image = images[start : start + settings.batch]
            step = steps[start : start + settings.batch]
            # filled up, so that sampling and training call the denoiser in one shape
            count = len(image)
            image = torch.cat([image, image[-1:].expand(settings.batch - count)])
            step = torch.cat([step, step[-1:].expand(settings.batch - count)])
            mean = model.mean(latents[image, step], step, conditioning[image])
            log_prob = model.log_prob(latents[image, step + 1], mean, step)[:count]
            ratio = (log_prob - old_log_probs[image, step][:count]).exp()  # 1 in the first update
            better = advantage[image][:count]
            clipped = ratio.clamp(1 - settings.clip_range, 1 + settings.clip_range)
            loss = torch.maximum(-better * ratio, -better * clipped).sum() / len(images)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters, 1.0)
        optimizer.step()


def train(settings: Settings) -> Model:
    """Samples and scores, weighs, updates, once per iteration."""
    model = Model(settings)
    reward = make_reward("compressibility")
    prompts = load_prompts("animals").prompts
    optimizer = torch.optim.AdamW(model.parameters, lr=settings.lr, weight_decay=1e-4)
    for iteration in range(1, settings.iterations + 1):
        keys = sample_keys(prompts, settings, iteration)
        latents, log_probs, conditioning, rewards = rollout(model, reward, keys, settings)
        advantage = advantages(rewards, keys)
        update(model, optimizer, latents, log_probs, conditioning, advantage, settings, iteration)
        print(f"iteration {iteration}: reward {rewards.mean():.3f} kB")
    return model


if __name__ == "__main__":
    train(Settings())
