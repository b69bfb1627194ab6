"""Measures the unchanged loop of a checkout of kvablack/ddpo-pytorch, for `measure_training.py`.

`python tools/reference_loop.py CHECKOUT MODEL BATCH ITERATIONS DTYPE ATTENTION SIZE DEVICE` runs it
under today's diffusers and accelerate. `scripts/train.py`, the sampler, the step and the reward are
the checkout's own. Modules that it imports and that no longer exist get a replacement first:

- `LoRAAttnProcessor` with weights of its own, which diffusers dropped, is written anew here. The
  version for which the checkout was written multiplied matrices and took a softmax (ATTENTION
  "plain"). "fused" is torch's kernel, which a port to today's versions would use.
- `diffusers.utils.randn_tensor` has moved.
- `absl`, `ml_collections`, `wandb` and `inflect` are empty but for the names that the loop needs.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

RANK = 4  # of the LoRA layers that diffusers had


@dataclass(frozen=True)
class Workload:
    """Size of one iteration of either loop."""

    images: int
    steps: int
    updates: int
    sample_batch: int  # images per call of their denoiser in sampling


WORKLOADS = {
    "tiny": Workload(images=16, steps=20, updates=2, sample_batch=8),
    "sd15": Workload(images=32, steps=50, updates=4, sample_batch=8),
}
"""Workload by size; `sd15` is one process of the checkout's config/dgx.py, with LoRA."""


def synchronize(device: str) -> None:
    """Waits for the work of a GPU, which continues after a call has returned."""
    if device != "cpu":
        torch.cuda.synchronize()


def peak_mb(device: str) -> float:
    """The peak memory in 10⁶ bytes: of torch's allocations on a GPU, or else of this process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


FUSED = "fused"


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v, each `[batch, heads, places, d]`, step by step."""
    queries, keys, values = (heads.flatten(0, 1) for heads in (query, key, value))
    empty = torch.empty(
        len(queries), queries.shape[1], keys.shape[1], dtype=query.dtype, device=query.device
    )
    scores = torch.baddbmm(
        empty, queries, keys.transpose(1, 2), beta=0, alpha=query.shape[-1] ** -0.5
    )
    return torch.bmm(scores.softmax(-1), values).unflatten(0, query.shape[:2])


def attend_fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same attention in one kernel."""
    return nn.functional.scaled_dot_product_attention(query, key, value)


class LoraAttention(nn.Module):
    """Attention processor of diffusers whose four projections have low-rank additions.

    Args:
        hidden_size: Number of channels.
        cross_attention_dim: Width of the text; None for self-attention.
    """

    def __init__(self, hidden_size: int, cross_attention_dim: int | None = None) -> None:
        super().__init__()
        sides = {
            "q": hidden_size,
            "k": cross_attention_dim or hidden_size,
            "v": cross_attention_dim or hidden_size,
            "out": hidden_size,
        }
        self.down = nn.ModuleDict(
            {name: nn.Linear(side, RANK, bias=False) for name, side in sides.items()}
        )
        self.up = nn.ModuleDict({name: nn.Linear(RANK, hidden_size, bias=False) for name in sides})
        for name in sides:
            nn.init.normal_(self.down[name].weight, std=1 / RANK)  # type: ignore[arg-type]
            nn.init.zeros_(self.up[name].weight)  # type: ignore[arg-type]

    def forward(
        self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        """The attended hidden states, of the same shape `[batch, places, channels]`."""
        text = hidden if encoder_hidden_states is None else encoder_hidden_states

        def adapted(name: str, base: nn.Module, rows: Tensor) -> Tensor:
            # float32 weights beside frozen ones of half precision, as in the diffusers of its time
            low_rank = self.up[name](self.down[name](rows.to(self.down[name].weight.dtype)))
            made: Tensor = base(rows) + low_rank.to(rows.dtype)
            return made

        def split(name: str, base: nn.Module, rows: Tensor) -> Tensor:
            return adapted(name, base, rows).unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query = split("q", attn.to_q, hidden)
        key = split("k", attn.to_k, text)
        value = split("v", attn.to_v, text)
        attention = attend_fused if FUSED in sys.argv else attend
        mixed = attention(query, key, value).transpose(1, 2).flatten(2)
        return adapted("out", attn.to_out[0], mixed)


class Clock:
    """Wall and processor seconds at the end of each collection, and seconds spent sampling.

    Args:
        iterations: Number of iterations after which the program ends.
        device: "cpu" or "cuda".
    """

    def __init__(self, iterations: int, device: str) -> None:
        self.iterations = iterations
        self.device = device
        self.marks: list[tuple[float, float]] = []
        self.sampling: list[float] = [0.0]

    def sampled(self, function: Any) -> Any:
        """The function, with its time counted as sampling."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronize(self.device)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                synchronize(self.device)
                self.sampling[-1] += time.perf_counter() - start

        return timed

    def marked(self, function: Any) -> Any:
        """The function, which is called once per iteration, between sampling and training."""

        def marking(*args: Any, **kwargs: Any) -> Any:
            synchronize(self.device)
            self.marks.append((time.perf_counter(), time.process_time()))
            self.sampling.append(0.0)
            if len(self.marks) > self.iterations:
                print(json.dumps(self.report()))
                raise SystemExit
            return function(*args, **kwargs)

        return marking

    def report(self) -> dict[str, Any]:
        """The seconds of each iteration and the peak memory.

        An iteration starts with the training on a rollout and ends when the next one is sampled.
        """
        pairs = list(zip(self.marks, self.marks[1:], strict=False))
        return {
            "wall": [after[0] - before[0] for before, after in pairs],
            "cpu": [after[1] - before[1] for before, after in pairs],
            "sampling": self.sampling[1:-1],
            "peak_mb": peak_mb(self.device),
        }


