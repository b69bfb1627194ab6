"""The shapes of a denoiser's weights, from the headers of its files."""

from __future__ import annotations

from ddpo.policies.base_model import model_folder
from ddpo.policies.model_files import weight_files
from ddpo.policies.model_place import place_of
from ddpo.policies.pipelines import denoiser_folder

__all__ = ["layer_shapes"]


def layer_shapes(word: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights of a denoiser by layer; {} for a model that is not on this machine.

    Only the headers of its files are read.

    Raises:
        CheckpointError: A weight file is damaged.
        MissingResourceError: Weight files are missing or damaged.
    """
    from ddpo.io.tensors import opened_tensors

    place = place_of(word)
    if place is None or place.kind not in ("name", "folder"):
        return {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(denoiser_folder(model_folder(word))).paths:
        with opened_tensors(path) as file:
            for name in file.keys():  # noqa: SIM118  # it does not iterate
                shape = file.get_slice(name).get_shape()
                shapes[name.removesuffix(".weight")] = tuple(shape)
    return shapes
