"""The page that goes with a trained model: what it was made from, on which reward, and how far it went; all from the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ddpo.policies.checkpoints.folder import CheckpointInfo
from ddpo.rewards.spec import replace_paths
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.run.folder import RunFolder

__all__ = ["KNOWN_LICENCES", "model_card"]

KNOWN_LICENCES: Final[Mapping[str, str]] = {
    "emoji": "apache-2.0",
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "runwayml/stable-diffusion-v1-5": "creativeml-openrail-m",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
    "stabilityai/stable-diffusion-2": "openrail++",
    "stabilityai/stable-diffusion-2-base": "openrail++",
    "stabilityai/stable-diffusion-2-1": "openrail++",
    "stabilityai/stable-diffusion-2-1-base": "openrail++",
}
"""Identifiers of the Hugging Face Hub. Source: the models' pages there."""

SHOWN_PROMPTS: Final = 5


def model_card(info: CheckpointInfo, whole: bool) -> str:
    """The README.md of an exported checkpoint, with the front matter that the Hugging Face Hub reads.

    Args:
        info: the checkpoint.
        whole: whether the folder holds a whole pipeline; else LoRA weights beside their base model.

    Raises:
        CheckpointError: the files of its run are damaged.
    """
    if info.run is None:
        story = ["The checkpoint did not lie in a run folder: how it was trained is not known.\n"]
        call = 'pipeline("a cat")'
    else:
        run = RunFolder.open(info.run)
        config, manifest = run.config(), run.manifest()
        lines = [line for line in _metrics(info.run) if line["iteration"] <= info.iteration]
        story = [
            _training(info, config, manifest, lines),
            _reward(manifest),
            _results(config, lines),
        ]
        prompt, sample = (
            json.dumps(manifest["prompts"]["list"][0], ensure_ascii=False),
            config.sample,
        )
        call = f"pipeline({prompt}, num_inference_steps={sample.steps}, guidance_scale={sample.guidance:g}, eta={sample.eta:g})"
    parts = [_front_matter(info, whole), f"# {_title(info)}\n", _use(info, whole, call), *story]
    return "\n".join(parts) + "\nMade by `ddpo export`.\n"


def _hub_id(model: str) -> str | None:
    return (
        model
        if model.count("/") == 1
        and ":" not in model
        and not Path(model).exists()
        and not model.startswith((".", "/", "~"))
        else None
    )


def _front_matter(info: CheckpointInfo, whole: bool) -> str:
    base, licence = _hub_id(info.model), KNOWN_LICENCES.get(info.model)
    tags = [
        "text-to-image",
        "stable-diffusion",
        "ddpo",
        "reinforcement-learning",
        *([] if whole else ["lora"]),
    ]
    lines = ["---", "library_name: diffusers", "pipeline_tag: text-to-image"]
    lines += [f"base_model: {base}"] if base else []
    lines += [f"license: {licence}"] if licence else []
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---", ""])


def _title(info: CheckpointInfo) -> str:
    how = "LoRA for" if info.kind == "lora" else "Finetuned"
    return f"{how} `{_base(info)}`, iteration {info.iteration}"


def _base(info: CheckpointInfo) -> str:
    """The base model's id, or the name of its folder: the path says something about one machine only."""
    return Path(info.model).name if Path(info.model).is_dir() else info.model


def _use(info: CheckpointInfo, whole: bool, call: str) -> str:
    if whole:
        lines = ['pipeline = DiffusionPipeline.from_pretrained("THIS FOLDER OR REPOSITORY")']
    else:
        base = "ddpo/policies/emoji/weights" if info.model == "emoji" else _base(info)
        lines = [
            f'pipeline = DiffusionPipeline.from_pretrained("{base}")',
            'pipeline.load_lora_weights("THIS FOLDER OR REPOSITORY")',
        ]
    lines += [
        "pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)"
    ]
    # what it was trained with: other schedulers ignore eta, and DDIM would clip latents where the config does not say otherwise
    code = "\n".join(
        ["from diffusers import DDIMScheduler, DiffusionPipeline", "", *lines, f"{call}.images[0]"]
    )
    licence = KNOWN_LICENCES.get(info.model)
    terms = (
        f"is `{licence}`"
        if licence
        else "was not known to the program that wrote this page; look it up"
    )
    return f"```python\n{code}\n```\n\nThe licence of the base model {terms}; it binds this model too.\n"


