"""Promises of README, docs and help that belong to no other test file."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from ddpo.cli.signals import Interruption
from ddpo.errors import RewardFailure
from ddpo.rewards.serve.client import RemoteReward
from tests.warm_start import start_ddpo

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "sample.samples=8",
    "sample.batch=8",
    "sample.steps=2",
    "optim.timesteps=1",
    "optim.updates=1",
    "checkpoint_every=1",
)
SMALL = [word for setting in SETTINGS for word in ("--set", setting)]
UPDATES = ("--set", "optim.updates=2")  # a clip range has an effect from the second on
QUICK = ("--per-prompt", 2, "--history", 0, "--best-of", 0, "--no-held-out")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def numbers_of(row: str) -> list[float]:
    """The numbers in the cells of a table's row, but for the first cell."""
    return [float(cell) for cell in row.strip("|\n ").split("|")[1:]]


def test_the_table_of_sensitivities_follows_from_the_models_schedule() -> None:
    """σ and |∂mean/∂v| / σ of DDIM with η = 1 and v-prediction, from diffusers' schedule.

    Source: arXiv 2010.02502, equations 12 and 16.
    """
    from diffusers import DDIMScheduler

    section = page("docs/training-evidence.md").partition("| timestep |")[2]
    timesteps, _, sigmas, sensitivities = section.splitlines()[:4]
    schedule = DDIMScheduler.from_pretrained(
        ROOT / "ddpo" / "policies" / "emoji" / "weights" / "scheduler"
    )
    schedule.set_timesteps(10)
    alphas = schedule.alphas_cumprod.double()
    last = schedule.final_alpha_cumprod.double()
    stated = zip(
        numbers_of("| timestep |" + timesteps),
        numbers_of(sigmas),
        numbers_of(sensitivities),
        strict=True,
    )
    found = []
    for timestep in schedule.timesteps.tolist():
        alpha = alphas[timestep]
        previous = alphas[timestep - 100] if timestep >= 100 else last
        variance = (1 - previous) / (1 - alpha) * (1 - alpha / previous)
        of_x0 = previous.sqrt() * (1 - alpha).sqrt()
        of_noise = (1 - previous - variance).clamp(min=0).sqrt() * alpha.sqrt()
        sigma = variance.sqrt()
        found.append((timestep, float(sigma), float((of_noise - of_x0).abs() / sigma)))
    for one, other in zip(found, stated, strict=True):
        assert one[0] == other[0]
        assert one[1] == pytest.approx(other[1], abs=6e-4)
        assert one[2] == pytest.approx(other[2], rel=0.05)


def test_the_readme_tells_what_the_page_about_generalisation_measured() -> None:
    readme = page("README.md")
    measured = page("docs/generalisation.md")
    for reward in ("compressibility", "incompressibility", "colorfulness"):
        (row,) = re.findall(rf"^\| {reward}, .+$", readme, re.MULTILINE)
        (source,) = re.findall(rf"^\| {reward} \| (.+%) \|$", measured, re.MULTILINE)
        short = [
            cell.partition(";")[0].replace(", +", " to ").replace("(+", "(")
            for cell in source.split(" | ")[:3]
        ]
        pairs = zip(
            re.findall(r"\+?[\d.]+", row), re.findall(r"\+?[\d.]+", " ".join(short)), strict=True
        )
        assert all(float(one) == float(other) for one, other in pairs), reward


def test_the_readme_tells_the_onsets_and_counts_of_the_measured_readings() -> None:
    readme = " ".join(page("README.md").split())
    measured = page("docs/generalisation.md")
    onsets = []
    left = []
    for reward in ("compressibility", "incompressibility", "colorfulness"):
        table = measured.partition(f"<!-- history {reward}:begin -->")[2].partition("<!--")[0]
        rows = [
            line.strip("| ").split(" | ") for line in table.splitlines() if re.match(r"\| \d", line)
        ]
        onsets.append(next(int(row[0]) for row in rows if row[-1] == "strong signs"))
        left.append(int(rows[-1][4].rstrip("%").replace("−", "-")))
    assert f"from iteration {onsets[0]}, {onsets[1]} and {onsets[2]} on" in readme
    assert max(left) < 25
    assert "less than a quarter is left" in readme
    counts = [
        list(map(int, found))
        for found in re.findall(r"no sign: (\d+), watch: (\d+), strong signs: (\d+)\.", measured)
    ]
    runs = sum(map(sum, counts))
    watch = sum(found[1] for found in counts)
    strong = sum(found[2] for found in counts)
    assert strong == 0
    assert (
        f'no strong sign in {runs} runs that were stopped in time ({watch} of them "watch")'
        in readme
    )


