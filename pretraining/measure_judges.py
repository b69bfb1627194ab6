"""Measures of the judges: `python -m pretraining.measure_judges --judges FOLDER --out FOLDER`.

`--judges` holds a folder per trained judge, as their modules write it. Each judge present is
measured on new renderings, by kind of scene, under the conditions of `CONDITIONS`, through the code
of the rewards where that is possible. Writes `measures.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpo.images import to_pil
from ddpo.io.atomic import write_json
from ddpo.rewards.models.bertscore import BertScore
from ddpo.rewards.models.clip_score import PREFIX
from ddpo.rewards.models.laion_head import head_scores, read_head
from ddpo.rewards.models.scene_detector import load_detector
from ddpo.rewards.scenes.checks import credits_of
from ddpo.rewards.scenes.grammar import KINDS, Scene, caption, scene_of, shared_facts
from ddpo.rewards.vlm import jpeg80, open_vlm
from pretraining import sentence_encoder
from pretraining.aesthetic_head import DEGRADATIONS, degraded, embeddings
from pretraining.augmentation import Autoencoder, glyph_recolor
from pretraining.captioner import QUESTIONS
from pretraining.judge import blur
from pretraining.judge_training import say
from pretraining.scene_batches import to_tensor
from pretraining.scene_renderer import SceneRenderer
from pretraining.scene_sampling import changed, random_scene
from pretraining.sentence_encoder import scene_pair

KEY: Final = 99  # apart from the keys of training
OTHERS: Final = 15  # false captions beside the true one
ERASED: Final = 0.5
CONDITIONS: Final = ("renderings", "reconstructions", "blurred", "recolored", "half_erased")


class Conditions:
    """Renderings of random scenes of one kind, under one condition.

    Args:
        renderer: Renderer of the scenes.
        model: Name or folder of the model whose autoencoder rebuilds images.
    """

    def __init__(self, renderer: SceneRenderer, model: str = "emoji") -> None:
        self.renderer = renderer
        self.autoencoder = Autoencoder(model)

    def images(
        self, condition: str, kind: str, count: int
    ) -> tuple[list[Image.Image], list[Scene]]:
        """Images and their complete scenes; the scenes are the same under each condition."""
        drawn = []
        for index in range(count):
            rng = np.random.default_rng([KEY, KINDS.index(kind), index])
            recolor = None
            if condition == "recolored":
                recolor = glyph_recolor(np.random.default_rng([KEY, index]), 1.0)
            drawn.append(self.renderer.draw_scene(random_scene(rng, kind), rng, recolor))
        pixels = to_tensor(drawn)
        if condition == "reconstructions":
            pixels = self.autoencoder.rebuild(pixels)
        if condition == "blurred":
            pixels = blur(pixels, 2.0)
        if condition == "half_erased":
            pixels[..., : round(ERASED * pixels.shape[-1])] = 0.5
        return to_pil(pixels), [image.shown for image in drawn]


def measure_dual_encoder(folder: Path, conditions: Conditions, count: int) -> dict[str, Any]:
    """By condition and kind: share of images nearer to the true caption than to 15 false ones.

    Eight of the false captions differ in one detail, and seven are of other scenes of the kind.
    """
    from transformers import CLIPModel, CLIPTokenizer

    model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer: Any = CLIPTokenizer.from_pretrained(folder)

    def share(condition: str, kind: str) -> float:
        images, shown = conditions.images(condition, kind, count)
        features = embeddings(model, images)
        right = 0
        for index, (feature, scene) in enumerate(zip(features, shown, strict=True)):
            texts = [PREFIX + caption(one) for one in (scene, *_false(scene, kind, index))]
            ids = torch.tensor(tokenizer(texts, padding=True).input_ids)
            with torch.no_grad():
                encoded = model.text_projection(model.text_model(input_ids=ids).pooler_output)
            cosines = torch.nn.functional.normalize(encoded.double(), dim=-1) @ feature
            right += int(cosines.argmax()) == 0
        return right / count

    return _table(share)


def _false(scene: Scene, kind: str, index: int) -> Iterator[Scene]:
    rng = np.random.default_rng([KEY, 1, index])
    for place in range(OTHERS):
        if place < 8:
            yield changed(scene, scene, rng)
        else:
            yield changed(random_scene(rng, kind), scene, rng)


def measure_captioner(folder: Path, conditions: Conditions, count: int) -> dict[str, Any]:
    """By condition and kind: share of the facts shown that the answer states, and of exact answers.

    The reward `alignment` sends images through JPEG of quality 80, and so does this.
    """
    vlm = open_vlm(str(folder))
    answers: dict[tuple[str, str], list[tuple[str, Scene]]] = {}

    def answered(condition: str, kind: str) -> list[tuple[str, Scene]]:
        if (condition, kind) not in answers:
            images, shown = conditions.images(condition, kind, count)
            texts = [vlm.answer(jpeg80(image), QUESTIONS[0], 64) for image in images]
            answers[condition, kind] = list(zip(texts, shown, strict=True))
        return answers[condition, kind]

    def stated(condition: str, kind: str) -> float:
        return float(
            np.mean([stated_share(text, scene) for text, scene in answered(condition, kind)])
        )

    def exact(condition: str, kind: str) -> float:
        return float(np.mean([text == caption(scene) for text, scene in answered(condition, kind)]))

    examples = {
        kind: [[t, caption(s)] for t, s in answered("renderings", kind)[:4]] for kind in KINDS
    }
    return {"facts_stated": _table(stated), "exact": _table(exact), "examples": examples}


def stated_share(text: str, shown: Scene) -> float:
    """The share of the facts shown that an answer states; 0 for one outside the grammar."""
    try:
        return shared_facts(shown, scene_of(text))
    except ValueError:
        return 0.0


def measure_scene_detector(file: Path, conditions: Conditions, count: int) -> dict[str, Any]:
    """By condition and kind: share of images of which every detail is read right.

    The details are each thing in its number, the colours, the position, the activity and the
    ground, and that nothing else is there.
    """
    detector = load_detector(file)

    def right(condition: str, kind: str) -> float:
        images, shown = conditions.images(condition, kind, count)
        found = zip(shown, detector.read(images), strict=True)
        return float(np.mean([credits_of(scene, seen).is_right for scene, seen in found]))

    return _table(right)


def measure_sentence_encoder(folder: Path, count: int) -> dict[str, float]:
    """Rank correlation of BERTScore's recall with the share of facts, and ordered triples.

    A triple has a sentence, and two others that share more and fewer of its facts.
    """
    from scipy.stats import spearmanr

    scorer = BertScore(str(folder), sentence_encoder.LAYERS)
    shares = []
    recalls = []
    triples = []
    for index in range(count):
        rng = np.random.default_rng([KEY, 2, index])
        first, second = scene_pair(rng)
        third = random_scene(rng)
        found = []
        for other in (second, third):
            match = scorer.score(caption(other), f"The image contains {caption(first)}")
            shares.append(shared_facts(first, other))
            recalls.append(match.recall)
            found.append((shares[-1], recalls[-1]))
        (near, high), (far, low) = found
        if near != far:
            triples.append((near > far) == (high > low))
    return {
        "rank_correlation": float(spearmanr(shares, recalls).statistic),
        "ordered_triples": float(np.mean(triples)),
        "root_mean_square_error": float(np.sqrt(np.mean((np.array(shares) - recalls) ** 2))),
    }


def measure_aesthetic_head(
    head: Path, clip: Path, renderer: SceneRenderer, count: int
) -> dict[str, float]:
    """By degradation: share of renderings above their degraded copy of medium strength."""
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(clip, dtype=torch.float32).eval()
    weight, bias = read_head(head, "aesthetic")
    rng = np.random.default_rng([KEY, 3])
    clean = to_tensor([renderer.draw_scene(random_scene(rng), rng) for _ in range(count)])

    def scores(pixels: Tensor) -> Tensor:
        return head_scores(embeddings(model, to_pil(pixels)), weight, bias)

    whole = scores(clean)
    found = {"mean_of_renderings": float(whole.mean())}
    for name in DEGRADATIONS:
        worse = torch.stack([degraded(image, name, 0.5, rng) for image in clean])
        found[name] = float((whole > scores(worse)).double().mean())
    return found


def _table(measure: Callable[[str, str], float]) -> dict[str, dict[str, float]]:
    """Condition → kind → measure, with the mean over kinds under "mean"."""
    table = {}
    for condition in CONDITIONS:
        row = {kind: measure(condition, kind) for kind in KINDS}
        table[condition] = {**row, "mean": float(np.mean(list(row.values())))}
        say(f"{condition}: {json.dumps(table[condition])}")
    return table


def is_finished(folder: Path) -> bool:
    """True if the folder has a judge's weights."""
    return (folder / "model.safetensors").is_file()


