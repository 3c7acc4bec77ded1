"""What `umm_bench.run` is given and cannot use is said before a suite or a model is read."""

import pytest

from umm_bench import run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "FILE"], "FILE is a file, not a folder"),
        (["--output", "FILE/reports"], "FILE is a file, not a folder"),
        (["--output", "x" * 300], "name too long"),
        (["--guidance-scale", "nan"], "--guidance-scale must be a finite number"),
        (["--guidance-scale", "-1"], "--guidance-scale must be at least 0"),
        (["--steps", "1001"], "--steps must be at most 1000"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--seed", str(2**64)], "--seed must be at most"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--images-per-prompt", "1.5"], "--images-per-prompt must be a whole number"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_one_line_before_anything_begins(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("a file")
    monkeypatch.setattr(run, "select", lambda request: pytest.fail("it was begun"))
    assert run.main(["--methods", "sd", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
