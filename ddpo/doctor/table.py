"""The report of `ddpo doctor` in Markdown, from its JSON values alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["facts", "library_cells", "markdown", "reward_cells", "row_cells"]

Cells = tuple[str, ...]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as one Markdown page with a table for each part.

    Args:
        report: Values of `ddpo.doctor.report.Report.to_dict`.
    """
    parts = [f"# ddpo doctor\n\nddpo {report['ddpo']}, {report['created']}."]
    if report["problems"]:
        parts.append("\n".join(f"- **{problem}**" for problem in report["problems"]))
    test = report["self_test"]
    if test is not None:
        end = "" if test["finished"] else "; not finished"
        limit = f"at most {test['budget_s']:g} s"
        parts.append(f"## Self-test\n\nOn {test['device']}, size {test['size']}, {limit}{end}.")
        header: Cells = ("part", "subject", "status", "values", "note", "s")
        parts.append(_table(header, [row_cells(row) for row in test["rows"]]))
    parts.append("## Machine\n\n" + _table(("fact", "value"), facts(report["machine"])))
    cells = [library_cells(library) for library in report["libraries"]]
    parts.append("## Libraries\n\n" + _table(("library", "required", "installed", "for"), cells))
    cells = [reward_cells(state) for state in report["rewards"]]
    header = ("reward", "from", "state", "to download", "remedy")
    parts.append("## Rewards\n\n" + _table(header, cells))
    return "\n\n".join(parts) + "\n"


def facts(machine: Mapping[str, Any]) -> list[Cells]:
    """The facts about the machine, each with its name."""
    build = "the CPU alone"
    if machine["rocm"]:
        build = f"ROCm {machine['rocm']}"
    elif machine["cuda"]:
        build = f"CUDA {machine['cuda']}"
    torch = f"{machine['torch']}, built for {build}"
    if machine["cudnn"]:
        torch += f", cuDNN {machine['cudnn']}"
    hub = machine["hub_cache"]
    least = "" if hub["complete"] else "at least "
    count = f"{hub['repositories']} repositories, {least}{hub['size_gb']:.1f} GB"
    return [
        ("Python", machine["python"]),
        ("system", machine["system"]),
        ("processor", f"{machine['processor']}, {machine['cores']} cores"),
        ("memory", _gigabytes(machine["memory_gb"])),
        ("torch", torch),
        *_accelerators(machine["accelerators"]),
        *((f"disk of {disk['use']}", _disk(disk)) for disk in machine["disks"]),
        ("hub cache", f"{count}, {hub['path']}"),
        ("network", "off (DDPO_OFFLINE or HF_HUB_OFFLINE)" if machine["offline"] else "allowed"),
        ("token of the Hugging Face Hub", "yes" if machine["hub_token"] else "no"),
        *((name, value) for name, value in machine["variables"].items()),
    ]


def _accelerators(found: Sequence[Mapping[str, Any]]) -> list[Cells]:
    if not found:
        return [("accelerator", "none")]
    rows: list[Cells] = []
    for each in found:
        words = [each["name"], _gigabytes(each["memory_gb"])]
        if each["capability"]:
            words.append(f"compute capability {each['capability']}")
        if each["bfloat16"] is not None:
            words.append("bfloat16" if each["bfloat16"] else "no bfloat16 in hardware")
        rows.append((each["device"], ", ".join(words)))
    return rows


def _disk(disk: Mapping[str, Any]) -> str:
    return f"{_gigabytes(disk['free_gb'])} free, {disk['path']}"


def _gigabytes(count: float | None) -> str:
    return "unknown" if count is None else f"{count:.1f} GB"


def library_cells(library: Mapping[str, Any]) -> Cells:
    """Name, requirement, installed version, and the extra that needs it."""
    installed = library["installed"] or "none"
    if library["installed"] and not library["fits"]:
        installed += " (does not fit)"
    use = f"extra {library['extra']}" if library["extra"] else "ddpo"
    return library["name"], library["required"] or "any", installed, use


def reward_cells(state: Mapping[str, Any]) -> Cells:
    """Name, origin, state, download size and remedy."""
    size = f"{state['missing_mb']:,.0f} MB" if state["missing_mb"] else ""
    return state["reward"], state["origin"], state["state"], size, state["remedy"]


def row_cells(row: Mapping[str, Any]) -> Cells:
    """Part, subject, status, values, note and seconds of a row of the self-test."""
    values = ", ".join(f"{name} {_value(value)}" for name, value in row["values"].items())
    return row["part"], row["subject"], row["status"], values, row["note"], f"{row['seconds']:.1f}"


def _value(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)


def _table(header: Cells, rows: Sequence[Cells]) -> str:
    if not rows:
        return "None."
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _escaped(text: str) -> str:
    """The text with its line breaks and bars made harmless in a table cell."""
    return " ".join(text.split()).replace("|", "\\|")
