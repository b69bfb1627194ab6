"""HPSv3 on tiny weights against scores of the original and of plain transformers; messages."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hpsv3_tiny import CONFIG, MODES, PROMPTS, make_image, state, write_base, write_checkpoint
from PIL import Image
from torch import Tensor
from torch.nn.functional import linear, relu

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.images import to_rgb
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models.hpsv3_input import INSTRUCTION, REQUEST, conversation, fitted_size, patches
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt

ORIGINAL: dict[str, Any] = json.loads(
    (Path(__file__).parent / "hpsv3_expected.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("hpsv3")
    write_base(folder / "base")
    write_checkpoint(folder / "HPSv3.safetensors", state())
    return {"checkpoint": str(folder / "HPSv3.safetensors"), "base": str(folder / "base")}


@pytest.fixture(scope="module")
def ours(files: dict[str, str]) -> Tensor:
    """μ and ln σ `[image, prompt, 2]`."""
    reward = make_reward("hpsv3", **files)
    found = []
    for number in range(len(MODES)):
        output = reward(
            ImageBatch.of_images(
                [to_rgb(make_image(number))] * len(PROMPTS), [Prompt(text) for text in PROMPTS]
            )
        )
        assert output.errors == (None,) * len(PROMPTS)
        found.append(torch.stack([output.values, output.parts["log_sigma"]], dim=-1))
    return torch.stack(found)


def test_parity_with_the_original(ours: Tensor) -> None:
    due = torch.tensor(ORIGINAL["scores"])
    assert (ours - due).abs().max() < 2e-5
    assert due.std(0).min() > 0.05  # images and prompts both move it, by more than is allowed above
    assert due.std(1).min() > 0.05


class Plain:
    """The same weights in transformers' own Qwen2-VL, tokenizer and image processor.

    Prompts are padded to one length.
    """

    def __init__(self, base: Path) -> None:
        from transformers import (
            PreTrainedTokenizerFast,
            Qwen2VLConfig,
            Qwen2VLForConditionalGeneration,
        )
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(base / "tokenizer.json"), pad_token="<|endoftext|>"
        )
        self.tokenizer.add_special_tokens({"additional_special_tokens": ["<|Reward|>"]})
        self.pixels = Qwen2VLImageProcessorPil(
            size={"shortest_edge": 200704, "longest_edge": 200704},
            image_mean=[0.48145466, 0.4578275, 0.40821073],
            image_std=[0.26862954, 0.26130258, 0.27577711],
        )
        config = Qwen2VLConfig(**{**CONFIG, "vocab_size": len(self.tokenizer)})
        self.model = Qwen2VLForConditionalGeneration(config).float().eval()
        loaded = {name: torch.from_numpy(values) for name, values in state().items()}
        self.head = [
            (loaded.pop(f"rm_head.{n}.weight"), loaded.pop(f"rm_head.{n}.bias")) for n in (0, 3, 5)
        ]
        new = {"visual": "model.visual", "model": "model.language_model", "lm_head": "lm_head"}
        self.model.load_state_dict(
            {
                ".".join([new[(cut := name.partition("."))[0]], cut[2]]): value
                for name, value in loaded.items()
            }
        )

    def scores(self, image: Image.Image, squares: bool) -> Tensor:
        """μ and ln σ `[prompt, 2]`; `squares` gives images Qwen2-VL's rows and columns."""
        seen = self.pixels(images=[image] * len(PROMPTS), return_tensors="pt")
        held = "<|image_pad|>" * int(seen["image_grid_thw"][0].prod() // 4)
        texts = [conversation(text).replace("<|image_pad|>", held) for text in PROMPTS]
        tokens = self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        ids = tokens["input_ids"]
        mask = tokens["attention_mask"]
        kinds = (ids == CONFIG["image_token_id"]).int()
        line = (mask.cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)
        with torch.no_grad():
            states = self.model.model(
                input_ids=ids,
                attention_mask=mask,
                mm_token_type_ids=kinds,
                position_ids=None if squares else line,
                **seen,
            ).last_hidden_state
            hidden: Tensor = states[ids == self.tokenizer.convert_tokens_to_ids("<|Reward|>")]
            for number, (weight, bias) in enumerate(self.head):
                hidden = linear(relu(hidden) if number else hidden, weight, bias)
        return hidden


def test_parity_with_plain_transformers(files: dict[str, str], ours: Tensor) -> None:
    plain = Plain(Path(files["base"]))
    for number, found in enumerate(ours):
        image = to_rgb(make_image(number))
        assert (
            plain.pixels(images=[image], return_tensors="pt")["pixel_values"] - patches(image)[0]
        ).abs().max() < 1e-5
        if number in (1, 3, 7):  # a square, a wide one, one of two levels
            assert (plain.scores(image, squares=False) - found).abs().max() < 2e-5
    assert (
        plain.scores(image, squares=True) - found
    ).abs().max() > 0.05  # what a port gets that calls Qwen2-VL as it is meant


def test_the_words_are_the_originals() -> None:
    text = f"{INSTRUCTION}{{text_prompt}}{REQUEST}"
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "f6ee57479d4e9eee76b49c00dc962e1e696a5a2b3cc32cebd9b1fa76fe27502c"
    )  # of its file


