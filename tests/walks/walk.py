"""A walk through pages of the documentation: their files are written, their commands are run."""

from __future__ import annotations

import re
import resource
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.installed import ROOT, Completed, Environment

PART = re.compile(
    r"^(?P<fence>```)(?P<language>\w*)\n(?P<block>.*?)^```$|^## (?P<heading>[^\n]+)$",
    re.MULTILINE | re.DOTALL,
)
FILE = re.compile(r"# (?P<name>[\w./-]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        section: the heading above it, without links.
        language: the word after the fence.
        text: its contents.
    """

    section: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a block for the shell, without comments; continued lines are joined."""
        joined = re.sub(r"\s*\\\n\s*", " ", self.text)
        lines = (re.sub(r"\s+#.*", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page of the repository, in order."""
    section = ""
    for part in PART.finditer((ROOT / page).read_text(encoding="utf-8")):
        if part["heading"]:
            section = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", part["heading"])
        else:
            yield Block(section, part["language"], part["block"])


def python_of(page: str, heading: str | None = None) -> str:
    """The Python of a page, or of one section, as one text."""
    found = [block for block in blocks(page) if block.language == "python"]
    chosen = [block.text for block in found if heading in (None, block.section)]
    assert chosen, f"{page} has no Python in section {heading!r}"
    return "\n".join(chosen)


@dataclass
class Walk:
    """What a newcomer does in an empty folder.

    Attributes:
        environment: the installed package.
        folder: the working folder.
        sizes: beginning of a command → options that make it small.
        words: word of the pages → the newcomer's own.
        report: receiver of a line with the processor time of each command.
    """

    environment: Environment
    folder: Path
    sizes: Mapping[str, str]
    words: Mapping[str, str]
    report: Callable[[str], None] = print

    def section(self, page: str, heading: str) -> list[Completed]:
        """Writes the files and runs the commands of a section of a page, in order.

        Raises:
            AssertionError: A command ended with an exit code other than 0.
        """
        found = [block for block in blocks(page) if block.section == heading]
        assert found, f"{page} has no section {heading!r} with a block"
        results = []
        for block in found:
            if block.language == "python":
                self.write(block.text)
            elif block.language == "sh":
                results += [self.run(command) for command in block.commands]
        return results

    def said(self, page: str, command: str) -> Completed:
        """Runs a command that the text of a page, or one of its blocks, names."""
        text = (ROOT / page).read_text(encoding="utf-8")
        named = re.search(rf"(`|^){re.escape(command)}(`|\s+#|$)", text, re.MULTILINE)
        assert named, f"{page} does not say {command!r}"
        return self.run(command)

    def write(self, code: str) -> None:
        """Writes the file that the first line of its code names."""
        name = FILE.match(code)
        assert name, f"no file name in the first line of: {code[:60]!r}"
        (self.folder / name["name"]).write_text(code, encoding="utf-8")

    def run(self, command: str, code: int = 0) -> Completed:
        """Runs a command in the folder.

        Args:
            command: a command line; `words` are replaced and `sizes` are added.
            code: the expected exit code.

        Raises:
            AssertionError: The command ended with another exit code.
        """
        words = [self._own(word) for word in shlex.split(command)]
        for start, options in self.sizes.items():
            if words[: len(start.split())] == start.split():
                words += shlex.split(options)
                break
        began = _seconds_of_programs()
        done = self.environment.run(*words, cwd=self.folder)
        self.report(f"{_seconds_of_programs() - began:5.1f} s  {shlex.join(words)}")
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        assert code == 0 or len(done.stderr.strip().splitlines()) == 1, done.stderr
        return done

    def _own(self, word: str) -> str:
        for old, new in self.words.items():
            word = word.replace(old, new)
        return word


def _seconds_of_programs() -> float:
    """Processor time of all programs that were run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
