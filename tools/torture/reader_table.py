"""The readers of ddpo's files: the modules that they test, the file they read, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import reader_calls as calls
from mutations import Damage, damaged_bytes, damaged_json, damaged_lines, damaged_tensors

__all__ = ["EXEMPT", "READERS", "Reader"]

EXEMPT = {
    "ddpo/view/metrics_tail.py": "json_lines of metrics.jsonl, a reader of the table",
    "ddpo/view/run_files.py": "reads the files of a run for its page; tests/view damages them",
    "ddpo/view/run_state.py": "reads the files of a run for its page; tests/view damages them",
    "ddpo/web/frame.py": "bodies of requests, whose size and form tests/web try",
    "ddpo/rewards/check/card.py": "output of a child process of our own",
    "ddpo/rewards/tools/doctor.py": "output of a child process of our own",
    "ddpo/prompts/nouns.py": "a file of the package",
    "ddpo/recipes/__init__.py": "a file of the package",
    "ddpo/policies/vocabulary.py": "a file of the package",
    "ddpo/rewards/cards/embedded.py": "a file of the package",
    "ddpo/rewards/models/scene_detector.py": "a file of the package whose SHA-256 is known",
    "ddpo/rewards/models/aesthetic.py": "a file of the package whose SHA-256 is known",
    "ddpo/doctor/random_policies.py": "a file of the package",
    "ddpo/trainer/config.py": "its own text",
    "ddpo/trainer/check.py": "its own text",
    "ddpo/cli/training_events.py": "its own text",
    "ddpo/trainer/run/manifest.py": "its own text",
    "ddpo/rewards/models/imagereward.py": "a config beside weights whose SHA-256 is known",
    "ddpo/rewards/models/nsfw.py": "a config beside weights that transformers reads",
    "ddpo/io/fields.py": "no reader",
    "ddpo/io/lock.py": "the line of an owner, shown and not parsed",
    "ddpo/io/lock_file.py": "the line of an owner; tests/test_one_owner.py damages it",
    "ddpo/policies/sample_folder.py": "its own text, beside what Journal and read_json read",
    "ddpo/api/runs.py": "names of folders and grids, and what json_lines reads",
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
    prepare: Callable[[Path], calls.Read]
    share: float = 1.0


JSON_FILES = "ddpo/io/json_files.py"
LINES = "ddpo/io/synced_lines.py"
FOLDER = "ddpo/trainer/run/folder.py"
TENSORS = "ddpo/io/tensors.py"
RUNS = "ddpo/eval/inputs/runs.py"
TABLES = ("ddpo/inputs/tables.py", "ddpo/inputs/json_rows.py", "ddpo/inputs/columns.py")
LORA = (
    "ddpo/policies/checkpoints/lora.py",
    "ddpo/policies/checkpoints/own.py",
    "ddpo/policies/checkpoints/peft_settings.py",
    TENSORS,
)
CHECKPOINT = "run/checkpoints/iteration-000001"

READERS: tuple[Reader, ...] = (
    Reader("config.json", (FOLDER, JSON_FILES), "run/config.json", damaged_json, calls.config, 3),
    Reader("config.json at --resume", (FOLDER,), "run/config.json", damaged_json, calls.resumed),
    Reader(
        "manifest.json at --resume", (FOLDER,), "run/manifest.json", damaged_json, calls.resumed
    ),
    Reader(
        "manifest.json, compared", (FOLDER,), "run/manifest.json", damaged_json, calls.unchanged
    ),
    Reader(
        "manifest.json at export", (FOLDER,), "run/manifest.json", damaged_json, calls.card_of_model
    ),
    Reader("config.json at eval", (RUNS,), "run/config.json", damaged_json, calls.run_facts, 2),
    Reader("manifest.json at eval", (RUNS,), "run/manifest.json", damaged_json, calls.run_facts, 2),
    Reader(
        "metrics.jsonl", (RUNS, FOLDER, LINES), "run/metrics.jsonl", damaged_lines, calls.metrics, 3
    ),
    Reader(
        "metrics.jsonl on the terminal",
        ("ddpo/cli/training_display.py",),
        "run/metrics.jsonl",
        damaged_lines,
        calls.curve,
    ),
    Reader(
        "held_out.jsonl",
        ("ddpo/trainer/run/stopping.py", LINES),
        "run/held_out.jsonl",
        damaged_lines,
        calls.held_out,
    ),
    Reader("metrics.jsonl at export", (), "run/metrics.jsonl", damaged_lines, calls.card_of_model),
    Reader(
        "state", (TENSORS, FOLDER), "run/state/state.safetensors", damaged_tensors, calls.state, 0.5
    ),
    Reader(
        "state at --resume",
        ("ddpo/trainer/state.py",),
        "run/state/state.safetensors",
        damaged_tensors,
        calls.training_state,
        0.2,
    ),
    Reader(
        "best.json",
        ("ddpo/trainer/run/checkpoints.py", "ddpo/policies/checkpoints/folder.py"),
        "run/checkpoints/best.json",
        damaged_json,
        calls.best,
        2,
    ),
    Reader(
        "policy.json",
        ("ddpo/policies/checkpoints/policy_file.py",),
        f"{CHECKPOINT}/policy.json",
        damaged_json,
        calls.checkpoint,
        2,
    ),
    Reader(
        "LoRA",
        LORA,
        f"{CHECKPOINT}/pytorch_lora_weights.safetensors",
        damaged_tensors,
        calls.lora,
        0.1,
    ),
    Reader(
        "LoRA of peft",
        ("ddpo/policies/checkpoints/external.py",),
        "model/adapter/adapter_model.safetensors",
        damaged_tensors,
        calls.external,
        0.3,
    ),
    Reader(
        "config of peft",
        LORA,
        "model/adapter/adapter_config.json",
        damaged_json,
        calls.external,
        0.3,
    ),
    Reader(
        "config of a UNet",
        ("ddpo/policies/checkpoints/denoiser.py",),
        "model/unet/config.json",
        damaged_json,
        calls.unet_config,
    ),
    Reader(
        "config of a scheduler",
        ("ddpo/policies/transition.py",),
        "model/scheduler/scheduler_config.json",
        damaged_json,
        calls.scheduler,
        0.3,
    ),
    Reader(
        "model_index.json",
        (
            "ddpo/policies/base_model.py",
            "ddpo/policies/layer_shapes.py",
            "ddpo/policies/model_files.py",
        ),
        "model/model_index.json",
        damaged_json,
        calls.model,
    ),
    Reader("config of a model", (), "model/unet/config.json", damaged_json, calls.model),
    Reader(
        "index of fetched shards",
        ("ddpo/rewards/tools/repository_parts.py",),
        "model/unet/diffusion_pytorch_model.safetensors.index.json",
        damaged_json,
        calls.fetched_shards,
    ),
    Reader(
        "index of shards",
        ("ddpo/policies/model_files.py",),
        "model/unet/diffusion_pytorch_model.safetensors.index.json",
        damaged_json,
        calls.shards,
    ),
    Reader(
        "shard",
        (TENSORS,),
        "model/unet/diffusion_pytorch_model-00001-of-00001.safetensors",
        damaged_tensors,
        calls.shards,
    ),
    Reader(
        "journal of images",
        ("ddpo/eval/generate/image_store.py", "ddpo/io/journal.py"),
        "evaluation/images/journal-0.jsonl",
        damaged_lines,
        calls.image_store,
        2,
    ),
    Reader(
        "journal of scores",
        ("ddpo/eval/generate/scoring.py",),
        "evaluation/scores-0.jsonl",
        damaged_lines,
        calls.score_journal,
        2,
    ),
    Reader(
        "noise_floors.json",
        ("ddpo/eval/analysis/noise_floor.py",),
        "evaluation/noise_floors.json",
        damaged_json,
        calls.floors,
        2,
    ),
    Reader(
        "report.json",
        ("ddpo/eval/report/data.py", "ddpo/io/records.py"),
        "evaluation/report.json",
        damaged_json,
        calls.plain(calls.report),
        0.3,
    ),
    Reader(
        "samples.parquet",
        ("ddpo/eval/generate/samples.py",),
        "evaluation/samples.parquet",
        damaged_bytes,
        calls.plain(calls.samples),
        0.5,
    ),
    Reader(
        "reference.json",
        ("ddpo/rewards/scoring/standardise.py",),
        "other/reference.json",
        damaged_json,
        calls.plain(calls.reference),
        2,
    ),
    Reader(
        "card of a reward",
        ("ddpo/rewards/card.py",),
        "other/card.json",
        damaged_json,
        calls.plain(calls.reward_card),
        2,
    ),
    Reader(
        "request to a server",
        ("ddpo/rewards/serve/wire.py",),
        "other/request.json",
        damaged_json,
        calls.plain(calls.request),
    ),
    Reader(
        "card of a server",
        ("ddpo/rewards/serve/client.py",),
        "other/served.json",
        damaged_json,
        calls.served,
        0.1,
    ),
    Reader("reply of a server", (), "other/reply.json", damaged_json, calls.served, 0.1),
    Reader(
        "answer of a vision-language server",
        ("ddpo/rewards/vlm/server.py",),
        "other/answer.json",
        damaged_json,
        calls.asked,
        0.1,
    ),
    Reader("cache", (), "other/scores.sqlite", damaged_bytes, calls.plain(calls.cache), 0.03),
    Reader(
        "row of the cache",
        ("ddpo/rewards/cache/rows.py",),
        "other/reply.json",
        damaged_bytes,
        calls.plain(calls.cache_row),
    ),
    Reader(
        "journal of a table",
        ("ddpo/rewards/image_files/journal.py", "ddpo/io/journal.py"),
        "other/journal",
        damaged_lines,
        calls.table_journal,
        0.5,
    ),
    Reader("table .jsonl", TABLES, "tables/rows.jsonl", damaged_lines, calls.each(calls.table)),
    Reader("table .json", TABLES, "tables/rows.json", damaged_json, calls.each(calls.table)),
    Reader("table .csv", TABLES, "tables/rows.csv", damaged_bytes, calls.each(calls.table)),
    Reader("table .tsv", TABLES, "tables/rows.tsv", damaged_bytes, calls.each(calls.table)),
    Reader(
        "table .parquet", TABLES, "tables/rows.parquet", damaged_bytes, calls.each(calls.table), 0.3
    ),
    Reader(
        "prompts of images",
        TABLES,
        "tables/rows.jsonl",
        damaged_lines,
        calls.each(calls.prompt_table),
    ),
    Reader(
        "prompts .jsonl",
        ("ddpo/prompts/__init__.py",),
        "tables/rows.jsonl",
        damaged_lines,
        calls.each(calls.prompts),
    ),
    Reader("prompts .txt", (), "tables/prompts.txt", damaged_bytes, calls.each(calls.prompts)),
    Reader(
        "preferences",
        ("ddpo/reward_quality/preference_file.py",),
        "tables/pairs.jsonl",
        damaged_lines,
        calls.each(calls.pairs),
    ),
    Reader(
        "archive",
        ("ddpo/inputs/archives.py",),
        "tables/images.tar",
        damaged_bytes,
        calls.each(calls.archive),
        0.5,
    ),
    Reader(
        "graph of ComfyUI",
        ("ddpo/inputs/captions.py",),
        "tables/comfy.json",
        damaged_json,
        calls.plain(calls.caption),
    ),
    Reader(
        "parameters of SwarmUI", (), "tables/params.txt", damaged_json, calls.plain(calls.caption)
    ),
    Reader(
        "recipe",
        ("ddpo/trainer/recipe.py",),
        "tables/recipe.toml",
        damaged_bytes,
        calls.plain(calls.recipe),
        0.5,
    ),
    Reader(
        "config of OpenCLIP",
        ("ddpo/rewards/models/open_clip_source.py",),
        "model/open_clip.json",
        damaged_json,
        calls.plain(calls.open_clip),
    ),
)
