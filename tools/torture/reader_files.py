"""The whole files that the trial of the readers damages, one of each kind.

run/ evaluation/    of a tiny training run and its evaluation
model/              configs, an index of shards and an adapter of peft
tables/             tables of users, captions, recipes and prompts
other/              a reference, a cache, a journal of scoring, cards, requests and replies
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from ddpo.rewards.cache import CachedScore, ScoreCache
from ddpo.rewards.cards import CARDS

__all__ = ["CACHE_KEY", "PICTURE", "copied_files", "made_files"]

CACHE_KEY = b"k" * 32
PICTURE = Image.new("RGB", (8, 8), (200, 30, 30))
COMFY = {
    "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "seed": 2**63}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": ["3", 0]}},
    "3": {"class_type": "String", "inputs": {"value": "a red cat"}},
}
RUN: dict[str, Any] = {
    "reward": "colorfulness",
    "held_out": "darkness",
    "iterations": 2,
    "checkpoint_every": 1,
    "grid_every": 9,
    "device": "cpu",
    "sample": {"samples": 4, "per_prompt": 2, "steps": 2, "guidance": 1.0},
    "optim": {"updates": 1, "skip_last": 1, "timesteps": 1},
    "adapt": {"rank": 1, "alpha": 1},
    "advantage": {"kind": "per_prompt"},
}


def made_files(folder: Path) -> None:
    """Files of this version in a new folder; takes about half a minute."""
    from ddpo.eval import evaluate
    from ddpo.trainer import config_from_dict, train

    folder.mkdir(parents=True)
    (folder / "prompts.txt").write_text("a cat\na dog\n")
    list(train(config_from_dict(RUN | {"prompts": "animals"}), folder / "run"))
    evaluate(
        checkpoints=(str(folder / "run"),),
        prompts=(str(folder / "prompts.txt"),),
        rewards=("colorfulness",),
        held_out=False,
        seeds=1,
        history=0,
        best_of=0,
        steps=2,
        device="cpu",
        out=folder / "evaluation",
    )
    _other_files(folder)


def copied_files(fixtures: Path, folder: Path) -> None:
    """The same with the run and the evaluation of an older version.

    Args:
        fixtures: folder of that version's files.
        folder: new folder.
    """
    shutil.copytree(fixtures / "runs" / "keeping", folder / "run")
    shutil.copytree(fixtures / "evaluation", folder / "evaluation")
    for name in ("config.json", "manifest.json"):  # a list of the package in place of a file
        path = folder / "run" / name
        path.write_text(path.read_text().replace("two_prompts.txt", "unseen_animals"))
    scores = [{"iteration": 1, "reward": "darkness@1", "scores": [[0.5, 0.25], [0.5, None]]}]
    scores.append(scores[0] | {"iteration": 2, "scores": [[0.25, 0.125], [0.25, 0.5]]})
    (folder / "run" / "held_out.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in scores)
    )
    (folder / "prompts.txt").write_text("a cat\na dog\n")
    _other_files(folder)


def _other_files(folder: Path) -> None:
    for name in ("model/unet", "model/scheduler", "model/adapter", "tables", "other"):
        (folder / name).mkdir(parents=True)
    _model_files(folder / "model")
    _tables(folder / "tables")
    _scores(folder / "other")


def _model_files(folder: Path) -> None:
    from importlib.resources import files

    weights = Path(str(files("ddpo.policies") / "emoji" / "weights"))
    for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        shutil.copyfile(weights / name, folder / name)
    shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({"conv_in.weight": torch.zeros(2, 2)}, folder / "unet" / shard)
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 16}, "weight_map": {"conv_in.weight": shard}})
    )
    encoder = {"layers": 2, "width": 8}
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": encoder, "text_cfg": encoder}}
    (folder / "open_clip.json").write_text(json.dumps(config | {"preprocess_cfg": {"mean": [0]}}))
    adapter = {
        f"base_model.model.{layer}.lora_A.weight": torch.ones(2, 4),
        f"base_model.model.{layer}.lora_B.weight": torch.ones(4, 2),
    }
    save_file(adapter, folder / "adapter" / "adapter_model.safetensors")
    (folder / "adapter" / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"to_q": 1}})
    )


def _tables(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"file_name": f"{n}.png", "prompt": f"a cat, {n}", "weight": n + 1} for n in range(4)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rows.json").write_text(json.dumps({"data": rows}))
    lines = ["file_name,prompt,weight", *(f'{n}.png,"a ""red"" cat, {n}",1' for n in range(4))]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    (folder / "rows.tsv").write_text("\n".join(lines).replace(",", "\t") + "\n")
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    pairs = [
        {"image_a": "a.png", "image_b": "b.png", "label": "a", "prompt": "a cat"},
        {"image_path": ["a.png", "b.png"], "rank": [1, 2], "prompt": "a cat"},
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "comfy.json").write_text(json.dumps(COMFY))
    (folder / "params.txt").write_text(json.dumps({"sui_image_params": {"prompt": "a cat"}}))
    (folder / "recipe.toml").write_text(
        'reward = "colorfulness"\niterations = 3\n[optim]\nlr = 1e-4\n[adapt]\ntargets = ["to_q"]\n'
    )
    (folder / "prompts.txt").write_text("# animals\na cat\na dog, sitting\n")
    caption = json.dumps({"prompt": "a cat", "metadata": {"count": 2}}).encode()
    picture = io.BytesIO()
    PICTURE.save(picture, "PNG")
    with tarfile.open(folder / "images.tar", "w") as tar:
        for name, data in (("0.png", picture.getvalue()), ("0.json", caption)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _scores(folder: Path) -> None:
    from ddpo.inputs.input_image import InputImage
    from ddpo.rewards.image_files.journal import TableJournal
    from ddpo.rewards.image_files.run import ScoreRow
    from ddpo.rewards.scoring.standardise import save_reference
    from ddpo.rewards.serve.wire import encode_batch, encode_output
    from ddpo.rewards.tools.calibrate import calibrate
    from ddpo.rewards.zoo import resolve
    from ddpo.types import ImageBatch, Prompt, RewardOutput

    images = []
    for number in range(3):
        path = folder / f"{number}.png"
        PICTURE.resize((8 + number, 8)).point(lambda level, n=number: level // (n + 1)).save(path)
        images.append(InputImage(str(path)))
    save_reference(calibrate(resolve("darkness"), images), folder / "reference.json")
    with TableJournal(folder / "journal", ["identity"]) as journal:
        for image in journal.watched(images):
            row = ScoreRow(image.file, None, "darkness", "scored", 0.5, None, {"part": 1.0})
            journal.append((row,))
    with ScoreCache(folder / "scores.sqlite", 1.0) as cache:
        cache.put("darkness", "identity", [(CACHE_KEY, CachedScore(0.5, {"a": 1.0, "b": 2.0}))])
    card = CARDS["aesthetic"]
    (folder / "card.json").write_text(json.dumps(card.to_dict()))
    batch = ImageBatch.of_images([PICTURE], [Prompt("a cat", {"count": 2})])
    (folder / "request.json").write_bytes(encode_batch(batch, card))
    output = RewardOutput(torch.tensor([0.5]), {"part": torch.tensor([1.0])}, (None,))
    reply = encode_output(output, "signature", "identity")
    (folder / "reply.json").write_text(json.dumps(reply))
    limits = {"body_bytes": 2**20, "pixels": 2**20}
    facts = {"api": 1, "signature": "signature", "identity": "identity", "limits": limits}
    (folder / "served.json").write_text(json.dumps(facts | {"card": asdict(card)}))
    tops = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -2.5}]
    choice = {
        "message": {"content": "yes"},
        "logprobs": {"content": [{"token": "Yes", "top_logprobs": tops}]},
    }
    (folder / "answer.json").write_text(json.dumps({"choices": [choice]}))
