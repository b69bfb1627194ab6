"""A user's reward that counts the images it scores, and can be killed after some of them."""

import os
import signal
from pathlib import Path


def redness(images):
    """The mean of red less the mean of green and blue, per image."""
    calls = Path(os.environ["REDNESS_CALLS"])
    done = len(calls.read_text()) if calls.exists() else 0
    if done + len(images) > int(os.environ.get("REDNESS_LIMIT", "1000000")):
        os.kill(os.getpid(), signal.SIGKILL)
    calls.write_text("." * (done + len(images)))
    means = images.mean(axis=(1, 2)) / 255
    return means[:, 0] - means[:, 1:].mean(axis=1)
