"""The page of `ddpo label`: its requests, and images without any trace of their model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from PIL import Image

from ddpo.images import load_image
from ddpo.labelling.session import Session
from ddpo.web.frame import json_body, new_app

__all__ = ["blind_png", "make_app"]

STATIC: Final = Path(__file__).parent / "static"


def make_app(session: Session, folder: Path, token: str, rater: str | None) -> FastAPI:
    """The application of one labelling.

    Args:
        session: its state.
        folder: folder that image paths are relative to.
        token: secret of the address.
        rater: name that the page begins with; None to ask for it.
    """
    app = new_app("ddpo label", STATIC, token)

    def settings() -> dict[str, Any]:
        return {"rater": rater, "total": session.total, "raters": session.progress()}

    async def show(request: Request) -> dict[str, Any]:
        body = await json_body(request)
        return await run_in_threadpool(session.show, body.get("rater"), body.get("place"))

    async def answer(request: Request) -> dict[str, Any]:
        body = await json_body(request)
        given = (body.get(name) for name in ("rater", "place", "choice", "seconds"))
        await run_in_threadpool(session.answer, *given)
        return await run_in_threadpool(session.show, body.get("rater"))

    def image(token: str) -> Response:
        found = session.image(token)
        if found is None:
            return JSONResponse({"error": "there is no such image"}, 404)
        pair, letter = found
        first, second = pair.files(folder)
        own, other = (first, second) if letter == "a" else (second, first)
        return Response(blind_png(own, other), media_type="image/png")

    app.add_api_route("/settings", settings, methods=["GET"])
    app.add_api_route("/show", show, methods=["POST"])
    app.add_api_route("/answer", answer, methods=["POST"])
    app.add_api_route("/image/{token}", image, methods=["GET"])
    return app


def blind_png(path: Path, partner: Path) -> bytes:
    """An image as PNG without metadata, on a canvas that has room for its partner.

    Both images of a pair get one size: the smaller one is enlarged until it fits the canvas, and
    centred on a transparent ground where its shape differs.

    Args:
        path: file of the image.
        partner: file of the other image of the pair.

    Raises:
        ImageError: a file is missing or damaged.
    """
    image = load_image(path)
    other = load_image(partner)
    canvas = (max(image.width, other.width), max(image.height, other.height))
    if image.size != canvas:
        scale = min(canvas[0] / image.width, canvas[1] / image.height)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    plain = Image.new("RGBA", canvas)
    plain.paste(image, ((canvas[0] - image.width) // 2, (canvas[1] - image.height) // 2))
    buffer = io.BytesIO()
    plain.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
