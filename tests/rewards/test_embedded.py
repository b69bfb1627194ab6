"""The embedded variants of rewards: their cards, folders and scores, beside plain libraries."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo.errors import ConfigError, MissingResourceError
from ddpo.prompts import load_prompts
from ddpo.rewards.cards import CARDS, embedded
from ddpo.rewards.cards.embedded import (
    EMBEDDED_REWARDS,
    JUDGES,
    embedded_card,
    embedded_name,
    is_embedded,
)
from ddpo.rewards.code import files_digest
from ddpo.rewards.models import embedded_judges
from ddpo.rewards.models.alignment import QUESTION, REFERENCE, Alignment
from ddpo.rewards.models.embedded_judges import judge_folder
from ddpo.rewards.setting_paths import located
from ddpo.rewards.vlm import UnusableAnswer, jpeg80
from ddpo.rewards.vlm.local import LocalVlm, _is_unsure
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.trainer import config_for
from ddpo.trainer.independent import _names
from ddpo.trainer.run import manifest
from ddpo.types import ImageBatch, Prompt

PROMPTS = ("a cat on a red background", "two dogs", "a raccoon washing the dishes", "a blue ring")
MEGABYTES = {
    "captioner": 5.0,
    "sentence_encoder": 2.0,
    "dual_encoder": 3.0,
    "aesthetic_head": 0.1,
    "scene_detector": 2.0,
}


def samples(count: int, seed: int = 0) -> ImageBatch:
    """Images of the embedded size: coloured grounds with rectangles and discs, and noise."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((count, 64, 64, 3), np.uint8)
    rows, columns = np.mgrid[:64, :64]
    for image in pixels:
        image[:] = rng.integers(0, 256, 3)
        for _ in range(3):
            y, x, size = rng.integers(8, 56, 3)
            inside = (abs(rows - y) < size / 4) & (abs(columns - x) < size / 3)
            if rng.random() < 0.5:
                inside = (rows - y) ** 2 + (columns - x) ** 2 < (size / 3) ** 2
            image[inside] = rng.integers(0, 256, 3)
    pixels[::5] = rng.integers(0, 256, pixels[::5].shape)
    prompts = tuple(Prompt(PROMPTS[place % len(PROMPTS)]) for place in range(count))
    return ImageBatch.of_uint8(pixels, prompts)


@pytest.fixture(scope="module")
def alignment() -> Any:
    return make_reward("alignment:model=emoji")


def test_the_judges_are_as_small_as_promised_and_readable_by_all() -> None:
    manifest = json.loads((JUDGES / "manifest.json").read_text("utf-8"))["files"]
    files = {path for path in JUDGES.rglob("*") if path.is_file()}
    listed = {JUDGES / name for name in manifest}
    others = {path.name for path in files - listed}
    assert listed <= files
    assert others == {"manifest.json", "README.md"}
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in files)
    for judge, most in MEGABYTES.items():
        here = [path for path in listed if path.parent.name == judge]
        assert 0 < sum(path.stat().st_size for path in here) / 1e6 <= most


@pytest.mark.parametrize("judge", MEGABYTES)
def test_each_judge_has_a_card_with_its_data_licence_and_limits(judge: str) -> None:
    text = (JUDGES / judge / "README.md").read_text("utf-8")
    words = " ".join(text.split())
    assert "No sample of any model was seen in training." in words
    assert "SIL Open Font License" in words
    assert "Apache License 2.0" in words
    for part in ("## Data", "## Recipe", "## Measures", "## Limits"):
        assert part in text
    assert (JUDGES / judge / "../../../policies/emoji/OFL.txt").is_file()


