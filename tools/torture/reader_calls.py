"""Calls of the readers: functions of the folder of files that return a function of one file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from reader_files import CACHE_KEY, PICTURE

Read = Callable[[Path], object]


def plain(read: Read) -> Callable[[Path], Read]:
    """A reader that needs nothing else."""
    return lambda place: read


def config(place: Path) -> Read:
    from ddpo.trainer.run.folder import RunFolder

    return lambda file: RunFolder(place / "run").config()


def resumed(place: Path) -> Read:
    from ddpo.trainer.run.folder import RunFolder
    from ddpo.trainer.run.resume import base_model, merged_config

    def read(file: Path) -> object:
        run = RunFolder(place / "run")
        return base_model(run, {}), merged_config(run, {"iterations": 3})

    return read


def unchanged(place: Path) -> Read:
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


def card_of_model(place: Path) -> Read:
    from ddpo.policies.checkpoints.folder import find_checkpoint
    from ddpo.trainer.run.model_card import model_card

    info = find_checkpoint(place / "run")
    return lambda file: model_card(info, whole=False)


def metrics(place: Path) -> Read:
    from ddpo.eval.inputs.runs import read_curve
    from ddpo.trainer.run.folder import RunFolder

    run = RunFolder(place / "run")
    return lambda file: (read_curve(file), run.metrics())


def held_out(place: Path) -> Read:
    from ddpo.trainer.run.stopping import find_fall, read_scores

    return lambda file: find_fall(read_scores(file.parent), patience=2)


def curve(place: Path) -> Read:
    import io

    from rich.console import Console

    from ddpo.cli.training_display import TrainingDisplay, sparkline

    def read(file: Path) -> object:
        display = TrainingDisplay(place / "run", Console(file=io.StringIO()))
        display._read_curve()
        return sparkline(display.rewards), sparkline(display.held_out)

    return read


def state(place: Path) -> Read:
    from ddpo.trainer.run.folder import RunFolder

    return lambda file: RunFolder(place / "run").load_state()


def training_state(place: Path) -> Read:
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


def best(place: Path) -> Read:
    from ddpo.policies.checkpoints.folder import find_checkpoint
    from ddpo.trainer.run.checkpoints import prune

    def read(file: Path) -> object:
        prune(place / "run" / "checkpoints", 99)
        return find_checkpoint(place / "run" / "best")

    return read


def checkpoint(place: Path) -> Read:
    from ddpo.policies.checkpoints.folder import find_checkpoint

    return lambda file: find_checkpoint(file.parent)


def lora(place: Path) -> Read:
    from ddpo.policies.checkpoints.folder import CheckpointInfo
    from ddpo.policies.checkpoints.lora import check_lora
    from ddpo.policies.checkpoints.own import own_lora
    from ddpo.policies.layer_shapes import layer_shapes

    shapes = layer_shapes("emoji")
    folder = place / "run/checkpoints/iteration-000001"
    policy = json.loads((folder / "policy.json").read_text())

    def read(file: Path) -> None:
        info = CheckpointInfo(folder, "emoji", "lora", 1, None, policy["adapter"], file)
        check_lora(own_lora(info), shapes.__getitem__, file, "emoji")

    return read


def external(place: Path) -> Read:
    from ddpo.policies.checkpoints.external import recognise

    return lambda file: recognise(file.parent)


def unet_config(place: Path) -> Read:
    from ddpo.policies import load_policy
    from ddpo.policies.checkpoints.denoiser import check_denoiser
    from ddpo.policies.checkpoints.external import recognise

    unet: Any = load_policy("emoji", device="cpu")

    def read(file: Path) -> None:
        recognise(file.parent)
        check_denoiser(unet.unet, file.parent, "emoji")

    return read


def scheduler(place: Path) -> Read:
    from ddpo.policies import load_policy
    from ddpo.policies.checkpoints.denoiser import check_pipeline

    policy: Any = load_policy("emoji", device="cpu")
    return lambda file: check_pipeline(file.parent.parent, {}, policy.schedule, "emoji")


def model(place: Path) -> Read:
    from ddpo.policies.base_model import open_model

    def read(file: Path) -> object:
        model = open_model(str(place / "model"))
        return model.pipeline, model.config("unet"), model.config("scheduler"), model.names("vae")

    return read


def shards(place: Path) -> Read:
    from ddpo.policies.layer_shapes import layer_shapes
    from ddpo.policies.model_files import weight_files

    return lambda file: (weight_files(file.parent), layer_shapes(str(place / "model")))


def fetched_shards(place: Path) -> Read:
    from ddpo.rewards.tools.repository_parts import has_weights

    return lambda file: has_weights(file.parent)


def run_facts(place: Path) -> Read:
    from ddpo.eval.inputs.runs import read_run

    def read(file: Path) -> object:
        run = read_run(place / "run")
        return run.trained_on, run.training_seed, run.queries(1), run.recipe

    return read


def image_store(place: Path) -> Read:
    from ddpo.eval.generate.image_store import ImageStore
    from ddpo.eval.generate.probe import features_of

    def read(file: Path) -> object:
        with ImageStore(place / "evaluation") as store:
            return [features_of(one.facts) for one in store._known.values()]

    return read


def score_journal(place: Path) -> Read:
    from ddpo.eval.generate.scoring import ScoreJournal

    def read(file: Path) -> None:
        with ScoreJournal(place / "evaluation") as journal:
            journal.reload()

    return read


def floors(place: Path) -> Read:
    from ddpo.eval.analysis.noise_floor import NoiseFloors
    from ddpo.rewards.zoo import resolve
    from ddpo.types import Prompt

    images = [("0" * 64, Prompt("a cat"))]
    reward = resolve("darkness")
    return lambda file: NoiseFloors(place / "evaluation", images).value(reward)


def report(file: Path) -> object:
    from ddpo.eval.report.data import load_report

    return load_report(file)


def samples(file: Path) -> object:
    from ddpo.eval.generate.samples import read_samples

    return read_samples(file)


def reference(file: Path) -> object:
    from ddpo.rewards.scoring.standardise import load_reference

    return load_reference(file)


def reward_card(file: Path) -> object:
    from ddpo.errors import UserError
    from ddpo.io.json_files import JsonError, parse_foreign
    from ddpo.rewards.card import RewardCard

    try:
        values = parse_foreign(file.read_bytes())
    except JsonError as error:
        raise UserError(str(error)) from error
    return RewardCard.from_dict(values).fingerprint() if isinstance(values, dict) else None


def request(file: Path) -> object:
    from ddpo.rewards.serve.wire import Limits, decode_batch

    return decode_batch(file.read_bytes(), Limits())


def served(place: Path) -> Read:
    from reader_server import answering

    from ddpo.rewards.serve.client import RemoteReward
    from ddpo.types import ImageBatch, Prompt

    batch = ImageBatch.of_images([PICTURE], [Prompt("a cat")])
    other = place / "other"
    address = answering({"/card": other / "served.json", "/score": other / "reply.json"})
    return lambda file: RemoteReward(f"{address}/aesthetic")(batch)


def asked(place: Path) -> Read:
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


def cache(file: Path) -> object:
    from ddpo.rewards.cache import ScoreCache

    with ScoreCache(file, 1.0) as cache:
        found = cache.get([CACHE_KEY])
    for left in file.parent.glob(f"{file.name}*"):
        if left != file:
            left.unlink()
    return found


def cache_row(file: Path) -> object:
    from ddpo.rewards.cache.rows import _checksum, unpack

    data = file.read_bytes()
    value = data[:4].ljust(4, b"\0")
    parts = struct.pack("<I", len(data) % 4) + data
    return unpack(CACHE_KEY, value, parts, _checksum(CACHE_KEY, value, parts))


def table_journal(place: Path) -> Read:
    from ddpo.inputs.input_image import InputImage
    from ddpo.rewards.image_files.journal import TableJournal

    names = [json.loads(line).get("file") for line in (place / "other/journal").open()][1:]
    images = [InputImage(name) for name in names]

    def read(file: Path) -> object:
        with TableJournal(file, ["identity"]) as journal:
            done, rest = journal.resume(images)
            return list(done), list(rest), list(journal.rows())

    return read


def each(read: Callable[[Path], Iterable[object]]) -> Callable[[Path], Read]:
    return lambda place: lambda file: list(read(file))


def table(file: Path) -> Iterable[object]:
    from ddpo.inputs.tables import read_table

    return read_table(file)


def prompt_table(file: Path) -> Iterable[object]:
    from ddpo.inputs.image_tables import PromptTable

    return PromptTable(file).rows


def prompts(file: Path) -> Iterable[object]:
    from ddpo.prompts import load_prompts

    return load_prompts(str(file)).prompts


def pairs(file: Path) -> Iterable[object]:
    from ddpo.reward_quality.preference_file import read_preferences

    return read_preferences(file)


def archive(file: Path) -> Iterable[object]:
    from ddpo.inputs.archives import ArchivedImages

    return ArchivedImages(file)


def caption(file: Path) -> object:
    from ddpo.inputs.captions import prompt_of_comfy, prompt_of_parameters

    text = file.read_bytes().decode("utf-8", "replace")
    return prompt_of_comfy(text), prompt_of_parameters(text)


def recipe(file: Path) -> object:
    from ddpo.trainer.recipe import config_from_dict, read_recipe

    return config_from_dict(read_recipe(file))


def open_clip(file: Path) -> object:
    from ddpo.rewards.models.open_clip_source import _read_config

    return _read_config(file)
