"""Prompts extracted from captions and from the metadata of image generators.

Supported are captions of training scripts (plain or kohya's tags), the text of AUTOMATIC1111's
Stable Diffusion web UI and its relatives, and the JSON of ComfyUI, InvokeAI, NovelAI, Fooocus and
SwarmUI. An uncertain prompt is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ddpo.io.json_files import JsonError, parse_foreign
from ddpo.text import single_line

__all__ = ["prompt_of_caption", "prompt_of_comfy", "prompt_of_parameters", "prompt_of_png_texts"]

NEGATIVE: Final = "Negative prompt:"
SETTINGS: Final = re.compile(r"Steps: ?\d+(,|$)")
"""The first of the settings that the web UI writes after the prompts."""

OBJECT: Final = re.compile(r'\s*\{\s*["}]')
"""The start of a JSON object; a prompt with alternatives, {a|b}, starts otherwise."""

MAX_LINKS: Final = 100  # from an encoder to its text; a longer path is a cycle
CONDITIONING: Final = (
    "positive",
    "guider",
    "conditioning",
    "conditioning_1",
    "conditioning_2",
    "conditioning_to",
    "conditioning_from",
)
TEXTS: Final = ("text", "text_g", "text_l", "clip_l", "t5xxl", "clip_g")
STRINGS: Final = ("text", "value", "string", "prompt")


def prompt_of_caption(text: str) -> str | None:
    """The prompt of a caption file's text on one line; None without a prompt.

    A plain caption is its own prompt. Generation data is reduced as in `prompt_of_parameters`.
    """
    return prompt_of_parameters(text)


def prompt_of_parameters(text: str) -> str | None:
    """The prompt of generation data on one line; None without a prompt.

    The web UI writes the prompt on at least one line, then perhaps "Negative prompt: …", then
    "Steps: 20, Sampler: …". Fooocus and SwarmUI write JSON in the same place.

    Source: `create_infotext` of AUTOMATIC1111/stable-diffusion-webui.
    """
    if OBJECT.match(text):
        record = _json(text)
        return _prompt_of_record(record) if isinstance(record, dict) else None
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(NEGATIVE) or SETTINGS.match(line.strip()):
            break
        lines.append(line)
    return _one_line(" ".join(lines))


def _prompt_of_record(record: Mapping[str, Any]) -> str | None:
    """The prompt of Fooocus, {"prompt": …}, or SwarmUI, {"sui_image_params": {"prompt": …}}."""
    inner = record.get("sui_image_params", record)
    found = inner.get("prompt") if isinstance(inner, dict) else None
    return _one_line(found) if isinstance(found, str) else None


def prompt_of_png_texts(texts: Mapping[str, str]) -> str | None:
    """The prompt in the text chunks of a PNG file; None without a certain prompt.

    Args:
        texts: Keyword → text of the chunks, as in Pillow's `Image.text` or `Image.info`.
    """
    if isinstance(parameters := texts.get("parameters"), str):
        return prompt_of_parameters(parameters)
    if isinstance(graph := texts.get("prompt"), str) and (found := prompt_of_comfy(graph)):
        return found
    if isinstance(graph := texts.get("workflow"), str) and (found := prompt_of_comfy(graph)):
        return found
    invoke = _json(texts.get("invokeai_metadata"))
    if isinstance(invoke, dict) and isinstance(found := invoke.get("positive_prompt"), str):
        return _one_line(found)
    comment = _json(texts.get("Comment")) if texts.get("Software") == "NovelAI" else None
    if isinstance(comment, dict) and isinstance(found := comment.get("prompt"), str):
        return _one_line(found)
    return None


def prompt_of_comfy(graph: str) -> str | None:
    """The only positive prompt of a ComfyUI graph; None for none or several.

    The positive conditioning of each sampler leads to the nodes that encode texts.

    Args:
        graph: JSON of the PNG chunk "prompt" (node id → class and inputs), or of "workflow" (nodes
            and links).
    """
    record = _json(graph)
    if not isinstance(record, dict):
        return None
    nodes = _workflow_nodes(record) if isinstance(record.get("nodes"), list) else record
    found = {text for start in _samplers(nodes) for text in _texts(nodes, start)}
    prompts = {line for text in found if (line := _one_line(text))}
    return prompts.pop() if len(prompts) == 1 else None


def _workflow_nodes(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of a saved workflow, converted to the form of the chunk "prompt".

    The first widget of an encoder is its text. A link is [id, from node, from slot, …].
    """
    rows = [row for row in workflow.get("links") or () if isinstance(row, list) and len(row) >= 3]
    links = {str(row[0]): [str(row[1]), row[2]] for row in rows}
    nodes: dict[str, Any] = {}
    for node in workflow["nodes"]:
        if not isinstance(node, dict):
            continue
        slots = [slot for slot in node.get("inputs") or () if isinstance(slot, dict)]
        linked = [(str(slot.get("name")), links.get(str(slot.get("link")))) for slot in slots]
        inputs: dict[str, Any] = {name: link for name, link in linked if link is not None}
        widgets = node.get("widgets_values")
        if isinstance(widgets, list) and widgets and isinstance(widgets[0], str):
            inputs.setdefault("text", widgets[0])
        nodes[str(node.get("id"))] = {"class_type": node.get("type"), "inputs": inputs}
    return nodes


def _samplers(nodes: Mapping[str, Any]) -> Iterator[str]:
    """The nodes with "sampler" in their class and a positive conditioning or a guider."""
    for name, node in nodes.items():
        kind, inputs = _node(node)
        guided = any(_is_link(inputs.get(key)) for key in ("positive", "guider"))
        if guided and "sampler" in kind.lower():
            yield name


def _texts(nodes: Mapping[str, Any], sampler: str) -> set[str]:
    """The texts of a sampler's positive conditioning."""
    found: set[str] = set()
    waiting = [(sampler, 0)]
    seen = set(waiting)
    while waiting:
        name, slot = waiting.pop()
        kind, inputs = _node(nodes.get(name))
        if "textencode" in kind.lower():
            found.update(text for key in TEXTS for text in _strings(nodes, inputs.get(key)))
            continue
        keys = ("negative",) if slot == 1 and "negative" in inputs else CONDITIONING
        links = [(inputs[key][0], inputs[key][1]) for key in keys if _is_link(inputs.get(key))]
        waiting += [link for link in links if link not in seen]
        seen.update(links)
    return found


def _strings(nodes: Mapping[str, Any], value: Any) -> list[str]:
    """The text itself, or that of the linked node."""
    for _ in range(MAX_LINKS):
        if not _is_link(value):
            break
        _, inputs = _node(nodes.get(value[0]))
        value = next((inputs[key] for key in STRINGS if inputs.get(key)), None)
    return [value] if isinstance(value, str) else []


def _node(node: Any) -> tuple[str, Mapping[str, Any]]:
    """The class and inputs of a node; empty for anything else."""
    if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
        return "", {}
    return str(node.get("class_type") or ""), node["inputs"]


def _is_link(value: Any) -> bool:
    """True if a node's input is the output of another node: [node id, slot]."""
    return isinstance(value, list) and [*map(type, value)] == [str, int]


def _json(text: Any) -> Any:
    """The parsed value; None if it is not JSON."""
    try:
        return parse_foreign(text) if isinstance(text, str) else None
    except JsonError:
        return None


def _one_line(text: str) -> str | None:
    """The text with single spaces; None if it is blank."""
    return single_line(text) or None
