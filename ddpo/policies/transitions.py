"""The words for transitions and grids of noise levels, and the η that each transition allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from ddpo.errors import ConfigError
from ddpo.ranges import Range

__all__ = [
    "AUTO",
    "ETA_OF",
    "FLOW_TRANSITIONS",
    "GRIDS",
    "TRANSITIONS",
    "GridWord",
    "Transition",
    "check_eta",
    "check_words",
]

AUTO: Final = "auto"
"""The model's own: DDIM for a U-Net, Flow-SDE on the grid of its pipeline for a flow model."""

Transition = Literal["auto", "ddim", "flow_sde", "dance_sde", "cps", "ode"]
GridWord = Literal["auto", "diffusers", "linspace"]
TRANSITIONS: Final = ("auto", "ddim", "flow_sde", "dance_sde", "cps", "ode")
FLOW_TRANSITIONS: Final = ("flow_sde", "dance_sde", "cps", "ode")
GRIDS: Final = ("auto", "diffusers", "linspace")

ETA_OF: Final = {
    "auto": Range(low=0, high=1),
    "ddim": Range(low=0, high=1),
    "flow_sde": Range(low=0, high=2),
    "dance_sde": Range(low=0, high=2),
    "cps": Range(low=0, high=1),
}
"""Stochasticity that each transition with noise allows."""


def check_words(transition: str, grid: str, table: str = "") -> None:
    """Raises unless a transition and a grid are known.

    Args:
        transition: One of `TRANSITIONS`.
        grid: One of `GRIDS`.
        table: Prefix of the names in errors, such as "sample.".

    Raises:
        ConfigError: One of them is unknown.
    """
    for name, value, known in (
        ("transition", transition, TRANSITIONS),
        ("grid", grid, GRIDS),
    ):
        if value not in known:
            words = f"{', '.join(known[:-1])} or {known[-1]}"
            raise ConfigError(f"{table}{name} must be {words}, got {value!r}")


def check_eta(transition: str, eta: float, table: str = "", above: bool = False) -> None:
    """Raises unless a transition allows an η.

    Args:
        transition: One of `TRANSITIONS`.
        eta: Stochasticity of the steps.
        table: Prefix of the names in errors, such as "sample.".
        above: True if a transition with noise must have some.

    Raises:
        ConfigError: η is out of the transition's range, or not 0 for one without noise.
    """
    if transition == "ode":
        if eta != 0:
            raise ConfigError(
                f"{table}eta = {eta:g} has no effect with {table}transition = 'ode', "
                "which adds no noise: give 0"
            )
        return
    replace(ETA_OF[transition], above=above).checked(f"{table}eta", eta)