@pytest.mark.parametrize("name", EMBEDDED_REWARDS)
def test_an_embedded_card_is_of_the_same_reward_with_other_weights_and_keys(name: str) -> None:
    big = resolve(name)
    small = resolve(embedded_name(name))
    assert small.card.id == big.card.id
    assert is_embedded(small.card)
    assert not is_embedded(big.card)
    assert small.identity != big.identity
    assert set(small.card.lineage).isdisjoint(big.card.lineage)
    assert all(weight.sha256 for weight in small.card.weights)
    assert make_reward(embedded_name(name)).card == small.card


def test_the_key_changes_with_any_file_of_a_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resolve("clip_score:model=emoji").identity
    files = json.loads((JUDGES / "manifest.json").read_text("utf-8"))["files"]
    files["dual_encoder/vocab.json"]["sha256"] = "0" * 64
    monkeypatch.setattr(embedded, "_manifest", lambda: files)
    assert resolve("clip_score:model=emoji").identity != before


# The fingerprints of the cards before the option `model` came, computed at 25f5dc2.
EARLIER = {
    "aesthetic": "d6d376a96d917499",
    "clip_score": "d5b91a21181f879f",
    "alignment": "8e76c9cdc4b76a06",
}


@pytest.mark.parametrize("name", EARLIER)
def test_scores_of_the_big_variants_stay_valid(name: str) -> None:
    found = resolve(name)
    assert found.card.fingerprint(found.options) == EARLIER[name]
    assert f"|card:{EARLIER[name]}|" in found.identity


@pytest.mark.parametrize("name", EARLIER)
def test_a_run_from_before_the_option_resumes_and_not_on_the_other_variant(name: str) -> None:
    config = config_for({"reward": name})
    prompts = load_prompts("animals")
    facts = json.loads(json.dumps(manifest.describe(config, resolve(name), prompts, {}, 1)))
    card = facts["reward"]["card"]
    card["for_options"] = None
    if name != "alignment":
        card["options"] = [one for one in card["options"] if one["name"] != "model"]
    manifest.check_unchanged(facts, config, resolve(name), prompts, {})
    with pytest.raises(ConfigError, match="reward"):
        manifest.check_unchanged(facts, config, resolve(embedded_name(name)), prompts, {})


def test_a_held_out_reward_may_be_another_variant_of_the_trained_one() -> None:
    big, small = (resolve(name) for name in ("alignment", "alignment:model=emoji"))
    both = resolve("darkness + alignment:model=emoji:0.5")
    assert _names(big).isdisjoint(_names(small))
    assert _names(small) & _names(both)
    assert _names(big).isdisjoint(_names(both))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("clip_score:model=emojy", "model is 'emojy', not emoji"),
        ("aesthetic:model=EMOJI", "model is 'EMOJI', not emoji"),
        ("alignment:model=llava", "not emoji; other names are of models on a server"),
        ("alignment:model=emoji,layer=2", "weights of its own; leave out layer"),
        ("alignment:model=emoji,vlm=llava-hf/other", "leave out vlm"),
        ("clip_score:model=emoji,clip=mine", "leave out clip"),
        ("aesthetic:model=emoji,tower=open_clip", "leave out tower"),
        ("aesthetic:model=emoji,head=mine", "leave out head"),
        ("clip_score:mdel=emoji", "did you mean 'model'"),
    ],
)
def test_other_words_are_refused_in_one_line(spec: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]+$") as caught:
        resolve(spec)
    assert words in str(caught.value)


def test_a_model_on_a_server_may_have_any_name() -> None:
    card = resolve("alignment:vlm=http://127.0.0.1:9/v1,model=emoji").card
    assert not is_embedded(card)


