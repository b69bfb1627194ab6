"""DDPO with importance sampling in one file: `python examples/minimal_ddpo.py`.

It finetunes the embedded model on compressibility (Black et al., arXiv 2305.13301). A denoiser run
with DDIM at η = 1 is a policy: each step draws x_{t-1} from a Gaussian whose mean depends on x_t
and the prompt. A policy gradient can make the steps of well rewarded images likelier. A test holds
this file to the library: same seed, same weights after an iteration.
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
    per_prompt: int = 8  # images of each prompt of an iteration
    steps: int = 10  # denoising steps
    batch: int = 32  # items in one call of the denoiser
    updates: int = 4  # optimizer steps per iteration
    timesteps: int = 5  # trained steps of each image, of the first nine; the tenth has no noise
    lr: float = 3e-3
    clip_range: float = 2e-3


class Model:
    """The parts of a latent diffusion model, with LoRA, and the coefficients of its steps."""

    def __init__(self, settings: Settings) -> None:
        folder = model_folder("emoji")
        float32 = torch.float32
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        text_encoder = CLIPTextModel.from_pretrained(
            folder, subfolder="text_encoder", dtype=float32
        )
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=float32)
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=float32)
        self.text_encoder = text_encoder.eval()
        self.vae = vae.eval()
        self.unet = unet.eval().requires_grad_(False)
        torch.manual_seed(settings.seed)
        attention = ["to_q", "to_k", "to_v", "to_out.0"]
        lora = LoraConfig(
            r=16, lora_alpha=16, target_modules=attention, init_lora_weights="gaussian"
        )
        self.unet.add_adapter(lora)
        self.parameters = [weight for weight in self.unet.parameters() if weight.requires_grad]

        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
        scheduler.set_timesteps(settings.steps)
        self.timesteps = scheduler.timesteps  # [steps], noise first
        signal = scheduler.alphas_cumprod.double()  # ᾱ, the image's share of the variance of x_t
        alpha = signal[self.timesteps]
        later = signal[self.timesteps[:-1] - 1000 // settings.steps]
        alpha_prev = torch.cat([later, scheduler.final_alpha_cumprod.double()[None]])
        variance = (1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)  # σ² of DDIM at η = 1
        self.std = variance.sqrt().float()
        self.alpha = alpha.float()
        self.alpha_prev = alpha_prev.float()

    @torch.no_grad()
    def encode(self, texts: list[str]) -> torch.Tensor:
        """Hidden states of the text encoder, one text at a time."""
        padded = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        ids = [self.tokenizer(text, **padded).input_ids for text in texts]
        return torch.cat([self.text_encoder(one).last_hidden_state for one in ids])

    def mean(self, x_t: torch.Tensor, step: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Mean of x_{t-1}; this denoiser predicts v = √ᾱ ε - √(1-ᾱ) x_0."""
        v = self.unet(x_t, self.timesteps[step], encoder_hidden_states=text).sample
        coefficients = (self.alpha, self.alpha_prev, self.std)
        alpha, alpha_prev, std = (values[step].view(-1, 1, 1, 1) for values in coefficients)
        x_0 = alpha.sqrt() * x_t - (1 - alpha).sqrt() * v
        noise = alpha.sqrt() * v + (1 - alpha).sqrt() * x_t
        return alpha_prev.sqrt() * x_0 + (1 - alpha_prev - std**2).clamp_min(0).sqrt() * noise

    def log_prob(self, x: torch.Tensor, mean: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Log-density of a step to `x`, averaged over the latent's dimensions."""
        std = self.std[step]
        squared = ((x - mean) / std.view(-1, 1, 1, 1)) ** 2
        return -0.5 * squared.mean((1, 2, 3)) - std.log() - 0.5 * math.log(2 * math.pi)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1]."""
        pixels = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (pixels / 2 + 0.5).clamp(0, 1)


def choose(prompts, settings, iteration):
    """(prompt, image number) of an iteration; each prompt is used once before one is used again."""
    images = []
    groups = settings.samples // settings.per_prompt
    for place in range((iteration - 1) * groups, iteration * groups):
        cycle, position = divmod(place, len(prompts))
        order = np.random.default_rng([settings.seed, 0, cycle]).permutation(len(prompts))
        first = cycle * settings.per_prompt
        numbers = range(first, first + settings.per_prompt)
        images += [(prompts[order[position]], number) for number in numbers]
    return images


def noise_of(prompt, number, settings, shape):
    """The noise of one image, keyed by seed, prompt and number."""
    key = f"{settings.seed}/{prompt.id}/{number}".encode()
    seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def rollout(model, reward, images, settings):
    """Latents [image, step + 1, …], log-probs [image, step], conditioning and rewards."""
    found = []
    config = model.unet.config
    shape = (settings.steps + 1, config.in_channels, config.sample_size, config.sample_size)
    for start in range(0, len(images), settings.batch):
        batch = images[start : start + settings.batch]
        prompts = [prompt for prompt, _ in batch]
        noise = torch.stack([noise_of(*image, settings, shape) for image in batch])
        conditioning = model.encode([prompt.text for prompt in prompts])
        latents = [noise[:, 0]]
        log_probs = []
        for index in range(settings.steps):
            step = torch.full((len(prompts),), index)
            mean = model.mean(latents[-1], step, conditioning)
            latents.append(mean + model.std[index] * noise[:, index + 1])
            log_probs.append(model.log_prob(latents[-1], mean, step))
        rewards = reward(ImageBatch(model.decode(latents[-1]), prompts)).values
        found.append((torch.stack(latents, 1), torch.stack(log_probs, 1), conditioning, rewards))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def advantages(rewards, images):
    """Standard deviations above the mean of the prompt's images, at most ±5."""
    values = rewards.double().numpy()
    ids = np.array([prompt.id for prompt, _ in images])
    result = np.zeros(len(values))
    for prompt in dict.fromkeys(ids):
        group = values[ids == prompt]
        result[ids == prompt] = (group - group.mean()) / (group.std() + 1e-6)
    return torch.from_numpy(result).clamp(-5, 5).float()


