"""DDPO with importance sampling, complete in one file: `python examples/minimal_ddpo.py`.

It finetunes the embedded model on compressibility (Black et al., arXiv 2305.13301). A denoiser run
with DDIM at η = 1 is a policy: each step samples x_{t-1} from a Gaussian whose mean depends on x_t
and the prompt. A policy gradient makes the steps of well rewarded images more likely. A test
compares this file with the library: the same seed gives the same weights after an iteration.
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
    samples: int = 96  # images per iteration
    per_prompt: int = 8  # images per prompt of an iteration
    steps: int = 10  # denoising steps
    batch: int = 32  # items in one call of the denoiser
    updates: int = 4  # optimizer steps per iteration
    timesteps: int = 5  # trained steps per image, of all but the last, which has next to no noise
    lr: float = 3e-3
    clip_range: float = 2e-3


class Model:
    """A latent diffusion model with LoRA on its denoiser, and the coefficients of its steps."""

    def __init__(self, settings: Settings) -> None:
        folder = model_folder("emoji")
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self.text_encoder = load(CLIPTextModel, "text_encoder")
        self.vae = load(AutoencoderKL, "vae")
        self.unet = load(UNet2DConditionModel, "unet").requires_grad_(False)
        torch.manual_seed(settings.seed)
        lora = LoraConfig(r=16, lora_alpha=16, init_lora_weights="gaussian")
        lora.target_modules = {"to_q", "to_k", "to_v", "to_out.0"}
        self.unet.add_adapter(lora)
        self.parameters = [weight for weight in self.unet.parameters() if weight.requires_grad]

        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
        scheduler.set_timesteps(settings.steps)
        self.timesteps = scheduler.timesteps  # [steps], noise first
        signal = scheduler.alphas_cumprod.double()  # ᾱ, the image's share of the variance of x_t
        alpha = signal[self.timesteps]
        before = signal[self.timesteps[:-1] - 1000 // settings.steps]
        alpha_prev = torch.cat([before, scheduler.final_alpha_cumprod.double()[None]])
        variance = (1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)
        self.std = variance.sqrt().float()  # σ of DDIM at η = 1
        self.alpha = alpha.float()
        self.alpha_prev = alpha_prev.float()

    @torch.no_grad()
    def encode(self, texts):
        """Hidden states of the text encoder, one text at a time."""
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        ids = [self.tokenizer(text, **options).input_ids for text in texts]
        return torch.cat([self.text_encoder(one).last_hidden_state for one in ids])

    def mean(self, x_t, step, conditioning):
        """Mean of x_{t-1}; this denoiser predicts v = √ᾱ ε - √(1-ᾱ) x_0."""
        v = self.unet(x_t, self.timesteps[step], encoder_hidden_states=conditioning).sample
        coefficients = (self.alpha, self.alpha_prev, self.std)
        alpha, alpha_prev, std = (values[step].view(-1, 1, 1, 1) for values in coefficients)
        x_0 = alpha.sqrt() * x_t - (1 - alpha).sqrt() * v
        noise = alpha.sqrt() * v + (1 - alpha).sqrt() * x_t
        return alpha_prev.sqrt() * x_0 + (1 - alpha_prev - std**2).clamp_min(0).sqrt() * noise

    def log_prob(self, x_prev, mean, step):
        """Log-density of a step, averaged over the latent's dimensions."""
        std = self.std[step]
        squared = ((x_prev - mean) / std.view(-1, 1, 1, 1)) ** 2
        return -0.5 * squared.mean((1, 2, 3)) - std.log() - 0.5 * math.log(2 * math.pi)

    def decode(self, latents):
        """Pixels in [0, 1]."""
        pixels = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (pixels / 2 + 0.5).clamp(0, 1)


def load(kind, subfolder):
    """A component of the embedded model, in float32."""
    folder = model_folder("emoji")
    return kind.from_pretrained(folder, subfolder=subfolder, torch_dtype=torch.float32).eval()


