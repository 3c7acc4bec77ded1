"""Every benchmark says in one line what it cannot read, before it loads anything."""

import importlib
from pathlib import Path

import pytest

COMMANDS = [
    path.stem
    for path in sorted(Path("benchmarks").glob("*.py"))
    if path.stem not in ("__init__", "common", "stacks", "synthetic_run")
]
NUMBERS = {
    "augmentation": ["--steps", "--pairs", "--subjects"],
    "baselines": ["--subjects", "--steps", "--repeats"],
    "curation": ["--rows", "--workers", "--repeats", "--pairs"],
    "reports": ["--samples", "--side"],
    "sampling": ["--steps", "--batch", "--repeats", "--guidance-scale", "--alpha"],
    "scale": ["--rows", "--machines", "--detector-rate"],
    "soak": ["--rows", "--kills", "--workers"],
    "training": ["--batch-size", "--repeats"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(f"benchmarks.{command}").main(["--no-such-option"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "--no-such-option" in said


@pytest.mark.parametrize("value", ["nan", "-1", "1e400", "many"])
@pytest.mark.parametrize(("command", "option"), [(c, o) for c, options in NUMBERS.items() for o in options])
def test_a_number_is_one(command: str, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(f"benchmarks.{command}").main([f"{option}={value}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and option in said