def test_the_output_in_the_readme_has_the_columns_of_an_evaluation(
    images: Path, tmp_path: Path, ddpo: Run
) -> None:
    block = page("README.md").partition("```text\n")[2].partition("```")[0].splitlines()
    start = next(number for number, line in enumerate(block) if "interval" in line)
    columns = re.split(r"\s{2,}", block[start].strip())
    assert len(columns) == 5
    assert [re.split(r"\s{2,}", line)[0] for line in block[start + 1 :]] == [
        "seen pairings",
        "unseen pairings",
        "new pairings",
        "objects",
    ]
    arguments = [
        "eval",
        *images_of(images),
        "--reward",
        "darkness",
        "--no-held-out",
        "--out",
        tmp_path / "report",
    ]
    code, output, errors = ddpo(*arguments, "--trained-prompts", images / "p.txt")
    assert code == 0, errors
    headers = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    assert any(set(columns) <= set(header) for header in headers), (
        output
    )  # wide terminals have more columns


def test_the_second_ctrl_c_stops_at_once() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interruption() as interruption:
            interruption.arm()
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.asked
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A server that sends every request on to another path, and the requests that it got."""
    asked: list[str] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Authorization')}")
            self.send_response(302)
            self.send_header("Location", "/taken")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def test_a_redirection_does_not_take_the_token_along(elsewhere: tuple[str, list[str]]) -> None:
    address, asked = elsewhere
    with pytest.raises(RewardFailure, match="302"):
        RemoteReward(f"{address}/darkness", token="secret")
    assert asked
    assert not [request for request in asked if request.startswith("/taken")]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of images of two prompts, and the list of prompts."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    (folder / "p.txt").write_text("a cat\na teapot\n", encoding="utf-8")
    for name, level in (("base", 200), ("tuned", 40)):
        for place, prompt in enumerate(("a_cat", "a_teapot")):
            (folder / name / prompt).mkdir(parents=True)
            for index in range(2):
                colour = (level, level - 10 * index, level - 20 * place)
                Image.new("RGB", (32, 32), colour).save(folder / name / prompt / f"{index}.png")
    return folder


def images_of(folder: Path) -> list[str]:
    return [
        "--images",
        f"base={folder / 'base'}",
        "--images",
        f"tuned={folder / 'tuned'}",
        "--prompts",
        str(folder / "p.txt"),
    ]


def test_json_and_markdown_are_alone_on_standard_output(
    images: Path, tmp_path: Path, ddpo: Run
) -> None:
    arguments = [
        "eval",
        *images_of(images),
        "--reward",
        "darkness",
        "--no-held-out",
        "--out",
        tmp_path / "report",
    ]
    code, output, _ = ddpo(*arguments, "--format", "json")
    assert code == 0
    assert json.loads(output) == json.loads(
        (tmp_path / "report" / "report.json").read_text(encoding="utf-8")
    )
    code, output, errors = ddpo(*arguments, "--format", "github")
    assert code == 0
    assert "\n### tuned against" in output
    assert "Report: " in errors


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("p.gain < 0", 0),
        ("p.gain > 0", 3),
        ("tuned:p.gain.darkness > 0.1", 3),
        ("reading >= strong", 4),
    ],
)
def test_conditions_decide_the_exit_status(
    images: Path, tmp_path: Path, ddpo: Run, condition: str, code: int
) -> None:
    """The tuned images are darker; at most two kinds of evidence allow no verdict.

    A condition without a verdict cannot be decided.
    """
    arguments = [
        *images_of(images),
        "--reward",
        "darkness",
        "--no-held-out",
        "--out",
        tmp_path / "report",
    ]
    assert ddpo("eval", *arguments, "--fail-if", condition)[0] == code


def test_the_best_checkpoint_is_evaluated_and_exported(tmp_path: Path, ddpo: Run) -> None:
    run = tmp_path / "run"
    arguments = (
        "--reward",
        "darkness",
        "--held-out",
        "colorfulness",
        "--iterations",
        2,
        "--out",
        run,
    )
    (tmp_path / "two.txt").write_text("a cat\na teapot\n", encoding="utf-8")
    held_out = f'held_out_prompts="{tmp_path / "two.txt"}"'
    assert ddpo("train", *arguments, *SMALL, "--set", held_out)[0] == 0
    best = json.loads((run / "checkpoints" / "best.json").read_text(encoding="utf-8"))
    name = next(str(value) for value in best.values() if str(value).startswith("iteration-"))
    code, output, errors = ddpo("export", run / "best", "--out", tmp_path / "lora")
    assert code == 0, errors
    assert f"iteration {int(name.removeprefix('iteration-'))}," in output
    prompts = ("--prompts", tmp_path / "two.txt")
    assert ddpo("eval", "--checkpoint", run / "best", *prompts, *QUICK)[0] == 0
    assert (run / "eval" / name / "report.html").exists()


def test_checkpoints_of_two_base_models_are_not_evaluated_together(
    tiny_model: Path, tmp_path: Path, ddpo: Run
) -> None:
    for name, model in (("a", "emoji"), ("b", str(tiny_model))):
        arguments = (
            "--reward",
            "darkness",
            "--model",
            model,
            "--iterations",
            1,
            "--out",
            tmp_path / name,
        )
        assert ddpo("train", *arguments, *SMALL)[0] == 0
    for command in (
        ["eval", "--checkpoint", tmp_path / "a", "--checkpoint", tmp_path / "b"],
        ["compare", tmp_path / "a", tmp_path / "b"],
    ):
        code, _, errors = ddpo(*command)
        assert code == 2
        assert "one evaluation has one base model" in errors
        assert len(errors.strip().splitlines()) == 1


RELATIVES = {
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"),
    "LoKr": ("lokr_w1", "lokr_w2", "alpha"),
    "LoKr in two factors": ("lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"),
    "(IA)³": ("on_input", "weight"),
    "full differences": ("diff",),
}


@pytest.mark.parametrize("kind", RELATIVES)
@pytest.mark.parametrize(
    "prefix",
    ["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", "lycoris_unet_mid_block"],
)
def test_relatives_of_lora_are_refused_in_one_line(
    tiny_model: Path, tmp_path: Path, ddpo: Run, kind: str, prefix: str
) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "relative.safetensors"
    save_file({f"{prefix}.{name}": torch.ones(2, 2) for name in RELATIVES[kind]}, file)
    code, _, errors = ddpo(
        "sample", "--checkpoint", file, "--model", tiny_model, "a cat", "--out", tmp_path / "out"
    )
    assert code == 2
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "LoRA" in line


@pytest.fixture(scope="module")
def tiny_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration on a tiny Stable Diffusion."""
    from ddpo.trainer import config_for, train

    folder = tmp_path_factory.mktemp("run") / "run"
    sample = {"samples": 8, "per_prompt": 8, "batch": 8, "steps": 2, "guidance": 1.0}
    optim = {"timesteps": 1, "updates": 1, "skip_last": 0}
    settings = {
        "reward": "darkness",
        "model": str(tiny_model),
        "iterations": 1,
        "checkpoint_every": 1,
        "device": "cpu",
    }
    for _ in train(config_for({**settings, "sample": sample, "optim": optim}), folder):
        pass
    return folder


