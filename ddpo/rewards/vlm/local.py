"""Vision-language models of transformers on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.rewards.offload import place
from ddpo.rewards.vlm.protocol import SPACE_MARKS, TOP_TOKENS, UnusableAnswer, check_words
from ddpo.weights import offline, without_loading_bars

__all__ = ["LocalVlm"]

LONGEST: Final = 64
"""Greatest aspect ratio: processors enlarge the shorter side first, and longer images take
gigabytes."""


TOGETHER: Final = 32  # images of one decoding
NEAR: Final = 1e-3
"""Distance of two logits, far above the rounding of a batch in float32."""


class LocalVlm:
    """An image-text-to-text model with a chat template, such as LLaVA 1.5.

    It runs in float32 on the CPU and in float16 elsewhere.

    Args:
        path: folder or hub id of the model.
        device: torch device.

    Raises:
        MissingResourceError: The model is neither here nor downloadable, or is of another kind.
        ConfigError: Its images cannot be prepared by Pillow.
    """

    sends_jpeg = False
    thread_safe = False

    @without_loading_bars()
    def __init__(self, path: str, device: str = "cpu") -> None:
        from safetensors import SafetensorError
        from transformers import AutoModelForImageTextToText

        dtype = torch.float16 if torch.device(device).type != "cpu" else torch.float32
        try:
            self._processor = _processor(path)
            self._model: Any = AutoModelForImageTextToText.from_pretrained(
                path, local_files_only=offline(), dtype=dtype
            )
        except ConfigError:
            raise
        except (
            OSError,
            ValueError,
            ImportError,
            AttributeError,
            TypeError,
            KeyError,
            RuntimeError,
            SafetensorError,
        ) as error:
            raise MissingResourceError(
                f"the vision-language model {path} cannot be loaded: {one_line(error)}"
            ) from error
        if getattr(self._processor, "chat_template", None) is None:
            raise MissingResourceError(
                f"the vision-language model {path} has no chat template (chat_template.jinja)"
            )
        self._model = place(self._model.eval().requires_grad_(False), device)
        self._device = device
        self._path = path

    def answer(self, image: Image.Image, question: str, max_tokens: int) -> str:
        """See `Vlm`; special tokens are left out of the answer."""
        inputs = self._inputs(image, question)
        with torch.no_grad():
            tokens = self._model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        answers: Sequence[str] = self._processor.batch_decode(
            tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return check_words(answers[0], max_tokens)

    def answers(
        self, images: Sequence[Image.Image], question: str, max_tokens: int
    ) -> list[str | UnusableAnswer]:
        """The answers to one question about many images, each exactly that of `answer`.

        All inputs have one length, so nothing is padded. In float32 images are decoded together:
        a batch moves logits by 1e-5. An image with two likeliest tokens nearer than `NEAR` is
        decoded again by itself. In half precision each image is decoded by itself.
        """
        found: list[str | UnusableAnswer] = []
        for start in range(0, len(images), TOGETHER):
            some = images[start : start + TOGETHER]
            if self._model.dtype == torch.float32 and not any(map(_too_narrow, some)):
                found += self._decoded_together(some, question, max_tokens)
            else:
                found += [self._answer_or_reason(image, question, max_tokens) for image in some]
        return found

    def _answer_or_reason(
        self, image: Image.Image, question: str, max_tokens: int
    ) -> str | UnusableAnswer:
        try:
            return self.answer(image, question, max_tokens)
        except UnusableAnswer as error:
            return error

    def _decoded_together(
        self, images: Sequence[Image.Image], question: str, max_tokens: int
    ) -> list[str | UnusableAnswer]:
        inputs = self._joint_inputs(images, question)
        with torch.no_grad():
            written = self._model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=max_tokens,
                return_dict_in_generate=True,
                output_logits=True,
            )
        tokens = written.sequences[:, inputs["input_ids"].shape[1] :]
        ends = torch.tensor(self._ends(), device=tokens.device)
        unsure = _is_unsure(torch.stack(written.logits, 1), tokens, ends)
        texts: Sequence[str] = self._processor.batch_decode(tokens, skip_special_tokens=True)
        found: list[str | UnusableAnswer] = []
        for image, text, alone in zip(images, texts, unsure.tolist(), strict=True):
            try:
                known = self.answer(image, question, max_tokens) if alone else text
                found.append(check_words(known, max_tokens))
            except UnusableAnswer as error:
                found.append(error)
        return found

    def first_token_logprobs(self, image: Image.Image, question: str) -> dict[str, float]:
        """See `Vlm`."""
        with torch.no_grad():
            logits: Tensor = self._model(**self._inputs(image, question)).logits[0, -1]
        best = torch.log_softmax(logits.float(), dim=-1).topk(min(TOP_TOKENS, logits.shape[-1]))
        found: dict[str, float] = {}
        for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            found.setdefault(self._processor.decode([token]), value)
        return found

    def word_and_end_logprobs(
        self, image: Image.Image, question: str, word: str
    ) -> tuple[float, float]:
        """See `Vlm`; the end is any token at which the model stops."""
        inputs = self._inputs(image, question)
        spellings = self._spellings(word)
        ends = self._ends()
        with torch.no_grad():
            written = self._model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=2,
                # the second token is restricted too, but only its logits are read
                prefix_allowed_tokens_fn=lambda _, tokens: spellings,
                return_dict_in_generate=True,
                output_logits=True,  # before the restriction
            )
        first, *second = (torch.log_softmax(step[0].float(), dim=-1) for step in written.logits)
        # without a second step, the model stops at the word itself
        end = float(second[0][ends].logsumexp(0)) if second else 0.0
        return float(first[spellings].max()), end

    def _spellings(self, word: str) -> list[int]:
        """The tokens that spell `word` exactly, with a leading space or without.

        Raises:
            ConfigError: There is none.
        """
        vocabulary: dict[str, int] = self._processor.tokenizer.get_vocab()
        found = [token for text, token in vocabulary.items() if text.strip(SPACE_MARKS) == word]
        if not found:
            raise ConfigError(f"the vision-language model {self._path} has no token {word!r}")
        return found

    def _ends(self) -> list[int]:
        """The tokens at which the model stops.

        Raises:
            ConfigError: The model states none.
        """
        ends: int | list[int] | None = self._model.generation_config.eos_token_id
        if ends is None:
            raise ConfigError(
                f"the vision-language model {self._path} states no end token "
                "(generation_config.json)"
            )
        return ends if isinstance(ends, list) else [ends]

    def _inputs(self, image: Image.Image, question: str) -> Any:
        return self._joint_inputs([image], question)

    def _joint_inputs(self, images: Sequence[Image.Image], question: str) -> Any:
        """The model's inputs for one question about each image."""
        for image in filter(_too_narrow, images):
            size = f"{image.width}×{image.height}"
            raise UnusableAnswer(f"an image of {size} is too narrow for a vision-language model")
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return self._processor(
            images=list(images), text=[text] * len(images), return_tensors="pt"
        ).to(self._device, self._model.dtype)