def main(given: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judges", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64, help="images per kind and condition")
    parser.add_argument("--font", type=Path, default=None)
    parser.add_argument("--model", default="emoji", help="model whose autoencoder rebuilds images")
    options = parser.parse_args(given)
    folders = {name: options.judges / name / "judge" for name in ("dual_encoder", "captioner")}
    sentences = options.judges / "sentence_encoder" / "judge"
    head = options.judges / "aesthetic_head" / "head.safetensors"
    renderer = SceneRenderer(options.font)
    conditions = Conditions(renderer, options.model)
    detector = options.judges / "scene_detector" / "judge" / "model.safetensors"
    found: dict[str, Any] = {}
    if is_finished(folders["dual_encoder"]):
        found["dual_encoder"] = measure_dual_encoder(
            folders["dual_encoder"], conditions, options.count
        )
    if is_finished(sentences):
        found["sentence_encoder"] = measure_sentence_encoder(sentences, 8 * options.count)
        say(json.dumps(found["sentence_encoder"]))
    if is_finished(folders["captioner"]):
        found["captioner"] = measure_captioner(folders["captioner"], conditions, options.count)
    if detector.is_file():
        found["scene_detector"] = measure_scene_detector(detector, conditions, options.count)
    if head.is_file():
        found["aesthetic_head"] = measure_aesthetic_head(
            head, folders["dual_encoder"], renderer, 4 * options.count
        )
        say(json.dumps(found["aesthetic_head"]))
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "measures.json", found)


if __name__ == "__main__":
    main()
