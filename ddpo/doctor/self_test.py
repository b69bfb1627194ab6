"""The self-test of an accelerator: its checks, their order and their time estimates."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch

from ddpo.devices import check_device
from ddpo.distributed import process_count
from ddpo.doctor import random_clip, workload
from ddpo.doctor.budget import Budget, Check, first_that_fits, run_checks
from ddpo.doctor.denoiser import DenoiserCost, compiled_cost, denoiser_cost, matmul_tflops
from ddpo.doctor.ratio import ratio_is_one
from ddpo.doctor.resume import deterministic_algorithms, resume_is_equal
from ddpo.doctor.reward_checks import reward_speed, scores_agree, unsuited
from ddpo.doctor.row import Outcome, Row
from ddpo.doctor.training import one_batch_each, training_iterations
from ddpo.doctor.workload import Workload, run_config
from ddpo.errors import ConfigError, one_line
from ddpo.rewards.tools.availability import availability
from ddpo.rewards.zoo import resolve, rewards
from ddpo.trainer.adapted import adapted_policy
from ddpo.trainer.config import TrainConfig

__all__ = ["BUDGET_S", "SelfTest", "Size", "default_device"]

Size = Literal["full", "tiny"]
BUDGET_S: Final = 480.0
ON_CPU: Final = "ddpo doctor --gpu --device cpu --models tiny"
PLACE: Final = "ddpo.doctor.random_policies"
DTYPES: Final = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Scale:
    """Models, workloads and time estimates of one size of the self-test."""

    model: str  # factory in `random_policies` of the trained model
    large_model: str  # factory of the model that gets one batch only
    work: Workload
    large_work: Workload
    matrix: int  # side of the matrices of the peak measurement
    clip: str  # a size of `random_clip.CLIPS`
    encoders: dict[str, int] | None  # sizes that replace those of `clip`
    reward_images: int
    reward_side: int
    reward_batches: tuple[int, ...]
    seconds: float  # factor of the time estimates
    compile_s: float


FULL: Final = Scale(
    model="sd15",
    large_model="sdxl",
    work=workload.FULL,
    large_work=Workload(samples=8, steps=10, guidance=5.0, batches=(4, 2, 1)),
    matrix=8192,
    clip="ViT-L/14",
    encoders=None,
    reward_images=256,
    reward_side=512,
    reward_batches=(16, 64, 256),
    seconds=1.0,
    compile_s=150.0,
)
TINY: Final = Scale(
    model="tiny",
    large_model="tiny_xl",
    work=workload.TINY,
    large_work=Workload(samples=4, steps=3, guidance=5.0, batches=(2, 1)),
    matrix=256,
    clip="ViT-B/32",
    encoders=random_clip.TINY,
    reward_images=8,
    reward_side=64,
    reward_batches=(4, 8),
    seconds=0.1,
    compile_s=240.0,
)
SCALES: Final[dict[Size, Scale]] = {"full": FULL, "tiny": TINY}


def default_device() -> str:
    """The accelerator that torch finds.

    Raises:
        ConfigError: There is none.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        remedy = f"`{ON_CPU}` runs the same checks on the CPU"
        raise ConfigError(f"torch finds no accelerator on this machine; {remedy}")
    return accelerator.type


