"""The settings of a run, resolved from family, algorithm, recipe and options, with their sources.

the embedded model's defaults      `ddpo.trainer.config`
< the recipe of the model's family `ddpo.recipes`, below the algorithm's own values
< the algorithm's own values       `Algorithm.defaults`
< the family's for that algorithm  tables `[algorithms.NAME]` of the family's recipe
< the user's own values             a recipe, options, `--set`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ddpo.devices import AUTO, accelerator, fast_dtype, resolve_device
from ddpo.errors import ConfigError
from ddpo.policies.family import FAMILIES, family_of
from ddpo.recipes import read_builtin
from ddpo.trainer.algorithms import load_algorithm
from ddpo.trainer.config import SampleConfig, TrainConfig
from ddpo.trainer.independent import independent_judge
from ddpo.trainer.monitoring.events import Finding
from ddpo.trainer.recipe import config_from_dict, merged

__all__ = ["GIVEN", "config_for", "resolve_config", "settings_finding", "written_config"]

GIVEN: Final = "given"
"""Source of values that a caller of `config_for` passes."""

SHOWN: Final = (
    "sample.steps",
    "sample.guidance",
    "sample.samples",
    "sample.batch",
    "optim.lr",
    "optim.updates",
    "optim.clip_range",
    "adapt.kind",
    "adapt.rank",
    "dtype",
)
"""The settings that the checks print: those that differ most from model to model."""

Layer = tuple[str, Mapping[str, Any]]
"""Words for the source of some values, and the values."""


def config_for(values: Mapping[str, Any]) -> TrainConfig:
    """The settings of a run from plain nested values, such as those of a recipe.

    A value that is left out comes from the recipe of the model's family and from the algorithm.

    Raises:
        ConfigError: a key is unknown (names the nearest), or a value is of a wrong type or out of
            range.
        UnknownNameError, RewardLoadError: the algorithm is unknown or broken.
    """
    return resolve_config([(GIVEN, values)])


def resolve_config(layers: Sequence[Layer]) -> TrainConfig:
    """The settings of a run from the user's layers.

    `dtype = "auto"` becomes the precision that suits the device. `sample.batch = "auto"` becomes
    the largest batch that fits on an accelerator, which is measured. On the CPU it becomes the
    number of the layers below. A layer's table `algorithms.NAME` counts if NAME is the algorithm of
    the run, above the rest of the layer.

    Args:
        layers: the words for each layer's source, and its values; lowest first.

    Raises:
        ConfigError: a key is unknown (names the nearest), or a value is of a wrong type or out of
            range.
        UnknownNameError, RewardLoadError: the algorithm is unknown or broken.
    """
    values, sources, everything = _combined(layers)
    if values.get("dtype") == AUTO:
        device = str(values.get("device", TrainConfig().device))
        values["dtype"] = fast_dtype(accelerator() or "cpu" if device == AUTO else device)
    if _batch(values) == AUTO:
        values["sample"] = values["sample"] | {"batch": _written_batch(everything)}
        sources["sample.batch"] = AUTO
    config = config_from_dict(values)
    if sources.get("sample.batch") == AUTO and resolve_device(config.device) != "cpu":
        from ddpo.trainer.batch_size import largest_batch

        config = replace(config, sample=replace(config.sample, batch=largest_batch(config)))
    return replace(config, sources=_complete(config, sources))


def written_config(layers: Sequence[Layer]) -> TrainConfig:
    """The settings of the user's layers before this machine is examined; torch is not imported.

    An "auto" of `dtype` becomes float32, and one of `sample.batch` the number of the layers below.

    Raises:
        ConfigError, UnknownNameError, RewardLoadError: as `resolve_config`.
    """
    values, _, everything = _combined(layers)
    if values.get("dtype") == AUTO:
        values["dtype"] = "float32"
    if _batch(values) == AUTO:
        values["sample"] = values["sample"] | {"batch": _written_batch(everything)}
    return config_from_dict(values)


def _combined(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str], list[Layer]]:
    """The merged values of family, algorithm and user, their sources, and all layers.

    The held-out reward of a family's recipe gives way to one that is independent of the trained
    reward.
    """
    given: dict[str, Any] = {}
    for _, values in layers:
        given = merged(given, values)
    defaults = TrainConfig()
    name = str(given.get("algorithm", defaults.algorithm))
    algorithm, _ = load_algorithm(name)
    family = family_of(str(given.get("model", defaults.model)))
    below, above = _split(read_builtin(family), name) if family else ({}, {})
    everything: list[Layer] = [
        (f"recipe {family}", below),
        (f"algorithm {name}", algorithm.defaults),
        (f"recipe {family}", above),
    ]
    for source, values in layers:
        common, own = _split(values, name)
        everything += [(source, common), (source, own)]
    values, sources = _layered(everything)
    if values.get("held_out") and sources["held_out"] == f"recipe {family}":
        reward = str(values.get("reward", defaults.reward))
        values["held_out"] = independent_judge(values["held_out"], reward)
    return values, sources, everything


def _written_batch(layers: Sequence[Layer]) -> Any:
    """The highest layer's `sample.batch` that is not "auto", else the default."""
    written = [_batch(layer) for _, layer in layers]
    numbers = [batch for batch in written if batch not in (AUTO, None)]
    return numbers[-1] if numbers else SampleConfig().batch


