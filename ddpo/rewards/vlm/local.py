"""Vision-language models of transformers, run here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.rewards.vlm.protocol import TOP_TOKENS, UnusableAnswer, check_words
from ddpo.weights import offline

__all__ = ["LocalVlm"]

LONGEST: Final = 64  # times the shorter side: processors enlarge the shorter side first, and longer pictures take gigabytes


class LocalVlm:
    """An image-text-to-text model with a chat template, such as LLaVA 1.5; float32 on the CPU, float16 elsewhere.

    Args:
        path: folder or hub id.
        device: torch device.

    Raises:
        MissingResourceError: it is not here and cannot be fetched, or is no such model.
        ConfigError: its images cannot be prepared by Pillow.
    """

    sends_jpeg = False
    thread_safe = False

    def __init__(self, path: str, device: str = "cpu") -> None:
        from transformers import AutoModelForImageTextToText

        dtype = torch.float16 if torch.device(device).type != "cpu" else torch.float32
        try:
            self._processor = _processor(path)
            self._model: Any = AutoModelForImageTextToText.from_pretrained(path, local_files_only=offline(), dtype=dtype)
        except ConfigError:
            raise
        except (OSError, ValueError, ImportError) as error:
            raise MissingResourceError(f"the vision-language model {path} cannot be loaded: {one_line(error)}") from error
        if getattr(self._processor, "chat_template", None) is None:
            raise MissingResourceError(f"the vision-language model {path} has no chat template (chat_template.jinja)")
        self._model = self._model.eval().requires_grad_(False).to(device)
        self._device = device

    def answer(self, image: Image.Image, question: str, max_tokens: int) -> str:
        """See `Vlm`; of the model's tokens, special ones are left out."""
        inputs = self._inputs(image, question)
        with torch.no_grad():
            tokens = self._model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        answers: Sequence[str] = self._processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return check_words(answers[0], max_tokens)

    def first_token_logprobs(self, image: Image.Image, question: str) -> dict[str, float]:
        """See `Vlm`."""
        with torch.no_grad():
            logits: Tensor = self._model(**self._inputs(image, question)).logits[0, -1]
        best = torch.log_softmax(logits.float(), dim=-1).topk(min(TOP_TOKENS, logits.shape[-1]))
        found: dict[str, float] = {}
        for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            found.setdefault(self._processor.decode([token]), value)
        return found

    def _inputs(self, image: Image.Image, question: str) -> Any:
        if max(image.size) > LONGEST * min(image.size):
            raise UnusableAnswer(f"a picture of {image.width}×{image.height} is too narrow for a vision-language model")
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return self._processor(images=[image], text=[text], return_tensors="pt").to(self._device, self._model.dtype)


def _processor(path: str) -> Any:
    """The processor of a model, which resizes images by Pillow whether or not torchvision is installed.

    transformers takes torchvision where it finds it, and the pixels of the two differ. The originals
    resize by Pillow.

    Raises:
        ConfigError: transformers can prepare the model's images by torchvision alone.
        OSError, ValueError, ImportError: as transformers raises them.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    where = {"local_files_only": offline()}
    processor: Any = AutoProcessor.from_pretrained(path, **where)
    if hasattr(processor, "image_processor"):
        processor.image_processor = AutoImageProcessor.from_pretrained(path, backend="pil", **where)
        if getattr(processor.image_processor, "backend", "pil") != "pil":
            kind = type(processor.image_processor).__name__
            raise ConfigError(
                f"the vision-language model {path} cannot be used here: transformers has its {kind} for "
                "torchvision only, and scores are made on Pillow; give a server's address as vlm=…"
            )
    return processor
