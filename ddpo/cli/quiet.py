"""What the command line does not want to hear from the libraries: progress bars of loading, advice about torchvision."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def silent_writer_threads() -> Iterator[None]:
    """Suppresses tracebacks of TensorBoard's writer thread, whose errors its next call raises anyway."""
    before = threading.excepthook

    def report(arguments: threading.ExceptHookArgs) -> None:
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            before(arguments)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before
