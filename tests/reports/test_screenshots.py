"""The README's pictures, taken by the command in a process of its own: Playwright runs once in one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports import screenshots
from tests.reports.conftest import RUN


def command(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "reports.screenshots", *words],
        capture_output=True, text=True, cwd=Path(screenshots.__file__).parents[1],
    )  # fmt: skip


def test_two_small_pictures_of_what_the_pages_show(browser, made_up, tmp_path):
    done = command("--store", str(made_up.parents[1] / "umm_bench.duckdb"), "--out", str(tmp_path / "docs"))
    assert done.returncode == 0, done.stderr
    paths = [tmp_path / "docs" / name for name in ("report.png", "several.png")]
    assert done.stdout.split() == [str(path) for path in paths]
    pictures = []
    for path in paths:
        assert path.stat().st_size < 250_000
        with Image.open(path) as image:
            assert image.size == (1280, 860)
            pictures.append(np.asarray(image.convert("RGB"), int))
    assert all(picture.std() > 10 for picture in pictures)
    assert np.abs(pictures[0] - pictures[1]).mean() > 3
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["report.png", "several.png"]


def test_a_run_without_several_subjects_is_one_line(finished, tmp_path, capsys):
    assert screenshots.main(["--store", str(finished.store), "--run", RUN, "--out", str(tmp_path)]) == 2
    assert f"run '{RUN}' drew no several subjects" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_playwright_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(screenshots.UserError, match="pip install playwright"), screenshots.started():
        pass
