"""Run folders of a stranger: each trick makes a folder name code, a server or a path of others.

A trick gets a copy of an honest run and a `Bait`. Code that runs writes the bait's file; a program
that calls the bait's server is counted there.
"""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

__all__ = ["TRICKS", "Bait", "edit_json", "edit_settings"]

CODE: Final = """
from pathlib import Path
Path({file!r}).write_text("ran")

def P(*images, **options):
    return [0.5] * len(images[0])
"""
SECRET: Final = "a secret outside the run"
PACKAGES: Final = ("torch", "numpy", "typer", "rich", "wandb", "flax", "sitecustomize", "xformers")
"""Modules that a program may look for, each planted in the folder."""


class Bait:
    """A file that planted code writes, and a server that counts its callers.

    Args:
        folder: Folder outside the run, with a secret file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "ran"
        self.secret = folder / "secret.txt"
        self.secret.write_text(SECRET)
        self.requests: list[dict[str, str]] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(dict(self.headers))
                self.send_error(404)

            do_POST = do_GET  # noqa: N815  # a name of the standard library

            def log_message(self, *_: Any) -> None:
                """Writes nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def taken(self) -> str:
        """The fault: code that ran, a file changed outside, or a server called; "" for none."""
        if self.file.exists():
            return "code of the folder ran"
        if [path.name for path in self.secret.parent.iterdir()] != [self.secret.name]:
            return "a file was written outside the run"
        if self.secret.read_text() != SECRET:
            return "a file outside the run was changed"
        return f"the folder's server was called: {self.requests}" if self.requests else ""

    def plant(self, path: Path) -> Path:
        """Writes a Python file whose import writes the bait's file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CODE.format(file=str(self.file)))
        return path

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()


def edit_json(path: Path, change: Mapping[str, Any]) -> None:
    """Replaces values of a JSON file; missing files stay missing."""
    if path.exists():
        values = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(values | dict(change)), encoding="utf-8")


def edit_settings(run: Path, **change: Any) -> None:
    """Replaces settings of a run, also in its manifest."""
    edit_json(run / "config.json", change)
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    manifest["config"] |= change
    manifest["origins"] = {}
    if "reward" in change:
        manifest["reward"] |= {"spec": change["reward"], "files": []}
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("iteration-*"))


def _reward_of_a_file(run: Path, bait: Bait) -> None:
    edit_settings(run, reward=f"{bait.plant(run / 'x.py')}:P")


def _reward_of_a_relative_file(run: Path, bait: Bait) -> None:
    bait.plant(run / "x.py")
    edit_settings(run, reward="./x.py:P")


def _reward_of_a_module(run: Path, bait: Bait) -> None:
    bait.plant(run / "planted.py")
    edit_settings(run, reward="planted:P")


def _reward_of_a_linked_file(run: Path, bait: Bait) -> None:
    (run / "link.py").symlink_to(bait.plant(run / "x.py"))
    edit_settings(run, reward=f"{run / 'link.py'}:P")


def _part_of_a_sum(run: Path, bait: Bait) -> None:
    edit_settings(run, reward=f"darkness:0.5 + {bait.plant(run / 'x.py')}:P:0.1")


def _held_out_reward(run: Path, bait: Bait) -> None:
    edit_settings(run, held_out=f"{bait.plant(run / 'x.py')}:P", held_out_prompts="animals")


def _algorithm(run: Path, bait: Bait) -> None:
    edit_settings(run, algorithm=f"{bait.plant(run / 'x.py')}:P")


def _model_of_a_file(run: Path, bait: Bait) -> None:
    word = f"{bait.plant(run / 'x.py')}:P"
    edit_settings(run, model=word)
    edit_json(run / "manifest.json", {"base": {}})
    for folder in _checkpoints(run):
        edit_json(folder / "policy.json", {"model": word, "base": {}})


def _model_of_a_module(run: Path, bait: Bait) -> None:
    bait.plant(run / "planted.py")
    edit_settings(run, model="planted:P")
    edit_json(run / "manifest.json", {"base": {}})
    for folder in _checkpoints(run):
        edit_json(folder / "policy.json", {"model": "planted:P", "base": {}})


def _place_of_the_model(run: Path, bait: Bait) -> None:
    word = f"{bait.plant(run / 'x.py')}:P"
    base = {"place": word, "fingerprint": ""}
    edit_json(run / "manifest.json", {"base": base})
    for folder in _checkpoints(run):
        edit_json(folder / "policy.json", {"base": base})


def _served_reward(run: Path, bait: Bait) -> None:
    edit_settings(run, reward=f"{bait.address}/darkness")


def _server_in_an_option(run: Path, bait: Bait) -> None:
    edit_settings(run, reward=f"vlm_judge:vlm={bait.address}/v1")


def _best_checkpoint_outside(run: Path, bait: Bait) -> None:
    (run / "checkpoints" / "best.json").write_text(json.dumps({"folder": "../../../elsewhere"}))


def _weights_outside(run: Path, bait: Bait) -> None:
    for folder in _checkpoints(run):
        edit_json(folder / "policy.json", {"weights": str(bait.secret), "sha256": {}})


def _linked_weights(run: Path, bait: Bait) -> None:
    for folder in _checkpoints(run):
        (folder / "extra.safetensors").symlink_to(bait.secret)


def _linked_metrics(run: Path, bait: Bait) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(bait.secret)


def _linked_samples(run: Path, bait: Bait) -> None:
    for name in ("samples", "eval", "tensorboard"):
        if (run / name).is_dir():
            (run / name).rename(run / f"old {name}")
        (run / name).symlink_to(bait.secret.parent)


def _pipe_for_metrics(run: Path, bait: Bait) -> None:
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")


def _device_for_settings(run: Path, bait: Bait) -> None:
    (run / "manifest.json").unlink()
    (run / "manifest.json").symlink_to("/dev/zero")


def _modules_in_the_folder(run: Path, bait: Bait) -> None:
    for name in PACKAGES:
        bait.plant(run / f"{name}.py")


def _entry_point_in_the_folder(run: Path, bait: Bait) -> None:
    bait.plant(run / "planted.py")
    info = run / "planted-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    groups = ("rewards", "policies", "algorithms")
    points = "".join(f"[ddpo.{group}]\nplanted = planted:P\n" for group in groups)
    (info / "entry_points.txt").write_text(points)
    edit_settings(run, reward="planted")


class _Pickled:
    """An object whose unpickling writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.file), "w"))


