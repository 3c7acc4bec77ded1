"""README and docs: what is marked as running on mini runs, and every command shown has the options that it is given.

A fence is marked by the comment before it: `<!-- runs on mini -->`, or `<!-- runs on mini, slow -->`. The marked fences
of a document run in their order, in one folder that holds nothing but `docs`; its Python is one script, run last.
"""

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:<!-- (runs on mini(?:, slow)?) -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)
MARK = re.compile(r"<!--(?! (?:measured|end): ).*?-->")  # but for those between which benchmarks write


def fences(document: Path) -> list[tuple[str, str, str]]:
    """(mark or "", language, text) of each."""
    return [(mark or "", language, text) for mark, language, text in FENCE.findall(document.read_text())]


def command_lines(document: Path) -> Iterator[str]:
    """Each line of a shell fence, with what its backslashes continue, and each command in running text."""
    for _, language, text in fences(document):
        if language == "sh":
            yield from text.replace("\\\n", " ").splitlines()
    running = FENCE.sub("", document.read_text())
    yield from (
        " ".join(words.split()) for words in re.findall(r"`((?:python -m|make|accelerate launch) [^`]+)`", running)
    )


class _Asked(Exception):
    """Carries the parser that a command would have used."""


@cache
def parser_of(module: str) -> argparse.ArgumentParser:
    def stop(self, *args, **kwargs):
        raise _Asked(self)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # runpy's, of a module that is imported already
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [module])
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
        except _Asked as asked:
            return asked.args[0]
    raise AssertionError(f"{module} parses no arguments")


def complaint(line: str) -> str | None:
    """What is wrong with a command that is shown, without running it; None where nothing is, or it is not ours."""
    if not re.match(r"python -m |make |accelerate launch ", line):
        return None
    words = shlex.split(line, comments=True)
    if words[:1] == ["make"]:
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
        asked = {word for word in words[1:] if not re.match(r"[A-Z_]+=", word)}
        return None if asked <= targets else f"no such target: {line}"
    if words[:2] == ["accelerate", "launch"]:
        words = ["python", *words[2:]]
    module, rest = words[2], words[3:]
    said: list[str] = []
    parser = parser_of(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "error", lambda message: (said.append(message), (_ for _ in ()).throw(_Asked))[1])
        try:
            parser.parse_args(rest)
        except _Asked:
            if len(rest) == 0 and "required" in said[0]:
                return None  # only named
            return f"{line}: {said[0]}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_command_shown_is_one_that_the_parsers_take(document):
    lines = [line for line in command_lines(document) if line.strip()]
    assert [wrong for line in lines if (wrong := complaint(line))] == []


def test_a_wrong_option_target_or_choice_is_found():
    assert complaint("python -m curation.build --source laion --inptu x") is not None
    assert complaint("python -m curation.build --executor spark") is not None
    assert complaint("make breakfast") is not None
    assert complaint("python -m umm_bench.run --methods sd,umm   # a comment --nonsense") is None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_option_in_running_text_is_some_commands(document):
    running = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
    shown = {
        option for code in re.findall(r"`([^`]+)`", running) for option in re.findall(r"(?<!\S)--[a-z][\w-]*", code)
    }
    modules = [
        *("curation.build", "curation.evaluate", "curation.judge", "curation.grounding.groundingdino_py"),
        *("umm_bench.run", "umm_bench.train", "umm_bench.sample", "reports.render", "umm_bench.mini.pretrain"),
        *("umm_bench.suites", "umm_bench.suites.new", "umm_bench.rare", "umm_bench.focus"),
        *("umm_bench.demo", "umm_bench.vote", "reports.screenshots"),
        *("umm_bench.export", "umm_bench.replay", "umm_bench.validate_metrics", "benchmarks.scoring"),
        *("benchmarks.curation", "benchmarks.soak", "benchmarks.scale"),
        *("benchmarks.sampling", "benchmarks.training", "benchmarks.baselines"),
    ]
    known = {option for module in modules for option in parser_of(module)._option_string_actions}
    assert shown <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_somewhere_and_named_files_are_there(document):
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (document.parent / target).exists(), target
    places = re.findall(r"`((?:curation|umm_bench|baselines|reports|benchmarks|tests|docs)/[\w/.]+)`", text)
    for place in places:
        assert place.startswith("reports/run") or (ROOT / place.replace("NAME.py", "")).exists(), place
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        headings = re.findall(r"^#+ (.+)$", (document.parent / target).read_text() if target else text, re.M)
        assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, anchor


def _run_fences(document: Path, folder: Path, slow: bool) -> int:
    """Runs the marked fences of a document; how many there were."""
    (folder / "docs").symlink_to(ROOT / "docs")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    marked = [(language, text) for mark, language, text in fences(document) if mark and (slow or "slow" not in mark)]
    commands = [["bash", "-euc", text] for language, text in marked if language == "sh"]
    if script := "\n".join(text for language, text in marked if language == "python"):
        commands.append([sys.executable, "-c", script])
    for command in commands:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert done.returncode == 0, f"{document.name}:\n{command[-1]}\n{said}"
    return len(marked)


def _marked(slow: bool) -> list[Path]:
    return [d for d in DOCUMENTS if any(mark and ("slow" in mark) == slow for mark, _, _ in fences(d))]


@pytest.mark.parametrize("document", _marked(slow=False), ids=lambda path: path.stem)
def test_what_is_marked_as_running_runs(document, tmp_path):
    assert _run_fences(document, tmp_path, slow=False) > 0


@pytest.mark.slow
@pytest.mark.parametrize("document", _marked(slow=True), ids=lambda path: path.stem)
def test_what_is_marked_as_slow_runs(document, tmp_path):
    assert _run_fences(document, tmp_path, slow=True) > 0


def test_no_mark_is_misspelt():
    for document in DOCUMENTS:
        marks = MARK.findall(document.read_text())
        assert len(marks) == sum(1 for mark, _, _ in fences(document) if mark), f"{document.name}: {marks}"


def test_lower_bounds_are_those_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints-oldest.txt").read_text().splitlines() if "==" in line
    )
    asked = [
        *project["dependencies"],
        *(r for extra in ("semantic", "tensorboard") for r in project["optional-dependencies"][extra]),
    ]
    for requirement in asked:
        name, _, bound = requirement.partition(">=")
        assert pinned[name] == bound or pinned[name].startswith(f"{bound}."), (
            f"{requirement}, tested with {pinned[name]}"
        )
