"""`ddpo rewards`: one file per command."""

from __future__ import annotations

from ddpo.cli.commands import Commands, Group
from ddpo.cli.rewards.bench import bench_command
from ddpo.cli.rewards.calibrate import calibrate_command
from ddpo.cli.rewards.check import check_command
from ddpo.cli.rewards.compare import compare_command
from ddpo.cli.rewards.doctor import doctor_command
from ddpo.cli.rewards.download import download_command
from ddpo.cli.rewards.listing import list_command
from ddpo.cli.rewards.new import new_command
from ddpo.cli.rewards.score import score_command
from ddpo.cli.rewards.serve import serve_command
from ddpo.cli.rewards.show import show_command
from ddpo.cli.rewards.validate import validate_command

app = Commands(
    cls=Group,
    help="Reward zoo: its rewards, their properties, and scores of your images.",
    no_args_is_help=True,
)
app.command("list")(list_command)
app.command("show")(show_command)
app.command("download")(download_command)
app.command("doctor")(doctor_command)
app.command("bench")(bench_command)
app.command("new")(new_command)
app.command("score")(score_command)
app.command("serve")(serve_command)
app.command("compare")(compare_command)
app.command("calibrate")(calibrate_command)
app.command("validate")(validate_command)
app.command("check")(check_command)