def _pickles(run: Path, bait: Bait) -> None:
    data = pickle.dumps(_Pickled(bait.file))
    for folder in (run / "state", *_checkpoints(run)):
        for file in [*folder.rglob("*.safetensors")]:
            file.write_bytes(data)
        for name in ("state.pt", "pytorch_lora_weights.bin", "diffusion_pytorch_model.bin"):
            (folder / name).write_bytes(data)


def _classes_in_the_model(run: Path, bait: Bait) -> None:
    model = run / "model"
    bait.plant(run / "planted.py")
    bait.plant(model / "planted.py")
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    index = {part: ["planted", "P"] for part in parts}
    for part in parts:
        (model / part).mkdir(parents=True)
        bait.plant(model / part / "planted.py")
        auto = {"auto_map": {"AutoTokenizer": ["planted.P", None], "AutoModel": "planted.P"}}
        for name in ("config.json", "tokenizer_config.json", "scheduler_config.json"):
            (model / part / name).write_text(json.dumps({"_class_name": "P", **auto}))
    values = {"_class_name": ["planted", "StableDiffusionPipeline"], **index}
    (model / "model_index.json").write_text(json.dumps(values))
    edit_settings(run, model=str(model))
    for folder in _checkpoints(run):
        edit_json(folder / "policy.json", {"model": str(model), "base": {}})


TRICKS: Final[Mapping[str, Callable[[Path, Bait], None]]] = {
    "reward of a file": _reward_of_a_file,
    "reward of a relative file": _reward_of_a_relative_file,
    "reward of a module": _reward_of_a_module,
    "reward of a linked file": _reward_of_a_linked_file,
    "part of a sum": _part_of_a_sum,
    "held-out reward": _held_out_reward,
    "algorithm": _algorithm,
    "model of a file": _model_of_a_file,
    "model of a module": _model_of_a_module,
    "place of the model": _place_of_the_model,
    "served reward": _served_reward,
    "server in an option": _server_in_an_option,
    "best checkpoint outside": _best_checkpoint_outside,
    "weights outside": _weights_outside,
    "linked weights": _linked_weights,
    "linked metrics": _linked_metrics,
    "linked folders": _linked_samples,
    "pipe for metrics": _pipe_for_metrics,
    "device for the manifest": _device_for_settings,
    "modules in the folder": _modules_in_the_folder,
    "entry point in the folder": _entry_point_in_the_folder,
    "pickles": _pickles,
    "classes in the model": _classes_in_the_model,
}
"""Name → function that plants the trick in a run folder."""