def stand_in(name: str, **members: Any) -> None:
    """Registers a module that is not installed, with some members."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(members)
    sys.modules[name] = module


def settings(
    model: str, batch: int, iterations: int, dtype: str, logs: str, work: Workload
) -> SimpleNamespace:
    """The workload under the checkout's names."""
    sample = {
        "num_steps": work.steps,
        "eta": 1.0,
        "guidance_scale": 5.0,
        "batch_size": work.sample_batch,
        "num_batches_per_epoch": work.images // work.sample_batch,
    }
    train = {
        "batch_size": batch,
        "gradient_accumulation_steps": work.images // work.updates // batch,
        "num_inner_epochs": 1,
        "timestep_fraction": 1.0,
        "cfg": True,
        "learning_rate": 3e-4,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_weight_decay": 1e-4,
        "adam_epsilon": 1e-8,
        "use_8bit_adam": False,
        "max_grad_norm": 1.0,
        "adv_clip_max": 5,
        "clip_range": 1e-4,
    }
    return SimpleNamespace(
        run_name="",
        seed=42,
        logdir=logs,
        num_epochs=iterations + 1,
        save_freq=10**6,
        num_checkpoint_limit=1,
        mixed_precision=dtype,
        allow_tf32=False,
        resume_from="",
        use_lora=True,
        pretrained=SimpleNamespace(model=model, revision="main"),
        sample=SimpleNamespace(**sample),
        train=SimpleNamespace(**train),
        prompt_fn="simple_animals",
        prompt_fn_kwargs={},
        reward_fn="jpeg_compressibility",
        per_prompt_stat_tracking=SimpleNamespace(buffer_size=16, min_count=16),
        to_dict=dict,
    )


def ignored(*_: Any, **__: Any) -> None:
    """Accepts any arguments, for a logger that logs nothing."""


def put_in_place(config: SimpleNamespace) -> None:
    """Registers the modules that the checkout imports and that no longer exist."""
    import diffusers.utils
    from diffusers.models import attention_processor
    from diffusers.utils.torch_utils import randn_tensor

    vars(diffusers.utils)["randn_tensor"] = randn_tensor
    vars(attention_processor)["LoRAAttnProcessor"] = LoraAttention
    app = SimpleNamespace(run=lambda main: main([]))
    flags = SimpleNamespace(FLAGS=SimpleNamespace(config=config))
    stand_in("absl", app=app, flags=flags)
    stand_in("ml_collections", config_flags=SimpleNamespace(DEFINE_config_file=lambda *_: None))
    run = SimpleNamespace(log=ignored, finish=ignored)
    stand_in("wandb", Image=ignored, init=lambda **_: run, config=SimpleNamespace(update=ignored))
    stand_in("inflect", engine=lambda: None)


def main() -> None:
    """Runs the loop until enough iterations are measured, and prints them as JSON."""
    place, model, batch, count, dtype, _, size, device = sys.argv[1:9]
    checkout = Path(place).resolve()
    iterations = int(count)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory() as logs:
        put_in_place(settings(model, int(batch), iterations, dtype, logs, WORKLOADS[size]))
        sys.path.insert(0, str(checkout))
        sampler = import_module("ddpo_pytorch.diffusers_patch.pipeline_with_logprob")
        tracker = import_module("ddpo_pytorch.stat_tracking").PerPromptStatTracker

        clock = Clock(iterations, device)
        vars(sampler)["pipeline_with_logprob"] = clock.sampled(sampler.pipeline_with_logprob)
        tracker.update = clock.marked(tracker.update)
        runpy.run_path(str(checkout / "scripts" / "train.py"), run_name="__main__")


if __name__ == "__main__":
    main()
