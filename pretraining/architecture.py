"""The five parts of the embedded model, untrained, all stock classes of diffusers and transformers.

Sizes (parameters): text encoder 0.36 M, autoencoder 1.0 M, denoiser 5.6 M; 14 MB in half precision.
"""

from typing import Final

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from pretraining.render import SIZE
from pretraining.tokenizer import LENGTH

LATENT_CHANNELS: Final = 12
LATENT_SIZE: Final = SIZE // 8
TEXT_WIDTH: Final = 128


def build_autoencoder() -> AutoencoderKL:
    """Images `[batch, 3, 64, 64]` in [-1, 1] ↔ latents `[batch, 12, 8, 8]`."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        scaling_factor=1.0,  # the standardisation is folded into the convolutions around the latents
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """Token ids `[batch, 16]` → hidden states `[batch, 16, 128]`."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=TEXT_WIDTH,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    """Noisy latents, timestep and text → velocity `[batch, 12, 8, 8]`."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(96, 160),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Velocity prediction on Stable Diffusion's betas, rescaled to zero terminal SNR (arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
