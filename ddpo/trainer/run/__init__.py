"""The run folder: manifest, checkpoints, resuming, export and model card."""