def update(model, optimizer, latents, old_log_probs, text, advantage, settings, iteration):
    """Optimizer steps on the clipped surrogate, each on its share of the images."""
    random = np.random.default_rng([settings.seed, 1, iteration])
    for share in np.array_split(random.permutation(len(latents)), settings.updates):
        chosen = [random.permutation(settings.steps - 1)[: settings.timesteps] for _ in share]
        steps = torch.from_numpy(np.concatenate(chosen))
        items = torch.from_numpy(np.repeat(share, settings.timesteps))
        optimizer.zero_grad()
        for begin in range(0, len(items), settings.batch):
            image = items[begin : begin + settings.batch]
            step = steps[begin : begin + settings.batch]
            kept = len(image)
            # Sampling and training call the denoiser in one shape, so that they see the same bits.
            fill = settings.batch - kept
            image, step = (torch.cat([index, index[-1:].expand(fill)]) for index in (image, step))
            mean = model.mean(latents[image, step], step, text[image])
            log_prob = model.log_prob(latents[image, step + 1], mean, step)[:kept]
            ratio = (log_prob - old_log_probs[image, step][:kept]).exp()  # 1 at first
            better = advantage[image][:kept]
            clipped = ratio.clamp(1 - settings.clip_range, 1 + settings.clip_range)
            (torch.maximum(-better * ratio, -better * clipped).sum() / len(items)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters, 1.0)
        optimizer.step()


def train(settings: Settings) -> Model:
    """The tuned model, after a number of iterations of sampling, scoring and updating."""
    model = Model(settings)
    reward = make_reward("compressibility")
    prompts = load_prompts("animals").prompts
    optimizer = torch.optim.AdamW(model.parameters, lr=settings.lr, weight_decay=1e-4)
    for iteration in range(1, settings.iterations + 1):
        images = choose(prompts, settings, iteration)
        latents, log_probs, conditioning, rewards = rollout(model, reward, images, settings)
        advantage = advantages(rewards, images)
        update(model, optimizer, latents, log_probs, conditioning, advantage, settings, iteration)
        print(f"iteration {iteration}: reward {rewards.mean():.3f} kB")
    return model


if __name__ == "__main__":
    train(Settings())
