"""Checks that need a fresh Python process: what listing imports, and what is said when weights are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import EntryPoint
from typing import Any, Final

from ddpo.errors import MissingResourceError
from ddpo.rewards.check.definition import Fault, NotApplicable, check
from ddpo.rewards.check.subject import Subject
from ddpo.rewards.zoo import rewards

__all__ = ["CHECKS"]

HEAVY: Final = (
    "torch",
    "transformers",
    "diffusers",
    "PIL",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "cv2",
    "tensorflow",
    "jax",
)
SECONDS: Final = 300

LIST = """
import importlib, json, sys
module, heavy = json.loads(sys.argv[1])
before = set(sys.modules)
importlib.import_module(module)
print("\\n" + json.dumps([name for name in heavy if name in sys.modules and name not in before]))
"""

MAKE = """
import json, sys
try:
    from ddpo.rewards.zoo import resolve
    import numpy
    from ddpo.types import ImageBatch, Prompt
    reward = resolve(json.loads(sys.argv[1])).make()
    reward(ImageBatch.of_uint8(numpy.zeros((1, 64, 64, 3), numpy.uint8), (Prompt("a"),)))
    found = None
except BaseException as error:
    found = [[kind.__name__ for kind in type(error).__mro__], str(error)]
print("\\n" + json.dumps(found))
"""


@check("card")
def light_listing(subject: Subject) -> str | None:
    """The module of the card imports nothing heavy (torch, transformers, Pillow, NumPy, …), so that listing stays fast."""
    entry = rewards.entries().get(subject.card.id, [None])[0]
    if entry is None or subject.text != subject.card.id:
        raise NotApplicable("it has no entry point, so no listing imports it")
    module = entry.source.module if isinstance(entry.source, EntryPoint) else "ddpo.rewards.cards"
    loaded = _last_line(LIST, [module, HEAVY], {})
    if loaded:
        raise Fault(
            f"importing {module} loads {', '.join(loaded)}: put the card into a module of its own"
        )
    return f"{module} is light"


@check("card")
def missing_weights(subject: Subject) -> str | None:
    """Without its weights and without a network it says on one line what is missing (`MissingResourceError`)."""
    if not subject.card.weights:
        raise NotApplicable("it needs no weights")
    if all(weight.source.startswith("package:") for weight in subject.card.weights):
        raise NotApplicable("its weights are inside an installed package")
    with tempfile.TemporaryDirectory() as empty:
        places = dict.fromkeys(("DDPO_CACHE", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"), empty)
        environment = {
            **places,
            "DDPO_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        found = _last_line(MAKE, subject.text or subject.card.load, environment)
    if found is None:
        raise Fault(
            "it is made and scores without its weights: the card lists files that it does not load"
        )
    kinds, message = found
    if MissingResourceError.__name__ not in kinds:
        raise Fault(
            f"raises {kinds[0]} instead of MissingResourceError: {' '.join(message.split())[:200]}"
        )
    if not message.strip() or "\n" in message.strip():
        raise Fault(
            f"the message has {len(message.splitlines())} lines instead of one: {' '.join(message.split())[:200]}"
        )
    return str(message)


def _last_line(script: str, argument: object, environment: dict[str, str]) -> Any:
    """The JSON value that `script` prints last, in a Python that finds the same modules as this one."""
    path = os.pathsep.join([os.getcwd() if place == "" else place for place in sys.path])
    done = subprocess.run(  # noqa: S603  # this Python, with a script of this file
        [sys.executable, "-c", script, json.dumps(argument)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **environment},
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise Fault(
            f"a fresh Python process ended with {done.returncode}: {lines[-1] if lines else 'no message'}"
        )
    return json.loads(done.stdout.splitlines()[-1])


CHECKS = (light_listing, missing_weights)