def choose_samples(prompts, settings, iteration):
    """(prompt, sample number) of each image; every prompt comes once before any is repeated."""
    samples = []
    count = settings.samples // settings.per_prompt
    for place in range((iteration - 1) * count, iteration * count):
        cycle, position = divmod(place, len(prompts))
        order = np.random.default_rng([settings.seed, 0, cycle]).permutation(len(prompts))
        numbers = range(cycle * settings.per_prompt, (cycle + 1) * settings.per_prompt)
        samples += [(prompts[order[position]], number) for number in numbers]
    return samples


def noise_of(prompt, number, model, settings):
    """The noise [step + 1, channel, height, width] of one image, from a seed of its own."""
    key = f"{settings.seed}/{prompt.id}/{number}".encode()
    seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
    side = model.unet.config.sample_size
    shape = (settings.steps + 1, model.unet.config.in_channels, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def rollout(model, reward, samples, settings):
    """Latents [image, step + 1, …], log-probs [image, step], conditioning and rewards."""
    batches = []
    for start in range(0, len(samples), settings.batch):
        batch = samples[start : start + settings.batch]
        prompts = [prompt for prompt, _ in batch]
        noise = torch.stack([noise_of(*sample, model, settings) for sample in batch])
        conditioning = model.encode([prompt.text for prompt in prompts])
        latents = [noise[:, 0]]
        log_probs = []
        for index in range(settings.steps):
            step = torch.full((len(batch),), index)
            mean = model.mean(latents[-1], step, conditioning)
            latents.append(mean + model.std[index] * noise[:, index + 1])
            log_probs.append(model.log_prob(latents[-1], mean, step))
        rewards = reward(ImageBatch(model.decode(latents[-1]), prompts)).values
        batches.append((torch.stack(latents, 1), torch.stack(log_probs, 1), conditioning, rewards))
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def advantages(rewards, samples):
    """Rewards standardised within each prompt, and clamped to ±5."""
    values = rewards.double().numpy()
    ids = np.array([prompt.id for prompt, _ in samples])
    result = np.zeros(len(values))
    for prompt in dict.fromkeys(ids):
        group = values[ids == prompt]
        result[ids == prompt] = (group - group.mean()) / (group.std() + 1e-6)
    return torch.from_numpy(result).clamp(-5, 5).float()


def update(model, optimizer, latents, old_log_probs, conditioning, advantage, settings, iteration):
    """Optimizer steps, each on its share of the images: the clipped surrogate on random steps."""
    random = np.random.default_rng([settings.seed, 1, iteration])
    for share in np.array_split(random.permutation(len(latents)), settings.updates):
        chosen = [random.permutation(settings.steps - 1)[: settings.timesteps] for _ in share]
        pairs = np.stack([np.repeat(share, settings.timesteps), np.concatenate(chosen)])
        items = torch.from_numpy(pairs)  # [2, items]: image and step
        optimizer.zero_grad()
        for batch in items.split(settings.batch, dim=1):
            # A short batch is filled up: sampling and training call the denoiser in one shape.
            count = batch.shape[1]
            image, step = torch.cat([batch, batch[:, -1:].expand(2, settings.batch - count)], 1)
            mean = model.mean(latents[image, step], step, conditioning[image])
            log_prob = model.log_prob(latents[image, step + 1], mean, step)
            ratio = (log_prob - old_log_probs[image, step])[:count].exp()  # 1 before any update
            gain = advantage[image][:count]
            clipped = ratio.clamp(1 - settings.clip_range, 1 + settings.clip_range)
            (torch.maximum(-gain * ratio, -gain * clipped).sum() / items.shape[1]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters, 1.0)
        optimizer.step()


def train(settings):
    """Repeats: sample, score, compare, update."""
    model = Model(settings)
    reward = make_reward("compressibility")
    prompts = load_prompts("animals").prompts
    optimizer = torch.optim.AdamW(model.parameters, lr=settings.lr, weight_decay=1e-4)
    for iteration in range(1, settings.iterations + 1):
        samples = choose_samples(prompts, settings, iteration)
        latents, log_probs, conditioning, rewards = rollout(model, reward, samples, settings)
        advantage = advantages(rewards, samples)
        update(model, optimizer, latents, log_probs, conditioning, advantage, settings, iteration)
        print(f"iteration {iteration}: reward {rewards.mean():.3f} kB")
    return model


if __name__ == "__main__":
    train(Settings())
