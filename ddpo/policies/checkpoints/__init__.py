"""Checkpoints: ddpo's own folders, and the LoRA and UNet files of other trainers."""
