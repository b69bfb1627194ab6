"""The readers of ddpo's files: the modules that they test, the file they read, and how."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutations import Damage, damaged_bytes, damaged_json, damaged_lines, damaged_tensors
from reader_files import CACHE_KEY, PICTURE

__all__ = ["EXEMPT", "READERS", "Reader"]

Read = Callable[[Path], object]

EXEMPT = {
    "ddpo/rewards/check/card.py": "output of a child process of our own",
    "ddpo/rewards/tools/doctor.py": "output of a child process of our own",
    "ddpo/prompts/nouns.py": "a file of the package",
    "ddpo/recipes/__init__.py": "a file of the package",
    "ddpo/policies/emoji/vocabulary.py": "a file of the package",
    "ddpo/doctor/random_policies.py": "a file of the package",
    "ddpo/trainer/config.py": "its own text",
    "ddpo/trainer/run/manifest.py": "its own text",
    "ddpo/rewards/models/imagereward.py": "a config beside weights whose SHA-256 is known",
    "ddpo/rewards/models/nsfw.py": "a config beside weights that transformers reads",
    "ddpo/io/fields.py": "no reader",
}
"""Modules that call a parser but read no file of ours → the reason."""


@dataclass(frozen=True)
class Reader:
    """A reader with the file that is damaged.

    Attributes:
        name: its name.
        modules: modules that parse there, as paths from the root of the repository.
        file: the damaged file, from the folder of `reader_files`.
        damage: function that damages it.
        prepare: function of the folder that returns the function that reads the file.
        share: share of the inputs; slow readers get less.
    """

    name: str
    modules: tuple[str, ...]
    file: str
    damage: Damage
    prepare: Callable[[Path], Read]
    share: float = 1.0


def _plain(read: Read) -> Callable[[Path], Read]:
    """A reader that needs nothing else."""
    return lambda place: read


def _config(place: Path) -> Read:
    from ddpo.trainer.run.folder import RunFolder

    return lambda file: RunFolder(place / "run").config()


def _resumed(place: Path) -> Read:
    from ddpo.trainer.run.folder import RunFolder
    from ddpo.trainer.run.resume import base_model, merged_config

    def read(file: Path) -> object:
        run = RunFolder(place / "run")
        return base_model(run, {}), merged_config(run, {"iterations": 3})

    return read


def _unchanged(place: Path) -> Read:
    from ddpo.prompts import load_prompts
    from ddpo.rewards.zoo import resolve
    from ddpo.trainer.run.folder import RunFolder
    from ddpo.trainer.run.manifest import check_unchanged

    run = RunFolder(place / "run")
    config = run.config()
    reward = resolve(config.reward)
    prompts = load_prompts("animals")

    def read(file: Path) -> None:
        check_unchanged(run.manifest(), config, reward, prompts, {"model": "ddpo"})

    return read


def _card_of_model(place: Path) -> Read:
    from ddpo.policies.checkpoints.folder import find_checkpoint
    from ddpo.trainer.run.model_card import model_card

    info = find_checkpoint(place / "run")
    return lambda file: model_card(info, whole=False)


def _metrics(place: Path) -> Read:
    from ddpo.eval.inputs.runs import read_curve
    from ddpo.trainer.run.folder import RunFolder

    run = RunFolder(place / "run")
    return lambda file: (read_curve(file), run.metrics())


def _curve(place: Path) -> Read:
    import io

    from rich.console import Console

    from ddpo.cli.training_display import TrainingDisplay, sparkline

    def read(file: Path) -> object:
        display = TrainingDisplay(place / "run", Console(file=io.StringIO()))
        display._read_curve()
        return sparkline(display.rewards), sparkline(display.held_out)

    return read


def _state(place: Path) -> Read:
    from ddpo.trainer.run.folder import RunFolder

    return lambda file: RunFolder(place / "run").load_state()


def _training_state(place: Path) -> Read:
    from ddpo.distributed import ALONE
    from ddpo.trainer.adapted import adapted_policy
    from ddpo.trainer.run.folder import RunFolder
    from ddpo.trainer.state import TrainingState

    run = RunFolder(place / "run")
    config = run.config()
    state = TrainingState(adapted_policy(config, "cpu", "emoji"), config, ALONE)

    def read(file: Path) -> None:
        done, tensors, statistics = run.load_state()
        if done:
            state.load(tensors, statistics)

    return read


def _best(place: Path) -> Read:
    from ddpo.policies.checkpoints.folder import find_checkpoint
    from ddpo.trainer.run.checkpoints import prune

    def read(file: Path) -> object:
        prune(place / "run" / "checkpoints", 99)
        return find_checkpoint(place / "run" / "best")

    return read


def _checkpoint(place: Path) -> Read:
    from ddpo.policies.checkpoints.folder import find_checkpoint

    return lambda file: find_checkpoint(file.parent)


def _lora(place: Path) -> Read:
    from ddpo.policies.base_model import layer_shapes
    from ddpo.policies.checkpoints.folder import CheckpointInfo
    from ddpo.policies.checkpoints.lora import check_lora
    from ddpo.policies.checkpoints.own import own_lora

    shapes = layer_shapes("emoji")
    folder = place / "run/checkpoints/iteration-000001"
    policy = json.loads((folder / "policy.json").read_text())

    def read(file: Path) -> None:
        info = CheckpointInfo(folder, "emoji", "lora", 1, None, policy["adapter"], file)
        check_lora(own_lora(info), shapes.__getitem__, file, "emoji")

    return read


def _external(place: Path) -> Read:
    from ddpo.policies.checkpoints.external import recognise

    return lambda file: recognise(file.parent)


def _unet_config(place: Path) -> Read:
    from ddpo.policies import load_policy
    from ddpo.policies.checkpoints.external import recognise
    from ddpo.policies.checkpoints.unet import check_unet

    unet: Any = load_policy("emoji", device="cpu")

    def read(file: Path) -> None:
        recognise(file.parent)
        check_unet(unet.unet, file.parent, "emoji")

    return read


def _scheduler(place: Path) -> Read:
    from ddpo.policies import load_policy
    from ddpo.policies.checkpoints.unet import check_pipeline

    policy: Any = load_policy("emoji", device="cpu")
    return lambda file: check_pipeline(file.parent.parent, {}, policy.schedule, "emoji")


def _model(place: Path) -> Read:
    from ddpo.policies.base_model import open_model

    def read(file: Path) -> object:
        model = open_model(str(place / "model"))
        return model.pipeline, model.config("unet"), model.config("scheduler"), model.names("vae")

    return read


def _shards(place: Path) -> Read:
    from ddpo.policies.base_model import layer_shapes
    from ddpo.policies.model_files import weight_files

    return lambda file: (weight_files(file.parent), layer_shapes(str(place / "model")))


def _run_facts(place: Path) -> Read:
    from ddpo.eval.inputs.runs import read_run

    def read(file: Path) -> object:
        run = read_run(place / "run")
        return run.trained_on, run.training_seed, run.queries(1), run.recipe

    return read


def _image_store(place: Path) -> Read:
    from ddpo.eval.generate.image_store import ImageStore
    from ddpo.eval.generate.probe import features_of

    def read(file: Path) -> object:
        with ImageStore(place / "evaluation") as store:
            return [features_of(one.facts) for one in store._known.values()]

    return read


def _score_journal(place: Path) -> Read:
    from ddpo.eval.generate.scoring import ScoreJournal

    def read(file: Path) -> None:
        with ScoreJournal(place / "evaluation") as journal:
            journal.reload()

    return read


def _floors(place: Path) -> Read:
    from ddpo.eval.analysis.noise_floor import NoiseFloors
    from ddpo.types import Prompt

    images = [("0" * 64, Prompt("a cat"))]
    return lambda file: NoiseFloors(place / "evaluation", images).value("identity")


def _report(file: Path) -> object:
    from ddpo.eval.report.data import load_report

    return load_report(file)


def _samples(file: Path) -> object:
    from ddpo.eval.generate.samples import read_samples

    return read_samples(file)


def _reference(file: Path) -> object:
    from ddpo.rewards.scoring.standardise import load_reference

    return load_reference(file)


def _reward_card(file: Path) -> object:
    from ddpo.errors import UserError
    from ddpo.io.json_files import JsonError, parse_foreign
    from ddpo.rewards.card import RewardCard

    try:
        values = parse_foreign(file.read_bytes())
    except JsonError as error:
        raise UserError(str(error)) from error
    return RewardCard.from_dict(values).fingerprint() if isinstance(values, dict) else None


def _request(file: Path) -> object:
    from ddpo.rewards.serve.wire import Limits, decode_batch

    return decode_batch(file.read_bytes(), Limits())


def _served(place: Path) -> Read:
    from reader_server import answering

    from ddpo.rewards.serve.client import RemoteReward
    from ddpo.types import ImageBatch, Prompt

    batch = ImageBatch.of_images([PICTURE], [Prompt("a cat")])
    other = place / "other"
    address = answering({"/card": other / "served.json", "/score": other / "reply.json"})
    return lambda file: RemoteReward(f"{address}/aesthetic")(batch)


def _asked(place: Path) -> Read:
    from reader_server import answering

    from ddpo.errors import DdpoError
    from ddpo.rewards.vlm.protocol import NoLogProbs, UnusableAnswer
    from ddpo.rewards.vlm.server import ServerVlm

    vlm = ServerVlm(answering({"": place / "other" / "answer.json"}), "model", 5.0)

    def read(file: Path) -> None:
        with suppress(NoLogProbs, UnusableAnswer, DdpoError):
            vlm.answer(PICTURE, "?", 9)
        with suppress(NoLogProbs, UnusableAnswer, DdpoError):
            vlm.first_token_logprobs(PICTURE, "?")

    return read


def _cache(file: Path) -> object:
    from ddpo.rewards.cache import ScoreCache

    with ScoreCache(file, 1.0) as cache:
        found = cache.get([CACHE_KEY])
    for left in file.parent.glob(f"{file.name}*"):
        if left != file:
            left.unlink()
    return found


def _cache_row(file: Path) -> object:
    from ddpo.rewards.cache.rows import _checksum, unpack

    data = file.read_bytes()
    value = data[:4].ljust(4, b"\0")
    parts = struct.pack("<I", len(data) % 4) + data
    return unpack(CACHE_KEY, value, parts, _checksum(CACHE_KEY, value, parts))


def _table_journal(place: Path) -> Read:
    from ddpo.inputs.input_image import InputImage
    from ddpo.rewards.image_files.journal import TableJournal

    names = [json.loads(line).get("file") for line in (place / "other/journal").open()][1:]
    images = [InputImage(name) for name in names]

    def read(file: Path) -> object:
        with TableJournal(file, ["identity"]) as journal:
            done, rest = journal.resume(images)
            return list(done), list(rest), list(journal.rows())

    return read


def _each(read: Callable[[Path], Iterable[object]]) -> Callable[[Path], Read]:
    return lambda place: lambda file: list(read(file))


def _table(file: Path) -> Iterable[object]:
    from ddpo.inputs.tables import read_table

    return read_table(file)


def _prompt_table(file: Path) -> Iterable[object]:
    from ddpo.inputs.image_tables import PromptTable

    return PromptTable(file).rows


def _prompts(file: Path) -> Iterable[object]:
    from ddpo.prompts import load_prompts

    return load_prompts(str(file)).prompts


def _pairs(file: Path) -> Iterable[object]:
    from ddpo.reward_quality.preference_file import read_preferences

    return read_preferences(file)


def _archive(file: Path) -> Iterable[object]:
    from ddpo.inputs.archives import ArchivedImages

    return ArchivedImages(file)


def _caption(file: Path) -> object:
    from ddpo.inputs.captions import prompt_of_comfy, prompt_of_parameters

    text = file.read_bytes().decode("utf-8", "replace")
    return prompt_of_comfy(text), prompt_of_parameters(text)


def _recipe(file: Path) -> object:
    from ddpo.trainer.recipe import config_from_dict, read_recipe

    return config_from_dict(read_recipe(file))


def _open_clip(file: Path) -> object:
    from ddpo.rewards.models.open_clip_source import _read_config

    return _read_config(file)


JSON_FILES = "ddpo/io/json_files.py"
FOLDER = "ddpo/trainer/run/folder.py"
TENSORS = "ddpo/io/tensors.py"
RUNS = "ddpo/eval/inputs/runs.py"
TABLES = ("ddpo/inputs/tables.py", "ddpo/inputs/json_rows.py", "ddpo/inputs/columns.py")
LORA = ("ddpo/policies/checkpoints/lora.py", "ddpo/policies/checkpoints/own.py", TENSORS)
CHECKPOINT = "run/checkpoints/iteration-000001"

READERS: tuple[Reader, ...] = (
    Reader("config.json", (FOLDER, JSON_FILES), "run/config.json", damaged_json, _config, 3),
    Reader("config.json at --resume", (FOLDER,), "run/config.json", damaged_json, _resumed),
    Reader("manifest.json at --resume", (FOLDER,), "run/manifest.json", damaged_json, _resumed),
    Reader("manifest.json, compared", (FOLDER,), "run/manifest.json", damaged_json, _unchanged),
    Reader("manifest.json at export", (FOLDER,), "run/manifest.json", damaged_json, _card_of_model),
    Reader("config.json at eval", (RUNS,), "run/config.json", damaged_json, _run_facts, 2),
    Reader("manifest.json at eval", (RUNS,), "run/manifest.json", damaged_json, _run_facts, 2),
    Reader("metrics.jsonl", (RUNS, FOLDER), "run/metrics.jsonl", damaged_lines, _metrics, 3),
    Reader(
        "metrics.jsonl on the terminal",
        ("ddpo/cli/training_display.py",),
        "run/metrics.jsonl",
        damaged_lines,
        _curve,
    ),
    Reader("metrics.jsonl at export", (), "run/metrics.jsonl", damaged_lines, _card_of_model),
    Reader("state", (TENSORS, FOLDER), "run/state/state.safetensors", damaged_tensors, _state, 0.5),
    Reader(
        "state at --resume",
        ("ddpo/trainer/state.py",),
        "run/state/state.safetensors",
        damaged_tensors,
        _training_state,
        0.2,
    ),
    Reader(
        "best.json",
        ("ddpo/trainer/run/checkpoints.py", "ddpo/policies/checkpoints/folder.py"),
        "run/checkpoints/best.json",
        damaged_json,
        _best,
        2,
    ),
    Reader("policy.json", (), f"{CHECKPOINT}/policy.json", damaged_json, _checkpoint, 2),
    Reader(
        "LoRA", LORA, f"{CHECKPOINT}/pytorch_lora_weights.safetensors", damaged_tensors, _lora, 0.1
    ),
    Reader(
        "LoRA of peft",
        ("ddpo/policies/checkpoints/external.py",),
        "model/adapter/adapter_model.safetensors",
        damaged_tensors,
        _external,
        0.3,
    ),
    Reader(
        "config of peft", LORA, "model/adapter/adapter_config.json", damaged_json, _external, 0.3
    ),
    Reader(
        "config of a UNet",
        ("ddpo/policies/checkpoints/unet.py",),
        "model/unet/config.json",
        damaged_json,
        _unet_config,
    ),
    Reader(
        "config of a scheduler",
        ("ddpo/policies/transition.py",),
        "model/scheduler/scheduler_config.json",
        damaged_json,
        _scheduler,
        0.3,
    ),
    Reader(
        "model_index.json",
        ("ddpo/policies/base_model.py", "ddpo/policies/model_files.py"),
        "model/model_index.json",
        damaged_json,
        _model,
    ),
    Reader("config of a model", (), "model/unet/config.json", damaged_json, _model),
    Reader(
        "index of shards",
        ("ddpo/policies/model_files.py",),
        "model/unet/diffusion_pytorch_model.safetensors.index.json",
        damaged_json,
        _shards,
    ),
    Reader(
        "shard",
        (TENSORS,),
        "model/unet/diffusion_pytorch_model-00001-of-00001.safetensors",
        damaged_tensors,
        _shards,
    ),
    Reader(
        "journal of images",
        ("ddpo/eval/generate/image_store.py", "ddpo/io/journal.py"),
        "evaluation/images/journal-0.jsonl",
        damaged_lines,
        _image_store,
        2,
    ),
    Reader(
        "journal of scores",
        ("ddpo/eval/generate/scoring.py",),
        "evaluation/scores-0.jsonl",
        damaged_lines,
        _score_journal,
        2,
    ),
    Reader(
        "noise_floors.json",
        ("ddpo/eval/analysis/noise_floor.py",),
        "evaluation/noise_floors.json",
        damaged_json,
        _floors,
        2,
    ),
    Reader(
        "report.json",
        ("ddpo/eval/report/data.py", "ddpo/io/records.py"),
        "evaluation/report.json",
        damaged_json,
        _plain(_report),
        0.3,
    ),
    Reader(
        "samples.parquet",
        ("ddpo/eval/generate/samples.py",),
        "evaluation/samples.parquet",
        damaged_bytes,
        _plain(_samples),
        0.5,
    ),
    Reader(
        "reference.json",
        ("ddpo/rewards/scoring/standardise.py",),
        "other/reference.json",
        damaged_json,
        _plain(_reference),
        2,
    ),
    Reader(
        "card of a reward",
        ("ddpo/rewards/card.py",),
        "other/card.json",
        damaged_json,
        _plain(_reward_card),
        2,
    ),
    Reader(
        "request to a server",
        ("ddpo/rewards/serve/wire.py",),
        "other/request.json",
        damaged_json,
        _plain(_request),
    ),
    Reader(
        "card of a server",
        ("ddpo/rewards/serve/client.py",),
        "other/served.json",
        damaged_json,
        _served,
        0.1,
    ),
    Reader("reply of a server", (), "other/reply.json", damaged_json, _served, 0.1),
    Reader(
        "answer of a vision-language server",
        ("ddpo/rewards/vlm/server.py",),
        "other/answer.json",
        damaged_json,
        _asked,
        0.1,
    ),
    Reader("cache", (), "other/scores.sqlite", damaged_bytes, _plain(_cache), 0.03),
    Reader(
        "row of the cache",
        ("ddpo/rewards/cache/rows.py",),
        "other/reply.json",
        damaged_bytes,
        _plain(_cache_row),
    ),
    Reader(
        "journal of a table",
        ("ddpo/rewards/image_files/journal.py", "ddpo/io/journal.py"),
        "other/journal",
        damaged_lines,
        _table_journal,
        0.5,
    ),
    Reader("table .jsonl", TABLES, "tables/rows.jsonl", damaged_lines, _each(_table)),
    Reader("table .json", TABLES, "tables/rows.json", damaged_json, _each(_table)),
    Reader("table .csv", TABLES, "tables/rows.csv", damaged_bytes, _each(_table)),
    Reader("table .tsv", TABLES, "tables/rows.tsv", damaged_bytes, _each(_table)),
    Reader("table .parquet", TABLES, "tables/rows.parquet", damaged_bytes, _each(_table), 0.3),
    Reader("prompts of images", TABLES, "tables/rows.jsonl", damaged_lines, _each(_prompt_table)),
    Reader(
        "prompts .jsonl",
        ("ddpo/prompts/__init__.py",),
        "tables/rows.jsonl",
        damaged_lines,
        _each(_prompts),
    ),
    Reader("prompts .txt", (), "tables/prompts.txt", damaged_bytes, _each(_prompts)),
    Reader(
        "preferences",
        ("ddpo/reward_quality/preference_file.py",),
        "tables/pairs.jsonl",
        damaged_lines,
        _each(_pairs),
    ),
    Reader(
        "archive",
        ("ddpo/inputs/archives.py",),
        "tables/images.tar",
        damaged_bytes,
        _each(_archive),
        0.5,
    ),
    Reader(
        "graph of ComfyUI",
        ("ddpo/inputs/captions.py",),
        "tables/comfy.json",
        damaged_json,
        _plain(_caption),
    ),
    Reader("parameters of SwarmUI", (), "tables/params.txt", damaged_json, _plain(_caption)),
    Reader(
        "recipe",
        ("ddpo/trainer/recipe.py",),
        "tables/recipe.toml",
        damaged_bytes,
        _plain(_recipe),
        0.5,
    ),
    Reader(
        "config of OpenCLIP",
        ("ddpo/rewards/models/open_clip_source.py",),
        "model/open_clip.json",
        damaged_json,
        _plain(_open_clip),
    ),
)
