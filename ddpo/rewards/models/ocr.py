"""Rendered text against the text that the prompt quotes, read by the PP-OCR models of RapidOCR."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddpo.errors import MissingResourceError, one_line
from ddpo.rewards.card import WeightFile
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.guard import OCR_WEIGHTS
from ddpo.rewards.models.ocr_text import letters, spelling, wanted
from ddpo.rewards.models.vlm_reward import Judgement, judge_each
from ddpo.rewards.tools.availability import fetch_weight
from ddpo.rewards.vlm import UnusableAnswer
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["Ocr"]

PARTS: Final = ("exact", "distance", "extra", "flow_grpo")
REASON: Final = 200  # characters of the engine's error that are repeated


def _file(path: str | None, weight: WeightFile) -> Path:
    if path is None:
        return fetch_weight(weight, "ocr")
    if not Path(path).is_file():
        raise MissingResourceError(f"reward 'ocr': there is no model at {path}")
    return Path(path)


def _alphabet(recogniser: Path) -> frozenset[str]:
    """The letters that a recogniser knows, normalised for comparison."""
    session: Any = import_module("onnxruntime").InferenceSession(
        str(recogniser), providers=["CPUExecutionProvider"]
    )
    return frozenset(letters(session.get_modelmeta().custom_metadata_map["character"]))


def _sample() -> Image.Image:
    """An image with a word, on which the engine loads its three models."""
    image = Image.new("RGB", (160, 64), "white")
    ImageDraw.Draw(image).text((80, 32), "TEST", "black", ImageFont.load_default(40), "mm")
    return image


class Ocr:
    """Spelling score of the text that a prompt quotes, 0 … 1.

    An image is unscorable where the prompt quotes no text, where the text has letters that the
    recogniser does not know, or where the engine fails. Nothing is fetched: the models are those of
    the wheel, verified, or local files.

    Args:
        detector: path of an ONNX file of another PP-OCR detector.
        recogniser: path of an ONNX file of another PP-OCR recogniser, such as for another script.

    Raises:
        MissingResourceError: A model is not here, is another file, or cannot be run.
    """

    card = CARDS["ocr"]

    def __init__(self, detector: str | None = None, recogniser: str | None = None) -> None:
        rapidocr = import_module("rapidocr")
        files = [
            _file(path, weight)
            for path, weight in zip((detector, recogniser, None), OCR_WEIGHTS, strict=True)
        ]
        settings = {
            f"{step}.model_path": str(file)
            for step, file in zip(("Det", "Rec", "Cls"), files, strict=True)
        }
        try:
            self._alphabet = _alphabet(files[1])
            self._engine: Any = rapidocr.RapidOCR(
                params={**settings, "Global.log_level": "critical"}
            )
            self._engine(_bgr(_sample()))
        except Exception as error:  # onnxruntime raises many kinds for a file that is no model
            cause = one_line(error)[-REASON:]
            raise MissingResourceError(
                f"reward 'ocr': {files[0]} and {files[1]} are no models that it can run: {cause}"
            ) from error

    def read(self, image: Image.Image) -> tuple[str, ...]:
        """The lines of text in an RGB image, from top to bottom.

        Raises:
            UnusableAnswer: The engine failed on this image.
        """
        try:
            return tuple(self._engine(_bgr(image)).txts or ())
        except Exception as error:  # of OpenCV, onnxruntime or the engine
            reason = one_line(error)
            if len(reason) > REASON:
                reason = f"… {reason[-REASON:]}"
            raise UnusableAnswer(f"the OCR engine failed: {reason}") from error

    def judge(self, image: Image.Image, prompt: Prompt) -> Judgement:
        """The score of one image and its parts.

        Raises:
            UnusableAnswer: The image has no score; the message is the reason.
        """
        targets = wanted(prompt)
        if unknown := sorted(set(letters("".join(targets))) - self._alphabet):
            raise UnusableAnswer(
                f"the recogniser knows no {' '.join(unknown[:5])!r}, which is in the target text"
            )
        return spelling(self.read(image), targets)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`.

        Parts: `exact` (0 or 1), `distance` (edits), `extra` (letters beyond the target) and
        `flow_grpo` (its score).
        """
        return judge_each(batch, PARTS, self.judge)


def _bgr(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The image as a BGR array, the channel order that the engine expects."""
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])