def _batch(values: Mapping[str, Any]) -> Any:
    """`sample.batch` of plain nested values; None without one."""
    sample = values.get("sample")
    return sample.get("batch") if isinstance(sample, Mapping) else None


def _split(values: Mapping[str, Any], algorithm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings for any algorithm, and those of the table of this one.

    Raises:
        ConfigError: `algorithms` is not a table of tables.
    """
    common = {name: value for name, value in values.items() if name != "algorithms"}
    tables = values.get("algorithms", {})
    own = tables.get(algorithm, {}) if isinstance(tables, Mapping) else None
    if not isinstance(own, Mapping):
        raise ConfigError(
            f"setting 'algorithms' must hold a table for each algorithm, got {tables!r}"
        )
    return common, dict(own)


def _layered(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """The merged layers, and the source of each value by setting, such as "optim.lr"."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        values = merged(values, layer)
        sources |= {name: source for name, _ in _flat(layer)}
    return values, sources


def _complete(config: TrainConfig, sources: Mapping[str, str]) -> dict[str, str]:
    """The source of every setting, in the order of the configuration."""
    settings = _flat(replace(config, sources={}).to_dict())
    return {name: sources.get(name, "default") for name, _ in settings}


def settings_finding(config: TrainConfig) -> Finding:
    """The settings that matter most, their recipe, and the names of those that the user gave."""
    values = dict(_flat(config.to_dict()))
    shown = ", ".join(f"{name.rpartition('.')[2]} {_plain(values[name])}" for name in SHOWN)
    vetted = [source for source in config.sources.values() if source.startswith("recipe ")]
    families = [family for family in FAMILIES if f"recipe {family}" in vetted]
    own = sorted({name for name, source in config.sources.items() if _of_the_user(source)})
    yours = f"; given: {', '.join(own)}" if own else ""
    if families or not config.sources:
        others = sorted(set(vetted) - {f"recipe {family}" for family in families})
        named = [f"recipe {family} ({FAMILIES[family]})" for family in families]
        origin = f"{', then '.join([*named, *others])}: " if named or others else ""
        return Finding("settings", f"{origin}{shown}{yours}")
    text = (
        f"no settings are known for the model {config.model!r}: those of the embedded model "
        f"stand in where nothing was given ({shown}{yours})"
    )
    return Finding("settings", text, good=False)


def _of_the_user(source: str) -> bool:
    """True for a source that is the user's own."""
    return source.startswith("--") or source == GIVEN


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Settings of nested values, under names such as "optim.lr"."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value
