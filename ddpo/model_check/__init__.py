"""The conformance kit for models, which tests whether a policy keeps its promises.

Authors of policies use it as a function, as tests of pytest, and as a command.

    from ddpo.model_check import check_model, model_tests

Importing it loads neither torch nor pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpo.rewards.check.definition import CheckResult

if TYPE_CHECKING:
    from ddpo.model_check.run import check_model, iter_results, model_tests

__all__ = ["CheckResult", "check_model", "iter_results", "model_tests"]


def __getattr__(name: str) -> Any:
    """The functions of `ddpo.model_check.run`, which imports torch."""
    if name not in __all__:
        raise AttributeError(name)
    from ddpo.model_check import run

    return getattr(run, name)
