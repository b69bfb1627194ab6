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
from ddpo.io.atomic import printable
from ddpo.io.json_files import JsonError, parse_json
from ddpo.rewards.card import RewardCard
from ddpo.text import shortened
from ddpo.types import Context, ImageBatch, Prompt, RewardOutput

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "CALL_SECONDS",
    "FLOAT_COST",
    "MOST_IMAGES",
    "MOST_VALUES",
    "WIRE_VERSION",
    "Limits",
    "Refused",
    "Request",
    "decode_batch",
    "decode_output",
    "encode_batch",
    "encode_output",
    "parse_request",
]

WIRE_VERSION: Final = 1
CALL_SECONDS: Final = 120.0
"""Time limit of a call of the reward on the server, and of a request of the client."""
MOST_IMAGES: Final = 4096  # per request
MOST_CHARACTERS: Final = 32_768  # of a prompt
MOST_VALUES: Final = 1_000_000  # of the JSON; each takes some 100 bytes of memory
MOST_REASON: Final = 500  # characters of an error
MOST_PARTS: Final = 256
FLOAT_COST: Final = 4  # float32 pixels take four times the memory of bytes


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


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose images are not unpacked yet.

    Attributes:
        pixels: height times width, summed over the images.
        cost: pixels of bytes that take as much memory as the unpacked images.
    """

    prompts: tuple[Prompt, ...]
    context: Context
    images: tuple[Image.Image, ...]  # opened PNG files; empty where `floats` is the content
    floats: tuple[tuple[int, ...], bytes] | None  # shape, little-endian float32

    @property
    def pixels(self) -> int:
        if self.floats is not None:
            batch, _, height, width = self.floats[0]
            return batch * height * width
        return sum(image.width * image.height for image in self.images)

    @property
    def cost(self) -> int:
        return self.pixels * (1 if self.floats is None else FLOAT_COST)

    def unpack(self) -> ImageBatch:
        """The images and prompts.

        Raises:
            Refused: The images are malformed (400).
        """
        try:
            if self.floats is None:
                images = [_unpacked(place, image) for place, image in enumerate(self.images)]
                return ImageBatch.of_images(images, self.prompts, self.context)
            return _float_batch(*self.floats, self.prompts, self.context)
        except Refused:
            raise
        except UserError as error:
            raise Refused(400, one_line(error)) from error


def decode_batch(body: bytes, limits: Limits) -> ImageBatch:
    """The images and prompts of a request; raises as `parse_request` and `Request.unpack`."""
    return parse_request(body, limits).unpack()


def parse_request(body: bytes, limits: Limits) -> Request:
    """The request, of whose images only the headers are read.

    Raises:
        Refused: The request is malformed (400) or beyond `limits` (413).
    """
    request = _read_json(body)
    if request.get("api") != WIRE_VERSION:
        raise Refused(
            400,
            f"this server speaks version {WIRE_VERSION} of the API, "
            f"the request is of version {shortened(repr(request.get('api')))}",
        )
    prompts = _prompts(request.get("prompts"))
    context = _context(request.get("progress"))
    images, floats = (request.get(key) for key in ("pictures", "floats"))
    if (images is None) == (floats is None):
        raise Refused(400, 'the request must hold either "pictures" or "floats"')
    if floats is not None:
        return Request(prompts, context, (), _floats(floats, limits))
    return Request(prompts, context, _opened(images, limits), None)


def _read_json(body: bytes) -> dict[str, Any]:
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise Refused(413, f"the body has more than {MOST_VALUES} values")
    try:
        request = parse_json(body)
    except JsonError as error:
        raise Refused(400, f"the body is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise Refused(400, f"the body must be a JSON object, not a {type(request).__name__}")
    return request


def _prompts(found: Any) -> tuple[Prompt, ...]:
    if not isinstance(found, list):
        raise Refused(400, '"prompts" must be a list')
    _check_count(found)
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
        if len(text) > MOST_CHARACTERS:
            raise Refused(413, f"prompt {place} has more than {MOST_CHARACTERS} characters")
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


def _check_count(images: Sequence[Any]) -> None:
    if len(images) > MOST_IMAGES:
        raise Refused(413, f"the request has more than {MOST_IMAGES} images")


def _opened(found: Any, limits: Limits) -> tuple[Image.Image, ...]:
    """The images of a request by their headers."""
    from PIL import Image

    from ddpo.image_opening import open_image

    if not isinstance(found, list):
        raise Refused(400, '"pictures" must be a list')
    _check_count(found)
    images = []
    pixels = 0
    for place, text in enumerate(found):
        data = io.BytesIO(_bytes(text, f"image {place}"))
        try:
            image = open_image(data, ("PNG",))  # reads only the header
        except (Image.DecompressionBombError, ImageError) as error:
            raise Refused(413, f"image {place} is too large: {one_line(error)}") from error
        except Exception as error:  # Pillow documents no list of exceptions for damaged files
            raise Refused(400, f"image {place} is not a PNG that can be read") from error
        pixels += image.width * image.height
        _check_pixels(pixels, limits)
        if image.mode != "RGB":
            raise Refused(
                400, f"image {place} must be RGB with 8 bits per channel, not {image.mode}"
            )
        images.append(image)
    return tuple(images)


def _unpacked(place: int, image: Image.Image) -> Image.Image:
    """The pixels alone, without comments and profiles, which may change the size of a file."""
    import numpy as np
    from PIL import Image

    try:
        image.load()
    except Exception as error:  # as in `_opened`
        raise Refused(400, f"image {place} is not a PNG that can be read") from error
    if image.mode != "RGB":
        raise Refused(400, f"image {place} must be RGB with 8 bits per channel, not {image.mode}")
    pixels = np.asarray(image)
    image.close()
    return Image.fromarray(pixels)


def _floats(found: Any, limits: Limits) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes of float pixels."""
    shape = found.get("shape") if isinstance(found, dict) else None
    if (
        not isinstance(shape, list)
        or len(shape) != 4
        or not all(type(length) is int and length > 0 for length in shape)
        or shape[1] != 3
    ):
        raise Refused(400, '"floats" must have the "shape" [batch, 3, height, width]')
    if shape[0] > MOST_IMAGES:
        raise Refused(413, f"the request has more than {MOST_IMAGES} images")
    _check_pixels(shape[0] * shape[2] * shape[3], limits)
    data = _bytes(found.get("data"), '"data" of "floats"')
    if len(data) != 4 * math.prod(shape):
        raise Refused(
            400, f"floats of shape {shape} take {4 * math.prod(shape)} bytes, got {len(data)}"
        )
    return tuple(shape), data


