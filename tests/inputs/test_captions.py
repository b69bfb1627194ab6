"""The prompt alone of captions and of what image generators write into their files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ddpo.inputs.captions import (
    prompt_of_caption,
    prompt_of_comfy,
    prompt_of_parameters,
    prompt_of_png_texts,
)

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 12, Size: 512x512, Model: sd15"


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a red fox in the snow\n", "a red fox in the snow"),
        ("1girl, solo,  long hair, looking at viewer", "1girl, solo, long hair, looking at viewer"),
        ("a fox\nin the snow\n", "a fox in the snow"),
        (f"a red fox\nNegative prompt: blurry, lowres\n{SETTINGS}\n", "a red fox"),
        (f"a red fox\n{SETTINGS}", "a red fox"),
        (f"a red fox,\nin the snow\nNegative prompt: a\nb\n{SETTINGS}", "a red fox, in the snow"),
        (f"a red fox\r\nNegative prompt: blurry\r\n{SETTINGS}\r\n", "a red fox"),
        ("a red fox\nNegative prompt: blurry", "a red fox"),
        (f"a sign: Steps: 3, two of them\n{SETTINGS}", "a sign: Steps: 3, two of them"),
        ("title: a map, scale: 1, legend: red", "title: a map, scale: 1, legend: red"),
        ("the words Negative prompt: on a wall", "the words Negative prompt: on a wall"),
        ("{red|blue} car", "{red|blue} car"),
        (f"a fox\n{SETTINGS}\nTemplate: {{a|b}} fox", "a fox"),
        (json.dumps({"prompt": "a fox", "negative_prompt": "x"}), "a fox"),
        (json.dumps({"sui_image_params": {"prompt": "a fox", "seed": 1}}), "a fox"),
        ("", None),
        (" \n\t\n", None),
        (f"Negative prompt: blurry\n{SETTINGS}", None),
        (SETTINGS, None),
        ('{"prompt": ""}', None),
    ],
)
def test_the_prompt_alone(text: str, prompt: str | None) -> None:
    assert prompt_of_caption(text) == prompt
    assert prompt_of_parameters(text) == prompt


def graph(**changes: Any) -> dict[str, Any]:
    """ComfyUI's default workflow in the form of the PNG chunk "prompt"."""
    nodes: dict[str, Any] = {
        "3": {
            "class_type": "KSampler",
            "inputs": {"seed": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]},
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red\nfox", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    }
    return nodes | changes


def encoder(text: Any, kind: str = "CLIPTextEncode") -> dict[str, Any]:
    return {"class_type": kind, "inputs": {"text": text, "clip": ["4", 1]}}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


FLUX = {
    "13": node("SamplerCustomAdvanced", guider=["22", 0], noise=["25", 0]),
    "22": node("BasicGuider", conditioning=["26", 0], model=["12", 0]),
    "26": node("FluxGuidance", conditioning=["6", 0], guidance=3.5),
    "6": encoder("a red fox"),
}
CONTROL = node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0])


@pytest.mark.parametrize(
    ("nodes", "prompt"),
    [
        (graph(), "a red fox"),
        (FLUX, "a red fox"),
        (graph(**{"6": encoder(["9", 0]), "9": node("PrimitiveString", value="a fox")}), "a fox"),
        (graph(**{"6": node("CLIPTextEncodeSDXL", text_g="a fox", text_l="a fox")}), "a fox"),
        (graph(**{"6": node("CLIPTextEncodeSDXL", text_g="a fox", text_l="a cat")}), None),
        (
            graph(
                **{
                    "3": node("KSampler", positive=["9", 0], negative=["9", 1]),
                    "9": CONTROL,
                }
            ),
            "a red fox",
        ),
        (graph(**{"8": node("KSampler", positive=["9", 0]), "9": encoder("a cat")}), None),
        (graph(**{"8": node("KSampler", positive=["6", 0])}), "a red fox"),
        (graph(**{"6": node("ConditioningCombine", conditioning_1=["6", 0])}), None),
        (graph(**{"6": encoder("")}), None),
        (graph(**{"6": encoder(["6", 0])}), None),
        ({"6": encoder("a red fox")}, None),
        ({}, None),
    ],
)
def test_comfy_graphs_are_followed_from_the_sampler(
    nodes: dict[str, Any], prompt: str | None
) -> None:
    assert prompt_of_comfy(json.dumps(nodes)) == prompt


def test_a_saved_workflow_of_comfy() -> None:
    workflow = {
        "nodes": [
            {
                "id": 3,
                "type": "KSampler",
                "inputs": [{"name": "positive", "link": 4}, {"name": "negative", "link": 6}],
                "widgets_values": [1, "randomize", 20],
            },
            {"id": 6, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["a red fox"]},
            {"id": 7, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["blurry"]},
        ],
        "links": [[4, 6, 0, 3, 1, "CONDITIONING"], [6, 7, 0, 3, 2, "CONDITIONING"]],
    }
    assert prompt_of_comfy(json.dumps(workflow)) == "a red fox"


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"nodes": 3}', '{"3": []}', "[" * 9999])
def test_what_is_no_graph_has_no_prompt(text: str) -> None:
    assert prompt_of_comfy(text) is None


@pytest.mark.parametrize(
    ("texts", "prompt"),
    [
        ({"parameters": f"a fox\n{SETTINGS}"}, "a fox"),
        ({"prompt": json.dumps(graph())}, "a red fox"),
        ({"prompt": "{", "workflow": "{}"}, None),
        ({"invokeai_metadata": json.dumps({"positive_prompt": "a fox"})}, "a fox"),
        ({"Software": "NovelAI", "Comment": json.dumps({"prompt": "a fox"})}, "a fox"),
        ({"Software": "GIMP", "Comment": "Created with GIMP"}, None),
        ({}, None),
    ],
)
def test_text_chunks_of_png(texts: dict[str, str], prompt: str | None) -> None:
    assert prompt_of_png_texts(texts) == prompt
