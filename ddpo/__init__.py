"""A reward-model zoo, a DDPO trainer and an evaluation toolkit for text-to-image diffusion models.

Importing this package loads no torch; the rooms are `ddpo.rewards`, `ddpo.policies`, `ddpo.trainer` and `ddpo.eval`.
"""

from ddpo.old_names import install as _install_old_names

__version__ = "0.1.0"
__all__ = ["__version__"]

_install_old_names()
