"""The model card of a checkpoint: base model, method, reward and results, from its run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ddpo.policies.base_model import known_model
from ddpo.policies.checkpoints.folder import CheckpointInfo
from ddpo.policies.checkpoints.own import own_lora
from ddpo.policies.model_place import EMBEDDED
from ddpo.policies.pipelines import PIPELINES, TRANSFORMER
from ddpo.policies.transitions import AUTO, FLOW_TRANSITIONS
from ddpo.rewards.spec import replace_paths
from ddpo.text import single_line
from ddpo.trainer.config import SampleConfig, TrainConfig
from ddpo.trainer.run.folder import RunFolder

__all__ = ["KNOWN_LICENCES", "model_card", "pipeline_code"]

KNOWN_LICENCES: Final[Mapping[str, str]] = {
    "emoji": "apache-2.0",
    "emoji-scenes": "apache-2.0",
    "emoji-flow": "apache-2.0",
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
UNREAD: Final = (
    "The LoRA has the names of kohya-ss, for its scripts and ComfyUI. Diffusers does not read them "
    "for this model: `ddpo export` without `--lora-names` writes those of diffusers.\n"
)


def model_card(info: CheckpointInfo, whole: bool, unread: bool = False) -> str:
    """The README.md of an exported checkpoint, with the front matter of the Hugging Face Hub.

    Args:
        info: the checkpoint.
        whole: True if the folder holds a whole pipeline, False if it holds LoRA weights.
        unread: True for LoRA weights with names that diffusers does not read.

    Raises:
        CheckpointError: the files of its run are damaged.
    """
    flow = _is_flow(info)
    if info.run is None:
        story = ["The checkpoint was in no run folder: how it was trained is not known.\n"]
        call = 'pipeline("a cat")'
    else:
        run = RunFolder.open(info.run)
        config = run.config()
        manifest = run.manifest()
        lines = [line for line in run.metrics() if line["iteration"] <= info.iteration]
        training = _training(info, config, manifest, lines, flow)
        story = [training, _reward(manifest), _results(config, lines)]
        prompt = json.dumps(manifest["prompts"]["list"][0], ensure_ascii=False)
        sample = config.sample
        more = "" if flow else f", eta={sample.eta:g}"
        if sample.size:
            more += ", height={}, width={}".format(*sample.size)
        call = (
            f"pipeline({prompt}, num_inference_steps={sample.steps}, "
            f"guidance_scale={sample.guidance + _guidance_offset(info.model):g}{more})"
        )
    parts = [
        _front_matter(info, whole),
        f"# {_title(info)}\n",
        UNREAD if unread else _use(info, whole, flow, call),
        *story,
    ]
    return "\n".join(parts) + "\nMade by `ddpo export`.\n"


def _hub_id(model: str) -> str | None:
    """The model's id on the Hugging Face Hub; None if its place is a path or a module."""
    is_id = model.count("/") == 1 and ":" not in model and not model.startswith((".", "/", "~"))
    return model if is_id and not Path(model).exists() else None


def _front_matter(info: CheckpointInfo, whole: bool) -> str:
    base = _hub_id(info.model)
    licence = KNOWN_LICENCES.get(info.model)
    tags = ["text-to-image", "stable-diffusion", "ddpo", "reinforcement-learning"]
    tags += [] if whole else ["lora"]
    lines = ["---", "library_name: diffusers", "pipeline_tag: text-to-image"]
    lines += [f"base_model: {base}"] if base else []
    lines += [f"license: {licence}"] if licence else []
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---", ""])


def _text(text: object) -> str:
    """A text of the run's files that opens no tag, ends no table cell and breaks no line."""
    return single_line(str(text)).replace("<", "&lt;").replace("|", "\\|").replace("![", "!\\[")


def _code(text: object) -> str:
    """A text of the run's files as code, which ends neither itself nor a table cell."""
    return f"`{single_line(str(text)).replace('`', chr(0x2CB)).replace('|', chr(0x2502))}`"


def _title(info: CheckpointInfo) -> str:
    how = "LoRA for" if info.kind == "lora" else "Finetuned"
    return f"{how} {_code(_base(info))}, iteration {info.iteration}"


def _base(info: CheckpointInfo) -> str:
    """The base model's id, or the name of its folder, since a path holds on one machine only."""
    return Path(info.model).name if Path(info.model).is_dir() else info.model


def _is_flow(info: CheckpointInfo) -> bool:
    """True for the checkpoint of a flow model, whose denoiser is a transformer.

    Raises:
        CheckpointError: the LoRA is damaged.
    """
    if info.kind == "full":
        return info.weights.name == TRANSFORMER
    return own_lora(info).denoiser == TRANSFORMER


def pipeline_code(folder: str, model: str) -> str:
    """The Python expression that opens a pipeline, with None for the components that it lacks.

    Args:
        folder: folder or hub id of the pipeline, as it is written.
        model: its base model; of one that is not on this machine, no component is known to lack.
    """
    base = known_model(model)
    parts = "".join(f", {part}=None" for part in (base.absent_parts if base else ()))
    return f"DiffusionPipeline.from_pretrained({json.dumps(folder, ensure_ascii=False)}{parts})"


def _guidance_offset(model: str) -> float:
    """The guidance scale of a model's pipeline minus that of ddpo; 0 if the model is not here."""
    base = known_model(model)
    kind = None if base is None else PIPELINES.get(base.pipeline)
    return 0.0 if kind is None else kind.guidance_offset


