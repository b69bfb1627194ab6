"""Scores in the forms that users' functions return: alone, with information, or several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ddpo.errors import ContractBroken

__all__ = ["numbers_per_image", "score_list", "scores_and_info"]

TOTAL: Final = "avg"  # key of the weighted sum in the scores of flow_grpo's `multi_score`


def score_list(returned: Any, count: int) -> Sequence[float | None]:
    """The scores of one call of the function; None marks an image without one.

    Args:
        returned: scores as the function returned them.
        count: number of images.

    Raises:
        ContractBroken: They are not one number per image.
    """
    if callable(returned):
        raise ContractBroken(
            "the function returned a function: if that is the reward, write "
            "`reward = …()` in the file and name `reward`"
        )
    try:
        scores = [None if score is None else float(score) for score in returned]
    except (TypeError, ValueError) as error:
        raise ContractBroken(
            f"the function must return one number per image, got {_kind(returned)} ({error})"
            f"{_advice(returned)}"
        ) from error
    if len(scores) != count:
        raise ContractBroken(
            f"the function returned {len(scores)} scores for {count} images{_advice(returned)}"
        )
    return scores


def scores_and_info(returned: Any, count: int) -> tuple[Any, Mapping[str, Any]]:
    """The scores and the information of `(scores, info)`; scores alone have no information.

    Args:
        returned: result of the function; also an object with `rewards`, as in Flow-Factory, or the
            scores with a list of the images' metadata.
        count: number of images.

    Raises:
        ContractBroken: The scores are a dictionary without a total.
    """
    info: Any = {}
    if hasattr(returned, "rewards") and not isinstance(returned, Mapping):
        info = getattr(returned, "extra_info", None)
        returned = returned.rewards
    elif isinstance(returned, tuple) and len(returned) == 2 and _is_info(returned, count):
        returned, info = returned
    details: Mapping[str, Any] = info if isinstance(info, Mapping) else {}
    if isinstance(returned, Mapping):
        if TOTAL not in returned:
            raise ContractBroken(
                f"the function returned several scores ({', '.join(map(str, returned))}): "
                f"return one number per image, or their total as {TOTAL!r}"
            )
        others = {name: values for name, values in returned.items() if name != TOTAL}
        return returned[TOTAL], {**details, **others}
    return returned, details


def _is_info(pair: tuple[Any, Any], count: int) -> bool:
    """True if the second of two values is information about the first, not a score."""
    scores, info = pair
    if isinstance(info, Mapping):
        return True
    several = isinstance(scores, Mapping) or _length(scores) == count
    listed = isinstance(info, list | tuple) and all(isinstance(each, Mapping) for each in info)
    return several and (info is None or listed)


def _length(scores: Any) -> int:
    """The length of a list or array; -1 for one number."""
    try:
        return len(scores)
    except TypeError:  # also a tensor or array without axes
        return -1


def numbers_per_image(info: Mapping[str, Any], count: int) -> dict[str, list[float]]:
    """The entries of the information that hold one number per image."""
    found = {}
    for name, values in info.items():
        try:
            numbers = [float(value) for value in values]
            numbers = [number if math.isfinite(number) else math.nan for number in numbers]
        except (TypeError, ValueError):
            continue
        if len(numbers) == count:
            found[str(name)] = numbers
    return found


def _kind(returned: Any) -> str:
    return type(returned).__name__


def _advice(returned: Any) -> str:
    """Advice on a tuple, which other trainers take; "" for other results."""
    if not isinstance(returned, tuple):
        return ""
    kinds = ", ".join(_kind(each) for each in returned[:5])
    return f"; of the tuple ({kinds}) return the scores alone, or (scores, dictionary)"