def test_sizes_are_the_originals() -> None:
    for width, height, due_width, due_height in ORIGINAL["sizes"]:
        if max(due_width, due_height) <= 200 * min(due_width, due_height):
            assert fitted_size(width, height) == (due_width, due_height)
        else:  # the image processor, which comes next in the original, refuses it
            with pytest.raises(ValueError, match="longer than 200 times"):
                fitted_size(width, height)


def test_a_score_has_no_batch_mates(files: dict[str, str]) -> None:
    reward = make_reward("hpsv3", **files)
    prompts = [Prompt(text) for text in PROMPTS]
    for size, counts in (((64, 48), (3, 16)), ((40, 300), (1, 3))):
        images = [to_rgb(make_image(n % 8).resize(size)) for n in range(counts[-1])]
        alone = [
            float(reward(ImageBatch.of_images([image], [prompts[n % 4]])).values[0])
            for n, image in enumerate(images)
        ]
        for count in counts:
            output = reward(
                ImageBatch.of_images(images[:count], [prompts[n % 4] for n in range(count)])
            )
            assert output.values.tolist() == alone[:count]  # to the bit


def test_no_images_no_scores(files: dict[str, str]) -> None:
    output = make_reward("hpsv3", **files)(ImageBatch(torch.zeros(0, 3, 8, 8), []))
    assert output.values.shape == output.parts["log_sigma"].shape == (0,)


def test_what_the_original_cannot_score_has_no_score(files: dict[str, str]) -> None:
    reward = make_reward("hpsv3", **files)
    texts = ["a fox", "a fox <|Reward|>", "<|image_pad|>", "<|im_end|>"]
    output = reward(
        ImageBatch.of_uint8(np.zeros((4, 32, 32, 3), np.uint8), [Prompt(text) for text in texts])
    )
    assert [error is None for error in output.errors] == [True, False, False, True]
    assert all(
        "the prompt spells <|Reward|> or <|image_pad|>" in error for error in output.errors if error
    )
    assert (
        output.parts["log_sigma"].isnan().tolist()
        == output.values.isnan().tolist()
        == [False, True, True, False]
    )
    long = reward(ImageBatch.of_uint8(np.zeros((1, 2, 402, 3), np.uint8), [Prompt("a fox")]))
    assert (
        long.errors[0]
        == "an image of 402×2 is longer than 200 times its width, which HPSv3 does not take"
    )


def test_the_conformance_kit(files: dict[str, str]) -> None:
    options = {option.name: option.default for option in CARDS["hpsv3"].options} | files
    only = sorted(set(all_checks()) - {"light-listing", "missing-weights", "card-options"})
    results = {
        r.name: r
        for r in check_reward(ResolvedReward(CARDS["hpsv3"], options, "ddpo", None), only=only)
    }
    assert {name: result.detail for name, result in results.items() if not result.ok} == {}
    for name in (
        "construction",
        "batch-invariance",
        "order",
        "rounding",
        "long-prompt",
        "picture-sizes",
        "empty-batch",
    ):
        assert results[name].outcome == "passed", name