def test_a_run_leaves_what_the_page_names(tiny_run: Path) -> None:
    files = page("docs/run-folder.md").partition("\n## Files\n")[2].partition("\n## ")[0]
    named = re.findall(r"`([\w.]+?)/?`", files)
    assert set(named) - {"diverged.json", "stopped.json", "held_out.jsonl"} == {
        path.name for path in tiny_run.iterdir()
    }
    keys = json.loads((tiny_run / "metrics.jsonl").read_text(encoding="utf-8")).keys()
    rows = page("docs/run-folder.md").partition("| in `metrics.jsonl` | |")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", rows, re.MULTILINE)
    assert len(cells) > 5
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} <= set(keys)


def test_the_plan_of_a_run_has_the_lines_of_the_page(
    tiny_model: Path, tmp_path: Path, ddpo: Run
) -> None:
    block = (
        page("docs/run-folder.md")
        .partition("Every start makes them too, and prints:\n\n```\n")[2]
        .partition("```")[0]
    )
    labels = [line.split()[0] for line in block.splitlines()]
    assert labels[:2] == ["settings", "batch"]
    arguments = ("--reward", "darkness", "--model", tiny_model, "--out", tmp_path / "run")
    code, output, errors = ddpo(
        "train", "--dry-run", *arguments, *SMALL, "--set", "sample.per_prompt=8", *UPDATES
    )
    assert code == 0, errors
    found = [
        line.lstrip("! ").split()[0] for line in output.splitlines() if re.match(r"[ !] \w+ ", line)
    ]
    assert found == labels
    assert not (tmp_path / "run").exists()


