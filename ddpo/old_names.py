"""Module names of earlier versions, under which other people's code still finds the modules.

A finder on `sys.meta_path` serves them, so that an old name costs nothing before it is imported.
The module is the very object of the new name. Classes and functions with a new name keep the old
one as an assignment in their own module.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["MOVED", "install"]

MOVED = {
    "ddpo.eval.agreement": "ddpo.reward_quality.agreement",
    "ddpo.eval.best_of_n": "ddpo.stats.best_of_n",
    "ddpo.eval.bootstrap": "ddpo.stats.bootstrap",
    "ddpo.eval.calibration": "ddpo.stats.bradley_terry",
    "ddpo.eval.comparison": "ddpo.reward_quality.comparison",
    "ddpo.eval.disagreement_sheet": "ddpo.reward_quality.disagreement_sheet",
    "ddpo.eval.edits": "ddpo.reward_quality.edits",
    "ddpo.eval.estimate": "ddpo.stats.estimate",
    "ddpo.eval.preference_file": "ddpo.reward_quality.preference_file",
    "ddpo.eval.preferences": "ddpo.reward_quality.preferences",
    "ddpo.eval.request": "ddpo.eval.config",
    "ddpo.eval.sensitivity": "ddpo.reward_quality.sensitivity",
    "ddpo.eval.stats": "ddpo.stats.paired",
    "ddpo.eval.tie_conventions": "ddpo.stats.pairwise",
    "ddpo.files": "ddpo.io.atomic",
    "ddpo.loading": "ddpo.user_code",
    "ddpo.policies.base_view": "ddpo.policies.denoising_probe",
    "ddpo.policies.checkpoint": "ddpo.policies.checkpoints.folder",
    "ddpo.policies.divergence": "ddpo.policies.kl",
    "ddpo.policies.emoji.architecture": "pretraining.architecture",
    "ddpo.policies.emoji.tokenizer": "pretraining.tokenizer",
    "ddpo.policies.foreign": "ddpo.policies.checkpoints.external",
    "ddpo.policies.sample": "ddpo.policies.sampler",
    "ddpo.policies.sd": "ddpo.policies.stable_diffusion",
    "ddpo.rewards.availability": "ddpo.rewards.tools.availability",
    "ddpo.rewards.backbones": "ddpo.rewards.models.shared_encoders",
    "ddpo.rewards.bench": "ddpo.rewards.tools.bench",
    "ddpo.rewards.catalog": "ddpo.rewards.cards",
    "ddpo.rewards.compose": "ddpo.rewards.scoring.compose",
    "ddpo.rewards.doctor": "ddpo.rewards.tools.doctor",
    "ddpo.rewards.function": "ddpo.rewards.scoring.user_function",
    "ddpo.rewards.linear": "ddpo.rewards.models.onednn_linear",
    "ddpo.rewards.reference": "ddpo.rewards.scoring.standardise",
    "ddpo.rewards.resolved": "ddpo.rewards.scoring.resolve",
    "ddpo.rewards.scored_files": "ddpo.rewards.image_files",
    "ddpo.rewards.scorer": "ddpo.rewards.scoring.scorer",
    "ddpo.tensorfile": "ddpo.io.tensors",
    "ddpo.trainer.events": "ddpo.trainer.monitoring.events",
    "ddpo.trainer.export": "ddpo.trainer.run.export",
    "ddpo.trainer.plan": "ddpo.trainer.minibatches",
    "ddpo.trainer.run_folder": "ddpo.trainer.run.folder",
    "ddpo.trainer.tracking": "ddpo.trainer.monitoring.tracking",
}
"""Old module → new module; modules inside a moved package move with it.

`pretraining` is part of a checkout, not of the installed package.
"""


class _OldNames:
    """Finder and loader of old module names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of an old name; None for any other."""
        if not name.startswith("ddpo.") or _new_name(name) is None:
            return None
        return ModuleSpec(name, self)  # type: ignore[arg-type]  # importlib.abc is not loaded

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """None: the import system makes a module, which `exec_module` replaces."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Puts the module of the new name in the place of `module`."""
        old = module.__name__
        new = _new_name(old)
        if new is None:
            raise ImportError(f"{old} has no new name")
        warnings.warn(f"{old} is now called {new}", DeprecationWarning, stacklevel=2)
        sys.modules[old] = importlib.import_module(new)


def _new_name(name: str) -> str | None:
    """The new name of a module, or of a module inside a moved package; None if it has none."""
    parts = name.split(".")
    for end in range(len(parts), 1, -1):
        package = ".".join(parts[:end])
        if package in MOVED:
            return ".".join([MOVED[package], *parts[end:]])
    return None


def install() -> None:
    """Lets imports of this process find old names; a second call changes nothing."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OldNames())