def _too_narrow(image: Image.Image) -> bool:
    return max(image.size) > LONGEST * min(image.size)


def _is_unsure(logits: Tensor, tokens: Tensor, ends: Tensor) -> Tensor:
    """True for the answers with a token, up to the end token, whose rival is nearer than `NEAR`.

    Args:
        logits: logits `[batch, length, vocabulary]` of each step.
        tokens: written tokens `[batch, length]`, with padding behind the end token.
        ends: end tokens `[ends]`.

    Returns:
        bool `[batch]`.
    """
    first, second = logits.float().topk(2, dim=-1).values.unbind(-1)
    ended = torch.isin(tokens, ends).cumsum(1) - torch.isin(tokens, ends).long()
    return ((first - second < NEAR) & (ended == 0)).any(1)


def _processor(path: str) -> Any:
    """The processor of a model, which resizes images by Pillow even if torchvision is installed.

    transformers prefers torchvision where it is installed, and the pixels of the two differ. The
    originals resize by Pillow.

    Raises:
        ConfigError: transformers prepares the model's images by torchvision only.
        OSError, ValueError, ImportError: As transformers raises them.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    where = {"local_files_only": offline()}
    processor: Any = AutoProcessor.from_pretrained(path, **where)
    if hasattr(processor, "image_processor"):
        processor.image_processor = AutoImageProcessor.from_pretrained(path, backend="pil", **where)
        if getattr(processor.image_processor, "backend", "pil") != "pil":
            kind = type(processor.image_processor).__name__
            raise ConfigError(
                f"the vision-language model {path} cannot be used here: transformers has its "
                f"{kind} for torchvision only, and scores are made on Pillow; "
                "give a server's address as vlm=…"
            )
    return processor
