"""A small real evaluation with the embedded model, as a program; for test_engine.py.

    python engine_worker.py OUT SEED KILLS

evaluates OUT/straight without a pause, OUT/two on two processes and OUT/killed with KILLS kills.
Each kill comes at a random time, or when a random file is written, renamed or made. The samples and
scores of each process are recorded in OUT/NAME-work.jsonl. The parent loads the packages and the
model once and forks, so that an evaluation starts at once. It must have OMP_NUM_THREADS=1, since
threads of PyTorch do not survive a fork.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401  # loaded before the forks
import diffusers.loaders  # noqa: F401
import peft  # noqa: F401
import torch
from analytic import Brightness

from ddpo.distributed import World
from ddpo.eval.generate import sampling
from ddpo.eval.generate.image_store import ImageStore
from ddpo.eval.generate.samples import Sample, SignedReward, make_rows
from ddpo.eval.generate.sampling import ImageRequest, Source, sample_images
from ddpo.eval.generate.scoring import ScoreJournal, score
from ddpo.images import pixels_sha256
from ddpo.policies import load_policy
from ddpo.policies.policy import LoraSettings, TrainablePolicy
from ddpo.policies.sampler import SamplerSettings
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.zoo import resolve
from ddpo.types import ImageBatch, Prompt

PROMPTS = [Prompt(text) for text in ("a cat", "a dog", "a secret", "a yak")]
SEEDS = int(os.environ.get("DDPO_TEST_SEEDS", "3"))
WRITING = os.O_WRONLY | os.O_RDWR
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.truncate")


@cache
def tuned_policy() -> TrainablePolicy:
    """The embedded model with adapters of random weights."""
    policy = load_policy("emoji")
    torch.manual_seed(0)
    policy.adapt("lora", LoraSettings(rank=2, alpha=2))
    for _, parameter in policy.trainable_parameters():
        parameter.data = torch.randn_like(parameter) * 0.1
    return policy


def source(weights: str, batch: int = 32) -> Source:
    return Source(
        "emoji", weights, "float32", SamplerSettings(steps=2, guidance=1.0, batch=batch), seed=11
    )


def plan() -> list[ImageRequest]:
    """All images of the prompts, and the swap test's."""
    own = [ImageRequest(prompt, index) for prompt in PROMPTS for index in range(SEEDS)]
    return [*own, ImageRequest(PROMPTS[0], 0, PROMPTS[1]), ImageRequest(PROMPTS[1], 0, PROMPTS[0])]


def evaluate(out: Path, batch: int = 32) -> list[dict[str, Any]]:
    """Everything but the report."""
    world = World.join("cpu")
    samples: list[Sample] = []
    with ImageStore(out, world.rank) as store, ScoreJournal(out, world.rank) as journal:
        policy = tuned_policy()
        for model, weights in (("base", ""), ("tuned", "0" * 64)):
            list(
                sample_images(
                    policy,
                    store,
                    source(weights, batch),
                    plan(),
                    reference=model == "base",
                    world=world,
                )
            )
            for one in plan()[: len(PROMPTS) * SEEDS]:
                found = store.get(one.key(source(weights)))
                assert found is not None
                samples.append(Sample(model, "few", one.prompt, one.index, found.sha256))
        darkness = resolve("darkness")
        scorers = {darkness.identity: make_scorer(darkness), "brightness": Scorer(Brightness())}
        for identity, scorer in scorers.items():
            list(
                score(
                    scorer,
                    identity,
                    store,
                    journal,
                    [(one.sha256, one.prompt) for one in samples],
                    world=world,
                )
            )
            scorer.close()
        rewards = [
            SignedReward(scorer.reward.card, identity, identity)
            for identity, scorer in scorers.items()
        ]
        rows = [
            asdict(row) | {"score": repr(row.score)} for row in make_rows(samples, rewards, journal)
        ]
    if world.is_main:
        (out / "rows.json").write_text(json.dumps(rows))
    world.barrier()
    world.leave()
    return rows


def record_work(log: Path) -> None:
    """From now on each call of the denoiser and of a reward adds a line to `log`."""
    call = sampling._sample_call
    scored = Scorer.score_unless_down

    def write(kind: str, what: Sequence[str]) -> None:
        with log.open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), "kind": kind, "what": list(what)}) + "\n")

    def spy_sample(
        policy: Any, store: Any, source: Source, part: Sequence[ImageRequest], describe: Any
    ) -> None:
        write("draw", [str(one.key(source)) for one in part])
        call(policy, store, source, part, describe)

    def spy_score(self: Scorer, batch: ImageBatch) -> Any:
        write("score", [f"{self.name} {pixels_sha256(pixels)}" for pixels in batch.uint8])
        return scored(self, batch)

    sampling._sample_call = spy_sample
    Scorer.score_unless_down = spy_score  # type: ignore[method-assign]


def start(
    out: Path, touches: int | None = None, environment: Mapping[str, str] | None = None
) -> int:
    """Evaluates in a new process, which kills itself when it has touched so many files of `out`."""
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(environment or {})
    left = [-1 if touches is None else touches]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        ours = event == "os.truncate" or str(arguments[0] if arguments else "").startswith(
            f"{out}/"
        )
        if event in TOUCHES and ours and (event != "open" or int(str(arguments[2])) & WRITING):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    code = 1
    try:
        record_work(out.with_name(f"{out.name}-work.jsonl"))
        evaluate(out, batch=random.Random(touches).choice([5, 8, 32]))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Waits; the exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def on_two_processes(out: Path) -> None:
    """As `accelerate launch` does it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": "true",
    }
    pids = [
        start(out, environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    codes = [ended(pid) for pid in pids]
    if any(codes):
        sys.exit("the evaluation on two processes failed")


def with_kills(out: Path, random_: random.Random, count: int, seconds: float) -> Iterator[str]:
    """Evaluates `out` until it ends well; yields how each process was killed."""
    for number in range(count + 1):
        kind = "none" if number == count else random_.choice(["time", "file", "file"])
        pid = start(out, random_.randrange(1, min(26, 8 * SEEDS)) if kind == "file" else None)
        if kind == "time":
            time.sleep(random_.uniform(0.1, 0.7) * seconds)
            os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        if code not in (0, -signal.SIGKILL):
            sys.exit(f"a resumed evaluation failed: {code}")
        if code:
            yield kind


def main(folder: str, seed: str, kills: str) -> None:
    """Prints how the processes were killed."""
    tuned_policy()
    started = time.monotonic()
    if ended(start(Path(folder) / "straight")):
        sys.exit("the straight evaluation failed")
    seconds = time.monotonic() - started
    on_two_processes(Path(folder) / "two")
    killed = with_kills(Path(folder) / "killed", random.Random(int(seed)), int(kills), seconds)
    print(json.dumps(list(killed)))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