def _use(info: CheckpointInfo, whole: bool, flow: bool, call: str) -> str:
    """The code that samples from the checkpoint with plain diffusers, and the licence."""
    packaged = EMBEDDED.get(info.model, "").replace(".", "/")
    base = f"{packaged}/weights" if packaged else _base(info)
    opened = "THIS FOLDER OR REPOSITORY" if whole else base
    lines = [f"pipeline = {pipeline_code(opened, info.model)}"]
    if not whole:
        lines.append('pipeline.load_lora_weights("THIS FOLDER OR REPOSITORY")')
    if flow:  # a flow model is deployed with the ODE of its own scheduler
        imports = "from diffusers import DiffusionPipeline"
    else:  # the sampler of the training: others ignore eta, and DDIM may clip latents
        imports = "from diffusers import DDIMScheduler, DiffusionPipeline"
        scheduler = "DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)"
        lines.append(f"pipeline.scheduler = {scheduler}")
    code = "\n".join([imports, "", *lines, f"{call}.images[0]"])
    licence = KNOWN_LICENCES.get(info.model)
    terms = "was not known to the program that wrote this page; look it up"
    if licence:
        terms = f"is `{licence}`"
    return (
        f"```python\n{code}\n```\n\n"
        f"The licence of the base model {terms}; it binds this model too.\n"
    )


def _transition(sample: SampleConfig, flow: bool) -> str:
    """The sampler of a run in words, with the grid of a flow model."""
    if not flow:
        return "DDIM"
    kind = FLOW_TRANSITIONS[0] if sample.transition == AUTO else sample.transition
    grid = "the model's own grid" if sample.grid == AUTO else f"the grid {sample.grid}"
    return f"{kind} on {grid}"


def _training(
    info: CheckpointInfo,
    config: TrainConfig,
    manifest: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    flow: bool,
) -> str:
    prompts = manifest["prompts"]["list"]
    shown = ", ".join(f"“{_text(prompt)}”" for prompt in prompts[:SHOWN_PROMPTS])
    if len(prompts) > SHOWN_PROMPTS:
        shown += ", …"
    source = manifest["prompts"]["source"].split(" ")[0]
    queries = lines[-1]["reward_queries"] if lines else 0
    optim = config.optim
    sample = config.sample
    adapt = "all weights of the denoiser"
    if info.kind == "lora":
        adapt = f"LoRA of rank {config.adapt.rank}, alpha {config.adapt.alpha}"
        if config.adapt.start:
            adapt += f", which started from {_code(_last_part(config.adapt.start))}"
    steps = f"{optim.updates} updates × {optim.epochs} epochs an iteration"
    rows = {
        "base model": _code(_base(info)),
        "method": f"{_code(_last_part(config.algorithm))}, {adapt}",
        "iterations": f"{info.iteration} of {config.iterations}",
        "reward queries": f"{queries:,} ({sample.samples} images an iteration)",
        "prompts": f"{len(prompts)}, {_text(source)} {_code(_last_part(config.prompts))}: {shown}",
        "sampling": (
            f"{_transition(sample, flow)}, {sample.steps} steps, guidance {sample.guidance:g}, "
            f"eta {sample.eta:g}"
        ),
        "optimizer": f"AdamW, learning rate {optim.lr:g}, {steps}",
        "seed": str(config.seed),
        "versions": ", ".join(
            f"{_text(name)} {_text(found)}" for name, found in manifest["versions"].items()
        ),
    }
    table = "".join(f"| {name} | {text} |\n" for name, text in rows.items())
    return f"## Training\n\n| | |\n|---|---|\n{table}"


def _last_part(path: str) -> str:
    """The part of a path after the last slash."""
    return path.rsplit("/", 1)[-1]


def _reward(manifest: Mapping[str, Any]) -> str:
    card = manifest["reward"]["card"]
    signature = _signature(str(manifest["reward"]["signature"]))
    return (
        f"## Reward\n\n{_code(card['id'])}: {_text(card['summary'])}. Signature: {signature}\n\n"
        f"Known flaws: {_text(card['flaws'])}. "
        "A model that was trained on a reward leans towards what that reward overlooks.\n"
    )


def _signature(text: str) -> str:
    """A signature as code; its fields are separated by |, which it keeps outside tables."""
    return f"`{single_line(text).replace('`', chr(0x2CB))}`"


def _results(config: TrainConfig, lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    rows = "".join(
        f"| {line['iteration']} "
        f"| {_number(line['reward_mean'])} ± {_number(line.get('reward_se'))} "
        f"| {line['reward_queries']:,} | {_number(line.get('held_out'))} |\n"
        for line in _some(lines)
    )
    held_out = "not measured"
    if config.held_out:
        bare = replace_paths(
            config.held_out, lambda path: Path(path).name if path.startswith("/") else None
        )
        held_out = f"{_code(bare)}, not trained on, on {_code(_last_part(config.held_out_prompts))}"
    return (
        "## Results\n\nMean reward of an iteration's images and its standard error, "
        "on the prompts of the training.\n\n"
        f"| iteration | reward | reward queries | held-out reward ({held_out}) |\n"
        f"|---|---|---|---|\n{rows}"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _some(lines: Sequence[Mapping[str, Any]], most: int = 6) -> list[Mapping[str, Any]]:
    """The first line, the last, and those with a held-out score; without such, `most` even ones."""
    marked = [line for line in lines if line.get("held_out") is not None]
    evenly = [lines[round(place * (len(lines) - 1) / (most - 1))] for place in range(most)]
    chosen = [lines[0], *marked, lines[-1]] if marked else evenly
    return list({line["iteration"]: line for line in chosen}.values())
