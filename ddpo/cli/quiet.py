"""What the command line does not want to hear from the libraries: progress bars of loading, advice about torchvision."""

from __future__ import annotations

import logging
import os


def quiet_libraries() -> None:
    """Call before a command loads a model."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    for name in ("torch", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