def test_a_folder_of_that_name_is_not_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resolve("clip_score:model=emoji").identity
    (tmp_path / "emoji").mkdir()
    (tmp_path / "emoji" / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert files_digest(["emoji"])  # it would change the key
    assert resolve("clip_score:model=emoji").identity == before
    for spec in ("clip_score:model=emoji", "clip_score:model=emoji:0.5 + darkness"):
        assert located({"reward": spec})["reward"] == spec


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_installation_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    (tmp_path / "aesthetic_head").mkdir()
    if damage == "changed":
        (tmp_path / "aesthetic_head" / "head.safetensors").write_bytes(b"other")
    monkeypatch.setattr(embedded_judges, "JUDGES", tmp_path)
    judge_folder.cache_clear()
    with pytest.raises(MissingResourceError, match=r"^the embedded judge [^\n]+reinstall ddpo$"):
        judge_folder("aesthetic_head")


def test_clip_score_and_aesthetic_run_one_encoder() -> None:
    one: Any = make_reward("clip_score:model=emoji")
    other: Any = make_reward("aesthetic:model=emoji")
    assert one._pair.encoder is other._encoder
    assert (
        resolve("clip_score:model=emoji").card.backbone
        == embedded_card(CARDS["aesthetic"]).backbone
    )


def test_images_decoded_together_get_the_answers_that_they_get_alone(alignment: Any) -> None:
    vlm: LocalVlm = alignment._captioner
    images = [jpeg80(image) for image in samples(70).images]
    alone = [vlm.answer(image, QUESTION, 64) for image in images]
    assert vlm.answers(images, QUESTION, 64) == alone
    assert vlm.answers(images[::-1], QUESTION, 64) == alone[::-1]
    assert vlm.answers(images[3:10], QUESTION, 64) == alone[3:10]
    short = [vlm.answer(image, QUESTION, 3) for image in images[:4]]
    assert vlm.answers(images[:4], QUESTION, 3) == short


def test_an_image_that_is_too_narrow_spoils_no_other(alignment: Any) -> None:
    images = samples(3).images
    found = alignment._captioner.answers([images[0], Image.new("RGB", (1, 90)), images[1]], "?", 8)
    assert isinstance(found[1], UnusableAnswer)
    assert [isinstance(one, str) for one in found] == [True, False, True]


def test_an_answer_is_unsure_where_two_tokens_are_near_before_its_end() -> None:
    logits = torch.zeros(3, 3, 4)
    logits[:, :, 2] = 5.0
    logits[1, 1, 3] = 4.9999  # near, before the end
    logits[2, 2, 3] = 4.9999  # near, behind the end
    tokens = torch.tensor([[2, 2, 1], [2, 2, 1], [2, 1, 3]])
    assert _is_unsure(logits, tokens, torch.tensor([1])).tolist() == [False, True, False]


def test_a_score_of_alignment_depends_on_no_batch_mate(alignment: Any) -> None:
    batch = samples(40)
    whole = alignment(batch)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = alignment(batch.take(order))
    assert torch.equal(shuffled.values, whole.values[order])
    for place in (0, 7, 39):
        assert torch.equal(alignment(batch[place : place + 1]).values, whole.values[place][None])
    assert set(whole.parts) == {"precision", "f1", "truncated"}


def test_alignment_gives_the_recall_of_plain_packages(alignment: Alignment) -> None:
    """The same folders in transformers' LLaVA and in the package bert-score."""
    from bert_score import BERTScorer
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = JUDGES / "captioner"
    processor: Any = AutoProcessor.from_pretrained(folder)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    scorer: Any = BERTScorer(model_type=str(JUDGES / "sentence_encoder"), num_layers=3)
    scorer._model.float()
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    batch = samples(8, seed=3)
    expected = []
    for image, prompt in zip(batch.images, batch.prompts, strict=True):
        inputs = processor(images=[jpeg80(image)], text=[text], return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(**inputs, do_sample=False, max_new_tokens=64)
        answer = processor.decode(
            tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        _, recall, _ = scorer.score([answer], [REFERENCE.format(prompt=prompt.text)])
        expected.append(float(recall))
    assert alignment(batch).values.tolist() == pytest.approx(expected, abs=2e-6)


def own_recall(answer: str, reference: str) -> float:
    """BERTScore's recall by plain torch: greedy matching of the third layer's hidden states."""
    from transformers import BertModel, BertTokenizer

    folder = JUDGES / "sentence_encoder"
    tokenizer: Any = BertTokenizer.from_pretrained(folder)
    model: Any = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    states = []
    for text in (reference, answer):
        with torch.no_grad():
            found = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        states.append(torch.nn.functional.normalize(found.hidden_states[3][0], dim=-1))
    best = (states[0] @ states[1].T).max(1).values
    return float(best[1:-1].mean())  # [CLS] and [SEP] are matched, and are not counted


def test_the_recall_is_that_of_bert_by_hand(alignment: Any) -> None:
    """Source: Zhang et al., arXiv 1904.09675, section 3."""
    pairs = [("a cat on a red background", PROMPTS[0]), ("three dogs", PROMPTS[1])]
    for answer, prompt in pairs:
        reference = REFERENCE.format(prompt=prompt)
        found = alignment._scorer.score(answer, reference).recall
        assert found == pytest.approx(own_recall(answer, reference), abs=2e-6)


@pytest.fixture(scope="module")
def clip() -> tuple[Any, Any]:
    """The plain CLIP of transformers in the same folder, with its tokenizer."""
    from transformers import CLIPModel, CLIPTokenizer

    folder = JUDGES / "dual_encoder"
    model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), CLIPTokenizer.from_pretrained(folder)


def plain_pixels(image: Image.Image) -> torch.Tensor:
    """Bicubic 224 by Pillow and CLIP's normalisation, `[3, 224, 224]`."""
    levels = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    return ((torch.from_numpy(levels.copy()) / 255 - mean) / std).permute(2, 0, 1)


def test_clip_score_gives_the_cosine_of_plain_transformers(clip: tuple[Any, Any]) -> None:
    model, tokenizer = clip
    batch = samples(8, seed=4)
    texts = [f"A photo depicts {prompt.text}" for prompt in batch.prompts]
    with torch.no_grad():
        found = model(
            pixel_values=torch.stack([plain_pixels(image) for image in batch.images]),
            **tokenizer(texts, padding=True, return_tensors="pt"),
        )
    cosines = (found.image_embeds * found.text_embeds).sum(-1)
    expected = (2.5 * cosines.clamp(min=0)).tolist()
    scores = make_reward("clip_score:model=emoji")(batch).values.tolist()
    assert scores == pytest.approx(expected, abs=5e-6)
    assert max(expected) > 0


def test_aesthetic_gives_the_numbers_of_plain_torch(clip: tuple[Any, Any]) -> None:
    from safetensors.torch import load_file

    head = load_file(JUDGES / "aesthetic_head" / "head.safetensors")
    layer = torch.nn.Linear(head["weight"].shape[1], 1)
    layer.load_state_dict(head)
    batch = samples(8, seed=5)
    with torch.no_grad():
        pixels = torch.stack([plain_pixels(image) for image in batch.images])
        features = clip[0].visual_projection(clip[0].vision_model(pixels).pooler_output)
        expected = layer(torch.nn.functional.normalize(features, dim=-1))[:, 0].tolist()
    scores = make_reward("aesthetic:model=emoji")(batch).values.tolist()
    assert scores == pytest.approx(expected, abs=5e-5)


def open_clip_state(model: Any) -> dict[str, torch.Tensor]:
    """The tensors of a `CLIPModel` under the names of open_clip, by its own conversion rules.

    open_clip stacks query, key and value, and stores projections transposed.
    """
    state = model.state_dict()
    found = {"logit_scale": state["logit_scale"]}
    vision = "vision_model.embeddings."
    found["visual.class_embedding"] = state[f"{vision}class_embedding"]
    found["visual.positional_embedding"] = state[f"{vision}position_embedding.weight"]
    found["visual.conv1.weight"] = state[f"{vision}patch_embedding.weight"]
    found["visual.proj"] = state["visual_projection.weight"].T
    found["text_projection"] = state["text_projection.weight"].T
    found["token_embedding.weight"] = state["text_model.embeddings.token_embedding.weight"]
    found["positional_embedding"] = state["text_model.embeddings.position_embedding.weight"]
    norms = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
    }
    blocks = {"visual.transformer": "vision_model", "transformer": "text_model"}
    for ours, theirs in blocks.items():
        depth = getattr(model.config, theirs.replace("model", "config")).num_hidden_layers
        for place in range(depth):
            new = f"{ours}.resblocks.{place}"
            old = f"{theirs}.encoder.layers.{place}"
            for kind in ("weight", "bias"):
                parts = [state[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                found[f"{new}.attn.in_proj_{kind}"] = torch.cat(parts)
            norms |= {
                f"{new}.attn.out_proj": f"{old}.self_attn.out_proj",
                f"{new}.ln_1": f"{old}.layer_norm1",
                f"{new}.ln_2": f"{old}.layer_norm2",
                f"{new}.mlp.c_fc": f"{old}.mlp.fc1",
                f"{new}.mlp.c_proj": f"{old}.mlp.fc2",
            }
    for new, old in norms.items():
        for kind in ("weight", "bias"):
            found[f"{new}.{kind}"] = state[f"{old}.{kind}"]
    return found


def test_clip_score_gives_the_cosine_of_open_clip(clip: tuple[Any, Any]) -> None:
    """open_clip has no config of this size, so the model is built from its classes with one."""
    open_clip = pytest.importorskip("open_clip")
    model, tokenizer = clip
    vision = model.config.vision_config
    text = model.config.text_config
    other = open_clip.CLIP(
        embed_dim=model.config.projection_dim,
        vision_cfg={
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "patch_size": vision.patch_size,
        },
        text_cfg={
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
        },
        quick_gelu=True,
    ).eval()
    missing = other.load_state_dict(open_clip_state(model), strict=False)
    assert missing.unexpected_keys == []
    assert [name for name in missing.missing_keys if name != "attn_mask"] == []
    batch = samples(8, seed=6)
    texts = [f"A photo depicts {prompt.text}" for prompt in batch.prompts]
    # open_clip reads the embedding at the highest token id, which is that of the end token
    ids = tokenizer(
        texts, padding="max_length", max_length=text.max_position_embeddings, return_tensors="pt"
    )["input_ids"]
    assert int(ids.max()) == text.eos_token_id
    pixels = torch.stack([plain_pixels(image) for image in batch.images])
    with torch.no_grad():
        cosines = (
            other.encode_image(pixels, normalize=True) * other.encode_text(ids, normalize=True)
        ).sum(-1)
    scores = make_reward("clip_score:model=emoji")(batch).values.tolist()
    assert scores == pytest.approx((2.5 * cosines.clamp(min=0)).tolist(), abs=5e-6)


@pytest.mark.parametrize("name", EMBEDDED_REWARDS)
def test_a_folder_is_scored_without_network_and_home(name: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for place, image in enumerate(samples(3).images):
        image.save(images / f"{place}.png")
        (images / f"{place}.txt").write_text(PROMPTS[place])
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = ["-m", "ddpo", "rewards", "score", embedded_name(name), str(images), "--json"]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "could not" not in done.stderr
    batch = samples(3)
    expected = make_reward(embedded_name(name))(replace_prompts(batch)).values.tolist()
    found = [value for value in _numbers(json.loads(done.stdout)) if not math.isnan(value)]
    assert all(any(abs(value - one) < 1e-4 for one in found) for value in expected)


def replace_prompts(batch: ImageBatch) -> ImageBatch:
    return ImageBatch.of_uint8(batch.uint8, tuple(map(Prompt, PROMPTS[: len(batch)])))


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in _numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in _numbers(one)]
    return [float(value)] if isinstance(value, (int, float)) else []