def _float_batch(
    shape: tuple[int, ...], data: bytes, prompts: Sequence[Prompt], context: Context
) -> ImageBatch:
    import numpy as np
    import torch

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
        "errors": [error and shortened(error, MOST_REASON) for error in output.errors],
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
        if not isinstance(found, list) or len(found) != count:
            raise ValueError(f"a column is not a list of {count} scores")
        return torch.tensor([_from_json(value) for value in found], dtype=torch.float32)

    if isinstance(reply.get("values"), list) and len(reply["values"]) != count:
        raise RewardFailure(f"the server sent {len(reply['values'])} scores for {count} images")
    try:
        if len(reply["parts"]) > MOST_PARTS:
            raise ValueError(f"over {MOST_PARTS} parts")
        values = column(reply["values"])
        parts = {_line(name): column(part) for name, part in reply["parts"].items()}
        errors = tuple(None if error is None else _line(error) for error in reply["errors"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise RewardFailure(f"the server's reply is malformed: {one_line(error)}") from error
    return RewardOutput(values, parts, errors)


def _from_json(value: Any) -> float:
    if value is None:
        return math.nan
    if value in ("inf", "-inf") or (isinstance(value, (int, float)) and type(value) is not bool):
        return float(value)
    raise ValueError(f"{shortened(repr(value))} is not a score")


def _line(text: Any) -> str:
    """A text of the server on one printable line of bounded length."""
    return printable(shortened(str(text), MOST_REASON))
