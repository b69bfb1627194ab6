"""The wire format of served rewards: JSON, with images as PNG or raw float32. Never a pickle.

    request := {"api": 1, "prompts": [{"text": …, "metadata": {…}}, …], "progress": number or null,
                "pictures": [base64 of an RGB PNG, …]
                or "floats": {"shape": [batch, 3, height, width], "data": base64 of <f4}}
    reply   := {"api": 1, "signature": …, "identity": …,
                "values": [number or null, …], "errors": [text or null, …],
                "parts": {name: [number, null for NaN, "inf" or "-inf", …], …}}

A number of JSON is the shortest decimal that reads back as the same float64, so a float32 survives
to the bit.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import ImageError, RewardFailure, UserError, one_line
from ddpo.rewards.card import RewardCard
from ddpo.types import Context, ImageBatch, Prompt, RewardOutput

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "CALL_SECONDS",
    "WIRE_VERSION",
    "Limits",
    "Refused",
    "decode_batch",
    "decode_output",
    "encode_batch",
    "encode_output",
]

WIRE_VERSION: Final = 1
CALL_SECONDS: Final = 120.0
"""Time limit of a call of the reward on the server, and of a request of the client."""


class Refused(UserError):
    """A refused request, with its HTTP status."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


@dataclass(frozen=True, slots=True)
class Limits:
    """Greatest size of one request."""

    body_bytes: int = 128 * 1024 * 1024
    pixels: int = 64 * 1024 * 1024  # height times width, summed over the images


