"""A reward-model zoo, a DDPO trainer and an evaluation toolkit for text-to-image diffusion models.

Importing it does not load torch. The main packages are `ddpo.rewards`, `ddpo.policies`,
`ddpo.trainer` and `ddpo.eval`.
"""

from ddpo.old_names import install as _install_old_names

__version__ = "0.1.0"
__all__ = ["__version__"]

_install_old_names()