class SelfTest:
    """All checks on one device; later ones use measurements of earlier ones, such as the peak.

    Args:
        device: Torch device.
        size: "full" for models of the published sizes, "tiny" for ones that a CPU runs in seconds.

    Raises:
        ConfigError: The device cannot be used, or this is one of several processes.
    """

    def __init__(self, device: str, size: Size = "full") -> None:
        if process_count() > 1:
            raise ConfigError("the self-test runs in one process: start it without a launcher")
        check_device(device)
        self.device = device
        self.size = size
        self.scale = SCALES[size]
        self.peak_tflops: float | None = None
        self.cost: DenoiserCost | None = None

    def rows(self, budget_s: float = BUDGET_S) -> Iterator[Row]:
        """Runs the checks within a time budget; one row per check, as soon as it is done."""
        budget = Budget(budget_s)
        with tempfile.TemporaryDirectory(prefix="ddpo-doctor-") as folder:
            yield from run_checks(self.checks(Path(folder)), budget)

    def checks(self, folder: Path) -> list[Check]:
        """The checks, the most important first.

        Args:
            folder: Folder for the weights of a random CLIP model.
        """
        return [
            *self._correctness(),
            *self._scores(folder / "clip"),
            *self._speed(folder / "clip"),
        ]

    def _correctness(self) -> Iterator[Check]:
        device = self.device
        work = self.scale.work
        factor = self.scale.seconds
        short = Workload(samples=4, steps=3, guidance=work.guidance, batches=(2, 1))
        models = dict.fromkeys(["tiny", self.scale.model])
        for model in models:
            for dtype in DTYPES:
                run = functools.partial(ratio_is_one, f"{PLACE}:{model}", device, dtype, short)
                needs = 3 if model == "tiny" else 10
                yield Check("ratio", f"{model}, {dtype}", needs * factor, run)
        resumed = functools.partial(resume_is_equal, f"{PLACE}:tiny", device, short)
        yield Check("resume", "tiny, float32", 5 * factor, resumed)
        label = "tiny, float32, deterministic algorithms"
        yield Check("resume", label, 5 * factor, functools.partial(_deterministic, resumed))

    def _scores(self, clip: Path) -> Iterator[Check]:
        factor = self.scale.seconds
        cards, _ = rewards.available()
        left_out: list[str] = []
        absent: list[str] = []
        for name, card in sorted(cards.items()):
            if reason := unsuited(card):
                left_out.append(f"{name} ({reason})")
            elif not availability(card, rewards.origin(name)).complete:
                absent.append(name)
            else:
                run = functools.partial(_compare, name, self.device)
                yield Check("scores", name, (20 if card.weights else 1) * factor, run)
        label = f"pickscore on random {self._clip_name()}"
        run = functools.partial(self._random_clip_scores, clip)
        yield Check("scores", label, 20 * factor, run)
        for text, names in (("not compared", left_out), ("weights or libraries absent", absent)):
            if names:
                note = Outcome("skipped", note=", ".join(names))
                yield Check("scores", text, 0, functools.partial(_always, note))

    def _speed(self, clip: Path) -> Iterator[Check]:
        scale = self.scale
        factor = scale.seconds
        yield Check("peak", f"matrix product of side {scale.matrix}", 5 * factor, self._peak)
        yield Check("denoiser", f"{scale.model}, bfloat16, eager", 20 * factor, self._denoiser)
        label = f"{scale.model}, bfloat16, LoRA"
        yield Check("training", label, 60 * factor, self._training)
        label = f"{scale.large_model}, bfloat16, LoRA"
        yield Check("training", label, 45 * factor, self._large)
        for dtype in ("bfloat16", "float32"):
            label = f"pickscore on random {self._clip_name()}, {dtype}"
            run = functools.partial(self._reward_speed, clip, dtype)
            yield Check("reward speed", label, 25 * factor, run)
        label = f"{scale.model}, bfloat16, compiled"
        yield Check("denoiser", label, scale.compile_s, self._compiled)

    def _clip_name(self) -> str:
        return self.scale.clip if self.scale.encoders is None else "tiny CLIP"

    def _clip_spec(self, folder: Path, dtype: str) -> str:
        """The expression of pickscore on a random model, which is written once.

        Unlike clip_score, pickscore has negative scores, so no difference hides behind a 0.
        """
        if not (folder / "config.json").exists():
            random_clip.write_small_vocabulary_clip(folder, self.scale.clip, self.scale.encoders)
        return f"pickscore:clip={folder},processor={folder},dtype={dtype}"

    def _random_clip_scores(self, folder: Path) -> Outcome:
        return scores_agree(resolve(self._clip_spec(folder, "float32")), self.device)

    def _reward_speed(self, folder: Path, dtype: str) -> Outcome:
        scale = self.scale
        reward = resolve(self._clip_spec(folder, dtype))
        return reward_speed(
            reward, self.device, scale.reward_batches, scale.reward_images, scale.reward_side
        )

    def _peak(self) -> Outcome:
        device = torch.device(self.device)
        side = self.scale.matrix
        self.peak_tflops = matmul_tflops(device, torch.bfloat16, side)
        return Outcome(
            "measured",
            {
                "bfloat16_tflops": self.peak_tflops,
                "float16_tflops": matmul_tflops(device, torch.float16, side),
                "float32_tflops": matmul_tflops(device, torch.float32, side),
                "tf32_tflops": matmul_tflops(device, torch.float32, side, tf32=True),
            },
            "TF32 is off in the float32 column and in all comparisons",
        )

    def _denoiser(self) -> Outcome:
        cost, note = first_that_fits(self.scale.work.batches, self._eager_cost)
        self.cost = cost
        return Outcome(
            "measured",
            {
                "items_per_call": cost.items,
                "forward_s": cost.forward_s,
                "forward_and_backward_s": cost.training_s,
                "forward_tflop_per_item": cost.forward_flops / cost.items / 1e12,
                "training_tflop_per_item": cost.training_flops / cost.items / 1e12,
                "forward_share_of_bf16_peak": self._share(cost.forward_tflops()),
                "training_share_of_bf16_peak": self._share(cost.training_tflops()),
                "peak_mb": cost.peak_mb,
            },
            note,
        )

    def _eager_cost(self, batch: int) -> DenoiserCost:
        return denoiser_cost(adapted_policy(self._config(batch)), 2 * batch)

    def _compiled(self) -> Outcome:
        batch = self.scale.work.batches[-1] if self.cost is None else self.cost.items // 2
        eager = self.cost or self._eager_cost(batch)
        policy = adapted_policy(self._config(batch))
        try:
            forward_s, training_s = compiled_cost(policy, eager.items)
        except (RuntimeError, NotImplementedError, ImportError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            line = one_line(error)[:200]
            return Outcome("skipped", note=f"torch.compile does not work here: {line}")
        return Outcome(
            "measured",
            {
                "items_per_call": eager.items,
                "forward_s": forward_s,
                "forward_and_backward_s": training_s,
                "forward_speedup": eager.forward_s / forward_s,
                "training_speedup": eager.training_s / training_s,
            },
        )

    def _config(self, batch: int) -> TrainConfig:
        place = f"{PLACE}:{self.scale.model}"
        return run_config(place, self.device, "bfloat16", self.scale.work, batch)

    def _training(self) -> Outcome:
        known = self.cost is not None and self.peak_tflops is not None
        share = self._peak_seconds if known else None
        place = f"{PLACE}:{self.scale.model}"
        return training_iterations(place, self.device, "bfloat16", self.scale.work, share)

    def _large(self) -> Outcome:
        place = f"{PLACE}:{self.scale.large_model}"
        return one_batch_each(place, self.device, "bfloat16", self.scale.large_work)

    def _share(self, tflops: float) -> float | None:
        return None if self.peak_tflops is None else tflops / self.peak_tflops

    def _peak_seconds(self, items: int) -> float:
        """The seconds of an iteration's denoiser calls at the measured bfloat16 peak."""
        if self.cost is None or self.peak_tflops is None:
            return float("nan")
        each = (self.cost.forward_flops + self.cost.training_flops) / self.cost.items
        return items * each / 1e12 / self.peak_tflops


def _deterministic(measure: functools.partial[Outcome]) -> Outcome:
    with deterministic_algorithms():
        return measure()


def _compare(name: str, device: str) -> Outcome:
    return scores_agree(resolve(name), device)


def _always(outcome: Outcome) -> Outcome:
    return outcome
