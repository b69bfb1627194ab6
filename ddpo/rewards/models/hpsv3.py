"""HPSv3: Qwen2-VL-7B reads image, instruction and prompt; a small head scores its `<|Reward|>`.

Positions run 0, 1, 2 … over image and text alike. Qwen2-VL itself would give the tokens of an image
a row and a column. The original calls the language model without them, in training and in use, so
scores with rows and columns differ.

Qwen2-VL's preprocessing is done by Pillow and a reshape, so there is no extra to install.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import linear, relu

from ddpo import weights
from ddpo.errors import ConfigError, MissingResourceError, one_line
from ddpo.rewards.card import WeightFile
from ddpo.rewards.cards import CARDS
from ddpo.rewards.cards.preference import HPSV3, QWEN2_VL_7B
from ddpo.rewards.models.hpsv3_input import IMAGE, MERGED, REWARD, conversation, patches
from ddpo.rewards.models.load_errors import load_errors_as
from ddpo.rewards.offload import place
from ddpo.types import ImageBatch, RewardOutput
from ddpo.weights import without_loading_bars

__all__ = ["Hpsv3", "load_model"]

HEAD: Final = (0, 3, 5)  # indices of the linear layers among ReLU and dropout
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(
    checkpoint: Path, config: Path, words: int, dtype: torch.dtype
) -> tuple[Any, list[tuple[Tensor, Tensor]]]:
    """Qwen2-VL without its output layer, and the head's layers (weight, bias) in float32.

    Every key of the checkpoint is used, or is known to have no effect.

    Args:
        checkpoint: path of HPSv3.safetensors, with the keys of transformers 4.45.2.
        config: path of config.json of the base model, whose vocabulary differs.
        words: size of the tokenizer's vocabulary.
        dtype: precision of Qwen2-VL.

    Raises:
        MissingResourceError: One of them is another file.
    """
    from safetensors.torch import load_file
    from transformers import Qwen2VLConfig

    files = f"{checkpoint} with {config.name}"
    with load_errors_as(f"reward 'hpsv3': {files} is no checkpoint of HPSv3"):
        sizes: Any = Qwen2VLConfig.from_json_file(config)
        return _models(load_file(checkpoint), sizes, words, dtype)


@without_loading_bars()
def _models(
    state: dict[str, Tensor], sizes: Any, words: int, dtype: torch.dtype
) -> tuple[Any, list[tuple[Tensor, Tensor]]]:
    from transformers import Qwen2VLModel

    head = [
        (state.pop(f"rm_head.{n}.weight").float(), state.pop(f"rm_head.{n}.bias").float())
        for n in HEAD
    ]
    state.pop("lm_head.weight")  # next-token scores, which are not needed
    found = len(state["model.embed_tokens.weight"])
    if found != words:
        raise ValueError(f"it has {found} words, the tokenizer {words}")
    sizes.text_config.vocab_size = found
    renamed = {_renamed(name): tensor for name, tensor in state.items()}
    with without_loading_bars():
        model, report = Qwen2VLModel.from_pretrained(
            None,
            config=sizes,
            state_dict=renamed,
            dtype=dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            raise ValueError(
                f"{len(report[kind])} {kind.replace('_', ' ')}, such as {sorted(report[kind])[0]}"
            )
    return model.eval().requires_grad_(False), head


def _renamed(name: str) -> str:
    """The key of transformers 5 for one of transformers 4.45.2."""
    return f"language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name


def _file(path: str | None, name: str, size: str, weight: WeightFile) -> Path:
    what = (
        f"reward 'hpsv3', whose weights are {HPSV3.megabytes / 1000:g} GB, "
        f"needs {name} ({size}, {weight.licence}), which"
    )
    if path is None:
        return weights.fetch_hub_file(weight.source, name, weight.revision, weight.sha256, what)
    if not Path(path).is_file():
        raise MissingResourceError(f"{what} is not at {path}")
    return Path(path)


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    name = name or ("float32" if device.type == "cpu" else "bfloat16")
    if name not in DTYPES:
        raise ConfigError(f"reward 'hpsv3': dtype is {name!r}, not one of {', '.join(DTYPES)}")
    return DTYPES[name]


class Hpsv3:
    """Human preference for an image, given its prompt: the mean μ of a normal distribution.

    The part `log_sigma` is its ln σ. Images are scored one by one. The thousand tokens of one image
    keep a GPU busy, and in bfloat16 padding and batch size would move a score by about as much as
    two images of one prompt differ.

    Args:
        checkpoint: path of a local copy of `HPSv3.safetensors`; None to fetch it.
        base: folder with `config.json` and `tokenizer.json` of Qwen2-VL-7B-Instruct; None to fetch
            them.
        device: torch device of model and head.
        dtype: precision of Qwen2-VL, "float32" or "bfloat16"; None for float32 on a CPU and
            bfloat16 elsewhere. The head is float32.

    Raises:
        ConfigError: The dtype is not known.
        MissingResourceError: A file is neither here nor downloadable, or is another file. The
            smallest are looked for first.
    """

    card = CARDS["hpsv3"]

    def __init__(
        self,
        checkpoint: str | None = None,
        base: str | None = None,
        device: str = "cpu",
        dtype: str | None = None,
    ) -> None:
        self._device = torch.device(device)
        self._dtype = _dtype(dtype, self._device)
        config, tokens = (
            _file(base and str(Path(base) / name), name, size, QWEN2_VL_7B)
            for name, size in (("config.json", "1 kB"), ("tokenizer.json", "7 MB"))
        )
        self._tokenizer = _tokenizer(tokens)
        file = _file(checkpoint, "HPSv3.safetensors", f"{HPSV3.megabytes / 1000:g} GB", HPSV3)
        model, head = load_model(file, config, self._tokenizer.get_vocab_size(), self._dtype)
        self._model = place(model, self._device)
        self._head = [(weight.to(self._device), bias.to(self._device)) for weight, bias in head]
        self._reward, self._image = (
            self._tokenizer.token_to_id(token) for token in (REWARD, IMAGE)
        )

    def _judge(self, image: Image.Image, prompt: str) -> tuple[float, float] | str:
        """μ and ln σ of one image, or the reason why there are none."""
        ids = self._tokenizer.encode(conversation(prompt), add_special_tokens=False).ids
        if ids.count(self._reward) != 1 or ids.count(self._image) != 1:
            return f"the prompt spells {REWARD} or {IMAGE}, which are special tokens of HPSv3"
        try:
            pixels, (rows, columns) = patches(image)
        except ValueError as error:
            return str(error)
        place = ids.index(self._image)
        ids[place : place + 1] = [self._image] * (rows * columns // MERGED**2)
        hidden = self._hidden(torch.tensor([ids], device=self._device), pixels, (rows, columns))[
            0, ids.index(self._reward)
        ].float()
        for number, (weight, bias) in enumerate(self._head):
            hidden = linear(relu(hidden) if number else hidden, weight, bias)
        mean, log_deviation = hidden.tolist()
        return mean, log_deviation

    def _hidden(self, ids: Tensor, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Last hidden states `[1, tokens, width]` of tokens `[1, tokens]` and inserted image."""
        grid = torch.tensor([[1, *size]], device=self._device)
        seen = self._model.visual(pixels.to(self._device, self._dtype), grid_thw=grid).pooler_output
        embedded = self._model.language_model.embed_tokens(ids)
        embedded = embedded.masked_scatter((ids == self._image)[..., None], seen.to(embedded.dtype))
        # the same in time, height and width: see the module
        positions = torch.arange(ids.shape[1], device=self._device).expand(3, 1, -1)
        states: Tensor = self._model.language_model(
            inputs_embeds=embedded, position_ids=positions, use_cache=False
        ).last_hidden_state
        return states

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; part `log_sigma` is the model's uncertainty. No prompt is truncated."""
        images = batch.images if len(batch) else []
        with torch.no_grad():
            found = [
                self._judge(image, prompt.text)
                for image, prompt in zip(images, batch.prompts, strict=True)
            ]
        errors = tuple(one if isinstance(one, str) else None for one in found)
        pairs = torch.tensor(
            [(math.nan, math.nan) if isinstance(one, str) else one for one in found]
        ).reshape(-1, 2)
        return RewardOutput(pairs[:, 0].clone(), {"log_sigma": pairs[:, 1].clone()}, errors)


def _tokenizer(file: Path) -> Any:
    """The tokenizer of Qwen2-VL with the token `<|Reward|>` after its last one.

    Raises:
        MissingResourceError: The file is another one.
    """
    from tokenizers import AddedToken, Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no narrower one
        raise MissingResourceError(
            f"reward 'hpsv3': {file} is no tokenizer ({one_line(error)[:200]})"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.add_special_tokens([AddedToken(REWARD, normalized=False, special=True)])
    if tokenizer.token_to_id(IMAGE) is None:
        raise MissingResourceError(
            f"reward 'hpsv3': {file} is not the tokenizer of Qwen2-VL, which has a token {IMAGE}"
        )
    return tokenizer
