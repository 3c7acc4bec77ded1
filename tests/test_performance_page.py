"""`python -m benchmarks` on made-up benchmarks: what becomes of their figures, failures and of the page around them."""

import re
from pathlib import Path

import pytest

import benchmarks.__main__ as command

GOOD = (
    'print(\'{"name": "good.speed", "value": 2.5, "unit": "ratio", "higher_is_better": true, "bar": 2, "ok": true, '
    '"note": "1.9-2.6 | pairs"}\')\n'
    'print(\'{"name": "good.memory", "value": 0.6, "unit": "ratio", "higher_is_better": false, "bar": 0.5}\')'
)
MODULES = {
    "good": GOOD,
    "breaks": f"import sys\n{GOOD.splitlines()[0]}\nprint('error: no detector', file=sys.stderr)\nsys.exit(2)",
    "silent": "",
    "chatty": "print('hello')",
}


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page; the benchmarks are the modules above."""
    for name, source in MODULES.items():
        (tmp_path / f"fake_{name}.py").write_text(source)
    monkeypatch.setattr(command, "BENCHMARKS", {name: f"fake_{name}" for name in MODULES})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "performance.md"


def run(page: Path, *words: str) -> int:
    return command.main(["--output", str(page), *words])


def rows_of(page: Path, name: str) -> list[list[str]]:
    (part,) = re.findall(f"<!-- measured: {name} -->(.*?)<!-- end: {name} -->", page.read_text(), re.S)
    lines = [line for line in part.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_a_figure_is_a_row_that_says_whether_its_bar_is_reached(fakes):
    assert run(fakes, "--only", "good") == 0
    assert rows_of(fakes, "good") == [
        ["`good.speed`", "2.5 ratio", "at least 2", "reached", "1.9-2.6 \\| pairs"],
        ["`good.memory`", "0.6 ratio", "at most 0.5", "**below its bar**", ""],
    ]
    assert re.search(r"`python -m fake_good`, commit \w+.*, \d{4}-\d\d-\d\d, \d+ cores of ", fakes.read_text())


def test_one_that_fails_is_a_row_and_the_others_are_measured(fakes, capsys):
    assert run(fakes) == 1
    assert len(rows_of(fakes, "good")) == 2
    measured, failed = rows_of(fakes, "breaks")
    assert measured[0] == "`good.speed`"
    assert failed == ["**failed**", "", "", "", "exit code 2: error: no detector"]
    assert "no figure" in rows_of(fakes, "silent")[0][-1]
    assert "hello" in rows_of(fakes, "chatty")[0][-1]
    assert "FAILED: exit code 2" in capsys.readouterr().out


def test_what_people_wrote_and_what_was_not_chosen_stays(fakes):
    marks = "<!-- measured: good -->\nold\n<!-- end: good -->"
    other = "<!-- measured: breaks -->\nof last week\n<!-- end: breaks -->"
    fakes.write_text(f"# Speed\n\nWhy \\1 it was lost.\n\n{marks}\n\nBetween.\n\n{other}\n\nLast.\n")
    assert run(fakes, "--only", "good") == 0
    text = fakes.read_text()
    assert text.startswith(f"# Speed\n\nWhy \\1 it was lost.\n\n{marks.splitlines()[0]}\n")
    assert text.endswith(f"\n\nBetween.\n\n{other}\n\nLast.\n") and "\nold\n" not in text
    assert run(fakes, "--only", "good") == 0
    assert fakes.read_text() == text


def test_a_run_that_is_stopped_leaves_the_page_as_it_was(fakes, monkeypatch):
    fakes.write_text("as it was")

    def stop(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure", stop)
    assert run(fakes, "--only", "good") == 130
    assert fakes.read_text() == "as it was" and [path for path in fakes.parent.glob("performance*")] == [fakes]


@pytest.mark.parametrize("names", ["good,fast", ",", "nothing"])
def test_an_unknown_name_is_one_line(fakes, names, capsys):
    assert run(fakes, "--only", names) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --only") and said.count("\n") == 1 and "good, breaks" in said
    assert not fakes.exists()


def test_every_benchmark_exists_and_reads_its_words():
    """With one word more that none knows, each says just that."""
    import importlib

    for words in command.BENCHMARKS.values():
        module, *rest = words.split()
        assert importlib.import_module(module).main([*rest, "--json", "--unknown"]) == 2