def test_bfloat16_is_near_and_another_type_is_refused(files: dict[str, str], ours: Tensor) -> None:
    reward = make_reward("hpsv3", **files, dtype="bfloat16")
    output = reward(
        ImageBatch.of_images(
            [to_rgb(make_image(0))] * len(PROMPTS), [Prompt(text) for text in PROMPTS]
        )
    )
    gap = (output.values - ours[0, :, 0]).abs().max()
    assert 0 < gap < 0.1
    with pytest.raises(
        ConfigError, match=r"^reward 'hpsv3': dtype is 'float16', not one of float32, bfloat16$"
    ):
        make_reward("hpsv3", **files, dtype="float16")


def test_full_size_has_the_size_on_the_card() -> None:
    from transformers import Qwen2VLConfig, Qwen2VLModel

    tower = {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 3584,
    }
    sizes = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "vocab_size": 151658,
        "vision_config": {**CONFIG["vision_config"], **tower},
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }
    with torch.device("meta"):
        model = Qwen2VLModel(Qwen2VLConfig(**{**CONFIG, **sizes}))
    head = 3584 * 1024 + 1024 + 1024 * 16 + 16 + 16 * 2 + 2
    numbers = (
        sum(p.numel() for p in model.parameters()) + 151658 * 3584 + head
    )  # with the output layer
    assert CARDS["hpsv3"].weights[0].megabytes == pytest.approx(2 * numbers / 1e6, rel=5e-3)


def test_without_weights_one_line_says_how_to_get_them(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    needed = {
        "base": r"\(1 kB, .*hf download Qwen/Qwen2-VL-7B-Instruct config\.json --revision main",
        "checkpoint": r"\(16\.6 GB, .*hf download MizzenAI/HPSv3 HPSv3\.safetensors --revision",
    }
    for option, command in needed.items():
        with pytest.raises(
            MissingResourceError,
            match=rf"^reward 'hpsv3', whose weights are 16\.6 GB, needs .*{command}",
        ) as caught:
            make_reward("hpsv3", **{name: path for name, path in files.items() if name != option})
        assert "\n" not in str(caught.value)
        assert "Apache-2.0" in str(caught.value)
        with pytest.raises(MissingResourceError, match="is not at"):
            make_reward("hpsv3", **{**files, option: str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.merger.ln_q.bias": None}, "visual.merger.ln_q.bias"),
        (
            {"model.layers.1.self_attn.q_proj.bias": None},
            "language_model.layers.1.self_attn.q_proj.bias",
        ),
        ({"rm_head.5.bias": None}, "rm_head.5.bias"),
        ({"lm_head.weight": None}, "lm_head.weight"),
        ({"rm_head.7.bias": np.zeros(1, np.float32)}, "rm_head.7.bias"),
        ({"model.more": np.zeros(1, np.float32)}, "language_model.more"),
        ({"model.norm.weight": np.ones(7, np.float32)}, "norm.weight|mismatched"),
        (
            {"model.embed_tokens.weight": np.zeros((9, 32), np.float32)},
            "it has 9 words, the tokenizer",
        ),
    ],
)
def test_every_key_counts(
    change: dict[str, Any], message: str, files: dict[str, str], tmp_path: Path
) -> None:
    write_checkpoint(
        tmp_path / "x",
        {name: values for name, values in {**state(), **change}.items() if values is not None},
    )
    with pytest.raises(
        MissingResourceError, match=rf"is no checkpoint of HPSv3 .*({message})"
    ) as caught:
        make_reward("hpsv3", **{**files, "checkpoint": str(tmp_path / "x")})
    assert "\n" not in str(caught.value)


def test_other_files_are_refused_in_one_line(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "x").write_text("<html>")
    base = Path(files["base"])
    changes = {"config.json": "<html>", "tokenizer.json": "<html>"}
    wrong: list[dict[str, str]] = [{"checkpoint": str(tmp_path / "x")}]
    for name, text in changes.items():
        folder = tmp_path / name.partition(".")[0]
        write_base(folder)
        (folder / name).write_text(text)
        wrong.append({"base": str(folder)})
    other = tmp_path / "other"
    write_base(other)
    (other / "tokenizer.json").write_text(
        (base / "tokenizer.json").read_text("utf-8").replace("<|image_pad|>", "<|x|>"), "utf-8"
    )
    wrong.append({"base": str(other)})
    for option in wrong:
        with pytest.raises(
            MissingResourceError, match=r"reward 'hpsv3': .* is (no|not the) (checkpoint|tokenizer)"
        ) as caught:
            make_reward("hpsv3", **{**files, **option})
        assert "\n" not in str(caught.value)