def _metrics(run: Path) -> list[dict[str, Any]]:
    """The whole lines of `metrics.jsonl`."""
    path = run / "metrics.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:  # the last line, cut short by a kill
            break
    return found


def _training(
    info: CheckpointInfo,
    config: TrainConfig,
    manifest: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
) -> str:
    prompts = manifest["prompts"]["list"]
    shown = ", ".join(f"“{prompt}”" for prompt in prompts[:SHOWN_PROMPTS]) + (
        ", …" if len(prompts) > SHOWN_PROMPTS else ""
    )
    queries = lines[-1]["reward_queries"] if lines else 0
    optim, sample = config.optim, config.sample
    adapt = (
        f"LoRA of rank {config.adapt.rank}, alpha {config.adapt.alpha}"
        if info.kind == "lora"
        else "all weights of the denoiser"
    )
    rows = [
        ("base model", f"`{_base(info)}`"),
        ("method", f"`{config.algorithm.rsplit('/', 1)[-1]}`, {adapt}"),
        ("iterations", f"{info.iteration} of {config.iterations}"),
        ("reward queries", f"{queries:,} ({sample.samples} pictures an iteration)"),
        (
            "prompts",
            f"{len(prompts)}, {manifest['prompts']['source'].split(' ')[0]} `{config.prompts.rsplit('/', 1)[-1]}`: {shown}",
        ),
        (
            "sampling",
            f"DDIM, {sample.steps} steps, guidance {sample.guidance:g}, eta {sample.eta:g}",
        ),
        (
            "optimizer",
            f"AdamW, learning rate {optim.lr:g}, {optim.updates} updates × {optim.epochs} epochs an iteration",
        ),
        ("seed", str(config.seed)),
        (
            "versions",
            ", ".join(f"{name} {number}" for name, number in manifest["versions"].items()),
        ),
    ]
    return "## Training\n\n| | |\n|---|---|\n" + "".join(
        f"| {name} | {text} |\n" for name, text in rows
    )


def _reward(manifest: Mapping[str, Any]) -> str:
    card = manifest["reward"]["card"]
    return (
        f"## Reward\n\n`{card['id']}`: {card['summary']}. Signature: `{manifest['reward']['signature']}`\n\n"
        f"Known flaws: {card['flaws']}. A model that was trained on a reward leans towards what it overlooks.\n"
    )


def _results(config: TrainConfig, lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    rows = "".join(
        f"| {line['iteration']} | {_number(line['reward_mean'])} ± {_number(line['reward_se'])} | {line['reward_queries']:,} "
        f"| {_number(line.get('held_out'))} |\n"
        for line in _some(lines)
    )
    bare = replace_paths(
        config.held_out, lambda path: Path(path).name if path.startswith("/") else None
    )
    held_out = (
        f"`{bare}`, not trained on, on `{config.held_out_prompts.rsplit('/', 1)[-1]}`"
        if config.held_out
        else "not measured"
    )
    return (
        "## Results\n\nMean reward of the pictures of an iteration and its standard error, on the prompts of the training.\n\n"
        f"| iteration | reward | reward queries | held out ({held_out}) |\n|---|---|---|---|\n{rows}"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _some(lines: Sequence[Mapping[str, Any]], most: int = 6) -> list[Mapping[str, Any]]:
    """The first, the last, those with a held-out score, and no more than `most` if there are none."""
    marked = [line for line in lines if line.get("held_out") is not None]
    evenly = [lines[round(place * (len(lines) - 1) / (most - 1))] for place in range(most)]
    chosen = [lines[0], *marked, lines[-1]] if marked else evenly
    return list({line["iteration"]: line for line in chosen}.values())