def test_a_merged_export_is_a_whole_pipeline(tiny_run: Path, tmp_path: Path, ddpo: Run) -> None:
    from diffusers import DiffusionPipeline

    code, output, errors = ddpo("export", tiny_run, "--out", tmp_path / "model", "--merge")
    assert code == 0, errors
    assert "DiffusionPipeline.from_pretrained(" in output
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    assert not [name for name, _ in pipeline.unet.named_parameters() if "lora" in name]


def test_an_upload_without_a_network_keeps_what_was_written(
    tiny_run: Path, tmp_path: Path, ddpo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPO_OFFLINE", "1")
    code, _, errors = ddpo(
        "export", tiny_run, "--out", tmp_path / "lora", "--push-to-hub", "me/my-lora"
    )
    assert code == 2
    assert "is written, but not uploaded" in errors
    assert (tmp_path / "lora" / "README.md").read_text(encoding="utf-8").startswith("---\n")


def test_the_options_of_sampling_reach_the_report(
    tiny_run: Path, tmp_path: Path, ddpo: Run
) -> None:
    (tmp_path / "p.txt").write_text("a cat\n", encoding="utf-8")
    options = ("--steps", 3, "--guidance", 2.5, "--eta", 0, "--seed", 77)
    arguments = (
        "--checkpoint",
        tiny_run,
        "--prompts",
        tmp_path / "p.txt",
        "--out",
        tmp_path / "report",
    )
    code, _, errors = ddpo("eval", *arguments, *QUICK, *options)
    assert code == 0, errors
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["seed"] == 77
    assert {name: report["sampler"][name] for name in ("steps", "guidance", "eta")} == {
        "steps": 3,
        "guidance": 2.5,
        "eta": 0,
    }


def test_without_stochasticity_other_images_are_drawn(tmp_path: Path, ddpo: Run) -> None:
    for name, eta in (("a", 0), ("b", 0), ("c", 1)):
        assert (
            ddpo(
                "sample",
                "a cat",
                "--per-prompt",
                1,
                "--steps",
                2,
                "--eta",
                eta,
                "--out",
                tmp_path / name,
            )[0]
            == 0
        )
    (first,), (again,), (other,) = (
        [path.read_bytes() for path in (tmp_path / name).glob("*-0.png")] for name in "abc"
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(("option", "leaks", "dropped"), [("report", 1, 0), ("drop", 0, 1)])
def test_prompts_that_training_gave_away_are_reported_or_dropped(
    images: Path, tmp_path: Path, ddpo: Run, option: str, leaks: int, dropped: int
) -> None:
    """Of "a cat" and "a teapot", the training prompt "the cats" gives the first one away."""
    (tmp_path / "trained.txt").write_text("the cats\n", encoding="utf-8")
    arguments = (
        *images_of(images),
        "--reward",
        "darkness",
        "--no-held-out",
        "--out",
        tmp_path / "report",
    )
    code, _, errors = ddpo(
        "eval", *arguments, "--trained-prompts", tmp_path / "trained.txt", "--leaks", option
    )
    assert code == 0, errors
    (split,) = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))[
        "splits"
    ]
    assert split["dropped"] == dropped
    assert split["prompts"] == 2 - dropped
    assert len(split["leaks"]) == leaks + dropped


def test_code_of_hub_repositories_is_never_run() -> None:
    """A promise of SECURITY.md; the libraries run such code only where this argument is true."""
    assert "`trust_remote_code` is not used" in page("SECURITY.md")
    assert [
        path.name
        for path in (ROOT / "ddpo").rglob("*.py")
        if "trust_remote_code" in path.read_text(encoding="utf-8")
    ] == []


def test_the_version_is_that_of_the_package(ddpo: Run) -> None:
    import ddpo as package

    assert ddpo("--version")[:2] == (0, f"{package.__version__}\n")


