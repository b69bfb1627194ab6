"""The untrained components of the embedded model, all stock classes of diffusers and transformers.

Numbers of parameters: text encoder 0.36 M, autoencoder 1.0 M, denoiser 5.6 M. Half precision takes
14 MB.
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
    """The autoencoder of images `[batch, 3, 64, 64]` in [-1, 1] and latents `[batch, 12, 8, 8]`."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        scaling_factor=1.0,  # the convolutions around the latents standardise them
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """The text encoder from token ids `[batch, 16]` to hidden states `[batch, 16, 128]`."""
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
    """The denoiser from noisy latents, timestep and text to velocity `[batch, 12, 8, 8]`."""
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
    """The scheduler of velocity prediction, with betas rescaled to zero terminal SNR.

    Source: arXiv 2305.08891.
    """
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
