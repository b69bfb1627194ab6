"""One number per image from whatever a user's function returns."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from ddpo.errors import ContractBroken

__all__ = ["numbers_per_image", "scores_and_info", "scores_per_image"]

TOTAL: Final = "avg"  # key of the weighted sum in the scores of flow_grpo's `multi_score`
TEXTS: Final = (str, bytes, bytearray)
UNORDERED: Final = (set, frozenset, Mapping)


def scores_and_info(returned: Any) -> tuple[Any, Mapping[str, Any]]:
    """The scores and the information of `(scores, info)`; scores alone have no information.

    Raises:
        ContractBroken: The scores are a dictionary of several without a total.
    """
    info: Mapping[str, Any] = {}
    if hasattr(returned, "rewards") and not isinstance(returned, Mapping):  # of Flow-Factory
        given = getattr(returned, "extra_info", None)
        info = given if isinstance(given, Mapping) else {}
        returned = returned.rewards
    elif isinstance(returned, tuple) and len(returned) == 2 and _is_info(*returned):
        returned, given = returned
        info = given if isinstance(given, Mapping) else _columns(given or ())
    if not isinstance(returned, Mapping):
        return returned, info
    if TOTAL not in returned and len(returned) == 1:
        return next(iter(returned.values())), info
    if TOTAL not in returned:
        raise ContractBroken(
            f"the function returned several scores ({', '.join(map(str, returned))}): "
            f"return one number per image, or their total as {TOTAL!r}"
        )
    others = {name: values for name, values in returned.items() if name != TOTAL}
    return returned[TOTAL], {**info, **others}


def _is_info(scores: Any, info: Any) -> bool:
    """True if the second of two returned values is information and not the score of an image."""
    if isinstance(info, Mapping):
        return True
    several = hasattr(scores, "__len__") or isinstance(scores, Iterator)
    if info is None:
        return several
    rows = isinstance(info, list | tuple) and len(info) > 0
    return several and rows and all(isinstance(row, Mapping) for row in info)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Information of each image, as TRL returns it, by name."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def scores_per_image(returned: Any, count: int) -> list[float | None]:
    """The scores of one call of the function; None for an image that cannot be scored.

    Args:
        returned: List, tuple, array, tensor, series or generator of numbers. An array may have a
            second axis of length 1.
        count: Number of images.

    Raises:
        ContractBroken: The function returned anything else; the message has the change to make.
    """
    given = returned
    kind = type(returned).__name__
    _refuse_other_kinds(returned, kind, count)
    if isinstance(returned, Iterator):
        returned = list(islice(returned, count + 1))
    else:
        returned = _plain(returned)
    try:
        scores = [None if score is None else _number(score) for score in returned]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ContractBroken(
            f"the function must return one number per image, got {kind} ({error}){_advice(given)}"
        ) from error
    if len(scores) != count:
        raise ContractBroken(
            f"the function returned {len(scores)} scores for {count} images{_advice(given)}"
        )
    return scores


def _advice(returned: Any) -> str:
    """Advice on a tuple, which other trainers take; "" for other results."""
    if not isinstance(returned, tuple):
        return ""
    kinds = ", ".join(type(each).__name__ for each in returned[:5])
    return f"; of the tuple ({kinds}) return the scores alone, or (scores, dictionary)"


def _refuse_other_kinds(returned: Any, kind: str, count: int) -> None:
    """Refuses what has no order, no numbers, or not one number per image.

    Raises:
        ContractBroken: It is of such a kind.
    """
    rule = "the function must return one number per image"
    if callable(returned):
        raise ContractBroken(
            "the function returned a function: if that is the reward, write "
            "`reward = …()` in the file and name `reward`"
        )
    if inspect.iscoroutine(returned):
        returned.close()
        raise ContractBroken(f"{rule}, got a coroutine: await it inside, with asyncio.run(…)")
    if returned is None:
        raise ContractBroken(f"{rule}, got None: end the function with `return scores`")
    if isinstance(returned, TEXTS):
        raise ContractBroken(f"{rule}, got {kind}: convert the text to numbers")
    if isinstance(returned, UNORDERED):
        raise ContractBroken(f"{rule}, got {kind}, which has no order: return a list")
    shape = tuple(getattr(returned, "shape", ()))
    if len(shape) > 1 and tuple(shape[1:]) != (1,):
        size = "×".join(map(str, shape))
        raise ContractBroken(f"{rule}, got {kind} of {size}: average all axes but the first")
    is_number = not hasattr(returned, "__len__") and hasattr(returned, "__float__")
    if not shape and (is_number or hasattr(returned, "shape")):
        advice = "average over the axes of an image"
        raise ContractBroken(f"{rule}, got {kind}, one number for {count} images: {advice}")


def _plain(returned: Any) -> Any:
    """Python's own numbers of an array, tensor or series; other objects as they are."""
    if hasattr(returned, "to_numpy"):  # pandas
        returned = returned.to_numpy()
    if hasattr(returned, "detach"):
        returned = returned.detach().cpu()
    if len(getattr(returned, "shape", ())) > 1:
        returned = returned.reshape(-1)
    return returned.tolist() if hasattr(returned, "tolist") else returned


def _number(score: Any) -> float:
    """The score of an image as a number.

    Raises:
        TypeError: It is no number.
        ValueError: It is an array of several numbers.
    """
    if isinstance(score, TEXTS):
        raise TypeError(f"{score[:40]!r} is a text: convert it to a number")
    return float(score.item() if hasattr(score, "item") else score)


def numbers_per_image(info: Mapping[str, Any], count: int) -> dict[str, list[float]]:
    """The entries of the information that hold one number per image."""
    found = {}
    for name, values in info.items():
        try:
            numbers = scores_per_image(values, count)
        except (ContractBroken, TypeError, ValueError):
            continue
        plain = [math.nan if number is None else number for number in numbers]
        found[str(name)] = [number if math.isfinite(number) else math.nan for number in plain]
    return found