def test_the_extras_that_the_pages_name_exist() -> None:
    import tomllib

    project = tomllib.loads(page("pyproject.toml"))["project"]
    named = {
        name
        for file in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for name in re.findall(r"ddpo\[(\w+)\]", file.read_text(encoding="utf-8"))
    }
    assert {"heif", "serve"} <= named
    assert named <= set(project["optional-dependencies"])
    assert project["requires-python"] == ">=3.11"
    assert "Python 3.11 or newer" in page("README.md")


def test_a_server_keeps_to_its_token_and_its_limits() -> None:
    import urllib.error
    import urllib.request

    from ddpo.types import ImageBatch, Prompt

    words = ["rewards", "serve", "compressibility", "--port", "0", "--token", "secret"]
    with start_ddpo(*words, "--max-pixels", "100") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        host = url.rpartition("/")[0]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{host}/health", timeout=20)
        reward = RemoteReward(url, token="secret")
        small, large = (
            ImageBatch(torch.zeros(1, 3, side, side), (Prompt(""),)) for side in (10, 11)
        )
        assert len(reward(small)) == 1
        with pytest.raises(RewardFailure, match="pixels"):
            reward(large)
        process.terminate()
    assert refused.value.code == 401


@pytest.mark.slow
def test_torchrun_starts_a_run_of_two_processes(tiny_model: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "ddpo",
        "train",
    ]
    arguments = [
        "--reward",
        "darkness",
        "--model",
        str(tiny_model),
        "--iterations",
        "1",
        "--device",
        "cpu",
        "--out",
        "run",
    ]
    settings = ["--set", "sample.samples=16", "--set", "sample.per_prompt=8", *SMALL[2:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments, *settings],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run folder: run") == 1
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["reward_queries"] == 16
    assert (
        json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["processes"]
        == 2
    )


def test_an_evaluation_measures_four_kinds_of_evidence_without_downloaded_rewards(
    tiny_run: Path, tmp_path: Path, ddpo: Run
) -> None:
    (tmp_path / "p.txt").write_text("a cat\na teapot\na dog\n", encoding="utf-8")
    arguments = (
        "--checkpoint",
        tiny_run,
        "--prompts",
        tmp_path / "p.txt",
        "--out",
        tmp_path / "report",
    )
    code, _, errors = ddpo("eval", *arguments)
    assert code == 0, errors
    (reading,) = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))[
        "readings"
    ]
    assert len(reading["evidence"]) == 7
    assert "Seven kinds of evidence are graded" in page("docs/evaluation-metrics.md")
    measured = [one["kind"] for one in reading["evidence"] if one["grade"] != "not measured"]
    assert len(measured) >= 4


def test_the_batch_size_of_calibrating_comparing_and_validating_changes_no_score(
    images: Path, tmp_path: Path, ddpo: Run
) -> None:
    base = images / "base"
    (tmp_path / "choices.csv").write_text(
        "image_a,image_b,label\na_cat/0.png,a_teapot/1.png,a\n", encoding="utf-8"
    )
    choices = ("--preferences", tmp_path / "choices.csv", "--images", base)
    for command, arguments in {
        "calibrate": ("darkness", base),
        "compare": ("darkness", "saturation", base, "--no-edits"),
        "validate": ("darkness", *choices),
    }.items():
        written = []
        for size in (1, 3, 16):
            out = tmp_path / f"{command}-{size}.json"
            code, _, errors = ddpo(
                "rewards", command, *arguments, "--batch-size", size, "--no-cache", "--out", out
            )
            assert code == 0, errors
            found = json.loads(out.read_text(encoding="utf-8"))
            found.pop("created", None)  # the time of day
            written.append(found)
        assert written[0] == written[1] == written[2]


def test_checking_a_reward_with_a_prompt_that_it_needs(tmp_path: Path, ddpo: Run) -> None:
    """The reward raises unless a number is in the prompt."""
    source = (
        "import re\ndef count(images, prompts):\n"
        "    return [float(re.search('[0-9]+', prompt)[0]) for prompt in prompts]\n"
    )
    (tmp_path / "counting.py").write_text(source, encoding="utf-8")
    arguments = ("rewards", "check", f"{tmp_path / 'counting.py'}:count", "--only", "contract")
    assert ddpo(*arguments)[0] == 1
    assert ddpo(*arguments, "--prompt", "2 cats")[0] == 0