def encode_batch(batch: ImageBatch, card: RewardCard) -> bytes:
    """The request for `batch`.

    Floats are sent only if the reward scores floats and the images are not made of bytes.

    Raises:
        ImageError: A pixel that has to be rounded is not in [0, 1].
        RewardFailure: The metadata of a prompt is not plain JSON.
    """
    needs_metadata = "metadata" in card.inputs
    prompts = [
        {"text": prompt.text, "metadata": dict(prompt.metadata) if needs_metadata else {}}
        for prompt in batch.prompts
    ]
    request: dict[str, Any] = {
        "api": WIRE_VERSION,
        "prompts": prompts,
        "progress": batch.context.progress,
    }
    if card.pixels == "float" and not batch.from_bytes:
        array = batch.pixels.detach().cpu().numpy().astype("<f4", copy=False)
        request["floats"] = {
            "shape": list(array.shape),
            "data": base64.b64encode(array.tobytes()).decode(),
        }
    else:
        request["pictures"] = [base64.b64encode(_png(image)).decode() for image in batch.images]
    try:
        return json.dumps(request, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise RewardFailure(
            f"prompts cannot be sent: their metadata is not plain JSON ({one_line(error)})"
        ) from error


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return data.getvalue()


def decode_batch(body: bytes, limits: Limits) -> ImageBatch:
    """The images and prompts of a request.

    Raises:
        Refused: The request is malformed (400) or has more pixels than `limits` allow (413).
    """
    request = _read_json(body)
    if request.get("api") != WIRE_VERSION:
        raise Refused(
            400,
            f"this server speaks version {WIRE_VERSION} of the API, "
            f"the request is of version {request.get('api')!r}",
        )
    prompts = _prompts(request.get("prompts"))
    context = _context(request.get("progress"))
    images, floats = (request.get(key) for key in ("pictures", "floats"))
    if (images is None) == (floats is None):
        raise Refused(400, 'the request must hold either "pictures" or "floats"')
    try:
        if floats is not None:
            return _float_batch(floats, prompts, context, limits)
        return ImageBatch.of_images(_images(images, limits), prompts, context)
    except Refused:
        raise
    except UserError as error:
        raise Refused(400, one_line(error)) from error


def _read_json(body: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    try:
        request = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {one_line(error)}") from error
    if not isinstance(request, dict):
        raise Refused(400, f"the body must be a JSON object, not a {type(request).__name__}")
    return request


def _prompts(found: Any) -> tuple[Prompt, ...]:
    if not isinstance(found, list):
        raise Refused(400, '"prompts" must be a list')
    prompts = []
    for place, prompt in enumerate(found):
        fields = prompt if isinstance(prompt, dict) else {}
        text = fields.get("text")
        metadata = fields.get("metadata", {})
        if not isinstance(text, str) or not isinstance(metadata, dict):
            raise Refused(
                400,
                f'prompt {place} must be an object with a "text" '
                'and optionally an object "metadata"',
            )
        prompts.append(Prompt(text, metadata))
    return tuple(prompts)


def _context(progress: Any) -> Context:
    if progress is None:
        return Context()
    if (
        isinstance(progress, bool)
        or not isinstance(progress, (int, float))
        or not 0 <= progress <= 1
    ):
        raise Refused(400, '"progress" must be null or a number from 0 to 1')
    return Context(float(progress))


def _bytes(text: Any, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise Refused(400, f"{what} is not base64") from error


def _images(found: Any, limits: Limits) -> list[Image.Image]:
    import numpy as np
    from PIL import Image

    from ddpo.image_opening import open_image

    if not isinstance(found, list):
        raise Refused(400, '"pictures" must be a list')
    images = []
    pixels = 0
    for place, text in enumerate(found):
        data = io.BytesIO(_bytes(text, f"image {place}"))
        try:
            image = open_image(data, ("PNG",))  # reads only the header
            pixels += image.width * image.height
            _check_pixels(pixels, limits)
            image.load()
        except Refused:
            raise
        except (Image.DecompressionBombError, ImageError) as error:
            raise Refused(413, f"image {place} is too large: {one_line(error)}") from error
        except Exception as error:  # the decoder raises many kinds on damaged files
            raise Refused(400, f"image {place} is not a PNG that can be read") from error
        if image.mode != "RGB":
            raise Refused(
                400, f"image {place} must be RGB with 8 bits per channel, not {image.mode}"
            )
        # without comments and profiles, which may change the size of a file
        images.append(Image.fromarray(np.asarray(image)))
    return images


def _float_batch(
    found: Any, prompts: Sequence[Prompt], context: Context, limits: Limits
) -> ImageBatch:
    import numpy as np
    import torch

    shape = found.get("shape") if isinstance(found, dict) else None
    if (
        not isinstance(shape, list)
        or len(shape) != 4
        or not all(type(length) is int and length > 0 for length in shape)
        or shape[1] != 3
    ):
        raise Refused(400, '"floats" must have the "shape" [batch, 3, height, width]')
    _check_pixels(shape[0] * shape[2] * shape[3], limits)
    data = _bytes(found.get("data"), '"data" of "floats"')
    if len(data) != 4 * math.prod(shape):
        raise Refused(
            400, f"floats of shape {shape} take {4 * math.prod(shape)} bytes, got {len(data)}"
        )
    array = np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)  # a writable copy
    return ImageBatch(torch.from_numpy(array), prompts, context)


def _check_pixels(pixels: int, limits: Limits) -> None:
    if pixels > limits.pixels:
        raise Refused(
            413,
            f"the images of the request have over {pixels - 1} pixels together, "
            f"the limit is {limits.pixels}",
        )


def encode_output(output: RewardOutput, signature: str, identity: str) -> dict[str, Any]:
    """The reply with the scores of a request."""
    return {
        "api": WIRE_VERSION,
        "signature": signature,
        "identity": identity,
        "values": [_to_json(value) for value in output.values.tolist()],
        "errors": list(output.errors),
        "parts": {
            name: [_to_json(value) for value in part.tolist()]
            for name, part in output.parts.items()
        },
    }


def _to_json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isfinite(value):
        return value
    return "inf" if value > 0 else "-inf"


def decode_output(reply: Mapping[str, Any], count: int) -> RewardOutput:
    """The scores of a reply.

    Raises:
        RewardFailure: The reply is malformed, or is not for `count` images.
    """
    import torch

    def column(found: Any) -> torch.Tensor:
        return torch.tensor(
            [math.nan if value is None else float(value) for value in found], dtype=torch.float32
        )

    try:
        values = column(reply["values"])
        parts = {str(name): column(part) for name, part in reply["parts"].items()}
        errors = tuple(
            None if error is None else " ".join(str(error).split()) for error in reply["errors"]
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise RewardFailure(f"the server's reply is malformed: {one_line(error)}") from error
    if len(values) != count:
        raise RewardFailure(f"the server sent {len(values)} scores for {count} images")
    return RewardOutput(values, parts, errors)
