"""The judge in LLaVA's format: `python -m pretraining.captioner --out FOLDER --minutes N`.

A `transformers.LlavaForConditionalGeneration` with its processor, as `alignment` loads it: a CLIP
tower, a projector and a small LLaMA. It is trained to answer a question about a rendering with the
caption of all that is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpo.rewards.models.alignment import QUESTION
from ddpo.rewards.models.clip_pixels import MEAN, STD
from ddpo.rewards.scenes.grammar import caption, world_words
from pretraining.judge_training import JudgeRun, arguments, half, megabytes, say, train
from pretraining.resizing import resized
from pretraining.scene_batches import Augmentation, Reconstructions, draw_batch
from pretraining.scene_renderer import SceneRenderer

__all__ = ["QUESTIONS", "build", "train_captioner", "write", "write_processor"]

SIDE: Final = 72
PATCH: Final = 12
WIDTH: Final = 128
QUESTIONS: Final = (
    QUESTION,
    "what is in this picture?",
    "What does this image show?",
    "Describe the image.",
)
"""The questions of training; the first is that of the reward `alignment`."""
SPECIAL: Final = ("<s>", "</s>", "<unk>", "<pad>", "<image>")
NAMES: Final = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}
TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
AUGMENTATION: Final = Augmentation(recolored=0.25, shift=0.04, scale=0.08, noise=0.15, jpeg=0.6)
WORDS_WEIGHT: Final = 3.0
RATES: Final = (2.5e-3, 1.5e-3)
IGNORED: Final = -100


def build(tokenizer: Any) -> Any:
    """The untrained model of images `[batch, 3, 72, 72]`, 1.4 M parameters."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    shared = {"hidden_size": WIDTH, "num_attention_heads": 4}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **shared,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=5,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            **shared,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            vocab_size=len(tokenizer),
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=3,
        ),
        image_token_index=4,
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = 1
    model.generation_config.pad_token_id = 3
    return model


def write_processor(folder: Path) -> Any:
    """Writes the processor with a tokenizer of one token per word, and returns it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    spoken = " ".join(["user: assistant: yes no", *QUESTIONS]).lower()
    others = {word for word, _ in split.pre_tokenize_str(spoken)}
    entries = [*SPECIAL, *sorted({*world_words(), *others})]
    core = Tokenizer(
        models.WordLevel(
            {word: place for place, word in enumerate(entries)}, unk_token=NAMES["unk_token"]
        )
    )
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = split
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        additional_special_tokens=["<image>"],
        **NAMES,
    )
    square = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": SIDE}, crop_size=square, image_mean=MEAN, image_std=STD
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)
    return processor


class Captioning:
    """The loss of a batch of images with the answers to questions about them."""

    def __init__(
        self,
        modules: nn.ModuleDict,
        processor: Any,
        renderer: SceneRenderer,
        bank: Reconstructions | None,
    ) -> None:
        self.model: Any = modules["llava"]
        self.words: Any = modules["words"]
        self.tokenizer = processor.tokenizer
        self.renderer = renderer
        self.bank = bank
        places = "<image>" * (SIDE // PATCH) ** 2
        self.questions = [
            self._ids(
                processor.apply_chat_template(
                    [
                        {
                            "role": "user",
                            "content": [{"type": "image"}, {"type": "text", "text": question}],
                        }
                    ],
                    add_generation_prompt=True,
                ).replace("<image>", places)
            )
            for question in QUESTIONS
        ]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def __call__(self, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        """The loss, and the share of captions whose every word is the likeliest."""
        pixels, shown = draw_batch(self.renderer, rng, count, AUGMENTATION, self.bank)
        answers = [[*self._ids(caption(scene)), 1] for scene in shown]
        question = self.questions[int(rng.choice(len(QUESTIONS), p=(0.55, 0.15, 0.15, 0.15)))]
        longest = max(len(answer) for answer in answers)
        ids = torch.full((count, len(question) + longest), 3)
        labels = torch.full((count, longest), IGNORED)
        for row, answer in enumerate(answers):
            ids[row, : len(question) + len(answer)] = torch.tensor([*question, *answer])
            labels[row, : len(answer)] = torch.tensor(answer)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        inputs = (resized(pixels, SIDE) - mean) / std
        with torch.autocast("cpu", torch.bfloat16):
            features, hidden = self._hidden(inputs, ids)
            logits = self.model.lm_head(hidden[:, len(question) - 1 : -1]).float()
            named = self.words(features.mean(1)).float()
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
        )
        present = torch.zeros_like(named)
        present.scatter_(1, labels.clamp(min=0), 1.0)
        present[:, : len(SPECIAL)] = 0
        aside = functional.binary_cross_entropy_with_logits(named, present)
        whole = ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(1).float().mean()
        return {"loss": loss + WORDS_WEIGHT * aside, "words": aside, "whole": whole}

    def _hidden(self, inputs: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The tower's features of the patches, and LLaMA's hidden states of all tokens."""
        tower = self.model.model.vision_tower
        features = tower(pixel_values=inputs).last_hidden_state[:, 1:]
        projected = self.model.model.multi_modal_projector(features)
        embeddings = self.model.get_input_embeddings()(ids).to(projected.dtype)
        spots = (ids == 4).unsqueeze(-1).expand_as(embeddings)
        embeddings = embeddings.masked_scatter(spots, projected)
        hidden = self.model.model.language_model(inputs_embeds=embeddings).last_hidden_state
        return features, hidden


def write(model: Any, folder: Path) -> None:
    """Writes the model in half precision beside its processor."""
    write_processor(folder)
    half(model).save_pretrained(folder)


def train_captioner(run: JudgeRun) -> list[float]:
    """Trains and writes the judge to `run.out / "judge"`; returns the losses."""
    torch.manual_seed(run.seed)
    folder = run.out / "judge"
    processor = write_processor(folder)
    model = build(processor.tokenizer)
    model.set_attn_implementation("eager")  # its backward pass is twice as fast on a CPU
    words = nn.Linear(WIDTH, len(processor.tokenizer))
    modules = nn.ModuleDict({"llava": model, "words": words})
    renderer = SceneRenderer(run.font)
    task = Captioning(modules, processor, renderer, run.bank(renderer, AUGMENTATION))
    losses = train(run, modules, task, RATES)
    write(model, folder)
    say(f"{folder}: {megabytes(folder):.2f} MB")
    return losses


if __name__ == "__main__":
    train_captioner(arguments("captioner", __doc__, steps=3000, batch=96))
